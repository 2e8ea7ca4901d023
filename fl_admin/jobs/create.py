"""An MMAR -> a job to submit: the author's documents as they are, NVFlare's beside them.

The job is put together in a folder of its own, checked there, and moved to its place in one step.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl_admin.jobs.cross_validation import cross_validation_document
from fl_admin.jobs.given_models import ValidationSettings, write_given_models
from fl_admin.jobs.job import Job
from fl_admin.jobs.settings import APP, JobSettings, name_problems
from fl_client.job_check import check_job
from fl_client.jobs.files import FOLDERS, META
from mmar_runtime.cli.upgrade import document_text
from mmar_runtime.config.loader import (
    CROSS_VALIDATION_FILE,
    ENVIRONMENT_FILE,
    TRAIN_FILE,
    UNUSED_VARIABLE,
    VALIDATION_FILE,
    load_evaluation_config,
    load_train_config,
    unused_values,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import Literal, WeightsFile
from mmar_runtime.config.overrides import COMMAND_LINE, Scalar
from mmar_runtime.config.sections import TrainConfig, WorkflowConfig
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, MmarError, Problem
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.files import replace_folder
from mmar_runtime.mmar import Mmar, is_workflow
from mmar_runtime.policy.component_check import all_components, component_check
from mmar_runtime.policy.custom_check import own_class_fault, undefined_fault
from mmar_runtime.policy.files.tree_hash import tree_files
from mmar_runtime.policy.mmar_check import SITE_VARIABLES

ENVIRONMENT, VALIDATION, CROSS_VALIDATION = (
    Path(file).name for file in (ENVIRONMENT_FILE, VALIDATION_FILE, CROSS_VALIDATION_FILE)
)
WITH_CODE = (
    "--with-code takes custom/ along. A site runs it only if its policy allows code: "
    "'mmar site approve'."
)
MAX_NAMED = 5
"""Files that a notice names; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """Which job to make of an MMAR.

    Attributes:
        mmar: the MMAR; only read.
        settings: the numbers of the job, or what it has evaluated.
        name: the job's name; empty means the name of the MMAR's folder.
        with_code: whether the MMAR's own code goes along, if it has any.
        values: variables for the job's ``environment.json``, which win over the MMAR's.
        models: of a job that only has models evaluated: name -> checkpoint.
    """

    mmar: Mmar
    settings: JobSettings | ValidationSettings = field(default_factory=JobSettings)
    name: str = ""
    with_code: bool = False
    values: Mapping[str, Scalar] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedJob:
    """A job that was made.

    Attributes:
        job: the job, at its place.
        notices: what was made up, left out or translated.
        refusals: for which a site with the default policy would refuse it.
    """

    job: Job
    notices: tuple[str, ...]
    refusals: tuple[Problem, ...]


def create_job(request: JobRequest, out: Path, *, overwrite: bool = False) -> CreatedJob:
    """Make the job; after an error nothing of it is there.

    Args:
        request: what to make.
        out: becomes the job's folder.
        overwrite: whether a job that is there already is replaced.

    Raises:
        ConfigError: with every fault of the request and of the MMAR, or ``out`` is taken.
        MmarError: a file cannot be read or written.
    """
    target = out.expanduser().resolve()
    is_new = not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir()))
    fault, advice = "", "Choose another folder."
    if request.mmar.root.is_relative_to(target):
        fault = f"{str(target)!r} holds the MMAR itself"
    elif not is_new and not (target / META).is_file():
        fault = f"{str(target)!r} is there and is not a job"
    elif not is_new and not overwrite:
        fault, advice = f"the job {str(target)!r} is there already", "--overwrite replaces it."
    if fault:
        raise ConfigError([Problem(Location("--out"), fault, advice, "job")])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            staged = Path(folder) / "job"
            created = _Builder(request, staged).build()
            replace_folder(staged, target, previous=Path(folder) / "old")
    except OSError as error:
        raise MmarError(f"the job cannot be made: {error}") from error
    return replace(created, job=Job.open(target))


