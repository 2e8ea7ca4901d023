"""Numbers of a configuration, and of the headers of its images, that could use up a machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmar_runtime.config import expressions
from mmar_runtime.config.data_list import FILE_KEYS, labels_are_files, read_data_list
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    Expression,
    ListNode,
    Literal,
    MapNode,
    Node,
    WeightsFile,
    plain,
    walk,
)
from mmar_runtime.config.sections import Section, WorkflowConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.component_check import all_components, table_entry
from mmar_runtime.policy.component_table import ComponentEntry, load_component_table
from mmar_runtime.policy.image_header import ImageHeader, read_header
from mmar_runtime.policy.site_policy import Limits

ANY = "*"
WORKERS = ("num_workers", "num_init_workers", "num_replace_workers")
SIZES = frozenset(
    {
        "cropped_shape", "image_size", "img_size", "in_shape", "input_image_size", "latent_shape",
        "max_roi_size", "max_spatial_size", "merged_shape", "patch_size", "rand_size", "roi_size",
        "spatial_shape", "spatial_size", "start_shape",
    }
)  # fmt: skip
"""Arguments that are one number for each axis, or one for all of them."""

LEAST_SPACING = 0.01
"""mm from voxel to voxel; a volume that is resampled to less fills the memory."""

BYTES_PER_PARAMETER = 16
"""Of a file of weights: a number, and the two that an optimizer keeps beside it, with room."""

MAX_LISTED = 20

Check = Callable[[WorkflowConfig], Iterator[Problem]]


def limits_check(limits: Limits) -> Check:
    """The check of numbers in arguments, to hand to the loader."""

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        table, axes = load_component_table(), _axes(config)
        for spec, kind in all_components(config):
            entry = table_entry(spec, kind, table)
            for name, node in () if entry is None else spec.args.items.items():
                place = spec.args.location / name
                for fault in _faults(name, node, entry, limits, axes):
                    yield Problem(place, f"{spec.title}: {name} {fault}", "", "limit")
        yield from _summary_fault(config, limits)
        for place, path in _model_files(config):
            most = BYTES_PER_PARAMETER * limits.parameters
            if os.path.isfile(path) and os.path.getsize(path) > most:
                message = f"the file of weights has {os.path.getsize(path)} bytes; {most} "
                yield Problem(place, message + "is the most", "", "limit")

    return check


def _faults(
    name: str, node: Node, entry: ComponentEntry | None, limits: Limits, axes: int
) -> Iterator[str]:
    if entry is None:
        return
    most = limits.workers if name in WORKERS else entry.bounds.get(name, entry.bounds.get(ANY))
    numbers = list(_numbers(node))
    if most is not None:
        yield from (
            f"is {number}; {most} is the most" for number in numbers if not abs(number) <= most
        )
    if name == "pixdim":  # zero and below keep the spacing that an image has
        small = [number for number in numbers if 0 < number < LEAST_SPACING]
        yield from (f"is {number}; {LEAST_SPACING} mm is the least" for number in small)
    if name in SIZES:
        # -1 and None stand for a whole axis.
        lengths = [number for number in numbers if number >= 1]
        voxels = math.prod(lengths) if len(numbers) > 1 else math.prod(lengths * axes)
        if voxels > limits.image_voxels:
            yield f"has {voxels:.0f} voxels; {limits.image_voxels} is the most"


def _axes(config: WorkflowConfig) -> int:
    """Axes of the network's images, as it says itself; where it does not, the fewest there are."""
    for section in config.scopes.values():
        for spec in section.specs("model"):
            node = spec.args.items.get("spatial_dims")
            if isinstance(node, Literal) and node.value == 3:
                return 3
    return 2


def _numbers(node: Node) -> Iterator[float]:
    """The numbers of an argument, whatever lists they stand in; references have none."""
    match node:
        case Literal():
            if isinstance(node.value, int | float) and not isinstance(node.value, bool):
                yield node.value
        case ListNode():
            for item in node.items:
                yield from _numbers(item)
        case MapNode():
            for item in node.items.values():
                yield from _numbers(item)
        case Expression():
            yield from _values(node.tree)


