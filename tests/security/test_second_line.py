"""Behind the check: what it would have refused does not run either when it is built or opened."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmar_runtime.errors import CheckpointError
from mmar_runtime.weights import read_checkpoint
from tests.security.case import REPOSITORY

EACH = 5
"""One in so many cases is built here; ``python -m tests.security.building`` builds all."""

BUILD = f"""
import json
from tests.security.building import CASES, build_all
for outcome in build_all(CASES[::{EACH}]):
    print(json.dumps(outcome), flush=True)
"""


@pytest.mark.slow
def test_a_hostile_workflow_is_refused_by_the_loader_or_the_builder() -> None:
    command = [sys.executable, "-W", "ignore", "-c", BUILD]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(outcomes) > 60
    assert [one for one in outcomes if one["executed"] or one["leaked"]] == []
    assert [one for one in outcomes if not one["came"].startswith("refused by the ")] == []


# --- Weights -------------------------------------------------------------------------------------


class Payload:
    """What a pickle runs when it is loaded: it makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _archived(pickled: bytes, name: str = "archive/data.pkl") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, pickled)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
    return stream.getvalue()


def _saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _script(_: Path) -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), stream)
    return stream.getvalue()


def _safetensors(header: bytes, length: int | None = None) -> Callable[[Path], bytes]:
    return lambda marker: struct.pack("<Q", len(header) if length is None else length) + header


FILES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "bare pickle": (".pt", lambda marker: pickle.dumps(Payload(marker))),
    "pickle of an old protocol": (".pt", lambda marker: pickle.dumps(Payload(marker), 0)),
    "pickle among weights": (
        ".pt",
        lambda marker: _archived(pickle.dumps({"model": Payload(marker)}, 2)),
    ),
    "pickle in an array": (".pt", lambda marker: _archived(pickle.dumps([Payload(marker)], 2))),
    "weights beside a pickle": (
        ".pth",
        lambda marker: _saved({"model": {"w": torch.ones(1)}, "x": Payload(marker)}),
    ),
    "a whole network": (".pt", lambda marker: _saved(torch.nn.Linear(1, 1))),
    "a function": (".pt", lambda marker: _saved({"model": {"w": os.system}})),
    "TorchScript": (".pt", _script),
    "weights that are none": (".pt", lambda marker: _saved({"model": {"w": "text"}})),
    "a list": (".pt", lambda marker: _saved([1, 2])),
    "half a file": (".pt", lambda marker: _saved({"model": {"w": torch.ones(99)}})[:300]),
    "no file of weights": (".pt", lambda marker: b"#!/bin/sh\n"),
    "nothing": (".pt", lambda marker: b""),
    "a pickle called safetensors": (".safetensors", lambda marker: pickle.dumps(Payload(marker))),
    "a header of 8 EiB": (".safetensors", _safetensors(b"{}", 2**63)),
    "a header that is no JSON": (".safetensors", _safetensors(b"x" * 20)),
    "a tensor behind the end": (
        ".safetensors",
        _safetensors(b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    ),
    "a tensor of a terabyte": (
        ".safetensors",
        _safetensors(b'{"w":{"dtype":"F32","shape":[274877906944],"data_offsets":[0,4]}}'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")  # torch warns of some of them, and then refuses
def test_a_hostile_file_of_weights_is_refused_without_running_anything(
    name: str, tmp_path: Path
) -> None:
    suffix, make = FILES[name]
    marker = tmp_path / "marker"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(make(marker))

    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not marker.exists()


def test_the_payload_would_be_seen(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))  # noqa: S301

    assert (tmp_path / "marker").exists()


def test_sound_weights_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(_saved({"model": {"w": torch.ones(2)}, "train_conf": {"epochs": 1}}))

    assert read_checkpoint(path).weights["w"].tolist() == [1.0, 1.0]
