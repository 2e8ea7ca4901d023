"""The report of a run as one HTML file that needs nothing else and loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from fl_admin.report import plots, summary
from fl_server.record.cross_site import GLOBAL_MODEL, CrossSiteMatrix
from fl_server.record.shortfalls import shortfalls
from fl_server.record.values import RunRecord, SiteContribution
from mmar_runtime.files import write_text_atomically
from mmar_runtime.metrics import MetricValue
from mmar_runtime.names import shown

FOLDER = files("fl_admin.report")

# From light to dark: the order survives in grey, for a printer and for eyes that see few colours.
_HEAT_STOPS = ((239, 246, 252), (158, 202, 225), (49, 130, 189), (8, 48, 107))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatCell:
    """One cell of the heat map: the value, its colours, whether it is the best of its column."""

    metric: MetricValue
    background: str
    ink: str
    best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """One model of the heat map; ``None`` stands for what was not evaluated."""

    model: str
    note: str
    cells: tuple[HeatCell | None, ...]
    mean: float | None
    best_mean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """One metric of all models at all sites."""

    metric: str
    is_key: bool
    lowest: float | None
    highest: float | None
    rows: tuple[HeatRow, ...]


def render_report(record: RunRecord, matrix: CrossSiteMatrix | None) -> str:
    """Return the page as text; the same record and matrix give the same bytes.

    Args:
        record: of a run in any state; what it lacks, the page says.
        matrix: of the same run, or ``None`` where there is none.

    Raises:
        FederationError: the matrix is of other sites than the record.
    """
    summary.require_same_run(record, matrix)
    return _template("report.html.j2").render(
        record=record,
        matrix=matrix,
        class_rows=() if matrix is None else tuple(summary.class_rows(matrix, GLOBAL_MODEL)),
        status=summary.status_text(record),
        facts=summary.summary_facts(record),
        shortfalls=shortfalls(record),
        score_plot=Markup(plots.score_plot(record)) if record.scores else None,
        loss_plot=Markup(plots.loss_plot(record)) if plots.has_losses(record) else None,
        styles=[plots.line_style(index) for index, _ in enumerate(record.sites)],
        heat_maps=() if matrix is None else tuple(_heat_maps(matrix)),
        texts=summary,
    )


def write_report(path: Path, record: RunRecord, matrix: CrossSiteMatrix | None) -> None:
    """Write the page of ``render_report``, in one step."""
    write_text_atomically(path, render_report(record, matrix))


def render_matrix(matrix: CrossSiteMatrix, sources: Sequence[str]) -> str:
    """Return the page of a matrix that several runs gave together.

    Args:
        matrix: the matrix.
        sources: what the runs are called.
    """
    return _template("matrix.html.j2").render(
        matrix=matrix, sources=sources, heat_maps=tuple(_heat_maps(matrix))
    )


def write_matrix_report(path: Path, matrix: CrossSiteMatrix, sources: Sequence[str]) -> None:
    """Write the page of ``render_matrix``, in one step."""
    write_text_atomically(path, render_matrix(matrix, sources))


def heat_colours(share: float) -> tuple[str, str]:
    """Background and ink of a cell, for a value at ``share`` of the way from lowest to highest.

    The ink is black or white, whichever contrasts more: at least 4.5 to 1 on any background.
    """
    place = share * (len(_HEAT_STOPS) - 1)
    index = min(int(place), len(_HEAT_STOPS) - 2)
    stops = zip(_HEAT_STOPS[index], _HEAT_STOPS[index + 1], strict=True)
    background = [round(low + (high - low) * (place - index)) for low, high in stops]
    # The relative luminance of WCAG 2, from 0 (black) to 1 (white).
    parts = [part / 255 for part in background]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    ink = "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"
    return "#{:02x}{:02x}{:02x}".format(*background), ink


def _colours(value: float | None, lowest: float | None, highest: float | None) -> tuple[str, str]:
    """Return the colours of a cell; those of the page where there is no value."""
    if value is None or lowest is None or highest is None:
        return "transparent", "inherit"
    return heat_colours(0.5 if lowest == highest else (value - lowest) / (highest - lowest))


@lru_cache(maxsize=2)
def _template(name: str) -> Template:
    environment = Environment(
        loader=FunctionLoader(lambda file: (FOLDER / file).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every text passes here, so that none from a site can be forgotten.
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters.update(
        value=summary.format_value,
        metric=summary.format_metric,
        mean=summary.format_mean,
        part=summary.format_class,
        size=summary.format_bytes,
        duration=summary.format_seconds,
        moment=lambda time: f"{time:%Y-%m-%d %H:%M:%S} UTC",
        css_class=lambda text: text.replace(",", "").replace(" ", "-"),
    )
    environment.tests["contribution"] = lambda outcome: isinstance(outcome, SiteContribution)
    return environment.get_template(name)


def _heat_maps(matrix: CrossSiteMatrix) -> Iterator[HeatMap]:
    """Yield a heat map for each metric, the key metric first."""
    for metric in matrix.metrics:
        cells = [cell for row in matrix.cells.values() for cell in row.values()]
        found = [cell[metric].value for cell in cells if metric in cell]
        values = [value for value in found if value is not None]
        yield _heat_map(matrix, metric, min(values, default=None), max(values, default=None))


def _heat_map(
    matrix: CrossSiteMatrix, metric: str, lowest: float | None, highest: float | None
) -> HeatMap:
    is_key = metric == matrix.key_metric
    best = {site: summary.best_models(matrix, site) if is_key else () for site in matrix.sites}
    best_means = summary.best_mean_models(matrix) if is_key else ()

    def cell(model: str, site: str) -> HeatCell | None:
        if not matrix.has_value(model, site, metric):
            return None
        found = matrix.metric(model, site, metric)
        background, ink = _colours(found.value, lowest, highest)
        return HeatCell(metric=found, background=background, ink=ink, best=model in best[site])

    rows = tuple(
        HeatRow(
            model=model,
            note=summary.model_note(model, matrix),
            cells=tuple(cell(model, site) for site in matrix.sites),
            mean=summary.row_mean(matrix, model, metric),
            best_mean=model in best_means,
        )
        for model in matrix.models
    )
    return HeatMap(metric=metric, is_key=is_key, lowest=lowest, highest=highest, rows=rows)
