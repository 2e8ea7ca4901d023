"""Texts that become paths on a way that no argument shows: expressions, lists, headers."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

from tests.security.case import ENVIRONMENT, INFERENCE, TRAIN, Case, Link

RULES = ("path",)
WIDER = ("path", "denied-argument", "missing-argument", "argument", "section", "type", "expression",
         "code", "component-kind", "data-list", "json", "limit", "component")  # fmt: skip

SAVE_DIR = "train/handlers/3/args/save_dir"
LOAD_PATH = "train/handlers/0/args/load_path"
NIFTI = struct.pack("<i", 348) + bytes(400)
GZIPPED = gzip.compress(NIFTI, mtime=0)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(SECRET) run\n"
DICOM = bytes(128) + b"DICM" + bytes(64)
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\n"


# --- Arguments -----------------------------------------------------------------------------------

TEXTS: dict[str, tuple[str, Any]] = {
    "choice-then": ("one of two paths", "#'/etc/cron.d' if 1 else None"),
    "choice-otherwise": ("the other of two paths", "#None if 1 else '/etc/cron.d'"),
    "choice-nested": ("a path deep in choices",
                      "#None if 1 else ('x' if 0 else (None or '/etc/cron.d'))"),
    "or": ("what stands behind or", "#None or '/etc/cron.d'"),
    "and": ("what stands behind and", "#1 and '/etc/cron.d'"),
    "f-string": ("a path of two parts", "#f\"{'/etc'}/cron.d\""),
    "f-string-number": ("a path with a number in it", "#f\"/proc/{1}/root/x\""),
    "f-string-format": ("a path by a format", "#f\"{'/etc':s}/cron.d\""),
    "list": ("a path in a list", ["/etc/cron.d"]),
    "list-expression": ("a path in a computed list", "#['/etc/cron.d']"),
    "list-nested": ("a path in a list of lists", [["/etc/cron.d"]]),
    "map": ("a path in an object", {"dir": "/etc/cron.d"}),
    "map-expression": ("a path in a computed object", "#{'dir': '/etc/cron.d'}"),
    "subscript": ("a path taken out of a list", "#['/etc/cron.d'][0]"),
    "reference": ("a path by a reference", "@loss"),
    "lambda": ("a path that a function gives", "lambda x: '/etc/cron.d'"),
    "number": ("the descriptor of an open file", 3),
    "flag": ("true as a path", True),
    "component": ("an object that is a path", {"name": "UNet", "args": {}}),
}  # fmt: skip

SAVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "root-choice": ("names that lead out by a chosen root",
                    {"data_root_dir": "#'{DATA_ROOT}' if 1 else '/'"}),
    "postfix-choice": ("a postfix that leads out", {"output_postfix": "#'x' if 1 else '/../../x'"}),
    "postfix-list": ("a postfix in a list", {"output_postfix": ["/../../x"]}),
    "ext-f-string": ("an ending of parts", {"output_ext": "#f\"{'.nii'}/../../x\""}),
}  # fmt: skip

KEYS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "flatten": ("a text of a header as a path", [
        {"name": "LoadImageD", "args": {"keys": "image", "image_only": False}},
        {"name": "FlattenSubKeysd", "args": {"keys": "image_meta_dict", "sub_keys": "descrip"}},
        {"name": "LoadImageD", "args": {"keys": "descrip"}}]),
    "flatten-all": ("any text of a header", [
        {"name": "FlattenSubKeysd", "args": {"keys": "image_meta_dict"}}]),
    "flatten-prefix": ("a text of a header under a prefix", [
        {"name": "FlattenSubKeysd", "args": {"keys": "a", "sub_keys": "b", "prefix": "c"}},
        {"name": "LoadImageD", "args": {"keys": "c_b"}}]),
    "meta": ("the keys of metadata as paths", [{"name": "LoadImageD",
                                                "args": {"keys": "image_meta_dict"}}]),
    "meta-named": ("the same under a name", [
        {"name": "LoadImageD", "args": {"keys": ["image", "more"], "meta_keys": ["more", "x"]}}]),
    "computed": ("keys that nobody can list", [
        {"name": "LoadImageD", "args": {"keys": "#f\"{'no'}{'te'}\""}}]),
    "lambda": ("keys of a function", [{"name": "LoadImageD", "args": {"keys": "lambda x: x"}}]),
    "reference": ("keys by a reference", [{"name": "LoadImageD", "args": {"keys": "@loss"}}]),
}  # fmt: skip


# --- Cases in the workflow -----------------------------------------------------------------------

WRITTEN: dict[str, tuple[str, Any]] = {
    "absolute": ("a file of the site", [{"image": "SECRET"}]),
    "relative": ("a file relative to the process", [{"image": "startup/client.key"}]),
    "own": ("a file of the job", [{"image": "{MMAR_ROOT}/config/environment.json"}]),
    "up": ("a way up", [{"image": "{DATA_ROOT}/../x.nii"}]),
    "second-key": ("another key of a case",
                   [{"image": "{DATA_ROOT}/a.nii", "label": "{DATA_ROOT}/a.nii", "x": "/etc/a"}]),
    "deep": ("deep in a case", [{"image": "{DATA_ROOT}/a.nii", "x": {"y": [["/etc/passwd"]]}}]),
    "object-key": ("the key of an object", [{"image": {"/etc/x.nii": 1}}]),
    "plain": ("a case that is a text", ["/etc/x.nii"]),
    "list": ("one of two files", [{"image": ["{DATA_ROOT}/a.nii", "/etc/x.nii"]}]),
    "expression": ("computed cases", "#[{'image': '/etc/x.nii'}]"),
    "expression-inside": ("a computed file", [{"image": "#'/etc/x.nii' if 1 else None"}]),
    "reference": ("cases by a reference", "@post_transforms"),
    "text": ("a text in place of cases", "/etc/x.nii"),
    "object": ("an object in place of cases", {"image": "/etc/x.nii"}),
    "named": ("a name for the results",
              [{"image": "{DATA_ROOT}/a.nii", "pred_meta_dict": {"filename_or_obj": "x"}}]),
}  # fmt: skip


# --- Lists of cases ------------------------------------------------------------------------------

GOOD = {"image": "a.nii.gz", "label": "a.nii.gz"}
FILES = {"a.nii.gz": GZIPPED, "a.nii": NIFTI, "a.raw": bytes(240)}

ITEMS: dict[str, tuple[str, Any]] = {
    "absolute": ("a file of the site", {**GOOD, "image": "SECRET"}),
    "mask": ("the third key", {**GOOD, "mask": "/etc/x.nii"}),
    "other-key": ("a key that nobody has heard of", {**GOOD, "contour": "/etc/x.nii"}),
    "odd-key": ("a key that is a path", {**GOOD, "/etc/x.nii": 1}),
    "deep": ("deep in an entry", {**GOOD, "x": [{"y": {"z": "../../x.nii"}}]}),
    "home": ("a file of somebody", {**GOOD, "x": "~root/x.nii"}),
    "label-object": ("an object as a label", {**GOOD, "label": {"file": "/etc/x.nii"}}),
    "label-object-key": ("the key of an object", {**GOOD, "label": {"/etc/x.nii": 1}}),
    "label-list": ("a list of labels", {**GOOD, "label": [1, "/etc/x.nii"]}),
    "label-deep": ("a list of lists of labels", {**GOOD, "label": [["/etc/x.nii"]]}),
    "filename": ("a name for the results", {**GOOD, "pred_meta_dict": {"filename_or_obj": "a"}}),
    "patch": ("a number for the results", {**GOOD, "x": {"patch_index": "/../../x"}}),
    "link": ("a link", {**GOOD, "image": "out.nii"}),
    "link-folder": ("a folder that is a link", {**GOOD, "image": "folder/x.nii"}),
    "link-up": ("a step up behind a link", {**GOOD, "image": "folder/../a.nii"}),
    "proc": ("the root by another name", {**GOOD, "image": "/proc/self/root/etc/x.nii"}),
    "line": ("a line break", {**GOOD, "image": "a.nii\n/etc/x.nii"}),
    "windows": ("a path of Windows", {**GOOD, "image": "..\\..\\x.nii"}),
    "drive": ("a drive of Windows", {**GOOD, "image": "C:/x.nii"}),
    "suffix-eps": ("what Ghostscript runs", {**GOOD, "image": "a.eps"}),
    "suffix-h5": ("a format with links", {**GOOD, "image": "a.h5"}),
    "suffix-pair": ("half of a pair", {**GOOD, "image": "a.hdr"}),
    "suffix-hidden": ("another ending behind the known one", {**GOOD, "image": "a.nii.par"}),
    "suffix-none": ("a file without an ending", {**GOOD, "image": "id_rsa"}),
    "program": ("a program as a picture", {**GOOD, "image": "a.png"}),
    "program-jpeg": ("a program as a photo", {**GOOD, "image": "b.JPG"}),
    "nrrd": ("a header that names another file", {**GOOD, "image": "out.nrrd"}),
    "nrrd-list": ("one that names several", {**GOOD, "image": "list.nhdr"}),
    "nrrd-pattern": ("one that names a pattern", {**GOOD, "image": "pattern.nhdr"}),
    "nrrd-link": ("one that names a link", {**GOOD, "image": "link.nhdr"}),
    "mhd": ("another format with such a header", {**GOOD, "image": "out.mhd"}),
    "mhd-list": ("a list in it", {**GOOD, "image": "list.mhd"}),
    "mhd-pattern": ("a pattern in it", {**GOOD, "image": "pattern.mha"}),
    "mhd-long": ("a header that is longer than anybody reads", {**GOOD, "image": "long.mhd"}),
    "mhd-none": ("a header that does not say it", {**GOOD, "image": "none.mhd"}),
    "series": ("a folder with a link out", {**GOOD, "image": "series"}),
    "series-list": ("the same in a list", {**GOOD, "image": ["a.nii.gz", "series"]}),
}  # fmt: skip

TRAPS: dict[str, Any] = {
    "out.nii": Link("/etc/hostname"),
    "folder": Link("/usr/lib"),
    "a.png": POSTSCRIPT,
    "b.JPG": b"\xc5\xd0\xd3\xc6" + bytes(30),
    "out.nrrd": NRRD + "data file: /etc/hostname\n\n",
    "list.nhdr": NRRD + "datafile: LIST 2\na.raw\n../../x.raw\n",
    "pattern.nhdr": NRRD + "data file: /etc/x%d 1 9 1\n",
    "link.nhdr": NRRD + "data file: out.nii\n",
    "out.mhd": META + "ElementDataFile = /etc/hostname\n",
    "list.mhd": META + "ElementDataFile = LIST\na.raw\n/etc/hostname\n",
    "pattern.mha": META + "ElementDataFile = slice%03d.raw 1 9 1\n",
    "long.mhd": META + "Comment = " + "x" * 70_000 + "\nElementDataFile = /etc/hostname\n",
    "none.mhd": META,
    "series/IM1": DICOM,
    "series/IM2": Link("/etc/hostname"),
}

LOADED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "relative": ("a text without a slash", {**GOOD, "note": "client.key"}, {"keys": "note"}),
    "choice": ("a key that is chosen", {**GOOD, "note": "client.key"},
               {"keys": "#'image' if 1 else 'note'"}),
    "number": ("a number as a path", {**GOOD, "note": {"x": 1}}, {"keys": "note"}),
    "reader": ("any reader for PostScript", {**GOOD, "note": "note.nii"},
               {"keys": "note", "reader": "PILReader"}),
    "reader-nrrd": ("another format under this name", {**GOOD, "note": "nrrd.nii"},
                    {"keys": "note", "reader": "NrrdReader"}),
    "reader-itk": ("HDF5 under this name", {**GOOD, "note": "hdf5.nii"},
                   {"keys": "note", "reader": "ITKReader"}),
}  # fmt: skip

OTHERS = {"note.nii": POSTSCRIPT, "nrrd.nii": NRRD + "data file: /etc/hostname\n",
          "hdf5.nii": b"\x89HDF\r\n\x1a\n" + bytes(40)}  # fmt: skip


def listed(*items: Any, **lists: Any) -> dict[str, Any]:
    """A site's folder of data with a list of cases in it."""
    document = {"training": list(items), "validation": [GOOD], **lists}
    return {**FILES, "list.json": json.dumps(document)}


