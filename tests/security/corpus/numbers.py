"""Numbers that would use a machine up, however they are written; and what a check itself costs.

Beside the hostile ones stand the numbers and the sizes that people use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.security.case import ENVIRONMENT, INFERENCE, LOG, TRAIN, VALIDATION, Case, base_files

RULES = ("limit", "denied-argument")
BATCH = "train/dataloader/args/batch_size"
MORE = "train/pre_transforms/-"
STEP = "train/pre_transforms/3/args/pixdim"

Edits = Mapping[str, Any]

_HALF = " + ".join(["(1 if 1 else 2)"] * 11)
_DEEP = "1000000"
for _ in range(12):
    _DEEP = f"({_DEEP} if 1 else 1)"

COMPUTED: dict[str, tuple[str, Any]] = {
    # Choices.
    "or-zero": ("a number behind a zero", "#0 or 1000000"),
    "or-none": ("behind nothing", "#None or 1000000"),
    "or-empty": ("behind an empty text", "#'' or 1000000"),
    "or-list": ("behind an empty list", "#[] or 1000000"),
    "or-many": ("behind many zeros", "#0 or 0.0 or False or None or 1000000"),
    "and-one": ("behind a one", "#1 and 1000000"),
    "and-or": ("behind both", "#(0 and 4) or (1 and 1000000)"),
    "choice": ("the other branch", "#4 if 0 else 1000000"),
    "choice-reference": ("a branch by an object", "#4 if @loss else 1000000"),
    "choice-compare": ("a branch by a comparison", "#1000000 if 'a' == 'a' else 4"),
    "choice-deep": ("twelve choices deep", f"#{_DEEP}"),
    "choice-in-choice": ("a choice in a condition", "#4 if (0 if 1 else 1) else 1000000"),
    # Flags as numbers.
    "not": ("a flag times a number", "#(not 0) * 1000000"),
    "compare": ("a comparison times a number", "#(2 > 1) * 1000000"),
    "flags": ("a sum of flags", "#(True + True) * 500000"),
    "flag-divided": ("by a fraction of a flag", "#True / 0.000001"),
    # Arithmetic.
    "product": ("a product", "#1000 * 1000"),
    "products": ("a chain of products", "#10 * 10 * 10 * 10 * 10 * 10"),
    "negative-product": ("of two negative numbers", "#(0 - 1000) * (0 - 1000)"),
    "sum": ("a sum of choices", f"#(({_HALF}) + ({_HALF})) * 100000"),
    "quotient": ("a small divisor", "#1 / 0.000001"),
    "whole-quotient": ("the same in whole numbers", "#1 // 0.000001"),
    "remainder": ("a large divisor of a remainder", "#1000000 % 10000000"),
    "remainder-negative": ("a remainder below zero", "#(0 - 1) % 1000000"),
    "by-zero": ("a division by zero", "#4 / 0"),
    "by-maybe-zero": ("a division by what may be zero", "#4 / (1 if 1 else 0)"),
    "by-a-difference": ("a division by a difference", "#4 / (2 - (1 if 1 else 2))"),
    "overflow": ("a number beyond all", "#1e308 * 10"),
    "not-a-number": ("a difference of two of these", "#1e308 * 10 - 1e308 * 10"),
    "long-integer": ("a product of many digits", "#9223372036854775807 * 9223372036854775807"),
    "longest-integer": ("many such products", "#" + " * ".join(["9223372036854775807"] * 15)),
    "beyond-exact": ("where reals skip whole numbers", "#9007199254740993 - 9007199253740992"),
    "negative": ("below zero, whose size counts", "#0 - 1000000"),
    # What is not known beforehand.
    "reference": ("an object", "@loss"),
    "reference-sum": ("an object in a sum", "#@loss + 4"),
    "reference-or": ("an object or a number", "#@loss or 4"),
    "reference-list": ("an object in a list", ["@loss"]),
    "lambda": ("a function", "lambda x: 4"),
    "dtype": ("a type", "#torch.int64"),
    # Other forms.
    "text": ("a number as a text", "1000000"),
    "text-computed": ("the same computed", "#'1000000'"),
    "text-formatted": ("the same by a format", "#f'{1000000}'"),
    "text-scientific": ("with an exponent", "1e9"),
    "list": ("in a list", [1000000]),
    "list-computed": ("in a computed list", "#[4, 0 or 1000000]"),
    "list-deep": ("in a list in a list", [[[1000000]]]),
    "map": ("in an object", {"a": 1000000}),
    "whole": ("as it is", 1000000),
    "long": ("with ninety digits", 10**90),
    "real": ("a real number", 1e300),
    "variable": ("by a variable", "{epochs}000000"),
}


def size(name: str, argument: str, value: Any, **more: Any) -> Edits:
    """A transform more with one argument that decides on sizes."""
    return {MORE: {"name": name, "args": {"keys": "image", argument: value, **more}}}


def repeated(count: int, name: str, **arguments: Any) -> Edits:
    """A transform so many times."""
    one = {"name": name, "args": {"keys": "image", **arguments}}
    return {"train/pre_transforms": [*_BEFORE, *([one] * count)]}


_BEFORE = json.loads(base_files("mmar")[TRAIN])["train"]["pre_transforms"]

SIZES: dict[str, tuple[str, Edits]] = {
    "size": ("a volume that nobody can hold", size("Resized", "spatial_size", [8000] * 3)),
    "size-one": ("the same by one number", size("Resized", "spatial_size", 8000)),
    "size-choice": ("the larger of two", size(
        "Resized", "spatial_size", "#[8, 8, 8] if 1 else [8000, 8000, 8000]")),
    "size-or": ("behind a zero", size("SpatialPadd", "spatial_size", "#0 or [8000, 8000, 8000]")),
    "size-item": ("one item of it", size(
        "SpatialPadd", "spatial_size", ["#0 or 8000", 8000, 8000])),
    "size-nested": ("in lists of lists", size("Resized", "spatial_size", [[8000, 8000], [8000]])),
    "size-unbounded": ("without a bound", size("Resized", "spatial_size", "#[8, 8, 1 / 0]")),
    "size-products": ("of small factors", size(
        "Resized", "spatial_size", "#[20 * 20 * 20, 20 * 20 * 20, 20 * 20 * 20]")),
    "size-many-axes": ("of fifty axes", size("Resized", "spatial_size", [8] * 50)),
    "spacing": ("a spacing of a nanometre", size("Spacingd", "pixdim", 1e-6)),
    "spacing-computed": ("the same computed", size("Spacingd", "pixdim", "#[1, 1, 1 / 100000]")),
    "spacing-or": ("behind a zero", size("Spacingd", "pixdim", "#[1, 1, 0 or 0.0001]")),
    "spacing-interval": ("a difference near zero", size(
        "Spacingd", "pixdim", "#[1, 1, (2 if 1 else 1) - (1 if 1 else 2)]")),
    "zoom": ("a thousand times larger", size("Zoomd", "zoom", 1000)),
    "zooms": ("twice as large, thirty times", repeated(30, "Zoomd", zoom=2)),
    "zooms-axes": ("on each axis", repeated(6, "Zoomd", zoom=[8, 8, 8])),
    "crops-of-crops": ("crops of crops of crops", repeated(
        3, "RandSpatialCropSamplesd", roi_size=[64, 64, 64], num_samples=64)),
    "crops-in-compose": ("the same inside of another", {MORE: {"name": "Compose", "args": {
        "transforms": [{"name": "RandSpatialCropSamplesd", "args": {
            "keys": "image", "roi_size": [64, 64, 64], "num_samples": 64}}] * 3}}}),
    "crops-and-batch": ("many crops of a large batch", {
        BATCH: 4096, **repeated(1, "RandSpatialCropSamplesd", roi_size=[64, 64, 64],
                                num_samples=4096)}),
    "repeats": ("channels of channels", repeated(5, "RepeatChanneld", repeats=256)),
    "copies": ("copies of copies", repeated(9, "CopyItemsd", times=8, names=list("abcdefgh"))),
    "border": ("a wide border", size("BorderPadd", "spatial_border", 10**6)),
    "borders": ("a border around each border", repeated(30, "BorderPadd", spatial_border=1000)),
    "divisibles": ("one divisor after another", {"train/pre_transforms": [*_BEFORE, *(
        {"name": "DivisiblePadd", "args": {"keys": "image", "k": k}}
        for k in range(1000, 960, -1))]}),
    "divisible": ("a large divisor", size("DivisiblePadd", "k", 10**6)),
    "channels": ("a network of a million channels", {
        "train/model/args/channels": "#[4, 0 or 1000000]"}),
    "network-units": ("of a million units", {"train/model/args/num_res_units": "#1 / 0.000001"}),
    "summary": ("a run on a huge input", {
        "network_summary/input_size": [1, 1, 4000, 4000, 4000]}),
    "summary-long": ("of a hundred axes", {"network_summary/input_size": [2] * 100}),
    "threads": ("a billion threads", {"NUM_THREADS": 10**9}),
    "seed": ("a seed of too many bits", {"determinism/random_seed": 2**64}),
    "seed-computed": ("a computed seed", {"determinism/random_seed": "#0 or 5"}),
    "workers": ("a process for each case", {"train/dataloader/args/num_workers": "#0 or 5000"}),
    "workers-cache": ("the same of a cache", {"train/dataset/args/num_workers": 5000}),
    "prefetch": ("a million batches ahead", {
        "train/dataloader/args/num_workers": 2, "train/dataloader/args/prefetch_factor": 10**6}),
    "window-batch": ("a million windows at once", {
        "validate/inferer/args/sw_batch_size": "#0 or 1000000"}),
    "window-size": ("a huge window", {"validate/inferer/args/roi_size": "#[9000, 9000, 9000]"}),
    "sleep": ("a transform that sleeps", size("SimulateDelayd", "delay_time", 1e9)),
}  # fmt: skip

FORMATS: dict[str, tuple[str, str]] = {
    "width": ("a wide column", "lambda x: f'{x:999}'"),
    "width-zero": ("filled with zeros", "lambda x: f'{x:0999999}'"),
    "precision": ("many digits", "lambda x: f'{x:.999f}'"),
    "width-value": ("a width from a value", "lambda x: f'{x:{9999}}'"),
    "width-nested": ("a width from a text in it", "lambda x: f\"{x:{f'{99}'}}\""),
    "width-fill": ("another fill", "lambda x: f'{x:*>99}'"),
    "width-both": ("width and precision", "lambda x: f'{x:99.99f}'"),
    "text-repeat": ("a text many times", "#'a' * 99999999"),
    "text-sum": ("a sum of texts", "#'a' + 'a'"),
    "list-repeat": ("a list many times", "#[1] * 99999999"),
    "tuple-repeat": ("a tuple many times", "#(1, 2) * 99999999"),
}

DOCUMENTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "nan": ("NaN", {TRAIN: base_files("mmar")[TRAIN].replace(b"1260", b"NaN")}),
    "infinity": ("Infinity", {TRAIN: base_files("mmar")[TRAIN].replace(b"1260", b"-Infinity")}),
    "exponent": ("an exponent beyond all", {
        TRAIN: base_files("mmar")[TRAIN].replace(b"1260", b"1e999")}),
    "digits": ("ten thousand digits", {
        TRAIN: base_files("mmar")[TRAIN].replace(b"1260", b"9" * 10_000)}),
    "environment-nan": ("NaN in the environment", {ENVIRONMENT: b'{"x": NaN}'}),
}  # fmt: skip


# --- What a check costs --------------------------------------------------------------------------

_SUM = f"#({_HALF}) + ({_HALF})"
_NESTED = "1"
for _ in range(16):
    _NESTED = f"({_NESTED} if 1 else 2)"


def _filled(values: list[Any], more: str = "train/handlers/4/args/tag_name") -> Edits:
    return {more: values, BATCH: 10**6}


def _referring(count: int, long: list[Any]) -> Edits:
    """A few words that refer to a long transform again and again."""
    return {
        "train/pre_transforms/0/args/note": long,
        "validate/pre_transforms": [{"ref": "load"}] * count,
    }


COSTS: dict[str, tuple[str, Edits]] = {
    "sum-of-choices": ("four million sums", {BATCH: f"#(({_HALF}) + ({_HALF})) * 1000"}),
    "sums-of-choices": ("the same in each argument", {
        "train/model/args/channels": [_SUM] * 600, "train/model/args/num_res_units": 10**6}),
    "product-of-choices": ("a product of choices", {
        BATCH: "#" + " * ".join(["(2 if 1 else 3)"] * 14)}),
    "choices-of-choices": ("choices in choices", {
        "train/pre_transforms/3/args/pixdim": ["#" + _NESTED.replace("2", "0.001")] * 3}),
    "sizes-of-choices": ("choices of sizes", {
        "train/pre_transforms": [{"name": "Resized", "args": {
            "keys": "image", "spatial_size": f"#[{_HALF}, 9999999 if 1 else 2]"}}] * 200}),
    "texts-of-choices": ("texts of choices", _filled(["#f\"" + "{'a' or 'b'}" * 12 + '"'] * 900)),
    "references": ("thousands of references", _filled(
        ["#[" + ",".join(["@model"] * 100) + "]"] * 220)),
    "chain": ("a long chain of entries", {
        f"train/e{n}": {"name": "UNet", "args": {"a": f"@e{n + 1}"}} for n in range(250)}),
    "web": ("entries that refer to many others", {
        f"train/e{n}": {"name": "UNet", "args": {
            "a": "#[" + ",".join(f"@e{n + k + 1}" for k in range(40)) + "]"}}
        for n in range(230)}),
    "refs": ("a long transform many times", _referring(500, ["x" * 4000] * 40)),
    "refs-computed": ("the same of computed numbers", _referring(400, [_SUM] * 200)),
    "refs-deep": ("the same, deep", _referring(500, [[[["a"] * 30] * 5] * 2] * 2)),
    "refs-alike": ("many transforms of one name", {
        "train/pre_transforms": [{"name": "Resized", "args": {"spatial_size": n}}
                                 for n in range(200)],
        "validate/pre_transforms": [{"ref": "Resized"}] * 300}),
    "braces": ("braces", _filled(["{" * 4000] * 50)),
    "pairs-of-braces": ("pairs of braces", _filled(["{{" * 2000] * 50 + ["{"])),
    "variables": ("unknown variables", _filled(["{A}" * 1300] * 50)),
    "quotes": ("quotes that do not end", _filled(["#" + "'\\'" * 300] * 200)),
    "braces-in-text": ("braces in an f-string", _filled(["#f'" + "{" * 480 + "'"] * 200)),
    "closing-braces": ("the same the other way", _filled(["#f'" + "}{" * 480 + "'"] * 200)),
    "dots": ("many dots", _filled(["#" + "a." * 480] * 200)),
    "brackets": ("many brackets", _filled(["#" + "(" * 480 + ")" * 480] * 200)),
    "unary": ("many signs", _filled(["#" + "-~" * 480 + "1"] * 200)),
    "names": ("names that are nearly right", {
        "train/pre_transforms": [{"name": ("Resize" * 8)[:44] + str(n)} for n in range(600)]}),
    "arguments": ("arguments that are nearly right", {
        "train/model/args": {f"spatial_dim{n}": 3 for n in range(1200)}}),
    "keys": ("keys that are nearly right", {f"determinis{n}": {} for n in range(1200)}),
    "metrics-saver": ("metrics that are nearly right", {
        "validate/handlers": [{"name": "MetricsSaver", "args": {
            "metrics": [f"val_mean_dic{n}" for n in range(1200)]}}]}),
    "engine-keys": ("keys that nothing produces", {
        "train/handlers/4/args/tag_name": [
            "#from_engine([" + ",".join(f"'z{n}_{k}'" for k in range(50)) + "])"
            for n in range(250)]}),
}  # fmt: skip

_BIG = 2**20 - 100
BIG: dict[str, tuple[str, Mapping[str, Any]]] = {
    "blanks": ("a megabyte of blanks", {TRAIN: b" " * _BIG + base_files("mmar")[TRAIN]}),
    "brackets": ("a megabyte of brackets", {TRAIN: b"[" * _BIG}),
    "objects": ("a megabyte of objects", {TRAIN: b'{"a":' * (_BIG // 5)}),
    "values": ("a megabyte of values", {TRAIN: b'{"train": [' + b"1," * (_BIG // 2) + b"1]}"}),
    "nans": ("a megabyte of NaN", {TRAIN: b'{"train": [' + b"NaN," * 99_000 + b"1]}"}),
    "keys": ("a megabyte of keys", {TRAIN: json.dumps({f"k{n}": n for n in range(70_000)})}),
    "twice": ("each key twice", {TRAIN: b"{" + b",".join(
        b'"k%d":1,"k%d":1' % (n, n) for n in range(45_000)) + b"}"}),
    "text": ("a megabyte of text", {TRAIN: json.dumps({"train": "a" * _BIG})}),
    "digits": ("a megabyte of digits", {TRAIN: b'{"train": ' + b"9" * _BIG + b"}"}),
    "halves": ("a megabyte of half characters", {
        TRAIN: b'{"train": [' + b'"\\ud800",' * 90_000 + b"1]}"}),
    "lines": ("a megabyte of lines", {TRAIN: b"\n" * _BIG}),
    "other": ("the same in another document", {
        "config/other.json": json.dumps([[[[[[]]]]]] * 90_000)}),
    "environment": ("the same in the environment", {
        ENVIRONMENT: json.dumps({f"V{n}": "x" * 400 for n in range(2_000)})}),
    "inference": ("the same in another workflow", {INFERENCE: b" " * _BIG + b"{}"}),
    "log": ("the same in the configuration of the log", {
        LOG: "[loggers]\nkeys=" + ",".join(f"k{n}" for n in range(140_000))}),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=id_, family="number", tries=tries, rules=RULES, edits={TRAIN: {BATCH: value}})
        for id_, (tries, value) in COMPUTED.items()
    ),
    *(
        Case(id=f"made-{id_}", family="number", tries=tries, edits={TRAIN: changes},
             rules=(*RULES, "type", "variable"))
        for id_, (tries, changes) in SIZES.items()
    ),
    *(
        Case(id=f"format-{id_}", family="number", tries=tries, rules=("expression",),
             edits={TRAIN: {"train/handlers/4/args/output_transform": text}})
        for id_, (tries, text) in FORMATS.items()
    ),
    *(
        Case(id=f"json-{id_}", family="number", tries=tries, rules=("json",), files=files)
        for id_, (tries, files) in DOCUMENTS.items()
    ),
    *(
        Case(id=id_, family="cost", tries=tries, edits={TRAIN: changes},
             rules=(*RULES, "unknown-argument", "unknown-component", "unknown-key", "ref",
                    "unknown-variable", "variable", "metric", "engine-key", "expression",
                    "reference", "cycle"))
        for id_, (tries, changes) in COSTS.items()
    ),
    *(
        Case(id=f"megabyte-{id_}", family="cost", tries=tries, files=files,
             rules=("limit", "json", "log-config"))
        for id_, (tries, files) in BIG.items()
    ),
)  # fmt: skip

# --- What people write ---------------------------------------------------------------------------

USUAL: dict[str, tuple[str, Mapping[str, Edits]]] = {
    "batch": ("a computed batch", {TRAIN: {BATCH: "#2 * 2"}}),
    "batch-half": ("half of one", {TRAIN: {BATCH: "#8 // 2"}}),
    "batch-choice": ("a batch by a choice", {TRAIN: {BATCH: "#4 if 1 > 0 else 2"}}),
    "batch-or": ("a batch or another", {TRAIN: {BATCH: "#0 or 4"}}),
    "batch-large": ("a large batch", {TRAIN: {BATCH: 256}}),
    "rate": ("a computed rate", {TRAIN: {"train/optimizer/args/lr": "#1 / 10000"}}),
    "rate-product": ("a rate times processes", {TRAIN: {"train/optimizer/args/lr": "#0.0001 * 2"}}),
    "channels": ("computed channels", {TRAIN: {
        "train/model/args/channels": "#[4, 2 * 4, 2 * 2 * 4]"}}),
    "size": ("a computed size", {TRAIN: size("Resized", "spatial_size", "#[2 * 96, 192, 96]")}),
    "size-choice": ("a size by a choice", {TRAIN: size(
        "Resized", "spatial_size", "#[96, 96, 96] if 1 else [64, 64, 64]")}),
    "size-kept": ("an axis as it is", {TRAIN: size("Resized", "spatial_size", [160, 160, -1])}),
    "size-large": ("a large volume", {TRAIN: size("SpatialPadd", "spatial_size", [512, 512, 400])}),
    "spacing": ("a fine spacing", {TRAIN: {STEP: [0.3, 0.3, 0.5]}}),
    "spacing-kept": ("an axis as it is", {TRAIN: {STEP: [0.7, 0.7, -1]}}),
    "spacing-computed": ("a computed spacing", {TRAIN: {STEP: "#[3 / 4, 3 / 4, 1.5]"}}),
    "crops": ("many crops", {TRAIN: size(
        "RandSpatialCropSamplesd", "roi_size", [96, 96, 96], num_samples=8)}),
    "zooms": ("a larger and a smaller image", {TRAIN: repeated(2, "Zoomd", zoom=1.5)}),
    "windows": ("large windows", {VALIDATION: {"inferer/args/roi_size": [160, 160, 160]}}),
    "epochs": ("epochs by a variable", {TRAIN: {"epochs": 2000}}),
    "threads": ("threads", {TRAIN: {"NUM_THREADS": 8}}),
    "seed": ("the largest seed", {TRAIN: {"determinism/random_seed": 2**32 - 1}}),
    "refs": ("all transforms by refs", {TRAIN: {"validate/pre_transforms": [
        {"ref": name} for name in ("load", "EnsureChannelFirstd", "Orientationd", "Spacingd",
                                   "window", "CropForegroundd", "ToTensord")]}}),
    "exponents": ("numbers with exponents", {TRAIN: {
        "learning_rate": 1e-7, "train/pre_transforms/4/args/a_max": 1e3}}),
}  # fmt: skip

BENIGN: tuple[Case, ...] = tuple(
    Case(id=f"number-{id_}", family="benign", tries=tries, rules=(), edits=edits)
    for id_, (tries, edits) in USUAL.items()
)
