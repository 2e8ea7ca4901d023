"""A server's run on NVFlare's own workspace and context; only its engine is a stand-in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ServerCommandKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.workspace import Workspace
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from fl_server.flare.aggregator import MmarAggregator
from fl_server.flare.exchange import REPORT, as_arrays, learnable_from, take_as_arrays
from fl_server.flare.later import LATER
from fl_server.flare.persistor import MmarModelPersistor, results_folder
from fl_server.flare.run_recorder import RunRecordKeeper
from fl_server.record.run_record import RunRecord, read_run_record
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.exchange.arrays import as_sent
from mmar_runtime.exchange.tensor_files import read_tensors, write_tensors
from mmar_runtime.weights import Weights

MakeMmar = Callable[..., Path]

JOB = "job-1"
SITES = ("site-1", "site-2")
DICE = "val_mean_dice"


def wait_until(condition: Callable[[], object]) -> None:
    """Return when it holds, or after a minute; whoever asked sees which."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


@dataclass
class EngineStandIn:
    """What components ask of NVFlare's engine: workspace, clients, each other, and events."""

    workspace: Workspace
    components: dict[str, FLComponent] = field(default_factory=dict)
    fatal: list[str] = field(default_factory=list)
    commands: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_clients(self) -> list[Client]:
        return [Client(name, f"token of {name}") for name in reversed(SITES)]

    def validate_targets(self, names: list[str]) -> tuple[list[Client], list[str]]:
        return [one for one in self.get_clients() if one.name in names], []

    def new_context(self) -> FLContext:
        return FLContextManager(engine=self, identity_name="server", job_id=JOB).new_context()

    def send_aux_request(self, **request: Any) -> None:
        """Sites are woken; nobody listens here."""

    def register_app_command(self, topic: str, cmd_func: Callable[..., Any]) -> None:
        self.commands[topic] = cmd_func

    def get_component(self, component_id: str) -> FLComponent | None:
        return self.components.get(component_id)

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self.fatal.append(fl_ctx.get_prop(FLContextKey.EVENT_DATA))
        for component in self.components.values():
            component.handle_event(event_type, fl_ctx)


