"""Simulations by commands, whose processes start with torch and MONAI loaded.

Where the kernel confines a simulation, each process that it starts begins from scratch. Several
simulations by NVFlare are confined, as everywhere. The others do without, by ``open_policy``.
"""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def commands_start_warm(warm: None) -> None:
    pass
