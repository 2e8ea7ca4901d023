"""The ``mmar`` command: its subcommands, and that it answers before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fl_admin.cli.main import main
from fl_admin.cli.parser import COMMANDS, build_parser


def mmar(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_command_has_a_line_of_help_and_examples() -> None:
    for name, module in COMMANDS.items():
        assert module.HELP
        assert f"mmar {name}" in module.EXAMPLES


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])

    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage: mmar " + name in text
    assert "example" in text


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])

    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mmar-fl {version('mmar-fl')}\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["simulate", "--sites", "x"]])
def test_an_unknown_word_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 2
    assert "usage: mmar" in capsys.readouterr().err


def test_the_command_line_imports_nothing_heavy() -> None:
    """``mmar --help`` answers at once, and so does a faulty configuration."""
    code = (
        "import sys, fl_admin.cli.parser as m; m.build_parser();"
        "print([name for name in ('torch', 'monai', 'nvflare', 'matplotlib', 'nibabel') "
        "if name in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert printed == "[]\n"


def test_a_value_may_be_given_several_times() -> None:
    options = build_parser().parse_args(
        ["simulate", "job", "--set", "epochs=1", "lr=2", "--set", "amp=False"]
    )

    assert options.overrides == ["epochs=1", "lr=2", "amp=False"]


# --- demo data


def test_demo_data_says_where_each_sites_list_is(tmp_path: Path) -> None:
    done = mmar("demo-data", tmp_path / "data", "--sites", "1", "--json")

    assert done.returncode == 0
    (site,) = json.loads(done.stdout)
    assert site["site"] == "site-1"
    assert Path(site["datalist"]).is_file()


def test_demo_data_does_not_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    done = mmar("demo-data", tmp_path)

    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "usage", "advice"),
    [
        (["site", "setup", "KIT", "--datalst", "x"], "usage: mmar site setup", "--datalist"),
        (["submit", "JOB", "--wiat"], "usage: mmar submit", "--wait"),
    ],
)
def test_an_unknown_option_is_told_with_the_usage_of_its_command(
    words: list[str], usage: str, advice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)

    assert caught.value.code == 2
    told = capfd.readouterr().err
    assert told.startswith(usage)
    assert f"Did you mean '{advice}'" in told


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["trian"], "train"),
        (["job", "craete"], "create"),
        (["simulate", "--engine=inlin"], "inline"),
    ],
)
def test_a_word_that_is_no_choice_has_a_nearest(
    words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)

    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"Did you mean '{nearest}'?\n")
