"""The best global model: the mean over the sites decides, and an earlier model keeps its place."""

from __future__ import annotations

import pytest

from fl_server.model_selection import Best, better_model
from mmar_runtime.errors import FederationError

DICE = "val_mean_dice"


def after(best: Best | None, round_number: int, *values: float) -> Best | None:
    scores = {f"site-{number}": {DICE: value} for number, value in enumerate(values, start=1)}
    return better_model(best, round_number=round_number, scores=scores, key_metric=DICE)


def test_the_first_trained_model_is_the_best_so_far() -> None:
    assert after(None, 1, 0.25, 0.75) == Best(round_number=1, mean=(0.25 + 0.75) / 2)


def test_the_initial_model_is_never_selected() -> None:
    assert after(None, 0, 1.0) is None


def test_a_higher_mean_over_the_sites_takes_the_place() -> None:
    best = Best(round_number=1, mean=0.5)

    assert after(best, 2, 0.0, 0.9) is None
    assert after(best, 2, 0.5, 0.75) == Best(round_number=2, mean=0.625)


def test_at_a_tie_the_earlier_model_stays() -> None:
    assert after(Best(round_number=1, mean=0.5), 2, 0.25, 0.75) is None


def test_a_model_that_scores_zero_can_be_the_best() -> None:
    assert after(None, 1, 0.0) == Best(round_number=1, mean=0.0)


def test_scores_without_the_key_metric_are_an_error() -> None:
    with pytest.raises(FederationError, match=r"report \['loss'\], not the key metric"):
        better_model(None, round_number=1, scores={"site-1": {"loss": 0.5}}, key_metric=DICE)


def test_no_scores_are_an_error() -> None:
    with pytest.raises(FederationError, match="a mean over zero sites does not exist"):
        better_model(None, round_number=1, scores={}, key_metric=DICE)
