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
    VALIDATION_FILE,
    load_evaluation_config,
    load_train_config,
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
UNUSED_VARIABLE = "unused-variable"
"""The loader's rule for a value that nothing asks for."""

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
            created = _build(request, staged)
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


def _build(request: JobRequest, root: Path) -> CreatedJob:
    """Write the job into a new folder and check it there."""
    mmar, app = request.mmar, root / APP
    name = request.name or mmar.root.name
    copied, written, notices = _config_folder(mmar)
    documents = {**written, **request.settings.documents(name)}
    (app / "config").mkdir(parents=True)
    _write(root / META, documents.pop(META))
    for file, document in documents.items():
        _write(app / "config" / file, document)
    for file, source in copied.items():
        _copy(source, app / "config" / file)
    notices += _copied_folders(mmar, app)

    problems = [*name_problems(name), *request.settings.problems()]
    for variable in request.values.keys() & SITE_VARIABLES.keys():
        place, message = COMMAND_LINE / variable, f"{variable} is each site's own"
        problems.append(Problem(place, message, "Set it at the sites.", "variable"))
    problems += _own_class_problems(request)
    configs = _loaded(Mmar(app), request.values, problems)
    unused: list[str] = []
    for take in (_checkpoints, _code):
        try:
            unused += take(request, app, configs)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    if request.models:
        write_given_models(request.models, Mmar(app), request.values)
    notices += [*_left_out(unused, "the job needs none of them"), *_told(configs)]
    # Last, so that a value that nothing asks for has been noticed.
    _write(app / ENVIRONMENT_FILE, {**documents[ENVIRONMENT], **request.values})
    return CreatedJob(job=Job.open(root), notices=tuple(notices), refusals=check_job(root).problems)


def _told(configs: Iterable[WorkflowConfig]) -> Iterator[str]:
    """Yield what the loader noticed: values without effect, and how much it translates."""
    notices = {str(notice): notice.rule for config in configs for notice in config.notices}
    yield from (text for text, rule in notices.items() if rule == UNUSED_VARIABLE)
    translated = sum(rule != UNUSED_VARIABLE for rule in notices.values())
    if translated:
        yield f"{translated} old constructs are translated at each run; 'mmar upgrade' lists them"


def _config_folder(mmar: Mmar) -> tuple[dict[str, Path], dict[str, dict[str, Any]], list[str]]:
    """Return an app's ``config/`` without NVFlare's documents.

    Returns:
        The author's workflows and the documents that are made here (an environment without data,
        and a cross-site validation), both by file name; and notices.
    """
    train = read_json(mmar.root / TRAIN_FILE)
    copied: dict[str, Path] = {}
    left_out: list[str] = []
    notices: list[str] = []
    for path in sorted((mmar.root / "config").iterdir()):
        if path.name in (SERVER_CONFIG, CLIENT_CONFIG):
            continue  # written anew
        if path.suffix == ".json" and is_workflow(path, read_json(path)):
            copied[path.name] = path
        elif path.name != ENVIRONMENT:
            left_out.append(f"config/{path.name}")
    notices += _left_out(left_out, "they are not workflows, and data lists stay at home")
    environment = _environment(mmar, notices)
    written = {ENVIRONMENT: environment}
    if CROSS_VALIDATION not in copied:
        source = copied.get(VALIDATION)
        validation = read_json(source) if source else None
        document = cross_validation_document(train, validation, environment)
        if document is not None:
            written[CROSS_VALIDATION] = document
            name = source.name if source else "the section 'validate' of config_train.json"
            notices.append(f"{CROSS_VALIDATION} is made from {name}, with the network of training")
    return copied, written, notices


def _environment(mmar: Mmar, notices: list[str]) -> dict[str, Any]:
    """Return the MMAR's ``environment.json`` without the author's data.

    In their place stands a folder that is nowhere: the server needs no data to build the network,
    and a site that has not set its own is told which variables it lacks.
    """
    path = mmar.root / ENVIRONMENT_FILE
    environment = read_json(path) if path.is_file() else {}
    if not isinstance(environment, dict):
        message = "has to be a JSON object"
        raise ConfigError([Problem(Location(path.name), message, "", "environment")])
    dropped = [name for name in SITE_VARIABLES if environment.get(name)]
    if dropped:
        names = " and ".join(dropped)
        notices.append(f"{path.name}: {names} taken out; each site has its own")
    return {**environment, **SITE_VARIABLES}


def _copied_folders(mmar: Mmar, app: Path) -> list[str]:
    """Copy what else of an MMAR has a place in a job; tells what has none."""
    left_out: list[str] = []
    for folder, suffixes in FOLDERS.items():
        if folder in ("config", "models", "eval") or not (mmar.root / folder).is_dir():
            continue
        for path in sorted((mmar.root / folder).iterdir()):
            if path.is_file() and path.suffix in suffixes:
                _copy(path, app / folder / path.name)
            elif path.name != ".gitkeep":
                left_out.append(f"{folder}/{path.name}")
    known = {*FOLDERS, "custom"}
    left_out += sorted(path.name for path in mmar.root.iterdir() if path.name not in known)
    return list(_left_out(left_out, "they have no place in a job"))


