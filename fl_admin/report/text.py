"""The summary of a run for the terminal: the same words and numbers as on the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fl_admin.report import summary
from fl_server.record.cross_site import GLOBAL_MODEL, CrossSiteMatrix
from fl_server.record.shortfalls import shortfalls
from fl_server.record.values import RunRecord
from mmar_runtime.names import shown

MISSING = "\N{EN DASH}"
BEST = "★"


def render_text(record: RunRecord, matrix: CrossSiteMatrix | None) -> Group:
    """Return the summary, the key metric by round and site, the cross-site matrix, the shortfalls.

    Raises:
        FederationError: the matrix is of other sites than the record.
    """
    summary.require_same_run(record, matrix)
    status = Text.assemble(_text(record.job, "bold"), f": {summary.status_text(record)}")
    facts = Table.grid(padding=(0, 2))
    for fact in summary.summary_facts(record):
        facts.add_row(_text(fact.label), _text(fact.value, "bold"), _text(fact.note, "dim"))
    parts: list[RenderableType] = [status]
    if record.failure is not None:
        parts.append(_text(record.failure, "red"))
    parts.append(facts)
    if record.trains:
        parts.append(score_table(record) if record.scores else Text(summary.NO_SCORES))
    parts.append(Text(summary.NO_MATRIX) if matrix is None else matrix_table(matrix))
    if matrix is not None and (rows := list(summary.class_rows(matrix, GLOBAL_MODEL))):
        parts.append(class_table(matrix, rows))
    sentences = shortfalls(record)
    said = "" if sentences else f" {summary.no_shortfalls(record)}"
    parts.append(Text(f"Shortfalls:{said}", style="bold" if sentences else ""))
    return Group(*parts, *(_text(f"- {sentence}", "yellow") for sentence in sentences))


def score_table(record: RunRecord) -> Table:
    """Return the key metric of the global model: a row for each round, a column for each site."""
    metric = record.key_metric
    table = _table(f"{metric} of the global model", "round", [*record.sites, "mean"])
    for scores in record.scores:
        sites = [
            summary.format_metric(scores.sites[site][metric]) if site in scores.sites else MISSING
            for site in record.sites
        ]
        mark = f" {BEST}" if scores.round == record.best_round else ""
        mean = summary.format_mean(scores.mean[metric]) + mark
        table.add_row(str(scores.round), *sites, Text(mean, style="bold"))
    return table


def matrix_table(matrix: CrossSiteMatrix) -> Table:
    """Return the key metric of each model at each site; the best of each site has a star."""
    title = f"{matrix.key_metric} of each model at each site"
    table = _table(title, "model", [*matrix.sites, "mean"])
    best = {site: summary.best_models(matrix, site) for site in matrix.sites}
    best_means = summary.best_mean_models(matrix)
    for model in matrix.models:
        cells = []
        for site in matrix.sites:
            cell = MISSING
            if matrix.has_value(model, site, matrix.key_metric):
                cell = summary.format_metric(matrix.metric(model, site, matrix.key_metric))
            is_best = model in best[site]
            cells.append(Text(f"{cell} {BEST}", style="green") if is_best else Text(cell))
        mean = summary.row_mean(matrix, model, matrix.key_metric)
        printed = MISSING if mean is None else summary.format_value(mean)
        mark = f" {BEST}" if model in best_means else ""
        table.add_row(_text(model), *cells, Text(printed + mark, style="bold"))
    return table


def class_table(matrix: CrossSiteMatrix, rows: Sequence[summary.ClassRow]) -> Table:
    """Return the last global model class by class: a row for each, a column for each site."""
    table = _table("The last global model by class", "metric", ["class", *matrix.sites])
    for row in rows:
        cells = [MISSING if part is None else summary.format_class(part) for part in row.parts]
        table.add_row(_text(row.metric), _text(row.label), *cells)
    return table


def _table(title: str, first: str, columns: list[str]) -> Table:
    table = Table(title=_text(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(_text(column), justify="right")
    return table


def _text(words: str, style: str = "") -> Text:
    """Words from a record as they are: `Text` does not read them as markup."""
    return Text(shown(words), style=style)