def _loading(*steps: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """More transforms at the end of those of the training."""
    compose = {"name": "Compose", "args": {"transforms": [*steps]}}
    return {TRAIN: {"train/pre_transforms/-": compose}}


def _saving(arguments: dict[str, Any]) -> dict[str, dict[str, Any]]:
    own = {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}", **arguments}
    return {INFERENCE: {"post_transforms/-": {"name": "SaveImaged", "args": own}}}


def _written(data: Any) -> dict[str, dict[str, Any]]:
    own = {"data": data, "transform": "@pre_transforms"}
    return {TRAIN: {"train/dataset": {"name": "Dataset", "args": own}}}


CLASSES = {ENVIRONMENT: {"PROCESSING_TASK": "classification"}}

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=f"beyond-write-{id_}", family="path", tries=tries, rules=(*RULES, *WIDER),
             edits={TRAIN: {SAVE_DIR: value}})
        for id_, (tries, value) in TEXTS.items()
    ),
    *(
        Case(id=f"beyond-read-{id_}", family="path", tries=tries, rules=(*RULES, *WIDER),
             edits={TRAIN: {LOAD_PATH: value, "dont_load_ckpt_model": False}})
        for id_, (tries, value) in TEXTS.items()
    ),
    *(
        Case(id=f"beyond-save-{id_}", family="path", tries=tries, rules=RULES,
             edits=_saving(arguments))
        for id_, (tries, arguments) in SAVERS.items()
    ),
    *(
        Case(id=f"beyond-keys-{id_}", family="path", tries=tries, rules=(*RULES, *WIDER),
             edits=_loading(*steps))
        for id_, (tries, steps) in KEYS.items()
    ),
    *(
        Case(id=f"beyond-data-{id_}", family="path", tries=tries, rules=(*RULES, *WIDER),
             edits=_written(data))
        for id_, (tries, data) in WRITTEN.items()
    ),
    *(
        Case(id=f"beyond-{id_}", family="data list", tries=tries, rules=RULES,
             data={**listed(GOOD, item), **TRAPS})
        for id_, (tries, item) in ITEMS.items()
    ),
    *(
        Case(id=f"beyond-loaded-{id_}", family="data list", tries=tries, rules=RULES,
             data={**listed(item), **OTHERS},
             edits=_loading({"name": "LoadImageD", "args": arguments}))
        for id_, (tries, item, arguments) in LOADED.items()
    ),
    Case(id="beyond-validation", family="data list", tries="the list of another section",
         rules=RULES, data=listed(GOOD, validation=[GOOD, {**GOOD, "image": "/etc/x.nii"}])),
    Case(id="beyond-inference", family="data list", tries="a list of plain texts", rules=RULES,
         data=listed(GOOD, test=["a.nii.gz", "/etc/x.nii"])),
    Case(id="beyond-own-key", family="data list", tries="a list that the job picks", rules=RULES,
         data=listed(GOOD, **{"": [{**GOOD, "image": "/etc/x.nii"}], "x y": ["/etc/x.nii"]}),
         edits={TRAIN: {"train/dataset/data_list_key": "x y"}}),
    Case(id="beyond-copy", family="data list", tries="a copy of an entry", rules=RULES,
         data=listed({**GOOD, "note": "client.key"}),
         edits=_loading({"name": "CopyItemsd", "args": {"keys": "note", "names": "copy"}},
                        {"name": "LoadImageD", "args": {"keys": "copy"}})),
    Case(id="beyond-copy-of-copy", family="data list", tries="a copy of a copy", rules=RULES,
         data=listed({**GOOD, "note": "client.key"}),
         edits=_loading({"name": "CopyItemsd", "args": {"keys": "note"}},
                        {"name": "CopyItemsD", "args": {"keys": "note_0", "names": "copy"}},
                        {"name": "LoadImageD", "args": {"keys": "copy"}})),
    Case(id="beyond-classes", family="data list", tries="the label of a class as a file",
         rules=RULES, data=listed({"image": "a.nii.gz", "label": "/etc/x.nii"}), edits=CLASSES),
    Case(id="beyond-classes-loaded", family="data list", tries="a class that a loader opens",
         rules=RULES, data=listed({"image": "a.nii.gz", "label": "benign"}), edits=CLASSES),
    Case(id="beyond-own-list", family="data list", tries="a list of the job", rules=RULES,
         files={"config/list.json": json.dumps({"training": [GOOD]})}, data=listed(GOOD),
         edits={TRAIN: {"train/dataset/data_list_file_path": "{MMAR_ROOT}/config/list.json"}}),
    Case(id="beyond-own-base", family="data list", tries="images of the job", rules=RULES,
         files={"data/a.nii.gz": GZIPPED}, data=listed(GOOD),
         edits={TRAIN: {"train/dataset/data_file_base_dir": "{MMAR_ROOT}/data"}}),
    Case(id="beyond-own-images", family="data list", tries="what a run writes as images",
         rules=RULES, data=listed(GOOD),
         edits={TRAIN: {"train/dataset/data_file_base_dir": "{MMAR_CKPT_DIR}"}}),
    Case(id="beyond-list-elsewhere", family="data list", tries="a list next to the data",
         rules=RULES, data=listed(GOOD),
         edits={TRAIN: {"train/dataset/data_list_file_path": "{DATA_ROOT}/../site/secret.json"}}),
    Case(id="beyond-list-link", family="data list", tries="a list that is a link", rules=RULES,
         data={**listed(GOOD), "more.json": Link("SECRET")},
         edits={TRAIN: {"train/dataset/data_list_file_path": "{DATA_ROOT}/more.json"}}),
    Case(id="beyond-list-computed", family="data list", tries="a list that is chosen",
         rules=WIDER, data=listed(GOOD),
         edits={TRAIN: {"train/dataset/data_list_file_path": "#'SECRET' if 1 else None"}}),
    Case(id="beyond-label", family="path", tries="a metric whose name leads out",
         rules=("log-label",),
         edits={TRAIN: {"validate/key_metric/log_label": "a/../../../x"}}),
)  # fmt: skip


