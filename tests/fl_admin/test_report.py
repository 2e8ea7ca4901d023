"""The report: two sites, two rounds, three models, and numbers that one can find on the page."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fl_admin.report.html import heat_colours, render_matrix, render_report, write_report
from fl_admin.report.summary import status_text, summary_facts
from fl_admin.report.text import render_text
from fl_server.record.cross_site import GLOBAL_MODEL, CrossSiteMatrix
from fl_server.record.recorder import RunRecorder
from fl_server.record.values import EpochRecord, RunRecord, SiteContribution
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import ClassValue, MetricValue
from mmar_runtime.names import shown
from tests.conftest import metric

DICE = "val_mean_dice"
SITES = ("site-1", "site-2")
NONE = "\N{EN DASH}"
NOON = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script>"


def new_recorder(*, sites: tuple[str, ...] = SITES, label: str = DICE) -> RunRecorder:
    record = RunRecord(
        job="spleen_ct_segmentation",
        engine="nvflare",
        started=NOON,
        key_metric=label,
        rounds_asked=2,
        sites=sites,
        min_sites=2,
        versions={"torch": "2.8.0"},
        initial_weights_sha256="0" * 64,
    )
    return RunRecorder(record, now=lambda: NOON, timer=lambda: 0.0)


def contribution(*, label: str = DICE, loss: float = 0.5) -> SiteContribution:
    return SiteContribution(
        steps=12,
        weight=24.0,
        sent_bytes=604_000,
        seconds=3.2,
        received_metrics={label: metric(0.111)},
        local_metrics={label: metric(0.222)},
        epochs=(EpochRecord(epoch=1, loss=loss),),
        built={"train.trainer": 1},
        process="a",
    )


def score_all(recorder: RunRecorder, number: int, *values: float | None) -> None:
    for site, value in zip(recorder.record.sites, values, strict=True):
        recorder.score(number, site, {recorder.record.key_metric: metric(value)})


def complete_run(*, sites: tuple[str, ...] = SITES, label: str = DICE) -> RunRecord:
    recorder = new_recorder(sites=sites, label=label)
    score_all(recorder, 0, 0.0, 0.25)
    for number in (1, 2):
        recorder.start_round(number)
        for site in sites:
            recorder.contribution(site, contribution(label=label, loss=1 / number))
        recorder.close_round(str(number) * 64)
        score_all(recorder, number, 0.25 * number, 0.375 * number)
    recorder.best(2)
    recorder.local_best(sites[0], 1, {label: metric(0.8125)})
    return recorder.finish("complete")


def failed_run() -> RunRecord:
    recorder = new_recorder()
    recorder.start_round(1)
    recorder.rejected("site-1", "the norm of the update is not finite")
    return recorder.finish("failed", "round 1: 0 of 2 sites contributed")


def matrix_of(cells: Any = None, *, sites: tuple[str, ...] = SITES, label: str = DICE) -> Any:
    values = {GLOBAL_MODEL: (0.75, 0.5), sites[0]: (0.875, 0.25), sites[1]: (0.25, 0.625)}
    full = {
        model: {site: {label: metric(v)} for site, v in zip(sites, row, strict=True)}
        for model, row in values.items()
    }
    return CrossSiteMatrix(
        cells=full if cells is None else cells,
        key_metric=label,
        models=tuple(values),
        sites=sites,
        weights_sha256={},
        evaluation_sha256="c" * 64,
    )


class Page(HTMLParser):
    """The text of a page, its tags with their attributes, and the rows of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._in_style = self._in_cell = False
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            return
        self.words.append(data)
        if self._in_cell:
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(first))


def terminal(record: RunRecord, matrix: CrossSiteMatrix | None) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(render_text(record, matrix))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# ---------------------------------------------------------------- what the summary says


def test_the_summary_leads_from_the_first_mean_to_the_last() -> None:
    facts = {fact.label: (fact.value, fact.note) for fact in summary_facts(complete_run())}

    assert facts["Rounds"] == ("2 of 2", "in 0.0 s")
    assert facts["Sites"] == ("2", "at least 2 required in each round")
    # (0 + 0.25) / 2 and (0.5 + 0.75) / 2
    assert facts[f"Mean {DICE}"] == ("0.125 → 0.625", "from round 0 to round 2")
    assert facts["Best global model"] == ("round 2", f"mean {DICE} 0.625")


def test_a_mean_over_some_of_the_sites_says_so() -> None:
    recorder = new_recorder()
    recorder.score(0, "site-1", {DICE: metric(0.5)})

    fact = summary_facts(recorder.record)[2]

    assert (fact.value, fact.note) == ("0.500", "global model of round 0 (1 of 2 sites)")


