"""Contributions of a site: arrays that are none, values that spoil a mean, and what comes along."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.security.case import UpdateCase

STEPS, ROUND = 10, 3
DIGEST = "d" * 64

DICE, ACC = "report/local_metrics/val_mean_dice", "report/local_metrics/val_acc"
SPLEEN = f"{DICE}/classes/spleen"


def model() -> dict[str, Any]:
    """The tensors of a very small network."""
    import numpy as np

    return {
        "conv.weight": np.full((4, 1, 3), 0.5, np.float32),
        "conv.bias": np.zeros(4, np.float32),
        "norm.num_batches_tracked": np.array(7, np.int64),
    }


def sound() -> dict[str, Any]:
    """A difference that any training could have led to."""
    import numpy as np

    return {
        "conv.weight": np.full((4, 1, 3), 0.01, np.float32),
        "conv.bias": np.full(4, -0.01, np.float32),
        "norm.num_batches_tracked": np.array(STEPS, np.int64),
    }


def score(value: Any, **more: Any) -> dict[str, Any]:
    """A metric as it travels, with one class."""
    spleen = {"value": value, "counted": 3, "missed": 1, "absent": 2, "spurious": 0}
    return {
        "value": value,
        "counted": 3,
        "undefined": 2,
        "withheld": False,
        "unit": "",
        "higher_is_better": True,
        "classes": {"spleen": spleen},
        **more,
    }


def metadata() -> dict[str, Any]:
    """What comes with it."""
    return {
        "site": "site-1",
        "job": "job-1",
        "kind": "WEIGHT_DIFF",
        "round": ROUND,
        "base_model": DIGEST,
        "steps": STEPS,
        "report": {
            "received_metrics": {"val_mean_dice": score(0.5), "val_acc": score(0.25)},
            "local_metrics": {"val_mean_dice": score(0.5), "val_acc": score(0.25)},
            "epochs": [{"epoch": 1, "loss": 0.7, "metrics": {"train_acc": score(0.5, classes={})}}],
            "seconds": 2.5,
            "built": {"train.trainer": 1, "train.pre_transforms": 1},
            "process": "4711-0a1b2c3d",
        },
    }


class Trap:
    """Whatever is asked of it, it leaves the marker: nothing of a sender's may ever be called."""

    def __init__(self, marker: Path) -> None:
        object.__setattr__(self, "marker", marker)

    def _sprung(self, *_: object, **__: object) -> Any:
        object.__getattribute__(self, "marker").touch()
        return 0

    __eq__ = __hash__ = __len__ = __bool__ = __iter__ = __repr__ = __str__ = __format__ = _sprung
    __float__ = __int__ = __index__ = __array__ = __lt__ = __gt__ = __contains__ = _sprung
    __getitem__ = __call__ = __add__ = __mul__ = __abs__ = __getattr__ = __reduce__ = _sprung


def trapped(kind: type, marker: Path, *values: Any) -> Any:
    """A value of a subclass that leaves the marker where one of its methods is called."""
    methods = {
        name: lambda self, *_, **__: marker.touch()
        for name in ("__eq__", "__len__", "__iter__", "__repr__", "__str__", "__format__", "items",
                     "keys", "values", "get", "__lt__", "__le__", "__ge__", "__gt__", "encode",
                     "isprintable", "__getitem__", "__contains__", "__array_finalize__",
                     "__array_ufunc__", "__array_function__", "astype", "min", "max", "__float__")
        if hasattr(kind, name) or name.startswith("__array")
    }  # fmt: skip
    methods["__hash__"] = lambda self: 1
    made = type("Trapped", (kind,), methods)
    if kind.__name__ == "ndarray":
        return values[0].view(made)
    return made(*values)


Change = Callable[[dict[str, Any], dict[str, Any], Path], Any]
"""Gets the update, the metadata and the marker, and changes them in place."""


def array(name: str, make: Callable[[Any], Any]) -> Change:
    """One tensor made anew from the sound one."""

    def change(update: dict[str, Any], _: dict[str, Any], __: Path) -> None:
        update[name] = make(update[name])

    return change


def value(name: str, number: Any) -> Change:
    """One value of a tensor."""

    def change(update: dict[str, Any], _: dict[str, Any], __: Path) -> None:
        update[name] = update[name].copy()
        update[name].reshape(-1)[0] = number

    return change


