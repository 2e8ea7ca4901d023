"""The events and the engine's state that a handler of an MMAR finds, recorded in order.

The recorder is the MMAR's own code; it keeps what it sees on its class, where the test reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.errors import ComponentError
from mmar_runtime.mmar import Mmar
from mmar_runtime.results import TrainResult
from mmar_runtime.workflows.training import train

Bring = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]

RECORDER = """
from ignite.engine import Events
from monai.engines import IterationEvents

class Recorder:
    events = []
    states = {}

    def __init__(self, name, at=None, do=None):
        self.name, self.at, self.do = name, at, do

    def attach(self, engine):
        for event in (*Events, *IterationEvents):
            engine.add_event_handler(event, self.seen, event)

    def seen(self, engine, *rest, **_):
        event = rest[-1]
        if event.name == "EXCEPTION_RAISED":
            error = rest[0]
            self.events.append((self.name, f"{event.name}: {error}"))
            raise error
        self.events.append((self.name, event.name))
        self.states[self.name, event.name] = {
            **vars(engine.state),
            "engine": engine,
            "should_terminate": engine.should_terminate,
            "should_terminate_single_epoch": engine.should_terminate_single_epoch,
        }
        if event.name == self.at and engine.state.iteration == 1:
            getattr(self, self.do)(engine)

    def terminate(self, engine):
        engine.terminate()

    def terminate_epoch(self, engine):
        engine.terminate_epoch()

    def fail(self, engine):
        raise ValueError("on purpose")
"""

ITERATION = (
    "GET_BATCH_STARTED",
    "GET_BATCH_COMPLETED",
    "ITERATION_STARTED",
    "FORWARD_COMPLETED",
    "LOSS_COMPLETED",
    "BACKWARD_COMPLETED",
    "MODEL_COMPLETED",
    "ITERATION_COMPLETED",
)
EVALUATION = ("FORWARD_COMPLETED", "MODEL_COMPLETED", "ITERATION_COMPLETED")


class Recorded:
    """What the recorders of one run have seen."""

    def __init__(self, result: TrainResult | None, recorder: Any) -> None:
        self.result = result
        self._recorder = recorder

    def events(self, name: str = "train") -> list[str]:
        return [event for who, event in self._recorder.events if who == name]

    def state(self, event: str, name: str = "train") -> dict[str, Any]:
        found: dict[str, Any] = self._recorder.states[name, event]
        return found


@pytest.fixture
def recorded(bring: Bring, edited: Edited, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``recorded(at=, do=, change=, fails=)``: train with a recorder on both engines."""
    module = f"recorder_{abs(hash(request.node.name))}"
    root = bring(f"{module}.py", RECORDER)

    def run(
        *, change: Callable[[Any], object] = lambda conf: None, fails: str = "", **args: str
    ) -> Recorded:
        def both(conf: Any) -> None:
            path = f"{module}.Recorder"
            recorder = {"path": path, "args": {"name": "train", **args}}
            conf["train"]["handlers"].append(recorder)
            conf["validate"]["handlers"].append({"path": path, "args": {"name": "validate"}})
            change(conf)

        edited(root / "config/config_train.json", both)
        config = load_train_config(Mmar.open(root), overrides={"epochs": 2})
        if not fails:
            return Recorded(train(config, allow_code=True), sys.modules[module].Recorder)
        with pytest.raises(ComponentError, match=fails):
            train(config, allow_code=True)
        return Recorded(None, sys.modules[module].Recorder)

    return run


# --- Events --------------------------------------------------------------------------------------


def test_the_events_of_a_training(recorded: Callable[..., Recorded]) -> None:
    """Two epochs of two iterations; a second epoch finds the data loader at its end first."""
    seen = recorded().events()
    epoch = ["EPOCH_STARTED", *ITERATION, *ITERATION, "EPOCH_COMPLETED"]
    assert seen[: 1 + len(epoch)] == ["STARTED", *epoch]
    again = seen[1 + len(epoch) :]
    assert again[:3] == ["EPOCH_STARTED", "GET_BATCH_STARTED", "DATALOADER_STOP_ITERATION"]
    del again[2]
    assert again == [*epoch, "COMPLETED"]


def test_the_events_of_a_validation(recorded: Callable[..., Recorded]) -> None:
    seen = recorded().events("validate")
    one = [
        "STARTED",
        "EPOCH_STARTED",
        "GET_BATCH_STARTED",
        "GET_BATCH_COMPLETED",
        "ITERATION_STARTED",
        *EVALUATION,
        "EPOCH_COMPLETED",
        "COMPLETED",
    ]
    assert [event for event in seen if event != "DATALOADER_STOP_ITERATION"] == one + one


def test_validation_runs_within_the_epochs_end(recorded: Callable[..., Recorded]) -> None:
    """ValidationHandler comes before the recorder in the list, so it has run before it."""
    recorder = recorded()._recorder
    order = [who for who, event in recorder.events if event == "EPOCH_COMPLETED"]
    assert order == ["validate", "train", "validate", "train"]


