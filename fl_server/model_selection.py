"""Which global model is the best so far: the mean of its scores over the sites decides."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fl_server.record.recorder import RunRecorder
from fl_server.record.values import mean_over_sites
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import Metrics, is_better

logger = logging.getLogger(__name__)

Scores = Mapping[str, Metrics]
"""Site -> the metrics of one model there."""


def beats(
    new: Scores, best: Scores | None, *, key_metric: str, higher_is_better: bool
) -> bool | None:
    """Return whether a model's scores are better than those of the best model so far.

    Both means go over the sites where both models have a defined key metric, since one easy site
    must not beat all. At a tie the earlier model stays.

    Args:
        new: of a model that at least one site has scored.
        best: of the best model; None if there is none.
        key_metric: the metric that decides.
        higher_is_better: its direction.

    Returns:
        None where no site has a defined score of both, so that nobody can compare them.

    Raises:
        FederationError: the key metric is not among the scores.
    """
    own = _defined(new, key_metric)
    if best is None or not own:
        return bool(own)
    common = own & _defined(best, key_metric)
    if not common:
        return None
    means = [
        mean_over_sites({site: scores[site] for site in common})[key_metric].value
        for scores in (new, best)
    ]
    return is_better(*means, higher_is_better=higher_is_better)


def _defined(scores: Scores, key_metric: str) -> frozenset[str]:
    """Return the sites at which the key metric has a value."""
    for site, metrics in scores.items():
        if key_metric not in metrics:
            found = sorted(metrics)
            raise FederationError(f"{site} reports {found}, not the key metric {key_metric!r}")
    return frozenset(site for site, at in scores.items() if at[key_metric].value is not None)


class ModelSelection:
    """Selects the best global model of a run as its scores come in, and records which it is.

    Args:
        recorder: has the scores, and records the best round.
        key_metric: the metric that decides.
        higher_is_better: its direction.
    """

    def __init__(self, recorder: RunRecorder, key_metric: str, *, higher_is_better: bool) -> None:
        self._recorder = recorder
        self._key_metric = key_metric
        self._higher_is_better = higher_is_better
        self._best: int | None = None

    def is_best(self, round_number: int) -> bool:
        """Return whether the model of this round, which all have scored, is the best so far.

        The initial model (round 0) is never selected: nobody has trained it in this run.

        Raises:
            FederationError: no site has scored it, or not by the key metric.
        """
        better = beats(
            self._scores(round_number),
            None if self._best is None else self._scores(self._best),
            key_metric=self._key_metric,
            higher_is_better=self._higher_is_better,
        )
        if better is None:
            logger.warning(
                "the models of rounds %d and %s cannot be compared: no site has scored both by %s",
                round_number,
                self._best,
                self._key_metric,
            )
        if round_number == 0 or not better:
            return False
        self._best = round_number
        self._recorder.best(round_number)
        return True

    def _scores(self, round_number: int) -> Scores:
        if (scores := self._recorder.record.scores_of(round_number)) is None:
            raise FederationError(f"no site has scored the global model of round {round_number}")
        return scores.sites
