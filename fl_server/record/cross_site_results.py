"""What comes in after training: the sites' models and the cells of the matrix, and what is missing.

``publish`` puts matrix and record together and says whether the run has ended well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_server.record.cross_site import (
    CrossSiteMatrix,
    write_cross_site_csv,
    write_cross_site_json,
)
from fl_server.record.shortfalls import shortfalls, unmet
from fl_server.record.values import RunRecord
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import Metrics

DECLINED = "policy-declined"
"""The status word of a site whose policy does not allow what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run has ended.

    Attributes:
        messages: a sentence for everything that was asked for and is not there.
        blocking: the sentences that keep the run from having ended well.
    """

    messages: tuple[str, ...]
    blocking: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRows:
    """The models of a matrix, and by what their numbers can be compared with others.

    Attributes:
        key_metric: the metric that every cell has to hold.
        models: names of all rows, in the order of display.
        of_server: those among them that the server holds; every site is asked for all of these.
        weights_sha256: model -> digest of its weights, for those that are there.
        evaluation_sha256: digest of how they are evaluated.
    """

    key_metric: str
    models: tuple[str, ...]
    of_server: tuple[str, ...]
    weights_sha256: Mapping[str, str]
    evaluation_sha256: str


class CrossSiteResults:
    """Collects the replies of cross-site validation; a failure is a text, None is none.

    Attributes:
        cells: model -> site -> metrics.
        failures: what failed, each once.
    """

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, Metrics]] = {}
        self.failures: list[str] = []
        self._declined: set[tuple[str, str]] = set()
        self._kept_at_home: set[str] = set()

    def model_failed(self, site: str, failure: str) -> None:
        """Keep why a site has submitted no model of its own."""
        if is_declined(failure):
            self._kept_at_home.add(site)
        else:
            self.fell_short(f"{site} submitted no model: {failure}")

    def fell_short(self, reason: str) -> None:
        """Keep a sentence; a site may say the same more than once."""
        if reason not in self.failures:
            self.failures.append(reason)

    def cell(self, model: str, site: str, metrics: Metrics) -> None:
        """Keep the metrics of a model at a site."""
        self.cells.setdefault(model, {})[site] = metrics

    def cell_failed(self, model: str, site: str, failure: str) -> None:
        """Keep why a site has not evaluated a model."""
        if is_declined(failure):
            self._declined.add((model, site))
        else:
            self.fell_short(f"{site} could not evaluate {model}: {failure}")

    def publish(
        self, record: RunRecord, folder: Path, *, rows: MatrixRows, min_sites: int
    ) -> Outcome:
        """Write the matrix; the outcome of the run.

        A job that needs all its sites ends well with everything of all of them. One that needs
        fewer ends well if ``min_sites`` did their part; all else is reported. What a site declines
        by its own policy is no shortfall.

        Args:
            record: of the run.
            folder: where the matrix is written.
            rows: of the matrix.
            min_sites: how many sites have to do their part.
        """
        messages = [*shortfalls(record), *self.failures]
        blocking = list(unmet(record))
        try:
            matrix = self._matrix(record.sites, folder, rows)
            messages += [f"the matrix has no value of {m} at {s}" for m, s in self._gaps(matrix)]
            spare = len(record.sites) - min_sites
            blocking += self._thin_rows(matrix, rows.of_server, spare=spare)
        except FederationError as error:
            blocking.append(f"no cross-site result: {error}")
        if min_sites >= len(record.sites) or blocking:
            blocking = list(dict.fromkeys([*messages, *blocking]))
        return Outcome(messages=tuple(messages), blocking=tuple(blocking))

    def _matrix(self, sites: tuple[str, ...], folder: Path, rows: MatrixRows) -> CrossSiteMatrix:
        matrix = CrossSiteMatrix(
            cells=self.cells,
            key_metric=rows.key_metric,
            models=rows.models,
            sites=sites,
            weights_sha256=rows.weights_sha256,
            evaluation_sha256=rows.evaluation_sha256,
        )
        write_cross_site_json(folder / "cross_site.json", matrix)
        write_cross_site_csv(folder / "cross_site.csv", matrix)
        return matrix

    def _gaps(self, matrix: CrossSiteMatrix) -> list[tuple[str, str]]:
        """Model and site of each missing value that nobody has declined."""
        return [
            (model, site)
            for model, site in matrix.missing
            if (model, site) not in self._declined and model not in self._kept_at_home
        ]

    def _thin_rows(
        self, matrix: CrossSiteMatrix, of_server: tuple[str, ...], *, spare: int
    ) -> Iterator[str]:
        """Yield models of the server that more sites than ``spare`` have not evaluated."""
        counts = Counter(model for model, _ in self._gaps(matrix))
        for model in of_server:
            if counts[model] > spare:
                yield f"the matrix has no value of {model} at {counts[model]} sites"


def is_declined(failure: str | None) -> bool:
    """Return whether a site did not fail, but declined by its own policy."""
    return failure is not None and failure.startswith(DECLINED)
