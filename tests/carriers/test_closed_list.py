"""The closed list of a reply: a site's gate and the server's guard draw the same line.

Each row changes a good reply; both ends take it, or neither does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO

from fl_client.flare.result_gate import KINDS, reply_faults
from fl_server.update_guard import Expected, UpdateLimits, check_update
from mmar_runtime.exchange.messages import EpochReport, Kind, SiteReport
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.exchange.weighing import WeighBy
from mmar_runtime.flare.wire import META_NAMES
from tests.conftest import metric, plain_metric

Json = dict[str, Any]

PART = {"value": 0.5, "counted": 3, "missed": 0, "absent": 0, "spurious": 0}
COUNTS = {0: True, 1: True, 10**9: True, -1: False, 10**9 + 1: False, 2.0: False, "3": False}
"""What a number of cases may be."""

MODEL = {"w": np.zeros(2, np.float32)}
REPORT = SiteReport(
    received_metrics={"dice": metric(0.25)},
    local_metrics={"dice": metric(0.5)},
    epochs=(EpochReport(epoch=1, loss=0.75, metrics={"acc": metric(0.5)}),),
    seconds=2.5,
    built={"train.trainer": 1},
    process="0123456789ab",
)


def metadata(kind: Kind) -> Json:
    if kind == "WEIGHT_DIFF":
        return {"steps": 3, "report": to_plain(REPORT)}
    if kind == "WEIGHTS":
        return {"model_round": 2, "metrics": {"dice": plain_metric(0.5)}}
    return {"cases": 5}


def data(kind: Kind) -> Json:
    return {"dice": plain_metric(0.5)} if kind == "METRICS" else {"w": np.ones(2, np.float32)}


def gate_takes(kind: Kind, values: Json, meta: Json) -> bool:
    """Whether the reply may leave its site."""
    keys = {name: key for key, name in META_NAMES.items()}
    [data_kind] = [of_dxo for of_dxo, of_reply in KINDS.items() if of_reply == kind]
    named = {keys.get(name, name): value for name, value in meta.items()}
    reply = DXO(data_kind, data=values, meta=named).to_shareable()
    return not list(reply_faults(reply, MODEL))


def guard_takes(kind: Kind, values: Json, meta: Json) -> bool:
    """Whether the server uses the reply."""
    rule: WeighBy = "samples" if "samples" in meta else "steps"
    expected = Expected(site="site-1", job="job-1", kind=kind, model=MODEL, weigh_by=rule)
    claims = {"site": "site-1", "job": "job-1", "kind": kind}
    limits = UpdateLimits(metadata_bytes=10**9)
    return not check_update(values, {**meta, **claims}, expected, limits)


def report(**changes: Any) -> Callable[[Json, Json], object]:
    return lambda values, meta: meta["report"].update(changes)


def epoch(**changes: Any) -> Callable[[Json, Json], object]:
    return lambda values, meta: meta["report"]["epochs"][0].update(changes)


def meta(**changes: Any) -> Callable[[Json, Json], object]:
    return lambda values, meta: meta.update(changes)


def metrics(**changes: Any) -> Callable[[Json, Json], object]:
    return lambda values, meta: values.update(changes)


def by_class(name: str = "spleen", **changes: Any) -> Callable[[Json, Json], object]:
    return metrics(dice=plain_metric(0.5, 10**9, classes={name: {**PART, **changes}}))


def epochs(count: int) -> list[Json]:
    return [{"epoch": n + 1, "loss": 0.5, "metrics": {}} for n in range(count)]


ROWS: list[tuple[Kind, Callable[[Json, Json], object], bool]] = [
    ("WEIGHT_DIFF", lambda values, meta: None, True),
    ("WEIGHTS", lambda values, meta: None, True),
    ("METRICS", lambda values, meta: None, True),
    # keys
    ("WEIGHT_DIFF", meta(filter_history=["PercentilePrivacy"]), True),
    ("WEIGHT_DIFF", meta(filter_history="PercentilePrivacy"), False),
    ("WEIGHT_DIFF", meta(filter_history=["a/b.nii"]), False),
    ("WEIGHT_DIFF", meta(cases=5), False),
    ("WEIGHTS", meta(steps=3), False),
    ("METRICS", meta(report={}), False),
    ("METRICS", meta(files=1), False),
    ("WEIGHT_DIFF", report(cases=5), False),
    ("WEIGHT_DIFF", epoch(name="a"), False),
    ("WEIGHT_DIFF", epoch(iteration=4), False),
    # whole numbers
    ("WEIGHT_DIFF", meta(steps=3, samples=6, epoch_samples=3), True),
    *[
        ("WEIGHT_DIFF", meta(samples=3, epoch_samples=count), False)
        for count in (0, -1, 10**7 + 1, 3.0, True, "3")
    ],
    *[("WEIGHT_DIFF", meta(steps=steps), False) for steps in (0, -1, 10**9 + 1, 3.0, True, "3")],
    *[("WEIGHTS", meta(model_round=number), number == 10**9) for number in (0, 10**9, 10**9 + 1)],
    *[("METRICS", meta(cases=cases), cases == 10**9) for cases in (0, 10**9, 10**9 + 1, 5.0)],
    *[("WEIGHT_DIFF", epoch(epoch=number), False) for number in (0, -1, 10**9 + 1, 1.0, None)],
    # metrics
    *[
        ("METRICS", metrics(dice=plain_metric(value)), False)
        for value in (math.nan, math.inf, 1.1e12, -1.1e12, 10**13, 10**400, True, "1", [0.5])
    ],
    ("METRICS", metrics(dice=plain_metric(1e12)), True),
    ("METRICS", lambda values, meta: values.update({"a/b": plain_metric(0.5)}), False),
    (
        "METRICS",
        lambda values, meta: values.update(dict.fromkeys(map(str, range(200)), plain_metric(0.5))),
        False,
    ),
    *[
        (kind, change(**{key: {"dice": spoilt}}), False)
        for kind, change, key in (
            ("WEIGHTS", meta, "metrics"),
            ("WEIGHT_DIFF", report, "received_metrics"),
            ("WEIGHT_DIFF", report, "local_metrics"),
        )
        for spoilt in (plain_metric(math.nan), plain_metric(1.1e12), None, 0.5)
    ],
    ("WEIGHT_DIFF", meta(initial_metrics={"dice": plain_metric(0.25)}), False),
    # what a metric says besides its value
    ("METRICS", metrics(dice=plain_metric(None, 3)), True),
    ("METRICS", metrics(dice=plain_metric(None, 3, withheld=True)), True),
    ("METRICS", metrics(dice=plain_metric(0.5, higher_is_better=False)), True),
    *[
        ("METRICS", metrics(dice=plain_metric(0.5, n)), fits and n != 0)
        for n, fits in COUNTS.items()
    ],
    *[
        ("METRICS", metrics(dice=plain_metric(0.5, undefined=n)), fits)
        for n, fits in COUNTS.items()
    ],
    *[("METRICS", metrics(dice=plain_metric(0.5, unit=u)), u == "mm") for u in ("mm", "inch", 1)],
    *[("METRICS", metrics(dice=plain_metric(0.5, withheld=w)), False) for w in (None, 1)],
    ("METRICS", metrics(dice=plain_metric(0.5, higher_is_better=1)), False),
    ("METRICS", metrics(dice=plain_metric(0.5, cases=["x.nii.gz"])), False),
    ("METRICS", metrics(dice={"value": 0.5}), False),
    # classes
    ("METRICS", by_class(), True),
    ("METRICS", by_class(value=None, counted=0, missed=3), True),
    *[("METRICS", by_class(value=value), False) for value in (math.nan, 1.1e12, True, "1")],
    *[("METRICS", by_class(missed=n), fits) for n, fits in COUNTS.items()],
    ("METRICS", by_class(counted=0), False),
    ("METRICS", by_class(cases=["x.nii.gz"]), False),
    ("METRICS", by_class(name="DOE/JOHN"), False),
    ("METRICS", metrics(dice=plain_metric(0.5, classes=[0.5])), False),
    # losses and metrics of epochs
    ("WEIGHT_DIFF", epoch(loss=None), True),
    ("WEIGHT_DIFF", epoch(loss=1e30), True),
    *[("WEIGHT_DIFF", epoch(loss=loss), False) for loss in (math.nan, -math.inf, "0.5", 2**63)],
    *[("WEIGHT_DIFF", epoch(metrics={"acc": value}), False) for value in (math.nan, "1", 0.5)],
    ("WEIGHT_DIFF", epoch(metrics={"acc": plain_metric(math.nan)}), False),
    ("WEIGHT_DIFF", epoch(metrics={"acc": plain_metric(1e13)}), False),
    ("WEIGHT_DIFF", epoch(metrics={"acc": plain_metric(0.5)}), True),
    ("WEIGHT_DIFF", epoch(metrics={"acc": plain_metric(0.5, classes={"a": PART})}), False),
    ("WEIGHT_DIFF", epoch(metrics=[0.5]), False),
    # the rest of a report
    ("WEIGHT_DIFF", report(epochs=epochs(101)), True),
    *[("WEIGHT_DIFF", report(epochs=epochs(count)), False) for count in (102, 10_000)],
    ("WEIGHT_DIFF", report(epochs={}), False),
    *[("WEIGHT_DIFF", report(process="a" * length), length == 40) for length in (0, 40, 41, 100)],
    ("WEIGHT_DIFF", report(seconds=0), True),
    *[("WEIGHT_DIFF", report(seconds=value), False) for value in (-1.0, math.nan, 10**400, "1")],
    ("WEIGHT_DIFF", report(built={"train.model": 0}), True),
    *[("WEIGHT_DIFF", report(built={"train.model": n}), False) for n in (-1, 1.0, 10**9 + 1)],
    ("WEIGHT_DIFF", report(built={"a/b": 1}), False),
    ("WEIGHT_DIFF", report(built={str(n): 1 for n in range(500)}), True),
    ("WEIGHT_DIFF", report(built={str(n): 1 for n in range(501)}), False),
]


@pytest.mark.parametrize(("kind", "change", "fits"), ROWS)
def test_gate_and_guard_take_the_same_replies(
    kind: Kind, change: Callable[[Json, Json], object], fits: bool
) -> None:
    values, about = data(kind), metadata(kind)
    change(values, about)

    assert (gate_takes(kind, values, about), guard_takes(kind, values, about)) == (fits, fits)
