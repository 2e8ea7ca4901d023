"""What the trackers have stored when a training is over, read back as their own tools would.

ClearML and MLflow change the process that they run in (signals, ``torch.save``, standard output),
and MLflow behaves differently where it sees pytest. So each training with them is a process of its
own, in which any attempt to reach another machine is refused and written down.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import TensorBoardStatsHandler

from mmar_runtime.components.handlers import trackers
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.components.handlers.trackers import (
    ClearMLTaskHandler,
    close_at_end,
    log_checkpoints,
)
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.errors import ComponentError, RunAborted
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.weights import digest, read_checkpoint
from mmar_runtime.workflows.training import train

Edited = Callable[[Path, Callable[[Any], object]], Path]

PATIENCE = 120
"""Seconds after which a process is given up; a training with a tracker takes about ten."""

LOSS = "#monai.handlers.from_engine(['loss'], first=True)"

WATCH = """
import os, socket

def refuse(attempt, host):
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(f"{attempt} {host!r}\\n")
        raise OSError(f"this test has no network: {host!r}")

def guard(name):
    original = getattr(socket.socket, name)
    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            refuse(name, address[0])
        return original(self, address)
    setattr(socket.socket, name, guarded)

guard("connect")
guard("connect_ex")
resolve = socket.getaddrinfo

def getaddrinfo(host, *others, **more):
    refuse("getaddrinfo", host)
    return resolve(host, *others, **more)

