"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from mmar_runtime.errors import StorageError
from mmar_runtime.files import (
    ends_digest,
    flush_below,
    make_folder_to_write,
    storage_fault,
    storage_text,
    write_atomically,
    write_text_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def open_to_the_group() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_the_file_holds_what_was_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "model.pt", lambda stream: stream.write(b"weights"))
    assert (tmp_path / "model.pt").read_bytes() == b"weights"
    assert names(tmp_path) == ["model.pt"]


def test_text_is_utf_8(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "report.txt", "mean Dice ≥ 0.9")
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == "mean Dice ≥ 0.9"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "eval" / "site-1" / "metrics.json", "{}")
    assert (tmp_path / "eval" / "site-1" / "metrics.json").read_text() == "{}"


def test_until_the_new_file_is_complete_the_old_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def write(stream: IO[bytes]) -> None:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"


def test_what_is_not_flushed_at_once_can_be_flushed_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: flushed.append(os.readlink(f"/proc/self/fd/{number}"))
    )

    for name in ("first", "last"):
        write_atomically(tmp_path / name, lambda stream: stream.write(b"weights"), flush=False)
    assert flushed == []

    flush_below(tmp_path)
    assert sorted(flushed) == [str(tmp_path), str(tmp_path / "first"), str(tmp_path / "last")]


@pytest.mark.parametrize("interruption", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, interruption: BaseException
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def write(stream: IO[bytes]) -> None:
        stream.write(b"half of the new")
        raise interruption

    with pytest.raises(type(interruption)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.pt"]


def test_an_interrupted_first_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "model.pt", lambda _: 1 / 0)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("open_to_the_group")
def test_permissions_are_those_of_an_ordinary_new_file(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "ours", "")
    (tmp_path / "ordinary").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")]
    assert modes == [0o640, 0o640]
    assert os.umask(0o027) == 0o027  # reading the mask has not changed it


def test_a_private_file_was_never_anybody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    replace = os.replace

    def seen(source: str, target: Path) -> None:
        modes.append(os.stat(source).st_mode & 0o777)
        replace(source, target)

    monkeypatch.setattr(os, "replace", seen)

    write_text_atomically(tmp_path / "environment.json", "{}", private=True)

    assert modes == [0o600]


def test_a_folder_to_write_is_made_or_its_name_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mmar/models"
    for _ in range(2):
        make_folder_to_write(folder)
    assert folder.is_dir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere

    with pytest.raises(PermissionError, match="Permission denied") as caught:
        make_folder_to_write(folder)

    assert caught.value.filename == str(folder)


def test_a_full_disk_is_told_with_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(_: IO[bytes]) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904  # as torch.save does

    with pytest.raises(StorageError, match=r"model\.pt': No space left on device\n    Free some"):
        write_atomically(tmp_path / "model.pt", fill)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_by_its_text_too() -> None:
    handed_on = (
        "SaveImage cannot find a suitable writer\n[Errno 28] No space left on device: '/a'\n"
    )

    fault = storage_fault(RuntimeError(handed_on))
    assert fault is not None
    assert storage_text(fault, fault.filename).startswith("'/a': No space left on device\n")
    assert storage_fault(RuntimeError("[Errno 2] No such file or directory: '/a'")) is None


def test_ends_tell_a_changed_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 200_000)
    other.write_bytes(b"a" * 199_999 + b"b")

    assert ends_digest(one) == ends_digest(one)
    assert ends_digest(one) != ends_digest(other)
    assert ends_digest(tmp_path) == b""
