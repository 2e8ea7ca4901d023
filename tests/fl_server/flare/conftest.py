"""A controller that has begun its run, in NVFlare's own communicator; only the engine is made up.

No thread works here: a test opens and closes the rounds of the run, and hands replies over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.workspace import Workspace
from nvflare.app_common.app_constant import AppConstants

from fl_server.federation import FederatedRun
from fl_server.flare.controller import FederationController
from fl_server.flare.exchange import as_arrays
from fl_server.record.values import SiteAbsence, SiteOutcome
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.exchange.messages import TRAIN, Train
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.flare.wire import BASE_MODEL, REPORT
from mmar_runtime.weights import Weights
from tests.carriers.nvflare import EngineStandIn, Server
from tests.carriers.script import DICE, JOB, difference, report


@dataclass
class Begun:
    """A run that has begun, or could not.

    Attributes:
        server: its controller.
        fl_ctx: of the workflow.
    """

    server: Server
    fl_ctx: FLContext
    task: Train | None = None

    @property
    def run(self) -> FederatedRun:
        return self.server.controller.run

    @property
    def fatal(self) -> list[str]:
        """Why the run was ended."""
        return self.server.engine.fatal

    @property
    def weights(self) -> Weights:
        """The first global weights."""
        assert self.task is not None
        return self.task.weights

    def open_round(self) -> None:
        task = self.run.open_round()
        self.task = self.task or task

    def close_round(self) -> Weights:
        """The new global model."""
        self.run.close_round()
        return self.run.scores_wanted().weights

    def update(self, *, step: float = 1.0, steps: object = 1) -> Shareable:
        """A reply to ``train``: every floating-point weight moved by ``step``."""
        moved = {
            name: one * step if one.is_floating_point() else one
            for name, one in difference(self.weights, "good").items()
        }
        told = to_plain(report("site-1", 1))
        meta = {
            MetaKey.NUM_STEPS_CURRENT_ROUND: steps,
            REPORT: told,
        }
        dxo = DXO(DataKind.WEIGHT_DIFF, data=dict(as_arrays(moved)), meta=meta)
        return self.answering(dxo.to_shareable())

    def answering(self, reply: Shareable) -> Shareable:
        """The reply with the cookies of the open round's task, as NVFlare's client returns them."""
        reply.add_cookie(AppConstants.CONTRIBUTION_ROUND, len(self.run.record.rounds) - 1)
        reply.add_cookie(BASE_MODEL, self.run.base_model())
        return reply

    def submit(
        self, site: str, reply: Shareable, *, task: str = TRAIN, peer: str = "", job: str = JOB
    ) -> bool:
        """Hand a reply over; whether it counts.

        Args:
            site: whose connection it came by.
            reply: what came.
            task: its name.
            peer: who the sender says it is; the site itself unless given.
            job: the job that the sender names.
        """
        fl_ctx = self.server.engine.new_context()
        claims = FLContextManager(identity_name=peer or site, job_id=job).new_context()
        fl_ctx.set_peer_context(claims)
        before = self.run.record
        self.server.controller.process_result_of_unknown_task(
            Client(site, f"token of {site}"), task, "", reply, fl_ctx
        )
        latest = self.run.record.rounds[-1:] if task == TRAIN else ()
        return self.run.record != before and any(site in one.contributors for one in latest)

    def outcome(self, site: str) -> SiteOutcome | None:
        """What the record says of a site in the latest round."""
        return self.run.record.rounds[-1].sites.get(site)

    def reason(self, site: str) -> str:
        """Why the latest round goes without a site."""
        outcome = self.outcome(site)
        assert isinstance(outcome, SiteAbsence), outcome
        return outcome.reason

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.server.engine.workspace.get_run_dir(JOB) / Path("results")

    @property
    def audit(self) -> list[dict[str, Any]]:
        """The server's audit log, line by line, after its chain was found whole."""
        self.server.controller._files.wait()
        path = Path(self.server.engine.workspace.get_root_dir()) / AUDIT_FILE
        assert not verify_audit(path).findings
        return [json.loads(line) for line in path.read_text().splitlines()]

    def noted(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind."""
        return [line for line in self.audit if line["event"] == event]


Begin = Callable[..., Begun]


@pytest.fixture
def kit(tmp_path: Path, make_mmar: Callable[..., Path]) -> Path:
    """A server's kit with a job's app."""
    folder = tmp_path / "kit"
    for name in ("startup", "local", JOB):
        (folder / name).mkdir(parents=True)
    make_mmar(folder / JOB / "app_server")
    return folder


@pytest.fixture
def begin(kit: Path) -> Iterator[Begin]:
    """``begin(**arguments of the controller)``; the first round is open, if the run could begin."""
    all_begun: list[Begun] = []

    def begin(**arguments: Any) -> Begun:
        torch.manual_seed(0)
        root = kit
        if all_begun:
            root = kit.with_name(f"kit-{len(all_begun)}")
            shutil.copytree(kit, root, ignore=shutil.ignore_patterns("results", "audit"))
        workspace = Workspace(str(root), "server", str(root / "startup"))
        controller = FederationController(
            **{"min_sites": 1, "num_rounds": 2, "weigh_by": "steps", **arguments}
        )
        server = Server(EngineStandIn(workspace), controller)
        begun = Begun(server, server.engine.new_context())
        all_begun.append(begun)
        controller.start_controller(begun.fl_ctx)
        if not begun.fatal:
            begun.open_round()
        return begun

    yield begin
    for one in all_begun:
        one.server.engine.fire_event(EventType.END_RUN, one.fl_ctx)


__all__ = ["DICE", "JOB", "Begin", "Begun"]
