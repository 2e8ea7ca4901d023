"""Why a job did not complete: the site, what happened there, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fl_admin.at_server.console import JobState
from fl_admin.at_server.job_end import ADVICE, explained_end
from fl_admin.at_server.job_results import JobResults, read_job_results, write_job_report
from fl_client.status_words import STATUS_WORDS
from fl_server.record.files import write_run_record
from fl_server.record.recorder import SERVER_ENDED, RunRecorder, finish_run
from fl_server.record.values import RunRecord, SiteContribution
from tests.conftest import metric

DICE = "val_mean_dice"
SITES = ("site-1", "site-2")
FAILED = "FINISHED:EXECUTION_EXCEPTION"
CONTRIBUTION = SiteContribution(
    steps=3, sent_bytes=1, seconds=1.0, received_metrics={DICE: metric(0.5)},
    local_metrics={DICE: metric(0.5)}, epochs=(), built={}, process="p",
)  # fmt: skip

Told = Callable[..., list[str]]


def state(status: str = FAILED, **changes: object) -> JobState:
    values: dict[str, object] = {
        "job_id": "4711", "name": "spleen", "status": status, "submitter": "lead@hub.org",
        "submitted": "", "duration": "", "deployment": {}, "schedule": (),
    }  # fmt: skip
    return JobState(**(values | changes))  # type: ignore[arg-type]


def recorder() -> RunRecorder:
    return RunRecorder(
        RunRecord(
            job="spleen", engine="nvflare", started=datetime(2030, 1, 1, tzinfo=UTC),
            key_metric=DICE, rounds_asked=2, sites=SITES, min_sites=2, versions={},
            initial_weights_sha256="0" * 64,
        )
    )  # fmt: skip


def failed(record: RunRecord, reason: str) -> JobResults:
    ended = finish_run(record, "failed", reason, datetime(2030, 1, 2, tzinfo=UTC))
    return JobResults(folder=Path(), record=ended, matrix=None, fatal=())


def lines(state: JobState, results: JobResults | None) -> list[str]:
    return [line.strip() for line in explained_end(state, results).splitlines()]


def test_every_status_word_of_a_site_has_advice() -> None:
    words = {word for _, word in STATUS_WORDS} | {"internal-error", "gate-refused"}

    assert words <= ADVICE.keys()


def test_an_error_in_a_round_names_the_site_the_word_what_to_do_and_where_the_text_is() -> None:
    run = recorder()
    run.start_round(1)
    run.contribution("site-1", CONTRIBUTION)
    run.failed("site-2", "data-error (reference 5be1a0c3)")

    told = lines(state(), failed(run.record, "Result from site-2 is bad"))

    assert told == [
        "spleen (4711) ended as EXECUTION_EXCEPTION, with 0 of 2 rounds done",
        "site-2: data-error in round 1: an image or label there cannot be read, or does not fit "
        "the transforms; its administrator mends the file, or takes it out of the data list. The "
        "text is in error-5be1a0c3.txt there.",
    ]


def test_an_error_in_cross_site_validation_is_told_once_for_a_site() -> None:
    run = recorder()
    run.start_round(1)
    reason = (
        "site-2 could not evaluate FL_global_model: out-of-memory (reference aaaaaaaa); "
        "site-2 could not evaluate site-1: out-of-memory (reference bbbbbbbb)"
    )

    (_, told) = lines(state(), failed(run.record, reason))

    assert told.startswith("site-2: out-of-memory: take a smaller batch_size")
    assert told.endswith("error-aaaaaaaa.txt there.")


def test_a_site_whose_name_begins_another_is_not_blamed_for_it() -> None:
    run = RunRecorder(
        RunRecord(
            job="spleen", engine="nvflare", started=datetime(2030, 1, 1, tzinfo=UTC),
            key_metric=DICE, rounds_asked=2, sites=("site-1", "site-12"), min_sites=2, versions={},
            initial_weights_sha256="0" * 64,
        )
    )  # fmt: skip
    run.start_round(1)
    reason = "site-12 could not evaluate FL_global_model: data-error (reference aaaaaaaa)"

    (_, told) = lines(state(), failed(run.record, reason))

    assert told.startswith("site-12: data-error: ")


def test_a_site_that_has_not_answered_may_have_lost_its_process() -> None:
    run = recorder()
    run.start_round(1)
    run.contribution("site-1", CONTRIBUTION)

    told = lines(state(), failed(run.record, "the run ended before its results were complete"))

    assert told[1].startswith("site-2: had not answered in round 1; its process may have been")
    assert told[2] == "server: the run ended before its results were complete"


def test_an_update_that_the_guard_rejected_is_told_with_its_reason() -> None:
    run = recorder()
    run.start_round(1)
    run.rejected("site-2", "finite: values that are not finite")

    told = lines(state(), failed(run.record, "too few contributions"))

    assert told[1] == (
        "site-2: its update of round 1 was rejected: finite: values that are not finite"
    )


def test_a_server_that_ended_before_the_first_round_has_the_reason_in_its_log(
    tmp_path: Path,
) -> None:
    log = tmp_path / "workspace" / "log.txt"
    log.parent.mkdir()
    log.write_text(
        "x - ERROR - Aborting current RUN due to FATAL_SYSTEM_ERROR received: no initial model: y\n"
        "x - ERROR - Aborting current RUN due to FATAL_SYSTEM_ERROR received: Exception in "
        "workflow scatter_and_gather: <class 'FederationError'>\n"
    )

    results = read_job_results(tmp_path)

    assert lines(state(), results)[1:] == ["server: no initial model: y"]
    assert not write_job_report(results)


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        ("code", "its administrator can look at the code and approve it: mmar site approve"),
        ("data", "its administrator runs: mmar site setup"),
        ("job-file", "mend that in the job, or ask the site's administrator what the policy"),
    ],
)
def test_a_refusal_says_what_to_do(rule: str, advice: str) -> None:
    deployment = {"server": "OK", "site-1": "OK", "site-2": f"refused: {rule}: x: y"}

    told = lines(state("FINISHED:FAILED_TO_RUN", deployment=deployment), None)

    assert told[1] == f"site-2: refused: {rule}: x: y"
    assert told[2].startswith(f"What to do: {advice}")


def test_nothing_is_made_up_where_nothing_is_known() -> None:
    assert lines(state("FINISHED:ABANDONED"), None)[1:] == ["nothing more is known"]
    assert lines(state("FINISHED:ABORTED"), None)[1:] == [
        "somebody has aborted it, or the server was stopped"
    ]


def test_the_report_lies_beside_the_results(tmp_path: Path) -> None:
    run = recorder()
    run.start_round(1)
    run.failed("site-2", "data-error (reference 5be1a0c3)")
    ended = failed(run.record, "x").record
    assert ended is not None
    write_run_record(tmp_path / "workspace/results/run_record.json", ended)

    results = read_job_results(tmp_path)

    assert write_job_report(results)
    assert "data-error" in results.report.read_text()


def test_no_site_is_blamed_where_the_servers_process_has_ended() -> None:
    running = recorder()
    running.start_round(1)
    running.contribution("site-1", CONTRIBUTION)

    told = lines(state("FINISHED:ABNORMAL"), failed(running.record, SERVER_ENDED))

    assert told == [
        "spleen (4711) ended as ABNORMAL, with 0 of 2 rounds done",
        f"server: {SERVER_ENDED}; submit the job again",
    ]
