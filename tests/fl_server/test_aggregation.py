"""The weighted mean, with models of a few numbers: expected values are written as formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_server.aggregation import (
    AVERAGED,
    InTimeWeightedMean,
    averaging_problems,
    moved_by,
    replaced_by,
)
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, WeightsError
from mmar_runtime.weights import digest

SITES = ("site-1", "site-2", "site-3")
PLACE = Location("config_train.json") / "train" / "model"


def weights(*values: float, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=dtype)}


def mean_of(
    contributions: dict[str, tuple[dict[str, torch.Tensor], int]], **arguments: object
) -> InTimeWeightedMean:
    """The mean of ``site -> (difference, steps)``, in the order in which they are written."""
    mean = InTimeWeightedMean(SITES, **arguments)
    for site, (difference, steps) in contributions.items():
        mean.add(site, difference, steps)
    return mean


def test_the_global_weights_move_by_the_mean_weighted_by_steps() -> None:
    mean = mean_of({"site-1": (weights(1.0, 0.0), 1), "site-2": (weights(5.0, 4.0), 3)})

    found = mean.new_global(weights(10.0, 20.0))

    assert found["w"].tolist() == [10 + (1 * 1 + 3 * 5) / 4, 20 + (1 * 0 + 3 * 4) / 4]


def test_the_mean_of_one_site_is_that_sites_model() -> None:
    found = mean_of({"site-2": (weights(2.0), 7)}).new_global(weights(1.0))

    assert found["w"].tolist() == [1 + 2]


def test_an_aggregation_weight_is_a_factor_of_a_sites_steps() -> None:
    mean = mean_of(
        {"site-1": (weights(1.0), 1), "site-2": (weights(5.0), 4)},
        aggregation_weights={"site-2": 0.25},
    )

    assert mean.new_global(weights(0.0))["w"].tolist() == [(1 * 1 + 4 * 0.25 * 5) / (1 + 4 * 0.25)]


@pytest.mark.parametrize("factor", [-1.0, 0.0, float("nan"), float("inf"), True, "2", 1e7, None])
def test_a_factor_that_is_no_positive_number_is_refused_with_its_place(factor: Any) -> None:
    with pytest.raises(ConfigError, match=r"aggregation_weights\['site-2'\]: has to be a number"):
        InTimeWeightedMean(SITES, aggregation_weights={"site-2": factor})


def test_a_factor_of_an_unknown_site_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"'sitee-2' is no site of this run.*\n.*'site-2'"):
        InTimeWeightedMean(SITES, aggregation_weights={"sitee-2": 2.0})


@pytest.mark.parametrize("claim", [0, -1, True, 1.5, float("nan"), None])
def test_a_claim_that_is_no_count_is_refused(claim: Any) -> None:
    with pytest.raises(FederationError, match="no whole number from 1 on"):
        InTimeWeightedMean(SITES).add("site-1", weights(1.0), claim)


def test_neither_the_global_weights_nor_the_differences_are_changed() -> None:
    received, difference = weights(1.0), weights(2.0)

    mean_of({"site-1": (difference, 3)}).new_global(received)

    assert received["w"].tolist() == [1.0]
    assert difference["w"].tolist() == [2.0]


# --- which tensors have a mean


@pytest.mark.parametrize("dtype", AVERAGED)
def test_floats_and_wide_integers_have_a_mean(dtype: torch.dtype) -> None:
    global_weights = {"w": torch.tensor([10], dtype=dtype)}
    mean = mean_of(
        {
            "site-1": ({"w": torch.tensor([1], dtype=dtype)}, 1),
            "site-2": ({"w": torch.tensor([5], dtype=dtype)}, 1),
        }
    )

    assert not list(averaging_problems(global_weights, PLACE))
    assert mean.new_global(global_weights)["w"].tolist() == [10 + (1 + 5) / 2]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "complex64", "bfloat16"])
def test_of_other_types_there_is_none(dtype: str) -> None:
    weights = {"w": torch.ones(1), "mask": torch.ones(1, dtype=getattr(torch, dtype))}

    (problem,) = averaging_problems(weights, PLACE)

    assert f"mask is {dtype}" in problem.message
    assert "--exclude-vars mask" in problem.advice


# --- the same bits, whatever the order


NAMES = ("a", "b", "c", "d", "e")
GENERATOR = torch.Generator().manual_seed(0)


def random(power: int) -> torch.Tensor:
    return torch.randn(50, generator=GENERATOR, dtype=torch.float64) * 10.0**power


DIFFERENCES = {
    name: {"w": random(power), "n": torch.tensor(power)} for power, name in enumerate(NAMES)
}
GLOBAL = {"w": random(0), "n": torch.tensor(3)}


def digest_after(arrivals: list[str]) -> str:
    mean = InTimeWeightedMean(NAMES)
    for name in arrivals:
        mean.add(name, DIFFERENCES[name], 1 + NAMES.index(name))
    return digest(mean.new_global(GLOBAL))


@given(st.permutations(NAMES))
def test_every_order_of_arrival_gives_the_same_bits(arrivals: list[str]) -> None:
    assert digest_after(arrivals) == digest_after(list(NAMES))


@given(st.permutations([name for name in NAMES if name != "b"]))
def test_so_it_is_when_a_site_never_answers(arrivals: list[str]) -> None:
    assert digest_after(arrivals) == digest_after(["a", "c", "d", "e"])


def test_a_plain_sum_in_the_order_of_arrival_would_differ() -> None:
    """The numbers above are such that order matters; else the two tests would show nothing."""

    def plain_sum(names: list[str]) -> torch.Tensor:
        return sum((DIFFERENCES[name]["w"] for name in names), torch.zeros(50))

    assert not torch.equal(plain_sum(list(NAMES)), plain_sum(list(reversed(NAMES))))


# --- dtypes


def test_sums_are_in_float64() -> None:
    """In float32, 1e8 + 1 - 1e8 is 0."""
    contributions = {
        "site-1": (weights(1e8), 1),
        "site-2": (weights(1.0), 1),
        "site-3": (weights(-1e8), 1),
    }

    found = mean_of(contributions).new_global(weights(0.0))

    assert torch.equal(found["w"], torch.tensor([1 / 3], dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_weights_keep_their_dtype(dtype: torch.dtype) -> None:
    difference = weights(0.5, dtype=dtype)

    found = mean_of({"site-1": (difference, 1)}).new_global(weights(1.0, dtype=dtype))

    assert found["w"].dtype == dtype
    assert found["w"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("one", "other", "moved"),
    [(1, 2, 2), (2, 3, 2), (3, 4, 4), (-1, -2, -2), (4, 4, 4)],
    ids=["1.5 -> 2", "2.5 -> 2", "3.5 -> 4", "-1.5 -> -2", "4 -> 4"],
)
def test_integer_buffers_move_by_the_mean_rounded_to_nearest_even(
    one: int, other: int, moved: int
) -> None:
    mean = mean_of(
        {
            "site-1": (weights(one, dtype=torch.int64), 1),
            "site-2": (weights(other, dtype=torch.int64), 1),
        }
    )

    found = mean.new_global(weights(10, dtype=torch.int64))

    assert found["w"].dtype == torch.int64
    assert found["w"].tolist() == [10 + moved]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_tensor_without_axes_stays_one(dtype: torch.dtype) -> None:
    mean = InTimeWeightedMean(SITES)
    mean.add("site-1", {"n": torch.tensor(2, dtype=dtype)}, 1)

    found = mean.new_global({"n": torch.tensor(5, dtype=dtype)})["n"]

    assert (found.shape, found.dtype, found.item()) == (torch.Size([]), dtype, 7)


# --- what is refused


def test_a_site_that_is_not_of_this_run_is_refused() -> None:
    with pytest.raises(FederationError, match="site-9 is no site of this run"):
        mean_of({"site-9": (weights(1.0), 1)})


@pytest.mark.parametrize("first", ["site-1", "site-3"], ids=["summed already", "still waiting"])
def test_a_second_contribution_is_refused_and_the_first_counts(first: str) -> None:
    mean = mean_of({first: (weights(1.0), 1)})

    with pytest.raises(FederationError, match=f"{first} has contributed to this round already"):
        mean.add(first, weights(100.0), 1)

    assert mean.contributors == (first,)
    assert mean.new_global(weights(0.0))["w"].tolist() == [1.0]


def test_without_a_contribution_there_is_no_mean() -> None:
    with pytest.raises(FederationError, match="no site contributed"):
        InTimeWeightedMean(SITES).new_global(weights(1.0))


def test_a_mean_that_leaves_the_range_of_its_dtype_is_refused() -> None:
    """60 000 + 60 000 is more than a float16 holds, though each update was finite."""
    half = weights(60_000.0, dtype=torch.float16)

    with pytest.raises(WeightsError, match="w: not finite"):
        mean_of({"site-1": (half, 1)}).new_global(half)


# --- tensors that a contribution may lack


def test_a_tensor_is_averaged_over_the_sites_that_sent_it() -> None:
    """``w`` by both, with 1 and 3 steps; ``v`` by the second alone."""
    mean = mean_of(
        {
            "site-1": ({"w": torch.tensor([1.0])}, 1),
            "site-2": ({"w": torch.tensor([5.0]), "v": torch.tensor([7.0])}, 3),
        },
        optional_names=["v"],
    )

    found = mean.new_global({"w": torch.tensor([10.0]), "v": torch.tensor([20.0])})

    assert found["w"].tolist() == [10 + (1 * 1 + 3 * 5) / 4]
    assert found["v"].tolist() == [20 + 7]


def test_a_tensor_that_nobody_sent_stays_to_the_last_bit() -> None:
    before = {"w": torch.tensor([10.0]), "v": torch.tensor([0.1, -0.0]), "n": torch.tensor(7)}
    mean = mean_of({"site-1": ({"w": torch.tensor([1.0])}, 1)}, optional_names=["v", "n"])

    found = mean.new_global(before)

    assert digest({"v": found["v"], "n": found["n"]}) == digest(
        {"v": before["v"], "n": before["n"]}
    )
    assert found["v"] is not before["v"]


def test_any_other_tensor_that_nobody_sent_is_an_error() -> None:
    mean = mean_of({"site-1": ({"w": torch.tensor([1.0])}, 1)}, optional_names=["u"])

    with pytest.raises(WeightsError, match="v: missing"):
        mean.new_global({"w": torch.tensor([1.0]), "v": torch.tensor([1.0])})


def test_full_contributions_give_the_same_bits_whether_or_not_they_might_lack_some() -> None:
    def model(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(50, generator=generator) for name in ("w", "v")}

    parts = {site: (model(index), 3 * index + 1) for index, site in enumerate(SITES)}

    plain = mean_of(parts).new_global(model(9))
    lenient = mean_of(parts, optional_names=["v", "w"]).new_global(model(9))

    assert digest(plain) == digest(lenient)


# --- what an aggregator of a job's own returns


def test_a_difference_in_another_dtype_is_rounded_into_the_models() -> None:
    before = {"w": torch.tensor([1.0]), "n": torch.tensor(4)}
    given = {"w": torch.tensor([0.5], dtype=torch.float64), "n": torch.tensor(1.5).double()}

    found = moved_by(before, given)

    assert found["w"].tolist() == [1.5]
    assert found["n"].tolist() == 4 + 2  # to the even one
    assert [one.dtype for one in found.values()] == [torch.float32, torch.int64]


def test_whole_weights_take_the_place_of_the_others() -> None:
    found = replaced_by(weights(1.0, 2.0), weights(5.0, 6.0, dtype=torch.float64))

    assert found["w"].tolist() == [5, 6]
    assert found["w"].dtype == torch.float32


@pytest.mark.parametrize("apply", [moved_by, replaced_by])
@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "w: missing"),
        ({"w": torch.ones(2), "x": torch.ones(1)}, "x: not part of the network"),
        ({"w": torch.ones(1)}, r"w: shape \(2,\), given \(1,\)"),
        ({"w": torch.tensor([1.0, float("nan")])}, "w: not finite"),
        ({"w": torch.tensor([1e300, 1.0], dtype=torch.float64)}, "w: not finite"),
    ],
)
def test_what_is_not_the_models_is_not_kept(apply: Any, given: Any, fault: str) -> None:
    with pytest.raises(WeightsError, match=fault):
        apply(weights(1.0, 2.0), given)
