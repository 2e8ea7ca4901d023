"""The course of a run after its training: scores, sites' own models, cells, and how a run ends.

The replies come straight to the run; ``tests/carriers`` brings them over both carriers.
"""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_server import federation
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL, read_cross_site_matrix
from fl_server.updates import Received
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.messages import SCORE, SUBMIT, VALIDATE
from mmar_runtime.weights import Weights, digest, read_checkpoint
from tests.conftest import metric, plain_metric
from tests.fl_server.conftest import (
    DICE,
    MadeUpRun,
    Spoil,
    Started,
    metrics,
    model,
    reply_of,
    weights_of,
)

SITES = ("site-1", "site-2")
GIVEN = ("theirs", "ours")
FAILED, DECLINED = "data-error (reference 0a)", "policy-declined (reference 0a)"


@pytest.fixture
def begin(started: Started) -> Started:
    """``begin(rounds, min_sites)``: a run of two sites; without rounds, of two given models."""

    def begin(rounds: int = 2, min_sites: int = 2) -> MadeUpRun:
        given = {} if rounds else {"theirs": lambda: weights_of(2), "ours": lambda: weights_of(3)}
        return started(
            weights=weights_of(0),
            durable=True,
            run={"given": given},
            rounds=rounds,
            min_sites=min_sites,
        )

    return begin


@pytest.fixture
def trained(begin: Started) -> MadeUpRun:
    found = begin()
    found.trained()
    return found


@pytest.fixture
def validating(trained: MadeUpRun) -> MadeUpRun:
    """Models of both sites, and both of the server, are out for evaluation."""
    trained.scored(0.75, 0.75)
    trained.submitted()
    trained.asked()
    return trained


# --- scores of the last global model


def test_the_best_model_is_kept_when_its_scores_are_there(trained: MadeUpRun) -> None:
    """Round 1's model scores 0.5, which is known only when round 2 has been trained."""
    trained.scored(0.25, 0.5)

    record = trained.run.record
    assert [one.mean[DICE].value for one in record.scores] == [0.25, 0.5, 0.375]
    assert record.best_round == 1
    best = trained.files.read(BEST_GLOBAL_MODEL)
    assert digest(best) == record.rounds[0].weights_sha256


def test_the_last_global_model_can_be_the_best(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)

    assert trained.run.record.best_round == 2
    best = trained.files.read(BEST_GLOBAL_MODEL)
    assert digest(best) == trained.run.record.rounds[1].weights_sha256


@pytest.mark.parametrize(
    "reply",
    [metrics("site-1", math.nan), metrics("site-1", 0.5, x=1.0), metrics("site-2", 0.5)],
    ids=["NaN", "another metric", "for another site"],
)
def test_a_spoilt_score_does_not_count(trained: MadeUpRun, reply: Received) -> None:
    assert trained.run.scored("site-1", reply)

    assert trained.run.record.scores_of(2) is None
    assert [one["site"] for one in trained.noted("reply-refused")] == ["site-1"]


def test_a_site_scores_once(trained: MadeUpRun) -> None:
    assert trained.run.scored("site-1", metrics("site-1", 0.5)) == ()

    [fault] = trained.run.scored("site-1", metrics("site-1", 1.0))

    assert "site-1 has answered already" in str(fault)
    scores = trained.run.record.scores_of(2)
    assert scores is not None
    assert dict(scores.sites["site-1"]) == {DICE: metric(0.5)}


def test_without_scores_no_model_can_be_selected(trained: MadeUpRun) -> None:
    with pytest.raises(FederationError, match="no site has scored the global model of round 2"):
        trained.run.close_scores()


# --- sites' own models


def test_a_good_model_is_kept_and_sent_to_every_site(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)

    assert trained.run.model("site-1", model("site-1")) == ()

    assert trained.run.record.local_bests["site-1"].round == 1
    asked = {task.owner: task for task in trained.run.cells_wanted()}
    assert list(asked) == [GLOBAL_MODEL, BEST_GLOBAL_MODEL, "site-1"]
    assert [task.is_global for task in asked.values()] == [True, True, False]
    assert asked["site-1"].weights["w"].tolist() == [5.0, 5.0]
    written = {path.name for path in (trained.folder / "models").iterdir()}
    assert written == {f"{name}.pt" for name in asked}
    assert [one["site"] for one in trained.noted("model-in")] == ["site-1"]