def is_plain_mmar(folder: Path) -> bool:
    """Return whether a folder is an MMAR and no job."""
    return (folder / "config").is_dir() and not (folder / META).exists()


def mmar_to_federate(folder: str | Path) -> Mmar:
    """Return the MMAR in a folder that is to become a job.

    Raises:
        ConfigError: there is none, or the folder is a job already.
    """
    if (Path(folder).expanduser() / META).is_file():
        message = f"{str(folder)!r} is a job already"
        advice = "Name the MMAR, such as the job's folder 'app'."
        raise ConfigError([Problem(Location("MMAR"), message, advice, "job")])
    return Mmar.open(folder)


def replaced_configs(mmar: Mmar) -> Iterator[str]:
    """Yield a notice for each federated config of an MMAR, which a new job does not take."""
    for file in (SERVER_CONFIG, CLIENT_CONFIG):
        if (mmar.root / "config" / file).exists():
            yield f"{file} is written anew; 'mmar job import' translates an old one"


@contextmanager
def temporary_job(request: JobRequest) -> Iterator[CreatedJob]:
    """Make the job in a folder that is removed afterwards; errors as for ``create_job``."""
    with tempfile.TemporaryDirectory(prefix="mmar-job-") as folder:
        yield create_job(request, Path(folder) / "job")


# --- Its content ---------------------------------------------------------------------------------


