"""``mmar train`` as a user meets it: output, exit codes, interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_admin.cli.main import main
from fl_admin.cli.parser import COMMANDS
from mmar_runtime.cli.train import told_how_to_go_on
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.errors import RunAborted
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, read_checkpoint

Edited = Callable[[Path, Callable[[Any], object]], Path]

pytestmark = pytest.mark.usefixtures("warm")

PYTHON = sys.executable
ENDLESS = "epochs=1000000"
PATIENCE = 60
"""Seconds after which a process is given up; on a free machine it takes three."""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that has imported nothing yet."""
    return subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def train_json(root: Path) -> Path:
    return root / "config/config_train.json"


def models(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models").glob("*model.pt"))


# --- What it prints ------------------------------------------------------------------------------


def test_a_training_says_what_it_did_and_where_the_models_are(
    tiny_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", str(tiny_mmar), "--set", "epochs=1"]) == 0
    out, err = capfd.readouterr()
    assert re.fullmatch(
        r"trained 2 iterations in [\d.]+ s\n"
        r"best val_mean_dice: 0\.\d{4} in epoch 1\n"
        rf"checkpoints: {tiny_mmar}/models\n",
        out,
    )
    assert re.search(r"^epoch 1/1: loss 0\.\d{4}", err, re.MULTILINE)
    assert "validated after epoch 1: val_mean_dice" in err
    assert models(tiny_mmar) == ["final_model.pt", "model.pt"]


def test_a_training_that_is_never_validated_says_what_is_missing(
    tiny_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    best = tiny_mmar / "models/model.pt"
    best.write_bytes(b"of an earlier training")

    line = ["train", "-m", str(tiny_mmar), "--set", "epochs=1", "num_interval_per_valid=3"]
    assert main(line) == 0
    said = (
        "never validated, as the ValidationHandler's interval, 3, is longer than the training: "
        "no best model",
        "model.pt was not written; final_model.pt is the last model",
        f"{best} is of an earlier training",
    )
    assert "\n".join(said) in capfd.readouterr().out
    assert main([*line, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["missing"] == list(said)


@pytest.mark.parametrize("scope", ["train", "validate"])
def test_a_training_without_a_batch_is_no_success(
    tiny_mmar: Path, edited: Edited, capfd: pytest.CaptureFixture[str], scope: str
) -> None:
    loader = {"batch_size": 5, "drop_last": True}
    edited(train_json(tiny_mmar), lambda conf: conf[scope]["dataloader"]["args"].update(loader))

    assert main(["train", "-m", str(tiny_mmar), "--set", "epochs=1"]) == 2
    assert f"mmar: config_train.json: {scope}.dataloader: gives no batch" in capfd.readouterr().err
    assert models(tiny_mmar) == []


def test_each_old_construct_is_announced_once(
    tiny_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["train", "-m", str(tiny_mmar), "--set", "epochs=1"])
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    for text in (
        "LoadImaged runs",
        "the best model as model.pt",
        "the last model as final_model.pt",
    ):
        assert len([note for note in notes if text in note]) == 1
    assert len(notes) == 3


def test_json_is_one_document_on_stdout(tiny_mmar: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", str(tiny_mmar), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["iterations"] == 4
    assert [report["epoch"] for report in result["epochs"]] == [1, 2]
    assert result["key_metric"] == "val_mean_dice"


def test_training_twice_in_a_row_works_and_gives_the_same_result(
    tiny_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = []
    for _ in range(2):
        assert main(["train", "-m", str(tiny_mmar), "--json"]) == 0
        result = json.loads(capfd.readouterr().out)
        found.append((result["epochs"], result["best_metric"]))
    assert found[0] == found[1]


# --- What it refuses -----------------------------------------------------------------------------


def misspell_the_network(conf: Any) -> None:
    conf["train"]["model"]["name"] = "UNte"


def misspell_an_argument(conf: Any) -> None:
    conf["train"]["model"]["args"]["chanels"] = [4]


def use_an_unknown_variable(conf: Any) -> None:
    conf["train"]["optimizer"]["args"]["lr"] = "{learning_rat}"


def ask_for_too_large_a_crop(conf: Any) -> None:
    conf["train"]["pre_transforms"][3]["args"]["spatial_size"] = [32, 8, 8]


def give_a_network_no_room(conf: Any) -> None:
    conf["train"]["model"]["args"]["strides"] = []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            misspell_the_network,
            r"train\.model\.name: unknown network 'UNte'\n *Did you mean 'UNet'",
        ),
        (misspell_an_argument, r"train\.model\.args\.chanels: UNet: unknown argument 'chanels'"),
        (use_an_unknown_variable, r"train\.optimizer\.args\.lr: .*\{learning_rat\}.* not defined"),
        (ask_for_too_large_a_crop, r"train\.pre_transforms\[3\]\.args\.spatial_size: .*32 x 8 x 8"),
        (give_a_network_no_room, r"train\.model: UNet could not be built: ValueError"),
    ],
)
def test_a_fault_is_told_with_its_place_and_without_traceback(
    tiny_mmar: Path,
    edited: Edited,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[Any], None],
    told: str,
) -> None:
    edited(train_json(tiny_mmar), change)
    assert main(["train", "-m", str(tiny_mmar)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(told, err)
    assert "Traceback" not in err
    assert models(tiny_mmar) == []


def test_faults_of_several_places_are_told_together(
    tiny_mmar: Path, edited: Edited, capfd: pytest.CaptureFixture[str]
) -> None:
    edited(train_json(tiny_mmar), misspell_the_network)
    edited(train_json(tiny_mmar), use_an_unknown_variable)
    (tiny_mmar / "data/case_1_image.nii.gz").unlink()
    assert main(["train", "-m", str(tiny_mmar), "--json"]) == 2
    problems = json.loads(capfd.readouterr().out)["problems"]
    assert {problem["rule"] for problem in problems} == {
        "unknown-component",
        "unknown-variable",
        "missing-image",
    }


def test_debug_shows_the_traceback(tiny_mmar: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", str(tiny_mmar / "nowhere"), "--debug"]) == 2
    err = capfd.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "does not exist" in err


@pytest.mark.parametrize(
    "arguments", [[], ["train"], ["tran", "-m", "x"], ["train", "-m", "x", "-y"]]
)
def test_a_wrong_command_line_exits_with_2(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: mmar" in capfd.readouterr().err


# --- What it imports -----------------------------------------------------------------------------

HEAVY = '[name for name in ("torch", "monai", "ignite", "nvflare") if name in sys.modules]'


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    code = (
        "import sys; from fl_admin.cli.main import main\n"
        f"try: main({arguments})\n"
        f"except SystemExit: print({HEAVY}, file=sys.stderr)"
    )
    finished = run(code)
    assert finished.stderr == "[]\n"
    assert finished.stdout.startswith("usage: mmar")


def test_a_config_with_a_fault_is_refused_before_anything_heavy_is_imported(
    tiny_mmar: Path, edited: Edited
) -> None:
    edited(train_json(tiny_mmar), misspell_the_network)
    code = (
        "import sys; from fl_admin.cli.main import main\n"
        f"print(main(['train', '-m', {str(tiny_mmar)!r}]), {HEAVY})"
    )
    assert run(code).stdout == "2 []\n"


# --- Interruptions -------------------------------------------------------------------------------


def test_a_stopped_training_says_whether_it_can_go_on(tiny_mmar: Path) -> None:
    config, point = load_train_config(Mmar.open(tiny_mmar)), tiny_mmar / "models/resume.pt"

    def advice(*, resumed: bool, epochs: bool) -> str:
        try:
            with told_how_to_go_on(config, resumed):
                if epochs:
                    point.touch()
                raise KeyboardInterrupt("stopped by SIGINT")
        except RunAborted as stopped:
            return str(stopped)

    nothing = "stopped by SIGINT\n    No epoch is complete, so there is nothing to resume."
    goes_on = (
        "stopped by SIGINT\n    To go on after its last epoch, add --resume. Its files are in "
        f"{tiny_mmar}/models."
    )
    assert advice(resumed=False, epochs=False) == nothing
    assert advice(resumed=False, epochs=True) == goes_on
    os.utime(point, (1, 1))  # an earlier training's
    assert advice(resumed=False, epochs=False) == nothing
    assert advice(resumed=True, epochs=False) == goes_on


@contextmanager
def training(root: Path, *values: str) -> Iterator[subprocess.Popen[str]]:
    """A training in a process, and a process group, of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_admin.cli.main", "train", "-m", str(root), "--set", *values],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the process's messages until one begins so."""
    assert process.stderr is not None
    read: list[str] = []
    for line in process.stderr:
        read.append(line)
        if line.startswith(text):
            return
    raise AssertionError("".join(read))


def end_of(process: subprocess.Popen[str]) -> tuple[int, float, str]:
    """Exit code, seconds until it came, and the last messages."""
    started = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, time.monotonic() - started, err


def assert_only_complete_files(root: Path) -> None:
    assert list(root.rglob("*.tmp")) == []
    for path in (root / "models").glob("*.pt"):
        torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_between_iterations(
    tiny_mmar: Path, number: signal.Signals
) -> None:
    with training(tiny_mmar, ENDLESS) as process:
        wait_for(process, "epoch 2/")
        process.send_signal(number)
        code, seconds, err = end_of(process)
    assert code == 130
    assert seconds < 5
    assert "mmar: the training was stopped before it was complete" in err
    assert "Traceback" not in err
    assert_only_complete_files(tiny_mmar)
    assert models(tiny_mmar) == ["model.pt"]  # the best so far; a final one there is not


@pytest.mark.slow
def test_ctrl_c_reaches_data_workers_too_and_ends_all(tiny_mmar: Path, edited: Edited) -> None:
    def change(conf: Any) -> None:
        conf["train"]["dataloader"]["args"]["num_workers"] = 2

    edited(train_json(tiny_mmar), change)
    with training(tiny_mmar, ENDLESS) as process:
        wait_for(process, "epoch 2/")
        os.killpg(process.pid, signal.SIGINT)
        code, seconds, err = end_of(process)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert code == 130
    assert seconds < 10
    assert err.count("stopping after this iteration") == 1
    assert "Traceback" not in err
    assert_only_complete_files(tiny_mmar)


@pytest.mark.slow
def test_a_training_that_was_ended_goes_on_with_resume(
    tiny_mmar: Path, make_mmar: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    epochs = "epochs=25"
    other = make_mmar(tiny_mmar.with_name("uninterrupted"))
    assert main(["train", "-m", str(other), "--set", epochs]) == 0

    with training(tiny_mmar, epochs) as process:
        wait_for(process, "epoch 2/")
        process.send_signal(signal.SIGTERM)
        code, _, _ = end_of(process)
    assert code == 130
    assert models(tiny_mmar) == ["model.pt"]
    capfd.readouterr()
    assert main(["train", "-m", str(tiny_mmar), "--resume", "--json", "--set", epochs]) == 0

    done = [report["epoch"] for report in json.loads(capfd.readouterr().out)["epochs"]]
    assert done[0] > 1
    assert done[-1] == 25
    for name in ("model.pt", "final_model.pt"):
        found, expected = (
            digest(read_checkpoint(root / "models" / name).weights) for root in (tiny_mmar, other)
        )
        assert found == expected


OWN_NETWORK = """
import time
import torch

class Slow(torch.nn.Conv3d):
    def __init__(self):
        super().__init__(1, 2, 1)

    def forward(self, image):
        if self.training:  # and not when the validation is tried, before the first iteration
            print("in the first iteration", flush=True)  # on stderr, as all prints
            time.sleep(600)
        return super().forward(image)
"""


@pytest.mark.slow
def test_a_second_signal_ends_a_training_within_an_iteration(
    tiny_mmar: Path, edited: Edited
) -> None:
    (tiny_mmar / "custom").mkdir()
    (tiny_mmar / "custom/slow_network.py").write_text(OWN_NETWORK)
    edited(
        train_json(tiny_mmar),
        lambda conf: conf["train"].update(model={"path": "slow_network.Slow"}),
    )
    with training(tiny_mmar) as process:
        wait_for(process, "in the first iteration")
        process.send_signal(signal.SIGINT)
        wait_for(process, "stopping after this iteration")
        process.send_signal(signal.SIGINT)
        code, seconds, err = end_of(process)
    assert code == 130
    assert seconds < 5
    assert "mmar: stopped by SIGINT" in err
    assert "Traceback" not in err
    assert list((tiny_mmar / "models").iterdir()) == []


@pytest.mark.slow
def test_a_signal_before_the_training_has_begun_ends_it_at_once(tiny_mmar: Path) -> None:
    with training(tiny_mmar, ENDLESS) as process:
        wait_for(process, "note: ")
        process.send_signal(signal.SIGINT)
        code, seconds, err = end_of(process)
    assert code == 130
    assert seconds < 20  # it is endless; a busy machine takes its time to import
    # Python's own word for it, where it comes before the command listens to signals.
    assert re.search("mmar: (stopped by SIGINT|interrupted)", err)
    assert "Traceback" not in err
    assert models(tiny_mmar) == []
