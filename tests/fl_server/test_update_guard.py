"""The guard: one valid reply of each kind, and every way in which it could be spoilt."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from fl_server.guard.claims import MOST_STEPS
from fl_server.guard.tensors import outlying_norms, update_norm
from fl_server.guard.values import MAX_FAULTS
from fl_server.update_guard import Expected, UpdateLimits, check_update
from mmar_runtime.exchange.messages import MAX_COUNT, MAX_METRICS
from mmar_runtime.exchange.metric_messages import MAX_CLASSES
from tests.conftest import plain_metric

Json = dict[str, Any]

MODEL = {
    "conv.weight": np.zeros((2, 3), np.float32),
    "norm.batches": np.array(7),
}
CONTRIBUTION = Expected(
    site="site-1",
    job="job-1",
    model=MODEL,
    key_metric="dice",
    metric_names=("dice", "acc"),
    directions={"dice": True},
    round=3,
    base_model="0f" * 32,
    contributors={"site-2"},
)
SUBMISSION = replace(CONTRIBUTION, kind="WEIGHTS", round=None, base_model=None)
EVALUATION = replace(SUBMISSION, kind="METRICS", model={})
LIMITS = UpdateLimits(metric_ranges={"dice": (0.0, 1.0)})

CLAIMS = {"site": "site-1", "job": "job-1"}


def update() -> Json:
    return {"conv.weight": np.ones((2, 3), np.float32), "norm.batches": np.array(4)}


def metadata() -> Json:
    report = {
        "received_metrics": {"dice": plain_metric(0.25), "acc": plain_metric(0.5)},
        "local_metrics": {"dice": plain_metric(0.5)},
        "epochs": [{"epoch": 1, "loss": 0.7, "metrics": {}}],
        "seconds": 2.5,
        "built": {"train.trainer": 1},
        "process": "17-a0b1",
    }
    claims = {**CLAIMS, "kind": "WEIGHT_DIFF", "round": 3, "base_model": "0f" * 32}
    return {**claims, "steps": 12, "report": report}


def submission() -> Json:
    return {**CLAIMS, "kind": "WEIGHTS", "model_round": 2, "metrics": {"dice": plain_metric(0.5)}}


def evaluation() -> Json:
    return {**CLAIMS, "kind": "METRICS", "cases": 9}


def faults_of(arrays: Any, meta: Any = None, **limits: Any) -> list[tuple[str, str]]:
    meta = metadata() if meta is None else meta
    found = check_update(arrays, meta, CONTRIBUTION, replace(LIMITS, **limits))
    return [(fault.rule, str(fault)) for fault in found]


def test_a_valid_contribution_has_no_fault() -> None:
    assert faults_of(update()) == []


def test_a_valid_model_has_no_fault() -> None:
    model = {"conv.weight": np.full((2, 3), -9, np.float32), "norm.batches": np.array(10**6)}

    assert check_update(model, submission(), SUBMISSION, LIMITS) == ()


def test_valid_metrics_have_no_fault() -> None:
    metrics = {"dice": plain_metric(1), "acc": plain_metric(0.5)}

    assert check_update(metrics, evaluation(), EVALUATION, LIMITS) == ()


# --- tensors


class Pretender(np.ndarray):  # type: ignore[type-arg]
    """An array whose methods are the sender's."""


