"""How well each model does at each site: models x sites x metrics.

The models are the last and the best global model and every site's own best model, or those that a
job brought along; each is evaluated at every site. A model that was not evaluated at a site has no
cell there: ``missing`` lists these pairs, and nothing is computed as if they were there.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias

from fl_server.record.checks import (
    FORMAT_VERSION,
    check_digest,
    check_format_version,
    checked_metrics,
    mapping,
    name_text,
    set_checked,
    unique_names,
)
from fl_server.record.files import parse_json
from mmar_runtime.errors import FederationError, did_you_mean
from mmar_runtime.exchange.plain import from_plain, inside, to_plain
from mmar_runtime.files import write_text_atomically
from mmar_runtime.metrics import ClassValue, Metrics, MetricValue

GLOBAL_MODEL = "FL_global_model"
BEST_GLOBAL_MODEL = "best_FL_global_model"

MODEL_NAME = re.compile(r"(?!SRV_)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a model that a job brings along: a plain file name, and nothing that NVFlare puts before the
names of a server's models."""

Cells: TypeAlias = Mapping[str, Mapping[str, Metrics]]

CSV_COLUMNS = (
    *("model", "site", "metric", "class", "value", "note", "unit"),
    *("counted", "undefined", "missed", "absent", "spurious"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSiteMatrix:
    """The metrics of each model at each site; read-only.

    Attributes:
        format_version: of the document.
        key_metric: the metric by which models are compared; every cell has it.
        models: names of the models, in the order of display.
        sites: names of the sites, sorted.
        cells: model -> site -> metric -> value, for each model and site that was evaluated.
        complete: whether every model was evaluated at every site.
        missing: the pairs of model and site that have no cell.
        weights_sha256: model -> digest of its weights, as far as they are known.
        evaluation_sha256: digest of how models were evaluated, see
            ``fl_server.record.evaluation_digest``.
    """

    format_version: int = field(init=False, default=FORMAT_VERSION)
    key_metric: str
    models: tuple[str, ...]
    sites: tuple[str, ...]
    cells: Cells
    complete: bool = field(init=False)
    missing: tuple[tuple[str, str], ...] = field(init=False)
    weights_sha256: Mapping[str, str]
    evaluation_sha256: str

    def __post_init__(self) -> None:
        """Check the names and the numbers; a matrix without any cell raises."""
        name_text(self.key_metric, "key_metric")
        set_checked(
            self,
            models=unique_names(self.models, "models"),
            sites=unique_names(self.sites, "sites", ordered=True),
        )
        set_checked(self, cells=_checked_cells(self), weights_sha256=_checked_digests(self))
        check_digest(self.evaluation_sha256, "evaluation_sha256")
        missing = tuple(
            (model, site)
            for model in self.models
            for site in self.sites
            if site not in self.cells.get(model, {})
        )
        set_checked(self, complete=not missing, missing=missing)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics in the matrix, the key metric first, then by name."""
        names = {name for row in self.cells.values() for cell in row.values() for name in cell}
        return (self.key_metric, *sorted(names - {self.key_metric}))

    def has_value(self, model: str, site: str, metric: str) -> bool:
        """Return whether ``metric`` would answer."""
        return metric in self.cells.get(model, {}).get(site, {})

    def metric(self, model: str, site: str, metric: str) -> MetricValue:
        """One metric of one model at one site.

        Raises:
            FederationError: a name is unknown, or the model was not evaluated at the site.
        """
        if not self.has_value(model, site, metric):
            raise self._no_value(model, site, metric)
        return self.cells[model][site][metric]

    def value(self, model: str, site: str, metric: str) -> float | None:
        """Return a metric's number; None where it is undefined. Raises like ``metric``."""
        return self.metric(model, site, metric).value

    def higher_is_better(self, metric: str) -> bool | None:
        """Return the direction of a metric, as its values say; None where nobody knows it."""
        cells = (cell for row in self.cells.values() for cell in row.values() if metric in cell)
        return next((cell[metric].higher_is_better for cell in cells), None)

    def row_mean(self, model: str, metric: str) -> float | None:
        """Return the unweighted mean of a model's metric over all sites; raise like ``metric``.

        None where the metric is undefined at a site, or not of the same unit at all sites: the mean
        of the others would be that of other sites than the next row's.
        """
        metrics = [self.metric(model, site, metric) for site in self.sites]
        values = [one.value for one in metrics if one.value is not None]
        comparable = len(values) == len(metrics) and len({one.unit for one in metrics}) == 1
        return math.fsum(values) / len(values) if comparable else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of this matrix; ``from_dict`` gives an equal matrix back."""
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Return the matrix of a JSON document.

        Raises:
            FederationError: anything is missing or unknown, or ``complete`` and ``missing`` do not
                say what the cells say.
        """
        check_format_version(mapping(value, "document").get("format_version"))
        return from_plain(cls, value)

    def as_csv(self) -> str:
        """Return the matrix as CSV text, with a line for each metric and for each of its classes.

        A number is written with all its digits. Where there is none the value is empty and ``note``
        says why: the metric is undefined or withheld, or nobody reported it. No name is a formula
        to a spreadsheet; see ``mmar_runtime.names``.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        metrics = self.metrics
        for model in self.models:
            for site in self.sites:
                for metric in metrics:
                    is_known = self.has_value(model, site, metric)
                    value = self.metric(model, site, metric) if is_known else None
                    writer.writerows([model, site, metric, *line] for line in _csv_lines(value))
        return stream.getvalue()

    def _no_value(self, model: str, site: str, metric: str) -> FederationError:
        """Return why ``value`` has no answer."""
        _require_one_of(model, self.models, "model")
        _require_one_of(site, self.sites, "site")
        _require_one_of(metric, self.metrics, "metric")
        if (cell := self.cells.get(model, {}).get(site)) is None:
            return FederationError(
                f"model {model!r} was not evaluated at site {site!r}; see `missing`"
            )
        reported = ", ".join(map(repr, cell))
        return FederationError(
            f"site {site!r} did not report {metric!r} for model {model!r}; it reported {reported}"
        )


def _csv_lines(metric: MetricValue | None) -> Iterator[list[object]]:
    """Yield the columns after the metric's name: of the whole, then of each class."""
    if metric is None:
        yield ["", "", "not reported", "", "", "", "", "", ""]
        return
    note = "withheld" if metric.withheld else _note(metric)
    missed = metric.missed if metric.classes else ""
    counts = [metric.counted, metric.undefined, missed, "", ""]
    yield ["", _number(metric), note, metric.unit, *counts]
    for name, part in metric.classes.items():
        counts = [part.counted, "", part.missed, part.absent, part.spurious]
        yield [name, _number(part), _note(part), metric.unit, *counts]


def _number(part: MetricValue | ClassValue) -> str:
    return "" if part.value is None else repr(part.value)


def _note(part: MetricValue | ClassValue) -> str:
    return "undefined" if part.value is None else ""


def expected_models(sites_with_model: Iterable[str]) -> tuple[str, ...]:
    """Return the models of a run: the last and the best global model, each site's best by name.

    >>> expected_models(["site-2", "site-1"])
    ('FL_global_model', 'best_FL_global_model', 'site-1', 'site-2')
    """
    return unique_names((GLOBAL_MODEL, BEST_GLOBAL_MODEL, *sorted(sites_with_model)), "models")


def write_cross_site_json(path: Path, matrix: CrossSiteMatrix) -> None:
    """Write the matrix as JSON, in one step."""
    write_text_atomically(path, json.dumps(matrix.as_dict(), indent=2, allow_nan=False) + "\n")


def write_cross_site_csv(path: Path, matrix: CrossSiteMatrix) -> None:
    """Write the matrix as CSV, in one step."""
    write_text_atomically(path, matrix.as_csv())


def read_cross_site_matrix(path: Path) -> CrossSiteMatrix:
    """Return the matrix in a JSON file; ``FederationError`` names the file of a fault."""
    with inside(str(path)):
        return CrossSiteMatrix.from_dict(parse_json(path))


def _checked_cells(matrix: CrossSiteMatrix) -> Cells:
    """Return a read-only copy of the cells in the order of the models and sites."""
    rows = _checked_rows(matrix.cells, matrix.models, "cells: model")
    checked: dict[str, Mapping[str, Metrics]] = {}
    for model in (name for name in matrix.models if name in rows):
        row = _checked_rows(rows[model], matrix.sites, f"cells[{model!r}]: site")
        cells = {site: _checked_cell(matrix, model, site) for site in matrix.sites if site in row}
        if cells:
            checked[model] = MappingProxyType(cells)
    if not checked:
        raise FederationError(
            "the cross-site matrix has no cell: no model was evaluated at any site; look into the"
            " sites' logs for the reason"
        )
    return MappingProxyType(checked)


def _checked_digests(matrix: CrossSiteMatrix) -> Mapping[str, str]:
    """Return a read-only copy of the digests of the weights in the order of the models."""
    digests = _checked_rows(matrix.weights_sha256, matrix.models, "weights_sha256: model")
    for model, digest in digests.items():
        check_digest(digest, f"weights_sha256[{model!r}]")
    return MappingProxyType({model: digests[model] for model in matrix.models if model in digests})


def _checked_rows(value: object, names: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FederationError(f"{what}: expected an object, found {value!r}")
    for name in value:
        _require_one_of(name, names, what)
    return value


def _checked_cell(matrix: CrossSiteMatrix, model: str, site: str) -> Metrics:
    place = f"cells[{model!r}][{site!r}]"
    metrics = checked_metrics(matrix.cells[model][site], place)
    if matrix.key_metric not in metrics:
        raise FederationError(
            f"{place}: the key metric {matrix.key_metric!r} is missing; found {sorted(metrics)}"
        )
    return metrics


def _require_one_of(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        raise FederationError(f"unknown {what} {name!r}. {did_you_mean(str(name), names)}".rstrip())
