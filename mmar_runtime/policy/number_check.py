"""Numbers that no bound of their own shows to be wrong: there is no batch of 0 images.

Bounds of single numbers are in the table, see ``argument_check``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from mmar_runtime.config.fit import Finding
from mmar_runtime.config.grids import argument_of, texts_of, title_of
from mmar_runtime.config.nodes import ComponentSpec, Literal, plain
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import all_components

AT_LEAST_ONE = frozenset(
    {
        *("accumulation_steps", "batch_size", "epoch_length", "in_channels", "interval"),
        *("max_epochs", "num_samples", "out_channels", "spatial_dims", "sw_batch_size"),
    }
)


AT_LEAST_ONE_OF: Mapping[str, str] = {"EarlyStopHandler": "patience", "StepLR": "step_size"}
"""Class -> a number that may be 0 in other classes."""

RANGES = (("a_min", "a_max"), ("lower", "upper"))
"""Arguments that are the ends of a range that is stretched, so that they have to differ."""

CHOICES = (("min_zoom", "max_zoom"),)
"""Arguments that are the ends of a range to choose from; it may hold a single number."""

PERCENTS: Mapping[str, str] = {
    "HausdorffDistance": "percentile",
    "ScaleIntensityRangePercentilesd": "upper",
}
"""Class -> an argument that counts to 100."""

ANGLES = ("range_x", "range_y", "range_z", "rotate_range", "angle")
AXES = ("LR", "PA", "IS")
"""The letters of the two ends of each axis."""


def number_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield the loader's check of arguments that are wrong beside others, or for their class."""
    for spec, entry in all_components(config):
        if entry is None:
            continue
        more = {AT_LEAST_ONE_OF[spec.title]} if spec.title in AT_LEAST_ONE_OF else set()
        for name in sorted((AT_LEAST_ONE | more) & spec.args.items.keys()):
            node, form = spec.args.items[name], entry.arguments.get(name)
            value = node.value if isinstance(node, Literal) else None
            least = form.number[0] if form is not None and form.number is not None else 0
            if isinstance(value, bool):
                message = f"{spec.title}: {name} is {str(value).lower()}, which is not a number"
                yield Problem(node.location, message, "Write a whole number.", "type")
            elif type(value) is int and least <= value < 1:  # the form itself refuses less
                message = f"{spec.title}: {name} is {value}; 1 is the least"
                yield Problem(node.location, message, "", "limit")
        yield from _range_faults(spec)
        yield from _percent_faults(spec)
        yield from _axis_faults(spec)


def _number(spec: ComponentSpec, name: str) -> float | None:
    node = spec.args.items.get(name)
    value = node.value if isinstance(node, Literal) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _range_faults(spec: ComponentSpec) -> Iterator[Problem]:
    for first, last in (*RANGES, *CHOICES):
        low, high = _number(spec, first), _number(spec, last)
        if low is None or high is None:
            continue
        if low > high or (low == high and (first, last) in RANGES):
            message = f"{spec.title}: {first} is {low:g}, and {last} is {high:g}"
            advice = f"Let {last} be above {first}."
            yield Problem(spec.args.location / first, message, advice, "range")


def _percent_faults(spec: ComponentSpec) -> Iterator[Problem]:
    name = PERCENTS.get(spec.title if spec.title in PERCENTS else title_of(spec), "")
    value = _number(spec, name)
    if value is not None and 0 < value <= 1:
        message = f"{spec.title}: {name} is {value:g} of 100"
        yield Problem(spec.args.location / name, message, f"Write {100 * value:g}.", "percent")


def _axis_faults(spec: ComponentSpec) -> Iterator[Problem]:
    """Yield an orientation with other letters than one end of each axis."""
    own_letters = argument_of(spec, "", "labels") is not None
    known = title_of(spec) == "Orientationd" and not own_letters
    for codes in texts_of(spec, "axcodes") if known else ():
        axes = [axis for code in codes for axis in AXES if code in axis]
        if len(axes) != len(codes) or len(set(axes)) != len(axes):
            message = f"{spec.title}: axcodes is {codes!r}"
            advice = 'Write one of L and R, one of P and A, one of I and S: "RAS".'
            yield Problem(spec.args.location / "axcodes", message, advice, "axes")


def number_findings(config: WorkflowConfig) -> Iterator[Finding]:
    """Yield numbers that may be meant, and seldom are."""
    for spec, entry in all_components(config):
        if entry is None:
            continue
        for name in ANGLES if entry.kind == "transform" else ():
            node = spec.args.items.get(name)
            value = 0 if node is None else plain(node)
            for angle in value if isinstance(value, list) else [value]:
                if isinstance(angle, int | float) and abs(angle) > 2 * math.pi:
                    yield Finding(
                        rule="radians",
                        place=spec.args.location / name,
                        message=f"{spec.title}: {name} is {angle:g} radians, more than a full turn",
                        advice=f"{angle:g} degrees are {math.radians(angle):.4g}.",
                        certain=False,
                    )
        if entry.kind == "optimizer" and _number(spec, "lr") == 0:
            yield Finding(
                rule="learning-rate",
                place=spec.args.location / "lr",
                message=f"{spec.title}: lr is 0, so no weight changes",
                advice="Write a number above 0, such as 1e-3.",
                certain=False,
            )