def shared(value: Any) -> Any:
    """As large as asked for, and all of it the same few bytes."""
    return np.broadcast_to(np.array(value, np.float32), (2, 3))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("norm.batches", None, "array"),
        ("conv.weight", [[1.0] * 3] * 2, "array"),
        ("conv.weight", np.ones((2, 3), np.float32).view(Pretender), "array"),
        ("conv.weight", np.ma.ones((2, 3), np.float32), "array"),
        ("conv.weight", np.float32(1), "array"),
        ("conv.weight", np.ones((3, 2), np.float32), "shape"),
        ("conv.weight", np.ones((1, 3), np.float32), "shape"),
        ("conv.weight", np.array(100, np.float32), "shape"),
        ("conv.weight", np.ones((2, 3, 1), np.float32), "shape"),
        ("conv.weight", np.ones((0, 3), np.float32), "shape"),
        ("conv.weight", np.broadcast_to(np.float32(1), (2**20, 2**20)), "shape"),
        ("conv.weight", np.ones((2, 3)), "dtype"),
        ("conv.weight", np.ones((2, 3), np.float16), "dtype"),
        ("conv.weight", np.ones((2, 3), ">f4"), "dtype"),
        ("conv.weight", np.ones((2, 3), np.complex64), "dtype"),
        ("conv.weight", np.full((2, 3), None), "dtype"),
        ("conv.weight", np.full((2, 3), "1.0"), "dtype"),
        ("conv.weight", np.zeros((2, 3), [("a", "f4")]), "dtype"),
        ("conv.weight", np.zeros((2, 3), "M8[s]"), "dtype"),
        ("norm.batches", np.array(4.0), "dtype"),
        ("norm.batches", np.array(True), "dtype"),
        ("conv.weight", shared(1), "layout"),
        ("conv.weight", np.ones((4, 6), np.float32)[::2, ::2], "layout"),
        ("conv.weight", np.frombuffer(bytes(25), "f4", 6, offset=1).reshape(2, 3), "layout"),
        ("conv.weight", np.full((2, 3), np.nan, np.float32), "finite"),
        ("conv.weight", np.full((2, 3), -np.inf, np.float32), "finite"),
        ("norm.batches", np.array(MAX_COUNT + 1), "range"),
        ("norm.batches", np.array(2**63 - 1), "range"),
        ("norm.batches", np.array(-8), "range"),
        ("norm.batches", np.array(-(2**63)), "range"),
    ],
)  # fmt: skip
def test_a_spoilt_tensor_is_named_with_its_rule(name: str, value: Any, rule: str) -> None:
    spoilt = {**update(), name: value}

    [(found, text)] = faults_of(spoilt)

    assert found == rule
    assert text.startswith(f"{name}: ")


@pytest.mark.parametrize("order", ["C", "F"])
def test_both_dense_layouts_are_taken(order: Any) -> None:
    assert faults_of({**update(), "conv.weight": np.ones((2, 3), np.float32, order)}) == []


def test_one_value_that_is_not_finite_is_enough() -> None:
    spoilt = update()
    spoilt["conv.weight"][1, 2] = math.nan

    assert faults_of(spoilt) == [("finite", "conv.weight: values that are not finite")]


def test_a_difference_that_leads_out_of_the_range_of_the_dtype_is_refused() -> None:
    """Each is finite, their sum is not; and a mean of such models need not be either."""
    half = {"w": np.full(2, 60_000, np.float16)}
    expected = replace(CONTRIBUTION, model=half)

    [fault] = check_update({"w": half["w"].copy()}, metadata(), expected, LIMITS)

    assert (fault.rule, str(fault)) == ("range", "w: leads to values that float16 does not hold")


def test_a_counter_of_the_model_may_go_down_as_far_as_zero() -> None:
    assert faults_of({**update(), "norm.batches": np.array(-7)}) == []


def test_missing_and_further_tensors_are_told_at_once() -> None:
    spoilt = {"conv.weight": np.ones((2, 3), np.float32), "extra": np.ones(1)}

    assert faults_of(spoilt) == [
        ("names", "'extra': not part of the network"),
        ("names", "norm.batches: missing"),
    ]


def test_a_great_many_tensors_are_not_looked_at() -> None:
    spoilt = {str(number): None for number in range(100_000)}

    assert faults_of(spoilt) == [("names", "update: has 100000 tensors; the network has 2")]


@pytest.mark.parametrize("value", [None, [], "update", 7, object(), update])
def test_an_update_that_is_no_object_is_refused(value: Any) -> None:
    [(rule, _)] = faults_of(value)
    assert rule == "tensors"


def test_names_of_tensors_are_texts() -> None:
    [(rule, text)] = faults_of({**update(), 5: np.ones(1)})

    assert (rule, text) == ("names", "update: a tensor is called 5")


def test_more_bytes_than_the_federation_takes_are_refused() -> None:
    assert faults_of(update(), max_bytes=32) == []
    assert faults_of(update(), max_bytes=31) == [("bytes", "update: has 32 bytes; 31 is the most")]


