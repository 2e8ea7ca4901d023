"""The run record: what a run leaves behind, here with numbers that are easy to add."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fl_server.record import files
from fl_server.record.files import RecordFile, in_a_line, read_run_record, write_run_record
from fl_server.record.recorder import NO_ANSWER, RunRecorder
from fl_server.record.shortfalls import shortfalls, unmet
from fl_server.record.values import (
    EpochRecord,
    RoundRecord,
    RunRecord,
    SiteAbsence,
    SiteContribution,
    SiteMean,
    mean_over_sites,
)
from mmar_runtime.errors import FederationError, StorageError
from mmar_runtime.metrics import ClassValue, MetricValue
from tests.conftest import metric, plain_metric

DICE = "val_mean_dice"
DIGEST = "0123456789abcdef" * 4
START = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


def new_record(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "job": "spleen_ct_segmentation",
        "engine": "nvflare",
        "started": START,
        "key_metric": DICE,
        "rounds_asked": 2,
        "sites": ("site-2", "site-1"),
        "min_sites": 2,
        "versions": {"mmar-fl": "1.0.0"},
        "initial_weights_sha256": DIGEST,
    }
    return RunRecord(**(values | changes))


HEAD = "12:" + 64 * "a"


def contribution(**changes: Any) -> SiteContribution:
    values: dict[str, Any] = {
        "steps": 4,
        "samples": 8,
        "epoch_samples": 8,
        "weight": 8.0,
        "sent_bytes": 604_000,
        "seconds": 3.25,
        "received_metrics": {DICE: metric(0.25)},
        "local_metrics": {DICE: metric(0.5)},
        "epochs": (EpochRecord(epoch=1, loss=0.75, metrics={"train_acc": metric(0.8)}),),
        "built": {"train.trainer": 1},
        "process": "a",
        "logs": {"mmar_audit.jsonl": HEAD},
    }
    return SiteContribution(**(values | changes))


def mm(value: float | None, **more: Any) -> MetricValue:
    """A distance at a site."""
    return metric(value, unit="mm", higher_is_better=False, **more)


class Ticks:
    """A clock that moves two seconds each time it is read."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timer(self) -> float:
        self.seconds += 2
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def new_recorder(**changes: Any) -> RunRecorder:
    ticks = Ticks()
    return RunRecorder(new_record(**changes), now=ticks.now, timer=ticks.timer)


def run_to_the_end() -> RunRecord:
    recorder = new_recorder()
    recorder.score(0, "site-1", {DICE: metric(0.0)})
    recorder.score(0, "site-2", {DICE: metric(0.25)})
    for number in (1, 2):
        recorder.start_round(number)
        recorder.contribution("site-2", contribution())
        recorder.contribution("site-1", contribution(steps=4))
        recorder.close_round(DIGEST)
        recorder.score(number, "site-2", {DICE: metric(0.5 + number / 8)})
        recorder.score(number, "site-1", {DICE: metric(0.25 + number / 8)})
    recorder.best(2)
    recorder.local_best("site-1", 2, {DICE: metric(0.5)})
    return recorder.finish("complete")


# ---------------------------------------------------------------- a run that goes well


def test_a_complete_run_says_who_contributed_what() -> None:
    record = run_to_the_end()

    assert record.status == "complete"
    assert record.sites == ("site-1", "site-2")
    assert [one.contributors for one in record.rounds] == [("site-1", "site-2")] * 2
    assert record.rounds[0].seconds == 2  # one tick between the start and the end of the round
    assert shortfalls(record) == ()


def test_a_digest_may_follow_while_the_next_round_goes_on() -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.contribution("site-1", contribution())
    recorder.close_round()
    recorder.start_round(2)

    assert recorder.record.rounds[0].awaits_digest
    with pytest.raises(FederationError, match="both seconds and weights_sha256"):
        recorder.record.as_dict()  # no document lacks it

    recorder.digest(1, DIGEST)

    first, second = recorder.record.as_dict()["rounds"]
    assert (first["weights_sha256"], second["weights_sha256"]) == (DIGEST, None)
    assert first["seconds"] == 2  # until the aggregation, not until the digest


@pytest.mark.parametrize("number", [1, 2], ids=["has one", "is open"])
def test_a_digest_is_given_once_and_of_a_closed_round(number: int) -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.contribution("site-1", contribution())
    recorder.close_round(DIGEST)
    recorder.start_round(2)

    with pytest.raises(FederationError, match=f"round {number} awaits no digest"):
        recorder.digest(number, DIGEST)


