"""What a site claims as its weight, and which factors of sites there are."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.exchange.weighing import claim_of, factor_problems

PLACE = Location("job") / "aggregation_weights"


def test_without_a_number_of_samples_there_is_no_claim_by_samples() -> None:
    with pytest.raises(ValueError, match="no number of them"):
        claim_of("samples", steps=6, samples=None)
    assert claim_of("steps", steps=6, samples=None) == 6


@pytest.mark.parametrize("factors", [{}, {"site-1": 1, "site-2": 0.5}])
def test_factors_are_positive_numbers_of_sites(factors: Any) -> None:
    assert not list(factor_problems(factors, PLACE, sites=["site-1", "site-2"]))


def test_all_faults_are_told_at_once() -> None:
    factors = {"site-1": -1, "site-2": 10**400, "a/b": 1, "site-3": False}

    found = [
        (str(problem.location.place), problem.message)
        for problem in factor_problems(factors, PLACE, sites=["site-1", "site-2"])
    ]

    assert [place for place, _ in found] == [
        "aggregation_weights['site-1']",
        "aggregation_weights['site-2']",
        "aggregation_weights['a/b']",
        "aggregation_weights['site-3']",
        "aggregation_weights['site-3']",
    ]


@pytest.mark.parametrize("factors", [None, [1, 2], "site-1=2"])
def test_factors_are_a_mapping(factors: Any) -> None:
    (problem,) = factor_problems(factors, PLACE)

    assert "has to map sites to factors" in problem.message
