"""``--confine``: a stranger's MMAR trains, and its own code finds the wall."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.confinement.places import job_environment
from mmar_runtime.confinement.wall import Wall, kernel_wall, require_wall
from mmar_runtime.errors import MmarError
from tests.conftest import edit_json

OWN_TRANSFORM = """
import json, os, subprocess
from pathlib import Path
from monai.transforms import MapTransform

def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"

class Spy(MapTransform):
    def __init__(self, keys):
        super().__init__(keys)
        outside = Path(__file__).parents[2] / "outside"
        found = {
    "read": tried(outside.read_text),
            "write": tried(lambda: outside.write_text("x")),
            "run": tried(lambda: subprocess.run(["true"])),
            "own code": tried(lambda: Path(__file__).write_text("")),
            "secret": os.environ.get("SITE_SECRET"),
            "initial secret": b"SITE_SECRET" in Path("/proc/self/environ").read_bytes(),
            "home": str(Path.home()),
        }
        Path(__file__).parents[1].joinpath("models/found.json").write_text(json.dumps(found))

    def __call__(self, data):
        return data
"""


def train(mmar: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Train as a user does, who names the MMAR from the folder above."""
    command = [sys.executable, "-m", "fl_admin.cli.main", "train", "-m", mmar.name, *arguments]
    environment = {**os.environ, "SITE_SECRET": "x"}
    return subprocess.run(
        command, cwd=mmar.parent, capture_output=True, text=True, env=environment, timeout=120
    )


@pytest.fixture
def strange_mmar(tiny_mmar: Path) -> Path:
    """An MMAR whose own transform tries what it may not, with two processes that load data."""
    (tiny_mmar / "custom").mkdir()
    (tiny_mmar / "custom/spy.py").write_text(OWN_TRANSFORM)
    (tiny_mmar.parent / "outside").write_text("of the user")

    def change(conf: Any) -> None:
        conf["train"]["pre_transforms"].append({"path": "spy.Spy", "args": {"keys": "image"}})
        conf["train"]["dataloader"]["args"]["num_workers"] = 2

    edit_json(tiny_mmar / "config/config_train.json", change)
    return tiny_mmar


@pytest.mark.skipif(not kernel_wall().stands, reason=f"this kernel's wall is {kernel_wall()}")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_its_start_leaves_no_scratch_folder(
    tiny_mmar: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "fl_admin.cli.main", "train", "-m", str(tiny_mmar)]
    run = subprocess.Popen([*command, "--confine"], stderr=subprocess.PIPE, text=True)
    scratch = tiny_mmar / "scratch" / str(run.pid)
    while not (scratch / "tmp").exists():  # then the process begins anew
        assert run.poll() is None
        time.sleep(0.001)
    short = Path(job_environment({}, scratch)["TMPDIR"])

    run.send_signal(number)
    _, said = run.communicate(timeout=60)

    assert (run.returncode, "Traceback" in said) == (130, False), said
    assert not scratch.exists()
    assert not short.is_symlink()


@pytest.mark.slow
@pytest.mark.skipif(not kernel_wall().stands, reason=f"this kernel's wall is {kernel_wall()}")
def test_a_confined_training_reaches_nothing_of_the_user(strange_mmar: Path) -> None:
    done = train(strange_mmar, "--confine")

    assert done.returncode == 0, done.stderr
    assert "note: confinement: " in done.stderr
    assert (strange_mmar / "models/model.pt").is_file()
    found = json.loads((strange_mmar / "models/found.json").read_text())
    assert Path(found.pop("home")).is_relative_to(strange_mmar)
    assert found == {
        "read": "PermissionError",
        "write": "PermissionError",
        "run": "PermissionError",
        "own code": "PermissionError",
        "secret": None,
        "initial secret": False,
    }


@pytest.mark.slow
@pytest.mark.skipif(not kernel_wall().stands, reason=f"this kernel's wall is {kernel_wall()}")
def test_a_confined_training_has_the_folders_that_the_user_names(tiny_mmar: Path) -> None:
    (tiny_mmar / "data").rename(tiny_mmar.parent / "data")
    named = ("DATA_ROOT=data", "DATASET_JSON=../data/dataset.json", "MMAR_CKPT_DIR=results/new")
    done = train(tiny_mmar, "--confine", "--set", *named)

    assert done.returncode == 0, done.stderr
    assert (tiny_mmar / "results/new/model.pt").is_file()


@pytest.mark.skipif(not kernel_wall().stands, reason=f"this kernel's wall is {kernel_wall()}")
@pytest.mark.parametrize("name", ["models", "eval", "scratch"])
def test_links_of_a_strange_mmar_do_not_open_other_folders(tiny_mmar: Path, name: str) -> None:
    outside = tiny_mmar.parent / "of-the-user"
    outside.mkdir()
    shutil.rmtree(tiny_mmar / name, ignore_errors=True)
    (tiny_mmar / name).symlink_to(outside)

    done = train(tiny_mmar, "--confine")

    assert done.returncode == 2
    assert f"{tiny_mmar / name} is a link" in done.stderr
    assert list(outside.iterdir()) == []


@pytest.mark.slow
def test_without_confine_an_mmar_has_all_rights_of_its_user(strange_mmar: Path) -> None:
    done = train(strange_mmar)

    assert done.returncode == 0, done.stderr
    found = json.loads((strange_mmar / "models/found.json").read_text())
    assert (found["read"], found["run"], found["secret"]) == ("done", "done", "x")


def test_a_kernel_without_landlock_confines_nothing() -> None:
    with pytest.raises(MmarError, match="none: this kernel has no Landlock"):
        require_wall(Wall(landlock=0, call_filter=True))