def test_the_json_has_the_documented_keys() -> None:
    document = run_to_the_end().as_dict()

    assert document["format_version"] == 2
    assert document["started"] == "2030-01-01T12:00:00+00:00"
    assert document["scores"][0] == {
        "round": 0,
        "sites": {"site-1": {DICE: plain_metric(0.0)}, "site-2": {DICE: plain_metric(0.25)}},
        "mean": {DICE: {"value": (0.0 + 0.25) / 2, "sites": 2, "undefined": [], "unit": ""}},
    }
    assert document["best_round"] == 2
    best = {"round": 2, "metrics": {DICE: plain_metric(0.5)}}
    assert document["local_bests"] == {"site-1": best}
    assert document["rounds"][0]["sites"]["site-1"] == {
        "status": "contributed",
        "steps": 4,
        "samples": 8,
        "epoch_samples": 8,
        "weight": 8.0,
        "bytes": 604_000,
        "seconds": 3.25,
        "received_metrics": {DICE: plain_metric(0.25)},
        "local_metrics": {DICE: plain_metric(0.5)},
        "epochs": [{"epoch": 1, "loss": 0.75, "metrics": {"train_acc": plain_metric(0.8)}}],
        "built": {"train.trainer": 1},
        "process": "a",
        "logs": {"mmar_audit.jsonl": HEAD},
        "reason": None,
    }


def test_the_record_keeps_the_heads_of_each_sites_logs() -> None:
    record = run_to_the_end()

    assert record.log_heads("site-1") == {"mmar_audit.jsonl": [HEAD, HEAD]}
    assert record.log_heads("site-3") == {}


def test_a_record_survives_the_way_through_json() -> None:
    record = run_to_the_end()

    assert RunRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record


def test_a_metric_survives_it_with_all_that_it_says() -> None:
    spleen = ClassValue(value=0.75, counted=2, missed=1, absent=3, spurious=1)
    whole = metric(0.75, 2, undefined=1, unit="mm", higher_is_better=False, classes={"s": spleen})
    recorder = new_recorder()
    recorder.score(0, "site-1", {DICE: whole})
    recorder.score(0, "site-2", {DICE: mm(None, withheld=True)})
    record = recorder.record

    document = json.loads(json.dumps(record.as_dict()))
    assert RunRecord.from_dict(document) == record
    assert document["scores"][0]["mean"][DICE] == {
        "value": 0.75, "sites": 1, "undefined": ["site-2"], "unit": "mm",
    }  # fmt: skip
    assert not record.higher_is_better


def test_a_snapshot_does_not_change_while_the_run_goes_on() -> None:
    recorder = new_recorder()
    before = recorder.record

    recorder.start_round(1)

    assert before.rounds == ()
    assert recorder.record.open_round is not None
    with pytest.raises(TypeError):
        before.versions["mmar-fl"] = "2"  # type: ignore[index]  # that it is refused is the test


def test_the_order_of_arrival_does_not_change_the_record() -> None:
    one, other = new_recorder(), new_recorder()
    for recorder, sites in ((one, ("site-1", "site-2")), (other, ("site-2", "site-1"))):
        recorder.start_round(1)
        for site in sites:
            recorder.contribution(site, contribution())
        recorder.close_round(DIGEST)

    assert json.dumps(one.record.as_dict()) == json.dumps(other.record.as_dict())


# ---------------------------------------------------------------- sites that fall short


def test_absences_are_recorded_with_their_reason() -> None:
    recorder = new_recorder(sites=("a", "b", "c", "d"), min_sites=2)
    recorder.start_round(1)
    recorder.contribution("a", contribution())
    recorder.rejected("b", "the norm of the update is not finite")
    recorder.failed("c", "out of memory")
    recorder.close_round(DIGEST)

    sites = recorder.record.as_dict()["rounds"][0]["sites"]
    assert sites["b"] == {"status": "rejected", "reason": "the norm of the update is not finite"}
    assert sites["c"] == {"status": "failed", "reason": "out of memory"}
    assert sites["d"] == {"status": "missing", "reason": NO_ANSWER}


def test_shortfalls_name_absences_small_rounds_and_missing_scores() -> None:
    recorder = new_recorder()
    recorder.score(0, "site-1", {DICE: metric(0.0)})
    recorder.score(0, "site-2", {DICE: metric(0.0)})
    recorder.start_round(1)
    recorder.contribution("site-1", contribution())
    recorder.failed("site-2", "the site was shut down.")
    recorder.close_round(DIGEST)
    recorder.score(1, "site-1", {DICE: metric(0.5)})

    assert shortfalls(recorder.record) == (
        "Round 1: site-2 did not contribute (failed: the site was shut down).",
        "Round 1: 1 of 2 sites contributed, 2 are required.",
        "Round 1: site-2 has not scored the global model.",
    )


