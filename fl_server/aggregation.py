"""Federated averaging: pure arithmetic, the same bits whatever the order of arrival."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, replace

import torch

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, Problem, WeightsError
from mmar_runtime.exchange.job_documents import FACTORS_PLACE
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.exchange.tensor_files import StoredWeights
from mmar_runtime.exchange.weighing import factor_problems
from mmar_runtime.weights import BLOCK, Weights, blocks, is_finite, not_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedUpdate:
    """One site's part in a round.

    Attributes:
        site: the site's name, which decides its place in the sum.
        difference: local minus received weights.
        weight: its share in the mean, before the shares are divided by their sum.
        is_copied: whether the tensors are copies, which the mean may do with as it likes.
    """

    site: str
    difference: MutableMapping[str, torch.Tensor]
    weight: float
    is_copied: bool = False


AVERAGED = (torch.float16, torch.float32, torch.float64, torch.int32, torch.int64)
"""The types that have a mean here. Differences of 8-bit numbers would wrap around, flags have none,
and the sums have no imaginary part."""


def averaging_problems(weights: Weights, place: Location) -> Iterator[Problem]:
    """Yield the tensors of a model that have no mean.

    Args:
        weights: of the model, with the tensors that sites share.
        place: of the network in the job's configuration.
    """
    for name, tensor in weights.items():
        if tensor.dtype not in AVERAGED:
            allowed = ", ".join(_short(dtype) for dtype in AVERAGED)
            message = f"{name} is {_short(tensor.dtype)}, which has no mean; these have: {allowed}"
            advice = (
                f"Let each site keep its own with '--exclude-vars {name}', or register the buffer "
                "with persistent=False."
            )
            yield Problem(place, message, advice, "averaging")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


Part = tuple[torch.Tensor, float]
"""A tensor of one contribution, and its weight."""


class InTimeWeightedMean:
    """The weighted mean of differences, summed up while contributions still arrive.

    Floating-point sums depend on their order, so contributions are added in the order of the
    sites' names: one that arrives early waits for those before it. All sums are in float64. Each
    tensor has a mean of its own, over the sites that sent it.

    A sum takes the memory of two contributions, so two are kept as they are until a third comes;
    and the last one is added where the mean is taken, without another pass over the memory. The
    tensors are let go of one by one as they are added.

    Args:
        sites: every site that may contribute.
        aggregation_weights: factor of a site's claim; 1 for a site that is not named.
        optional_names: tensors that a contribution may lack; one that all of them lack stays.
        spare: of contributions that are only lent, until the next one comes: memory for copies of
            those that are kept longer, and for the new global weights. None if nobody changes the
            tensors of a contribution.

    Raises:
        ConfigError: a factor is no positive number, or of a site that is not expected.
    """

    def __init__(
        self,
        sites: Iterable[str],
        *,
        aggregation_weights: Mapping[str, float] | None = None,
        optional_names: Collection[str] = (),
        spare: SpareMemory | None = None,
    ) -> None:
        self._spare = spare
        self._awaited = sorted(sites)
        self._factors = dict(aggregation_weights or {})
        if problems := [*factor_problems(self._factors, FACTORS_PLACE, sites=self._awaited)]:
            raise ConfigError(problems)
        self._optional = frozenset(optional_names)
        self._waiting: dict[str, WeightedUpdate] = {}
        """Those that came before their turn."""
        self._kept: list[WeightedUpdate] = []
        """Those whose turn it is, and which are not in the sums yet."""
        self._sum: dict[str, torch.Tensor] = {}
        self._weights: dict[str, float] = {}
        """Tensor -> the weights of all who sent it."""
        self.contributors: tuple[str, ...] = ()

    def add(self, site: str, difference: Weights, claim: int) -> None:
        """Take a contribution; its weight is the site's claim times the site's factor.

        Args:
            site: its sender.
            difference: its tensors must not be changed any more, unless they are lent.
            claim: a whole number from 1 on.

        Raises:
            FederationError: the site contributed already, is none of those expected, or claims
                something else.
        """
        if site in self.contributors:
            raise FederationError(f"{site} has contributed to this round already")
        if site not in self._awaited:
            raise FederationError(f"{site} is no site of this run")
        if type(claim) is not int or claim < 1:
            raise FederationError(f"{site} claims a weight of {claim!r}, no whole number from 1 on")
        self.contributors = tuple(sorted((*self.contributors, site)))
        weight = claim * self._factors.get(site, 1.0)
        own = difference.copy() if isinstance(difference, StoredWeights) else dict(difference)
        self._waiting[site] = WeightedUpdate(site=site, difference=own, weight=weight)
        while self._awaited and self._awaited[0] in self._waiting:
            self._take(self._awaited.pop(0))
        if self._spare is not None and self._awaited:
            # The last one needs no copy: what follows is the mean.
            self._waiting = {name: self._copied(update) for name, update in self._waiting.items()}
            self._kept = [self._copied(update) for update in self._kept]

    def _copied(self, update: WeightedUpdate) -> WeightedUpdate:
        """Return a contribution that holds although what was lent is used again."""
        if update.is_copied or self._spare is None:
            return update
        copies = {
            name: self._spare.empty_like(tensor).copy_(tensor)
            for name, tensor in update.difference.items()
        }
        return replace(update, difference=copies, is_copied=True)

    def _take(self, site: str) -> None:
        contribution = self._waiting.pop(site)
        for name in contribution.difference:
            self._weights[name] = self._weights.get(name, 0.0) + contribution.weight
        self._kept.append(contribution)
        if self._awaited and (self._sum or len(self._kept) > 1):
            self._add_kept()

    def _add_kept(self) -> None:
        kept, self._kept = self._kept, []
        product = _scratch()
        shapes = {
            name: tensor.shape for update in kept for name, tensor in update.difference.items()
        }
        for name, shape in shapes.items():
            parts, total = _parts(kept, name), self._sum.get(name)
            is_begun = total is not None
            if total is None:
                total = self._sum[name] = torch.empty(shape, dtype=torch.float64)
            columns = _blocks_of(parts)
            for index, sums in enumerate(blocks(total)):
                _add_parts(sums, columns(index), product, is_begun=is_begun)

    def new_global(self, global_weights: Weights) -> dict[str, torch.Tensor]:
        """Return the global weights plus the mean difference, each tensor in its own dtype.

        Floating-point tensors are added in float64 and rounded once. Integer buffers, such as the
        batch counters of batch norm, take the mean difference rounded to the nearest integer, ties
        to even (McMahan et al. 2017, arXiv 1602.05629, average parameters; they have no counters).

        The contributions are used up by this.

        Raises:
            FederationError: nobody contributed.
            WeightsError: the result is not finite, or of other shapes, or nobody sent a tensor that
                a contribution has to have.
        """
        for site in sorted(self._waiting):
            self._take(site)
        if not self.contributors:
            raise FederationError("no site contributed to this round; there is nothing to average")
        _require_like(global_weights, self._weights, self._optional)
        for given in (self._sum, *(update.difference for update in self._kept)):
            _require_shapes(global_weights, given)
        scratch = _scratch(), _scratch()
        return {
            name: self._moved(name, tensor, *scratch) if name in self._weights else tensor.clone()
            for name, tensor in global_weights.items()
        }

    def _moved(
        self, name: str, tensor: torch.Tensor, sums: torch.Tensor, product: torch.Tensor
    ) -> torch.Tensor:
        """One tensor of the new global weights; what was summed up for it is let go of."""
        out = self._memory_for(name, tensor)
        parts = _parts(self._kept, name)
        summed = self._sum.pop(name, None)
        mean = _mean(out, parts, summed, self._weights[name], sums, product)
        return _moved(name, tensor, mean, out=out)

    def _memory_for(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Where the new weights shall lie: in the place of a copy, if there is one.

        A block of it has been added before the new one is written there.
        """
        for update in self._kept:
            copy = update.difference.get(name) if update.is_copied else None
            if copy is not None and copy.dtype == like.dtype:
                return copy
        if self._spare is not None:
            return self._spare.empty_like(like)
        return torch.empty_like(like, memory_format=torch.contiguous_format)