def test_an_exception_is_announced_and_goes_on(recorded: Callable[..., Recorded]) -> None:
    def without_others(conf: Any) -> None:
        """StatsHandler and CheckpointSaver listen too, and raise it before the recorder's turn."""
        conf["train"]["handlers"] = conf["train"]["handlers"][-1:]

    seen = recorded(
        at="LOSS_COMPLETED", do="fail", change=without_others, fails="ValueError: on purpose"
    ).events()
    after = seen[seen.index("LOSS_COMPLETED") + 1 :]
    # ignite announces it for the epoch, and again for the run.
    assert after == ["EXCEPTION_RAISED: on purpose"] * 2


def test_terminate_ends_the_run_after_this_iteration(recorded: Callable[..., Recorded]) -> None:
    found = recorded(at="FORWARD_COMPLETED", do="terminate")
    seen = found.events()
    assert found.result is not None
    assert found.result.iterations == 1
    assert seen.count("ITERATION_COMPLETED") == 1
    assert seen[-3:] == ["ITERATION_COMPLETED", "TERMINATE", "COMPLETED"]
    assert found.state("LOSS_COMPLETED")["should_terminate"]
    assert not found.state("ITERATION_STARTED")["should_terminate"]


def test_terminate_epoch_goes_on_with_the_next_epoch(recorded: Callable[..., Recorded]) -> None:
    found = recorded(at="FORWARD_COMPLETED", do="terminate_epoch")
    seen = found.events()
    end = seen.index("TERMINATE_SINGLE_EPOCH")
    assert seen[end - 1 : end + 3] == [
        "ITERATION_COMPLETED",
        "TERMINATE_SINGLE_EPOCH",
        "EPOCH_COMPLETED",
        "EPOCH_STARTED",
    ]
    assert seen.count("ITERATION_COMPLETED") == 1 + 2
    assert seen[-1] == "COMPLETED"


# --- State ---------------------------------------------------------------------------------------


def test_the_engine_and_its_state(recorded: Callable[..., Recorded]) -> None:
    found = recorded()
    state = found.state("COMPLETED")
    assert (state["rank"], state["device"]) == (0, torch.device("cpu"))
    assert (state["iteration"], state["epoch"]) == (4, 2)
    assert (state["max_epochs"], state["epoch_length"]) == (2, 2)
    assert len(state["dataloader"]) == 2
    engine = state["engine"]
    assert isinstance(engine.network, torch.nn.Module)
    assert isinstance(engine.optimizer, torch.optim.Adam)
    assert type(engine.loss_function).__name__ == "DiceLoss"
    assert type(engine.inferer).__name__ == "SimpleInferer"
    assert callable(engine.prepare_batch)
    assert engine.amp is False
    assert engine.non_blocking is False
    assert (engine.should_terminate, engine.should_terminate_single_epoch) == (False, False)


def test_batch_and_output_before_and_after_decollation(recorded: Callable[..., Recorded]) -> None:
    found = recorded()
    assert found.state("ITERATION_STARTED")["batch"]["image"].shape == (1, 1, 8, 8, 8)
    # This state was taken when there was no loss yet, but it is the same dictionary.
    assert {"image", "label", "pred"} <= set(found.state("FORWARD_COMPLETED")["output"])
    assert found.state("LOSS_COMPLETED")["output"]["pred"].shape == (1, 2, 8, 8, 8)
    (case,) = found.state("ITERATION_COMPLETED")["output"]
    assert sorted(case) == ["image", "label", "loss", "pred"]
    assert case["pred"].shape == (2, 8, 8, 8)
    assert isinstance(case["loss"], float)
    (item,) = found.state("ITERATION_COMPLETED")["batch"]
    assert item["image"].shape == (1, 8, 8, 8)


def test_the_metrics_of_a_validation(recorded: Callable[..., Recorded]) -> None:
    def with_details(conf: Any) -> None:
        conf["validate"]["key_metric"]["args"]["save_details"] = True

    found = recorded(change=with_details)
    state = found.state("COMPLETED", "validate")
    assert state["key_metric_name"] == "val_mean_dice"
    assert set(state["metrics"]) == {"val_mean_dice", "val_acc"}
    assert state["metric_details"]["val_mean_dice"].shape == (1, 1)  # one case, one foreground
    assert state["best_metric_epoch"] in (1, 2)
    assert 0 <= state["best_metric"] <= 1
    assert found.result is not None
    assert found.result.best_metric == pytest.approx(float(state["best_metric"]))


def test_before_the_first_value_there_is_no_best_one(recorded: Callable[..., Recorded]) -> None:
    state = recorded().state("COMPLETED", "train")
    assert (state["key_metric_name"], state["best_metric_epoch"]) == (None, -1)
    assert state["best_metric"] == -1
