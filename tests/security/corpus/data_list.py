"""Documents and data lists: JSON that is none, too large, too deep, or says one thing twice."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.security.case import ENVIRONMENT, TRAIN, Case, base_files

RULES = ("json", "limit", "missing-file", "unknown-key", "section", "type", "depth", "data-list",
         "component", "path", "mmar", "environment", "unknown-variable", "missing-argument",
         "unknown-argument", "engine-key", "data", "reference")  # fmt: skip


def text(raw: str | bytes) -> Callable[[], bytes]:
    return lambda: raw if isinstance(raw, bytes) else raw.encode()


def changed(change: Callable[[str], str]) -> Callable[[], bytes]:
    """The training workflow with its text changed."""
    return lambda: change(base_files("mmar")[TRAIN].decode()).encode()


def recoded(encoding: str, mark: bytes = b"") -> Callable[[], bytes]:
    return lambda: mark + base_files("mmar")[TRAIN].decode().encode(encoding)


DOCUMENTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("nothing", text("")),
    "null": ("null", text("null")),
    "number": ("a number", text("5")),
    "array": ("an array", text("[]")),
    "hocon-include": ("HOCON's inclusion", text('include file("SECRET")')),
    "hocon-tail": ("HOCON behind JSON", changed(lambda t: t + '\ninclude file("SECRET")')),
    "hocon-unquoted": ("HOCON without quotes", text("train { loss { path = os.system } }")),
    "yaml": ("YAML with a tag", text("!!python/object/apply:os.system ['touch MARKER']")),
    "comment": ("a comment", changed(lambda t: "// x\n" + t)),
    "trailing-comma": ("a trailing comma", changed(lambda t: t.rstrip()[:-1] + ",}")),
    "single-quotes": ("single quotes", changed(lambda t: t.replace('"', "'"))),
    "two-documents": ("two documents", changed(lambda t: t + t)),
    "twice": ("a key twice", changed(lambda t: t.replace("{", '{"epochs": 1, ', 1))),
    "twice-nested": ("a key twice inside",
                     changed(lambda t: t.replace('"DiceLoss"', '"DiceLoss", "name": "os.system"'))),
    "twice-escaped": ("a key twice, once escaped",
                      changed(lambda t: t.replace("{", '{"\\u0065pochs": 1, ', 1))),
    "nan": ("not a number", changed(lambda t: t.replace("0.0002", "NaN"))),
    "infinity": ("infinity", changed(lambda t: t.replace("0.0002", "-Infinity"))),
    "exponent": ("infinity by its exponent", changed(lambda t: t.replace("0.0002", "1e999999"))),
    "digits": ("a number of 100,000 digits", changed(lambda t: t.replace("1260", "9" * 100_000))),
    "fraction": ("a fraction of 200,000 digits",
                 changed(lambda t: t.replace("0.0002", "0." + "9" * 200_000))),
    "utf-16": ("another encoding", recoded("utf-16")),
    "utf-16-le": ("another encoding without a mark", recoded("utf-16-le")),
    "utf-32": ("another encoding", recoded("utf-32")),
    "utf-7": ("another encoding", text(b"+AHs-+AH0-")),
    "latin": ("a byte that is no character", lambda: base_files("mmar")[TRAIN] + b"\xff"),
    "bom-twice": ("two marks of byte order", recoded("utf-8", b"\xef\xbb\xbf\xef\xbb\xbf")),
    "nul": ("a NUL behind the end", recoded("utf-8", b"\0")),
    "nul-inside": ("a NUL inside a key", changed(lambda t: t.replace("epochs", "epo\0chs", 1))),
    "overlong": ("an overlong character", text(b'{"a": "\xc0\xaf"}')),
    "surrogate-key": ("half a character as a key", text('{"\\ud800": {"train": 1}}')),
    "deep-arrays": ("a deep array", text('{"train": ' + "[" * 100_000 + "]" * 100_000 + "}")),
    "deep-objects": ("a deep object", text('{"a":' * 50_000 + "1" + "}" * 50_000)),
    "rather-deep": ("an array just too deep", text('{"train":' + "[" * 70 + "]" * 70 + "}")),
    "unclosed": ("brackets that nobody closes", text("[" * 1_000_000)),
    "large": ("5 MB of blanks", lambda: b" " * 5_000_000),
    "long-text": ("a text of 100 kB", text(json.dumps({"train": {"x": "a" * 100_000}}))),
    "long-key": ("a key of 100 kB", text(json.dumps({"train": {"a" * 100_000: 1}}))),
    "many-values": ("100,000 values", text(json.dumps({"train": {"x": [0] * 100_000}}))),
    "many-keys": ("10,000 keys", text(json.dumps({f"k{i}": i for i in range(10_000)}))),
    "many-names": ("500 names of 80 letters, none of them known",
                   text(json.dumps({"train": {"pre_transforms": [
                       {"name": f"{'RandSpatialCrop' * 3}{i:04}"} for i in range(500)]}}))),
    "many-arguments": ("700 arguments of 80 letters, none of them known",
                       text(json.dumps({"train": {"model": {"name": "UNet", "args": {
                           f"{'channels' * 5}{i:04}": i for i in range(700)}}}}))),
    "many-unknown-keys": ("700 keys of 80 letters in one component",
                          text(json.dumps({"train": {"model": {"name": "UNet", **{
                              f"{'data_list_' * 4}{i:04}": i for i in range(700)}}}}))),
    "many-entries": ("700 entries of 80 letters, none of them known",
                     text(json.dumps({"train": {
                         f"{'additional_metrics' * 2}{i:04}": i for i in range(700)}}))),
    "many-variables": ("as many unknown variables as fit",
                       text(json.dumps({**{f"{'variable' * 5}{i:03}": i for i in range(300)},
                                        "train": {"loss": {"name": "DiceLoss", "args": {"weight": [
                                       f"{{{'variable' * 5}x{i:03}}}" for i in range(400)]}}}}))),
    "many-refs": ("as many unknown refs as fit",
                  text(json.dumps({"train": {"pre_transforms": [
                      *({"name": f"LoadImaged#{'alias' * 8}{i:03}"} for i in range(200)),
                      *({"ref": f"{'alias' * 8}x{i:03}"} for i in range(300))]}}))),
    "many-metrics": ("as many unknown metrics as fit",
                     text(json.dumps({"train": {
                         "additional_metrics": [{"name": "Accuracy", "log_label": f"{'m' * 40}{i}"}
                                                for i in range(150)],
                         "handlers": [{"name": "MetricsSaver", "args": {"metrics": [
                             f"{'m' * 40}x{i}" for i in range(600)]}}]}}))),
}  # fmt: skip


INSIDE: dict[str, tuple[str, str]] = {
    "entry-absolute": ("an image of another study", "/data/other/patient.nii.gz"),
    "entry-up": ("the same by steps up", "../../other/patient.nii.gz"),
    "entry-secret": ("a file of the site as an image", "SECRET"),
    "entry-url": ("an image from elsewhere", "http://127.0.0.1:9/x.nii.gz"),
}

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=id_, family="data list", tries=tries, rules=RULES, files={TRAIN: content})
        for id_, (tries, content) in DOCUMENTS.items()
    ),
    *(
        Case(id=f"environment-{id_}", family="data list", tries=DOCUMENTS[id_][0], rules=RULES,
             files={ENVIRONMENT: DOCUMENTS[id_][1]})
        for id_ in ("empty", "null", "array", "hocon-include", "deep-arrays", "large", "utf-16")
    ),
    Case(id="many-documents", family="data list", tries="10,000 documents", rules=RULES,
         files={f"config/more_{i}.json": "{}" for i in range(1000)}),
    Case(id="large-documents", family="data list", tries="documents of 30 MB together",
         rules=RULES, files={f"config/l_{i}.json": (lambda: b"[" + b"0," * 10**6 + b"0]")
                             for i in range(15)}),
    Case(id="dataset-beside", family="data list", tries="a data list that is too deep", rules=RULES,
         files={"config/dataset_0.json": text('{"training":' + "[" * 999 + "]" * 999 + "}")}),
    Case(id="key-null", family="data list", tries="no key of the list", rules=RULES,
         edits={TRAIN: {"train/dataset/data_list_key": None}}),
    Case(id="key-object", family="data list", tries="an object as the key", rules=RULES,
         edits={TRAIN: {"train/dataset/data_list_key": {"a": 1}}}),
    Case(id="file-only", family="data list", tries="a list without a base", rules=RULES,
         edits={TRAIN: {"train/dataset": {"name": "Dataset", "data_list_file_path": "x"}}}),
    Case(id="data-argument", family="data list", tries="cases inside the workflow", rules=RULES,
         edits={TRAIN: {"train/dataset/args/data": [{"image": "/etc/passwd"}]}}),
    Case(id="data-without-list", family="data list", tries="cases in place of a list", rules=RULES,
         edits={TRAIN: {"train/dataset": {"name": "Dataset", "args": {
             "data": [{"image": "/etc/passwd"}], "transform": "@pre_transforms"}}}}),
    *(
        Case(id=id_, family="data list", tries=tries, rules=(*RULES, "archive"),
             files={"data/list.json": json.dumps({"training": [{"image": entry}]})},
             edits={TRAIN: {"train/dataset/data_list_file_path": "{MMAR_ROOT}/data/list.json"}})
        for id_, (tries, entry) in INSIDE.items()
    ),
)  # fmt: skip
