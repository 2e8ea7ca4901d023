"""Kits of the template's project, to be prepared and started."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_admin.kits.provision import Kits, provision

PROVISIONING = Path(__file__).resolve().parents[2] / "provisioning"
SERVER, SITE = "fl.example.org", "site-1"


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    """Leave them as they are."""
    return provision(PROVISIONING / "project.yml", tmp_path_factory.mktemp("kits"))
