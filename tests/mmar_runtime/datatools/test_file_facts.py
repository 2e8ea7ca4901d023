"""Facts about files are kept by content: a changed file is read again, an unchanged one is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmar_runtime.datatools import file_facts
from mmar_runtime.datatools.file_facts import FileFacts, cache_of, sample
from mmar_runtime.datatools.volumes import open_volume
from mmar_runtime.errors import DataError

WriteVolume = Callable[..., Path]

LONG_AGO_NS = 10**18


@pytest.fixture
def file(tmp_path: Path, volume: WriteVolume) -> Path:
    """A label with 12 of 120 voxels."""
    voxels = np.zeros((6, 5, 4), np.uint8)
    voxels[1:4, 1:3, 1:3] = 1
    return aged(volume(tmp_path / "label.nii.gz", voxels))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache/facts.json"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels whose voxels were counted."""
    counted: list[str] = []
    count = file_facts.label_counts

    def counting(values: Any) -> dict[float, int]:
        counted.append("read")
        return count(values)

    monkeypatch.setattr(file_facts, "label_counts", counting)
    return counted


def aged(path: Path, changed_ns: int = LONG_AGO_NS) -> Path:
    os.utime(path, ns=(changed_ns, changed_ns))
    return path


def counts(file: Path, cache: Path | None) -> Mapping[float, int]:
    """A run that asks for a label's values and keeps them."""
    facts = FileFacts(cache, worth_s=0)
    found = facts.counts(file, open_volume(file))
    facts.save()
    return found


def test_a_label_is_read_once(file: Path, cache: Path, read: list[str]) -> None:
    assert counts(file, cache) == {0: 108, 1: 12}
    assert counts(file, cache) == {0: 108, 1: 12}
    assert read == ["read"]


def test_a_label_that_was_touched_keeps_its_facts(file: Path, cache: Path, read: list[str]) -> None:
    counts(file, cache)
    aged(file, LONG_AGO_NS + 1)
    assert counts(file, cache) == {0: 108, 1: 12}
    assert read == ["read"]


def test_a_label_that_has_changed_is_read_again(
    file: Path, cache: Path, volume: WriteVolume
) -> None:
    counts(file, cache)
    aged(volume(file, np.zeros((6, 5, 4), np.uint8)), LONG_AGO_NS + 1)
    assert counts(file, cache) == {0: 120}


def test_a_label_written_a_moment_ago_is_not_trusted(
    file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_facts.time, "time_ns", lambda: LONG_AGO_NS + 1)
    counts(file, cache)
    size = file.stat().st_size
    content = bytearray(file.read_bytes())
    content[9] ^= 1  # the system that packed it, in the header of gzip
    file.write_bytes(content)
    aged(file)

    assert file.stat().st_size == size
    digests = [FileFacts(cache).digest(file), json.loads(cache.read_text())]
    assert digests[0] not in [record["digest"] for record in digests[1].values()]


def test_a_fault_is_kept_as_well(
    tmp_path: Path, cache: Path, read: list[str], volume: WriteVolume
) -> None:
    image = np.arange(6 * 5 * 200, dtype=np.float32).reshape(6, 5, 200)
    file = aged(volume(tmp_path / "image.nii.gz", image))
    for _ in range(2):
        facts = FileFacts(cache, worth_s=0)
        with pytest.raises(DataError, match="more than 4096 different values"):
            facts.counts(file, open_volume(file))
        facts.save()
    assert read == ["read"]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"size": 1}}', "{" * 9])
def test_a_broken_cache_is_no_cache(file: Path, cache: Path, content: str) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    assert counts(file, cache) == {0: 108, 1: 12}


def test_a_cache_that_cannot_be_written_is_no_fault(file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file in place of the folder")
    assert counts(file, tmp_path / "taken/facts.json") == {0: 108, 1: 12}


def test_the_cache_names_no_file(file: Path, cache: Path) -> None:
    counts(file, cache)
    assert "label" not in cache.read_text()
    assert cache.stat().st_mode & 0o77 == 0


def test_facts_that_took_no_time_are_not_kept(file: Path, cache: Path) -> None:
    facts = FileFacts(cache)
    facts.counts(file, open_volume(file))
    facts.save()
    assert not cache.exists()


def test_each_data_list_has_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = cache_of(Path("a.json")), cache_of(Path("b.json"))
    assert one is not None
    assert one.parent == tmp_path / "mmar-fl/data"
    assert one != other


def test_equal_samples_may_be_copies(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(10**6))
    other.write_bytes(bytes(10**6))
    assert sample(one) == sample(other)
    other.write_bytes(bytes(5 * 10**5) + b"x" + bytes(5 * 10**5 - 1))
    assert sample(one) != sample(other)