def test_a_huge_array_is_refused_as_it_is_declared() -> None:
    """Four tebibytes, of which four bytes are there."""
    vast = np.broadcast_to(np.float32(1), (2**20, 2**20))

    assert [rule for rule, _ in faults_of({**update(), "conv.weight": vast})] == ["shape"]

    same_shape = replace(CONTRIBUTION, model={"w": vast})
    [fault] = check_update({"w": vast}, metadata(), same_shape, LIMITS)
    assert fault.rule == "layout"


# --- norms


def test_the_norm_is_taken_over_all_floating_point_tensors_in_float64() -> None:
    difference = {"a": np.full(4, 1e30, np.float32), "n": np.array(10**9)}

    assert update_norm(difference) == pytest.approx(2e30, rel=1e-6)


def test_a_fixed_bound_of_the_norm() -> None:
    norm = math.sqrt(6)

    assert faults_of(update(), max_norm=norm + 1e-9) == []
    assert faults_of(update(), max_norm=norm - 1e-3)[0][0] == "norm"


def test_without_a_bound_a_difference_must_leave_something_of_the_model() -> None:
    """Above 2**24 times the model's norm, float32 has no digit left for what was there before."""
    expected = replace(CONTRIBUTION, model={"w": np.full(2, 100.0)})

    assert check_update({"w": np.full(2, 1e9)}, metadata(), expected, LIMITS) == ()
    [fault] = check_update({"w": np.full(2, 1e10)}, metadata(), expected, LIMITS)
    assert fault.rule == "norm"


def test_a_norm_is_a_number_whatever_the_bound() -> None:
    """Squares of 1e200 are beyond float64, and so might be a sum over sites."""
    expected = replace(CONTRIBUTION, model={"w": np.zeros(2)})

    limits = replace(LIMITS, max_norm=math.inf)
    [fault] = check_update({"w": np.full(2, 1e200)}, metadata(), expected, limits)
    assert str(fault) == "update: its norm is no finite number in float64"


def test_a_bound_by_the_median_waits_until_the_round_has_a_median() -> None:
    limits = replace(LIMITS, norm_ratio=2.0)

    assert check_update(update(), metadata(), CONTRIBUTION, limits) == ()
    fault = outlying_norms({"site-1": 0.5, "site-2": 0.5, "site-3": 1.25}, 2.0)["site-3"]
    assert str(fault) == "update: its norm is 1.25, more than 2 times the median 0.5"


def test_the_median_of_a_round_shows_who_is_far_off() -> None:
    norms = {"site-1": 1.0, "site-2": 2.0, "site-3": 3.0, "site-4": 41.0}

    assert list(outlying_norms(norms, ratio=10.0)) == ["site-4"]
    assert outlying_norms(norms, ratio=20.0) == {}
    assert outlying_norms({}, ratio=1.0) == {}


def test_a_site_alone_is_never_far_off() -> None:
    assert outlying_norms({"site-1": 1e9}, ratio=1.0) == {}


# --- what it belongs to


@pytest.mark.parametrize(
    ("claim", "value", "rule"),
    [
        ("site", "site-2", "site"),
        ("site", None, "site"),
        ("job", "job-2", "job"),
        ("round", 2, "round"),
        ("round", 4, "round"),
        ("round", 3.0, "round"),
        ("round", "3", "round"),
        ("round", None, "round"),
        ("base_model", "00" * 32, "base_model"),
        ("base_model", None, "base_model"),
        ("kind", "WEIGHTS", "kind"),
        ("kind", "COLLECTION", "kind"),
    ],
)
def test_what_belongs_elsewhere_is_refused(claim: str, value: Any, rule: str) -> None:
    [(found, _)] = faults_of(update(), {**metadata(), claim: value})
    assert found == rule


def test_a_site_counts_once() -> None:
    again = replace(CONTRIBUTION, contributors={"site-1"})

    [fault] = check_update(update(), metadata(), again, LIMITS)

    assert (fault.rule, str(fault)) == ("duplicate", "site: site-1 has answered already")


# --- metadata


@pytest.mark.parametrize(
    "steps", [True, False, 0, -1, MAX_COUNT + 1, 10**18, 1.0, "12", None, np.int64(3)]
)
def test_any_other_number_of_steps_is_refused(steps: Any) -> None:
    assert faults_of(update(), {**metadata(), "steps": steps})