socket.getaddrinfo = getaddrinfo
"""
"""What a Python process runs before anything else; those that it starts, as ``sitecustomize``."""

MMAR = "import runpy; runpy.run_module('fl_admin.cli.main', run_name='__main__')"


@dataclass(frozen=True)
class Machine:
    """A home and a network of its own for a process.

    Attributes:
        folder: where it all lies.
        python: runs the processes.
    """

    folder: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing that says that this is a test: MLflow sends nothing home where it sees one."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder),
            "CLEARML_CACHE_DIR": str(self.folder / "clearml"),
            "CLEARML_OFFLINE_MODE": "1",
            "NETWORK_LOG": str(self.folder / "network.log"),
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A process that runs code; standard error goes where standard output goes."""
        return subprocess.Popen(
            [self.python, "-c", WATCH + code, *arguments],
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def train(self, root: Path, **variables: str) -> tuple[int, str]:
        """``mmar train``: its exit code and all that it said."""
        return said_by(self.start(MMAR, "train", "-m", str(root), **variables))

    @property
    def attempts(self) -> list[str]:
        """What tried to reach another machine, and which."""
        log = self.folder / "network.log"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def said_by(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a process and what it has said; one that hangs is killed."""
    with process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, said


@pytest.fixture
def machine(tmp_path: Path, warm_python: Path) -> Machine:
    folder = tmp_path / "machine"
    (folder / "home").mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    return Machine(folder, warm_python)


def add_handlers(root: Path, edited: Edited, section: str, *handlers: dict[str, Any]) -> None:
    edited(
        root / "config/config_train.json",
        lambda document: document[section]["handlers"].extend(handlers),
    )


def handler(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "rank": 0, "args": args}


# --- TensorBoard ----------------------------------------------------------------------------------


def test_event_files_hold_the_loss_of_each_iteration_and_the_metrics_of_each_epoch(
    tiny_mmar: Path, edited: Edited
) -> None:
    events = {"log_dir": "{MMAR_CKPT_DIR}/events"}
    loss = handler(
        "TensorBoardStatsHandler", **events, tag_name="train_loss", output_transform=LOSS
    )
    metrics = handler("TensorBoardStatsHandler", **events, output_transform="lambda x: None")
    add_handlers(tiny_mmar, edited, "train", loss)
    add_handlers(tiny_mmar, edited, "validate", metrics)
    config = load_train_config(Mmar.open(tiny_mmar), checks=[component_check(allow_code=False)])

    result = train(config, allow_code=False)

    found = scalars_of(tiny_mmar / "models/events")
    assert [step for step, _ in found["train_loss"]] == [1, 2, 3, 4]
    last_epoch = [value for step, value in found["train_loss"] if step > 2]
    assert sum(last_epoch) / 2 == pytest.approx(result.epochs[-1].loss)
    assert [step for step, _ in found["val_mean_dice"]] == [1, 2]
    assert max(value for _, value in found["val_mean_dice"]) == pytest.approx(result.best_metric)
    assert found.keys() == {"train_loss", "val_mean_dice", "val_acc"}


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for file in folder.glob("events.out.tfevents.*"):  # each handler writes a file of its own
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            found[tag] = [(one.step, one.value) for one in events.Scalars(tag)]
    return found


def test_a_writer_is_closed_with_the_run(tmp_path: Path) -> None:
    with ExitStack() as at_end:
        stats = TensorBoardStatsHandler(log_dir=str(tmp_path))
        close_at_end(stats, at_end)
        stats._writer.add_scalar("loss", 0.5, 1)
    assert scalars_of(tmp_path) == {"loss": [(1, 0.5)]}


def test_what_is_no_tracker_is_left_alone() -> None:
    with ExitStack() as at_end:
        close_at_end(object(), at_end)


def test_a_tracker_that_cannot_be_closed_does_not_cost_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: object) -> None:
        raise OSError("no space left on device")

    stats = TensorBoardStatsHandler(log_dir=str(tmp_path))
    stats.close()
    monkeypatch.setattr(TensorBoardStatsHandler, "close", full)
    with ExitStack() as at_end:
        close_at_end(stats, at_end)
    assert caplog.messages == [
        "TensorBoardStatsHandler could not be closed: OSError: no space left on device"
    ]


# --- ClearML --------------------------------------------------------------------------------------


@pytest.fixture
def clearml_mmar(tiny_mmar: Path, edited: Edited) -> Path:
    pytest.importorskip("clearml", reason="needs the extra 'clearml'")
    task = {"project_name": "spleen", "task_name": "tiny", "log_dir": "{MMAR_CKPT_DIR}/events"}
    loss = handler("ClearMLStatsHandler", **task, tag_name="train_loss", output_transform=LOSS)
    metrics = handler("ClearMLStatsHandler", **task, output_transform="lambda x: None")
    images = handler(
        "ClearMLImageHandler",
        **task,
        batch_transform="#monai.handlers.from_engine(['image', 'label'])",
        output_transform="#monai.handlers.from_engine(['pred'])",
    )
    add_handlers(tiny_mmar, edited, "train", loss)
    add_handlers(tiny_mmar, edited, "validate", metrics, images)
    return tiny_mmar


class Session:
    """An offline session of ClearML, as the zip that ``Task.import_offline_session`` takes."""

    def __init__(self, machine: Machine) -> None:
        (self.path,) = (machine.folder / "clearml/offline").glob("*.zip")
        with zipfile.ZipFile(self.path) as archive:
            self.files = set(archive.namelist())
            self.task = json.loads(archive.read("task.json"))
            lines = archive.read("metrics.jsonl").decode().splitlines()
        self.events = [event for line in lines for event in json.loads(line)]

    def scalars(self, metric: str) -> list[int]:
        """The iterations at which a metric was reported."""
        scalars = [one for one in self.events if one["type"] == "training_stats_scalar"]
        return [one["iter"] for one in scalars if one["metric"] == metric]


@pytest.mark.slow
def test_a_clearml_session_holds_scalars_images_and_models(
    clearml_mmar: Path, machine: Machine
) -> None:
    code, said = machine.train(clearml_mmar)

    assert code == 0, said
    session = Session(machine)
    assert (session.task["project_name"], session.task["name"]) == ("spleen", "tiny")
    assert session.scalars("train_loss") == [1, 2, 3, 4]
    assert session.scalars("val_mean_dice") == [1, 2]
    images = [one for one in session.events if one["type"] == "training_debug_image"]
    assert len(images) == 2 * len(("image", "label", "prediction"))
    assert all(f"data/{one['key']}" in session.files for one in images)
    names = [one["init"]["name"] for one in session.task["offline_output_models"]]
    assert sorted(names) == ["tiny - final_model", "tiny - model"]
    for name in ("model.pt", "final_model.pt"):
        written = (clearml_mmar / "models" / name).read_bytes()
        assert zipfile.ZipFile(session.path).read(f"models/{name}") == written
    assert machine.attempts == []


@pytest.mark.slow
def test_a_training_gives_the_same_weights_with_clearml_as_without(
    clearml_mmar: Path, machine: Machine, make_mmar: Callable[..., Path], edited: Edited
) -> None:
    plain = make_mmar(clearml_mmar.parent / "plain")
    for root in (plain, clearml_mmar):
        # Sums over several threads may differ in the last bits between two processes.
        edited(root / "config/environment.json", lambda document: document.update(NUM_THREADS=1))
    train(load_train_config(Mmar.open(plain)), allow_code=False)

    code, said = machine.train(clearml_mmar)

    assert code == 0, said
    digests = {
        digest(read_checkpoint(root / "models/final_model.pt").weights)
        for root in (plain, clearml_mmar)
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_sigterm_still_stops_a_training_between_iterations(
    clearml_mmar: Path, machine: Machine
) -> None:
    endless = ("train", "-m", str(clearml_mmar), "--set", "epochs=1000000")
    process = machine.start(MMAR, *endless)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGTERM)
    code, said = said_by(process)

    assert code == RunAborted.exit_code
    assert "mmar: the training was stopped before it was complete\n" in said
    assert Session(machine).scalars("train_loss")[:4] == [1, 2, 3, 4]


@pytest.mark.slow
def test_without_a_server_or_offline_mode_it_says_what_to_set(
    clearml_mmar: Path, machine: Machine
) -> None:
    code, said = machine.train(clearml_mmar, CLEARML_OFFLINE_MODE="0")

    assert code == ComponentError.exit_code
    assert "config_train.json: validate.handlers[2]: ClearMLStatsHandler could not be built" in said
    assert "CLEARML_OFFLINE_MODE=1" in said
    assert "Traceback" not in said
    assert machine.attempts == []


class Task:
    """As much of a ClearML task as logging a checkpoint asks for."""

    name = "tiny"

    def __init__(self, *, offline: bool, output_uri: str | None) -> None:
        self.output_uri = output_uri
        self._offline = offline

    def is_offline(self) -> bool:
        return self._offline


class Model:
    """Stands in for an output model; remembers what it was told, with the content of the file."""

    def __init__(self) -> None:
        self.updates: list[tuple[Any, ...]] = []

    def update_weights(self, file: str | None = None, **arguments: Any) -> None:
        content = None if file is None else Path(file).read_bytes()
        self.updates.append((content, arguments))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    found = Model()
    monkeypatch.setattr(trackers, "_output_model", lambda task, path: found)
    return found


def clearml_handler(task: Task, *patterns: str) -> ClearMLTaskHandler:
    """A handler that has joined a task; its constructor would want ClearML itself."""
    made = ClearMLTaskHandler.__new__(ClearMLTaskHandler)
    vars(made).update(
        clearml_task=task, _opened=False, _patterns=patterns or ("*",), _models={}, _unlogged={}
    )
    vars(made)["close"] = lambda: None
    return made


def test_a_server_gets_a_copy_of_each_checkpoint_when_it_is_written(
    tmp_path: Path, model: Model
) -> None:
    made = clearml_handler(Task(offline=False, output_uri="https://files"))
    for content in (b"first", b"second"):
        (tmp_path / "model.pt").write_bytes(content)
        made.checkpoint_written(tmp_path / "model.pt")
    arguments = {"target_filename": "model.pt", "auto_delete_file": True}
    assert model.updates == [(b"first", arguments), (b"second", arguments)]


def test_without_a_place_for_models_the_servers_entry_names_the_file(
    tmp_path: Path, model: Model
) -> None:
    made = clearml_handler(Task(offline=False, output_uri=None))
    (tmp_path / "model.pt").touch()
    made.checkpoint_written(tmp_path / "model.pt")
    assert model.updates == [(None, {"register_uri": str(tmp_path / "model.pt")})]


def test_offline_only_the_last_checkpoint_of_a_name_is_kept(tmp_path: Path, model: Model) -> None:
    made = clearml_handler(Task(offline=True, output_uri=None))
    for content in (b"first", b"second"):
        (tmp_path / "model.pt").write_bytes(content)
        made.checkpoint_written(tmp_path / "model.pt")
    made.checkpoint_written(tmp_path / "since_removed.pt")
    assert model.updates == []
    made.finish(None)
    assert model.updates == [(b"second", {"auto_delete_file": False})]


def test_a_server_out_of_reach_does_not_end_the_training(
    tmp_path: Path,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(model, "update_weights", unreachable)
    made = clearml_handler(Task(offline=False, output_uri=None))
    (tmp_path / "model.pt").touch()
    made.checkpoint_written(tmp_path / "model.pt")
    assert caplog.messages == ["ClearML did not take model.pt: no route to host"]


@pytest.mark.parametrize(
    ("argument", "logged"),
    [
        (True, ["final_model.pt", "model.pt"]),
        (False, []),
        ({"pytorch": False}, []),
        ({"matplotlib": False}, ["final_model.pt", "model.pt"]),
        ({"pytorch": "final*"}, ["final_model.pt"]),
        ({"pytorch": ["*/model.pt"]}, ["model.pt"]),
    ],
)
def test_auto_connect_frameworks_decides_which_checkpoints_are_logged(
    tmp_path: Path, model: Model, argument: Any, logged: list[str]
) -> None:
    patterns = trackers._model_patterns(argument)
    made = clearml_handler(Task(offline=False, output_uri=None))
    made._patterns = patterns
    for name in ("final_model.pt", "model.pt"):
        (tmp_path / name).touch()
        made.checkpoint_written(tmp_path / name)
    assert [Path(told["register_uri"]).name for _, told in model.updates] == logged


def test_the_savers_of_a_run_tell_one_of_its_clearml_handlers(tmp_path: Path) -> None:
    first, second = (clearml_handler(Task(offline=True, output_uri=None)) for _ in range(2))
    saver = AtomicCheckpointSaver(str(tmp_path), {"model": torch.nn.Linear(1, 1)}, save_final=True)
    log_checkpoints(iter([saver, first, second]))
    engine = Engine(lambda engine, batch: None)
    saver.attach(engine)
    engine.run([1])
    assert [path.suffix for path in first._unlogged] == [".pt"]
    assert second._unlogged == {}


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, ["close"]),
        (RunAborted("stopped"), ["mark_stopped", "close"]),
        (ValueError("patient_17.nii.gz"), ["mark_failed ValueError", "close"]),
    ],
)
def test_a_task_that_the_run_opened_ends_as_the_run_did(
    error: BaseException | None, ending: list[str]
) -> None:
    ended: list[str] = []
    task = SimpleNamespace(
        mark_stopped=lambda: ended.append("mark_stopped"),
        mark_failed=lambda status_reason: ended.append(f"mark_failed {status_reason}"),
        close=lambda: ended.append("close"),
    )
    made = clearml_handler(task)  # type: ignore[arg-type]
    made.finish(error)
    assert ended == []  # somebody else's task
    made._opened = True
    made.finish(error)
    assert ended == ending


# --- MLflow ---------------------------------------------------------------------------------------


@pytest.fixture
def mlflow_mmar(tiny_mmar: Path, edited: Edited) -> Path:
    pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    store = {"tracking_uri": "sqlite:///{MMAR_CKPT_DIR}/runs.db", "experiment_name": "spleen"}
    loss = handler(
        "MLFlowHandler",
        **store,
        tag_name="train_loss",
        output_transform=LOSS,
        experiment_param={"learning_rate": "{learning_rate}"},
        artifacts="{MMAR_ROOT}/config",
    )
    metrics = handler("MLFlowHandler", **store, iteration_log=False)
    add_handlers(tiny_mmar, edited, "train", loss)
    add_handlers(tiny_mmar, edited, "validate", metrics)
    return tiny_mmar


class Store:
    """MLflow's store in a file, read without MLflow."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as store:
            self.runs = store.execute("select run_uuid, status from runs").fetchall()
            self.params = dict(store.execute("select key, value from params"))
            self.metrics = store.execute("select key, step, value from metrics").fetchall()

    def steps(self, key: str) -> list[int]:
        """The steps at which a metric was logged."""
        return sorted(step for name, step, _ in self.metrics if name == key)


@pytest.mark.slow
def test_an_mlflow_store_holds_metrics_and_parameters_in_one_finished_run(
    mlflow_mmar: Path, machine: Machine
) -> None:
    code, said = machine.train(mlflow_mmar)

    assert code == 0, said
    store = Store(mlflow_mmar / "models/runs.db")
    assert [status for _, status in store.runs] == ["FINISHED"]
    assert store.params == {"learning_rate": "0.01", "max_epochs": "2", "epoch_length": "2"}
    assert store.steps("train_loss") == [1, 2, 3, 4]
    assert store.steps("val_mean_dice") == store.steps("val_acc") == [1, 2]
    artifacts = (mlflow_mmar / "models/mlruns").rglob("config_train.json")
    assert [path.read_bytes() for path in artifacts] == [
        (mlflow_mmar / "config/config_train.json").read_bytes()
    ]
    assert machine.attempts == []


ENDINGS = """
import sys
from types import SimpleNamespace
from mmar_runtime.components.handlers.trackers import OwnRunMLFlowHandler
from mmar_runtime.errors import RunAborted

def started():
    handler = OwnRunMLFlowHandler(tracking_uri=f"sqlite:///{sys.argv[1]}")
    handler.start(SimpleNamespace(state=SimpleNamespace(max_epochs=1, epoch_length=1)))
    return handler

for error in (ValueError("x"), RunAborted("stopped"), None):
    first, second = started(), started()
    first.finish(error)
    second.finish(error)
"""


@pytest.mark.slow
def test_a_run_says_how_it_ended_and_the_next_one_is_another(
    tmp_path: Path, machine: Machine
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    code, said = said_by(machine.start(ENDINGS, str(tmp_path / "runs.db")))
    assert code == 0, said
    statuses = [status for _, status in Store(tmp_path / "runs.db").runs]
    assert sorted(statuses) == ["FAILED", "FINISHED", "KILLED"]


# --- The network that is watched ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        ("socket.create_connection(('192.0.2.1', 80))", ["getaddrinfo '192.0.2.1'"]),
        ("socket.socket().connect(('192.0.2.1', 80))", ["connect '192.0.2.1'"]),
        ("socket.socket().connect_ex(('192.0.2.1', 80))", ["connect_ex '192.0.2.1'"]),
    ],
)
def test_an_attempt_to_reach_another_machine_would_be_seen(
    machine: Machine, code: str, attempts: list[str]
) -> None:
    assert said_by(machine.start(code))[0] == 1
    assert machine.attempts == attempts


def test_what_runs_on_this_machine_can_be_reached(machine: Machine) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        code = f"socket.create_connection(('127.0.0.1', {port})).close()"
        assert said_by(machine.start(code)) == (0, "")
    assert machine.attempts == []
