"""Rounds updates at a site, as a filter of NVFlare.

It stands last before what leaves: the site's own privacy filters, then those of the job, then the
rounding, then the gate. So the filters see every digit.
"""

from __future__ import annotations

from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fl_client.flare.audit import note
from fl_client.flare.failure import failure
from mmar_runtime.exchange.arrays import as_tensor
from mmar_runtime.exchange.rounding import rounded
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.weights import digest


class CompactUpdate(Filter):
    """Rounds the large tensors of an update.

    Args:
        transfer: ``float16`` or ``int8``. The server's workflow has the same argument.
    """

    def __init__(self, transfer: Rounding) -> None:
        super().__init__()
        self.transfer: Rounding = transfer

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the reply as it may leave; a failed one where it cannot be rounded."""
        if shareable.get_return_code() not in (None, ReturnCode.OK):
            return shareable
        try:
            dxo = from_shareable(shareable)
            if dxo.data_kind != DataKind.WEIGHT_DIFF:
                return shareable
            dxo.data = rounded(dxo.data, self.transfer)
            note(
                fl_ctx,
                "reply-rounded",
                bytes=sum(array.nbytes for array in dxo.data.values()),
                tensors=digest({name: as_tensor(array) for name, array in dxo.data.items()}),
            )
            return dxo.update_shareable(shareable)
        except Exception as error:
            task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
            return failure(error, task=task, by=self, fl_ctx=fl_ctx)
