"""What a person sees of a run: a table on a terminal, lines in a file."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from fl_admin.cli.live import Lines, headline, live_view, number, progress_table
from fl_admin.simulation.follow import SimulationView, SiteView
from fl_server.record.recorder import RunRecorder
from fl_server.record.values import RunRecord
from tests.conftest import metric

DICE = "val_mean_dice"
TRAINING = SiteView(task="train", round_number=2, epoch=5, iteration=(1, 4), loss=0.5, metric=0.25)


def view(*sites: SiteView, **changes: Any) -> SimulationView:
    named = {f"site-{count}": site for count, site in enumerate(sites, start=1)}
    values = {"sites": named, "rounds": 3, "record": None, "elapsed": 61.4, "seconds_left": None}
    return SimulationView(**(values | changes))


def scored_record(*values: float | None) -> RunRecord:
    recorder = RunRecorder(
        RunRecord(
            job="j",
            engine="nvflare",
            started=datetime(2030, 1, 1, tzinfo=UTC),
            key_metric=DICE,
            rounds_asked=3,
            sites=("site-1", "site-2"),
            min_sites=1,
            versions={},
            initial_weights_sha256="0" * 64,
        )
    )
    for count, value in enumerate(values, start=1):
        recorder.score(0, f"site-{count}", {DICE: metric(value)})
    return recorder.record


def rendered(table: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_the_table_has_a_row_for_each_site() -> None:
    text = rendered(progress_table(view(TRAINING, SiteView())))

    assert "0 of 3 rounds done, 61 s" in text
    row = next(line for line in text.splitlines() if "site-1" in line)
    assert [part.strip() for part in row.split("│")[1:-1]] == [
        "site-1", "2/3", "train", "5", "1/4", "0.5000", "0.2500",
    ]  # fmt: skip
    assert "starting" in next(line for line in text.splitlines() if "site-2" in line)


def test_the_headline_says_how_long_it_will_take_once_that_is_known() -> None:
    assert headline(view()) == "0 of 3 rounds done, 61 s"
    assert headline(view(seconds_left=90.0)).endswith(", about 90 s of training to go")


@pytest.mark.parametrize(("value", "text"), [(None, ""), (0.0, "0.0000"), (0.12345, "0.1235")])
def test_a_number_that_is_not_there_is_an_empty_cell_and_no_zero(
    value: float | None, text: str
) -> None:
    assert number(value) == text


def test_a_line_is_printed_when_a_site_begins_something_and_only_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    lines(view(SiteView()))
    lines(view(SiteView(task="train", round_number=1)))
    lines(view(SiteView(task="train", round_number=1, iteration=(1, 4), loss=0.5)))
    lines(view(SiteView(task="validate", model="site-2", round_number=1, loss=0.5)))

    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "[  61 s] site-1: round 1/3, train",
        "[  61 s] site-1: round 1/3, validate site-2, loss 0.5000",
    ]
    assert output.out == ""


def test_a_score_is_printed_once_every_site_has_given_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    lines(view(record=scored_record(0.25)))
    lines(view(record=scored_record(0.25, 0.75)))
    lines(view(record=scored_record(0.25, 0.75)))

    assert capsys.readouterr().err == (
        "[  61 s] global model of round 0: mean val_mean_dice 0.5000\n"
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [((0.25, None), "0.2500 (1 of 2 sites)"), ((None, None), "undefined")],
)
def test_a_score_without_a_value_is_told_as_such(
    values: tuple[float | None, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Lines()(view(record=scored_record(*values)))

    assert capsys.readouterr().err.endswith(f"mean val_mean_dice {told}\n")


def test_where_there_is_no_terminal_lines_are_printed() -> None:
    with live_view() as show:
        assert isinstance(show, Lines)


def test_of_a_job_without_rounds_none_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    site = SiteView(task="validate", model="SRV_ours")
    look = view(site, rounds=0)

    assert headline(look) == "models are evaluated at each site, 61 s"
    assert "0/0" not in rendered(progress_table(look))
    Lines()(look)
    assert capsys.readouterr().err == "[  61 s] site-1: validate SRV_ours\n"
