"""What the privacy filters of a site or a job are told, and what they make of a contribution.

The arithmetic of the filters is NVFlare's; here is which tensors it sees, and what a round costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.exchange.sharing import form_problems, matching

Buffers = Literal["keep", "send"]
BUFFERS: tuple[Buffers, ...] = ("keep", "send")

MODULE = "fl_client.flare.privacy"

MAX_EPSILON = 10.0
"""Of the selection: beyond, it protects nothing, and its loop could go on for hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTensors:
    """What a filter has to know of the training behind a contribution.

    Attributes:
        buffers: names of the tensors that no optimizer moves, such as the statistics of batch
            norms.
        round_number: counted from 1.
        data: the data set, for the privacy ledger; see ``data_digest``.
    """

    buffers: frozenset[str]
    round_number: int
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcludeSettings:
    """Tensors that are left out of what a site sends.

    Attributes:
        exclude_vars: exact names, or names with ``*`` for any characters.
    """

    name: ClassVar[str] = "ExcludeVars"
    is_private: ClassVar[bool] = False

    exclude_vars: tuple[str, ...]

    def problems(self, place: Location) -> Iterator[Problem]:
        """Yield what is wrong with the arguments."""
        yield from form_problems(self.exclude_vars, place / "exclude_vars")

    def left_out(self, names: tuple[str, ...], buffers: frozenset[str]) -> tuple[str, ...]:
        """Return the tensors that do not leave."""
        return matching(self.exclude_vars, names)

    def cost(self, values: int) -> float:
        """Return what a round costs: nothing is promised, so nothing is counted."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileSettings:
    """The largest changes alone, cut off.

    Attributes:
        percentile: of all changes a step; those below it become 0.
        gamma: the largest change a step.
        buffers: whether buffers are left out, or sent as they are.
    """

    name: ClassVar[str] = "PercentilePrivacy"
    is_private: ClassVar[bool] = True

    percentile: float = 10
    gamma: float = 0.01
    buffers: Buffers = "keep"

    def problems(self, place: Location) -> Iterator[Problem]:
        """Yield what is wrong; NVFlare would send everything as it is then, without a word."""
        yield from _number(self.percentile, place / "percentile", 0, 100)
        yield from _above_zero(self.gamma, place / "gamma", math.inf)
        yield from _buffers(self.buffers, place)

    def left_out(self, names: tuple[str, ...], buffers: frozenset[str]) -> tuple[str, ...]:
        """Return the tensors that do not leave."""
        return _kept_buffers(self.buffers, names, buffers)

    def cost(self, values: int) -> float:
        """Return what a round costs: nothing is promised, so nothing is counted."""
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SvtSettings:
    """The sparse vector technique: a noisy choice of changes, each sent with noise.

    Attributes:
        epsilon_release: privacy budget of the values that are sent, all of a round together.
        noise_var: the old way to say the same: the budget of each value that is sent.
        fraction: of all values, how many are sent.
        epsilon: privacy budget of the choice.
        gamma: the largest change a step.
        tau: change a step above which a value tends to be chosen.
        replace: whether a value may be drawn twice, which then counts once.
        buffers: whether buffers are left out, or sent as they are.
    """

    name: ClassVar[str] = "SVTPrivacy"
    is_private: ClassVar[bool] = True

    epsilon_release: float | None = None
    noise_var: float | None = None
    fraction: float = 0.1
    epsilon: float = 0.1
    gamma: float = 1e-5
    tau: float = 1e-6
    replace: bool = True
    buffers: Buffers = "keep"

    def problems(self, place: Location) -> Iterator[Problem]:
        """Yield what is wrong with the arguments."""
        yield from _above_zero(self.fraction, place / "fraction", 1)
        yield from _above_zero(self.epsilon, place / "epsilon", MAX_EPSILON)
        yield from _above_zero(self.gamma, place / "gamma", math.inf)
        if _is_number(self.gamma):
            yield from _number(self.tau, place / "tau", 0, self.gamma)
        given = {"epsilon_release": self.epsilon_release, "noise_var": self.noise_var}
        for key, value in given.items():
            if value is not None:
                yield from _above_zero(value, place / key, math.inf)
        if sum(value is not None for value in given.values()) != 1:
            message = "takes one of epsilon_release and noise_var"
            advice = (
                "epsilon covers the choice of values only; epsilon_release is the budget of the "
                "noise on all values of a round, noise_var that on each of them."
            )
            yield Problem(place, message, advice, "privacy")
        if not isinstance(self.replace, bool):
            message = f"has to be true or false, found {self.replace!r}"
            yield Problem(place / "replace", message, "", "privacy")
        yield from _buffers(self.buffers, place)

    def left_out(self, names: tuple[str, ...], buffers: frozenset[str]) -> tuple[str, ...]:
        """Return the tensors that do not leave."""
        return _kept_buffers(self.buffers, names, buffers)

    def cost(self, values: int) -> float:
        """Return the epsilon of one round: of the choice and of the noise, added up.

        Args:
            values: numbers in all the tensors that are filtered.
        """
        if self.epsilon_release is not None:
            return self.epsilon + self.epsilon_release
        count = min(math.ceil(values * self.fraction), values)
        return self.epsilon + count * (self.noise_var or 0.0)


Settings = ExcludeSettings | PercentileSettings | SvtSettings
SETTINGS: Mapping[str, type[Settings]] = {
    f"{MODULE}.{kind.name}": kind for kind in (ExcludeSettings, PercentileSettings, SvtSettings)
}
"""The class that a configuration names -> what it takes."""


def filter_settings(path: str, arguments: Any, place: Location) -> Settings:
    """Return the settings of one of our filters.

    Args:
        path: of its class, one of ``SETTINGS``.
        arguments: as they stand in the configuration.
        place: where they stand.

    Raises:
        ConfigError: an argument is unknown, missing, or out of its bounds; with all such faults.
    """
    kind = SETTINGS[path]
    known = [part.name for part in fields(kind)]
    given = {} if arguments is None else arguments
    if not isinstance(given, Mapping):
        raise ConfigError([Problem(place, "has to be a JSON object", "", "privacy")])
    unknown = [
        Problem(place / key, f"unknown argument {key!r}", did_you_mean(str(key), known), "privacy")
        for key in given
        if key not in known
    ]
    if unknown:
        raise ConfigError(unknown)
    if kind is ExcludeSettings and not isinstance(given.get("exclude_vars"), list | tuple):
        message = "has to list names of tensors, with * for any characters"
        advice = "A regular expression of an old config is translated by 'mmar job import'."
        raise ConfigError([Problem(place / "exclude_vars", message, advice, "privacy")])
    plain: Any = {
        key: tuple(item) if isinstance(item, list) else item for key, item in given.items()
    }
    settings: Settings = kind(**plain)
    if problems := list(settings.problems(place)):
        raise ConfigError(problems)
    return settings


def _kept_buffers(
    mode: Buffers, names: tuple[str, ...], buffers: frozenset[str]
) -> tuple[str, ...]:
    return tuple(name for name in names if name in buffers) if mode == "keep" else ()


def _buffers(value: object, place: Location) -> Iterator[Problem]:
    if value not in BUFFERS:
        message = f"has to be one of {', '.join(BUFFERS)}, found {value!r}"
        yield Problem(place / "buffers", message, "", "privacy")


def _number(value: object, place: Location, least: float, most: float) -> Iterator[Problem]:
    if not _is_number(value) or not least <= value <= most:  # type: ignore[operator]
        message = f"has to be a number from {least:g} to {most:g}, found {value!r}"
        yield Problem(place, message, "", "privacy")


def _above_zero(value: object, place: Location, most: float) -> Iterator[Problem]:
    if not _is_number(value) or not 0 < value <= most:  # type: ignore[operator]
        bound = "" if most == math.inf else f" and at most {most:g}"
        yield Problem(place, f"has to be a number above 0{bound}, found {value!r}", "", "privacy")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
