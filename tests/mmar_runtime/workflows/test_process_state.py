"""What of a process a run depends on, taken out and put back."""

from __future__ import annotations

import random

import numpy as np
import torch

from mmar_runtime.workflows.process_state import ProcessState


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), torch.rand(()).item()


def test_every_random_source_goes_on_where_it_was() -> None:
    state = ProcessState.now()
    expected = drawn()
    drawn()

    state.restore()

    assert drawn() == expected


def test_threads_and_flags_are_what_they_were() -> None:
    before = ProcessState.now()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        flipped = torch.backends.cudnn.benchmark

        before.restore()

        assert torch.get_num_threads() == threads
        assert torch.backends.cudnn.benchmark is not flipped
    finally:
        before.restore()