# --- Benign --------------------------------------------------------------------------------------

READ: dict[str, tuple[str, Any]] = {
    "dots": ("dots inside a name", {"image": "a..b.nii.gz", "label": "...c.nii"}),
    "spaces": ("spaces and brackets", {**GOOD, "image": "T1 (2), post/a b.nii.gz"}),
    "unicode": ("names that are not English", {**GOOD, "image": "M\u00fcller/\u753b\u50cf.nii.gz"}),
    "up-inside": ("a step up inside the data", {**GOOD, "image": "labels/../a.nii.gz"}),
    "capitals": ("an ending in capitals", {**GOOD, "image": "A.NII.GZ"}),
    "modalities": ("an image of several files", {**GOOD, "image": ["a.nii.gz", "a.nii"]}),
    "entries": ("whatever else a list knows of a case",
                {**GOOD, "fold": 2, "spacing": [1.0, 1.0], "patient": "P-1", "side": "left / right",
                 "size": "~3 cm",
                 "scanner": {"name": "Avanto 1.5T", "site": "A/B"}, "x": None}),
    "inside-link": ("a link inside the data", {**GOOD, "image": "inside.nii.gz"}),
    "mhd": ("a header next to its voxels", {**GOOD, "image": "next.mhd"}),
    "mha": ("voxels behind their header", {**GOOD, "image": "local.mha"}),
    "nrrd": ("a list of slices", {**GOOD, "image": "slices.nhdr"}),
    "series": ("a folder of DICOM", {**GOOD, "image": "series"}),
    "dicom": ("a DICOM file without an ending", {**GOOD, "image": "series/IM000001"}),
    "absolute-note": ("a note that names a file of the data", {**GOOD, "source": "a/../a.nii"}),
}  # fmt: skip

