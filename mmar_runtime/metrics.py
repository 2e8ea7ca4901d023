"""A metric as a value: with its denominator, its unit and its direction.

A mean without the number of cases behind it hides the cases that have no value: a distance to an
organ that the model has missed is not 0, and a Dice of an organ that nobody has labelled is not 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

Unit: TypeAlias = Literal["", "mm", "voxels"]
"""Of a metric's value; most metrics are plain numbers."""


def defined(value: float | None) -> float | None:
    """Return a number; None for what is not finite, since nothing compares or averages it.

    >>> defined(0.5), defined(math.inf), defined(math.nan), defined(None)
    (0.5, None, None, None)
    """
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassValue:
    """A metric of one class over all cases.

    Attributes:
        value: mean over the counted cases; None if there are none.
        counted: cases with a value.
        missed: cases in which the class is labelled and not predicted at all.
        absent: cases in which the class is not labelled.
        spurious: those among them in which it is predicted all the same.
    """

    value: float | None
    counted: int
    missed: int = 0
    absent: int = 0
    spurious: int = 0

    def __post_init__(self) -> None:
        """Check that a value has cases behind it."""
        _require_denominator(self.value, self.counted)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """One metric of one model on one data set.

    Attributes:
        value: mean over the counted cases; None where it is undefined.
        counted: cases with a value.
        undefined: cases without a value, which the mean leaves out.
        withheld: whether the site keeps the value to itself, since too few cases count.
        unit: of the value.
        higher_is_better: the direction; None for a metric that compares no models.
        classes: name of each class of the labels -> its part, for metrics by class.
    """

    value: float | None
    counted: int
    undefined: int = 0
    withheld: bool = False
    unit: Unit = ""
    higher_is_better: bool | None = True
    classes: Mapping[str, ClassValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that a value has cases behind it, and that its counts agree."""
        _require_denominator(self.value, self.counted)
        if self.withheld and self.value is not None:
            raise ValueError("a metric that is withheld cannot have a value")
        object.__setattr__(self, "classes", dict(self.classes))
        for part in self.classes.values():
            most = max(part.counted, part.missed, part.absent)
            if most > self.cases or part.spurious > part.absent:
                raise ValueError(f"a class counts more than the {self.cases} cases of the metric")

    @property
    def cases(self) -> int:
        """The cases that were looked at, with or without a value."""
        return self.counted + self.undefined

    @property
    def missed(self) -> int:
        """How often a labelled class was not predicted at all."""
        return sum(part.missed for part in self.classes.values())

    @property
    def numbers(self) -> int:
        """How many values it holds."""
        return 1 + len(self.classes)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        classes = {name: asdict(part) for name, part in self.classes.items()}
        own = {part.name: getattr(self, part.name) for part in fields(self)}
        return {**own, "classes": classes}


Metrics: TypeAlias = Mapping[str, MetricValue]
"""Metric label -> value; the key metric is among them."""


def _require_denominator(value: float | None, counted: int) -> None:
    if (value is not None and not math.isfinite(value)) or (counted == 0 and value is not None):
        raise ValueError(f"a metric of {counted} cases cannot have the value {value!r}")


def is_better(value: float | None, best: float | None, *, higher_is_better: bool) -> bool:
    """Return whether a metric's value beats the best so far: the only comparison of models.

    An undefined value is never better, and any value is better than an undefined value.

    >>> is_better(2.0, 5.0, higher_is_better=False), is_better(None, 5.0, higher_is_better=False)
    (True, False)
    >>> is_better(0.1, None, higher_is_better=True), is_better(0.1, 0.1, higher_is_better=True)
    (True, False)
    """
    value, best = defined(value), defined(best)
    if value is None or best is None:
        return value is not None
    return value > best if higher_is_better else value < best


def rounded(metric: MetricValue, digits: int) -> MetricValue:
    """Return a metric with its values rounded to so many significant decimal digits."""
    classes = {
        name: replace(part, value=_significant(part.value, digits))
        for name, part in metric.classes.items()
    }
    return replace(metric, value=_significant(metric.value, digits), classes=classes)


def _significant(value: float | None, digits: int) -> float | None:
    return None if value is None else significant(value, digits)


def significant(value: float, digits: int) -> float:
    """Return a number rounded to so many significant decimal digits.

    >>> [significant(value, 3) for value in (0.87654, 1034.0, 1.2345e-06)]
    [0.877, 1030.0, 1.23e-06]
    """
    return float(f"{value:.{digits - 1}e}")


def values_of(metrics: Metrics) -> dict[str, float | None]:
    """Return the plain values by label; None where a metric is undefined."""
    return {label: metric.value for label, metric in metrics.items()}


def metric_lines(metrics: Metrics) -> Iterator[str]:
    """Yield the lines in which a command prints metrics: the number, then what it hides."""
    for label, metric in metrics.items():
        yield f"{label}: {math.nan if metric.value is None else metric.value!r}"
        yield from (f"    {words}" for words in in_words(metric))


def in_words(metric: MetricValue) -> Iterator[str]:
    """Yield what stands next to a metric's number, in short phrases.

    >>> list(in_words(MetricValue(value=2.0, counted=2, undefined=1, unit="mm")))
    ['mm', 'over 2 of 3 cases']
    """
    if metric.withheld:
        yield "withheld: of fewer cases than the site's policy asks for"
    elif metric.value is None:
        yield f"undefined: 0 of {metric.cases} cases have a value"
    else:
        if metric.unit:
            yield metric.unit
        of = f" of {metric.cases}" if metric.undefined else ""
        yield f"over {metric.counted}{of} case{'s' if metric.cases != 1 else ''}"
    for name, part in metric.classes.items():
        yield f"{name} {class_in_words(part)}"


def in_short(metric: MetricValue, write: Callable[[float], str] = "{:.4f}".format) -> str:
    """Return a metric on one line: its number, its unit, and how many cases have none.

    >>> in_short(MetricValue(value=2.0, counted=2, undefined=1, unit="mm"))
    '2.0000 mm (2 of 3 cases)'
    >>> in_short(MetricValue(value=None, counted=0, undefined=3))
    'undefined'
    """
    if metric.value is None:
        return "withheld" if metric.withheld else "undefined"
    of = f" ({metric.counted} of {metric.cases} cases)" if metric.undefined else ""
    return f"{write(metric.value)}{metric.unit and ' '}{metric.unit}{of}"


def class_in_words(part: ClassValue) -> str:
    """Return a class's value with its counts.

    >>> class_in_words(ClassValue(value=0.75, counted=4, missed=1, absent=2, spurious=1))
    '0.7500 over 4 (missed in 1, absent in 2, of these predicted in 1)'
    """
    value = "undefined" if part.value is None else f"{part.value:.4f} over {part.counted}"
    counts = [f"missed in {part.missed}"] if part.missed else []
    counts += [f"absent in {part.absent}"] if part.absent else []
    counts += [f"of these predicted in {part.spurious}"] if part.spurious else []
    return f"{value} ({', '.join(counts)})" if counts else value
