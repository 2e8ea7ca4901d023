"""Faults between the parts of a config that are each right: names that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TypeAlias

from mmar_runtime.config import expressions
from mmar_runtime.config.data_list import listed_keys
from mmar_runtime.config.expressions import from_engine_keys
from mmar_runtime.config.grids import argument_of, texts_of, title_of, transforms_of
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    Expression,
    Literal,
    Node,
    referenced_names,
    walk,
)
from mmar_runtime.config.sections import (
    TRANSFORM_SLOTS,
    EvaluationConfig,
    Section,
    TrainConfig,
    WorkflowConfig,
)
from mmar_runtime.errors import Problem, did_you_mean
from mmar_runtime.names import NAME_FORM, is_name

ENGINE_KEYS = frozenset({"image", "label", "pred", "loss"})
"""Keys that MONAI's supervised engines add to their output themselves."""

MAX_ENDINGS = 3
"""Parts after an underscore that MONAI puts after the name of an entry."""

ASKING_FOR_NONE = ("DeleteItemsd", "ExtractDataKeyFromMetaKeyd")
"""Transforms whose keys need not be there."""

MADE_UNNAMED = ("box", "foreground_end_coord", "foreground_start_coord", "hover", "points")
"""Entries, or their beginnings, that transforms make without an argument that names them."""

NEEDED_IN_EACH_PROCESS = frozenset(
    {
        "CheckpointLoader",
        "ClassificationSaver",
        "EarlyStopHandler",
        "LrScheduleHandler",
        "MetricsSaver",
        "SmartCacheHandler",
        "ValidationHandler",
    }
)
"""Handlers that wait for the other processes, or that leave them with other weights."""

ENTRY_ARGUMENTS = (
    *("keys", "image_key", "key_dst", "label_key"),
    *("mask_key", "orig_keys", "source_key", "w_key"),
)
"""Arguments of transforms that name entries of a case which have to be there."""

MAX_SPLITS = 64
"""Channels that SplitDimd names by numbers, at most, as far as the check of keys knows."""

BUILT_IN_NAMES = frozenset({"conf"})

Entry: TypeAlias = tuple[str, str]
"""Names of a section and of an entry in it."""


