"""Simulations by commands, whose processes start with torch and MONAI loaded.

Where the kernel confines a simulation, each process that it starts begins from scratch. Several
simulations by NVFlare are confined, as everywhere. The others do without, by ``open_policy``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def commands_start_warm(warm: None) -> None:
    pass


@pytest.fixture(scope="session")
def open_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default policy, but that the kernel does not confine the processes of a run."""
    path = tmp_path_factory.mktemp("policy") / "mmar_site_policy.json"
    path.write_text(json.dumps({"policy_version": 1, "confinement": "off"}))
    return path
