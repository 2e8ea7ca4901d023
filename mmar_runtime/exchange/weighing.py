"""The weight of a site in the mean: its claim by the job's rule, times the factor of the site.

Nothing here imports torch, so that a check of a job may read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, get_args

from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem, did_you_mean
from mmar_runtime.names import SITE_NAME, shown

WeighBy = Literal["samples", "steps", "equal"]
"""What a site claims in a round.

``samples`` are the items that all processes of the site draw from its training data, ``steps`` the
iterations of its trainer, and ``equal`` is one for every site.
"""

WEIGH_BY: tuple[WeighBy, ...] = get_args(WeighBy)

FACTOR_RANGE = (1e-6, 1e6)
"""Of a site's factor in ``aggregation_weights``."""


def claim_of(rule: WeighBy, *, steps: int, samples: int | None) -> int:
    """Return what a site claims as its weight in a round.

    Raises:
        ValueError: the rule counts samples, and the site has sent no number of them.

    >>> [claim_of(rule, steps=6, samples=24) for rule in WEIGH_BY]
    [24, 6, 1]
    """
    if rule == "samples" and samples is None:
        raise ValueError("the job weighs sites by samples, and the update has no number of them")
    return {"samples": samples or 0, "steps": steps, "equal": 1}[rule]


def factor_problems(
    factors: Any, place: Location, *, sites: Collection[str] | None = None
) -> Iterator[Problem]:
    """Yield what is wrong with ``aggregation_weights``.

    Args:
        factors: site -> factor.
        place: of the factors.
        sites: of the run; None where they are not known yet.
    """
    if not isinstance(factors, Mapping):
        message = f"has to map sites to factors, found {shown(repr(factors), 60)}"
        yield Problem(place, message, 'Write an object such as {"site-2": 1.5}.', "argument")
        return
    low, high = FACTOR_RANGE
    for site, factor in factors.items():
        if not isinstance(site, str) or SITE_NAME.fullmatch(site) is None or site == "@ALL":
            yield Problem(
                place / str(site),
                f"{shown(repr(site), 60)} is not a name of a site",
                "",
                "argument",
            )
        elif sites is not None and site not in sites:
            known = ", ".join(sorted(sites))
            advice = did_you_mean(site, sites) or "Name a site of the run, or leave it out."
            message = f"{site!r} is no site of this run; its sites: {known}"
            yield Problem(place / site, message, advice, "argument")
        if type(factor) not in (int, float) or not low <= factor <= high:
            message = (
                f"has to be a number from {low:g} to {high:g}, found {shown(repr(factor), 60)}"
            )
            advice = "1 is the factor of a site that is not named."
            yield Problem(place / str(site), message, advice, "argument")