def nan(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    arrays["w"][0] = math.nan


def other_shape(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    arrays["w"] = np.zeros(3, np.float32)


def huge(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    arrays["w"] = np.broadcast_to(np.float32(0), (2**20, 2**20))


def objects(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    arrays["w"] = arrays["w"].astype(object)


def further_key(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    arrays["image"] = np.zeros((512, 512), np.float32)


def collection(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    metadata["kind"] = "COLLECTION"


def patients(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    metadata["meta.cases"] = ["DOE_JOHN_1961.nii.gz"]


def no_metrics(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    del metadata["metrics"]


def no_round(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    metadata["model_round"] = 0


def another_sites(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    metadata["site"] = "site-2"


SPOILT = [
    nan, other_shape, huge, objects, further_key, collection, patients, no_metrics, no_round,
    another_sites,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_model_is_neither_kept_nor_sent_on(trained: MadeUpRun, spoil: Spoil) -> None:
    trained.scored(0.75, 0.75)

    assert trained.run.model("site-1", model("site-1", spoil))
    assert trained.run.model("site-2", model("site-2")) == ()

    owners = [task.owner for task in trained.run.cells_wanted()]
    assert owners == [GLOBAL_MODEL, BEST_GLOBAL_MODEL, "site-2"]
    assert [one["site"] for one in trained.noted("reply-refused")] == ["site-1"]
    assert "site-1 submitted no model: refused by the server: " in trained.run.end().messages[0]


def test_a_site_submits_once(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)
    trained.submitted()

    [fault] = trained.run.model("site-1", model("site-1"))

    assert "site-1 has answered already" in str(fault)
    assert len(trained.noted("model-in")) == 2


def test_a_score_that_comes_after_the_last_model_was_judged_is_too_late(
    trained: MadeUpRun,
) -> None:
    trained.run.scored("site-1", metrics("site-1", 0.75))
    trained.run.close_scores()

    [fault] = trained.run.scored("site-2", metrics("site-2", 1.0))

    assert fault.rule == "late"
    scores = trained.run.record.scores_of(2)
    assert scores is not None
    assert set(scores.sites) == {"site-1"}


def test_a_model_that_comes_when_all_are_sent_out_is_too_late(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)
    trained.asked()

    [fault] = trained.run.model("site-1", model("site-1"))

    assert fault.rule == "late"
    assert dict(trained.run.record.local_bests) == {}


# --- cells


def test_a_run_with_everything_is_complete(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)
    trained.submitted()
    trained.evaluated()

    assert trained.run.end().blocking == ()

    record = trained.record_on_disk
    assert (record.status, record.failure) == ("complete", None)
    matrix = read_cross_site_matrix(trained.folder / "cross_site.json")
    assert matrix.complete
    assert matrix.models == (GLOBAL_MODEL, BEST_GLOBAL_MODEL, *SITES)
    assert matrix.weights_sha256["site-1"] == digest(weights_of(5))
    assert matrix.weights_sha256[GLOBAL_MODEL] == record.rounds[1].weights_sha256
    assert (trained.folder / "cross_site.csv").is_file()
    assert len(trained.noted("metrics-in")) == 2 + 4 * 2


BAD_METRICS = [
    metrics("site-2", math.nan), metrics("site-2", 1e9), metrics("site-2", "0.9"),
    metrics("site-2", np.ones(3)), metrics("site-2", 0.5, DOE_JOHN=0.5), metrics("site-1", 0.5),
    reply_of("site-2", {"acc": plain_metric(0.5)}, {"kind": "METRICS"}),
    reply_of("site-2", {DICE: plain_metric(0.5)}, {"kind": "METRICS", "meta.rows": [0.1] * 9}),
    reply_of("site-2", {DICE: plain_metric(0.5)}, {"kind": "WEIGHTS"}),
    Received(data=None, metadata={"kind": "none"}),
]  # fmt: skip


@pytest.mark.parametrize("reply", BAD_METRICS)
def test_spoilt_metrics_do_not_enter_the_matrix(validating: MadeUpRun, reply: Received) -> None:
    assert validating.run.cell("site-1", "site-2", reply)

    [told, *_] = validating.run.end().messages
    assert told.startswith("site-2 could not evaluate site-1: refused by the server: ")


def test_a_cell_is_written_once(validating: MadeUpRun) -> None:
    for value in (0.25, 1.0):
        validating.run.cell("site-1", "site-2", metrics("site-2", value))

    validating.run.end()

    matrix = read_cross_site_matrix(validating.folder / "cross_site.json")
    assert matrix.value("site-1", "site-2", DICE) == 0.25


def test_failures_that_nobody_asked_for_do_not_pile_up(validating: MadeUpRun) -> None:
    validating.run.cell("site-1", "site-2", metrics("site-2", 0.25))

    for number in range(20):
        validating.run.cell_absent("site-1", "site-2", f"data-error (reference {number:08x})")

    assert not any("could not evaluate" in told for told in validating.run.end().messages)


def test_metrics_of_a_model_that_was_never_sent_are_dropped(trained: MadeUpRun) -> None:
    [fault] = trained.run.cell(GLOBAL_MODEL, "site-1", metrics("site-1", 0.5))
    trained.run.cell_absent(GLOBAL_MODEL, "site-1", FAILED)

    assert fault.rule == "late"
    assert "could not evaluate" not in "".join(trained.run.end().messages)


def test_metrics_that_come_after_the_end_are_dropped(validating: MadeUpRun) -> None:
    validating.run.end()

    [fault] = validating.run.cell("site-1", "site-2", metrics("site-2", 0.25))

    assert fault.rule == "late"


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=ANYTHING, metadata=ANYTHING, owner=st.sampled_from(["site-1", "x"]))
def test_whatever_is_sent_is_refused_and_nothing_is_raised(
    validating: MadeUpRun, data: Any, metadata: Any, owner: str
) -> None:
    reply = Received(data=data, metadata=metadata)

    assert validating.run.cell(owner, "site-2", reply)
    assert validating.run.scored("site-2", reply)
    assert validating.run.model("site-2", reply)
    assert validating.run.take("site-2", reply)


# --- what falls short


def test_a_missing_cell_fails_the_run_and_is_named(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)
    trained.submitted()
    trained.evaluated(("site-2", "site-1"))
    trained.run.cell_absent("site-2", "site-1", FAILED)

    assert trained.run.end().blocking == (
        f"site-1 could not evaluate site-2: {FAILED}",
        "the matrix has no value of site-2 at site-1",
    )
    assert trained.record_on_disk.status == "failed"
    assert not read_cross_site_matrix(trained.folder / "cross_site.json").complete


def test_a_job_that_needs_fewer_sites_is_only_told(begin: Started) -> None:
    found = begin(min_sites=1)
    found.trained()
    found.scored(0.75, 0.75)
    found.submitted()
    found.evaluated(("site-2", "site-1"))

    outcome = found.run.end()

    assert outcome.blocking == ()
    assert outcome.messages == ("the matrix has no value of site-2 at site-1",)


def test_a_global_model_that_too_few_have_evaluated_fails_such_a_job(
    begin: Started,
) -> None:
    found = begin(min_sites=1)
    found.trained()
    found.scored(0.75, 0.75)
    found.evaluated(*((GLOBAL_MODEL, site) for site in SITES))

    blocking = found.run.end().blocking

    assert f"the matrix has no value of {GLOBAL_MODEL} at 2 sites" in blocking


def test_what_a_site_declines_by_its_policy_is_no_shortfall(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)
    trained.run.model("site-1", model("site-1"))
    trained.run.model_absent("site-2", DECLINED)
    trained.evaluated(("site-1", "site-2"))
    trained.run.cell_absent("site-1", "site-2", DECLINED)

    assert trained.run.end().blocking == ()


def test_a_site_that_has_no_model_falls_short(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)
    trained.run.model("site-1", model("site-1"))
    trained.run.model_absent("site-2", FAILED)
    trained.evaluated()

    assert f"site-2 submitted no model: {FAILED}" in trained.run.end().blocking


def test_without_any_evaluation_there_is_no_matrix(trained: MadeUpRun) -> None:
    trained.scored(0.75, 0.75)

    assert any("no cross-site result" in reason for reason in trained.run.end().blocking)
    assert not (trained.folder / "cross_site.json").exists()


# --- models that come with a job


@pytest.fixture
def comparing(begin: Started) -> MadeUpRun:
    return begin(rounds=0)


def test_given_models_are_evaluated_in_their_order(comparing: MadeUpRun) -> None:
    comparing.evaluated()

    assert comparing.run.end().blocking == ()

    record = comparing.record_on_disk
    assert (record.status, record.rounds, record.initial_weights_sha256) == ("complete", (), None)
    matrix = read_cross_site_matrix(comparing.folder / "cross_site.json")
    assert (matrix.complete, matrix.models, matrix.sites) == (True, GIVEN, SITES)
    expected = {"theirs": digest(weights_of(2)), "ours": digest(weights_of(3))}
    assert dict(matrix.weights_sha256) == expected


def test_the_record_of_such_a_run_is_there_while_it_runs(comparing: MadeUpRun) -> None:
    next(comparing.run.cells_wanted())
    comparing.files.wait()

    assert comparing.record_on_disk.status == "running"


def test_what_a_site_declines_of_given_models_is_no_shortfall(comparing: MadeUpRun) -> None:
    declined = [(name, "site-2") for name in GIVEN]
    comparing.evaluated(*declined)
    for cell in declined:
        comparing.run.cell_absent(*cell, DECLINED)

    assert comparing.run.end().blocking == ()
    missing = json.loads((comparing.folder / "cross_site.json").read_text())["missing"]
    assert missing == [list(cell) for cell in declined]


# --- a run that ends early


def test_a_run_that_fails_says_why_and_keeps_its_last_model(trained: MadeUpRun) -> None:
    trained.run.fail("no space left")
    trained.run.fail("another reason")

    record = trained.record_on_disk
    assert (record.status, record.failure) == ("failed", "no space left")
    last = read_checkpoint(trained.folder / "models" / f"{GLOBAL_MODEL}.pt")
    assert digest(last.weights) == record.rounds[1].weights_sha256


def test_the_end_does_not_change_a_complete_record(comparing: MadeUpRun) -> None:
    comparing.evaluated()
    comparing.run.end()

    comparing.run.fail("the run ended")

    assert comparing.record_on_disk.status == "complete"


def test_what_comes_after_the_end_is_too_late(
    begin: Started, caplog: pytest.LogCaptureFixture
) -> None:
    found = begin()
    update = found.update("site-1")
    found.run.fail("no space left")

    for faults in (
        found.run.take("site-1", update),
        found.run.scored("site-1", metrics("site-1", 0.5)),
        found.run.model("site-1", model("site-1")),
        found.run.cell("ours", "site-1", metrics("site-1", 0.5)),
    ):
        assert [fault.rule for fault in faults] == ["late"]
    assert [one.getMessage() for one in caplog.records] == [
        "contribution of site-1 rejected: round: arrived after the round was aggregated",
        *(f"late reply of site-1 to {task} is not used" for task in (SCORE, SUBMIT, VALIDATE)),
    ]
    found.run.absent("site-1", FAILED)
    found.run.model_absent("site-1", FAILED)
    assert found.run.record.rounds[0].sites == {}


def block(found: MadeUpRun) -> None:
    """From now on no model can be written."""
    found.files.wait()
    folder = found.folder
    (folder / "models").rename(folder / "moved")
    (folder / "models").write_text("a file where the folder should be")


def test_a_run_whose_models_cannot_be_written_is_not_complete(validating: MadeUpRun) -> None:
    block(validating)
    validating.files.model("site-1", weights_of(5))

    with pytest.raises(OSError, match="models"):
        validating.run.end()
    validating.run.fail("no space left")

    assert validating.record_on_disk.status == "failed"
    (validating.folder / "models").unlink()
    (validating.folder / "models").mkdir()


def test_a_run_fails_in_its_record_though_further_files_cannot_be_written(
    trained: MadeUpRun,
) -> None:
    block(trained)
    trained.files.model("site-1", weights_of(5))

    trained.run.fail("no space left")

    record = trained.record_on_disk
    assert (record.status, record.failure) == ("failed", "no space left")
    (trained.folder / "models").unlink()
    (trained.folder / "models").mkdir()


def test_the_global_model_is_hashed_once_in_a_round(
    begin: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(weights: Weights) -> str:
        hashed.append(digest(weights))
        return hashed[-1]

    monkeypatch.setattr(federation, "digest", counted)
    found = begin()
    found.trained()
    found.scored(0.75, 0.75)
    found.evaluated()
    found.run.end()

    updates = 2 * 2  # each for the audit log
    best = 1  # the server reads the file and hashes what it read
    assert len(hashed) == 2 + best + updates


def test_nothing_of_a_run_is_left_when_it_is_closed(begin: Started) -> None:
    others = set(threading.enumerate())
    found = begin()
    found.trained()

    found.run.close()

    assert set(threading.enumerate()) <= others
    assert list(found.folder.rglob("*.tmp")) == []