def problems(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield every inconsistency of a config, in the order of the document."""
    yield from _missing_entries(config)
    for scope, section in config.scopes.items():
        for node in section.entries.values():
            for name, location in referenced_names(node):
                if name not in BUILT_IN_NAMES and not config.find(scope, name):
                    yield _unresolved(config, name, location)
    yield from _cycles(config)
    for section in config.scopes.values():
        yield from _misplaced_ranks(section, several=config.settings.multi_gpu)
        yield from _metric_faults(section)


def _missing_entries(config: WorkflowConfig) -> Iterator[Problem]:
    required = []
    if isinstance(config, TrainConfig):
        required = [(config.train, "trainer")]
        if config.validate is not None:
            required.append((config.validate, "evaluator"))
    elif isinstance(config, EvaluationConfig):
        required = [(config.section, "evaluator")]
    for section, name in required:
        if section.entries.keys() - {"model"} and name not in section.entries:
            state = "disabled" if name in section.disabled else "missing"
            message = f"the entry {name!r} is {state}"
            yield Problem(section.location / name, message, "", "section")


def _unresolved(config: WorkflowConfig, name: str, location: Location) -> Problem:
    sections = config.scopes.values()
    disabled = [part.location / name for part in sections if name in part.disabled]
    if disabled:
        message = f"@{name} refers to an entry that is disabled, {disabled[0]}"
        return Problem(location, message, "Enable it, or take this reference out.", "reference")
    known = {key for part in sections for key in part.entries}
    message = f"@{name} refers to an entry that does not exist"
    return Problem(location, message, did_you_mean(name, known | BUILT_IN_NAMES), "reference")


def _cycles(config: WorkflowConfig) -> Iterator[Problem]:
    done: set[Entry] = set()
    for start in ((scope, name) for scope, part in config.scopes.items() for name in part.entries):
        # The trail is a stack of our own: a chain of references may be longer than Python's.
        trail = {} if start in done else {start: _targets(config, start)}
        while trail:
            entry = next(reversed(trail))
            target = next(trail[entry], None)
            if target is None:
                done.add(entry)
                del trail[entry]
            elif target in trail:
                entries = list(trail)
                names = [f"@{name}" for _, name in [*entries[entries.index(target) :], target]]
                scope, name = target
                message = f"references go in a circle: {' -> '.join(names)}"
                advice = "Nothing can be built first here; take one of these references out."
                yield Problem(config.scopes[scope].location / name, message, advice, "cycle")
            elif target not in done:
                trail[target] = _targets(config, target)


def _targets(config: WorkflowConfig, entry: Entry) -> Iterator[Entry]:
    """Yield the entries that an entry refers to."""
    scope, name = entry
    for target, _ in referenced_names(config.scopes[scope].entries[name]):
        if (referred := config.find(scope, target)) is not None:
            yield referred


def _misplaced_ranks(section: Section, *, several: bool) -> Iterator[Problem]:
    """Yield a rank outside of handlers: each process has to build all other entries.

    Of ``several`` processes each needs the handlers that ask the others, or change shared values.
    """
    handlers = section.specs("handlers")
    for entry in section.entries.values():
        for node in walk(entry):
            ranked = isinstance(node, ComponentSpec) and node.rank is not None
            if ranked and not any(node is handler for handler in handlers):
                message = "only a handler may be kept to one process by 'rank'"
                yield Problem(node.location / "rank", message, "Take 'rank' out here.", "rank")
    for spec in handlers if several else ():
        if spec.rank is not None and spec.name in NEEDED_IN_EACH_PROCESS:
            message = f"of several processes, each needs the {spec.name}"
            yield Problem(spec.location / "rank", message, "Take 'rank' out here.", "rank")


def metric_labels(section: Section) -> tuple[str, ...]:
    """Return the names under which a section's metrics appear in results, the key metric first."""
    metrics = (*section.specs("key_metric"), *section.specs("additional_metrics"))
    return tuple(spec.log_label for spec in metrics if spec.log_label is not None)


def _metric_faults(section: Section) -> Iterator[Problem]:
    """Yield metrics without a name of their own, and names that a MetricsSaver cannot find."""
    seen = set()
    for spec in (*section.specs("key_metric"), *section.specs("additional_metrics")):
        if spec.log_label is None:
            message = "a metric needs a 'log_label', the name of its value in results"
            yield Problem(spec.location, message, "", "log-label")
        elif not is_name(spec.log_label):
            message = f"{spec.log_label!r} has to be {NAME_FORM}"
            yield Problem(spec.location / "log_label", message, "", "log-label")
        elif spec.log_label in seen:
            message = f"another metric of this section is called {spec.log_label!r} too"
            yield Problem(spec.location / "log_label", message, "Rename one.", "log-label")
        seen.add(spec.log_label)
    labels = metric_labels(section)
    for spec in section.specs("handlers"):
        if spec.name != "MetricsSaver":
            continue
        for argument in ("metrics", "metric_details"):
            given = spec.args.items.get(argument)
            for node in walk(given) if given is not None else ():
                value = node.value if isinstance(node, Literal) else None
                if isinstance(value, str) and value not in (*labels, "*", "loss"):
                    yield _unknown_metric(value, node.location, labels)
    if has_own_engine(section) or any(spec.path for spec in section.specs("handlers")):
        return  # whose code may add metrics
    for node in (node for entry in section.entries.values() for node in walk(entry)):
        for name in _asked_metrics(node):
            if name not in labels:
                yield _unknown_metric(name, node.location, labels)


def _unknown_metric(name: str, place: Location, labels: tuple[str, ...]) -> Problem:
    message = f"no metric of this section is called {name!r}"
    return Problem(place, message, did_you_mean(name, labels), "metric")


def _asked_metrics(node: Node) -> Iterator[str]:
    """Yield the names by which an expression asks an engine for metrics."""
    for part in expressions.walk(node.tree) if isinstance(node, Expression) else ():
        if isinstance(part, expressions.Subscript) and isinstance(part.key, str):
            asked = part.value
            if isinstance(asked, expressions.Attribute) and asked.field == "metrics":
                yield part.key


def unproduced_keys(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield keys that no engine, transform or data list produces.

    This opens the lists, so ``problems`` leaves it out: whether they may be opened comes first.
    """
    for section in config.scopes.values():
        if has_own_engine(section):
            continue
        sources = [spec.data_list for spec in section.specs("dataset") if spec.data_list]
        listed = list(map(listed_keys, sources))
        if None in listed:
            continue  # where the data is, the lists are looked at again
        keys_of_items = frozenset[str]().union(*filter(None, listed))
        if sources:
            yield from _missing_keys(section, keys_of_items)
        produced = _produced_keys(section) | keys_of_items
        for node in (node for entry in section.entries.values() for node in walk(entry)):
            keys = from_engine_keys(node.tree) if isinstance(node, Expression) else None
            for key in keys or ():
                if key not in produced:
                    message = f"nothing produces {key!r}, which from_engine asks for"
                    yield Problem(node.location, message, did_you_mean(key, produced), "engine-key")


def _missing_keys(section: Section, listed: frozenset[str]) -> Iterator[Problem]:
    """Yield keys of transforms that neither an item of the list has nor a transform before makes.

    Any text in an argument of a transform may be the name of an entry that it makes, and any entry
    may get companions, such as ``label_fg_indices``.
    """
    known = {*listed, *MADE_UNNAMED, "label"}  # of an item without a label the data check tells
    for slot in TRANSFORM_SLOTS:
        for spec in transforms_of(section, slot):
            asked = [(name, key) for name in ENTRY_ARGUMENTS for key in texts_of(spec, name)]
            optional = argument_of(spec, "", "allow_missing_keys") is True
            for name, key in () if optional or title_of(spec) in ASKING_FOR_NONE else asked:
                if known.isdisjoint(_origins(key)):
                    message = f"{spec.title}: nothing before it gives a case the entry {key!r}"
                    advice = did_you_mean(key, known.difference(MADE_UNNAMED))
                    yield Problem(spec.args.location / name, message, advice, "key")
            if not title_of(spec):
                return  # code of the MMAR's own may make any entry
            known |= _texts(spec)
        known |= ENGINE_KEYS


def _origins(key: str) -> set[str]:
    """Return what a key may be made of, as ``label_fg_indices`` is of ``label``."""
    parts = key.rsplit("_", MAX_ENDINGS)
    beginnings = ["_".join(parts[: count + 1]) for count in range(len(parts))]
    return {key, *beginnings, *(f"{beginning}_" for beginning in beginnings)}


def has_own_engine(section: Section) -> bool:
    """Return whether code of the MMAR fills the engine's output."""
    engines = (*section.specs("trainer"), *section.specs("evaluator"))
    own = (*section.specs("iteration"), *section.specs("prepare_batch"))
    supervised = {"SupervisedTrainer", "SupervisedEvaluator"}
    transforms = (*section.specs("pre_transforms"), *section.specs("post_transforms"))
    return (
        bool(own)
        or any(spec.path is not None or spec.name not in supervised for spec in engines)
        or any(spec.path is not None for spec in transforms)
        or any("iteration_update" in spec.args.items for spec in engines)
    )


def _produced_keys(section: Section) -> set[str]:
    """Return every possible key: any string in a transform's arguments may name a key."""
    produced = set(ENGINE_KEYS)
    for slot in TRANSFORM_SLOTS:
        for spec in section.specs(slot):
            texts = _texts(spec)
            produced |= texts
            if spec.title.startswith("SplitDim"):  # pred -> pred_tumor, else pred_0
                numbers = map(str, range(MAX_SPLITS))
                ends = texts if "output_postfixes" in spec.args.items else numbers
                produced |= {f"{key}_{end}" for key, end in product(texts, ends)}
    return produced | {f"{key}_{end}" for key in produced for end in ("meta_dict", "transforms")}


def _texts(spec: ComponentSpec) -> set[str]:
    """Return the texts in the arguments of a component."""
    parts = (node for node in walk(spec.args) if isinstance(node, Literal))
    return {part.value for part in parts if isinstance(part.value, str)}
