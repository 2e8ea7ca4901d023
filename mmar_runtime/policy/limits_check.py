"""Numbers of a configuration, and of the headers of its images, that could use up a machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from mmar_runtime.config import expressions
from mmar_runtime.config.data_list import lists_of_cases
from mmar_runtime.config.file_keys import file_keys
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    Expression,
    ListNode,
    Literal,
    Node,
    Reference,
    WeightsFile,
)
from mmar_runtime.config.sections import THREADS_VARIABLE, Section, WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import all_components, components_of_kind, table_entry
from mmar_runtime.policy.files.image_header import ImageHeader, read_header
from mmar_runtime.policy.possible_values import Possible, possible_of, possible_values
from mmar_runtime.policy.site_policy import Limits

WORKERS = ("num_workers", "num_init_workers", "num_replace_workers")
SIZES = frozenset(
    {
        "autoencoder_latent_shape", "cropped_shape", "image_size", "img_size", "in_shape",
        "input_image_size", "input_shape", "latent_shape", "ldm_latent_shape", "max_roi_size",
        "max_spatial_size", "merged_shape", "out_shape", "output_shape", "patch_size", "rand_size",
        "roi_size", "spatial_shape", "spatial_size", "start_shape",
    }
)  # fmt: skip
"""Arguments that are a number for each axis, or a number for all axes."""

ENLARGING = frozenset({"zoom", "max_zoom"})
"""Arguments by which each axis grows."""

COPYING = frozenset({"num_samples", "repeats", "times"})
"""Arguments that make several arrays of one."""

WIDENING: Mapping[str, int] = MappingProxyType({"spatial_border": 2, "k": 1})
"""Argument -> how often it is added to the length of each axis, of a border and of a divisor."""

ONE_HOT: Mapping[str, str] = MappingProxyType(
    {"AsDiscrete": "to_onehot", "VoteEnsemble": "num_classes"}
)
"""How the transforms begin that make a channel of each class -> the argument with their number."""

GRID = "GridPatch"
"""In the names of the transforms that cut an image into patches, all of them before they choose."""

CONCATENATING = "ConcatItems"
"""The first words of transforms that join the arrays of their ``keys``."""

MOST_RUNS = 4000
"""How often the transforms of a section may run for one case, inner transforms included."""

MADE = frozenset({"max_roi_size", "patch_size", "roi_size", "spatial_shape", "spatial_size"})
"""Sizes that an image has after a transform."""

LEAST_SPACING = 0.01
"""mm from voxel to voxel; a volume that is resampled to less fills the memory."""

BATCH_VOXELS = 8_000_000_000
"""Voxels that the transforms may make of one batch, as far as the arguments say: 32 GB."""

COUNTED_VOXELS = 2**17
"""An image counts as so many at least, and as so many where its size is unknown."""

PLANAR = frozenset(
    {
        "EfficientNet", "EfficientNetBN", "EfficientNetBNFeatures", "EfficientNetEncoder",
        "FlexibleUNet", "HoVerNet", "MILModel", "NetAdapter", "Quicknat", "TorchVisionFCModel",
    }
)  # fmt: skip
"""Networks of images with two axes, unless their ``spatial_dims`` is 3."""

MAX_THREADS = 1024
BYTES_PER_PARAMETER = 16
"""Of a file of weights: a number, and the two that an optimizer keeps next to it, with room."""

SPATIAL = 3
"""Axes of a volume that are in space."""

MAX_LISTED = 20

Tree: TypeAlias = expressions.Node
Check: TypeAlias = Callable[[WorkflowConfig], Iterator[Problem]]


def limits_check(limits: Limits) -> Check:
    """Return the check of numbers in arguments, to hand to the loader."""
    return lambda config: _LimitsCheck(config, limits).problems()


@dataclass(frozen=True)
class _LimitsCheck:
    """The check of the numbers of a configuration."""

    config: WorkflowConfig
    limits: Limits

    def problems(self) -> Iterator[Problem]:
        for spec, entry in all_components(self.config):
            for name, node in () if entry is None else spec.args.items.items():
                place = spec.args.location / name
                for fault in self._faults(name, node):
                    yield Problem(place, f"{spec.title}: {name} {fault}", "", "limit")
        for scope, section in self.config.scopes.items():
            yield from self._batch_fault(scope)
            yield from self._window_fault(section)
        values = math.prod(self.config.settings.input_size or ())
        if values > self.limits.image_voxels:  # network_summary runs the network on so many
            place = Location(self.config.file) / "network_summary" / "input_size"
            message = f"has {values} values; {self.limits.image_voxels} is the most"
            yield Problem(place, message, "", "limit")
        threads = self.config.variables.get(THREADS_VARIABLE)
        if threads is not None and not (
            type(threads.value) is int and 1 <= threads.value <= MAX_THREADS
        ):
            message = f"is {threads.value!r:.40}; a whole number from 1 to {MAX_THREADS} is allowed"
            yield Problem(threads.source / THREADS_VARIABLE, message, "", "limit")

    @cached_property
    def axes(self) -> int:
        """The most axes that images may have; an evaluation does not describe its network."""
        for section in self.config.scopes.values():
            for spec in section.specs("model"):
                entry, node = table_entry(spec, "network"), spec.args.items.get("spatial_dims")
                planar = entry is not None and entry.name in PLANAR
                if planar if node is None else possible_values(node).most <= 2:
                    return 2
        return SPATIAL

    def _faults(self, name: str, node: Node) -> Iterator[str]:
        """Yield the faults of an argument; the argument's name precedes each text."""
        if isinstance(node, Reference):  # it leads to a component
            return
        if name in WORKERS:
            most, reached = self.limits.workers, possible_values(node).most
            if reached > most:
                shown = f"may be {_shown(reached)}" if math.isfinite(reached) else "has no bound"
                yield f"{shown}; {most} is the most"
        if name == "pixdim":  # zero and below keep the spacing that an image has
            least = _least_step(node)
            if least < LEAST_SPACING:
                yield f"may be {least:g}; {LEAST_SPACING} mm is the least"
        if name in SIZES:
            voxels = self._product(node)
            if voxels > self.limits.image_voxels:
                yield f"has {_shown(voxels)} voxels; {self.limits.image_voxels} is the most"

    def _batch_fault(self, scope: str) -> Iterator[Problem]:
        """Yield a fault if the transforms make too many voxels of one batch by sizes and copies.

        Each number keeps to its bound, and a hundred transforms multiply them.
        """
        section = self.config.scopes[scope]
        copies = math.prod(
            _most(spec.args.items.get("batch_size"))
            for spec in components_of_kind(section, "dataloader")
        )
        voxels, channels = float(COUNTED_VOXELS), 1.0
        for count, spec in enumerate(self._run_through(scope)):
            if count == MOST_RUNS:
                message = f"transforms inside of others run more than {MOST_RUNS} times"
                yield Problem(spec.location, message, "Write each of them once.", "limit")
                return
            if not isinstance(spec, ComponentSpec):
                continue
            sizes = [self._product(node) for name, node in spec.args.items.items() if name in MADE]
            if GRID in spec.title:
                patches, voxels = self._patches(spec, voxels)
                copies *= patches
            elif sizes:
                voxels = max(*sizes, COUNTED_VOXELS)
            for name, node in spec.args.items.items():
                voxels *= self._product(node) if name in ENLARGING else 1
                copies *= _most(node) if name in COPYING else 1
                if name in WIDENING:
                    side = voxels ** (1 / self.axes) + WIDENING[name] * _most(node)
                    # A power would raise where it is too large.
                    voxels = math.prod([side] * self.axes)
            if spec.title.startswith(CONCATENATING):
                copies *= max(1, sum(1 for _ in _leaves(spec.args.items.get("keys", spec))))
            for start, argument in ONE_HOT.items():  # no transform multiplies others' channels
                if spec.title.startswith(start):
                    channels = max(channels, _most(spec.args.items.get(argument)))
            total = copies * channels * voxels
            radius = spec.args.items.get("radius")
            if radius is not None:  # of a median around each voxel
                total *= self._product(radius, lambda number: 1 + 2 * max(0.0, number.most))
            if total > BATCH_VOXELS:
                message = f"{spec.title}: makes {_shown(total)} voxels in one batch; "
                message += f"{BATCH_VOXELS} is the most"
                advice = "Use fewer copies or smaller sizes."
                yield Problem(spec.location, message, advice, "limit")
                return

    def _run_through(self, scope: str) -> Iterator[Node]:
        """Yield the transforms of a section as often as a case runs them, and nodes on the way."""
        waiting: list[Iterator[Node]] = [iter(self.config.scopes[scope].entries.values())]
        while waiting:
            node = next(waiting[-1], None)
            if node is None:
                waiting.pop()
            elif isinstance(node, ListNode):
                yield node
                waiting.append(iter(node.items))
            elif isinstance(node, ComponentSpec):
                entry = table_entry(node, None)
                if node.disabled or entry is None or entry.kind != "transform":
                    continue
                yield node
                if "transforms" in node.args.items:
                    times = min(_most(node.args.items.get("num_transforms")), MOST_RUNS)
                    waiting.append(repeat(node.args.items["transforms"], int(times)))
            elif isinstance(node, Reference | Expression):
                yield node
                # Each name as often as the node has it.
                parts = [node] if isinstance(node, Reference) else expressions.walk(node.tree)
                kinds = Reference | expressions.ReferenceName
                names = [part.name for part in parts if isinstance(part, kinds)]
                targets = filter(None, (self.config.find(scope, name) for name in names))
                waiting.append(iter([self.config.scopes[at].entries[name] for at, name in targets]))

    def _patches(self, spec: ComponentSpec, voxels: float) -> tuple[float, float]:
        """Return the number of patches of a grid on an image, and the voxels of each patch."""
        patch, overlap = (spec.args.items.get(name) for name in ("patch_size", "overlap"))
        size = voxels  # the most: a patch has whole axes where a number is below 1
        if patch is not None and possible_values(patch).least >= 1:
            size = self._product(patch)
        dense = 1.0  # the number of patches that hold a voxel
        if overlap is not None:
            dense = self._product(
                overlap, lambda part: 1 / (1 - max(0.0, part.most)) if part.most < 1 else math.inf
            )
        return max(_most(spec.args.items.get("num_patches")), dense * voxels / size), size

    def _product(
        self,
        node: Node,
        length: Callable[[Possible], float] = lambda number: max(1.0, number.most),
    ) -> float:
        """Return the product over all axes of the length that the number of each axis means.

        0 and below mean an axis as it is, which counts as 1.
        """
        largest = 1.0
        for choice in _choices(node):
            lengths = [length(number) for number in _numbers(choice)]
            largest = max(largest, math.prod(lengths if len(lengths) > 1 else lengths * self.axes))
        return largest

    def _window_fault(self, section: Section) -> Iterator[Problem]:
        """Yield the inferers that give the network too many voxels at once."""
        for spec in components_of_kind(section, "inferer"):
            window = spec.args.items.get("roi_size")
            voxels = 1.0 if window is None else self._product(window)
            voxels *= _most(spec.args.items.get("sw_batch_size"))
            if voxels > BATCH_VOXELS:
                message = f"{_shown(voxels)} voxels at once; {BATCH_VOXELS} is the most"
                advice = "Use a smaller roi_size or sw_batch_size."
                yield Problem(spec.location, f"{spec.title}: {message}", advice, "limit")


