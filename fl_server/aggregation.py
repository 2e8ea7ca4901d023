"""Federated averaging: pure arithmetic, the same bits whatever the order of arrival."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch

from mmar_runtime.errors import FederationError, WeightsError
from mmar_runtime.weights import Weights, not_finite

BLOCK = 2**16
"""Numbers that are summed at a time: they stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """One site's part in a round.

    Attributes:
        site: the site's name, which decides its place in the sum.
        difference: local minus received weights.
        weight: its share in the mean, before the shares are divided by their sum.
    """

    site: str
    difference: Weights
    weight: float


class InTimeWeightedMean:
    """The weighted mean of differences, summed up while contributions still arrive.

    Floating-point sums depend on their order, so contributions are added in the order of the
    sites' names: one that arrives early waits for those before it. All sums are in float64. Each
    tensor has a mean of its own, over the sites that sent it.

    Args:
        sites: every site that may contribute.
        aggregation_weights: factor of a site's steps; 1 for a site that is not named.
        optional_names: tensors that a contribution may lack; one that all of them lack stays.
    """

    def __init__(
        self,
        sites: Iterable[str],
        *,
        aggregation_weights: Mapping[str, float] | None = None,
        optional_names: Collection[str] = (),
    ) -> None:
        self._awaited = sorted(sites)
        self._factors = dict(aggregation_weights or {})
        self._optional = frozenset(optional_names)
        self._waiting: dict[str, Contribution] = {}
        self._sum: dict[str, torch.Tensor] = {}
        self._weights: dict[str, float] = {}
        """Tensor -> the weights of all who sent it."""
        self.contributors: tuple[str, ...] = ()

    def add(self, site: str, difference: Weights, steps: int) -> None:
        """Take a contribution; its weight is ``steps`` times the site's factor.

        Raises:
            FederationError: the site contributed already, or is none of those expected.
        """
        if site in self.contributors:
            raise FederationError(f"{site} has contributed to this round already")
        if site not in self._awaited:
            raise FederationError(f"{site} is no site of this run")
        self.contributors = tuple(sorted((*self.contributors, site)))
        weight = steps * self._factors.get(site, 1.0)
        self._waiting[site] = Contribution(site=site, difference=difference, weight=weight)
        while self._awaited and self._awaited[0] in self._waiting:
            self._take(self._awaited.pop(0))

    def _take(self, site: str) -> None:
        contribution = self._waiting.pop(site)
        for name, tensor in contribution.difference.items():
            if name in self._sum:
                add_weighted(self._sum[name], tensor, contribution.weight)
            else:
                numbers = tensor.contiguous().to(torch.float64, copy=True)
                self._sum[name] = numbers.mul_(contribution.weight)
            self._weights[name] = self._weights.get(name, 0.0) + contribution.weight

    def new_global(self, global_weights: Weights) -> dict[str, torch.Tensor]:
        """The global weights plus the mean difference, each tensor in its own dtype.

        Floating-point tensors are added in float64 and rounded once. Integer buffers, such as the
        batch counters of batch norm, take the mean difference rounded to the nearest integer, ties
        to even (McMahan et al. 2017, arXiv 1602.05629, average parameters; they have no counters).

        Raises:
            FederationError: nobody contributed.
            WeightsError: the result is not finite, or of other shapes, or nobody sent a tensor that
                a contribution has to have.
        """
        for site in sorted(self._waiting):
            self._take(site)
        if not self.contributors:
            raise FederationError("no site contributed to this round; there is nothing to average")
        _require_like(global_weights, self._sum, self._optional)
        found = {
            name: _moved(tensor, self._sum[name], self._weights[name])
            if name in self._sum
            else tensor.clone()
            for name, tensor in global_weights.items()
        }
        return _all_finite(found)


def moved_by(
    global_weights: Weights, difference: Weights, *, may_lack: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """The global weights plus a difference, rounded as ``InTimeWeightedMean.new_global`` says.

    Args:
        global_weights: the model so far.
        difference: by the same names, in any dtype.
        may_lack: names that the difference need not have; these tensors stay as they are.

    Raises:
        WeightsError: the result is not finite, of other shapes, or of other names.
    """
    _require_like(global_weights, difference, may_lack)
    found = {
        name: _moved(tensor, difference[name]) if name in difference else tensor.clone()
        for name, tensor in global_weights.items()
    }
    return _all_finite(found)


def replaced_by(
    global_weights: Weights, weights: Weights, *, may_lack: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Other weights in the place of the global ones, in the dtypes of these.

    Arguments and errors are those of ``moved_by``.
    """
    _require_like(global_weights, weights, may_lack)
    found = {
        name: _as_dtype(weights[name], tensor.dtype) if name in weights else tensor.clone()
        for name, tensor in global_weights.items()
    }
    return _all_finite(found)


def add_weighted(total: torch.Tensor, tensor: torch.Tensor, weight: float) -> None:
    """``total += tensor * weight`` in float64, block by block.

    Product and sum are rounded one after the other on every processor, and what lies between them
    stays in its cache.
    """
    sums, numbers = total.view(-1), tensor.reshape(-1)
    for start in range(0, sums.numel(), BLOCK):
        block = slice(start, start + BLOCK)
        sums[block].add_(numbers[block].to(torch.float64, copy=True).mul_(weight))


def _require_like(global_weights: Weights, given: Weights, may_lack: Collection[str]) -> None:
    """Names and shapes; a smaller shape would be spread over the whole tensor."""
    lacking = [one for one in global_weights if one not in given and one not in may_lack]
    strange = [one for one in given if one not in global_weights]
    if lacking or strange:
        fault = f"{lacking[0]}: missing" if lacking else f"{strange[0]}: not part of the network"
        raise WeightsError(f"the new global model is not kept; {fault}")
    for name, tensor in given.items():
        expected = tuple(global_weights[name].shape)
        if tuple(tensor.shape) != expected:
            fault = f"{name}: shape {expected}, given {tuple(tensor.shape)}"
            raise WeightsError(f"the new global model is not kept; {fault}")


def _all_finite(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Judge the values; names and shapes are the model's, by ``_require_like``."""
    name = next(not_finite(found), None)
    if name is not None:
        raise WeightsError(f"the new global model is not kept; {name}: not finite")
    return found


def _as_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.is_floating_point() and not dtype.is_floating_point:
        tensor = torch.round(tensor)
    return tensor.to(dtype)


def _moved(tensor: torch.Tensor, total: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    """``tensor + total / weight`` in the tensor's own dtype; computed block by block."""
    found = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    numbers, sums, moved = tensor.reshape(-1), total.reshape(-1), found.view(-1)
    for start in range(0, moved.numel(), BLOCK):
        block = slice(start, start + BLOCK)
        if tensor.is_floating_point():
            moved[block] = (sums[block].to(torch.float64) / weight).add_(numbers[block])
        else:
            moved[block] = numbers[block] + _whole(sums[block], weight, tensor.dtype)
    return found


def _whole(total: torch.Tensor, weight: float, dtype: torch.dtype) -> torch.Tensor:
    """``total / weight`` in an integer dtype; whole numbers, which have no weight, as they are."""
    return _as_dtype(total / weight if total.is_floating_point() else total, dtype)