@pytest.mark.parametrize("steps", [1, 2 * MOST_STEPS])
def test_a_positive_whole_number_of_steps_is_accepted(steps: int) -> None:
    assert faults_of(update(), {**metadata(), "steps": steps}) == []


@pytest.mark.parametrize(
    ("epochs", "most"),
    [(0, MOST_STEPS), (1, 2 * MOST_STEPS), (99, 100 * MOST_STEPS)],
)
def test_steps_are_as_many_as_epochs_and_cases_allow(epochs: int, most: int) -> None:
    """A handler may have ended the last epoch early, so one more than those reported counts."""
    told = [{"epoch": number + 1, "loss": None, "metrics": {}} for number in range(epochs)]
    meta = inside(lambda meta: meta["report"].update(epochs=told))

    assert faults_of(update(), {**meta, "steps": most}) == []
    assert [rule for rule, _ in faults_of(update(), {**meta, "steps": most + 1})] == ["steps"]


def test_more_epochs_than_a_round_may_have_allow_no_more_steps() -> None:
    told = [{"epoch": number + 1, "loss": None, "metrics": {}} for number in range(101)]
    meta = inside(lambda meta: meta["report"].update(epochs=told))

    assert [rule for rule, _ in faults_of(update(), {**meta, "steps": 100 * MOST_STEPS + 1})] == [
        "steps"
    ]


def test_a_job_that_asks_for_steps_gets_no_more_of_them() -> None:
    asked = replace(CONTRIBUTION, steps=12)

    assert check_update(update(), metadata(), asked, LIMITS) == ()
    assert check_update(update(), {**metadata(), "steps": 3}, asked, LIMITS) == ()  # ended early
    [fault] = check_update(update(), {**metadata(), "steps": 13}, asked, LIMITS)
    assert str(fault) == "steps: has to be a whole number from 1 to 12, found 13"


def test_a_federation_may_allow_fewer_steps() -> None:
    [(rule, text)] = faults_of(update(), max_steps=11)

    assert rule == "steps"
    assert text == "steps: has to be a whole number from 1 to 11, found 12"


def inside(change: Callable[[Json], object]) -> Json:
    spoilt = metadata()
    change(spoilt)
    return spoilt


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda meta: meta.update(patients=["x.nii.gz"]), "metadata"),
        (lambda meta: meta.update({3: 4}), "metadata"),
        (lambda meta: meta["report"].update(note="hello"), "report"),
        (lambda meta: meta.pop("report"), "report"),
        (lambda meta: meta.update(report=[]), "report"),
        (lambda meta: meta.pop("steps"), "steps"),
        (lambda meta: meta["report"].update(process="a\nb"), "metadata"),
        (lambda meta: meta["report"].update(process=b"bytes"), "metadata"),
        (lambda meta: meta["report"].update(process=object()), "metadata"),
        (lambda meta: meta["report"].update(seconds=math.nan), "metadata"),
        (lambda meta: meta["report"].update(seconds=10**400), "metadata"),
        (lambda meta: meta["report"].update(built={"\x1b[2J": 1}), "metadata"),
        (lambda meta: meta["report"].update(epochs=np.ones(3)), "metadata"),
        (lambda meta: meta["report"].update(process="x" * 70_000), "metadata-size"),
        (lambda meta: meta["report"].update(epochs=[0] * 40_000), "metadata-size"),
        (lambda meta: meta["report"].update(epochs=[[[[[[[[]]]]]]]]), "metadata"),
        (lambda meta: meta["report"].update(epochs=meta), "metadata"),
        (lambda meta: meta["report"]["local_metrics"].pop("dice"), "metrics"),
        (lambda meta: meta["report"]["local_metrics"].update(speed=plain_metric(1)), "metrics"),
        (lambda meta: meta["report"]["local_metrics"].update(dice=plain_metric(1.5)), "metrics"),
        (lambda meta: meta["report"]["local_metrics"].update(dice=plain_metric(-0.1)), "metrics"),
        (lambda meta: meta["report"]["local_metrics"].update(dice=plain_metric(True)), "metrics"),
        (lambda meta: meta["report"]["local_metrics"].update(dice=plain_metric("1")), "metrics"),
        (lambda meta: meta["report"]["local_metrics"].update(acc=plain_metric(1e300)), "metrics"),
        (lambda meta: meta["report"].update(local_metrics=[0.5]), "metrics"),
        (lambda meta: meta["report"]["received_metrics"].clear(), "metrics"),
        (lambda meta: meta.update(initial_metrics={"dice": plain_metric(0.25)}), "metadata"),
    ],
)
def test_spoilt_metadata_are_refused(change: Callable[[Json], object], rule: str) -> None:
    assert rule in [found for found, _ in faults_of(update(), inside(change))]


