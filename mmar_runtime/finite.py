"""Values that JSON can write."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(content: Any) -> Any:
    """The same with null for a number that is not finite, which JSON cannot write.

    >>> finite({"loss": float("nan"), "metrics": (0.5, float("inf"))})
    {'loss': None, 'metrics': [0.5, None]}
    """
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
