"""Read -> upgrade -> fill in variables -> parse -> resolve refs -> check; all errors at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from mmar_runtime.config import consistency
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    ListNode,
    Literal,
    Node,
    TransformRef,
    WeightsFile,
    is_disabled,
    plain,
    walk,
)
from mmar_runtime.config.overrides import COMMAND_LINE, Scalar
from mmar_runtime.config.parser import AUTOML_ADVICE, MAX_PROBLEMS, NodeParser
from mmar_runtime.config.sections import (
    EVALUATE_ONLY,
    LIST_SLOTS,
    SLOT_KINDS,
    THREADS_VARIABLE,
    TRAIN_ONLY,
    TRANSFORM_SLOTS,
    EvaluationConfig,
    RuntimeSettings,
    Section,
    TrainConfig,
    WorkflowConfig,
)
from mmar_runtime.config.sources import BUILT_IN, read_json, resolve_variables
from mmar_runtime.config.upgrades import upgrade_document
from mmar_runtime.config.upgrades.document import Notice
from mmar_runtime.config.variables import names_in
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.mmar import Mmar

Config = TypeVar("Config", bound=WorkflowConfig)
Check = Callable[[WorkflowConfig], Iterable[Problem]]

TRAIN_FILE = "config/config_train.json"
VALIDATION_FILE = "config/config_validation.json"
CROSS_VALIDATION_FILE = "config/config_cross_validation.json"
ENVIRONMENT_FILE = "config/environment.json"

TOP_LEVEL = ("determinism", "network_summary")
"""Top-level objects besides the sections."""

MAX_REPEATED = 2**18
"""Characters of the transforms that the refs of a document mean; usually 5,000."""

UNUSED_VARIABLE = "unused-variable"
"""The rule of a value from ``--set`` that nothing asks for."""

SETTINGS = frozenset(
    {
        *BUILT_IN,
        *("MMAR_ROOT", "DATA_ROOT", "DATASET_JSON", "PROCESSING_TASK"),
        *(THREADS_VARIABLE, "NUM_PROCESSES", "cudnn_benchmark", "tf32"),
    }
)
"""Variables that mean something whether or not a document writes them."""

OLD_ENTRIES = {
    "metrics": 'A list of components, at most one of them with "is_key_metric": true, would have '
    "been translated. Write key_metric and additional_metrics.",
    "search": AUTOML_ADVICE,
}
"""Entries that Clara's documents may still hold -> advice."""


def load_train_config(
    mmar: Mmar,
    *,
    file: str = TRAIN_FILE,
    environment: str | None = ENVIRONMENT_FILE,
    site: Mapping[str, Scalar] | None = None,
    overrides: Mapping[str, Scalar] | None = None,
    checks: Iterable[Check] = (),
) -> TrainConfig:
    """Return the training workflow of an MMAR.

    Args:
        mmar: the MMAR.
        file: the workflow's document, relative to the MMAR.
        environment: the environment's document, relative to the MMAR; None means an empty one.
        site: the site's own values, which win over the MMAR's environment.
        overrides: values from ``--set``, which win over everything.
        checks: further checks, whose problems are reported together with the loader's own. Those
            that open files come last: none of them runs once a path is refused.

    Raises:
        ConfigError: with every problem found.
    """
    reading = _Reading(mmar, file, environment, site or {}, overrides or {})
    train = reading.section("train", EVALUATE_ONLY)
    validate = reading.section("validate", TRAIN_ONLY, required=False)
    reading.unknown_top_level((*TOP_LEVEL, "train", "validate"))
    sections = reading.with_refs_resolved({"train": train, "validate": validate}, "train")
    config = TrainConfig(
        **reading.common(), train=sections["train"], validate=sections.get("validate")
    )
    return _checked(config, reading.problems, checks)


def load_evaluation_config(
    mmar: Mmar,
    *,
    file: str = VALIDATION_FILE,
    environment: str | None = ENVIRONMENT_FILE,
    site: Mapping[str, Scalar] | None = None,
    overrides: Mapping[str, Scalar] | None = None,
    checks: Iterable[Check] = (),
) -> EvaluationConfig:
    """Return a validation, cross-site validation or inference workflow of an MMAR.

    Arguments and errors as for ``load_train_config``.
    """
    reading = _Reading(mmar, file, environment, site or {}, overrides or {})
    section = reading.top_level_section(TRAIN_ONLY)
    sections = reading.with_refs_resolved({"": section}, "")
    config = EvaluationConfig(**reading.common(), section=sections[""])
    return _checked(config, reading.problems, checks)


