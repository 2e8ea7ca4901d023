"""Sites are told of their tasks, and models travel as tensors; the communicator is NVFlare's own.

When a task is over is tried in ``test_controller``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task
from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace

from fl_client.flare import wake as site_wake
from fl_server.flare import wake
from fl_server.flare.exchange import STORED, weights_dxo
from fl_server.flare.wake import WakingController
from mmar_runtime.exchange.tensor_files import StoredWeights, read_tensors, write_tensors

SITES = ("site-1", "site-2")
LONG = 60.0


@dataclass
class EngineStandIn:
    """What the communicator asks of NVFlare's engine; keeps whom a message was for."""

    workspace: Workspace
    woken: list[list[str] | None] = field(default_factory=list)
    sites: tuple[str, ...] = SITES

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_clients(self) -> list[Client]:
        return [Client(name, name) for name in self.sites]

    def validate_targets(self, names: list[str]) -> tuple[list[Client], list[str]]:
        return [one for one in self.get_clients() if one.name in names], []

    def new_context(self) -> FLContext:
        return FLContextManager(engine=self, identity_name="server", job_id="job").new_context()

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        pass

    def send_aux_request(self, targets: list[str] | None, topic: str, **others: Any) -> None:
        assert topic == wake.WAKE_TOPIC
        self.woken.append(targets)


@pytest.fixture
def engine(tmp_path: Path) -> EngineStandIn:
    for folder in ("startup", "local"):
        (tmp_path / folder).mkdir()
    return EngineStandIn(Workspace(str(tmp_path), "server", str(tmp_path / "startup")))


class Waking(WakingController):
    """A workflow that does nothing of its own."""

    def start_controller(self, fl_ctx: FLContext) -> None:
        pass

    def stop_controller(self, fl_ctx: FLContext) -> None:
        pass

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        pass

    def process_result_of_unknown_task(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def controller(engine: EngineStandIn) -> WakingController:
    """A workflow with NVFlare's communicator, as its server makes it."""
    found = Waking()
    communicator = WFCommServer()
    communicator._engine = engine
    found.set_communicator(communicator)
    return found


def reply_context(engine: EngineStandIn, reply: Shareable, filters: Any) -> FLContext:
    """What NVFlare knows when a reply to ``train`` has come, at a server with these filters."""
    fl_ctx = engine.new_context()
    runner = SimpleNamespace(config=SimpleNamespace(task_result_filters=filters))
    for name, value in {
        FLContextKey.RUNNER: runner,
        FLContextKey.TASK_NAME: "train",
        FLContextKey.TASK_RESULT: reply,
    }.items():
        fl_ctx.set_prop(name, value, private=True, sticky=False)
    return fl_ctx


def test_both_sides_mean_the_same_message() -> None:
    assert wake.WAKE_TOPIC == site_wake.WAKE_TOPIC


def test_all_sites_are_told_of_a_task_for_all(
    controller: WakingController, engine: EngineStandIn
) -> None:
    controller.broadcast(Task(name="train", data=Shareable()), engine.new_context())

    assert engine.woken == [None]


def test_nobody_is_told_of_somebody_elses_task(
    controller: WakingController, engine: EngineStandIn
) -> None:
    task = Task(name="validate", data=Shareable())

    controller.broadcast(task, engine.new_context(), targets=["site-2"])

    assert engine.woken == [["site-2"]]


def test_filters_and_guard_see_arrays_and_the_wire_sees_tensors(
    controller: WakingController, engine: EngineStandIn
) -> None:
    weights = {"w": torch.ones(2)}
    message = weights_dxo(weights).to_shareable()
    fl_ctx = reply_context(engine, message, filters={})
    fl_ctx.set_prop(FLContextKey.TASK_DATA, message, private=True, sticky=False)

    controller.handle_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)
    assert type(message["DXO"]["data"]) is dict
    assert type(message["DXO"]["data"]["w"]) is np.ndarray
    controller.handle_event(EventType.AFTER_TASK_DATA_FILTER, fl_ctx)
    assert type(message["DXO"]["data"]["w"]) is torch.Tensor
    controller.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, fl_ctx)
    assert type(message["DXO"]["data"]["w"]) is np.ndarray


def came_in_a_file(folder: Path) -> Shareable:
    write_tensors(folder / "file", {"w": torch.ones(2)})
    message = weights_dxo({"w": torch.ones(2)}).to_shareable()
    message["DXO"]["kind"] = DataKind.WEIGHT_DIFF
    message["DXO"]["data"] = read_tensors(folder / "file", keeper=None)
    return message


def taken(
    controller: WakingController, engine: EngineStandIn, message: Shareable, filters: Any
) -> Shareable:
    fl_ctx = reply_context(engine, message, filters)
    controller.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, fl_ctx)
    assert type(message["DXO"]["data"]["w"]) is np.ndarray
    return message


@pytest.mark.parametrize(
    ("filters", "is_kept"),
    [({}, True), ({"train/in": [object()]}, False), ({"validate/in": [object()]}, True)],
    ids=["no filter", "a filter", "a filter of another task"],
)
def test_what_came_in_a_file_is_kept_as_it_came_unless_a_filter_changes_it(
    controller: WakingController,
    engine: EngineStandIn,
    tmp_path: Path,
    filters: Any,
    is_kept: bool,
) -> None:
    message = taken(controller, engine, came_in_a_file(tmp_path), filters)

    assert (STORED in message) is is_kept


def test_a_site_cannot_say_what_came_in_a_file(
    controller: WakingController, engine: EngineStandIn
) -> None:
    message = weights_dxo({"w": torch.ones(2)}).to_shareable()
    message[STORED] = StoredWeights({"w": torch.zeros(2)})

    assert STORED not in taken(controller, engine, message, {})


def test_a_filter_at_the_server_takes_no_tensor_out_of_the_global_model(
    controller: WakingController, engine: EngineStandIn
) -> None:
    """Each site's task has a dictionary of its own; the arrays are the model's, for all of them."""
    model = weights_dxo({"w": torch.ones(2), "head": torch.ones(1)})
    controller.broadcast(Task("train", model.to_shareable()), engine.new_context(), min_responses=2)
    for site in SITES:
        fl_ctx = engine.new_context()
        _, _, sent = controller.communicator.process_task_request(Client(site, site), fl_ctx)
        fl_ctx.set_prop(FLContextKey.TASK_DATA, sent, private=True, sticky=False)
        controller.handle_event(EventType.BEFORE_TASK_DATA_FILTER, fl_ctx)

        assert sent["DXO"]["data"]["w"] is model.data["w"]
        del sent["DXO"]["data"]["head"]

    assert list(model.data) == ["w", "head"]
