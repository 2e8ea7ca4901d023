"""The update guard at NVFlare's door: a reply of a site becomes plain parts and is judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fl_server.flare.exchange import (
    BASE_MODEL,
    answered_round,
    claimed,
    cookie,
    plain_metadata,
    raw_reply,
)
from fl_server.guard.reply_guard import PlainReplyGuard, reason_of
from fl_server.update_guard import Arrays, UpdateFault
from mmar_runtime.errors import FederationError

__all__ = ["ReplyGuard", "reason_of"]


class ReplyGuard:
    """``PlainReplyGuard`` for NVFlare's messages; each method gives the faults of a reply.

    Args:
        guard: of the job.
    """

    def __init__(self, guard: PlainReplyGuard) -> None:
        self._guard = guard

    @property
    def norm_ratio(self) -> float | None:
        """The bound of a norm as a multiple of the round's median; None for none."""
        return self._guard.norm_ratio

    @property
    def optional(self) -> frozenset[str]:
        """The tensors that a contribution may lack."""
        return self._guard.optional

    def contribution_faults(
        self,
        reply: Shareable,
        fl_ctx: FLContext,
        *,
        site: str,
        round_number: int,
        model: Arrays,
        base_model: str | None,
        contributors: Collection[str],
    ) -> tuple[UpdateFault, ...]:
        """A reply to ``train``.

        Args:
            reply: as it came.
            fl_ctx: of the reply.
            site: its sender, as NVFlare authenticated it.
            round_number: the current round, counted from 1.
            model: the global model.
            base_model: digest of the same; None where the tasks carry none.
            contributors: who has answered in this round.
        """
        claims = {"round": answered_round(reply), "base_model": cookie(reply, BASE_MODEL)}
        return _faults(
            reply,
            {**claimed(fl_ctx), **claims},
            self._guard.contribution_faults,
            site=site,
            round_number=round_number,
            model=model,
            base_model=base_model,
            contributors=contributors,
        )

    def model_faults(
        self, reply: Shareable, fl_ctx: FLContext, *, site: str, answered: Collection[str]
    ) -> tuple[UpdateFault, ...]:
        """A reply to ``submit_model``; ``answered`` have done so already."""
        judge = self._guard.model_faults
        return _faults(reply, claimed(fl_ctx), judge, site=site, answered=answered)

    def score_faults(
        self, reply: Shareable, fl_ctx: FLContext, *, site: str
    ) -> tuple[UpdateFault, ...]:
        """A reply to ``score_model``."""
        return _faults(reply, claimed(fl_ctx), self._guard.score_faults, site=site)

    def validation_faults(
        self, reply: Shareable, fl_ctx: FLContext, *, site: str, answered: Collection[str]
    ) -> tuple[UpdateFault, ...]:
        """A reply to ``validate``; ``answered`` have done so for the same model already."""
        judge = self._guard.validation_faults
        return _faults(reply, claimed(fl_ctx), judge, site=site, answered=answered)


def _faults(
    reply: Shareable,
    claims: Mapping[str, object],
    judge: Callable[..., tuple[UpdateFault, ...]],
    **expected: Any,
) -> tuple[UpdateFault, ...]:
    try:
        raw = raw_reply(reply)
    except FederationError as error:
        return (UpdateFault("kind", "reply", str(error)),)
    return judge(raw.data, plain_metadata(raw, claims), **expected)