def unused_values(configs: Iterable[WorkflowConfig]) -> Iterator[Problem]:
    """Yield the values of ``--set`` that none of these workflows uses."""
    unused = [
        {notice.places[0]: notice for notice in config.notices if notice.rule == UNUSED_VARIABLE}
        for config in configs
    ]
    for place, notice in unused[0].items() if unused else ():
        if all(place in others for others in unused):
            yield Problem(place, notice.message, "", UNUSED_VARIABLE)


def _checked(config: Config, problems: list[Problem], checks: Iterable[Check]) -> Config:
    faults = [*problems, *islice(consistency.problems(config), MAX_PROBLEMS)]
    for check in (*checks, _unproduced_keys):
        faults += check(config)
        if any(problem.rule == "path" for problem in faults):
            break  # the next checks open the files that the config names
    if faults:
        raise ConfigError(faults)
    return config


def _unproduced_keys(config: WorkflowConfig) -> Iterator[Problem]:
    return islice(consistency.unproduced_keys(config), MAX_PROBLEMS)


class _Reading:
    """A reader of a document: its variables, its faults, its notices."""

    def __init__(
        self,
        mmar: Mmar,
        file: str,
        environment: str | None,
        site: Mapping[str, Scalar],
        overrides: Mapping[str, Scalar],
    ) -> None:
        path = mmar.document(file)
        environment_path = None if environment is None else mmar.document(environment)
        self.mmar = mmar
        self.location = Location(path.name)
        document, environment_document = _read_both(path, environment_path)
        upgrade = upgrade_document(document, path.name)
        self.document, self.notices = upgrade.document, upgrade.notices
        known = {*SETTINGS, *self.document, *environment_document, *site}
        self.notices += tuple(self._without_effect(overrides, known))
        self.variables = resolve_variables(
            mmar_root=mmar.root,
            workflow=self.document,
            workflow_file=path.name,
            environment=environment_document,
            environment_file=Path(environment or ENVIRONMENT_FILE).name,
            site=site,
            overrides=overrides,
        )
        self.parser = NodeParser(self.variables)
        self.problems = self.parser.problems

    def _without_effect(self, overrides: Mapping[str, Scalar], known: set[str]) -> Iterator[Notice]:
        """Yield a notice for each value of ``--set`` that neither MMAR nor runtime asks for."""
        known = known | set(names_in(json.dumps(self.document)))
        for name in overrides:
            if name not in known:
                advice = did_you_mean(name, known)
                message = f"nothing here uses the variable {name!r}. {advice}".rstrip()
                yield Notice(rule=UNUSED_VARIABLE, message=message, places=(COMMAND_LINE / name,))

    def common(self) -> dict[str, Any]:
        """Return the fields that every kind of config has."""
        own = {name for name, value in self.document.items() if not isinstance(value, dict | list)}
        return {
            "mmar_root": self.mmar.root,
            "file": self.location.file,
            "settings": self.settings(),
            "variables": MappingProxyType(self.variables),
            "own_names": frozenset(own),
            "notices": self.notices,
        }

    def section(self, name: str, foreign: frozenset[str], *, required: bool = True) -> Section:
        """Return the section of that name; an empty one, and a problem, where it is missing."""
        location = self.location / name
        raw = self.document.get(name)
        if raw is None and not required:
            return Section(location=location, entries={})
        if not isinstance(raw, dict):
            fault = "is missing" if raw is None else "has to be an object"
            self._problem(location, f"the section {name!r} {fault}", "section")
            return Section(location=location, entries={})
        entries = {
            key: self._entry(key, value, location / key, foreign) for key, value in raw.items()
        }
        return _section(location, entries)

    def top_level_section(self, foreign: frozenset[str]) -> Section:
        """Return the entries of an evaluation document, which has no sections."""
        for name in ("train", "validate"):
            if name in self.document:
                message = f"an evaluation document has no section {name!r}"
                advice = "Is this a training document? Use 'mmar train' for it."
                self._problem(self.location / name, message, "section", advice)
                return Section(location=self.location, entries={})
        raw = {
            key: value
            for key, value in self.document.items()
            if isinstance(value, dict | list) and key not in TOP_LEVEL
        }
        entries = {
            key: self._entry(key, value, self.location / key, foreign)
            for key, value in raw.items()
            if key != "model"
        }
        entries["model"] = self._model(raw.get("model"))
        return _section(self.location, entries)

    def _entry(
        self, key: str, raw: Any, location: Location, foreign: frozenset[str]
    ) -> Node | None:
        if key in foreign:
            message = f"the entry {key!r} does not belong into this section"
            self._problem(location, message, "unknown-key")
            return None
        is_component = isinstance(raw, dict) and ("name" in raw or "path" in raw)
        if key not in SLOT_KINDS and not is_component:
            advice = OLD_ENTRIES.get(key) or did_you_mean(key, SLOT_KINDS.keys() - foreign)
            self._problem(location, f"unknown entry {key!r}", "unknown-key", advice)
            return None
        parse = self._components if key in LIST_SLOTS else self.parser.entry
        node = parse(raw, location)
        self._misplaced(key, node)
        return node

    def _components(self, raw: Any, location: Location) -> Node:
        if not isinstance(raw, list):
            self._problem(location, "has to be an array of components", "section")
            return Literal(location=location, value=None)  # so that @name still leads somewhere
        items = [self.parser.entry(item, location / index) for index, item in enumerate(raw)]
        return ListNode(location=location, items=tuple(items))

    def _misplaced(self, key: str, node: Node) -> None:
        """Report values that have a meaning only elsewhere: a ``ref``, a file of weights."""
        own = node.items if key in TRANSFORM_SLOTS and isinstance(node, ListNode) else ()
        for inner in walk(node, with_disabled=True):
            if isinstance(inner, WeightsFile):
                message = f"{inner.kind!r} has a meaning only in the model of an evaluation"
                self._problem(inner.location, message, "model")
            if isinstance(inner, TransformRef) and not any(inner is item for item in own):
                message = "a 'ref' is only allowed in pre_transforms or post_transforms themselves"
                self._problem(inner.location, message, "ref")

    def _model(self, raw: Any) -> Node | None:
        location = self.location / "model"
        if raw is None:
            self._problem(location, "the entry 'model' is missing", "section")
            return None
        before = len(self.problems)
        if isinstance(raw, list):
            nodes = [self.parser.entry(item, location / index) for index, item in enumerate(raw)]
        else:
            nodes = [self.parser.entry(raw, location)]
        enabled = [
            node
            for node in nodes
            if isinstance(node, ComponentSpec | WeightsFile) and not node.disabled
        ]
        if len(enabled) != 1 and len(self.problems) == before:
            self._problem(
                location,
                f"exactly one entry has to be enabled, found {len(enabled)} of {len(nodes)}",
                "model",
                "Set dont_load_ts_model and dont_load_ckpt_model so that one of them is false.",
            )
        return enabled[0] if len(enabled) == 1 else None

    def unknown_top_level(self, known: tuple[str, ...]) -> None:
        """Report objects and arrays at the top level that mean nothing."""
        if "evaluator" in self.document and "train" in known:
            message = "a training document has no entry 'evaluator' beside its sections"
            advice = "Is this an evaluation document? Use 'mmar evaluate' for it."
            self._problem(self.location / "evaluator", message, "section", advice)
            return
        for key, value in self.document.items():
            if isinstance(value, dict | list) and key not in known:
                advice = OLD_ENTRIES.get(key) or did_you_mean(key, known)
                self._problem(
                    self.location / key, f"unknown section {key!r}", "unknown-key", advice
                )

    def settings(self) -> RuntimeSettings:
        """Return the settings of the whole run, from the variables and the top-level objects."""
        return RuntimeSettings(
            amp=self._flag("amp") or False,
            multi_gpu=self._flag("multi_gpu") or False,
            use_gpu=self._flag("use_gpu") is not False,
            print_conf=self._flag("print_conf") or False,
            cudnn_benchmark=self._flag("cudnn_benchmark"),
            tf32=self._flag("tf32"),
            random_seed=self._random_seed(),
            input_size=self._input_size(),
        )

    def _flag(self, name: str) -> bool | None:
        variable = self.variables.get(name)
        if variable is None:
            return None
        if isinstance(variable.value, bool):
            return variable.value
        message = f"{name} has to be true or false, found {variable.value!r}"
        self._problem(variable.source / name, message, "type")
        return None

    def _random_seed(self) -> int | None:
        raw = self.document.get("determinism")
        if raw is None:
            return None
        location = self.location / "determinism"
        if not isinstance(raw, dict) or set(raw) - {"random_seed"}:
            self._problem(location, "has to be an object with one entry, random_seed", "type")
            return None
        before = len(self.problems)
        value = self.parser.scalar(raw.get("random_seed"), location / "random_seed")
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
            return value
        if len(self.problems) == before:
            message = f"has to be a whole number from 0 to 2**32 - 1, found {value!r}"
            self._problem(location / "random_seed", message, "type")
        return None

    def _input_size(self) -> tuple[int, ...] | None:
        raw = self.document.get("network_summary")
        if raw is None:
            return None
        location = self.location / "network_summary"
        if not isinstance(raw, dict) or set(raw) != {"network", "input_size"}:
            self._problem(location, "has to be an object with network and input_size", "type")
            return None
        sizes = raw["input_size"]
        if raw["network"] != "@model":
            self._problem(location / "network", 'has to be "@model"', "reference")
        valid = isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)
        if not valid or not sizes:
            message = "has to be an array of positive whole numbers: batch, channels, voxels"
            self._problem(location / "input_size", message, "type")
            return None
        return tuple(sizes)

    def with_refs_resolved(
        self, sections: Mapping[str, Section], source: str
    ) -> dict[str, Section]:
        """Return the sections with each ``ref`` replaced by a copy of the transform that it names.

        Raises:
            ConfigError: the copies are larger than a document may be.
        """
        known = _transforms_by_name(sections[source])
        lists = [section.entries.get(slot) for section in sections.values() for slot in LIST_SLOTS]
        items = [item for node in lists if isinstance(node, ListNode) for item in node.items]
        names = [item.name for item in items if isinstance(item, TransformRef)]
        size = sum(len(min(known[name].signatures, key=len)) for name in names if name in known)
        if size > MAX_REPEATED:  # a short document that refers to a long transform again and again
            message = f"its refs repeat {size} characters of transforms; {MAX_REPEATED} is the most"
            raise ConfigError([*self.problems, Problem(self.location, message, "", "limit")])
        resolved = {}
        for name, section in sections.items():
            if not section.entries and name == "validate":
                continue
            entries = dict(section.entries)
            for key, node in entries.items():
                if key in LIST_SLOTS and isinstance(node, ListNode):
                    nodes = [
                        self._target(item, known) if isinstance(item, TransformRef) else item
                        for item in node.items
                    ]
                    entries[key] = replace(node, items=tuple(nodes))
            resolved[name] = replace(section, entries=MappingProxyType(entries))
        return resolved

    def _target(self, ref: TransformRef, known: Mapping[str, _Named]) -> Node:
        if len(self.problems) >= MAX_PROBLEMS:
            return Literal(location=ref.location, value=None)
        named = known.get(ref.name)
        if named is not None and len(named.signatures) == 1:
            return replace(named.targets[0], disabled=ref.disabled)
        if named is None:
            message = f"no transform of the train section is called {ref.name!r}"
            advice = did_you_mean(ref.name, known)
        else:
            places = ", ".join(target.location.place for target in named.targets)
            message = f"{ref.name!r} could mean several transforms: {places}"
            advice = f'Give each an alias in the train section, such as "{ref.name}#first".'
        self._problem(ref.location / "ref", message, "ref", advice)
        return Literal(location=ref.location, value=None)

    def _problem(self, location: Location, message: str, rule: str, advice: str = "") -> None:
        self.problems.append(Problem(location, message, advice, rule))


