"""Tensors of sites that wait: within a bound in memory, beyond it in files."""

from __future__ import annotations

from pathlib import Path

import torch

from fl_client.simulation.set_aside import SetAside


def test_within_the_bound_nothing_is_written(tmp_path: Path) -> None:
    tensors = [torch.ones(10)]

    SetAside(40).put("site-1", tensors, tmp_path / "a")

    assert list(tmp_path.iterdir()) == []
    assert tensors[0].sum() == 10


def test_beyond_it_the_numbers_go_and_come_back_in_the_same_objects(tmp_path: Path) -> None:
    aside = SetAside(0)
    tensors = [torch.randn(3, 4), torch.tensor(7), torch.zeros(0), torch.randn(4, 3).t()]
    before = [tensor.clone() for tensor in tensors]
    held = list(tensors)

    aside.put("site-1", tensors, tmp_path / "a")
    assert [tensor.numel() for tensor in held] == [0, 0, 0, 0]
    aside.take("site-1", tmp_path / "a")

    for tensor, expected in zip(held, before, strict=True):
        assert torch.equal(tensor, expected)
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)


def test_the_bound_is_for_all_sites_together(tmp_path: Path) -> None:
    aside = SetAside(100)
    sites = {name: [torch.ones(10)] for name in ("a", "b", "c")}

    for name, tensors in sites.items():
        aside.put(name, tensors, tmp_path / name)

    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_taking_what_stayed_changes_nothing(tmp_path: Path) -> None:
    SetAside(100).take("site-1", tmp_path / "not there")
