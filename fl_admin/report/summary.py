"""What a report says about a run, in words and short numbers, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL, CrossSiteMatrix
from fl_server.record.shortfalls import shortfalls
from fl_server.record.values import RoundScores, RunRecord, SiteMean
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import ClassValue, MetricValue, in_short, is_better

NO_MATRIX = (
    "This report was made without a cross-site matrix, so it cannot say how each model does at each"
    " site."
)
NO_SCORES = "No site has scored a global model, so there is no curve to show."
NO_LOSSES = "No training loss was recorded."
NO_ROUNDS = "No round was started."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of the summary: what it is about, the value, and what to know beside it."""

    label: str
    value: str
    note: str


def require_same_run(record: RunRecord, matrix: CrossSiteMatrix | None) -> None:
    """Raise ``FederationError`` where the matrix is of other sites than the record."""
    if matrix is not None and matrix.sites != record.sites:
        raise FederationError(
            f"the cross-site matrix is of the sites {', '.join(matrix.sites)}, the run record of"
            f" {', '.join(record.sites)}; give both files of the same run"
        )


def status_text(record: RunRecord) -> str:
    """Return the state of the run in a few words.

    A complete run that fell short somewhere says so: its curves alone would not show it.
    """
    if record.status == "complete" and shortfalls(record):
        return "complete, with shortfalls"
    return "still running" if record.status == "running" else record.status


def no_shortfalls(record: RunRecord) -> str:
    """Return what to say where ``shortfalls`` finds nothing; of a run that goes on, only so far."""
    if record.status == "running":
        return "None so far."
    if not record.trains:
        return "None but for what the matrix shows as missing."
    return "None: every site contributed to every round and scored every global model."


def summary_facts(record: RunRecord) -> tuple[Fact, ...]:
    """Rounds, sites, the way of the mean key metric, the best model, and what alone is shared."""
    if not record.trains:
        return (_rounds_fact(record), _sites_fact(record))
    facts = (_rounds_fact(record), _sites_fact(record), _mean_fact(record), _best_fact(record))
    if record.shared_names is None:
        return facts
    shared = f"{len(record.shared_names)} tensors"
    return (*facts, Fact(label="Shared", value=shared, note=", ".join(record.shared_names)))


def model_note(model: str, matrix: CrossSiteMatrix) -> str:
    """Return what the name of a model stands for; empty where the name is all there is to say."""
    notes = {GLOBAL_MODEL: "last global model", BEST_GLOBAL_MODEL: "best global model"}
    if model in notes:
        return notes[model]
    return "best model of this site" if model in matrix.sites else ""


def best_models(matrix: CrossSiteMatrix, site: str) -> tuple[str, ...]:
    """Return the models with the best key metric at a site; several if they are equal."""
    metric = matrix.key_metric
    values = {
        model: matrix.value(model, site, metric)
        for model in matrix.models
        if matrix.has_value(model, site, metric)
    }
    return _best(values, matrix)


def row_mean(matrix: CrossSiteMatrix, model: str, metric: str) -> float | None:
    """Return the mean of a row, or ``None`` where a cell of it is missing or undefined."""
    whole = all(matrix.has_value(model, site, metric) for site in matrix.sites)
    return matrix.row_mean(model, metric) if whole else None


def best_mean_models(matrix: CrossSiteMatrix) -> tuple[str, ...]:
    """Return the models with the best mean key metric, among those evaluated at every site."""
    means = {model: row_mean(matrix, model, matrix.key_metric) for model in matrix.models}
    return _best(means, matrix)


def _best(values: Mapping[str, float | None], matrix: CrossSiteMatrix) -> tuple[str, ...]:
    """Return the models that no other beats; an undefined value is never best."""
    best: float | None = None
    higher = matrix.higher_is_better(matrix.key_metric) is not False
    for value in values.values():
        best = value if is_better(value, best, higher_is_better=higher) else best
    return tuple(model for model in values if best is not None and values[model] == best)


def format_value(value: float) -> str:
    """Return a metric with the digits that one compares.

    >>> format_value(0.87249), format_value(12.3456), format_value(0.0000123)
    ('0.872', '12.35', '1.23e-05')
    """
    if value == 0 or 0.001 <= abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:.4g}" if abs(value) >= 10 else f"{value:.3g}"


def format_metric(metric: MetricValue) -> str:
    """Return a metric with the digits that one compares, and with what its number hides."""
    return in_short(metric, format_value)


