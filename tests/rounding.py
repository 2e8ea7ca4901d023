"""How far a rounded number may be from the number that a site has computed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmar_runtime.exchange.rounding import BLOCK, Array, is_rounded
from mmar_runtime.exchange.rounding_forms import Rounding


def error_bound(array: Array, form: Rounding) -> npt.NDArray[np.float64]:
    """Return how far each number may be from the number that arrives, in the shape of the array.

    With ``m`` the largest magnitude in the block of a number ``d``:

        float16     max(|d| / 2^11, m / 2^39)
        int8        max(m / 253, 2^-127)

    Half a step of int8 is ``m / 254``; the rest is the rounding of the quotient. Numbers that are
    not rounded arrive as they are.
    """
    if not is_rounded(array.dtype, array.shape):
        return np.zeros(array.shape)
    magnitude = np.abs(array.reshape(-1).astype(np.float64))
    blocks = [magnitude[start : start + BLOCK] for start in range(0, array.size, BLOCK)]
    largest = np.repeat([block.max() for block in blocks], BLOCK)[: array.size]
    bound = (
        np.maximum(largest / 253, 2.0**-127)
        if form == "int8"
        else np.maximum(magnitude / 2**11, largest / 2**39)
    )
    return bound.reshape(array.shape)
