"""How well each model does at each site: models x sites x metrics.

The models are the last and the best global model and every site's own best model, or those that a
job brought along; each is evaluated at every site. A model that was not evaluated at a site has no
cell there: ``missing`` lists these pairs, and nothing is computed as if they were there.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias

from fl_server.record.run_record import (
    FORMAT_VERSION,
    Metrics,
    check_digest,
    check_format_version,
    finite_metrics,
    json_text,
    name_text,
    parse_json,
    unique_names,
)
from mmar_runtime.errors import FederationError, did_you_mean
from mmar_runtime.files import write_text_atomically

GLOBAL_MODEL = "FL_global_model"
BEST_GLOBAL_MODEL = "best_FL_global_model"

MODEL_NAME = re.compile(r"(?!SRV_)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a model that a job brings along: a plain file name, and nothing that NVFlare puts before the
names of a server's models."""

Cells: TypeAlias = Mapping[str, Mapping[str, Metrics]]

CSV_COLUMNS = ("model", "site", "metric", "value")
_PARTS = ("key_metric", "models", "sites", "cells", "weights_sha256", "evaluation_sha256")
_JSON_KEYS = ("format_version", *_PARTS, "complete", "missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossSiteMatrix:
    """The metrics of each model at each site; read-only.

    Attributes:
        key_metric: the metric by which models are compared; every cell has it; higher is better.
        models: names of the models, in the order of display.
        sites: names of the sites, sorted.
        cells: model -> site -> metric -> value, for what was evaluated.
        weights_sha256: model -> digest of its weights, as far as they are known.
        evaluation_sha256: digest of how models were evaluated, see
            ``fl_server.record.evaluation_digest``.
    """

    key_metric: str
    models: tuple[str, ...]
    sites: tuple[str, ...]
    cells: Cells
    weights_sha256: Mapping[str, str]
    evaluation_sha256: str

    def __post_init__(self) -> None:
        """Check the names and the numbers; a matrix without any cell raises."""
        name_text(self.key_metric, "key_metric")
        object.__setattr__(self, "models", unique_names(self.models, "models"))
        object.__setattr__(self, "sites", unique_names(self.sites, "sites", ordered=True))
        object.__setattr__(self, "cells", _checked_cells(self))
        object.__setattr__(self, "weights_sha256", _checked_digests(self))
        check_digest(self.evaluation_sha256, "evaluation_sha256")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics in the matrix, the key metric first, then by name."""
        found = {name for row in self.cells.values() for cell in row.values() for name in cell}
        return (self.key_metric, *sorted(found - {self.key_metric}))

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """The pairs of model and site that have no cell."""
        return tuple(
            (model, site)
            for model in self.models
            for site in self.sites
            if site not in self.cells.get(model, {})
        )

    @property
    def complete(self) -> bool:
        """Whether every model was evaluated at every site."""
        return not self.missing

    def has_value(self, model: str, site: str, metric: str) -> bool:
        """Whether ``value`` would answer."""
        return metric in self.cells.get(model, {}).get(site, {})

    def value(self, model: str, site: str, metric: str) -> float:
        """One metric of one model at one site.

        Raises:
            FederationError: a name is unknown, or the model was not evaluated at the site.
        """
        if not self.has_value(model, site, metric):
            raise self._no_value(model, site, metric)
        return self.cells[model][site][metric]

    def row_mean(self, model: str, metric: str) -> float:
        """The unweighted mean of one metric of one model over all sites; raises like ``value``."""
        values = [self.value(model, site, metric) for site in self.sites]
        return math.fsum(values) / len(values)

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of this matrix; ``from_dict`` gives an equal matrix back."""
        return {
            "format_version": FORMAT_VERSION,
            "key_metric": self.key_metric,
            "models": list(self.models),
            "sites": list(self.sites),
            "cells": {
                model: {site: dict(cell) for site, cell in row.items()}
                for model, row in self.cells.items()
            },
            "complete": self.complete,
            "missing": [list(pair) for pair in self.missing],
            "weights_sha256": dict(self.weights_sha256),
            "evaluation_sha256": self.evaluation_sha256,
        }

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The matrix of a JSON document.

        Raises:
            FederationError: anything is missing or unknown, or ``complete`` and ``missing`` do not
                say what the cells say.
        """
        if not isinstance(value, Mapping) or set(value) != set(_JSON_KEYS):
            raise FederationError(f"expected an object with exactly {', '.join(_JSON_KEYS)}")
        check_format_version(value["format_version"])
        matrix = cls(**{key: value[key] for key in _PARTS})
        stated = (value["complete"], value["missing"])
        if stated != (matrix.complete, [list(pair) for pair in matrix.missing]):
            raise FederationError(
                f"complete and missing: the document states {stated}, its cells give"
                f" {(matrix.complete, matrix.missing)}; the file was changed after it was written"
            )
        return matrix

    def as_csv(self) -> str:
        """The matrix as CSV text: model, site, metric, value.

        A number is written with all its digits; a value that is missing has a line with an empty
        value, so that nobody takes its absence for an oversight. No name is a formula to a
        spreadsheet; see ``mmar_runtime.names``.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        metrics = self.metrics
        for model in self.models:
            for site in self.sites:
                for metric in metrics:
                    writer.writerow([model, site, metric, self._printed(model, site, metric)])
        return stream.getvalue()

    def _no_value(self, model: str, site: str, metric: str) -> FederationError:
        """Why ``value`` has no answer."""
        _require_one_of(model, self.models, "model")
        _require_one_of(site, self.sites, "site")
        _require_one_of(metric, self.metrics, "metric")
        cell = self.cells.get(model, {}).get(site)
        if cell is None:
            return FederationError(
                f"model {model!r} was not evaluated at site {site!r}; see `missing`"
            )
        reported = ", ".join(map(repr, cell))
        return FederationError(
            f"site {site!r} did not report {metric!r} for model {model!r}; it reported {reported}"
        )

    def _printed(self, model: str, site: str, metric: str) -> str:
        known = self.has_value(model, site, metric)
        return repr(self.value(model, site, metric)) if known else ""


def build_cross_site_matrix(
    cells: Cells,
    *,
    key_metric: str,
    models: Iterable[str],
    sites: Iterable[str],
    weights_sha256: Mapping[str, str],
    evaluation_sha256: str,
) -> CrossSiteMatrix:
    """The matrix of the cells that were collected, with what was expected beside it.

    Args:
        cells: model -> site -> metric -> value; leave out what was not evaluated.
        key_metric: the metric that every cell has to hold.
        models: every model that should have been evaluated, in the order of display.
        sites: every site that should have evaluated them.
        weights_sha256: model -> digest of its weights, as far as they are known.
        evaluation_sha256: digest of how they were evaluated.

    Raises:
        FederationError: there is no cell at all, a cell belongs to no expected model or site,
            a cell lacks the key metric, or a value is not a finite number.
    """
    return CrossSiteMatrix(
        key_metric=key_metric,
        models=tuple(models),
        sites=tuple(sites),
        cells=cells,
        weights_sha256=weights_sha256,
        evaluation_sha256=evaluation_sha256,
    )


def expected_models(
    sites_with_model: Iterable[str], *, with_best_global: bool = True
) -> tuple[str, ...]:
    """The models of a run: the last global one, the best global one, each site's best by name.

    >>> expected_models(["site-2", "site-1"])
    ('FL_global_model', 'best_FL_global_model', 'site-1', 'site-2')
    """
    of_server = (GLOBAL_MODEL, BEST_GLOBAL_MODEL) if with_best_global else (GLOBAL_MODEL,)
    of_sites = tuple(sorted(sites_with_model))
    return unique_names((*of_server, *of_sites), "models")


def write_cross_site_json(path: Path, matrix: CrossSiteMatrix) -> None:
    """Write the matrix as JSON, in one step."""
    write_text_atomically(path, json_text(matrix.as_dict()))


def write_cross_site_csv(path: Path, matrix: CrossSiteMatrix) -> None:
    """Write the matrix as CSV, in one step."""
    write_text_atomically(path, matrix.as_csv())


def read_cross_site_matrix(path: Path) -> CrossSiteMatrix:
    """The matrix in a JSON file; ``FederationError`` names the file of a fault."""
    try:
        return CrossSiteMatrix.from_dict(parse_json(path))
    except FederationError as error:
        raise FederationError(f"{path}: {error}") from error


def _checked_cells(matrix: CrossSiteMatrix) -> Cells:
    """A read-only copy of the cells in the order of the models and sites."""
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
    """A read-only copy of the digests of the weights in the order of the models."""
    found = _checked_rows(matrix.weights_sha256, matrix.models, "weights_sha256: model")
    for model, digest in found.items():
        check_digest(digest, f"weights_sha256[{model!r}]")
    return MappingProxyType({model: found[model] for model in matrix.models if model in found})


def _checked_rows(value: object, names: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FederationError(f"{what}: expected an object, found {value!r}")
    for name in value:
        _require_one_of(name, names, what)
    return value


def _checked_cell(matrix: CrossSiteMatrix, model: str, site: str) -> Metrics:
    place = f"cells[{model!r}][{site!r}]"
    metrics = finite_metrics(matrix.cells[model][site], place)
    if matrix.key_metric not in metrics:
        raise FederationError(
            f"{place}: the key metric {matrix.key_metric!r} is missing; found {sorted(metrics)}"
        )
    return metrics


def _require_one_of(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        raise FederationError(f"unknown {what} {name!r}. {did_you_mean(str(name), names)}".rstrip())
