"""``mmar site setup``: what it writes, what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.kits.provision import Kits, provision
from mmar_runtime.config.sources import read_json

TEMPLATE = Path(__file__).resolve().parents[4] / "provisioning" / "project.yml"
SITE = "site-1"


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return provision(TEMPLATE, tmp_path_factory.mktemp("kits"))


@pytest.fixture
def kits(provisioned: Kits, tmp_path: Path) -> Kits:
    """Kits to change."""
    folder = shutil.copytree(provisioned.folder, tmp_path / "kits")
    return replace(provisioned, folder=folder)


@pytest.fixture
def kit(kits: Kits) -> Path:
    return kits.folder / SITE


@pytest.fixture
def data(demo_data: Path) -> Path:
    return demo_data / SITE


def setup(kit: Path, *words: object) -> int:
    return main(["site", "setup", str(kit), "--no-network", *map(str, words)])


def environment(kit: Path) -> Any:
    return read_json(kit / "local" / "environment.json")


def test_a_new_kit_is_ready_once_its_values_are_filled_in(
    kit: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(kit) == 3
    assert "FAULT    environment DATA_ROOT and DATASET_JSON not filled in" in (
        printed := capsys.readouterr().out
    )
    assert "->  mmar site setup " in printed

    values = ("--data-root", data, "--datalist", data / "dataset.json", "--set", "NUM_THREADS=2")
    assert setup(kit, *values) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "site-1: kit of a site, for the server fl.example.org:8002"
    assert lines[1] == f"written: {kit / 'local/environment.json'}"
    assert lines[-1] == "ready"
    # One line for each check, and nothing else.
    assert all(line.startswith(("  ok ", "  WARNING ", "  - ")) for line in lines[2:-1])
    path = kit / "local/environment.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert environment(kit) == {
        "DATA_ROOT": str(data),
        "DATASET_JSON": str(data / "dataset.json"),
        "NUM_THREADS": 2,
    }


def test_again_changes_nothing_and_other_values_stay(
    kit: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kit / "local/environment.json"
    path.write_text(json.dumps({"DATA_ROOT": "", "amp": True, "sites": {SITE: {"tf32": True}}}))
    words = ("--data-root", data, "--datalist", data / "dataset.json")

    setup(kit, *words)
    first = path.stat()
    assert environment(kit)["amp"] is True
    assert environment(kit)["sites"] == {SITE: {"tf32": True}}
    capsys.readouterr()

    setup(kit, *words)
    assert path.stat() == first
    assert "written" not in capsys.readouterr().out


def test_what_was_there_before_is_told_so_that_a_mistake_can_be_taken_back(
    kit: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup(kit, "--data-root", data, "--datalist", data / "dataset.json")
    capsys.readouterr()

    assert setup(kit, "--data-root", tmp_path) == 3

    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"  DATA_ROOT was {str(data)!r}"
    assert any(line.startswith("  FAULT    data") for line in lines)


def test_a_word_without_a_value_changes_nothing(
    kit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = environment(kit)

    assert setup(kit, "--set", "NUM_THREADS") == 2

    assert "--set: 'NUM_THREADS' is not NAME=VALUE" in capsys.readouterr().err
    assert environment(kit) == before


def test_relative_paths_are_those_of_where_the_command_runs(
    kit: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)

    assert setup(kit, "--data-root", ".", "--datalist", "dataset.json") == 0

    assert environment(kit)["DATA_ROOT"] == str(data)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data-root", "/no/such/folder"), "--data-root: there is no folder '/no/such/folder'"),
        (("--datalist", "/no/such/list.json"), "--datalist: there is no file"),
        (("--datalist", "{kit}/local/resources.json"), "holds no case: an object with 'image'"),
        (("--data-root", "{kit}/a$b"), "has a sign by which a shell"),
        (("--set", "DATA_ROOT=/"), "DATA_ROOT is set by --data-root"),
        (("--set", "MMAR_ROOT=/"), "MMAR_ROOT is where a job lies"),
        (("--set", "NUM_THREADS=0"), "has to be a whole number from 1, found 0"),
        (("--set", "NUM_PROCESSES=two"), "has to be a whole number from 1, found 'two'"),
        (("--set", "2x=3"), "names no variable"),
    ],
)
def test_wrong_input_changes_nothing(
    kit: Path,
    data: Path,
    words: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup(kit, "--data-root", data)
    path = kit / "local/environment.json"
    before = path.read_bytes()
    capsys.readouterr()

    right = ("--set", "amp=True")
    assert setup(kit, *right, *(one.format(kit=kit) for one in words)) == 2

    assert told in capsys.readouterr().err
    assert path.read_bytes() == before


def test_an_environment_that_cannot_be_read_is_not_overwritten(
    kit: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kit / "local/environment.json"
    path.write_text("{")

    assert setup(kit, "--data-root", data) == 2

    assert path.read_text() == "{"
    assert "environment.json: not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fl.example.org", "KIT: is the kit of a server, fl.example.org; only a site's kit has"),
        ("lead@example.org", "KIT: is the kit of an admin, lead@example.org; only a site's kit"),
    ],
)
def test_only_a_site_has_data(
    kits: Kits, data: Path, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(kits.folder / name, "--data-root", data) == 2
    assert told in capsys.readouterr().err

    assert setup(kits.folder / name) == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_to_wait_is_a_number_above_0(kit: Path, seconds: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        setup(kit, "--timeout", seconds)


def test_json_is_one_document(kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert setup(kit, "--json") == 3

    printed = json.loads(capfd.readouterr().out)
    assert (printed["kind"], printed["name"], printed["ready"]) == ("site", SITE, False)
    by_name = {one["check"]: one for one in printed["checks"]}
    assert by_name["environment"]["state"] == "fault"
    assert by_name["server"]["state"] == "skipped"


def test_no_torch_is_loaded_for_it(kit: Path) -> None:
    code = (
        "import sys; from fl_admin.cli.main import main;"
        f"code = main(['site', 'setup', {str(kit)!r}, '--no-network', '--json']);"
        "print([one for one in ('torch', 'monai') if one in sys.modules], code, file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == "[] 3"