def test_a_complete_run_that_fell_short_says_so() -> None:
    recorder = new_recorder()
    for number in (1, 2):
        recorder.start_round(number)
        recorder.contribution("site-1", contribution())
        recorder.close_round("1" * 64)

    assert status_text(complete_run()) == "complete"
    assert status_text(recorder.finish("complete")) == "complete, with shortfalls"


def test_a_run_that_shares_a_part_of_the_network_says_which() -> None:
    record = replace(complete_run(), shared_names=("body.weight", "body.bias"))

    assert "body.weight, body.bias" in terminal(record, None)
    assert "2 tensors" in Page(render_report(record, None)).text
    assert "Shared" not in terminal(complete_run(), None)


# ---------------------------------------------------------------- the page


def test_the_page_has_the_summary_the_tables_and_the_curves() -> None:
    page = Page(render_report(complete_run(), matrix_of()))

    assert "0.125 → 0.625" in page.text
    assert "every site contributed to every round" in page.text
    assert page.row("2") == ["2", "0.500", "0.750", "0.625 ★ (selected as the best)"]
    assert page.row("Round 1 2030-01-01 12:00:00 UTC 0.0 s")
    given = ["12", "24", "604.0 kB", "3.2 s", "0.111", "0.222", ""]
    assert ["site-1", "contributed", *given] in page.rows
    assert page.row("Initial") == ["Initial", "0" * 64]
    assert "torch 2.8.0" in page.text
    assert [tag for tag, attributes in page.tags if attributes.get("role") == "img"] == ["div"] * 2


def test_the_heat_map_prints_each_value_and_marks_the_best_of_each_column() -> None:
    page = Page(render_report(complete_run(), matrix_of()))

    best = "★ (best at this site)"
    assert page.row(GLOBAL_MODEL)[1:] == ["0.750", "0.500", "0.625 ★ (best mean)"]
    assert ["site-1 best model of this site", f"0.875 {best}", "0.250", "0.562"] in page.rows
    assert ["site-2 best model of this site", "0.250", f"0.625 {best}", "0.438"] in page.rows


def test_an_evaluation_that_is_missing_is_named_and_has_no_mean() -> None:
    cells = {GLOBAL_MODEL: {"site-1": {DICE: metric(0.75)}}}

    page = Page(render_report(complete_run(), matrix_of(cells)))

    assert "5 of 6 evaluations are missing" in page.text
    assert page.row(GLOBAL_MODEL)[1:] == [
        "0.750 ★ (best at this site)",
        f"{NONE} not evaluated",
        f"{NONE} no mean: a value is missing",
    ]


def test_nothing_is_called_best_where_nobody_says_that_higher_is_better() -> None:
    cells = {
        GLOBAL_MODEL: {
            site: {DICE: metric(0.75), "hd95": metric(4.0, higher_is_better=None)} for site in SITES
        }
    }

    page = Page(render_report(complete_run(), matrix_of(cells)))

    rows = [row for row in page.rows if row[0].startswith(GLOBAL_MODEL)]
    assert rows[1] == [f"{GLOBAL_MODEL} last global model", "4.000", "4.000", "4.000"]


def test_a_failed_run_without_a_matrix_says_what_there_is() -> None:
    page = Page(render_report(failed_run(), None))

    assert "The run failed. round 1: 0 of 2 sites contributed" in page.text
    assert "No site has scored a global model" in page.text
    assert "No training loss was recorded." in page.text
    assert "made without a cross-site matrix" in page.text
    assert ["site-1", "rejected", "", "the norm of the update is not finite"] in page.rows
    assert ["site-2", "no answer", ""] in page.rows
    assert not any(tag == "svg" and "plot" in (a.get("class") or "") for tag, a in page.tags)


def test_a_run_that_has_just_begun_has_a_page() -> None:
    page = Page(render_report(new_recorder().record, None))

    assert "Still running" in page.text
    assert "No round was started." in page.text


def test_the_matrix_of_another_run_is_refused() -> None:
    other = matrix_of(sites=("site-1", "site-3"))

    with pytest.raises(FederationError, match="give both files of the same run"):
        render_report(complete_run(), other)
    with pytest.raises(FederationError, match="give both files of the same run"):
        render_text(complete_run(), other)


# ---------------------------------------------------------------- what the page must not do


@pytest.mark.parametrize(
    "names",
    [
        {"sites": (HOSTILE, "site-2")},
        {"sites": ("$\\frac{a}$", "site-2")},
        {"label": '"><img src=x onerror=y>'},
        {"sites": ("[red]site[/red]", "site-2")},
        {"sites": ("\x1b[2Jsite", "site-2")},
    ],
)
def test_no_page_shows_a_name_that_is_markup_or_a_command(names: dict[str, Any]) -> None:
    for made in (complete_run, matrix_of):
        with pytest.raises(FederationError, match="expected a name of letters"):
            made(**names)


