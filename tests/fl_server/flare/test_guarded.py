"""Cross-site validation by NVFlare's own workflow: what a site sends is judged before it is kept.

The workflow and its communicator are the real ones; the sites are made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers import common_decomposers

from fl_server.flare.exchange import CASES, RefusedReply, as_arrays
from fl_server.flare.last_model import ScoreLastModel
from fl_server.flare.wake import WakingCrossSiteModelEval

DICE = "val_mean_dice"
SITES = ("site-1", "site-2")
JOB = "job-1"

Change = Callable[[Shareable], object]


@dataclass
class CrossSite:
    """The workflow after its first task was sent, with one site that answers as it is told."""

    fed: Any
    workflow: Any

    def context(self, site: str, claims: str | None = None) -> FLContext:
        fl_ctx = self.fed.engine.new_context()
        peer = FLContextManager(identity_name=claims or site, job_id=JOB).new_context()
        fl_ctx.set_peer_context(peer)
        return fl_ctx

    def take(self, site: str) -> tuple[str, str, Shareable]:
        communicator = self.workflow.communicator
        found: tuple[str, str, Shareable] = communicator.process_task_request(
            Client(site, site), self.context(site)
        )
        return found

    def answer(self, site: str, name: str, task_id: str, reply: Shareable, **claims: str) -> None:
        self.workflow.communicator.process_submission(
            client=Client(site, site),
            task_name=name,
            task_id=task_id,
            result=self.fed.sent_by(site, reply),
            fl_ctx=self.context(site, **claims),
        )

    def submit(self, site: str, reply: Shareable, **claims: str) -> None:
        name, task_id, _ = self.take(site)
        assert name == "submit_model"
        self.answer(site, name, task_id, reply, **claims)

    def model(self, site: str) -> Shareable:
        arrays = {name: array.copy() for name, array in as_arrays(self.fed.weights).items()}
        meta = {"round": 1, "metrics": {DICE: 0.5}}
        return DXO(DataKind.WEIGHTS, data=arrays, meta=meta).to_shareable()

    @property
    def stored(self) -> list[str]:
        """The models that NVFlare has written for sending on."""
        folder = Path(self.fed.engine.workspace.get_run_dir(JOB)) / "cross_site_val"
        return sorted(path.name for path in (folder / "model_shareables").iterdir())

    @property
    def reasons(self) -> list[str]:
        return self.fed.keeper.cross_site.failures

    @property
    def events(self) -> list[str]:
        return [one["event"] for one in self.fed.audit if one["event"] != "task-out"]


def metrics(value: Any = 0.75, **others: Any) -> Shareable:
    data = {DICE: value, **others}
    return DXO(DataKind.METRICS, data=data, meta={CASES: 3}).to_shareable()


@pytest.fixture(autouse=True, scope="module")
def _serialisation() -> None:
    """As NVFlare's processes begin."""
    flare_decomposers.register()
    common_decomposers.register()


@pytest.fixture
def run(federation: Any) -> CrossSite:
    federation.start_round(1)
    for site in SITES:
        federation.submit(site, federation.update(1))
    federation.aggregate()
    federation.end_round()
    workflow = WakingCrossSiteModelEval()
    communicator = WFCommServer()
    communicator._engine = workflow._engine = federation.engine
    workflow.set_communicator(communicator)
    communicator.fire_event = workflow.fire_event = federation.engine.fire_event
    workflow.start_controller(federation.fl_ctx)
    federation.wait()
    (Path(federation.engine.workspace.get_root_dir()) / "audit/mmar_audit.jsonl").unlink()
    task = Task(
        "submit_model", data=Shareable(), result_received_cb=workflow._receive_local_model_cb
    )
    workflow.broadcast(task=task, fl_ctx=federation.fl_ctx, targets=list(SITES), min_responses=2)
    return CrossSite(federation, workflow)


def test_a_good_model_is_kept_and_sent_to_every_site(run: CrossSite) -> None:
    run.submit("site-1", run.model("site-1"))

    assert run.stored == ["site-1"]
    assert run.events == ["model-in"]
    assert run.take("site-1")[0] == "validate"
    assert run.fed.record.local_bests["site-1"].round == 1


def arrays_of(reply: Shareable) -> Any:
    return reply["DXO"]["data"]


def nan(reply: Shareable) -> None:
    next(iter(arrays_of(reply).values())).flat[0] = math.nan


def other_shape(reply: Shareable) -> None:
    arrays_of(reply)[next(iter(arrays_of(reply)))] = np.zeros(3, np.float32)