def weights_size_check(limits: Limits) -> Check:
    """Return the check of the sizes of files of weights; the loader runs it after that of paths."""
    most = BYTES_PER_PARAMETER * limits.parameters

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        files = [
            (spec.args.location / name, node.value)
            for spec, entry in all_components(config)
            for name, role in ({} if entry is None else entry.paths).items()
            if role == "read:model" and isinstance(node := spec.args.items.get(name), Literal)
        ]
        models = (node for node in config.nodes() if isinstance(node, WeightsFile))
        files += [(model.named_at, model.path) for model in models]
        for place, path in files:
            if isinstance(path, str) and os.path.isfile(path) and os.path.getsize(path) > most:
                message = f"the file of weights has {os.path.getsize(path)} bytes; {most} "
                yield Problem(place, message + "is the most", "", "limit")

    return check


def _shown(number: float) -> str:
    return f"{number:.0f}" if abs(number) < 1e15 else f"{number:.1e}"


def _choices(node: Node | Tree) -> Iterator[Node | Tree]:
    """Yield each value that an expression chooses from; the node itself if it chooses none."""
    match node:
        case Expression():
            yield from _choices(node.tree)
        case expressions.Conditional():
            yield from (*_choices(node.then), *_choices(node.otherwise))
        case expressions.BooleanOperation(operator="and" | "or"):
            for operand in node.operands:
                yield from _choices(operand)
        case _:
            yield node