def test_the_page_loads_nothing() -> None:
    html = render_report(complete_run(), matrix_of())
    tags = Page(html).tags

    policies = [a.get("content") for _, a in tags if a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base"}
    links = {a[key] for _, a in tags for key in ("src", "href") if key in a}
    assert all(link is not None and link.startswith("#") for link in links)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


def test_each_name_in_the_page_is_unique_and_each_reference_resolves() -> None:
    html = render_report(complete_run(), matrix_of())

    names = [a["id"] for _, a in Page(html).tags if "id" in a]
    assert len(names) == len(set(names))
    used = re.findall(
        r'href="#([^"]+)"|url\(#([^)]+)\)|aria-(?:labelled|described)by="([^"]+)"', html
    )
    assert {"".join(groups) for groups in used} <= set(names)


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    write_report(tmp_path / "one.html", complete_run(), matrix_of())
    write_report(tmp_path / "two.html", complete_run(), matrix_of())

    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.html", "two.html"]


def test_the_settings_of_the_user_do_not_change_the_page() -> None:
    import matplotlib

    before = render_report(complete_run(), None)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.grid": False}):
        assert render_report(complete_run(), None) == before
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("step", range(0, 101, 5))
def test_the_ink_of_a_cell_can_be_read_on_its_background(step: int) -> None:
    background, ink = heat_colours(step / 100)

    bright, dark = sorted((luminance(background), luminance(ink)), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_from_a_site_stays_on_its_line() -> None:
    assert shown("out of memory\n  on cuda:0") == "out of memory on cuda:0"
    assert shown("\x1b[2Jgone") == "\\x1b[2Jgone"
    assert shown("a\u202eb") == "a\\u202eb"
    assert shown("x" * 500) == "x" * 400 + "…"


# ---------------------------------------------------------------- the terminal


def test_the_terminal_shows_the_rounds_and_the_matrix() -> None:
    lines = terminal(complete_run(), matrix_of()).splitlines()

    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
    assert lines[0] == "spleen_ct_segmentation: complete"
    assert ["0", "0.000", "0.250", "0.125"] in rows
    assert ["2", "0.500", "0.750", "0.625 ★"] in rows
    assert [GLOBAL_MODEL, "0.750", "0.500", "0.625 ★"] in rows
    assert ["site-1", "0.875 ★", "0.250", "0.562"] in rows
    assert lines[-1].startswith("Shortfalls: None")


def test_the_terminal_names_a_failure_and_what_is_missing() -> None:
    text = terminal(failed_run(), None)

    assert "spleen_ct_segmentation: failed" in text
    assert "round 1: 0 of 2 sites contributed" in text
    assert "- Round 1: site-2 had not contributed when the run ended." in text
    assert "without a cross-site matrix" in text


# --- what a number alone would hide

HD = "val_hd95"
OF_MISSED = metric(None, 3, unit="mm", higher_is_better=False)


def mm(value: float, counted: int = 3, undefined: int = 0, **parts: ClassValue) -> MetricValue:
    lower = {"unit": "mm", "higher_is_better": False}
    return metric(value, counted, undefined=undefined, classes=parts, **lower)


def distances() -> CrossSiteMatrix:
    """A run whose key metric is a distance: the last global model misses all at one site."""
    spleen = ClassValue(value=5.0, counted=2, missed=1)
    liver = ClassValue(value=None, counted=0, absent=3, spurious=2)
    cells = {
        GLOBAL_MODEL: {
            "site-1": {HD: mm(5.0, 2, 1, spleen=spleen, liver=liver)},
            "site-2": {HD: OF_MISSED},
        },
        "site-1": {"site-1": {HD: mm(2.0)}, "site-2": {HD: mm(8.0)}},
        "site-2": {"site-1": {HD: mm(9.0)}, "site-2": {HD: mm(3.0)}},
    }
    return matrix_of(cells, label=HD)


def cells_of(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if "│" in line
    ]


def test_of_distances_the_smallest_is_the_best_and_an_undefined_one_never() -> None:
    record = complete_run(label=HD)
    page, rows = Page(render_report(record, distances())), cells_of(terminal(record, distances()))

    assert page.row(GLOBAL_MODEL)[1:] == [
        "5.000 mm (2 of 3 cases)",
        "undefined",
        f"{NONE} no mean: a value is missing",
    ]
    best, best_mean = "★ (best at this site)", "★ (best mean)"
    one, other = (["site-1", "best model of this site"], ["site-2", "best model of this site"])
    assert [" ".join(one), f"2.000 mm {best}", "8.000 mm", f"5.000 {best_mean}"] in page.rows
    assert [" ".join(other), "9.000 mm", f"3.000 mm {best}", "6.000"] in page.rows
    assert "lowest 2.000" in page.text
    assert "highest 9.000" in page.text
    assert [GLOBAL_MODEL, "5.000 mm (2 of 3 cases)", "undefined", NONE] in rows
    assert ["site-1", "2.000 mm ★", "8.000 mm", "5.000 ★"] in rows
    assert ["site-2", "9.000 mm", "3.000 mm ★", "6.000"] in rows


def test_the_last_global_model_is_told_class_by_class() -> None:
    record = complete_run(label=HD)
    page, rows = Page(render_report(record, distances())), cells_of(terminal(record, distances()))

    spleen, liver = "5.000 (n 2, missed 1)", "undefined (n 0, absent 3, spurious 2)"
    assert [HD, "spleen", spleen, f"{NONE} not reported"] in page.rows
    assert [HD, "liver", liver, f"{NONE} not reported"] in page.rows
    assert [HD, "spleen", spleen, NONE] in rows
    assert [HD, "liver", liver, NONE] in rows
    assert "by class" not in Page(render_report(complete_run(), matrix_of())).text


def test_a_matrix_without_any_value_has_a_page() -> None:
    withheld = metric(None, 3, withheld=True)
    cells = {GLOBAL_MODEL: {"site-1": {DICE: metric(None, 3)}, "site-2": {DICE: withheld}}}

    page = Page(render_report(complete_run(), matrix_of(cells)))

    assert page.row(GLOBAL_MODEL)[1:3] == ["undefined", "withheld"]
    assert "★ (best at this site)" not in page.text
    assert "lowest" not in page.text


def test_a_mean_over_the_sites_with_a_value_says_of_how_many() -> None:
    recorder = new_recorder()
    score_all(recorder, 0, 0.5, None)
    recorder.start_round(1)
    recorder.contribution("site-1", contribution())
    recorder.close_round("1" * 64)
    score_all(recorder, 1, None, None)

    page = Page(render_report(recorder.record, None))
    rows = cells_of(terminal(recorder.record, None))

    assert page.row("0") == ["0 (initial)", "0.500", "undefined", "0.500 (1 of 2 sites)"]
    assert page.row("1") == ["1", "undefined", "undefined", "undefined"]
    assert ["0", "0.500", "undefined", "0.500 (1 of 2 sites)"] in rows
    assert ["1", "undefined", "undefined", "undefined"] in rows


# --- without a training


def evaluated() -> tuple[RunRecord, CrossSiteMatrix]:
    """A run that had two given models evaluated."""
    record = RunRecord(
        job="check",
        engine="nvflare",
        started=NOON,
        key_metric=DICE,
        rounds_asked=0,
        sites=SITES,
        min_sites=2,
        versions={"torch": "2.8.0"},
        initial_weights_sha256=None,
    )
    recorder = RunRecorder(record, now=lambda: NOON)
    matrix = CrossSiteMatrix(
        cells={
            name: {site: {DICE: metric(0.125)} for site in SITES} for name in ("ours", "theirs")
        },
        key_metric=DICE,
        models=("ours", "theirs"),
        sites=SITES,
        weights_sha256={"ours": "a" * 64, "theirs": "b" * 64},
        evaluation_sha256="c" * 64,
    )
    return recorder.finish("complete"), matrix


def test_of_a_run_without_rounds_the_page_shows_the_matrix_and_nothing_of_a_training() -> None:
    page = render_report(*evaluated())

    assert "Every model at every site" in page
    assert page.count("0.125") >= 2 * 2
    for title in ("Training loss", "Contributions", "Scores by round", "Weights</h2>"):
        assert title not in page
    labels = [fact.label for fact in summary_facts(evaluated()[0])]
    assert labels == ["Rounds", "Sites"]


def test_so_does_the_terminal() -> None:
    stream = io.StringIO()
    Console(file=stream, width=100).print(render_text(*evaluated()))

    assert "theirs" in stream.getvalue()
    assert "No site has scored" not in stream.getvalue()


def test_a_matrix_of_several_runs_has_a_page_of_its_own() -> None:
    _, matrix = evaluated()
    page = render_matrix(matrix, ["run-001", HOSTILE])

    assert HOSTILE not in page
    for text in ("Merged from 2 matrices", "run-001", "ours", "a" * 64, "0.125"):
        assert text in page
    assert not re.findall(r"(?:src|href)\s*=", page)
    assert "<script" not in page