def moved_by(
    global_weights: Weights, difference: Weights, *, may_lack: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Return the global weights plus a difference, rounded as ``InTimeWeightedMean`` does.

    Args:
        global_weights: the model so far.
        difference: by the same names, in any dtype.
        may_lack: names that the difference need not have; these tensors stay as they are.

    Raises:
        WeightsError: the result is not finite, of other shapes, or of other names.
    """
    _require_like(global_weights, difference, may_lack)
    _require_shapes(global_weights, difference)
    return {
        name: _moved(
            name,
            tensor,
            _whole_or_precise(difference[name], tensor),
            out=torch.empty_like(tensor, memory_format=torch.contiguous_format),
        )
        if name in difference
        else tensor.clone()
        for name, tensor in global_weights.items()
    }


def replaced_by(
    global_weights: Weights, weights: Weights, *, may_lack: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Other weights in the place of the global ones, in the dtypes of these.

    Arguments and errors are those of ``moved_by``.
    """
    _require_like(global_weights, weights, may_lack)
    _require_shapes(global_weights, weights)
    new = {
        name: _as_dtype(weights[name], tensor.dtype) if name in weights else tensor.clone()
        for name, tensor in global_weights.items()
    }
    if (name := next(not_finite(new), None)) is not None:
        raise WeightsError(f"the new global model is not kept; {name}: not finite")
    return new


def _scratch() -> torch.Tensor:
    return torch.empty(BLOCK, dtype=torch.float64)


def _parts(kept: Sequence[WeightedUpdate], name: str) -> list[Part]:
    """Return what these contributions have of one tensor; they have it no longer."""
    return [
        (update.difference.pop(name).contiguous(), update.weight)
        for update in kept
        if name in update.difference
    ]


def _blocks_of(parts: Iterable[Part]) -> Callable[[int], Iterator[Part]]:
    """Of these tensors the blocks with an index."""
    taken_apart = [(blocks(tensor), weight) for tensor, weight in parts]
    return lambda index: ((each[index], weight) for each, weight in taken_apart)


def _mean(
    like: torch.Tensor,
    parts: Iterable[Part],
    summed: torch.Tensor | None,
    weight: float,
    sums: torch.Tensor,
    product: torch.Tensor,
) -> Iterator[torch.Tensor]:
    """Yield the blocks of a tensor's mean, each in the place of the one before.

    Args:
        like: a tensor of as many numbers.
        parts: what is added to the sum.
        summed: the sum until now, if there is one.
        weight: by which the sum is divided.
        sums: memory for a block.
        product: memory for another.
    """
    columns, begun = _blocks_of(parts), None if summed is None else blocks(summed)
    for index, block in enumerate(blocks(like)):
        found = _fitting(sums, block)
        if begun is not None:
            found.copy_(begun[index])
        _add_parts(found, columns(index), product, is_begun=begun is not None)
        yield found.div_(weight)


def _fitting(memory: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    return memory if block.numel() == BLOCK else memory[: block.numel()]


def _add_parts(
    total: torch.Tensor, parts: Iterable[Part], product: torch.Tensor, *, is_begun: bool
) -> None:
    """``total += block * weight`` in float64.

    Product and sum are rounded one after the other on every processor.

    Args:
        total: a block's sum.
        parts: the blocks that are added, one after the other.
        product: memory for a block.
        is_begun: whether something is in the sum already.
    """
    product = _fitting(product, total)
    for numbers, weight in parts:
        if is_begun:
            total.add_(product.copy_(numbers).mul_(weight))
        else:
            total.copy_(numbers).mul_(weight)
            is_begun = True


def _require_like(
    global_weights: Weights, given: Collection[str], may_lack: Collection[str]
) -> None:
    lacking = [name for name in global_weights if name not in given and name not in may_lack]
    strange = [name for name in given if name not in global_weights]
    if lacking or strange:
        fault = f"{lacking[0]}: missing" if lacking else f"{strange[0]}: not part of the network"
        raise WeightsError(f"the new global model is not kept; {fault}")


def _require_shapes(global_weights: Weights, given: Weights) -> None:
    """A smaller shape would be spread over the whole tensor."""
    for name, tensor in given.items():
        expected = tuple(global_weights[name].shape)
        if tuple(tensor.shape) != expected:
            fault = f"{name}: shape {expected}, given {tuple(tensor.shape)}"
            raise WeightsError(f"the new global model is not kept; {fault}")


def _as_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.is_floating_point() and not dtype.is_floating_point:
        tensor = torch.round(tensor)
    return tensor.to(dtype)


def _moved(
    name: str, tensor: torch.Tensor, added: Iterable[torch.Tensor], *, out: torch.Tensor
) -> torch.Tensor:
    """``tensor`` and what is added in the tensor's own dtype, computed and checked block by block.

    Args:
        name: of the tensor.
        tensor: left as it is.
        added: its blocks, each taken when the one before is used up.
        out: where the result shall lie.
    """
    for moved, numbers, more in zip(blocks(out), blocks(tensor.contiguous()), added, strict=True):
        if tensor.is_floating_point():
            moved.copy_(more.add_(numbers))
        else:
            moved.copy_(numbers + _as_dtype(more, tensor.dtype))
        if not is_finite(moved):
            raise WeightsError(f"the new global model is not kept; {name}: not finite")
    return out


def _whole_or_precise(difference: torch.Tensor, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the blocks of a difference: whole numbers as they are, all others in float64."""
    for block in blocks(difference.contiguous()):
        yield block.to(torch.float64, copy=True) if tensor.is_floating_point() else block
