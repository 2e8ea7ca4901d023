"""A cache that is read back, where a site has approved some code, or none, or all."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from tests.security.case import GONE, INFERENCE, TRAIN, VALIDATION, Case

OWN = "from torch import nn\n\n\nclass OwnLoss(nn.MSELoss):\n    pass\n"
CODE = {"custom/own_loss.py": OWN}
_FILES = f"{sha256(OWN.encode()).hexdigest()} 11 own_loss.py\n"
APPROVED = {
    "policy_version": 1,
    "byoc": {"mode": "by_hash", "approved": [sha256(_FILES.encode()).hexdigest()]},
}
ALL_CODE = {"policy_version": 1, "byoc": {"mode": "on"}}
OWN_LOSS = {"train/loss": {"path": "own_loss.OwnLoss", "args": {}}}

CACHE = {"transform": "@pre_transforms", "cache_dir": "{MMAR_CKPT_DIR}/cache"}
NAMED = {"name": "PersistentDataset"}
BY_PATH = {"name": GONE, "path": "monai.data.dataset.PersistentDataset"}
MODULE = {"name": GONE, "path": "monai.data.PersistentDataset"}


def _cached(place: str, named: dict[str, Any] = NAMED, **args: Any) -> dict[str, Any]:
    """Another class for the dataset of a section; its data list stays."""
    entry = {**named, "args": {**CACHE, **args}}
    return {f"{place}dataset/{key}": value for key, value in entry.items()}


BY_HASH: dict[str, tuple[str, dict[str, dict[str, Any]], dict[str, Any]]] = {
    "cache": ("a cache beside approved code", {TRAIN: {**OWN_LOSS, **_cached("train/")}}, {}),
    "cache-path": ("by its path", {TRAIN: {**OWN_LOSS, **_cached("train/", BY_PATH)}}, {}),
    "cache-module": ("by the path of a module that imports it",
                     {TRAIN: {**OWN_LOSS, **_cached("train/", MODULE)}}, {}),
    "cache-brought": ("a cache that the job has filled",
                      {TRAIN: {**OWN_LOSS, **_cached("train/")}},
                      {"models/cache/0123456789abcdef.pt": b"\x80\x04cposix\nsystem\n."}),
    "cache-validation": ("in the validation of a training",
                         {TRAIN: {**OWN_LOSS, **_cached("validate/")}}, {}),
    "cache-evaluation": ("in an evaluation", {VALIDATION: _cached("")}, {}),
    "cache-inference": ("in an inference", {INFERENCE: _cached("", BY_PATH)}, {}),
    "cache-nowhere": ("without a folder", {TRAIN: _cached("train/", cache_dir=None)}, {}),
    "cache-config": ("with the MMAR's own documents as the cache",
                     {TRAIN: _cached("train/", cache_dir="{MMAR_ROOT}/config")}, {}),
    "cache-protocol": ("another pickle protocol", {TRAIN: _cached("train/", pickle_protocol=0)},
                       {}),
    "cache-disabled-text": ("switched off by a text, which is on",
                            {TRAIN: _cached("train/", {**NAMED, "disabled": "no"})}, {}),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=f"approved-{id_}", family="component", tries=tries,
             rules=("code",), edits=edits, files={**CODE, **files}, policy=APPROVED)
        for id_, (tries, edits, files) in BY_HASH.items()
    ),
    *(
        Case(id=f"default-{id_}", family="component", tries=tries,
             rules=("code",), edits={name: {key: value for key, value in one.items()
                                            if key != "train/loss"}
                                     for name, one in edits.items()}, files=files)
        for id_, (tries, edits, files) in BY_HASH.items()
    ),
)  # fmt: skip

BENIGN: tuple[Case, ...] = tuple(
    Case(id=id_, family="benign", tries=tries, rules=(), edits=edits, files=CODE, policy=policy)
    for id_, tries, edits, policy in (
        ("approved-loss", "approved code alone", {TRAIN: OWN_LOSS}, APPROVED),
        ("approved-memory", "approved code with a cache in memory",
         {TRAIN: {**OWN_LOSS, "train/dataset/name": "CacheDataset"}}, APPROVED),
        ("approved-smart", "approved code with a cache that is refilled",
         {TRAIN: {**OWN_LOSS, "train/dataset/name": "SmartCacheDataset", "train/dataset/args":
                  {"transform": "@pre_transforms", "replace_rate": 0.2, "cache_num": 8}}},
         APPROVED),
        ("approved-unused", "approved code that no document names", {}, APPROVED),
        ("all-code-cache", "a cache on disk", {TRAIN: _cached("train/")}, ALL_CODE),
        ("all-code-cache-path", "the same by its path", {TRAIN: _cached("train/", BY_PATH)},
         ALL_CODE),
        ("all-code-cache-validation", "a cache on disk for the validation",
         {TRAIN: {**OWN_LOSS, **_cached("validate/")}}, ALL_CODE),
    )
)  # fmt: skip