def test_a_failed_run_keeps_its_open_round() -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.rejected("site-1", "wrong shape")

    record = recorder.finish("failed", "no site contributed to round 1")

    assert RunRecord.from_dict(record.as_dict()) == record
    assert record.as_dict()["rounds"][0]["seconds"] is None
    assert shortfalls(record)[2:] == (
        "Round 1: site-1 did not contribute (rejected: wrong shape).",
        "Round 1: site-2 had not contributed when the run ended.",
        "0 of 2 rounds were completed.",
    )


# ---------------------------------------------------------------- nothing is made up


def test_a_contribution_is_taken_out_again_with_the_score_that_came_with_it() -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    for site in ("site-1", "site-2"):
        recorder.contribution(site, contribution())
        recorder.score(0, site, {DICE: metric(0.5)})

    recorder.changed("site-1", SiteAbsence(status="rejected", reason="its norm is too large"))

    assert recorder.record.rounds[0].contributors == ("site-2",)
    assert list(recorder.record.scores[0].sites) == ["site-2"]


def test_the_last_score_of_a_model_that_is_taken_out_leaves_none() -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.contribution("site-1", contribution())
    recorder.score(0, "site-1", {DICE: metric(0.5)})

    recorder.changed("site-1", SiteAbsence(status="rejected", reason="its norm is too large"))

    assert recorder.record.scores == ()


def test_a_site_that_failed_may_contribute_after_all() -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.failed("site-1", "data-error")

    recorder.changed("site-1", contribution())

    assert recorder.record.rounds[0].contributors == ("site-1",)


def test_only_what_is_recorded_can_change() -> None:
    recorder = new_recorder()
    recorder.start_round(1)

    with pytest.raises(FederationError, match="round 1: nothing is recorded of site-1"):
        recorder.changed("site-1", contribution())


def test_a_round_without_contributors_cannot_be_closed() -> None:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.rejected("site-1", "wrong shape")

    with pytest.raises(FederationError, match="round 1 has no contribution"):
        recorder.close_round(DIGEST)


def test_mean_over_sites() -> None:
    scores = {
        "site-2": {DICE: metric(0.5, 100), "hd95": mm(8.0)},
        "site-1": {DICE: metric(0.25, 1), "hd95": mm(2.0)},
    }

    assert mean_over_sites(scores) == {
        DICE: SiteMean(value=(0.25 + 0.5) / 2, sites=2),  # each site counts the same
        "hd95": SiteMean(value=(2.0 + 8.0) / 2, sites=2, unit="mm"),
    }


@pytest.mark.parametrize(
    ("metrics", "mean"),
    [
        (
            [mm(4.0), mm(None), mm(2.0)],
            SiteMean(value=3.0, sites=2, undefined=("site-2",), unit="mm"),
        ),
        ([mm(None), mm(None)], SiteMean(value=None, sites=0, undefined=("site-1", "site-2"))),
        (
            [mm(4.0), mm(None, withheld=True)],
            SiteMean(value=4.0, sites=1, undefined=("site-2",), unit="mm"),
        ),
        ([mm(4.0), metric(2.0, unit="voxels")], SiteMean(value=None, sites=2)),
        ([mm(4.0), metric(None)], SiteMean(value=4.0, sites=1, undefined=("site-2",), unit="mm")),
    ],
    ids=["one undefined", "all undefined", "one withheld", "two units", "the unit of no value"],
)
def test_a_mean_goes_over_the_sites_with_a_value_and_one_unit(
    metrics: list[MetricValue], mean: SiteMean
) -> None:
    scores = {f"site-{number}": {"hd95": one} for number, one in enumerate(metrics, start=1)}

    assert mean_over_sites(scores) == {"hd95": mean}


def test_a_mean_over_zero_sites_does_not_exist() -> None:
    with pytest.raises(FederationError, match="zero sites"):
        mean_over_sites({})


def test_a_metric_that_one_site_withholds_has_no_mean() -> None:
    """It would be a mean over the others, and look like one over all."""
    scores = {"site-1": {DICE: metric(0.5), "hd95": mm(2.0)}, "site-2": {DICE: metric(0.5)}}

    assert mean_over_sites(scores) == {DICE: SiteMean(value=0.5, sites=2)}


