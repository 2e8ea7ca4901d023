"""Several matrices as one, such as that of a run and that of a site which joined later.

Rows are joined by the names of the models, and only where a name stands for the same weights in
each matrix that has it; columns by the names of the sites. What two matrices both hold has to be
the same number. So the result depends on neither the order of the matrices nor on how often one of
them is given: ``merged([a, b]) == merged([b, a, b])`` and ``merged([merged([a, b]), c]) ==
merged([a, b, c])``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from fl_server.record.cross_site import (
    BEST_GLOBAL_MODEL,
    GLOBAL_MODEL,
    CrossSiteMatrix,
)
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import MetricValue

MAX_LISTED = 10
"""Reasons that an error names; the rest are counted."""


def merged(matrices: Mapping[str, CrossSiteMatrix]) -> CrossSiteMatrix:
    """One matrix with every cell of several.

    The global models come first, the others by their names. A pair of model and site that none of
    the matrices has is missing in the result too; a model that has not reached any of the runs, so
    that nobody knows its weights, is left out.

    Args:
        matrices: what each is called, for errors -> the matrix.

    Raises:
        FederationError: with every reason for which they cannot be one: nobody knows the weights
            of a row, models were evaluated or are compared in different ways, a name stands for
            different weights, or a cell for different values.
    """
    if not matrices:
        raise FederationError("no matrix is given to merge")
    nameless = [
        f"{name} does not say which weights {', '.join(lacking)} stands for"
        for name, matrix in sorted(matrices.items())
        if (lacking := [model for model in matrix.cells if model not in matrix.weights_sha256])
    ]
    if faults := nameless or [*_unlike(matrices), *_contradictions(matrices)]:
        rest = len(faults) - MAX_LISTED
        more = [f"and {rest} more"] if rest > 0 else []
        listed = "\n    ".join([*faults[:MAX_LISTED], *more])
        raise FederationError(f"the matrices cannot be merged:\n    {listed}")
    first, *_ = matrices.values()
    digests = {
        name: digest
        for matrix in matrices.values()
        for name, digest in matrix.weights_sha256.items()
    }
    first_ones = (GLOBAL_MODEL, BEST_GLOBAL_MODEL)
    others = digests.keys() - set(first_ones)
    cells: dict[str, dict[str, dict[str, MetricValue]]] = {}
    for (model, site, metric), value in _entries(matrices.values()):
        cells.setdefault(model, {}).setdefault(site, {})[metric] = value
    return CrossSiteMatrix(
        cells=cells,
        key_metric=first.key_metric,
        models=(*(name for name in first_ones if name in digests), *sorted(others)),
        sites=tuple(sorted({site for matrix in matrices.values() for site in matrix.sites})),
        weights_sha256=digests,
        evaluation_sha256=first.evaluation_sha256,
    )


def _entries(
    matrices: Iterable[CrossSiteMatrix],
) -> Iterator[tuple[tuple[str, str, str], MetricValue]]:
    """Every value with its model, site and metric."""
    for matrix in matrices:
        for model, row in matrix.cells.items():
            for site, cell in row.items():
                for metric, value in cell.items():
                    yield (model, site, metric), value


def _unlike(matrices: Mapping[str, CrossSiteMatrix]) -> Iterator[str]:
    """Report what the matrices have to share and do not."""
    shared: dict[str, Callable[[CrossSiteMatrix], str]] = {
        "key metric": lambda matrix: matrix.key_metric,
        "digest of config_cross_validation.json with its values and code": (
            lambda matrix: matrix.evaluation_sha256
        ),
    }
    for what, value_of in shared.items():
        values = {name: value_of(matrix) for name, matrix in sorted(matrices.items())}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{_short(value)} in {name}" for name, value in values.items())
            yield f"the {what} differs: {listed}"


def _contradictions(matrices: Mapping[str, CrossSiteMatrix]) -> Iterator[str]:
    """Report names that stand for different weights, and cells with different values."""
    digests: dict[str, dict[str, str]] = defaultdict(dict)
    values: dict[tuple[str, str, str], dict[str, MetricValue]] = defaultdict(dict)
    for name, matrix in sorted(matrices.items()):
        for model, digest in matrix.weights_sha256.items():
            digests[model][name] = digest
        for key, value in _entries([matrix]):
            values[key][name] = value
    for model, named in digests.items():
        if len(set(named.values())) > 1:
            listed = ", ".join(f"{_short(digest)} in {name}" for name, digest in named.items())
            yield f"{model} is not the same model: its weights are {listed}"
    for (model, site, metric), by_name in values.items():
        first = next(iter(by_name.values()))
        if any(value != first for value in by_name.values()):
            listed = ", ".join(f"{value.value!r} in {name}" for name, value in by_name.items())
            yield f"{metric} of {model} at {site} is {listed}"


def _short(text: str) -> str:
    return f"{text[:12]}..." if len(text) == 64 else repr(text)