def _read_both(path: Path, environment: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both documents, with the faults of both reported together."""
    documents: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for source in (path, environment) if environment is not None else (path,):
        try:
            value = read_json(source)
        except ConfigError as error:
            problems += error.problems
            continue
        if not isinstance(value, dict):
            problems.append(Problem(Location(source.name), "has to be a JSON object", "", "json"))
        documents.append(value)
    if problems:
        raise ConfigError(problems)
    return documents[0], documents[1] if environment is not None else {}


def _section(location: Location, entries: Mapping[str, Node | None]) -> Section:
    """Return the section of the entries that parsed; disabled entries are known by name only."""
    parsed = {key: node for key, node in entries.items() if node is not None}
    disabled = frozenset(key for key, node in parsed.items() if is_disabled(node))
    enabled = {key: node for key, node in parsed.items() if key not in disabled}
    return Section(location=location, entries=MappingProxyType(enabled), disabled=disabled)


@dataclass(frozen=True, slots=True)
class _Named:
    """The transforms of a name; ``signatures`` differ for transforms that are built differently."""

    targets: list[ComponentSpec]
    signatures: set[str]


def _transforms_by_name(section: Section) -> dict[str, _Named]:
    """Return the train section's transforms under their class names and under their aliases."""
    transforms: dict[str, _Named] = {}
    for slot in TRANSFORM_SLOTS:
        node = section.entries.get(slot)
        for item in node.items if isinstance(node, ListNode) else ():
            if isinstance(item, ComponentSpec):
                for name in {item.title, item.alias} - {None}:
                    named = transforms.setdefault(str(name), _Named([], set()))
                    named.targets.append(item)
                    named.signatures.add(repr([item.name, item.path, plain(item.args)]))
    return transforms
