"""The forms in which a job may ask its sites to send updates; importing this brings nothing in."""

from __future__ import annotations

from typing import Literal, get_args

Rounding = Literal["float16", "int8"]
"""The type of the rounded numbers; see ``mmar_runtime.exchange.rounding``."""

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
