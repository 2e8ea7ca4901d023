"""An MMAR, or one workflow of it, against a site's policy: judged as data, before any import.

Nothing of the MMAR is imported or built, no weights are opened, and torch and MONAI stay out. A
fault of the check itself is a refusal: an MMAR without a judgement does not run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mmar_runtime.config.loader import (
    ENVIRONMENT_FILE,
    TRAIN_FILE,
    UNUSED_VARIABLE,
    Check,
    load_evaluation_config,
    load_train_config,
    unused_values,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.log_config import read_log_config
from mmar_runtime.config.nodes import WeightsFile
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import TrainConfig, WorkflowConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import EVALUATION_NAMES, TRAIN_NAMES, Mmar, is_workflow
from mmar_runtime.policy.component_check import all_components, component_check
from mmar_runtime.policy.custom_check import code_hash, custom_faults, own_module, undefined_fault
from mmar_runtime.policy.document_check import (
    ANY_JSON,
    WORKFLOW,
    over_limits,
    read_document,
    regular_file,
)
from mmar_runtime.policy.extras_check import extras_check
from mmar_runtime.policy.files.tree_hash import file_hash
from mmar_runtime.policy.fit_check import findings, fit_check
from mmar_runtime.policy.limits_check import limits_check, weights_size_check
from mmar_runtime.policy.metrics.comparisons import comparison_check
from mmar_runtime.policy.metrics.metric_check import metric_check
from mmar_runtime.policy.metrics.metric_kinds import direction_check
from mmar_runtime.policy.metrics.value_check import value_check
from mmar_runtime.policy.number_check import number_check
from mmar_runtime.policy.path_check import path_check
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, OWN_MMAR_POLICY, SitePolicy
from mmar_runtime.policy.verdict import MAX_PROBLEMS, Verdict, verdict

LOG_CONFIG = "resources/log.config"
ZIP_START = b"PK\x03\x04"
MAX_DOCUMENTS = 20
MAX_BYTES = ANY_JSON.size
MAX_VALUES = ANY_JSON.values
MAX_WORKFLOW_VALUES = 5_000
MAX_WORKFLOW_BYTES = 2 * WORKFLOW.size
"""Of all the documents, and of all the workflows, of one MMAR together."""

DATA_STAND_IN = Path("/the-site-has-its-own-data")
SITE_VARIABLES: Mapping[str, str] = {
    "DATA_ROOT": str(DATA_STAND_IN),
    "DATASET_JSON": str(DATA_STAND_IN / "dataset.json"),
}
"""Variables that belong to the site -> their values if no site is asked."""

INVALID = object()
"""A document whose faults are reported already; null would be a document."""

log = logging.getLogger(__name__)


def check_mmar(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    *,
    overrides: Mapping[str, Scalar] | None = None,
    site_values: Mapping[str, Scalar] | None = None,
) -> Verdict:
    """Return the verdict on an MMAR's folder or on one workflow's JSON file; never raises.

    The data are not looked at. The author's ``DATA_ROOT`` and ``DATASET_JSON`` are passed over with
    a notice; the site's values replace them, or a folder that does not exist.

    Args:
        path: the MMAR's folder, or one workflow with the ``environment.json`` next to it, if any.
        policy: of the site.
        overrides: values from ``--set``.
        site_values: the site's own variables.
    """
    judged = _Judging(policy, overrides or {}, {**SITE_VARIABLES, **(site_values or {})})
    return guarded(path, lambda: judged.verdict(Path(os.path.abspath(path)), str(path)))


def guarded(path: str | Path, judge: Callable[[], Verdict]) -> Verdict:
    """Return the verdict of a check; any exception of the check becomes a refusal.

    A hostile document may reach a corner of Python's libraries that nobody thought of: too deep,
    too large, not decodable. None of that may let it pass, or take the site's process down.
    """
    try:
        return judge()
    except ConfigError as error:
        return verdict(path, error.problems)
    except MemoryError:
        message = "takes more memory than a check may take"
        advice = "Leave out what is deep, long or repeated."
        return verdict(path, [Problem(Location(Path(path).name), message, advice, "cost")])
    except PermissionError as error:
        message = f"cannot be read: {error.strerror}"
        advice = "Give the user of this process the right to read all of it."
        return verdict(path, [Problem(Location(Path(path).name), message, advice, "check")])
    except Exception as error:
        log.debug("the check of %s failed", path, exc_info=True)
        # The text of an error of the system may have a path of the site; its reason has none.
        reason = getattr(error, "strerror", None) or type(error).__name__
        message = f"cannot be judged: {reason}"
        advice = "What cannot be judged does not run. See the output of 'mmar check --debug'."
        return verdict(path, [Problem(Location(Path(path).name), message, advice, "check")])


@dataclass(frozen=True, slots=True)
class _Document:
    """A workflow as its file has it."""

    path: Path
    content: Mapping[str, Any]

    @property
    def trains(self) -> bool:
        """Whether it is run as a training."""
        if self.path.stem.startswith(EVALUATION_NAMES):
            return False
        return self.path.stem in TRAIN_NAMES or "train" in self.content


@dataclass(frozen=True, slots=True)
class _Judging:
    """The judgement of an MMAR; collects problems and notices."""

    policy: SitePolicy
    overrides: Mapping[str, Scalar]
    site_values: Mapping[str, Scalar]
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def verdict(self, path: Path, name: str) -> Verdict:
        """Return the verdict on a folder or a file."""
        if path.is_dir():
            self._folder(path)
        else:
            self._file(path)
        return verdict(name, self.problems, self.notices)

    def _folder(self, root: Path) -> None:
        config = root / "config"
        if config.is_symlink() or not config.is_dir():
            message = "holds no folder 'config'" if not config.is_symlink() else "is a link"
            self._problem(Location("config"), message, "mmar")
            return
        workflows = list(self._workflows(config))
        if not workflows and not self.problems:
            self._problem(Location("config"), "holds no workflow such as config_train.json", "mmar")
        self._all_of(Mmar(root), workflows, ENVIRONMENT_FILE)
        if (root / LOG_CONFIG).exists() or (root / LOG_CONFIG).is_symlink():
            self._collected(partial(self._log_config, root / LOG_CONFIG))

    def _file(self, path: Path) -> None:
        content = read_document(path, WORKFLOW)
        if not isinstance(content, dict):
            self._problem(Location(path.name), "has to be a JSON object", "json")
            return
        root = path.parent.parent if path.parent.name == "config" else path.parent
        environment = path.with_name("environment.json")
        given = environment.exists() or environment.is_symlink()
        document = _Document(path, content)
        self._all_of(Mmar(root), [document], str(environment) if given else None)

    def _workflows(self, config: Path) -> Iterator[_Document]:
        """Yield every workflow among the documents; those that cannot be read are problems."""
        files = sorted(file for file in config.iterdir() if file.suffix == ".json")
        if len(files) > MAX_DOCUMENTS:
            message = f"holds {len(files)} JSON files; {MAX_DOCUMENTS} is the most that is read"
            self._problem(Location("config"), message, "limit")
            return
        if sum(file.lstat().st_size for file in files) > MAX_BYTES:
            message = f"holds JSON of more than {MAX_BYTES} bytes"
            self._problem(Location("config"), message, "limit")
            return
        read = judged = size = 0
        for path in files:
            content = self._collected(partial(read_document, path, ANY_JSON))
            values = _count(content)
            read += values
            workflow = content is not INVALID and is_workflow(path, content)
            judged += values if workflow else 0
            size += path.lstat().st_size if workflow else 0
            over = judged > MAX_WORKFLOW_VALUES or size > MAX_WORKFLOW_BYTES
            if read > MAX_VALUES or over:
                message = f"all documents up to {path.name} hold too many values together"
                self._problem(Location("config"), message, "limit")
                return
            if workflow and self._within(path, content, values):
                yield _Document(path, content)

    def _within(self, path: Path, content: Any, values: int) -> bool:
        """Return whether a workflow keeps to its limits; report a problem if not."""
        location = Location(path.name)
        over = list(over_limits(content, location, WORKFLOW))
        if path.lstat().st_size > WORKFLOW.size:
            message = f"has more than {WORKFLOW.size} bytes"
            over.append(Problem(location, message, "", "limit"))
        if values > WORKFLOW.values:
            message = f"has {values} values; {WORKFLOW.values} is the most of a workflow"
            over.append(Problem(location, message, "", "limit"))
        if not isinstance(content, dict):
            over.append(Problem(location, "has to be a JSON object", "", "json"))
        self.problems.extend(over)
        return not over

    def _all_of(self, mmar: Mmar, documents: Iterable[_Document], environment: str | None) -> None:
        if environment is not None:
            content = self._collected(partial(read_document, mmar.root / environment, WORKFLOW))
            if not isinstance(content, dict):
                if content is not INVALID:
                    name = Path(environment).name
                    self._problem(Location(name), "has to be a JSON object", "json")
                return  # every workflow needs it
            self._authors_values(content, Path(environment).name)
        configs: list[WorkflowConfig] = []
        checks = [_at_most(check) for check in policy_checks(mmar, self._policy_here())]
        for document in documents:
            if len(self.problems) > MAX_PROBLEMS:
                return  # refused, and more is not listed
            self._authors_values(document.content, document.path.name)
            load = load_train_config if document.trains else load_evaluation_config
            config = self._collected(
                partial(
                    load,
                    mmar,
                    file=str(document.path),
                    environment=environment,
                    site=self.site_values,
                    overrides=self.overrides,
                    checks=checks,
                )
            )
            if isinstance(config, WorkflowConfig):
                configs.append(config)
                used = (note for note in config.notices if note.rule != UNUSED_VARIABLE)
                self.notices.extend(map(str, (*used, *extras_check(config))))
        self.problems.extend(unused_values(configs))
        self._fit(configs)

    def _fit(self, configs: list[WorkflowConfig]) -> None:
        """Judge the workflows that are sound by themselves side by side."""
        name = Path(TRAIN_FILE).name
        trainings = [one for one in configs if isinstance(one, TrainConfig) and one.file == name]
        for config in configs:
            for finding in findings(config, trainings[0] if trainings else None):
                if finding.certain:
                    self.problems.append(finding.problem)
                else:
                    self.notices.append(str(finding.notice))

    def _policy_here(self) -> SitePolicy:
        """Return the policy; its roots hold the stand-in for data if no site is asked."""
        roots, stands = self.policy.data_roots, str(DATA_STAND_IN)
        if roots and stands in self.site_values.values():
            return replace(self.policy, data_roots=(*roots, DATA_STAND_IN))
        return self.policy

    def _authors_values(self, content: Mapping[str, Any], file: str) -> None:
        ignored = [name for name in (*SITE_VARIABLES, "MMAR_ROOT") if name in content]
        if ignored:
            names = " and ".join(ignored)
            self.notices.append(f"{file}: passed over {names}; a site uses its own values")

    def _log_config(self, path: Path) -> None:
        regular_file(path, Location(path.name))
        read_log_config(path)

    def _collected(self, read: Callable[[], Any]) -> Any:
        """Return the result of ``read``; keep its problems and return ``INVALID`` if it raises."""
        try:
            return read()
        except ConfigError as error:
            self.problems.extend(error.problems)
            return INVALID

    def _problem(self, location: Location, message: str, rule: str) -> None:
        self.problems.append(Problem(location, message, "", rule))


def policy_checks(mmar: Mmar, policy: SitePolicy) -> list[Check]:
    """Return the loader's checks of a workflow under a site's policy."""
    mode = policy.byoc.mode
    return [
        component_check(
            allow_code=mode != "off", allow_stored=mode == "on", allow_egress=policy.egress
        ),
        own_code_check(mmar, policy),
        partial(_denied, policy),
        limits_check(policy.limits),
        metric_check(policy),
        direction_check,
        value_check,
        comparison_check,
        path_check(policy),
        weights_size_check(policy.limits),
        partial(_torchscript, policy),
    ]


def own_mmar_checks() -> list[Check]:
    """Return the loader's checks of an MMAR that its owner runs.

    Its code and its trackers are theirs, and its documents say where things lie.
    """
    return [
        component_check(allow_code=True),
        direction_check,
        value_check,
        comparison_check,
        number_check,
        limits_check(OWN_MMAR_POLICY.limits),
        path_check(OWN_MMAR_POLICY, owner=True),
        weights_size_check(OWN_MMAR_POLICY.limits),
        fit_check,
    ]


def _torchscript(policy: SitePolicy, config: WorkflowConfig) -> Iterator[Problem]:
    """Yield TorchScript, which is code, unless the site has listed the hash of the file."""
    for node in config.nodes():
        if not isinstance(node, WeightsFile) or node.kind != "ts_path":
            continue
        if unlisted_torchscript(Path(node.path), policy):
            message = "is TorchScript, which is code; this site has not allowed this file"
            advice = "Evaluate a checkpoint, {MMAR_CKPT}, with the network next to it."
            yield Problem(node.named_at, message, advice, "torchscript")


def unlisted_torchscript(path: Path, policy: SitePolicy) -> bool:
    """Return whether a file is TorchScript that the site has not listed.

    TorchScript is always a zip. A file with its name alone, such as the pointer that git leaves in
    the place of a large file, runs nothing, and neither does a file that is not there.
    """
    if not os.path.isfile(path):  # not Path.is_file, which raises where a name is too long
        return False
    with path.open("rb") as stream:
        is_zip = stream.read(len(ZIP_START)) == ZIP_START
    return is_zip and file_hash(path) not in policy.torchscript_sha256


def _denied(policy: SitePolicy, config: WorkflowConfig) -> Iterator[Problem]:
    """Yield classes of the table that the site has denied, under any name."""
    denied = frozenset(policy.denied_components)
    for spec, entry in all_components(config) if denied else ():
        names = {spec.title, spec.path} | ({entry.name, entry.path} if entry else set())
        if names & denied:
            message = f"{spec.title!r} is denied by this site's policy"
            yield Problem(spec.named_at, message, "", "denied-component")


def own_code_check(mmar: Mmar, policy: SitePolicy) -> Check:
    """Return the check that ``custom`` itself defines every class that a job names of it.

    By hash, code may come from an approved folder and from nowhere else: approving a folder
    approves none of the packages that happen to be installed, nor the imports of its files.
    """
    by_hash = policy.byoc.mode == "by_hash"
    refusal = approval_fault(mmar.custom, policy) if by_hash else ""

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        for spec, entry in all_components(config) if policy.byoc.mode != "off" else ():
            if spec.path is None or entry is not None:
                continue
            if not by_hash and own_module(spec.path, mmar.custom) is None:
                continue
            undefined = "" if refusal else undefined_fault(spec.path, mmar.custom, functions=True)
            if refusal or undefined:
                why = refusal or f"it {undefined}"
                message = f"{spec.path!r} is code that this site has not allowed: {why}"
                yield Problem(spec.location / "path", message, "", "code")

    return check


def approval_fault(custom: Path, policy: SitePolicy) -> str:
    """Return why a ``custom`` folder is not approved; empty if it is.

    A folder that nobody could have read is refused even if its hash is listed.
    """
    try:
        faults = list(custom_faults(custom))
        digest = code_hash(custom)
    except ConfigError as error:
        return f"{error.problems[0].location} {error.problems[0].message}"
    if faults:
        return f"{faults[0].location} {faults[0].message}"
    if digest in policy.byoc.approved:
        return ""
    return f"its hash {digest} is not among the {len(policy.byoc.approved)} approved"


def _at_most(check: Check) -> Check:
    """Return the check, cut after as many problems as a verdict lists."""
    return lambda config: islice(check(config), MAX_PROBLEMS + 1)


def _count(content: Any) -> int:
    """Return how many values a document holds."""
    count, waiting = 0, [content]
    while waiting:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict | list):
            waiting += item.values() if isinstance(item, dict) else item
    return count