def format_class(part: ClassValue) -> str:
    """Return the value of a class with the cases behind it.

    >>> format_class(ClassValue(value=0.75, counted=4, missed=1))
    '0.750 (n 4, missed 1)'
    """
    value = "undefined" if part.value is None else format_value(part.value)
    counts = {"missed": part.missed, "absent": part.absent, "spurious": part.spurious}
    more = [f"{name} {count}" for name, count in counts.items() if count]
    return f"{value} ({', '.join([f'n {part.counted}', *more])})"


def format_mean(mean: SiteMean, write: Callable[[float], str] = format_value) -> str:
    """Return a mean over sites; of how many, where not all have a value.

    >>> format_mean(SiteMean(value=0.5, sites=2, undefined=("site-3",), unit="mm"))
    '0.500 mm (2 of 3 sites)'
    """
    if mean.value is None:
        return "undefined"
    of = f" ({mean.sites} of {mean.sites + len(mean.undefined)} sites)" if mean.undefined else ""
    return f"{write(mean.value)}{mean.unit and ' '}{mean.unit}{of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class of one metric of a model, at each site of the matrix.

    Attributes:
        parts: what the sites report; None where a site reports nothing of the class.
    """

    metric: str
    label: str
    parts: tuple[ClassValue | None, ...]


def class_rows(matrix: CrossSiteMatrix, model: str) -> Iterator[ClassRow]:
    """Yield the classes of each metric of a model, in the order of their first appearance."""
    row = matrix.cells.get(model, {})
    for metric in matrix.metrics:
        found = {site: cell[metric].classes for site, cell in row.items() if metric in cell}
        labels = dict.fromkeys(label for classes in found.values() for label in classes)
        for label in labels:
            parts = tuple(found.get(site, {}).get(label) for site in matrix.sites)
            yield ClassRow(metric=metric, label=label, parts=parts)


def format_bytes(count: int) -> str:
    """Return a size in decimal units.

    >>> format_bytes(999), format_bytes(604_000), format_bytes(2_500_000_000)
    ('999 B', '604.0 kB', '2.5 GB')
    """
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def format_seconds(seconds: float) -> str:
    """Return a duration.

    >>> format_seconds(3.21), format_seconds(72), format_seconds(7260)
    ('3.2 s', '1 min 12 s', '2 h 01 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _rounds_fact(record: RunRecord) -> Fact:
    took = ""
    if record.finished is not None:
        took = f"in {format_seconds((record.finished - record.started).total_seconds())}"
    if not record.trains:
        note = f"given models were evaluated {took}".rstrip()
        return Fact(label="Rounds", value="none", note=note)
    value = f"{len(record.closed_rounds)} of {record.rounds_asked}"
    return Fact(label="Rounds", value=value, note=took or "the run has not finished")


def _sites_fact(record: RunRecord) -> Fact:
    what = "in each round" if record.trains else "for each model"
    note = f"at least {record.min_sites} required {what}"
    return Fact(label="Sites", value=str(len(record.sites)), note=note)


def _mean_fact(record: RunRecord) -> Fact:
    label = f"Mean {record.key_metric}"
    if not record.scores:
        return Fact(label=label, value="no scores", note="no global model was scored")
    first, last = record.scores[0], record.scores[-1]
    if first is last:
        note = f"global model of round {first.round}{_coverage(record, first)}"
        return Fact(label=label, value=_mean(record, first), note=note)
    return Fact(
        label=label,
        value=f"{_mean(record, first)} → {_mean(record, last)}",
        note=f"from round {first.round}{_coverage(record, first)}"
        f" to round {last.round}{_coverage(record, last)}",
    )


def _best_fact(record: RunRecord) -> Fact:
    label = "Best global model"
    if record.best_round is None:
        return Fact(label=label, value="none", note="no global model was selected as the best")
    scores = record.scores_of(record.best_round)
    if scores is None:
        raise FederationError(f"the model of round {record.best_round} has no scores")
    note = f"mean {record.key_metric} {_mean(record, scores)}{_coverage(record, scores)}"
    return Fact(label=label, value=f"round {record.best_round}", note=note)


def _mean(record: RunRecord, scores: RoundScores) -> str:
    return format_mean(scores.mean[record.key_metric])


def _coverage(record: RunRecord, scores: RoundScores) -> str:
    """Over how many sites a mean goes, where these are not all."""
    scored, asked = len(scores.sites), len(record.sites)
    return "" if scored == asked else f" ({scored} of {asked} sites)"
