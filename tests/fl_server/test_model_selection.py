"""The best global model: the mean over the sites decides, and an earlier model keeps its place."""

from __future__ import annotations

import pytest

from fl_server.model_selection import Scores, beats
from mmar_runtime.errors import FederationError
from tests.conftest import metric
from tests.fl_server.conftest import DICE, Started

Values = tuple[float | None, ...]


def scores_of(*values: float | None) -> Scores:
    return {f"site-{number}": {DICE: metric(v)} for number, v in enumerate(values, start=1)}


def verdict(new: Scores, best: Scores | None, *, higher_is_better: bool = True) -> bool | None:
    return beats(new, best, key_metric=DICE, higher_is_better=higher_is_better)


def test_the_first_trained_model_is_the_best_so_far() -> None:
    assert verdict(scores_of(0.25, 0.75), None) is True


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize(
    ("new", "best", "by_higher", "by_lower"),
    [
        ((0.0, 0.9), (0.5, 0.5), False, True),  # a mean of 0.45
        ((0.5, 0.75), (0.5, 0.5), True, False),
        ((0.25, 0.75), (0.5, 0.5), False, False),  # a tie: the earlier model stays
        ((0.75, None), (0.5, 1.0), True, False),  # 0.75 to 0.5 at site-1; the mean is equal
        ((0.25, 0.5), (None, 0.75), False, True),  # 0.5 to 0.75 at site-2
        ((0.75,), (0.5, 1.0), True, False),  # site-2 has not scored the new model
        ((None, None), (0.5, 0.5), False, False),  # no value is ever the best
        ((0.5, None), (None, 0.5), None, None),  # nobody can compare them
    ],
)
def test_means_over_the_sites_that_scored_both(
    higher_is_better: bool, new: Values, best: Values, by_higher: object, by_lower: object
) -> None:
    found = verdict(scores_of(*new), scores_of(*best), higher_is_better=higher_is_better)

    assert found is (by_higher if higher_is_better else by_lower)


@pytest.mark.parametrize(("values", "selected"), [((0.0,), True), ((None, None), False)])
def test_a_model_that_scores_zero_can_be_the_best_and_one_without_a_score_cannot(
    values: Values, selected: bool
) -> None:
    assert verdict(scores_of(*values), None) is selected


def test_scores_without_the_key_metric_are_an_error() -> None:
    with pytest.raises(FederationError, match=r"reports \['loss'\], not the key metric"):
        verdict({"site-1": {"loss": metric(0.5)}}, None)


# --- in a run: the rounds in the order of their scores


@pytest.mark.parametrize(
    ("higher_is_better", "initial", "one", "two", "best"),
    [
        (True, (1.0, 1.0), (0.25, 0.25), (0.5, 0.5), 2),  # the initial model is never selected
        (True, (0.0, 0.0), (0.5, 0.5), (0.25, 0.75), 1),  # a tie
        (False, (0.0, 0.0), (0.5, 0.5), (0.25, 0.25), 2),
        (False, (0.0, 0.0), (0.25, 0.25), (0.5, 0.5), 1),
        (True, (0.0, 0.0), (None, None), (0.25, None), 2),
        (True, (0.0, 0.0), (0.5, None), (None, 0.75), 1),  # nobody can compare them
    ],
)
def test_the_best_round_of_a_run(
    started: Started,
    caplog: pytest.LogCaptureFixture,
    higher_is_better: bool,
    initial: Values,
    one: Values,
    two: Values,
    best: int,
) -> None:
    found = started(rounds=2, higher_is_better=higher_is_better)
    for values in (initial, one):
        found.train(*values)
    found.scored(*two)

    assert found.run.record.best_round == best
    comparable = one[0] is None or two[0] is not None
    assert ("rounds 2 and 1 cannot be compared" in caplog.text) is not comparable