@pytest.mark.parametrize("value", [None, [], "metadata", object()])
def test_metadata_that_are_no_object_are_refused(value: Any) -> None:
    found = check_update(update(), value, CONTRIBUTION, LIMITS)
    assert [fault.rule for fault in found] == ["metadata"]


def test_what_a_site_wrote_is_shown_in_short_and_without_control_characters() -> None:
    [(_, text)] = faults_of(update(), {**metadata(), "\x1b]0;owned\x07" + "x" * 500: 1})[:1]

    assert "\x1b" not in text
    assert len(text) < 200


def test_there_are_only_so_many_faults() -> None:
    spoilt = {f"extra-{number}": None for number in range(MAX_FAULTS)}

    assert len(faults_of({**update(), **spoilt}, {**metadata(), "steps": 0})) == MAX_FAULTS


# --- models and metrics


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda model, meta: model.update({"norm.batches": np.array(-1)}), "range"),
        (lambda model, meta: model["conv.weight"].fill(np.inf), "finite"),
        (lambda model, meta: model.pop("conv.weight"), "names"),
        (lambda model, meta: meta.pop("metrics"), "metrics"),
        (lambda model, meta: meta.update(metrics={"dice": plain_metric(2)}), "metrics"),
        (lambda model, meta: meta.update(model_round=0), "model_round"),
        (lambda model, meta: meta.update(model_round="1"), "model_round"),
        (lambda model, meta: meta.update(kind="COLLECTION"), "kind"),
        (lambda model, meta: meta.update(steps=3), "metadata"),
        (lambda model, meta: meta.update(site="site-2"), "site"),
    ],
)
def test_a_spoilt_model_is_refused(change: Any, rule: str) -> None:
    model, meta = update(), submission()
    change(model, meta)

    assert [fault.rule for fault in check_update(model, meta, SUBMISSION, LIMITS)] == [rule]


GOOD = plain_metric(0.5)
SPOILT_VALUES = (math.nan, math.inf, 1.01, np.float64(0.5), [0.5, 0.6], "0.5", True)


@pytest.mark.parametrize(
    "metrics",
    [
        {}, {"acc": GOOD}, {"dice": None}, {"dice": 0.5}, {"dice": [GOOD]}, [], None,
        {"dice": GOOD, "case_7.nii.gz": GOOD}, {"dice": GOOD, 3: GOOD},
        *[{"dice": plain_metric(value)} for value in SPOILT_VALUES],
    ],
)  # fmt: skip
def test_spoilt_metrics_are_refused(metrics: Any) -> None:
    found = check_update(metrics, evaluation(), EVALUATION, LIMITS)
    assert {fault.rule for fault in found} == {"metrics"}


def test_without_a_list_of_names_others_may_be_there_too() -> None:
    expected = replace(EVALUATION, metric_names=None)
    many = {f"metric-{number}": plain_metric(0.0) for number in range(MAX_METRICS)}
    limits = replace(LIMITS, metadata_bytes=10**6)

    other = {"dice": GOOD, "hd95": plain_metric(9.0)}
    assert check_update(other, evaluation(), expected, LIMITS) == ()
    assert check_update(many | {"dice": GOOD}, evaluation(), expected, limits)
    del many["metric-0"]
    assert not check_update(many | {"dice": GOOD}, evaluation(), expected, limits)


