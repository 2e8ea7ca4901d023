"""What ``mmar site setup`` says of a machine; stand-ins for what this one has not."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from fl_admin.kits.setup import machine
from fl_admin.kits.setup.finding import State
from fl_admin.kits.setup.kit import open_kit
from fl_admin.kits.setup.machine import GIB, check_disk, check_gpu
from tests.fl_admin.kits.setup.conftest import SITE, Federation

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install_smi(programs: Path, script: str) -> None:
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "nvidia-smi").chmod(0o700)


def test_no_gpu_is_no_fault(programs: Path) -> None:
    found = check_gpu(5)

    assert (found.state, found.advice) == (State.OK, "")
    assert found.message == f"no GPU: training runs on the CPU, {os.cpu_count()} cores"


@pytest.mark.parametrize(
    ("build", "state", "told"),
    [
        ("2.13.0+cu126", State.OK, "NVIDIA A100, 40960 MiB; NVIDIA A100, 40960 MiB; "),
        ("2.13.0+cpu", State.WARNING, "torch is built for the CPU and uses none of them"),
    ],
)
def test_gpus_are_named_and_torch_has_to_be_built_for_them(
    programs: Path, monkeypatch: pytest.MonkeyPatch, build: str, state: State, told: str
) -> None:
    install_smi(programs, "echo 'NVIDIA A100, 40960 MiB'; echo 'NVIDIA A100, 40960 MiB'")
    monkeypatch.setattr(machine, "version", lambda _: build)

    found = check_gpu(5)

    assert found.state is state
    assert told in found.message


@pytest.mark.parametrize("script", ["exit 9", "read -r line < /dev/zero"])
def test_a_driver_that_fails_or_hangs_is_told(programs: Path, script: str) -> None:
    install_smi(programs, script)

    found = check_gpu(0.5)

    assert found.state is State.WARNING
    assert "nvidia-smi does not say" in found.message


def test_a_driver_without_a_gpu(programs: Path) -> None:
    install_smi(programs, "exit 0")

    assert check_gpu(5).message.startswith("no GPU: ")


@pytest.mark.parametrize(
    ("free", "state"), [(0.5, State.FAULT), (5, State.WARNING), (50, State.OK)]
)
def test_room_on_the_disk(
    ours: Federation, monkeypatch: pytest.MonkeyPatch, free: float, state: State
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: Usage(0, 0, int(free * GIB)))

    found = check_disk(open_kit(ours.kit(SITE)))

    assert found.state is state
    assert found.message.startswith(f"{free:.1f} GiB free at ")