def huge(reply: Shareable) -> None:
    name = next(iter(arrays_of(reply)))
    arrays_of(reply)[name] = np.broadcast_to(np.float32(0), (2**20, 2**20))


def objects(reply: Shareable) -> None:
    name = next(iter(arrays_of(reply)))
    arrays_of(reply)[name] = arrays_of(reply)[name].astype(object)


def further_key(reply: Shareable) -> None:
    arrays_of(reply)["image"] = np.zeros((512, 512), np.float32)


def collection(reply: Shareable) -> None:
    """NVFlare would keep each of these models under a name that the site has chosen."""
    inner = DXO(DataKind.WEIGHTS, data=dict(arrays_of(reply)))
    reply["DXO"] = DXO(DataKind.COLLECTION, data={"/../../escaped": inner}).to_dict()


def patients(reply: Shareable) -> None:
    reply["DXO"]["meta"]["cases"] = ["DOE_JOHN_1961.nii.gz"]


def no_metrics(reply: Shareable) -> None:
    del reply["DXO"]["meta"]["metrics"]


@pytest.mark.parametrize(
    "spoil", [nan, other_shape, huge, objects, further_key, collection, patients, no_metrics]
)
def test_a_spoilt_model_is_neither_kept_nor_sent_on(run: CrossSite, spoil: Change) -> None:
    reply = run.model("site-1")
    spoil(reply)

    run.submit("site-1", reply)
    run.submit("site-2", run.model("site-2"))

    assert run.stored == ["site-2"]
    assert run.events == ["reply-refused", "model-in"]
    [reason] = run.reasons
    assert reason.startswith("site-1 submitted no model: refused by the server: ")
    assert not run.fed.engine.fatal


def test_a_site_cannot_submit_for_another(run: CrossSite) -> None:
    run.submit("site-1", run.model("site-1"), claims="site-2")

    assert run.stored == []
    assert "site: belongs to 'site-2', not to 'site-1'" in run.reasons[0]


def test_a_second_model_is_not_asked_for_and_not_taken(run: CrossSite) -> None:
    """NVFlare takes replies to tasks that nobody waits for, as often as they come."""
    run.submit("site-1", run.model("site-1"))

    run.answer("site-1", "submit_model", "no task", run.model("site-1"))

    assert run.events == ["model-in", "reply-refused"]
    assert "site-1 has answered already" in run.reasons[0]


def test_a_model_that_comes_late_is_taken_if_it_is_the_first(run: CrossSite) -> None:
    run.answer("site-2", "submit_model", "no task", run.model("site-2"))

    assert run.stored == ["site-2"]


@pytest.fixture
def validating(run: CrossSite) -> CrossSite:
    """Site-1's model stands ready to be evaluated."""
    run.submit("site-1", run.model("site-1"))
    run.submit("site-2", make_reply(ReturnCode.EXECUTION_EXCEPTION))
    return run


def evaluate(run: CrossSite, site: str, reply: Shareable, **claims: str) -> None:
    name, task_id, task = run.take(site)
    assert name == "validate"
    if reply.get_cookie_jar() is None:
        reply.set_cookie_jar(dict(task.get_cookie_jar()))
    run.answer(site, name, task_id, reply, **claims)


def test_good_metrics_enter_the_matrix(validating: CrossSite) -> None:
    evaluate(validating, "site-2", metrics(0.75, val_acc=0.5))

    assert validating.fed.keeper.cross_site.cells == {
        "site-1": {"site-2": {DICE: 0.75, "val_acc": 0.5}}
    }


@pytest.mark.parametrize(
    "reply",
    [
        metrics(math.nan), metrics(1e9), metrics("0.9"), metrics(0.5, DOE_JOHN=0.5),
        metrics(np.ones(3)), DXO(DataKind.METRICS, data={"val_acc": 0.5}).to_shareable(),
        DXO(DataKind.METRICS, data={DICE: 0.5}, meta={"rows": [0.1] * 9}).to_shareable(),
        DXO(DataKind.WEIGHTS, data={DICE: 0.5}).to_shareable(), Shareable(),
    ],
)  # fmt: skip
def test_spoilt_metrics_do_not_enter_the_matrix(validating: CrossSite, reply: Shareable) -> None:
    evaluate(validating, "site-2", reply)

    assert validating.fed.keeper.cross_site.cells == {}
    assert "site-2 could not evaluate site-1: refused by the server: " in validating.reasons[-1]
    assert not validating.fed.engine.fatal


