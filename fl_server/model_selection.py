"""Which global model is the best so far: the mean of its scores over the sites decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl_server.run_record import Metrics, mean_over_sites
from mmar_runtime.errors import FederationError


@dataclass(frozen=True, slots=True, kw_only=True)
class BestModel:
    """The best global model so far.

    Attributes:
        round_number: the round it came out of.
        mean: the key metric's mean over the sites.
    """

    round_number: int
    mean: float


def better_model(
    best: BestModel | None,
    *,
    round_number: int,
    scores: Mapping[str, Metrics],
    key_metric: str,
) -> BestModel | None:
    """The model of ``round_number`` if it beats the best so far, else None.

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
    candidate = BestModel(round_number=round_number, mean=mean[key_metric])
    return candidate if best is None or candidate.mean > best.mean else None