@pytest.mark.parametrize("value", [0.5, True, "0.5", None, plain_metric(0.5)])
def test_a_metric_is_more_than_a_number(value: Any) -> None:
    recorder = new_recorder()
    with pytest.raises(FederationError, match=r"\['val_mean_dice'\]: expected a metric, found"):
        recorder.score(0, "site-1", {DICE: value})
    assert recorder.record.scores == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "0.5"])
def test_the_value_of_a_metric_is_a_finite_number_or_none(value: Any) -> None:
    document = run_to_the_end().as_dict()
    document["local_bests"]["site-1"]["metrics"][DICE]["value"] = value

    with pytest.raises(FederationError, match=r"a number|cannot have the value"):
        RunRecord.from_dict(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number from 1 on, found 0"),
        ({"steps": 1.5}, "steps: expected a whole number"),
        ({"sent_bytes": True}, "bytes: expected a whole number"),
        ({"seconds": -1.0}, "seconds: expected a number from 0 on"),
        ({"local_metrics": {DICE: math.nan}}, "expected a metric, found nan"),
        ({"process": " "}, "process: expected a name of letters"),
        ({"logs": {"another.jsonl": HEAD}}, "logs: expected heads of mmar_audit.jsonl and"),
        ({"logs": {"mmar_audit.jsonl": f"{HEAD}\n"}}, "logs: expected heads"),
        ({"logs": {"mmar_audit.jsonl": "0:" + 64 * "0"}}, "logs: expected heads"),
        ({"logs": {"mmar_audit.jsonl": 3}}, "logs: expected heads"),
        ({"logs": [HEAD]}, "logs: expected an object"),
    ],
)
def test_a_contribution_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FederationError, match=message):
        contribution(**change)


def test_an_epoch_without_a_finite_loss_is_refused() -> None:
    with pytest.raises(FederationError, match="loss: expected a finite number, found nan"):
        EpochRecord(epoch=1, loss=math.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_sites": 3}, "asks for 3 sites in each round, the run has 2: site-1, site-2"),
        ({"sites": ()}, "sites: expected at least one name"),
        ({"sites": ("a", "a")}, "sites: expected each name once"),
        ({"initial_weights_sha256": "abc"}, "expected 64 hexadecimal digits"),
        ({"started": datetime(2030, 1, 1)}, "expected a time with its time zone"),
        ({"versions": {"torch": ""}}, r"versions\['torch'\]: expected a text"),
    ],
)
def test_the_head_of_a_record_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FederationError, match=message):
        new_record(**change)


def test_steps_out_of_order_are_refused() -> None:
    recorder = new_recorder()
    with pytest.raises(FederationError, match="no round is open"):
        recorder.contribution("site-1", contribution())
    with pytest.raises(FederationError, match="round 1 comes next, found 2"):
        recorder.start_round(2)
    with pytest.raises(FederationError, match="round 1 has no global model"):
        recorder.score(1, "site-1", {DICE: metric(0.5)})
    with pytest.raises(FederationError, match="the model of round 0 has no scores"):
        recorder.best(0)

    recorder.start_round(1)
    with pytest.raises(FederationError, match="'site-9' is not a site of this run"):
        recorder.contribution("site-9", contribution())
    recorder.contribution("site-1", contribution())
    with pytest.raises(FederationError, match="site-1 is recorded already"):
        recorder.rejected("site-1", "late")
    with pytest.raises(FederationError, match="round 1 was not closed before the next one"):
        recorder.start_round(2)


def test_a_score_counts_once_and_holds_the_key_metric() -> None:
    recorder = new_recorder()
    recorder.score(0, "site-1", {DICE: metric(0.5)})

    with pytest.raises(FederationError, match="site-1 has scored the global model already"):
        recorder.score(0, "site-1", {DICE: metric(0.75)})
    with pytest.raises(FederationError, match="key metric 'val_mean_dice' is missing"):
        new_recorder().score(0, "site-1", {"loss": metric(0.5)})


def test_a_run_with_fewer_rounds_than_asked_is_not_complete() -> None:
    recorder = new_recorder()
    with pytest.raises(FederationError, match="0 of 2 rounds are closed"):
        recorder.finish("complete")
    with pytest.raises(FederationError, match="failure: expected a text"):
        recorder.finish("failed")


def test_a_finished_record_does_not_change() -> None:
    recorder = new_recorder()
    recorder.finish("failed", "stopped by the administrator")

    with pytest.raises(FederationError, match="the run is failed"):
        recorder.score(0, "site-1", {DICE: metric(0.5)})


# ---------------------------------------------------------------- on disk


def test_a_record_is_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "run_record.json"
    write_run_record(path, new_record())
    write_run_record(path, run_to_the_end())

    assert read_run_record(path) == run_to_the_end()
    assert os.listdir(tmp_path) == ["run_record.json"]