def _leaves(node: Node | Tree) -> Iterator[Node | Tree]:
    """Yield the items of a list, of lists in it too; the node itself where it is not a list."""
    match node:
        case Expression():
            yield from _leaves(node.tree)
        case ListNode() | expressions.Display():
            for item in node.items:
                yield from _leaves(item)
        case _:
            yield node


def _numbers(node: Node | Tree) -> list[Possible]:
    """Return the possible values of each number of a list, or of a single number."""
    numbers = (
        possible_of(leaf) if isinstance(leaf, Tree) else possible_values(leaf)
        for leaf in _leaves(node)
    )
    return [number for number in numbers if number.has_numbers]


def _least_step(node: Node | Tree) -> float:
    """Return the least possible distance above zero; infinite if there is none."""
    least = math.inf
    for choice in _choices(node):
        if isinstance(choice, ListNode | expressions.Display):
            steps = [_least_step(item) for item in choice.items]
        else:
            steps = [max(number.least, 0.0) for number in _numbers(choice) if number.most > 0]
        least = min(least, *steps) if steps else least
    return least


def _most(node: Node | None) -> float:
    """Return the most that a number of copies may be; 1 where it is not given."""
    return 1.0 if node is None else max(1.0, possible_values(node).most)


# --- Images --------------------------------------------------------------------------------------


