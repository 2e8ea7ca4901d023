"""An aggregator that a job brings along, behind the guard: what it gets, and what it may return."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fl_server.aggregation import moved_by, replaced_by
from fl_server.flare.exchange import raw_reply
from mmar_runtime.errors import FederationError, WeightsError
from mmar_runtime.exchange.arrays import as_tensor
from mmar_runtime.exchange.rounding import restored
from mmar_runtime.weights import Weights


class OwnAggregator(Protocol):
    """What Clara Train and NVFlare call an aggregator; a class of a job needs these two methods.

    It forgets a round when it has aggregated it. If it has NVFlare's ``reset(fl_ctx)``, that is
    called after each round as well.
    """

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> object:
        """Take a contribution that the guard has let through.

        Clara's answer, ``(accepted, ready)``, is understood as well as NVFlare's one truth value.
        """

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Return a DXO: ``WEIGHT_DIFF``, to be added to the global model, or ``WEIGHTS``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply with the context that says whose it is."""

    shareable: Shareable
    peer: Any


def restored_reply(shareable: Shareable) -> Shareable:
    """Return a reply that the guard has let through, with float32 where tensors came rounded."""
    dxo = from_shareable(shareable)
    dxo.data = restored(dxo.data)
    return dxo.update_shareable(copy.copy(shareable))


class OwnAggregation:
    """One round of a job's own aggregator.

    Contributions are handed over at the end of the round, in the order of the sites' names, so that
    the same contributions give the same model whoever answered first. Until then they are kept: one
    model's memory for each site.

    Args:
        aggregator: the job's own.

    Raises:
        FederationError: it lacks ``accept`` or ``aggregate``.
    """

    def __init__(self, aggregator: Any) -> None:
        lacking = [
            name
            for name in ("accept", "aggregate")
            if not callable(getattr(aggregator, name, None))
        ]
        if lacking:
            raise FederationError(
                f"'aggregator' has to be an object with accept(shareable, fl_ctx) and "
                f"aggregate(fl_ctx); {type(aggregator).__name__} has no {lacking[0]}"
            )
        self._aggregator: OwnAggregator = aggregator
        self._replies: dict[str, Reply] = {}

    def add(self, site: str, reply: Reply) -> None:
        """Keep a reply that the guard has let through."""
        self._replies[site] = reply

    def forget(self, fl_ctx: FLContext) -> None:
        """Drop the replies of the round."""
        self._replies = {}
        reset = getattr(self._aggregator, "reset", None)
        if callable(reset):
            reset(fl_ctx)

    def new_global(
        self,
        weights: Weights,
        fl_ctx: FLContext,
        *,
        sites: Iterable[str],
        optional: frozenset[str],
    ) -> dict[str, torch.Tensor]:
        """Hand the replies over, and judge what comes back.

        Args:
            weights: the global model so far.
            fl_ctx: of the workflow.
            sites: whose replies count, in the order of their names.
            optional: tensors that may be missing; these stay as they are.

        Raises:
            FederationError: the aggregator took none, or returned something else than weights.
            WeightsError: the new weights are not finite or not the model's.
        """
        before = fl_ctx.get_peer_context()
        try:
            answers = [self._handed_over(self._replies[site], fl_ctx) for site in sites]
        finally:
            fl_ctx.set_peer_context(before)
        if not any(
            answer[0] if isinstance(answer, tuple) and answer else answer for answer in answers
        ):
            raise FederationError("the job's own aggregator took none of the contributions")
        reply = raw_reply(self._aggregator.aggregate(fl_ctx))
        if reply.kind not in (DataKind.WEIGHT_DIFF, DataKind.WEIGHTS) or not isinstance(
            reply.data, dict
        ):
            raise FederationError(f"the job's own aggregator returned {reply.kind}, no weights")
        tensors = {str(name): _tensor(str(name), value) for name, value in reply.data.items()}
        applied = replaced_by if reply.kind == DataKind.WEIGHTS else moved_by
        return applied(weights, tensors, may_lack=optional)

    def _handed_over(self, reply: Reply, fl_ctx: FLContext) -> object:
        fl_ctx.set_peer_context(reply.peer)
        return self._aggregator.accept(reply.shareable, fl_ctx)


def _tensor(name: str, value: Any) -> torch.Tensor:
    try:
        return as_tensor(value)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the new global model is not kept; {name}: no array") from error