def classes(count: int = 1, **spoilt: Any) -> Json:
    """A metric with so many classes, each with the same values."""
    part = {"value": 0.5, "counted": 3, "missed": 1, "absent": 2, "spurious": 1, **spoilt}
    return plain_metric(0.5, 3, classes={f"class{number}": dict(part) for number in range(count)})


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (plain_metric(0.5, higher_is_better=False), "has another direction than the job's metric"),
        (plain_metric(0.5, higher_is_better=None), "has another direction than the job's metric"),
        (plain_metric(0.5, 0), "a metric of 0 cases cannot have the value 0.5"),
        (plain_metric(0.5, -1), f"a count is not a whole number from 0 to {MAX_COUNT}"),
        (plain_metric(0.5, undefined=MAX_COUNT + 1), "a count is not a whole number from 0"),
        (plain_metric(0.5, 1.0), "counted: expected a whole number, found 1.0"),
        (plain_metric(0.5, unit="inch"), "unit: found 'inch'; allowed: '', 'mm', 'voxels'"),
        (plain_metric(0.5, cases=["x.nii.gz"]), "unknown: cases"),
        ({"value": 0.5}, "missing: counted"),
        (classes(value=1.5), "has to be a number from 0 to 1, found 1.5"),
        (classes(value=math.inf), "is not finite"),
        (classes(counted=0), "a metric of 0 cases cannot have the value 0.5"),
        (classes(spurious=3), "a class counts more than the 3 cases of the metric"),
        (classes(spurious=-1), "a count is not a whole number from 0"),
        (classes(cases=["x.nii.gz"]), "unknown: cases"),
        (plain_metric(0.5, 3, classes={"DOE/JOHN.nii": classes()["classes"]["class0"]}), "names"),
        (classes(MAX_CLASSES + 1), f"expected at most {MAX_CLASSES} names"),
    ],
)  # fmt: skip
def test_a_spoilt_part_of_a_metric_is_named(metric: Json, told: str) -> None:
    limits = replace(LIMITS, metadata_bytes=10**6)

    [fault] = check_update({"dice": metric}, evaluation(), EVALUATION, limits)

    assert fault.rule == "metrics"
    assert told in str(fault)


def test_metrics_are_plain_values_and_no_more_bytes_than_metadata() -> None:
    found = check_update({"dice": classes(MAX_CLASSES)}, evaluation(), EVALUATION, LIMITS)
    assert [fault.rule for fault in found] == []

    small = replace(LIMITS, metadata_bytes=1000)
    found = check_update({"dice": classes(MAX_CLASSES)}, evaluation(), EVALUATION, small)
    assert [fault.rule for fault in found] == ["metadata-size"]


@pytest.mark.parametrize("withheld", [False, True])
def test_an_undefined_key_metric_costs_no_contribution(withheld: bool) -> None:
    """As long as it is there: a site tells that it has no value."""
    undefined = plain_metric(None, 3, withheld=withheld)

    told = inside(lambda meta: meta["report"].update(local_metrics={"dice": undefined}))
    assert faults_of(update(), told) == []
    assert check_update({"dice": undefined}, evaluation(), EVALUATION, LIMITS) == ()


def test_metrics_of_an_epoch_have_no_classes() -> None:
    """They would be too deep inside, and a site sends its epochs without them."""
    told = [{"epoch": 1, "loss": None, "metrics": {"acc": classes(0)}}]
    assert faults_of(update(), inside(lambda meta: meta["report"].update(epochs=told))) == []

    told[0]["metrics"] = {"acc": classes(1)}
    [(rule, text)] = faults_of(update(), inside(lambda meta: meta["report"].update(epochs=told)))
    assert (rule, text.endswith("is nested too deeply")) == ("metadata", True)


@pytest.mark.parametrize("cases", [0, -1, True, 2.0, "many", None])
def test_a_number_of_cases_is_a_positive_whole_number(cases: Any) -> None:
    found = check_update({"dice": GOOD}, {**evaluation(), "cases": cases}, EVALUATION, LIMITS)
    assert [fault.rule for fault in found] == ["cases"]


# --- whatever comes


class Hostile:
    """Raises wherever it is touched."""

    def _raise(self, *_: object, **__: object) -> Any:
        raise SystemError("touched")

    __getattr__ = __eq__ = __hash__ = __len__ = __iter__ = __repr__ = __str__ = _raise
    __bool__ = __array__ = __float__ = __int__ = __index__ = __contains__ = _raise