def test_a_record_has_a_line_for_each_round_and_for_the_scores_of_each_model(
    tmp_path: Path,
) -> None:
    record = run_to_the_end()
    path = tmp_path / "run_record.json"
    write_run_record(path, record)

    lines = [line.strip().rstrip(",") for line in path.read_text().splitlines()]
    document = record.as_dict()
    for part in (*document["rounds"], *document["scores"]):
        assert json.dumps(part) in lines
    assert path.read_text().startswith('{\n  "format_version": 2,\n  "job": ')


def test_a_record_that_is_written_again_makes_lines_for_what_is_new_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(value: Any) -> str:
        if isinstance(value, RoundRecord):
            made.append(value.number)
        return in_a_line(value)

    monkeypatch.setattr(files, "in_a_line", counted)
    path, once = tmp_path / "again", tmp_path / "once"
    file, recorder = RecordFile(path), new_recorder()

    for number in (1, 2):
        recorder.start_round(number)
        file.write(recorder.record)
        recorder.contribution("site-2", contribution())
        recorder.contribution("site-1", contribution())
        recorder.close_round(DIGEST)
        recorder.score(number, "site-1", {DICE: metric(0.5)})
        file.write(recorder.record)
    recorder.score(2, "site-2", {DICE: metric(0.25)})
    recorder.finish("complete")
    file.write(recorder.record)

    assert made == [1, 1, 2, 2]
    write_run_record(once, recorder.record)
    assert path.read_text() == once.read_text()


def test_a_number_that_json_does_not_know_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        in_a_line({"seconds": float("nan")})


def test_a_failed_write_leaves_the_former_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run_record.json"
    write_run_record(path, new_record())

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        write_run_record(path, run_to_the_end())

    assert read_run_record(path) == new_record()
    assert os.listdir(tmp_path) == ["run_record.json"]


def test_a_fault_in_a_file_names_file_and_place(tmp_path: Path) -> None:
    document = run_to_the_end().as_dict()
    document["rounds"][1]["sites"]["site-2"]["steps"] = -1
    path = tmp_path / "run_record.json"
    path.write_text(json.dumps(document), encoding="utf-8")

    with pytest.raises(FederationError) as caught:
        read_run_record(path)

    place = "rounds[1]: sites['site-2']: steps: expected a whole number from 1 on, found -1"
    assert str(caught.value) == f"{path}: {place}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "format_version: expected 2, found 1"),
        ({"colour": "red"}, "unknown: colour"),
        ({"started": "yesterday"}, "started: expected an ISO 8601 time"),
        ({"status": "done"}, "status: found 'done'; allowed: 'running', 'complete', 'failed'"),
        ({"best_round": 7}, "best_round: the model of round 7 has no scores"),
        ({"scores": {}}, "scores: expected a list"),
    ],
)
def test_an_unfit_document_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FederationError, match=message):
        RunRecord.from_dict(run_to_the_end().as_dict() | change)


def test_a_document_without_a_key_is_refused() -> None:
    document = run_to_the_end().as_dict()
    del document["min_sites"]

    with pytest.raises(FederationError, match="missing: min_sites"):
        RunRecord.from_dict(document)


@pytest.mark.parametrize(
    "change", [{"value": 0.99}, {"value": None}, {"sites": 1}, {"undefined": ["site-1"]}]
)
def test_a_mean_that_its_sites_do_not_give_is_refused(change: dict[str, Any]) -> None:
    document = run_to_the_end().as_dict()
    document["scores"][1]["mean"][DICE] |= change

    with pytest.raises(FederationError, match="the file was changed after it was written"):
        RunRecord.from_dict(document)


# --- without rounds


def without_rounds() -> RunRecorder:
    return new_recorder(rounds_asked=0, initial_weights_sha256=None)


def test_a_run_that_only_evaluates_is_complete_without_a_round() -> None:
    recorder = without_rounds()
    assert not recorder.record.trains

    record = recorder.finish("complete")

    assert (shortfalls(record), unmet(record)) == ((), ())
    assert RunRecord.from_dict(record.as_dict()) == record


def test_it_can_have_neither_a_round_nor_first_weights() -> None:
    with pytest.raises(FederationError, match="0 were asked for, found more"):
        without_rounds().start_round(1)
    with pytest.raises(FederationError, match="starts from no weights"):
        new_record(rounds_asked=0)
    with pytest.raises(FederationError, match="initial_weights_sha256: expected 64 hex"):
        new_record(initial_weights_sha256=None)
