"""A resolved configuration -> objects; each entry is built once, when first asked for."""

from __future__ import annotations

import copy
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.data import DataLoader
from monai.engines import Workflow

from mmar_runtime.components.caches import CACHING, cache_names
from mmar_runtime.components.catalog import check_own_arguments, find_class, takes_argument
from mmar_runtime.components.conf import TrainConf
from mmar_runtime.components.expressions import interpret
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.components.handlers.trackers import close_at_end
from mmar_runtime.components.images.case_errors import PlacedTransforms, placed_collate
from mmar_runtime.components.images.image_readers import leave_dicom_to_itk
from mmar_runtime.components.launch import ALONE, Processes
from mmar_runtime.components.measuring import Measurements, counted
from mmar_runtime.components.processes import averaging_gradients, own_part
from mmar_runtime.components.size import memory_for, require_no_more, require_size
from mmar_runtime.config.data_list import label_names, read_data_list
from mmar_runtime.config.expressions import Lambda, references
from mmar_runtime.config.file_keys import file_keys
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    Expression,
    ListNode,
    Literal,
    MapNode,
    Node,
    Reference,
    TransformRef,
    WeightsFile,
)
from mmar_runtime.config.sections import SLOT_KINDS, TRANSFORM_SLOTS, WorkflowConfig
from mmar_runtime.errors import ComponentError, MmarError
from mmar_runtime.metrics import is_better
from mmar_runtime.policy.component_check import ENGINE_KINDS
from mmar_runtime.policy.metrics.metric_kinds import MetricKind, metric_kinds
from mmar_runtime.policy.run_folders import run_folders
from mmar_runtime.policy.site_policy import DEFAULT_POLICY

logger = logging.getLogger(__name__)

