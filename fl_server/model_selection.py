"""Which global model is the best so far: the mean of its scores over the sites decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl_server.record.recorder import RunRecorder
from fl_server.record.values import mean_over_sites
from mmar_runtime.errors import FederationError
from mmar_runtime.results import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best global model so far.

    Attributes:
        round_number: the round it came out of.
        mean: the key metric's mean over the sites.
    """

    round_number: int
    mean: float


def better_model(
    best: Best | None,
    *,
    round_number: int,
    scores: Mapping[str, Metrics],
    key_metric: str,
) -> Best | None:
    """Return the model of ``round_number`` if it beats the best so far, else None.

    Higher is better; at a tie the earlier model stays. The initial model (round 0) is never
    selected: nobody has trained it in this run.

    Raises:
        FederationError: there are no scores, or the key metric is not among them.
    """
    if round_number == 0:
        return None
    mean = mean_over_sites(scores)
    if key_metric not in mean:
        raise FederationError(f"the sites report {sorted(mean)}, not the key metric {key_metric!r}")
    candidate = Best(round_number=round_number, mean=mean[key_metric])
    return candidate if best is None or candidate.mean > best.mean else None


class ModelSelection:
    """Selects the best global model of a run as its scores come in, and records which it is.

    Args:
        recorder: has the scores, and records the best round.
        key_metric: the metric that decides.
    """

    def __init__(self, recorder: RunRecorder, key_metric: str) -> None:
        self._recorder = recorder
        self._key_metric = key_metric
        self._best: Best | None = None

    def is_best(self, round_number: int) -> bool:
        """Return whether the model of this round, which all have scored, is the best so far.

        Raises:
            FederationError: no site has scored it, or not by the key metric.
        """
        if (scores := self._recorder.record.scores_of(round_number)) is None:
            raise FederationError(f"no site has scored the global model of round {round_number}")
        better = better_model(
            self._best,
            round_number=round_number,
            scores=scores.sites,
            key_metric=self._key_metric,
        )
        if better is None:
            return False
        self._best = better
        self._recorder.best(round_number)
        return True