class Plain:
    """An object of a class that nobody knows."""


class HostileDict(dict[str, Any]):
    """A dict of another class, whose own methods would be called."""

    def __iter__(self) -> Any:
        raise SystemError("touched")

    items = keys = values = __len__ = __iter__


class HostileText(str):
    """A text of another class."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise SystemError("touched")


@pytest.mark.parametrize(
    "parts",
    [
        lambda: (Hostile(), metadata()),
        lambda: (update(), Hostile()),
        lambda: (HostileDict(update()), metadata()),
        lambda: (update(), HostileDict(metadata())),
        lambda: ({**update(), "conv.weight": Hostile()}, metadata()),
        lambda: ({**update(), HostileText("conv.bias"): np.ones(1)}, metadata()),
        lambda: (update(), {**metadata(), "steps": Hostile()}),
        lambda: (update(), {**metadata(), "site": HostileText("site-1")}),
        lambda: (update(), {**metadata(), HostileText("extra"): 1}),
        lambda: (update(), {**metadata(), "report": {"local_metrics": Hostile()}}),
    ],
)
def test_nothing_of_the_sender_is_called(parts: Callable[[], tuple[Any, Any]]) -> None:
    found = check_update(*parts(), CONTRIBUTION, LIMITS)

    assert found
    assert "unreadable" not in {fault.rule for fault in found}


@pytest.mark.parametrize(
    "metrics",
    [
        lambda: Hostile(),
        lambda: HostileDict(dice=GOOD),
        lambda: {"dice": Hostile()},
        lambda: {"dice": HostileDict(GOOD)},
        lambda: {"dice": plain_metric(Hostile())},
        lambda: {"dice": {**GOOD, "classes": Hostile()}},
        lambda: {"dice": {**GOOD, HostileText("more"): 1}},
        lambda: {"dice": plain_metric(0.5, unit=HostileText("mm"))},
    ],
)
def test_nothing_of_the_sender_of_metrics_is_called(metrics: Callable[[], Any]) -> None:
    found = check_update(metrics(), evaluation(), EVALUATION, LIMITS)

    assert [fault.rule for fault in found] == ["metrics"]


def test_an_error_of_the_guard_itself_is_a_refusal() -> None:
    impossible = replace(CONTRIBUTION, model={"z": np.zeros(1, complex)})

    [fault] = check_update({"z": np.zeros(1, complex)}, metadata(), impossible, LIMITS)

    assert fault.rule == "unreadable"


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.builds(Plain)
)
ARRAYS = of_numpy.arrays(
    dtype=of_numpy.scalar_dtypes(), shape=of_numpy.array_shapes(min_dims=0, max_dims=3, max_side=4)
)
ANYTHING = st.recursive(
    st.one_of(SCALARS, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(ANYTHING, ANYTHING)
def test_whatever_comes_is_refused_and_nothing_is_raised(arrays: Any, meta: Any) -> None:
    for expected in (CONTRIBUTION, SUBMISSION, EVALUATION):
        assert check_update(arrays, meta, expected, LIMITS)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else ()
    return [at, *(found for key, item in inner for found in places(item, (*at, key)))]


@given(st.data(), ANYTHING)
def test_one_strange_value_anywhere_is_judged_without_an_error(data: Any, value: Any) -> None:
    parts: Json = {"update": update(), "metadata": metadata()}
    where = data.draw(st.sampled_from([at for at in places(parts) if at]))
    owner = parts
    for step in where[:-1]:
        owner = owner[step]
    owner[where[-1]] = value

    found = check_update(parts["update"], parts["metadata"], CONTRIBUTION, LIMITS)

    assert all(isinstance(str(fault), str) for fault in found)
    if where[0] == "update" and type(value) is not np.ndarray:
        assert found


@given(of_numpy.arrays(np.float32, (2, 3), elements=st.floats(width=32)))
def test_what_is_let_through_is_finite_and_dense(values: Any) -> None:
    difference = {**update(), "conv.weight": values}
    before = copy.deepcopy(difference)

    if not faults_of(difference):
        assert np.isfinite(values).all()
        assert np.isfinite(values + MODEL["conv.weight"]).all()
    for name, array in before.items():
        np.testing.assert_array_equal(difference[name], array)
