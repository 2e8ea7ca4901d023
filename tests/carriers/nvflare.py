"""A script over NVFlare: its controller and communicator are real, engine and sites made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode, ServerCommandKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace
from nvflare.app_common.app_constant import AppConstants

from fl_server.flare.controller import FederationController
from fl_server.initial_model import initial_model
from fl_server.record.values import RunRecord
from mmar_runtime.exchange.messages import SCORE, SUBMIT, TRAIN
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.flare.wire import CASES, REPORT, STATUS
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights
from tests.carriers.script import (
    DICE,
    JOB,
    ROUNDS,
    SITES,
    Script,
    Word,
    dice,
    difference,
    report,
)
from tests.carriers.script import (
    STATUS as WORDS,
)


@dataclass
class EngineStandIn:
    """What a controller asks of NVFlare's engine.

    Attributes:
        workspace: of the server.
        controller: gets the events.
        fatal: reasons for which the run was ended.
        woken: the sites that each task was announced to.
        commands: what an admin may ask a running job, by topic.
    """

    workspace: Workspace
    controller: FederationController | None = None
    fatal: list[str] = field(default_factory=list)
    woken: list[list[str]] = field(default_factory=list)
    commands: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def get_workspace(self) -> Workspace:
        return self.workspace

    def sync_clients_from_main_process(self) -> None:
        """The sites are those of the start."""

    def get_clients(self) -> list[Client]:
        return [Client(name, f"token of {name}") for name in reversed(SITES)]

    def validate_targets(self, names: list[str]) -> tuple[list[Client], list[str]]:
        return [one for one in self.get_clients() if one.name in names], []

    def new_context(self) -> FLContext:
        return FLContextManager(engine=self, identity_name="server", job_id=JOB).new_context()

    def send_aux_request(self, targets: list[str], **request: Any) -> None:
        self.woken.append(targets)

    def register_app_command(self, topic: str, cmd_func: Callable[..., Any]) -> None:
        self.commands[topic] = cmd_func

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self.fatal.append(fl_ctx.get_prop(FLContextKey.EVENT_DATA))
        if self.controller is not None:
            self.controller.handle_event(event_type, fl_ctx)


class ScriptedSite(threading.Thread):
    """A site that asks for tasks, and answers as a script says."""

    def __init__(self, name: str, script: Script, server: Server, first: Weights) -> None:
        super().__init__(name=name, daemon=True)
        self._script = script
        self._server = server
        self._first = first
        self._late: Callable[[], None] | None = None
        self._seen: set[str] = set()

    def run(self) -> None:
        while not self._server.ended.is_set():
            task, task_id, message = self._server.request(self.name)
            if not task or task_id in self._seen:  # NVFlare sends again what nobody answered
                time.sleep(0.005)
                continue
            self._seen.add(task_id)
            if self._late is not None:
                self._late()
                self._late = None
            self._answer(task, task_id, message)

    def _answer(self, task: str, task_id: str, message: Shareable) -> None:
        word = self._word(task, message)
        if word == "silent":
            return
        reply = self._reply(task, message, word)
        reply.set_cookie_jar(dict(message.get_cookie_jar() or {}))

        def send() -> None:
            self._server.submit(self.name, task, task_id, reply)

        if word == "late":
            self._late = send
            return
        send()
        if word == "twice":
            send()

    def _word(self, task: str, message: Shareable) -> Word:
        if task == TRAIN:
            number = message.get_header(AppConstants.CURRENT_ROUND) + 1
            return self._script.updates.get((number, self.name), "good")
        if task == SCORE:
            return self._script.scores.get(self.name, "good")
        if task == SUBMIT:
            return self._script.models.get(self.name, "good")
        owner = message.get_cookie_jar()[AppConstants.MODEL_OWNER]
        return self._script.cells.get((owner, self.name), "good")

    def _reply(self, task: str, message: Shareable, word: Word) -> Shareable:
        if word in WORDS:
            failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
            failed.set_header(STATUS, WORDS[word])
            return failed
        if task == TRAIN:
            return self._update(message, word)
        if task == SUBMIT:
            spoilt = difference(self._first, word) if word == "nan" else {}
            meta = {"round": 1, "metrics": {DICE: dice(word, 0.5).as_dict()}}
            weights = {**self._first, **spoilt}
            return DXO(DataKind.WEIGHTS, data=_arrays(weights), meta=meta).to_shareable()
        metrics = {DICE: dice(word, 0.75).as_dict()}
        return DXO(DataKind.METRICS, data=metrics, meta={CASES: 3}).to_shareable()

    def _update(self, message: Shareable, word: Word) -> Shareable:
        weights = {
            name: torch.from_numpy(array.copy())
            for name, array in from_shareable(message).data.items()
        }
        told = to_plain(report(self.name, message.get_header(AppConstants.CURRENT_ROUND) + 1))
        meta = {
            MetaKey.NUM_STEPS_CURRENT_ROUND: 1,
            REPORT: told,
        }
        data = _arrays(difference(weights, word))
        return DXO(DataKind.WEIGHT_DIFF, data=data, meta=meta).to_shareable()


def _arrays(weights: Weights) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in weights.items()}


class Server:
    """The controller in its communicator."""

    def __init__(self, engine: EngineStandIn, controller: FederationController) -> None:
        self.engine, self.controller = engine, controller
        self.ended = threading.Event()
        self.communicator = WFCommServer()
        self.communicator._engine = controller._engine = engine
        controller.set_communicator(self.communicator)
        self.communicator.fire_event = controller.fire_event = engine.fire_event
        engine.controller = controller

    def context(self, site: str) -> FLContext:
        fl_ctx = self.engine.new_context()
        peer = FLContextManager(identity_name=site, job_id=JOB).new_context()
        fl_ctx.set_peer_context(peer)
        return fl_ctx

    def request(self, site: str) -> tuple[str, str, Shareable]:
        client = Client(site, f"token of {site}")
        found = self.communicator.process_task_request(client, self.context(site))
        return found[0] or "", found[1] or "", found[2]

    def submit(self, site: str, task: str, task_id: str, reply: Shareable) -> None:
        client = Client(site, f"token of {site}")
        reply.set_header(ServerCommandKey.FL_CLIENT, client)
        self.communicator.process_submission(
            client=client, task_name=task, task_id=task_id, result=reply, fl_ctx=self.context(site)
        )


def server_of(mmar: Path, folder: Path, **terms: Any) -> Server:
    """A server with a job that has not begun.

    Args:
        mmar: of the job; it becomes the app of a server's kit.
        folder: the kit.
        **terms: arguments of the controller.
    """
    for name in ("startup", "local", JOB):
        (folder / name).mkdir(parents=True)
    mmar.rename(folder / JOB / "app_server")
    workspace = Workspace(str(folder), "server", str(folder / "startup"))
    return Server(EngineStandIn(workspace), FederationController(**{"weigh_by": "steps", **terms}))


def run_nvflare(script: Script, mmar: Path, folder: Path) -> RunRecord:
    """The record of a script's run over NVFlare; see ``server_of``."""
    terms = {"num_rounds": ROUNDS, "min_sites": 2, "wait_for_others": 1, **script.terms}
    server = server_of(mmar, folder, **terms)
    first = initial_model(Mmar.open(folder / JOB / "app_server"), values={}).weights
    fl_ctx = server.engine.new_context()
    server.controller.start_controller(fl_ctx)
    sites = [ScriptedSite(name, script, server, first) for name in SITES]
    for site in sites:
        site.start()
    server.controller.control_flow(Signal(), fl_ctx)
    server.ended.set()
    for site in sites:
        site.join()
    server.engine.fire_event(EventType.END_RUN, fl_ctx)
    return server.controller.run.record