@dataclass
class Federation:
    """Fires the events of NVFlare's workflows in their order, with replies of made-up sites."""

    engine: EngineStandIn
    fl_ctx: FLContext
    persistor: MmarModelPersistor
    aggregator: MmarAggregator
    keeper: RunRecordKeeper
    tasks: dict[int, Shareable] = field(default_factory=dict)

    def fire(self, event_type: str, **properties: Any) -> None:
        for name, value in properties.items():
            self.fl_ctx.set_prop(name, value, private=True, sticky=False)
        self.engine.fire_event(event_type, self.fl_ctx)

    @staticmethod
    def sent_by(site: str, reply: Shareable) -> Shareable:
        """The reply as NVFlare's server hands it on: with the client whose token it came with."""
        reply.set_header(ServerCommandKey.FL_CLIENT, Client(site, f"token of {site}"))
        return reply

    def accept(self, site: str, reply: Shareable) -> bool:
        """A reply reaches the aggregator, and no event is fired."""
        self.peer(site)
        return self.aggregator.accept(self.sent_by(site, reply), self.fl_ctx)

    def peer(self, site: str) -> None:
        peer = FLContextManager(identity_name=site, job_id=JOB).new_context()
        self.fl_ctx.set_peer_context(peer)

    @property
    def weights(self) -> Weights:
        return self.persistor.initial.weights

    def start_round(self, number: int, weights: Weights | None = None) -> None:
        if weights is not None:
            self.set_global(weights)
        self.fl_ctx.set_prop(AppConstants.CURRENT_ROUND, number - 1, private=True, sticky=False)
        self.fire(AppEventType.ROUND_STARTED)
        task = Shareable()
        task.add_cookie(AppConstants.CONTRIBUTION_ROUND, number - 1)
        self.fire(AppEventType.BEFORE_TRAIN_TASK, **{AppConstants.TRAIN_SHAREABLE: task})
        self.tasks[number] = task

    def start_round_again(self, number: int, weights: Weights | None = None) -> None:
        """The same round once more, as far as the aggregator is told."""
        self.set_global(self.weights if weights is None else weights)
        self.keeper._recorder = None
        self.start_round(number)

    def start_over(self) -> None:
        """The first round once more, by an aggregator that has seen nothing yet."""
        self.aggregator.reset(self.fl_ctx)
        self.aggregator._aggregated_round = None
        self.start_round_again(1)

    @staticmethod
    def as_tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(array)

    def set_global(self, weights: Weights) -> None:
        model = learnable_from(weights)
        self.fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=False)

    def update(
        self,
        number: int,
        *,
        received: float = 0.25,
        local: float = 0.5,
        step: float = 1.0,
        steps: object = 1,
    ) -> Shareable:
        """A site's reply in a round: every floating-point weight moved by ``step``."""
        difference = {
            name: torch.full_like(tensor, step if tensor.is_floating_point() else 1)
            for name, tensor in self.weights.items()
        }
        report = {
            "received_metrics": {DICE: received},
            "local_metrics": {DICE: local},
            "epochs": [{"epoch": 1, "loss": 0.5, "metrics": {}}],
            "seconds": 1.5,
            "built": {"train.trainer": 1},
            "process": "p",
        }
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: steps, REPORT: report}
        dxo = DXO(DataKind.WEIGHT_DIFF, data=dict(as_arrays(difference)), meta=meta)
        return self.answering(dxo.to_shareable(), number)

    def answering(self, reply: Shareable, number: int) -> Shareable:
        """The reply with the cookies of the task that it answers, as NVFlare's client returns."""
        reply.set_cookie_jar(dict(self.tasks[number].get_cookie_jar()))
        return reply

    def handed_over(self, reply: Shareable, path: Path) -> Shareable:
        """The reply as it comes in a simulation: its tensors in a file."""
        sent = as_sent(reply["DXO"]["data"])
        assert isinstance(sent, dict)
        write_tensors(path, sent)
        reply["DXO"]["data"] = read_tensors(path, keeper=None)
        runner = SimpleNamespace(config=SimpleNamespace(task_result_filters={}))
        for key, value in {
            FLContextKey.RUNNER: runner,
            FLContextKey.TASK_NAME: "train",
            FLContextKey.TASK_RESULT: reply,
        }.items():
            self.fl_ctx.set_prop(key, value, private=True, sticky=False)
        take_as_arrays(self.fl_ctx)
        return reply

    def submit(self, site: str, reply: Shareable) -> bool:
        """A reply to ``train`` arrives; a failed one goes no further than the first event."""
        self.peer(site)
        self.sent_by(site, reply)
        task = {FLContextKey.TASK_NAME: "train", FLContextKey.TASK_RESULT: reply}
        self.fire(EventType.BEFORE_TASK_RESULT_FILTER, **task)
        self.fire(EventType.BEFORE_PROCESS_SUBMISSION)
        if reply.get_return_code() not in (None, "OK"):
            return False
        accepted = self.aggregator.accept(reply, self.fl_ctx)
        result = {
            AppConstants.TRAINING_RESULT: reply,
            AppConstants.AGGREGATION_ACCEPTED: accepted,
        }
        self.fire(AppEventType.AFTER_CONTRIBUTION_ACCEPT, **result)
        return accepted

    def aggregate(self) -> dict[str, torch.Tensor]:
        self.fire(AppEventType.BEFORE_AGGREGATION)
        arrays = self.aggregator.aggregate(self.fl_ctx)["DXO"]["data"]
        # NVFlare's own shareable generator puts this very object into the global model.
        model = make_model_learnable(arrays, {})
        self.fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=False)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def end_round(self) -> None:
        self.persistor.save(self.fl_ctx.get_prop(AppConstants.GLOBAL_MODEL), self.fl_ctx)
        self.fire(AppEventType.ROUND_DONE)
        self.aggregator.reset(self.fl_ctx)

    @property
    def current(self) -> Weights:
        from fl_server.flare.exchange import global_weights

        return global_weights(self.fl_ctx)

    def wait(self) -> None:
        """Until all that the run writes later is written, or could not be."""
        later = self.fl_ctx.get_prop(LATER)
        if later is not None:  # until the run has ended
            later.wait()

    def fatal(self, count: int = 1) -> list[str]:
        """The reasons for which the run was ended, as soon as there are so many."""
        self.wait()
        wait_until(lambda: len(self.engine.fatal) >= count)
        return self.engine.fatal

    def ended_record(self) -> RunRecord:
        """The record, as soon as the end of the run, which a thread of its own brings, is in it."""
        self.wait()
        wait_until(lambda: self.record.status != "running")
        return self.record

    @property
    def audit(self) -> list[dict[str, Any]]:
        """The server's audit log, line by line, after its chain was found whole."""
        self.wait()
        path = Path(self.engine.workspace.get_root_dir()) / AUDIT_FILE
        assert not verify_audit(path).findings
        return [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def results(self) -> Path:
        self.wait()
        return results_folder(self.fl_ctx)

    @property
    def record(self) -> RunRecord:
        """What is on disk at this moment."""
        return read_run_record(self.results / "run_record.json")


@pytest.fixture
def engine(tmp_path: Path, make_mmar: MakeMmar) -> EngineStandIn:
    kit = tmp_path / "kit"
    for folder in ("startup", "local", JOB):
        (kit / folder).mkdir(parents=True)
    make_mmar(kit / JOB / "app_server")
    return EngineStandIn(Workspace(str(kit), "server", str(kit / "startup")))


@pytest.fixture
def federation(engine: EngineStandIn) -> Federation:
    """A run of two sites and two rounds that has started and holds its initial model."""
    persistor = MmarModelPersistor()
    aggregator = MmarAggregator(min_sites=1)
    keeper = RunRecordKeeper(min_sites=2, num_rounds=2)
    engine.components |= {"persistor": persistor, "aggregator": aggregator, "recorder": keeper}
    manager = FLContextManager(engine=engine, identity_name="server", job_id=JOB)
    fl_ctx = manager.new_context()
    found = Federation(engine, fl_ctx, persistor, aggregator, keeper)
    found.fire(EventType.START_RUN)
    found.set_global(found.weights)
    return found