def _left_out(names: list[str], reason: str) -> Iterator[str]:
    if names:
        rest = len(names) - MAX_NAMED
        more = f" and {rest} more" if rest > 0 else ""
        yield f"left out: {', '.join(names[:MAX_NAMED])}{more}; {reason}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(document_text(document), encoding="utf-8")


# --- What its workflows need ---------------------------------------------------------------------


def _loaded(
    app: Mmar, values: Mapping[str, Scalar], problems: list[Problem]
) -> list[WorkflowConfig]:
    """Return the workflows of the federation; add what keeps them from that to the problems.

    The others are for one site alone; a fault of theirs shows in the check of the job.
    """
    configs: list[WorkflowConfig] = []
    # What no site could run; what one may allow and another not, the check of the job tells.
    checks = [component_check(allow_code=True, allow_egress=True)]
    try:
        train = load_train_config(app, site=SITE_VARIABLES, overrides=values, checks=checks)
        configs.append(train)
        problems += _federation_faults(train)
    except ConfigError as error:
        problems += error.problems
    if (app.root / CROSS_VALIDATION_FILE).is_file():
        try:
            config = load_evaluation_config(
                app,
                file=CROSS_VALIDATION_FILE,
                site=SITE_VARIABLES,
                overrides=values,
                checks=checks,
            )
            configs.append(config)
            if isinstance(config.model, WeightsFile):
                message = "cross-site validation needs the network itself, not a file of weights"
                advice = "Copy 'model' of the train section of config_train.json here."
                problems.append(Problem(config.model.location, message, advice, "model"))
        except ConfigError as error:
            problems += error.problems
    return configs


def _federation_faults(config: TrainConfig) -> Iterator[Problem]:
    if not config.train.specs("model"):
        message = "a federated job needs an entry 'model' in 'train'"
        advice = "The network that is in 'model' is what the sites share."
        yield Problem(config.train.location, message, advice, "section")
    metrics = config.validate.specs("key_metric") if config.validate is not None else ()
    if not metrics or metrics[0].log_label is None:
        place = Location(config.file) / "validate"
        message = "a federated job needs a section 'validate' with a 'key_metric' and its log_label"
        advice = "Each round's model is scored at each site; models are compared by that metric."
        yield Problem(place, message, advice, "section")


def _own_class_problems(request: JobRequest) -> Iterator[Problem]:
    """Classes in NVFlare's configs that have to be in the code that goes along."""
    for path in request.settings.own_classes:
        custom = request.mmar.custom
        fault = undefined_fault(path, custom) or own_class_fault(path, custom)
        if fault:
            message = f"{path!r} {fault}"
            yield Problem(Location("job"), message, "Write module.Class.", "code")
        elif not request.with_code:
            message = f"{path!r} is code of the MMAR's own"
            yield Problem(Location("job"), message, WITH_CODE, "code")


def _checkpoints(request: JobRequest, app: Path, configs: Iterable[WorkflowConfig]) -> list[str]:
    """Copy the weights that the training starts from; returns which other files stay at home.

    A job that does not train starts from none.

    Raises:
        ConfigError: there is no such file, or it does not lie in ``models/``.
    """
    models = request.mmar.models
    starts = () if request.models else start_files(configs, app)
    needed = {path.relative_to(app): place for path, place in starts}
    problems = []
    for path, place in needed.items():
        source = request.mmar.root / path
        if path.parts[:-1] != (models.name,) or path.suffix not in FOLDERS[models.name]:
            message = f"the training would start from {str(path)!r}"
            advice = f"Put the file into {models.name}/, where a job has its weights."
            problems.append(Problem(place, message, advice, "checkpoint"))
        elif not source.is_file():
            message = f"the training would start from {str(path)!r}, and there is no such file"
            advice = "Put it there, or disable the CheckpointLoader to start from random weights."
            problems.append(Problem(place, message, advice, "checkpoint"))
        else:
            _copy(source, app / path)
    if problems:
        raise ConfigError(problems)
    there = sorted(models.iterdir()) if models.is_dir() else []
    names = [f"{models.name}/{path.name}" for path in there if path.name != ".gitkeep"]
    return [name for name in names if Path(name) not in needed]


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


def _code(request: JobRequest, app: Path, configs: Iterable[WorkflowConfig]) -> list[str]:
    """Copy the MMAR's own code if it goes along; returns the folder's name if it stays at home.

    Raises:
        ConfigError: the code is needed, and is not to go along; or it holds a link.
    """
    custom = request.mmar.custom
    if request.with_code and custom.is_dir():
        for path in tree_files(custom):
            if "__pycache__" not in path.parts:
                _copy(path, app / custom.name / path.relative_to(custom))
        return []
    needed = [
        Problem(spec.named_at, f"{spec.path!r} is code of the MMAR's own", WITH_CODE, "code")
        for config in configs
        for spec, entry in all_components(config)
        if spec.path is not None and entry is None
    ]
    if needed:
        raise ConfigError(needed)
    return [custom.name] if custom.is_dir() else []