def image_limits_check(limits: Limits) -> Check:
    """Return the check of the images that data lists name, by their headers: no voxel is read."""
    return lambda config: islice(_too_large(config, limits), MAX_LISTED)


def _too_large(config: WorkflowConfig, limits: Limits) -> Iterator[Problem]:
    keys = file_keys(config)
    for section, cases in lists_of_cases(config):
        for index, item in enumerate(cases.items):
            for key in sorted(keys & item.keys()):
                value = item[key]
                for text in value if isinstance(value, list) else [value]:
                    header = read_header(Path(text)) if isinstance(text, str) else None
                    if header is not None and (fault := _size_fault(header, section, limits)):
                        yield Problem(cases.location / index / key, fault, "", "limit")


def _size_fault(header: ImageHeader, section: Section, limits: Limits) -> str:
    """Return why an image is too large; empty if it is not."""
    if header.voxels > limits.image_voxels:
        return f"declares {header.voxels} voxels; {limits.image_voxels} is the most"
    if header.unpacked_bytes > limits.image_bytes:
        return f"declares {header.unpacked_bytes} bytes; {limits.image_bytes} is the most"
    resampled = _resampled_voxels(header, section)
    if resampled > limits.image_voxels:
        return (
            f"has {header.voxels} voxels, and {resampled:.0f} after Spacingd; "
            f"{limits.image_voxels} is the most"
        )
    return ""


def _resampled_voxels(header: ImageHeader, section: Section) -> float:
    """Return the most voxels after a ``Spacingd``; 0 without one.

    Whichever axis is which by then: a step counts for the axes where it makes the most voxels. An
    axis whose step is 0 or below stays as it is, and a last step counts for the axes that follow.
    """
    largest = 0.0
    for spec in components_of_kind(section, "transform"):
        node = spec.args.items.get("pixdim") if spec.title.startswith("Spacing") else None
        for choice in () if node is None else _choices(node):
            steps = [_least_step(leaf) for leaf in _leaves(choice)][:SPATIAL]
            steps += steps[-1:] * (min(len(header.spacing), SPATIAL) - len(steps))
            new = [step for step in steps if 0 < step < math.inf]
            now = sorted(header.spacing, reverse=True)[: len(new)]
            largest = (
                max(largest, header.voxels * math.prod(now) / math.prod(new)) if new else largest
            )
    return largest