FOUND: dict[str, Any] = {
    "labels/x.nii": NIFTI,
    "inside.nii.gz": Link("a.nii.gz"),
    "next.mhd": META + "ElementDataFile = a.raw\n",
    "local.mha": META + "ElementDataFile = LOCAL\n" + "\0" * 240,
    "slices.nhdr": NRRD + "data file: LIST 2\na.raw\na.raw\n",
    "series/IM000001": DICOM,
    "series/IM000002": DICOM,
}

BENIGN: tuple[Case, ...] = (
    *(
        Case(id=f"beyond-{id_}", family="benign", tries=tries, rules=(),
             data={**listed(GOOD, item), **FOUND})
        for id_, (tries, item) in READ.items()
    ),
    Case(id="beyond-classes", family="benign", tries="classes that are numbers or words", rules=(),
         data=listed(*({"image": "a.png", "label": one} for one in (0, [0, 1], "healthy", "a/b"))),
         edits={**CLASSES, TRAIN: {"train/pre_transforms/0/args/keys": "image",
                                   "validate/pre_transforms": [
                                       {"name": "LoadImaged", "args": {"keys": "image"}}]}}),
    Case(id="beyond-more-keys", family="benign", tries="an image under a name of its own", rules=(),
         data=listed({**GOOD, "t1": "a.nii", "t2": ["a.nii", "a.nii.gz"]}),
         edits={TRAIN: {"train/pre_transforms/0/args/keys": ["image", "label", "t1", "t2"]}}),
    Case(id="beyond-copy", family="benign", tries="a copy of an image", rules=(),
         data=listed({**GOOD, "patient": "P-001"}),
         edits=_loading({"name": "CopyItemsd", "args": {"keys": ["image", "patient"], "names": [
             "original", "who"]}})),
    Case(id="beyond-written", family="benign", tries="cases of the site in the workflow", rules=(),
         edits=_written([{"image": "{DATA_ROOT}/a.nii", "label": ["{DATA_ROOT}/b.nii"]}])),
    Case(id="beyond-choice", family="benign", tries="one of two folders of the MMAR", rules=(),
         edits={TRAIN: {SAVE_DIR: "{MMAR_CKPT_DIR}", "train/handlers/3/args/file_prefix":
                        "#'best' if 1 else 'last'"}}),
    Case(id="beyond-reader", family="benign", tries="a reader by its name", rules=(),
         data=listed(GOOD), edits={TRAIN: {"train/pre_transforms/0/args/reader": "NibabelReader"}}),
    Case(id="beyond-plain", family="benign", tries="a list of plain texts", rules=(),
         data=listed(GOOD, test=["a.nii.gz", "labels/a..b.nii"])),
)  # fmt: skip
