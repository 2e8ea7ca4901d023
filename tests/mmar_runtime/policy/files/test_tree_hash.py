"""The hash of a folder covers names and contents of all files, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.files.tree_hash import tree_hash


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "custom"
    (root / "networks").mkdir(parents=True)
    (root / "own_loss.py").write_text("a = 1\n")
    (root / "networks/unet.py").write_text("b = 2\n")
    return root


def test_it_stays_the_same_over_time_place_and_permissions(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    os.utime(copy / "own_loss.py", (0, 0))
    (copy / "own_loss.py").chmod(0o755)
    (copy / "empty").mkdir()

    assert tree_hash(copy) == tree_hash(folder)
    assert tree_hash(folder) == tree_hash(folder)


def swap(folder: Path) -> None:
    (folder / "own_loss.py").write_text("b = 2\n")
    (folder / "networks/unet.py").write_text("a = 1\n")


def flatten(folder: Path) -> None:
    (folder / "networks/unet.py").rename(folder / "networks_unet.py")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "own_loss.py").write_text("a = 1 \n"),
        lambda folder: (folder / "own_loss.py").rename(folder / "own_loss2.py"),
        lambda folder: (folder / "more.py").write_text(""),
        lambda folder: (folder / ".hidden").write_text(""),
        lambda folder: (folder / "networks/unet.py").unlink(),
        swap,
        flatten,
    ],
)
def test_every_change_of_a_file_changes_it(folder: Path, change: Callable[[Path], object]) -> None:
    before = tree_hash(folder)

    change(folder)

    assert tree_hash(folder) != before


def test_names_cannot_be_shifted_into_contents(tmp_path: Path) -> None:
    """Two folders whose names and contents are the same text when put together."""
    one, other = tmp_path / "one", tmp_path / "other"
    for root, name in ((one, "a\nb"), (other, "a")):
        root.mkdir()
        (root / name).write_text("x")
    (other / "b").write_text("x")

    assert tree_hash(one) != tree_hash(other)


def test_files_that_do_not_count_are_left_out_wherever_they_lie(folder: Path) -> None:
    before = tree_hash(folder)
    (folder / "networks/.__nvfl_sig.json").write_text("{}")

    assert tree_hash(folder, leave_out=(".__nvfl_sig.json",)) == before
    assert tree_hash(folder) != before


@pytest.mark.parametrize("name", ["link.py", "networks/link"])
@pytest.mark.parametrize("target", ["own_loss.py", "networks", "/etc/hostname", "nowhere"])
def test_a_link_has_no_hash(folder: Path, name: str, target: str) -> None:
    """What it leads to can change after the approval."""
    (folder / name).symlink_to(target)

    with pytest.raises(ConfigError, match="is not a plain file"):
        tree_hash(folder)


def test_a_pipe_has_no_hash(folder: Path) -> None:
    os.mkfifo(folder / "pipe.py")

    with pytest.raises(ConfigError, match=r"pipe\.py: is not a plain file"):
        tree_hash(folder)


def test_a_folder_that_is_a_link_or_is_not_there_has_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)

    for path in (tmp_path / "link", tmp_path / "nowhere", folder / "own_loss.py"):
        with pytest.raises(ConfigError, match="is not a folder"):
            tree_hash(path)