class _Builder:
    """Writes a job into a new folder and checks it there; the problems are raised together."""

    def __init__(self, request: JobRequest, root: Path) -> None:
        self._request, self._mmar = request, request.mmar
        self._root, self._app = root, root / APP
        self._configs: list[WorkflowConfig] = []
        self._notices: list[str] = []
        self._problems: list[Problem] = []

    def build(self) -> CreatedJob:
        """Return the job; raises ``ConfigError`` with every problem."""
        request, app = self._request, self._app
        name = request.name or self._mmar.root.name
        copied, written = self._config_folder()
        documents = {**written, **request.settings.documents(name)}
        (app / "config").mkdir(parents=True)
        _write(self._root / META, documents.pop(META))
        for file, document in documents.items():
            _write(app / "config" / file, document)
        for file, source in copied.items():
            _copy(source, app / "config" / file)
        self._copy_folders()

        self._problems += [*name_problems(name), *request.settings.problems()]
        for variable in request.values.keys() & SITE_VARIABLES.keys():
            message = f"{variable} is each site's own"
            self._fault(COMMAND_LINE / variable, message, "Set it at the sites.", "variable")
        self._check_own_classes()
        self._load()
        self._problems += unused_values(self._configs)
        unused: list[str] = []
        for take in (self._copy_checkpoints, self._copy_code):
            try:
                unused += take()
            except ConfigError as error:
                self._problems += error.problems
        if self._problems:
            raise ConfigError(self._problems)
        if request.models:
            write_given_models(request.models, Mmar(app), request.values)
        self._leave_out(unused, "the job needs none of them")
        self._note_translations()
        # Last, so that a value that nothing asks for has been noticed.
        _write(app / ENVIRONMENT_FILE, {**documents[ENVIRONMENT], **request.values})
        refusals = check_job(self._root).problems
        return CreatedJob(job=Job.open(self._root), notices=tuple(self._notices), refusals=refusals)

    def _fault(self, place: Location, message: str, advice: str, rule: str) -> None:
        self._problems.append(Problem(place, message, advice, rule))

    def _leave_out(self, names: list[str], reason: str) -> None:
        if names:
            rest = len(names) - MAX_NAMED
            more = f" and {rest} more" if rest > 0 else ""
            self._notices.append(f"left out: {', '.join(names[:MAX_NAMED])}{more}; {reason}")

    def _note_translations(self) -> None:
        """Note how much the loader translates."""
        notices = {str(notice): notice.rule for each in self._configs for notice in each.notices}
        translated = sum(rule != UNUSED_VARIABLE for rule in notices.values())
        if translated:
            text = "old constructs are translated at each run; 'mmar upgrade' lists them"
            self._notices.append(f"{translated} {text}")

    def _config_folder(self) -> tuple[dict[str, Path], dict[str, dict[str, Any]]]:
        """Return an app's ``config/`` without NVFlare's documents, both by file name.

        Returns:
            The author's workflows; and the documents that are made here: an environment without
            data, and a cross-site validation.
        """
        train = read_json(self._mmar.root / TRAIN_FILE)
        copied: dict[str, Path] = {}
        left_out: list[str] = []
        for path in sorted((self._mmar.root / "config").iterdir()):
            if path.name in (SERVER_CONFIG, CLIENT_CONFIG):
                continue  # written anew
            if path.suffix == ".json" and is_workflow(path, read_json(path)):
                copied[path.name] = path
            elif path.name != ENVIRONMENT:
                left_out.append(f"config/{path.name}")
        self._leave_out(left_out, "they are not workflows, and data lists stay at home")
        environment = self._environment()
        written = {ENVIRONMENT: environment}
        if CROSS_VALIDATION not in copied:
            source = copied.get(VALIDATION)
            validation = read_json(source) if source else None
            document = cross_validation_document(train, validation, environment)
            if document is not None:
                written[CROSS_VALIDATION] = document
                name = source.name if source else "the section 'validate' of config_train.json"
                self._notices.append(
                    f"{CROSS_VALIDATION} is made from {name}, with the network of training"
                )
        return copied, written

    def _environment(self) -> dict[str, Any]:
        """Return the MMAR's ``environment.json`` without the author's data.

        In their place stands a folder that is nowhere: the server needs no data to build the
        network, and a site that has not set its own is told which variables it lacks.
        """
        path = self._mmar.root / ENVIRONMENT_FILE
        environment = read_json(path) if path.is_file() else {}
        if not isinstance(environment, dict):
            message = "has to be a JSON object"
            raise ConfigError([Problem(Location(path.name), message, "", "environment")])
        dropped = [name for name in SITE_VARIABLES if environment.get(name)]
        if dropped:
            names = " and ".join(dropped)
            self._notices.append(f"{path.name}: {names} taken out; each site has its own")
        return {**environment, **SITE_VARIABLES}

    def _copy_folders(self) -> None:
        """Copy what else of an MMAR has a place in a job; note what has none."""
        root = self._mmar.root
        left_out: list[str] = []
        for folder, suffixes in FOLDERS.items():
            if folder in ("config", "models", "eval") or not (root / folder).is_dir():
                continue
            for path in sorted((root / folder).iterdir()):
                if path.is_file() and path.suffix in suffixes:
                    _copy(path, self._app / folder / path.name)
                elif path.name != ".gitkeep":
                    left_out.append(f"{folder}/{path.name}")
        known = {*FOLDERS, "custom"}
        left_out += sorted(path.name for path in root.iterdir() if path.name not in known)
        self._leave_out(left_out, "they have no place in a job")

    def _load(self) -> None:
        """Load the workflows of the federation, and keep what is wrong with them.

        The others are for one site alone; a fault of theirs shows in the check of the job.
        """
        app, values = Mmar(self._app), self._request.values
        # What no site could run; what one may allow and another not, the check of the job tells.
        checks = [component_check(allow_code=True, allow_egress=True)]
        try:
            train = load_train_config(app, site=SITE_VARIABLES, overrides=values, checks=checks)
            self._configs.append(train)
            self._check_training(train)
        except ConfigError as error:
            self._problems += error.problems
        if not (app.root / CROSS_VALIDATION_FILE).is_file():
            return
        try:
            config = load_evaluation_config(
                app,
                file=CROSS_VALIDATION_FILE,
                site=SITE_VARIABLES,
                overrides=values,
                checks=checks,
            )
            self._configs.append(config)
            if isinstance(config.model, WeightsFile):
                message = "cross-site validation needs the network itself, not a file of weights"
                advice = "Copy 'model' of the train section of config_train.json here."
                self._fault(config.model.location, message, advice, "model")
        except ConfigError as error:
            self._problems += error.problems

    def _check_training(self, config: TrainConfig) -> None:
        if not config.train.specs("model"):
            message = "a federated job needs an entry 'model' in 'train'"
            advice = "The network that is in 'model' is what the sites share."
            self._fault(config.train.location, message, advice, "section")
        metrics = config.validate.specs("key_metric") if config.validate is not None else ()
        if not metrics or metrics[0].log_label is None:
            message = (
                "a federated job needs a section 'validate' with a 'key_metric' and its log_label"
            )
            advice = (
                "Each round's model is scored at each site; models are compared by that metric."
            )
            self._fault(Location(config.file) / "validate", message, advice, "section")

    def _check_own_classes(self) -> None:
        """Look for the classes in NVFlare's configs in the code that goes along."""
        for path in self._request.settings.own_classes:
            custom = self._mmar.custom
            fault = undefined_fault(path, custom) or own_class_fault(path, custom)
            if fault:
                self._fault(Location("job"), f"{path!r} {fault}", "Write module.Class.", "code")
            elif not self._request.with_code:
                message = f"{path!r} is code of the MMAR's own"
                self._fault(Location("job"), message, WITH_CODE, "code")

    def _copy_checkpoints(self) -> list[str]:
        """Copy the weights that the training starts from; returns which other files stay at home.

        A job that does not train starts from none.

        Raises:
            ConfigError: a file lies outside of the app.
        """
        models = self._mmar.models
        starts = () if self._request.models else start_files(self._configs, self._app)
        needed = {path.relative_to(self._app): place for path, place in starts}
        for path, place in needed.items():
            source = self._mmar.root / path
            message = f"the training would start from {str(path)!r}"
            if path.parts[:-1] != (models.name,) or path.suffix not in FOLDERS[models.name]:
                advice = f"Put the file into {models.name}/, where a job has its weights."
                self._fault(place, message, advice, "checkpoint")
            elif not source.is_file():
                advice = (
                    "Put it there, or disable the CheckpointLoader to start from random weights."
                )
                self._fault(place, f"{message}, and there is no such file", advice, "checkpoint")
            else:
                _copy(source, self._app / path)
        there = sorted(models.iterdir()) if models.is_dir() else []
        names = [f"{models.name}/{path.name}" for path in there if path.name != ".gitkeep"]
        return [name for name in names if Path(name) not in needed]

    def _copy_code(self) -> list[str]:
        """Copy the MMAR's own code if it goes along; returns the folder's name if it stays.

        Raises:
            ConfigError: the code holds a link.
        """
        custom = self._mmar.custom
        if self._request.with_code and custom.is_dir():
            for path in tree_files(custom):
                if "__pycache__" not in path.parts:
                    _copy(path, self._app / custom.name / path.relative_to(custom))
            return []
        for config in self._configs:
            for spec, entry in all_components(config):
                if spec.path is not None and entry is None:
                    message = f"{spec.path!r} is code of the MMAR's own"
                    self._fault(spec.named_at, message, WITH_CODE, "code")
        return [custom.name] if custom.is_dir() else []


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(document_text(document), encoding="utf-8")


def start_files(configs: Iterable[WorkflowConfig], app: Path) -> Iterator[tuple[Path, Location]]:
    """Yield the files of enabled CheckpointLoaders of the training, and where they are named.

    Raises:
        ConfigError: a file lies outside of the app.
    """
    for config in configs:
        handlers = config.train.specs("handlers") if isinstance(config, TrainConfig) else ()
        for spec in handlers:
            path = spec.args.items.get("load_path")
            if spec.name == "CheckpointLoader" and isinstance(path, Literal):
                file = Path(os.path.normpath(app / str(path.value)))
                if not file.is_relative_to(app):
                    message = f"{str(path.value)!r} is not a file of the MMAR"
                    advice = "Put the file into models/, where a job has its weights."
                    raise ConfigError([Problem(path.location, message, advice, "checkpoint")])
                yield file, path.location
