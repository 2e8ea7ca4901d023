"""The executor under a site's policy: each limit has a status word, and the rest goes on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fl_client.flare.audit import done_before
from fl_client.flare.executor import MmarExecutor
from fl_client.flare.privacy import TRAINED
from fl_server.initial_model import initial_model
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.errors import ConfigError, PolicyError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.messages import Train
from mmar_runtime.flare.wire import CASES, REPORT, STATUS
from mmar_runtime.metrics import significant
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.files.tree_hash import tree_hash
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE
from mmar_runtime.weights import Weights, digest
from tests.conftest import edit_json

Edited = Callable[[Path, Callable[[Any], object]], Path]
Start = Callable[..., "Running"]


class Running:
    """An executor between the start and the end of a run."""

    def __init__(self, executor: MmarExecutor, fl_ctx: FLContext) -> None:
        self.executor = executor
        self.fl_ctx = fl_ctx
        executor.handle_event(EventType.START_RUN, fl_ctx)

    def end(self) -> None:
        self.executor.handle_event(EventType.END_RUN, self.fl_ctx)

    def do(self, task: str, weights: Weights | None = None, **headers: Any) -> Shareable:
        shareable = Shareable()
        if weights is not None:
            shareable = DXO(DataKind.WEIGHTS, data=arrays_of(weights)).to_shareable()
        for name, value in headers.items():
            shareable.set_header(name, value)
        return self.executor.execute(task, shareable, self.fl_ctx, Signal())

    def train(self, weights: Weights, number: int = 1) -> Shareable:
        return self.do("train", weights, **{AppConstants.CURRENT_ROUND: number - 1})

    def validate(self, weights: Weights, owner: str = "site-2") -> Shareable:
        return self.do("validate", weights, **{AppConstants.MODEL_OWNER: owner})


@pytest.fixture
def kit(app: Path) -> Path:
    return app.parents[1]


@pytest.fixture
def received(app: Path) -> Weights:
    return initial_model(Mmar.open(app), values={}).weights


@pytest.fixture
def start(kit: Path, fl_ctx: FLContext) -> Iterator[Start]:
    """``start(epochs=1, steps=0, **policy)``: an executor at a site with this policy."""
    running: list[Running] = []

    def begin(*, epochs: int = 1, steps: int = 0, **policy: Any) -> Running:
        file = kit / "local" / SITE_POLICY_FILE
        file.write_text(json.dumps({"policy_version": 1, **policy}))
        file.chmod(0o600)
        running.append(Running(MmarExecutor(epochs, steps), fl_ctx))
        return running[-1]

    yield begin
    for one in running:
        one.end()


def declined(reply: Shareable, word: str = "policy-declined") -> bool:
    """Whether a reply holds nothing but that word and a reference."""
    assert "DXO" not in reply
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    return str(reply.get_header(STATUS)).startswith(f"{word} (reference ")


def reason(run_folder: Path) -> str:
    """What the site keeps of the last refusal."""
    last = max(run_folder.glob("error-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    return last.read_text().splitlines()[0]


# --- whether the site takes part


def test_too_few_training_cases_do_not(start: Start, received: Weights, run_folder: Path) -> None:
    site = start(min_dataset_size=3)

    assert declined(site.train(received))
    assert reason(run_folder).startswith(
        "train: persons in the training list (min_dataset_size): 2; this site's policy asks for 3"
    )


def test_a_job_has_only_so_many_evaluations_even_after_a_restart(
    start: Start, received: Weights, fl_ctx: FLContext, run_folder: Path
) -> None:
    site = start(outgoing={"max_evaluations": 2})
    assert site.do("score_model", received).get_return_code() == ReturnCode.OK
    assert site.validate(received).get_return_code() == ReturnCode.OK
    site.end()
    again = Running(MmarExecutor(), fl_ctx)

    assert declined(again.validate(received, owner="site-3"))
    assert declined(again.do("score_model", received))
    assert "2 evaluations of this job; outgoing.max_evaluations" in reason(run_folder)
    assert again.train(received).get_return_code() == ReturnCode.OK
    again.end()


def own_epochs(kit: Path, epochs: object) -> None:
    edit_json(kit / "local/environment.json", lambda values: values.update(LOCAL_EPOCHS=epochs))


def test_an_own_number_that_is_none_is_refused_by_a_word(
    start: Start, received: Weights, run_folder: Path, kit: Path
) -> None:
    own_epochs(kit, "two")

    assert declined(start().train(received), "config-refused")
    assert (
        "LOCAL_EPOCHS: has to be a positive whole number"
        in next(run_folder.glob("error-*.txt")).read_text()
    )


def test_a_job_that_runs_too_long_is_ended(
    start: Start, received: Weights, run_folder: Path
) -> None:
    site = start(epochs=50, limits={"wall_minutes": 1, "epochs_per_round": 50})
    assert site.do("score_model", received).get_return_code() == ReturnCode.OK
    site.executor.run.session._watch._started -= 59.5

    assert declined(site.train(received))  # within an iteration or two, not after 50 epochs
    assert declined(site.do("score_model", received))  # nor does it begin another task

    assert "limits.wall_minutes of this site, 1" in reason(run_folder)


# --- cross-site validation


def test_a_site_that_evaluates_no_others_evaluates_its_own_and_the_global_ones(
    start: Start, received: Weights, app: Path
) -> None:
    asked_for(app, "train", "validate")
    site = start(cross_site={"evaluate_others": False})

    assert declined(site.validate(received, "site-2"))
    for owner in ("site-1", "SRV_FL_global_model"):
        assert site.validate(received, owner).get_return_code() == ReturnCode.OK


def test_in_a_job_that_does_not_train_every_model_is_that_of_others(
    start: Start, received: Weights, app: Path
) -> None:
    """Whatever the models are called: the site has had no part in them."""
    asked_for(app, "validate")

    site = start(cross_site={"evaluate_others": False})
    assert declined(site.validate(received, "SRV_FL_global_model"))
    site = start(cross_site={"evaluate_others": True})
    assert site.validate(received, "SRV_FL_global_model").get_return_code() == ReturnCode.OK


def asked_for(app: Path, *tasks: str) -> None:
    document = {"executors": [{"tasks": list(tasks), "executor": {}}]}
    (app / "config/config_fed_client.json").write_text(json.dumps(document))


# --- what leaves


def test_numbers_leave_rounded_and_only_those_that_may(start: Start, received: Weights) -> None:
    outgoing = {"metrics": ["val_mean_dice"], "round_digits": 2}
    site = start(outgoing=outgoing)

    meta = from_shareable(site.train(received)).meta
    scored = from_shareable(site.do("score_model", received)).data
    submitted = from_shareable(site.do("submit_model")).meta
    validated = from_shareable(site.validate(received)).data

    tables = [
        meta[REPORT]["received_metrics"], meta[REPORT]["local_metrics"], scored,
        submitted["metrics"], validated,
    ]  # fmt: skip
    for table in tables:
        assert set(table) == {"val_mean_dice"}
        dice = table["val_mean_dice"]
        for part in (dice, *dice["classes"].values()):
            assert part["value"] == significant(part["value"], 2)
    assert meta[REPORT]["epochs"] == [{"epoch": 1, "loss": None, "metrics": {}}]


def test_without_a_policy_four_digits_leave(
    start: Start, received: Weights, kit: Path, fl_ctx: FLContext
) -> None:
    outgoing = {"round_digits": "all"}
    exact = from_shareable(start(outgoing=outgoing).validate(received)).data["val_mean_dice"][
        "value"
    ]
    (kit / "local" / SITE_POLICY_FILE).unlink()
    site = Running(MmarExecutor(), fl_ctx)

    dxo = from_shareable(site.validate(received, "site-3"))
    site.end()

    assert dxo.data["val_mean_dice"]["value"] == significant(exact, 4) != exact
    assert dxo.meta == {CASES: 1}


# --- what the site allows


@pytest.mark.parametrize("task", ["train", "score_model", "submit_model", "validate"])
def test_a_refused_job_does_no_task_at_all(
    start: Start, received: Weights, app: Path, edited: Edited, task: str
) -> None:
    """Not even one that would not touch what it was refused for."""
    loss = {"path": "os.system"}
    edited(app / "config/config_train.json", lambda conf: conf["train"].update(loss=loss))
    headers = {AppConstants.CURRENT_ROUND: 0, AppConstants.MODEL_OWNER: "site-2"}

    assert declined(start().do(task, received, **headers), "config-refused")


def test_a_job_that_could_not_be_judged_does_no_task_at_all(
    received: Weights, kit: Path, fl_ctx: FLContext, run_folder: Path
) -> None:
    """NVFlare logs what is raised when a run starts, and hands out tasks all the same."""
    with_filter(kit, epsilon_release=-1.0)
    executor = MmarExecutor()
    with pytest.raises(ConfigError, match=r"privacy\.json"):
        executor.handle_event(EventType.START_RUN, fl_ctx)
    message = DXO(DataKind.WEIGHTS, data=arrays_of(received)).to_shareable()
    message.set_header(AppConstants.MODEL_OWNER, "site-2")

    for task in ("train", "score_model", "submit_model", "validate"):
        assert declined(executor.execute(task, message, fl_ctx, Signal()), "config-refused")

    for told in run_folder.glob("error-*.txt"):
        assert "epsilon_release: has to be a number above 0" in told.read_text()


def test_nothing_is_done_before_a_run_has_started(received: Weights, fl_ctx: FLContext) -> None:
    message = DXO(DataKind.WEIGHTS, data=arrays_of(received)).to_shareable()

    reply = MmarExecutor().execute("score_model", message, fl_ctx, Signal())

    assert declined(reply, "policy-declined")


def test_required_filters_have_to_stand_in_the_sites_own_file(
    start: Start, received: Weights, kit: Path, run_folder: Path
) -> None:
    demanding = {"required_filters": ["PercentilePrivacy"]}
    assert declined(start(**demanding).train(received), "config-refused")
    assert "'PercentilePrivacy' is required" in next(run_folder.glob("error-*")).read_text()

    path = "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy"
    scope = {"name": "site", "task_result_filters": [{"path": path}]}
    (kit / "local/privacy.json").write_text(json.dumps({"scopes": [scope]}))

    assert start(**demanding).train(received).get_return_code() == ReturnCode.OK


SVT = "fl_client.flare.privacy.SVTPrivacy"


def with_filter(kit: Path, **arguments: Any) -> None:
    scope = {"name": "site", "task_result_filters": [{"path": SVT, "args": arguments}]}
    document = {"scopes": [scope], "default_scope": "site"}
    (kit / "local/privacy.json").write_text(json.dumps(document))


def test_a_filter_learns_what_was_trained(
    start: Start, received: Weights, kit: Path, fl_ctx: FLContext
) -> None:
    with_filter(kit, epsilon_release=1.0)

    start(required_filters=["SVTPrivacy"]).train(received, 3)

    trained = fl_ctx.get_prop(TRAINED)
    assert (trained.round_number, trained.buffers) == (3, frozenset())


def test_a_budget_that_is_spent_is_told_before_anything_is_trained(
    start: Start, received: Weights, kit: Path, run_folder: Path
) -> None:
    with_filter(kit, epsilon_release=1.0)
    running = start(privacy={"epsilon_max": 1.0})

    assert declined(running.train(received), "policy-declined")

    assert "a round costs 1.1 more" in next(run_folder.glob("error-*")).read_text()
    progress = run_folder / "progress.jsonl"
    assert not progress.exists() or "iteration" not in progress.read_text()


def test_a_bound_that_no_filter_keeps_refuses_the_job(start: Start, received: Weights) -> None:
    assert declined(start(privacy={"epsilon_max": 1.0}).train(received), "config-refused")


def with_chain(app: Path) -> None:
    exclude = {"path": "fl_client.flare.privacy.ExcludeVars", "args": {"exclude_vars": ["*.bias"]}}
    document = {"task_result_filters": [{"tasks": ["train"], "filters": [exclude]}]}
    (app / "config/config_fed_client.json").write_text(json.dumps(document))


def test_a_whole_model_does_not_leave_around_a_bound_or_a_filter(
    start: Start, received: Weights, kit: Path, app: Path, run_folder: Path
) -> None:
    """The filters of a job see its contributions alone."""
    with_chain(app)
    assert declined(start().do("submit_model"))
    assert reason(run_folder).startswith("submit_model: a whole model is not sent")
    (app / "config/config_fed_client.json").unlink()

    with_filter(kit, epsilon_release=1.0)
    assert declined(start().do("submit_model"))
    assert declined(start(privacy={"epsilon_max": 1.0}).do("submit_model"))
    (kit / "local/privacy.json").unlink()

    site = start()
    assert site.train(received).get_return_code() == ReturnCode.OK
    assert site.do("submit_model").get_return_code() == ReturnCode.OK


# --- no task is done twice


def test_a_site_trains_no_round_twice_whatever_process_it_is_in(
    start: Start, received: Weights, run_folder: Path, app: Path
) -> None:
    site = start()
    assert site.train(received, 2).get_return_code() == ReturnCode.OK

    for again in (site, start()):  # NVFlare may start another process for the same job
        for number in (2, 1, 0):
            assert declined(again.train(received, number))
            assert "this site has done round 2" in reason(run_folder)
    shutil.rmtree(app.parent)  # as NVFlare does when the job is deployed anew
    remembered = done_before(site.fl_ctx, rounds=None)
    remembered.require_new(Train(weights=received, round_number=3))
    with pytest.raises(PolicyError, match="has done round 2"):
        remembered.require_new(Train(weights=received, round_number=2))


def test_filters_that_are_edited_during_a_run_are_those_of_the_next_one(
    start: Start, received: Weights, kit: Path, fl_ctx: FLContext
) -> None:
    """NVFlare has built those of this run already."""
    with_filter(kit, epsilon_release=1.0)
    site = start()
    (kit / "local/privacy.json").write_text("{}")

    assert declined(site.do("submit_model"))
    site.train(received)
    assert fl_ctx.get_prop(TRAINED) is not None


def test_a_policy_with_a_fault_stops_the_run(start: Start) -> None:
    with pytest.raises(Exception, match="looser than the built-in limit"):
        start(limits={"rounds": 10**6})


# --- code of the job's own


@pytest.fixture
def with_code(app: Path, edited: Edited) -> Path:
    """The job has a loss of its own."""
    (app / "custom").mkdir()
    code = "from monai.losses import DiceLoss\n\n\nclass ApprovedLoss(DiceLoss):\n    pass\n"
    (app / "custom/approved_loss.py").write_text(code)
    loss = {"path": "approved_loss.ApprovedLoss", "args": {"to_onehot_y": True, "softmax": True}}
    edited(app / "config/config_train.json", lambda conf: conf["train"].update(loss=loss))
    return app


def test_code_of_its_own_is_refused_by_default(
    start: Start, received: Weights, with_code: Path
) -> None:
    assert declined(start().train(received), "config-refused")


def test_approved_code_is_still_approved_after_it_was_imported(
    start: Start, received: Weights, with_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python writes what it has compiled beside the code, unless it is told not to."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    approved = tree_hash(with_code / "custom")
    site = start(byoc={"mode": "by_hash", "approved": [approved]})

    assert site.train(received).get_return_code() == ReturnCode.OK
    assert site.validate(received).get_return_code() == ReturnCode.OK
    assert tree_hash(with_code / "custom") == approved


def test_code_that_was_changed_after_the_approval_is_refused(
    start: Start, received: Weights, with_code: Path, run_folder: Path
) -> None:
    approved = tree_hash(with_code / "custom")
    (with_code / "custom/approved_loss.py").write_text("import os\n")
    site = start(byoc={"mode": "by_hash", "approved": [approved]})

    assert declined(site.train(received), "config-refused")
    assert "is not among the 1 approved" in next(run_folder.glob("error-*")).read_text()


# --- jobs that are approved as a whole


def test_the_process_of_a_job_judges_the_approval_once_more(
    start: Start, received: Weights, app: Path, edited: Edited, run_folder: Path
) -> None:
    """What was judged when the job arrived lay on the disk since then."""
    approved = tree_hash(app)
    assert start(jobs="approved", approved_jobs=[approved]).train(received)["DXO"]

    edited(app / "config/config_train.json", lambda conf: conf.update(epochs=2))
    site = start(jobs="approved", approved_jobs=[approved])

    assert declined(site.train(received), "config-refused")
    assert "has approved, and not this one" in next(run_folder.glob("error-*")).read_text()


# --- the log


def test_each_task_in_and_out_stands_in_the_audit_log(
    start: Start, received: Weights, kit: Path
) -> None:
    site = start(cross_site={"share_model": False})
    reply = site.train(received)
    site.do("submit_model")

    lines = [json.loads(line) for line in (kit / AUDIT_FILE).read_text().splitlines()]
    assert not verify_audit(kit / AUDIT_FILE).findings
    judged, task_in, task_out, failed = lines
    assert (judged["event"], judged["verdict"], judged["rules"]) == ("mmar-judged", "accept", [])
    assert (task_in["event"], task_in["task"]) == ("task-in", "train")
    assert task_in["tensors"] == digest(received)
    sent = from_shareable(reply).data
    assert task_in["bytes"] == task_out["bytes"] == sum(one.nbytes for one in sent.values())
    assert task_out["tensors"] != task_in["tensors"]
    assert (failed["event"], failed["status"]) == ("task-failed", "policy-declined")
    assert {one["job"] for one in lines} == {"job-1"}


def test_a_task_is_judged_and_noted_before_its_weights_are_read(
    start: Start, received: Weights, run_folder: Path, kit: Path
) -> None:
    """Weights with a fault hide neither the site's refusal nor the task in its log."""
    site = start(limits={"rounds": 1})
    faulty = {**received, min(received): torch.full_like(received[min(received)], torch.nan)}

    assert declined(site.train(faulty, 2))
    assert "round 2; limits.rounds of this site is 1" in reason(run_folder)
    assert declined(site.train(faulty), "weights-error")
    assert site.train(received).get_return_code() == ReturnCode.OK  # the round was not done

    lines = map(json.loads, (kit / AUDIT_FILE).read_text().splitlines())
    events = [line["event"] for line in lines if line["event"].startswith("task")]
    assert events == ["task-failed", "task-in", "task-failed", "task-in", "task-out"]


def test_a_site_that_cannot_write_its_log_does_nothing(
    start: Start, received: Weights, kit: Path
) -> None:
    (kit / "audit").write_text("in the way")

    with pytest.raises(OSError, match="audit"):
        start()