def _values(tree: expressions.ExpressionTree) -> Iterator[float]:
    """The numbers that an expression may come to, as far as they stand in it."""
    match tree:
        case expressions.Constant(value=value):
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield value
        case expressions.Display():
            for item in tree.items:
                yield from _values(item)
        case expressions.Conditional():
            yield from (*_values(tree.then), *_values(tree.otherwise))
        case expressions.Arithmetic():
            for left in _values(tree.left):
                yield from (_computed(tree.operator, left, right) for right in _values(tree.right))


def _computed(operator: str, left: float, right: float) -> float:
    """The value of one step; infinite where it has none, which is above every limit."""
    try:
        match operator:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "//":
                return left // right
        return left % right
    except ArithmeticError:
        return math.inf


def _summary_fault(config: WorkflowConfig, limits: Limits) -> Iterator[Problem]:
    """The network is run once on an input of the size that ``network_summary`` names."""
    values = math.prod(config.settings.input_size or ())
    if values > limits.image_voxels:
        place = Location(config.file) / "network_summary" / "input_size"
        message = f"has {values} values; {limits.image_voxels} is the most"
        yield Problem(place, message, "", "limit")


def _model_files(config: WorkflowConfig) -> Iterator[tuple[Location, str]]:
    """Every file of weights that a configuration names."""
    table = load_component_table()
    for spec, kind in all_components(config):
        entry = table_entry(spec, kind, table)
        for name, role in () if entry is None else entry.paths.items():
            node = spec.args.items.get(name) if role == "read:model" else None
            if isinstance(node, Literal) and isinstance(node.value, str) and "\0" not in node.value:
                yield spec.args.location / name, node.value
    for section in config.scopes.values():
        for entry_node in section.entries.values():
            for inner in walk(entry_node):
                if isinstance(inner, WeightsFile) and "\0" not in inner.path:
                    yield inner.location / inner.kind, inner.path


# --- Images --------------------------------------------------------------------------------------


def image_limits_check(limits: Limits) -> Check:
    """The check of the images that data lists name, by their headers: no voxel is read."""

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        found = 0
        for section in config.scopes.values():
            for place, path in _images(config, section):
                header = read_header(path)
                fault = "" if header is None else _size_fault(header, section, limits)
                if fault:
                    yield Problem(place, fault, "", "limit")
                    found += 1
                if found >= MAX_LISTED:
                    return

    return check


def _images(config: WorkflowConfig, section: Section) -> Iterator[tuple[Location, Path]]:
    as_files = labels_are_files(config)
    for spec in section.specs("dataset"):
        if spec.data_list is None:
            continue
        try:
            found = read_data_list(spec.data_list, labels_are_files=as_files)
        except ConfigError:
            continue  # the data check tells of this
        for index, item in enumerate(found.items):
            for key, path in _paths(item, as_files):
                yield Location(found.file.name) / found.key / index / key, path


def _paths(item: dict[str, Any], labels_are_paths: bool) -> Iterator[tuple[str, Path]]:
    for key in FILE_KEYS:
        value = item.get(key) if key != "label" or labels_are_paths else None
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield key, Path(one)


def _size_fault(header: ImageHeader, section: Section, limits: Limits) -> str:
    """Why an image is too large; empty if it is not."""
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
    """Voxels after the first ``Spacingd``, whichever axis is which by then; 0 without one."""
    for spec in section.specs("pre_transforms"):
        pixdim = spec.args.items.get("pixdim") if spec.title.startswith("Spacing") else None
        value = None if pixdim is None else plain(pixdim)
        steps = value if isinstance(value, list) else [value]
        if not all(isinstance(step, int | float) and step > 0 for step in steps):
            continue
        steps = steps * len(header.spacing) if len(steps) == 1 else steps
        if len(steps) == len(header.spacing):
            return header.voxels * math.prod(header.spacing) / math.prod(steps)
    return 0
