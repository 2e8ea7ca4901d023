"""The state of a site after its last two rounds is in files, so that a new process goes on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fl_client.memory.stored_rounds import StoredRounds
from mmar_runtime.errors import CheckpointError


def test_a_round_goes_on_from_the_newest_state_before_it(tmp_path: Path) -> None:
    stored = StoredRounds(tmp_path / "stored")
    assert stored.newest(before=1) == 0

    for number in (1, 2, 5):  # the site was missing in rounds 3 and 4
        stored.write(number, {"moments": torch.full((2,), float(number))})

    assert [stored.newest(number) for number in (2, 3, 5, 6, math.inf)] == [0, 2, 2, 5, 5]
    assert stored.read(5)["moments"].tolist() == [5.0, 5.0]


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    StoredRounds(tmp_path / "stored").write(1, {})

    assert (tmp_path / "stored").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "stored/round-1.pt").stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    stored = StoredRounds(tmp_path)
    stored.write(1, {"moments": torch.zeros(100)})
    whole = (tmp_path / "round-1.pt").read_bytes()
    (tmp_path / "round-1.pt").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(CheckpointError, match=r"round-1\.pt' cannot be read"):
        stored.read(1)


def test_other_files_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "round-0.pt").touch()
    (tmp_path / ".round-1.pt.5f.tmp").touch()

    assert StoredRounds(tmp_path).newest(before=9) == 0