def told(key: str, given: Any) -> Change:
    """One entry of the metadata; dots lead inside."""

    def change(_: dict[str, Any], about: dict[str, Any], __: Path) -> None:
        *steps, last = key.split("/")
        for step in steps:
            about = about[step]
        about[last] = given

    return change


def untold(key: str) -> Change:
    """The same entry left out."""

    def change(_: dict[str, Any], about: dict[str, Any], __: Path) -> None:
        *steps, last = key.split("/")
        for step in steps:
            about = about[step]
        del about[last]

    return change


def _with(pairs: dict[Any, Any]) -> Change:
    return lambda update, about, marker: update.update(pairs)


def _np(make: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A function of an array that needs numpy."""

    def made(found: Any) -> Any:
        import numpy as np

        return make(np, found)

    return made


def _deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


def _circle(_: dict[str, Any], about: dict[str, Any], __: Path) -> None:
    about["report"]["epochs"] = about


def _trap_array(update: dict[str, Any], _: dict[str, Any], marker: Path) -> None:
    update["conv.bias"] = Trap(marker)


def _trap_inside(update: dict[str, Any], _: dict[str, Any], marker: Path) -> None:
    import numpy as np

    traps = np.empty(4, object)
    for index in range(4):
        traps[index] = Trap(marker)
    update["conv.bias"] = traps


def _trap_subclass(update: dict[str, Any], _: dict[str, Any], marker: Path) -> None:
    import numpy as np

    update["conv.bias"] = trapped(np.ndarray, marker, np.zeros(4, np.float32))


def _trap_key(update: dict[str, Any], _: dict[str, Any], marker: Path) -> None:
    update[trapped(str, marker, "conv.extra")] = update["conv.bias"]


def _trap_value(key: str, kind: type, *values: Any) -> Change:
    def change(_: dict[str, Any], about: dict[str, Any], marker: Path) -> None:
        *steps, last = key.split("/")
        for step in steps:
            about = about[step]
        about[last] = Trap(marker) if kind is Trap else trapped(kind, marker, *values)

    return change


UPDATES: dict[str, tuple[str, Change]] = {
    "nan": ("not a number", value("conv.weight", math.nan)),
    "infinity": ("infinity", value("conv.weight", math.inf)),
    "minus-infinity": ("infinity", value("conv.bias", -math.inf)),
    "largest": ("a value that overflows when it is added", value("conv.weight", 3.4028235e38)),
    "outlier": ("a value that wins every mean", value("conv.weight", 1e18)),
    "norm": ("a difference that is larger than any training's",
             array("conv.weight", lambda a: a * 1e4)),
    "broadcast-scalar": ("a number that is spread", array("conv.weight", _np(
        lambda np, a: np.float32(1)))),
    "broadcast-zero-d": ("an array of no axes", array("conv.weight", _np(
        lambda np, a: np.array(1, np.float32)))),
    "broadcast-one": ("an array of one value", array("conv.weight", lambda a: a[:1, :, :1])),
    "broadcast-view": ("one value that poses as many", array("conv.bias", _np(
        lambda np, a: np.broadcast_to(np.float32(1), (4,))))),
    "claims-much": ("an array that claims a terabyte", array("conv.bias", _np(
        lambda np, a: np.broadcast_to(np.float32(1), (2**38,))))),
    "claims-much-axes": ("the same over many axes", array("conv.bias", _np(
        lambda np, a: np.broadcast_to(np.float32(1), (2,) * 40)))),
    "flat": ("the right values in another shape", array("conv.weight", lambda a: a.reshape(-1))),
    "transposed": ("the axes in another order", array("conv.weight", lambda a: a.T)),
    "extra-axis": ("an axis more", array("conv.bias", lambda a: a[None])),
    "empty": ("an array without values", array("conv.bias", lambda a: a[:0])),
    "strided": ("every other value of more", array("conv.bias", _np(
        lambda np, a: np.zeros(8, np.float32)[::2]))),
    "reversed": ("values backwards in memory", array("conv.bias", lambda a: a[::-1])),
    "unaligned": ("values at odd addresses", array("conv.bias", _np(
        lambda np, a: np.frombuffer(b"\0" * 17, np.float32, 4, 1)))),
    "float64": ("a wider type, which promotes the mean", array("conv.weight", _np(
        lambda np, a: a.astype(np.float64)))),
    "float16": ("a narrower type", array("conv.weight", _np(lambda np, a: a.astype(np.float16)))),
    "big-endian": ("the bytes the other way round", array("conv.weight", _np(
        lambda np, a: a.astype(">f4")))),
    "complex": ("complex numbers", array("conv.weight", _np(lambda np, a: a.astype(np.complex64)))),
    "integer": ("whole numbers", array("conv.weight", _np(lambda np, a: a.astype(np.int32)))),
    "boolean": ("truth values", array("conv.weight", _np(lambda np, a: a.astype(bool)))),
    "text": ("texts", array("conv.bias", _np(lambda np, a: np.array(["1"] * 4)))),
    "dates": ("dates", array("conv.bias", _np(lambda np, a: np.zeros(4, "datetime64[s]")))),
    "record": ("records", array("conv.bias", _np(lambda np, a: np.zeros(4, [("x", np.float32)])))),
    "sub-array": ("a type that is an array", array("conv.bias", _np(
        lambda np, a: np.zeros(4, [("x", object, 2)])))),
    "void": ("raw bytes", array("conv.bias", _np(lambda np, a: np.zeros(4, "V4")))),
    "objects": ("objects, which code hides in", _trap_inside),
    "object-none": ("an object in place of an array", _trap_array),
    "subclass": ("an array with methods of its own", _trap_subclass),
    "masked": ("an array with a mask", array("conv.bias", _np(lambda np, a: np.ma.array(a)))),
    "character": ("another kind of array", array("conv.bias", _np(
        lambda np, a: np.char.array(["1"] * 4)))),
    "list": ("a list", array("conv.bias", lambda a: a.tolist())),
    "bytes": ("bytes", array("conv.bias", lambda a: a.tobytes())),
    "none": ("nothing", array("conv.bias", lambda a: None)),
    "missing": ("a tensor that is left out", lambda u, m, p: u.pop("conv.bias")),
    "all-missing": ("no tensor at all", lambda u, m, p: u.clear()),
    "additional": ("a tensor more", lambda u, m, p: u.update(extra=u["conv.bias"])),
    "many": ("a hundred thousand tensors",
             lambda u, m, p: u.update({f"x{i}": 1 for i in range(100_000)})),
    "renamed": ("a name with a blank", lambda u, m, p: u.update({"conv.bias ": u["conv.bias"]})),
    "homoglyph": ("a name that looks alike",
                  lambda u, m, p: u.update({"c\u043env.bias": u.pop("conv.bias")})),
    "long-name": ("a name of a million letters",
                  lambda u, m, p: u.update({"a" * 10**6: u["conv.bias"]})),
    "number-name": ("a number as a name", lambda u, m, p: u.update({1: u["conv.bias"]})),
    "tuple-name": ("a tuple as a name", lambda u, m, p: u.update({("a",): u["conv.bias"]})),
    "trap-name": ("a name with methods of its own", _trap_key),
    "dunder-name": ("a dunder as a name", _with({"__class__": 1})),
    "counter-back": ("a counter that goes below zero", value("norm.num_batches_tracked", -100)),
    "counter-far": ("a counter that overflows", value("norm.num_batches_tracked", 2**63 - 1)),
    "counter-fast": ("a counter that moves more than the steps",
                     value("norm.num_batches_tracked", 10**6)),
}  # fmt: skip

METADATA: dict[str, tuple[str, Change]] = {
    "other-site": ("in the name of another site", told("site", "site-2")),
    "site-path": ("a site that is a path", told("site", "../../site-1")),
    "site-case": ("a site in capitals", told("site", "SITE-1")),
    "site-formula": ("a site that a spreadsheet computes", told("site", '=cmd|"/c calc"!A1')),
    "site-list": ("a site that is an array", told("site", ["site-1"])),
    "no-site": ("no site", untold("site")),
    "other-job": ("another job", told("job", "job-2")),
    "no-job": ("no job", untold("job")),
    "old-round": ("an old round", told("round", ROUND - 1)),
    "next-round": ("a round to come", told("round", ROUND + 1)),
    "round-text": ("a round as a text", told("round", str(ROUND))),
    "round-float": ("a round that equals the number", told("round", float(ROUND))),
    "round-true": ("true as a round", told("round", True)),
    "other-model": ("trained from another model", told("base_model", "e" * 64)),
    "no-model": ("trained from no model", untold("base_model")),
    "other-kind": ("whole weights for a difference", told("kind", "WEIGHTS")),
    "steps-none": ("no steps", untold("steps")),
    "samples-unasked": ("samples that the job does not weigh by", told("samples", 10)),
    "steps-zero": ("no step", told("steps", 0)),
    "steps-negative": ("steps backwards, which turn a mean over", told("steps", -9)),
    "steps-huge": ("steps that win every mean", told("steps", 10**18)),
    "steps-endless": ("a number of 10,000 digits", told("steps", 10**10_000)),
    "steps-float": ("half a step", told("steps", 0.5)),
    "steps-infinite": ("infinite steps", told("steps", math.inf)),
    "steps-nan": ("steps that are no number", told("steps", math.nan)),
    "steps-true": ("true as steps", told("steps", True)),
    "steps-text": ("a text as steps", told("steps", "10")),
    "steps-list": ("an array as steps", told("steps", [10])),
    "steps-trap": ("steps with methods of their own", _trap_value("steps", Trap)),
    "steps-subclass": ("a number with methods of its own", _trap_value("steps", int, 10)),
    "unknown-key": ("a key that nobody asked for", told("patient", "x")),
    "dunder-key": ("a dunder as a key", told("__class__", "x")),
    "number-key": ("a number as a key", lambda u, m, p: m.update({1: 2})),
    "trap-key": ("a key with methods of its own",
                 lambda u, m, p: m.update({trapped(str, p, "steps2"): 1})),
    "trap-text": ("a text with methods of its own", _trap_value("report/epochs", str, "x")),
    "trap-object": ("an object", _trap_value("report/epochs", Trap)),
    "trap-dict": ("an object with methods of its own", _trap_value("report", dict, {"a": 1})),
    "trap-list": ("an array with methods of its own", _trap_value("report/epochs", list, [1])),
    "deep": ("an array of 5,000 levels", told("report/epochs", _deep(5000))),
    "circle": ("an object that holds itself", _circle),
    "wide": ("a million values", told("report/epochs", [0] * 10**6)),
    "long-text": ("a text of a million letters", told("report/epochs", "a" * 10**6)),
    "many-keys": ("a hundred thousand keys", lambda u, m, p: m["report"].update(
        {f"k{i}": 1 for i in range(10**5)})),
    "control-text": ("a text that moves the cursor", told("report/epochs", "\x1b[2J")),
    "newline-text": ("a second line of the log", told("report/epochs", "x\nINFO all is well")),
    "bidi-text": ("a text that runs the other way", told("report/epochs", "\u202ex")),
    "surrogate-text": ("half a character", told("report/epochs", "\ud800")),
    "bytes": ("bytes", told("report/epochs", b"x")),
    "set": ("a set", told("report/epochs", {1})),
    "nan-inside": ("not a number in the report", told("report/seconds", math.nan)),
    "array-inside": ("an array in the report", lambda u, m, p: m["report"].update(
        seconds=u["conv.bias"])),
    "report-none": ("no report", untold("report")),
    "report-text": ("a text as the report", told("report", "fine")),
    "report-key": ("a key of the report that nobody asked for", told("report/files", ["a.nii"])),
    "metric-nan": ("a metric that is no number", told(f"{ACC}/value", math.nan)),
    "metric-infinite": ("an infinite metric", told(f"{ACC}/value", math.inf)),
    "metric-huge": ("a metric beyond its range", told(f"{ACC}/value", 1e300)),
    "metric-above": ("a score above the best", told(f"{DICE}/value", 1.5)),
    "metric-below": ("a score below the worst", told(f"{DICE}/value", -0.1)),
    "metric-text": ("a metric as a text", told(f"{ACC}/value", "0.9")),
    "metric-true": ("true as a metric", told(f"{ACC}/value", True)),
    "metric-trap": ("a value with methods of its own", _trap_value(f"{ACC}/value", Trap)),
    "metric-float": ("a float with methods of its own",
                     _trap_value(f"{ACC}/value", float, 0.5)),
    "metric-endless": ("a metric of 10,000 digits", told(f"{ACC}/value", 10**10_000)),
    "metric-alone": ("a number without its cases", told(ACC, 0.5)),
    "metric-object": ("a metric with methods of its own", _trap_value(ACC, Trap)),
    "metric-dict": ("an object with methods of its own", _trap_value(ACC, dict, score(0.5))),
    "metric-file": ("a file in a metric", told(f"{ACC}/file", "DOE_JOHN.nii.gz")),
    "metric-lacking": ("a metric that lacks a part", untold(f"{ACC}/counted")),
    "metric-of-none": ("a value of no case", told(f"{ACC}/counted", 0)),
    "metric-negative": ("fewer cases than none", told(f"{ACC}/undefined", -1)),
    "metric-cases": ("more cases than there can be", told(f"{ACC}/counted", 10**18)),
    "metric-unit": ("a unit that a spreadsheet computes", told(f"{ACC}/unit", "=1+1")),
    "metric-turned": ("a direction in which the worst model wins",
                      told(f"{DICE}/higher_is_better", False)),
    "metric-withheld": ("a text as a flag", told(f"{ACC}/withheld", "no")),
    "class-nan": ("a class that is no number", told(f"{SPLEEN}/value", math.nan)),
    "class-above": ("a class above the best", told(f"{SPLEEN}/value", 1.5)),
    "class-of-none": ("a class of no case", told(f"{SPLEEN}/counted", 0)),
    "class-negative": ("a class of fewer cases than none", told(f"{SPLEEN}/missed", -1)),
    "class-trap": ("a class with methods of its own", _trap_value(SPLEEN, Trap)),
    "class-file": ("a file in a class", told(f"{SPLEEN}/file", "DOE_JOHN.nii.gz")),
    "class-formula": ("a class that a spreadsheet computes",
                      told(f"{DICE}/classes/=1+1", score(0.5)["classes"]["spleen"])),
    "class-markup": ("a class that a browser runs",
                     told(f"{DICE}/classes/<script>", score(0.5)["classes"]["spleen"])),
    "class-many": ("a thousand classes", told(f"{DICE}/classes", {
        f"c{i}": score(0.5)["classes"]["spleen"] for i in range(1000)})),
    "class-list": ("classes as an array", told(f"{DICE}/classes", [0.5])),
    "metric-list": ("metrics as an array", told("report/local_metrics", [0.5])),
    "metric-key": ("no key metric", lambda u, m, p: m["report"]["local_metrics"].pop(
        "val_mean_dice")),
    "metric-more": ("a metric that no config computes", told("report/local_metrics/patient_7",
    score(1.0))),
    "metric-formula": ("a name that a spreadsheet computes",
                       told('report/local_metrics/=HYPERLINK("http:")', score(1.0))),
    "metric-markup": ("a name that a browser runs",
                      told("report/local_metrics/<script>alert(1)<script>", score(1.0))),
    "metric-path": ("a name that is a path", told("report/local_metrics/..\\..\\x", score(1.0))),
    "metric-newline": ("a name of two lines", told("report/local_metrics/a\nb", score(1.0))),
    "metric-number": ("a number as a name", lambda u, m, p: m["report"]["local_metrics"].update(
        {1: score(1.0)})),
    "metric-many": ("a thousand metrics", lambda u, m, p: m["report"]["local_metrics"].update(
        {f"m{i}": score(1.0) for i in range(1000)})),
    "initial": ("metrics beside the report", told("initial_metrics", {"val_mean_dice": 0.5})),
    "initial-huge": ("a first metric beyond its range",
                     told("report/received_metrics/val_mean_dice/value", -1e300)),
    "initial-text": ("first metrics as a text", told("report/received_metrics", "0.5")),
    "epochs-text": ("a text as epochs", told("report/epochs", "=1+1")),
    "cases": ("a number of cases", told("report/cases", 8)),
    "process-long": ("a process of a long name", told("report/process", "a" * 41)),
    "seconds-negative": ("a time before the start", told("report/seconds", -1.0)),
    "process-formula": ("a process that a spreadsheet computes",
                        told("report/process", '=cmd|"/c calc"!A1')),
    "process-markup": ("a process that a browser runs",
                       told("report/process", "<img src=x onerror=alert(1)>")),
    "process-path": ("a process that is a path", told("report/process", "../../etc/passwd")),
    "built-text": ("a text as counts", told("report/built", "<b>")),
    "built-deep": ("anything at all as counts", told("report/built", {"a": {"b": [1, "x"]}})),
    "history-text": ("a history that is none", told("filter_history", "<b>x</b>")),
    "history-formula": ("a formula as a history", told("filter_history", ["=1+1"])),
    "metadata-list": ("an array as metadata", None),
    "metadata-trap": ("an object as metadata", None),
    "update-list": ("an array as the update", None),
    "update-trap": ("an object as the update", None),
    "update-subclass": ("an object with methods of its own as the update", None),
    "duplicate": ("a second contribution to a round", None),
}  # fmt: skip

HOSTILE: tuple[UpdateCase, ...] = (
    *(
        UpdateCase(id=id_, family="update", tries=tries, change=change)
        for id_, (tries, change) in UPDATES.items()
    ),
    *(
        UpdateCase(id=id_, family="metadata", tries=tries, change=change)
        for id_, (tries, change) in METADATA.items()
    ),
)

BENIGN_CHANGES: dict[str, tuple[str, Change]] = {
    "sound": ("a difference as any training makes it", lambda u, m, p: None),
    "zeros": ("a site that learned nothing", array("conv.weight", lambda a: a * 0)),
    "fortran": ("values in the order of columns", array("conv.weight", _np(
        lambda np, a: np.asfortranarray(a)))),
    "read-only": ("an array that cannot be written", array("conv.weight", _np(
        lambda np, a: np.frombuffer(a.tobytes(), np.float32).reshape(a.shape)))),
    "one-step": ("a single step", told("steps", 1)),
    "perfect": ("a score of exactly one", told(f"{DICE}/value", 1.0)),
    "worst": ("a score of exactly zero", told(f"{DICE}/value", 0)),
    "undefined": (
        "a score that no case has",
        told(DICE, score(None, counted=0, undefined=5, classes={})),
    ),
    "withheld": ("a score of few cases, which stays", told(DICE, score(None, withheld=True))),
    "no-classes": ("a score of the whole alone", told(f"{DICE}/classes", {})),
    "filtered": ("a filter of the site in its history",
                 told("filter_history", ["ExcludeVars", "PercentilePrivacy"])),
    "no-loss": ("an epoch without a loss",
                told("report/epochs", [{"epoch": 1, "loss": None, "metrics": {}}])),
    "subnormal": ("a very small number", value("conv.weight", 1e-42)),
}  # fmt: skip

BENIGN: tuple[UpdateCase, ...] = tuple(
    UpdateCase(id=f"update-{id_}", family="benign", tries=tries, change=change)
    for id_, (tries, change) in BENIGN_CHANGES.items()
)


def judged(case: UpdateCase, marker: Path) -> tuple[str, ...]:
    """The rules that the guard tells for a case."""
    from fl_server.update_guard import Expected, UpdateLimits, check_update

    update: Any = sound()
    about: Any = metadata()
    contributors: tuple[str, ...] = ()
    if case.change is not None:
        case.change(update, about, marker)
    elif case.id == "metadata-list":
        about = list(about.items())
    elif case.id == "metadata-trap":
        about = Trap(marker)
    elif case.id == "update-list":
        update = list(update.items())
    elif case.id == "update-trap":
        update = Trap(marker)
    elif case.id == "update-subclass":
        update = trapped(dict, marker, update)
    else:
        contributors = ("site-1",)
    expected = Expected(
        site="site-1",
        job="job-1",
        kind="WEIGHT_DIFF",
        model=model(),
        key_metric="val_mean_dice",
        metric_names=("val_mean_dice", "val_acc"),
        directions={"val_mean_dice": True},
        round=ROUND,
        base_model=DIGEST,
        contributors=contributors,
    )
    limits = UpdateLimits(
        max_bytes=10_000,
        max_norm=100.0,
        max_steps=10_000,
        metric_ranges={"val_mean_dice": (0.0, 1.0)},
    )
    marker.unlink(missing_ok=True)  # building the case may touch it; the guard may not
    return tuple(
        dict.fromkeys(fault.rule for fault in check_update(update, about, expected, limits))
    )
