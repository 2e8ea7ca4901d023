"""Words at the command line, and what lies where they lead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.mistakes.planting import TRAIN, VALIDATION, Mistake, Run, Workspace, assert_quiet


def _folder_is_a_file(workspace: Workspace) -> list[str]:
    (workspace.masks / "models").rmdir()
    (workspace.masks / "models").write_text("")
    return workspace.train()


def _elsewhere(workspace: Workspace) -> list[str]:
    return workspace.train("MMAR_CKPT_DIR=out")


def _data_of_one(workspace: Workspace) -> list[str]:
    return workspace.simulate("--data", str(workspace.masks / "data"))


def _three_sites(workspace: Workspace) -> list[str]:
    return [*workspace.simulate("--data", workspace.sites()), "--sites", "3"]


MISTAKES = (
    Mistake(
        name="command misspelled",
        plant=lambda workspace: ["trian", "-m", str(workspace.masks)],
        place="argument command",
        remedy="Did you mean 'train'?",
    ),
    Mistake(
        name="configuration in place of the MMAR",
        plant=lambda workspace: ["train", "-m", str(workspace.masks / "config" / TRAIN)],
        place=f"config/{TRAIN}' is a file",
        remedy="Point -m/--mmar at the folder above 'config'",
    ),
    Mistake(
        name="variable misspelled",
        plant=lambda workspace: workspace.train("epochz=1"),
        place="--set: epochz",
        remedy="Did you mean 'epochs'?",
    ),
    Mistake(
        name="path into the document",
        plant=lambda workspace: workspace.train("train.model.args.out_channels=3"),
        place="--set: 'train.model.args.out_channels=3'",
        remedy="Write NAME=VALUE",
    ),
    Mistake(
        name="truth value that is none",
        plant=lambda workspace: workspace.train("dont_load_ckpt_model=maybe"),
        place="config_train.json: train.handlers[0].disabled",
        remedy="has to be true or false",
    ),
    Mistake(
        name="data list in place of its folder",
        plant=lambda workspace: [
            *("train", "-m", str(workspace.masks)),
            *("--data", str(workspace.masks / "data/dataset.json")),
        ],
        place="--data",
        remedy="'mmar data list' makes one",
    ),
    Mistake(
        name="folder of weights that is a file",
        plant=_folder_is_a_file,
        place="masks/models",
        remedy="name another place",
    ),
    Mistake(
        name="folder of weights in the system's own",
        plant=lambda workspace: workspace.train("MMAR_CKPT_DIR=/proc/models"),
        place="'/proc/models'",
        remedy="name another place",
    ),
    Mistake(
        name="relative folder of weights from elsewhere",
        plant=_elsewhere,
        place="--set MMAR_CKPT_DIR: 'out'",
        remedy="./out is one of the working directory",
        code=0,
    ),
    Mistake(
        name="sites without data",
        plant=lambda workspace: workspace.simulate(),
        place="--data",
        remedy="Name a folder with site-1/dataset.json",
    ),
    Mistake(
        name="data of one site for two",
        plant=_data_of_one,
        place="--data: there is no dataset.json for site-1, site-2",
        remedy="--data names a folder with site-1/dataset.json",
    ),
    Mistake(
        name="more sites than folders",
        plant=_three_sites,
        place="there is no dataset.json for site-3",
        remedy="--data names a folder with site-1/dataset.json",
    ),
    Mistake(
        name="federation of no site",
        plant=lambda workspace: [*workspace.simulate(), "--sites", "0"],
        place="job: min_sites",
        remedy="has to be a whole number from 1",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    models = workspace.root / "out"
    assert_quiet(run(*workspace.train(f"MMAR_CKPT_DIR={models}")), MISTAKES)
    assert (models / "model.pt").is_file()


def test_results_that_a_document_sends_to_the_working_directory(
    workspace: Workspace, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = {"name": "SaveImaged", "args": {"keys": "pred", "output_dir": "results"}}
    run(*workspace.train())
    workspace.edit(lambda conf: conf["post_transforms"].append(saver), f"masks/config/{VALIDATION}")
    monkeypatch.chdir(tmp_path)

    ended = run(*workspace.evaluate())

    assert ended.code == 0, ended.text
    assert f"results go to '{tmp_path}/results', outside of the MMAR" in ended.text


def _mmar(*words: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]  # of Popen
    )


def test_a_command_that_is_stopped_at_once_ends_in_a_line(workspace: Workspace) -> None:
    running = _mmar("train", "-m", workspace.masks)
    while b"\0fl_admin.cli.main" not in Path(f"/proc/{running.pid}/cmdline").read_bytes():
        time.sleep(0.005)
    process = psutil.Process(running.pid)
    while (
        sum(process.cpu_times()[:2]) < 0.08
    ):  # the interpreter has begun, and imports the commands
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)

    _, errors = running.communicate(timeout=30)

    # Where the signal meets an exec() of a text, Python ends by the signal: 130 to a shell.
    assert running.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    assert errors.startswith("mmar: ")


def test_a_terminal_of_ascii_and_a_closed_pipe_are_no_failure(workspace: Workspace) -> None:
    workspace.masks.rename(workspace.root / "Lunge-größe")
    reading, writing = os.pipe()
    os.close(reading)
    checking = _mmar(
        *("check", workspace.root / "Lunge-größe"), env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    said, errors = checking.communicate(timeout=60)
    assert (checking.returncode, errors) == (0, "")
    assert "gr\\xf6\\xdfe: accepted" in said

    unread = subprocess.run(
        [sys.executable, "-m", "fl_admin.cli.main", "train", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert b"Traceback" not in unread.stderr
