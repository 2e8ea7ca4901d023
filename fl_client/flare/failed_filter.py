"""What leaves in the place of a reply that a filter of ours cannot make ready."""

from __future__ import annotations

import uuid
from pathlib import Path

from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply

from fl_client.flare.audit import note
from fl_client.flare.exchange import STATUS
from mmar_runtime.errors import ConfigError, WeightsError


def failed_reply(error: Exception, what: str, fl_ctx: FLContext) -> Shareable:
    """A failed reply; the error's text stays here under a reference, as the executor keeps it.

    Args:
        error: why there is no other.
        what: the filter does, such as ``encryption``; the text begins so.
        fl_ctx: of the reply.
    """
    reference = uuid.uuid4().hex[:8]
    word = "weights-error" if isinstance(error, WeightsError | ConfigError) else "internal-error"
    workspace = fl_ctx.get_engine().get_workspace()
    path = Path(workspace.get_run_dir(fl_ctx.get_job_id())) / f"error-{reference}.txt"
    path.write_text(f"{what}: {error}\n", encoding="utf-8")
    task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
    note(fl_ctx, "task-failed", task=task, status=word, reference=reference)
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(STATUS, f"{word} (reference {reference})")
    return reply