@pytest.mark.parametrize("owner", ["SRV_FL_global_model", "../../x", 7, None])
def test_the_model_is_the_one_that_was_sent_whatever_the_reply_says(
    validating: CrossSite, owner: Any
) -> None:
    reply = metrics()
    reply.add_cookie(AppConstants.MODEL_OWNER, owner)

    evaluate(validating, "site-2", reply)

    assert list(validating.fed.keeper.cross_site.cells) == ["site-1"]


def test_metrics_of_a_model_that_was_never_sent_are_dropped(validating: CrossSite) -> None:
    reply = metrics()
    reply.add_cookie(AppConstants.MODEL_OWNER, "SRV_FL_global_model")

    validating.answer("site-2", "validate", "no task", reply)

    assert validating.fed.keeper.cross_site.cells == {}


def test_a_cell_is_written_once(validating: CrossSite) -> None:
    evaluate(validating, "site-2", metrics(0.25))
    again = metrics(1.0)
    again.add_cookie(AppConstants.MODEL_OWNER, "site-1")

    validating.answer("site-2", "validate", "no task", again)

    assert validating.fed.keeper.cross_site.cells["site-1"]["site-2"][DICE] == 0.25


def test_failures_that_nobody_asked_for_do_not_pile_up(validating: CrossSite) -> None:
    evaluate(validating, "site-2", metrics())
    before = len(validating.reasons)

    for number in range(20):
        failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
        failed.set_header("mmar_status", f"data-error (reference {number:08x})")
        failed.add_cookie(AppConstants.MODEL_OWNER, "site-1")
        validating.answer("site-2", "validate", "no task", failed)

    assert len(validating.reasons) == before + 1
    assert "site-2 has answered already" in validating.reasons[-1]
    assert validating.fed.keeper.cross_site.cells["site-1"]["site-2"][DICE] == 0.75


def test_without_a_guard_the_workflow_does_not_start(federation: Any) -> None:
    del federation.engine.components["aggregator"]
    workflow = WakingCrossSiteModelEval()
    workflow._engine = federation.engine

    workflow.start_controller(federation.fl_ctx)

    assert "no guard for the replies of the sites" in federation.engine.fatal[0]


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.one_of(st.sampled_from([*DataKind]), st.text()),
    data=ANYTHING,
    meta=ANYTHING,
    owner=st.sampled_from([None, "site-1"]),
)
def test_whatever_is_sent_is_refused_and_nothing_is_raised(
    validating: CrossSite, kind: Any, data: Any, meta: Any, owner: str | None
) -> None:
    reply = DXO(DataKind.METRICS, data={}).to_shareable()
    reply["DXO"] = {"kind": kind, "data": data, "meta": meta}
    fl_ctx = validating.context("site-2")

    judged = validating.workflow._judged(
        validating.fed.sent_by("site-2", reply), "site-2", owner, fl_ctx
    )

    assert isinstance(judged, RefusedReply)


# --- scores of the last global model


@pytest.fixture
def scoring(run: CrossSite) -> CrossSite:
    workflow = ScoreLastModel(min_sites=2)
    communicator = WFCommServer()
    communicator._engine = workflow._engine = run.fed.engine
    workflow.set_communicator(communicator)
    workflow.fire_event = run.fed.engine.fire_event
    task = Task("score_model", data=Shareable(), result_received_cb=workflow._received)
    workflow.broadcast(task=task, fl_ctx=run.fed.fl_ctx, targets=list(SITES), min_responses=2)
    return CrossSite(run.fed, workflow)


def score(run: CrossSite, site: str, reply: Shareable, **claims: str) -> None:
    name, task_id, _ = run.take(site)
    run.answer(site, name, task_id, reply, **claims)


def test_a_good_score_is_recorded(scoring: CrossSite) -> None:
    score(scoring, "site-1", metrics(0.5))

    assert scoring.fed.keeper.recorder.record.scores_of(1).sites["site-1"] == {DICE: 0.5}


@pytest.mark.parametrize("reply", [metrics(math.nan), metrics(0.5, x=1), Shareable()])
def test_a_spoilt_score_is_not(scoring: CrossSite, reply: Shareable) -> None:
    score(scoring, "site-1", reply)

    assert scoring.fed.keeper.recorder.record.scores_of(1) is None
    assert scoring.events[-1] == "reply-refused"
    assert not scoring.fed.engine.fatal


def test_a_score_counts_for_the_site_that_sent_it(scoring: CrossSite) -> None:
    score(scoring, "site-1", metrics(0.5), claims="site-2")

    assert scoring.fed.keeper.recorder.record.scores_of(1) is None
