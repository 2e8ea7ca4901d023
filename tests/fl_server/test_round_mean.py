"""The mean of a round is what a plain sum in the order of names gives, to the last bit."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fl_server.round_mean import RoundMean
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.exchange.tensor_files import StoredWeights, stored_tensors, write_tensors
from mmar_runtime.weights import BLOCK, Weights, digest

NAMES = ("site-1", "site-2", "site-3", "site-4")
STEPS = {"site-1": 7, "site-2": 3, "site-3": 11, "site-4": 5}
FACTORS = {"site-2": 0.3}
SIZES = (BLOCK + 3, 5)
"""More than is summed at a time, and less."""


def model(seed: int) -> Weights:
    """Numbers of very different sizes, so that another order of the sums gives other bits."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(size: int) -> torch.Tensor:
        powers = torch.randint(-12, 12, (size,), generator=generator)
        return torch.randn(size, generator=generator) * 10.0**powers

    return {
        **{f"layer.{index}": numbers(size) for index, size in enumerate(SIZES)},
        "precise": numbers(1000).double() / 3,  # rounded to float32, few sums would show the order
        "grid": numbers(6).reshape(2, 3),
        "half": torch.randn(4, generator=generator).half(),
        "count": torch.tensor(seed),
    }


GLOBAL = model(0)
DIFFERENCES = {name: model(index) for index, name in enumerate(NAMES, start=1)}


def in_numpy(sites: tuple[str, ...]) -> Weights:
    """The definition: products, sums and the mean in float64, one after the other, rounded once."""

    def moved(name: str) -> npt.NDArray[np.generic]:
        before = GLOBAL[name].numpy()
        total = np.zeros(before.shape)
        for index, site in enumerate(sorted(sites)):
            product = DIFFERENCES[site][name].numpy().astype(np.float64) * weights[site]
            total = total + product if index else product
        mean = total / sum(weights[site] for site in sorted(sites))
        if before.dtype.kind == "f":
            return (before.astype(np.float64) + mean).astype(before.dtype)
        return before + np.rint(mean).astype(before.dtype)

    weights = {site: STEPS[site] * FACTORS.get(site, 1.0) for site in sites}
    return {name: torch.from_numpy(np.asarray(moved(name))) for name in GLOBAL}


def factors_of(sites: Iterable[str]) -> dict[str, float]:
    return {site: factor for site, factor in FACTORS.items() if site in sites}


def by_round_mean(
    arrivals: tuple[str, ...],
    expected: tuple[str, ...],
    norm_ratio: float | None = None,
) -> Weights:
    mean = RoundMean(
        expected,
        min_sites=1,
        aggregation_weights=factors_of(expected),
        norm_ratio=norm_ratio,
    )
    for site in arrivals:
        assert mean.add(site, DIFFERENCES[site], STEPS[site]) is None
    assert mean.settle() == {}
    return mean.new_global(GLOBAL)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_order_of_arrival_gives_the_bits_of_the_definition(count: int) -> None:
    sites = NAMES[:count]
    expected = digest(in_numpy(sites))

    for arrivals in permutations(sites):
        assert digest(by_round_mean(arrivals, sites)) == expected, arrivals


@pytest.mark.parametrize("missing", NAMES)
def test_so_it_is_when_a_site_never_answers(missing: str) -> None:
    there = tuple(name for name in NAMES if name != missing)
    expected = digest(in_numpy(there))

    for arrivals in permutations(there):
        assert digest(by_round_mean(arrivals, NAMES)) == expected, arrivals


def test_and_when_contributions_are_kept_until_all_norms_are_known() -> None:
    expected = digest(in_numpy(NAMES[:3]))

    for arrivals in permutations(NAMES[:3]):
        assert digest(by_round_mean(arrivals, NAMES[:3], norm_ratio=1e30)) == expected


BOUNDS: list[dict[str, float]] = [{}, {"norm_ratio": 1e30}, {"weight_ratio": 4}]
"""None waits, all wait, and those with more than four steps."""


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_and_when_all_contributions_are_lent_in_the_same_memory(
    count: int, bounds: dict[str, float]
) -> None:
    """As of sites in one process, whose networks share their memory."""
    sites = NAMES[:count]
    expected, spare = digest(in_numpy(sites)), SpareMemory(2**24)
    network = {name: tensor.clone() for name, tensor in GLOBAL.items()}

    for arrivals in permutations(sites):
        mean = RoundMean(
            sites,
            min_sites=1,
            aggregation_weights=factors_of(sites),
            spare=spare,
            **bounds,
        )
        for site in arrivals:
            for name, tensor in DIFFERENCES[site].items():
                network[name].copy_(tensor)
            assert mean.add(site, network, STEPS[site]) is None
        assert mean.settle() == {}
        found = mean.new_global(GLOBAL)
        for tensor in network.values():
            tensor.zero_()

        assert digest(found) == expected, arrivals


@pytest.mark.parametrize("bounds", BOUNDS)
def test_and_when_contributions_lie_in_files_which_take_no_memory_while_they_wait(
    tmp_path: Path, bounds: dict[str, float]
) -> None:
    expected = digest(in_numpy(NAMES))
    for site in NAMES:
        write_tensors(tmp_path / site, DIFFERENCES[site])

    for arrivals in permutations(NAMES):
        mean = RoundMean(NAMES, min_sites=1, aggregation_weights=FACTORS, **bounds)
        for site in arrivals:
            stored = StoredWeights(stored_tensors(tmp_path / site, keeper=None))
            assert mean.add(site, stored, STEPS[site]) is None
            assert dict(stored).keys() == GLOBAL.keys()  # it is left as it is
            assert str(tmp_path) not in mappings()
        assert mean.settle() == {}
        assert digest(mean.new_global(GLOBAL)) == expected, arrivals


def mappings() -> str:
    """The files that are this process' memory; none where the system does not tell."""
    listed = Path("/proc/self/maps")
    return listed.read_text() if listed.is_file() else ""


def test_a_sum_in_another_order_would_differ() -> None:
    """The numbers are such that order matters; else the tests above would show nothing."""

    def plain_sum(names: tuple[str, ...]) -> torch.Tensor:
        total = torch.zeros(1000, dtype=torch.float64)
        for name in names:
            total += DIFFERENCES[name]["precise"] * STEPS[name]
        return total

    assert not torch.equal(plain_sum(NAMES), plain_sum(NAMES[::-1]))


def test_the_contributions_of_many_sites_do_not_pile_up() -> None:
    """Of sites that come in the order of their names, what is added is let go of."""
    mean = RoundMean(NAMES, min_sites=1)
    tensors: list[weakref.ref[torch.Tensor]] = []
    alive = []

    for site in NAMES:
        tensor = torch.ones(2, 2)
        tensors.append(weakref.ref(tensor))
        mean.add(site, {"w": tensor}, 1)
        del tensor
        alive.append(sum(one() is not None for one in tensors))
    found = mean.new_global({"w": torch.zeros(2, 2)})

    assert alive == [1, 0, 0, 1]  # the second makes a sum, the last is added with the mean
    assert found["w"].tolist() == [[1, 1], [1, 1]]
    assert all(one() is None for one in tensors)
