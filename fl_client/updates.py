"""What a site sends after a round: a difference of weights, with what it took to get there."""

from __future__ import annotations

from collections import Counter

import torch

from mmar_runtime.errors import WeightsError
from mmar_runtime.weights import Weights, blocks, is_finite, mismatches, not_finite


def weight_difference(
    local: Weights,
    received: Weights,
    *,
    in_place: bool = False,
) -> dict[str, torch.Tensor]:
    """Return ``local - received``, tensor by tensor, on the CPU.

    Args:
        local: may lie on another device.
        received: on the CPU; left as they are.
        in_place: whether the differences may take the place of the local weights, which are left as
            they are otherwise.

    Raises:
        WeightsError: names, shapes or dtypes differ, or a value is not finite.
    """
    if faults := mismatches(received, local):
        raise WeightsError(f"the trained weights do not match the received ones: {faults[0]}")
    places = Counter(_place(tensor) for tensor in local.values())
    difference = {}
    for name, before in received.items():
        after = local[name].detach().cpu().contiguous()
        # Tied tensors have several names, and are subtracted from under each.
        is_own = in_place and places[_place(after)] < 2
        moved = after if is_own else torch.empty_like(after)
        difference[name] = moved
        if not _subtract(after, before.contiguous(), out=moved):
            raise WeightsError(
                f"training ended in values that are not finite, in {name}; nothing is sent. "
                "A lower learning rate, or gradient clipping, may help."
            )
    return difference


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _subtract(local: torch.Tensor, received: torch.Tensor, *, out: torch.Tensor) -> bool:
    """Subtract block by block, in one pass over the memory; returns whether all is finite."""
    for after, before, moved in zip(blocks(local), blocks(received), blocks(out), strict=True):
        torch.sub(after, before, out=moved)
        if not is_finite(moved):
            return False
    return True


def first_not_finite(weights: Weights) -> str | None:
    """Return the name of the first tensor that holds NaN or an infinity; None if all are finite."""
    return next(not_finite(weights), None)