METRIC_SLOTS = ("key_metric", "additional_metrics")
WRITTEN_ONCE = ("CheckpointSaver",)
"""Handlers that are the first process's, even if the config does not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """The surroundings of a build: the values that a component gets without the config saying so.

    Attributes:
        device: where networks and engines live.
        processes: which process of how many; handlers of other ranks are left out.
        amp: whether automatic mixed precision can run here.
        allow_code: whether components may come from the MMAR's own code.
        max_parameters: numbers that a network of the table may have.
        at_end: the callbacks after the run, failed or not; the creator of this value closes it.
    """

    device: torch.device
    processes: Processes = ALONE
    amp: bool = False
    allow_code: bool = False
    max_parameters: int = DEFAULT_POLICY.limits.parameters
    at_end: ExitStack = field(default_factory=ExitStack, compare=False)


class ComponentBuilder:
    """Builds the entries of a config on demand.

    Args:
        config: the resolved configuration.
        context: device and permissions.
        counts: counts the built components, as ``section.entry``, for all who share it.
        given: objects to use in place of entries, by section and entry.

    Attributes:
        listed: items of a section's data list, before they are dealt out to the processes.
    """

    def __init__(
        self,
        config: WorkflowConfig,
        context: BuildContext,
        *,
        counts: Counter[str] | None = None,
        given: Mapping[tuple[str, str], object] | None = None,
    ) -> None:
        leave_dicom_to_itk()
        self.config = config
        self.context = context
        self.counts = Counter() if counts is None else counts
        self.listed: dict[str, int] = {}
        self._built: dict[tuple[str, str], Any] = dict(given or {})
        self._announced: set[str] = set()

    def get(self, scope: str, name: str) -> Any:
        """Return the object of a section's entry.

        Raises:
            ComponentError: a component refused its arguments or failed in its own code.
            ConfigError: a name or an argument that only shows when the class is at hand.
        """
        key = (scope, name)
        if key not in self._built:
            node = self.config.scopes[scope].entries[name]
            self._built[key] = self._entry(name, node, scope)
            self.counts[f"{scope}.{name}" if scope else name] += 1
        return self._built[key]

    def built(self, scope: str) -> dict[str, Any]:
        """Return the objects of a section that something has asked for so far, by entry."""
        return {name: built for (section, name), built in self._built.items() if section == scope}

    def fork(
        self, scope: str, *, anew: Iterable[str], given: Mapping[str, object]
    ) -> ComponentBuilder:
        """Return a builder that shares the built objects, but builds or gets some entries anew."""
        changed = {(scope, name) for name in (*anew, *given)}
        shared = {key: built for key, built in self._built.items() if key not in changed}
        return ComponentBuilder(
            self.config,
            self.context,
            counts=self.counts,
            given={**shared, **{(scope, name): built for name, built in given.items()}},
        )

    def _entry(self, name: str, node: Node, scope: str) -> Any:
        kind = SLOT_KINDS.get(name)
        if name in METRIC_SLOTS:
            nodes = node.items if isinstance(node, ListNode) else (node,)
            specs = [item for item in nodes if isinstance(item, ComponentSpec)]
            enabled = [spec for spec in specs if self._wanted(spec)]
            return {spec.log_label: self._metric(spec, scope) for spec in enabled}
        if name in TRANSFORM_SLOTS:
            nodes = node.items if isinstance(node, ListNode) else ()
            places = [item.location for item in nodes if self._wanted(item)]
            return PlacedTransforms(self._value(node, scope, kind), places)
        return self._value(node, scope, kind)

    def _value(self, node: Node, scope: str, kind: str | None = None) -> Any:
        match node:
            case Literal():
                return node.value
            case ListNode():
                return [self._value(item, scope, kind) for item in node.items if self._wanted(item)]
            case MapNode():
                return {key: self._value(item, scope) for key, item in node.items.items()}
            case Reference():
                return self._reference(scope, node.name)
            case Expression():
                return self._interpreted(node, scope)
            case ComponentSpec():
                return self._component(node, scope, kind)
            case WeightsFile() | TransformRef():
                raise TypeError(f"{node.location}: the workflow resolves this before building")

    def _metric(self, spec: ComponentSpec, scope: str) -> Metric:
        kind = self._kinds(scope)[spec.log_label or ""]
        return counted(self._component(spec, scope, "metric"), kind, self._label_names)

    @cached_property
    def _label_names(self) -> Mapping[int, str]:
        return label_names(self.config)  # it reads the data list

    def _kinds(self, scope: str) -> Mapping[str, MetricKind]:
        return metric_kinds(self.config.scopes[scope])

    def measurements(self, scope: str, engine: Engine) -> Measurements:
        """Return the reader of the metrics of a section's engine, which is built."""
        handlers: dict[str, Metric] = {}
        for slot in METRIC_SLOTS:
            handlers |= self.built(scope).get(slot) or {}
        return Measurements(engine, handlers, self._kinds(scope))

    def _wanted(self, node: Node) -> bool:
        if not isinstance(node, ComponentSpec):
            return True
        rank = 0 if node.rank is None and node.name in WRITTEN_ONCE else node.rank
        return not node.disabled and rank in (None, self.context.processes.rank)

    def _reference(self, scope: str, name: str) -> Any:
        if name == "conf":
            return TrainConf(self.config.as_json())
        target = self.config.find(scope, name)
        if target is None:
            raise KeyError(f"the loader lets no unresolved @{name} through")
        return self.get(*target)

    def _interpreted(self, node: Expression, scope: str) -> Any:
        # A component that fails names its own place; the expression's is for the expression itself.
        built = {name: self._reference(scope, name) for name in sorted(references(node.tree))}
        with _placed(node.location):
            value = interpret(node.tree, built.__getitem__)
        if not isinstance(node.tree, Lambda):
            return value
        return _placed(node.location)(cast("Callable[[object], object]", value))

    def _component(self, spec: ComponentSpec, scope: str, kind: str | None) -> Any:
        custom = Path(self.config.mmar_root) / "custom"
        cls, entry = find_class(spec, kind, custom=custom, allow_code=self.context.allow_code)
        arguments = {
            name: self._value(node, scope, "transform") for name, node in spec.args.items.items()
        }
        if spec.data_list is not None:
            items = read_data_list(spec.data_list, file_keys=file_keys(self.config)).items
            self.listed[scope] = len(items)
            arguments["data"] = own_part(
                items,
                self.context.processes,
                training=scope == "train",
                place=spec.location,
            )
        if entry is not None:
            for name in arguments.keys() & entry.arguments.keys():
                if entry.arguments[name].tensor and isinstance(arguments[name], list):
                    arguments[name] = torch.tensor(arguments[name], dtype=torch.float32)
            for name, folder in run_folders(spec, entry, self.config.variables).items():
                arguments[name] = arguments.get(name) or folder
            if entry.path in CACHING:
                arguments |= cache_names(self.config.scopes[scope], custom)
        kind = kind if entry is None else entry.kind
        if cls is DataLoader:
            arguments.setdefault("collate_fn", partial(placed_collate, spec.location))
        derived = inspect.isclass(cls) and issubclass(cls, Workflow)
        engine = kind if kind in ENGINE_KINDS and derived else None
        if engine is not None and takes_argument(cls, "device"):
            arguments.setdefault("device", self.context.device)
        if engine is not None or cls is AtomicCheckpointSaver:
            self._set_direction(arguments, cls, scope)
        self._fit_to_machine(arguments, engine=engine is not None)
        if entry is None:
            check_own_arguments(spec, cls, arguments)
        if engine == "trainer" and self.context.processes.several:
            for name, value in arguments.items():
                if isinstance(value, torch.nn.Module) and name.endswith("network"):
                    arguments[name] = averaging_gradients(value, self.context.device)
        network = kind == "network"
        if network and entry is not None:
            self._require_size(spec, cls, arguments)
        with memory_for(self.context.max_parameters) if network else nullcontext():
            built = self._call(spec, cls, arguments)
        if network and isinstance(built, torch.nn.Module):
            require_no_more(built, self.context.max_parameters, spec.title, spec.location)
        if isinstance(built, Engine):
            # Otherwise ignite resumes a run that has failed: it does nothing, and reports success.
            built.interrupt_resume_enabled = False
        close_at_end(built, self.context.at_end)
        return built.to(self.context.device) if isinstance(built, torch.nn.Module) else built

    def _set_direction(self, arguments: dict[str, Any], cls: type[Any], scope: str) -> None:
        """Let an engine and a saver of models compare the key metric as everything else does."""
        kinds = self._kinds(scope)
        label = arguments.get("key_metric_name") or next(iter(kinds), "")
        higher = label not in kinds or kinds[label].higher_is_better is not False
        if cls is AtomicCheckpointSaver:
            arguments["key_metric_negative_sign"] = not higher
        elif takes_argument(cls, "metric_cmp_fn"):
            arguments["metric_cmp_fn"] = partial(is_better, higher_is_better=higher)

    def _fit_to_machine(self, arguments: dict[str, Any], *, engine: bool) -> None:
        """Replace the written device by the device of this machine; leave AMP on where it runs."""
        for name in ("device", "sw_device"):  # sw_device: of windows
            device = arguments.get(name)
            on_gpu = isinstance(device, str) and device.startswith("cuda")
            if on_gpu or (engine and device is not None):
                arguments[name] = self.context.device
                if isinstance(device, str) and not str(self.context.device).startswith(device):
                    self._announce(f"device {device!r} runs on {self.context.device} here")
        if engine and arguments.get("amp") and not self.context.amp:
            arguments["amp"] = False
            self._announce("amp is off: automatic mixed precision needs a GPU")

    def _require_size(
        self, spec: ComponentSpec, cls: type[Any], arguments: Mapping[str, Any]
    ) -> None:
        """Refuse a network that is too large before its memory is taken."""
        if any(isinstance(value, torch.nn.Module) for value in arguments.values()):
            return  # a part of it is there already, and would be changed
        require_size(
            lambda: cls(**copy.deepcopy(dict(arguments))),
            most=self.context.max_parameters,
            title=spec.title,
            location=spec.location,
        )

    def _announce(self, message: str) -> None:
        if message not in self._announced:
            self._announced.add(message)
            logger.info("%s: %s", self.config.file, message)

    def _call(self, spec: ComponentSpec, cls: type[Any], arguments: Mapping[str, Any]) -> Any:
        try:
            return cls(**arguments)
        except MmarError:
            raise
        except Exception as error:
            error.add_note(f"while building {spec.title} at {spec.location}")
            raise ComponentError(
                f"{spec.location}: {spec.title} could not be built: {type(error).__name__}: {error}"
            ) from error


@contextmanager
def _placed(place: Location) -> Iterator[None]:
    """Let an error of an expression begin with its place; as a decorator, at each call."""
    try:
        yield
    except ComponentError as error:
        raise ComponentError(f"{place}: {error}") from error
