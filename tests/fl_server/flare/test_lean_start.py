"""What the server's classes bring in: NVFlare waits for it before it starts anything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fl_client.jobs.classes import ALLOWED_CLASSES

MODULES = sorted({path.rpartition(".")[0] for path in ALLOWED_CLASSES if "fl_server" in path})


@pytest.mark.parametrize("heavy", ["monai", "ignite"])
def test_the_servers_classes_are_there_before_monai_is(heavy: str) -> None:
    code = f"import sys, {', '.join(MODULES)}; sys.exit({heavy!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
