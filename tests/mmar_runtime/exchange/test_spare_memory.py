"""Memory comes back when nobody has a tensor any more, and never before."""

from __future__ import annotations

import pytest
import torch

from mmar_runtime.exchange.spare_memory import LEAST, SpareMemory

SIZE = LEAST  # bytes


def like(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(2, SIZE // 2 // dtype.itemsize, dtype=dtype)


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_a_tensor_that_is_gone_leaves_its_memory_to_the_next_one() -> None:
    spare = SpareMemory(SIZE)
    first = spare.empty_like(like())
    where = place(first)
    del first

    second = spare.empty_like(like(torch.int64))  # as many bytes, other numbers

    assert place(second) == where
    assert (second.dtype, second.shape) == (torch.int64, like(torch.int64).shape)


@pytest.mark.parametrize(
    "kept",
    [
        lambda tensor: tensor.view(-1)[5:7],
        lambda tensor: tensor.detach(),
        lambda tensor: tensor.numpy()[0],
        lambda tensor: torch.from_numpy(tensor.numpy()),
        lambda tensor: torch.nn.Parameter(tensor),
    ],
    ids=["view", "detached", "array", "tensor of an array", "parameter"],
)
def test_whoever_has_a_part_of_it_keeps_it(kept: object) -> None:
    spare = SpareMemory(10 * SIZE)
    tensor = spare.empty_like(like())
    where = place(tensor)
    part = kept(tensor)  # type: ignore[operator]  # one of the functions above
    del tensor

    assert spare.bytes == 0
    other = spare.empty_like(like())
    assert place(other) != where

    del part
    assert spare.bytes == SIZE


def test_what_comes_back_beyond_the_bound_is_given_up() -> None:
    spare = SpareMemory(2 * SIZE)
    tensors = [spare.empty_like(like()) for _ in range(3)]
    places = {place(one) for one in tensors}
    tensors.clear()

    assert spare.bytes == 2 * SIZE
    again = [spare.empty_like(like()) for _ in range(2)]
    assert {place(one) for one in again} < places
    assert spare.bytes == 0


def test_small_tensors_are_left_to_the_allocator() -> None:
    spare = SpareMemory(10 * SIZE)
    for shape in ((), (0,), (3, 2)):
        tensor = spare.empty_like(torch.empty(shape))
        assert tensor.shape == shape
    del tensor

    assert spare.bytes == 0
