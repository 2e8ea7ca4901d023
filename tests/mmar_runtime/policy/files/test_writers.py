"""Whether a group that may write to a file is one user's own."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmar_runtime.policy.files import writers


@pytest.mark.parametrize(
    ("group", "group_name", "members", "user_group", "own"),
    [
        (1000, "alice", [], 1000, True),
        (1000, "alice", ["alice"], 1000, True),
        (1000, "alice", ["alice", "bob"], 1000, False),
        (1000, "lab", [], 1000, False),
        (1000, "alice", [], 100, False),
        (0, "alice", [], 0, False),  # root's
    ],
)
def test_a_group_is_ones_own_if_it_was_made_for_that_user(
    monkeypatch: pytest.MonkeyPatch,
    group: int,
    group_name: str,
    members: list[str],
    user_group: int,
    own: bool,
) -> None:
    user = SimpleNamespace(pw_name="alice", pw_gid=user_group)
    entry = SimpleNamespace(gr_name=group_name, gr_mem=members)
    monkeypatch.setattr(writers.pwd, "getpwuid", lambda _: user)
    monkeypatch.setattr(writers.grp, "getgrgid", lambda _: entry)

    assert writers._is_private(group, 1000) is own


def test_a_group_that_nobody_knows_is_not_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    tmp_path.chmod(0o770)
    monkeypatch.setattr(writers.grp, "getgrgid", unknown)

    assert writers.other_writers(tmp_path) == f"the group {os.stat(tmp_path).st_gid}"
    tmp_path.chmod(0o700)
    assert writers.other_writers(tmp_path) == ""
