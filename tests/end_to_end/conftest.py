"""Simulations by commands, whose processes start with torch and MONAI loaded."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def commands_start_warm(warm: None) -> None:
    pass
