"""What holds for a run: device, threads, seed and flags, put back when it is over."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import RuntimeSettings, TrainConfig
from mmar_runtime.errors import ConfigError, MmarError
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.session import choose_device, seed_everything, session

Edited = Callable[[Path, Callable[[Any], object]], Path]


def config_of(root: Path, **overrides: Scalar) -> TrainConfig:
    return load_train_config(Mmar.open(root), overrides=overrides)


def flags() -> tuple[object, ...]:
    return (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.get_num_threads(),
    )


@pytest.fixture(autouse=True)
def flags_are_put_back_whatever_fails() -> Iterator[None]:
    benchmark, deterministic, matmul, cudnn, threads = flags()
    yield
    torch.backends.cudnn.benchmark = bool(benchmark)
    torch.backends.cudnn.deterministic = bool(deterministic)
    torch.backends.cuda.matmul.allow_tf32 = bool(matmul)
    torch.backends.cudnn.allow_tf32 = bool(cudnn)
    torch.set_num_threads(int(str(threads)))


def drawn() -> list[float]:
    return [random.random(), float(np.random.random()), float(torch.rand(()))]


# --- Settings ------------------------------------------------------------------------------------


def test_settings_hold_during_the_run_and_are_put_back(tiny_mmar: Path) -> None:
    before = flags()
    config = config_of(tiny_mmar, cudnn_benchmark=True, tf32=True, NUM_THREADS=3)
    with session(config, allow_code=False):
        # a seed is given, so that cuDNN is deterministic
        assert flags() == (True, True, True, True, 3)
    assert flags() == before


def test_settings_are_put_back_when_the_run_fails(tiny_mmar: Path) -> None:
    before = flags()
    config = config_of(tiny_mmar, cudnn_benchmark=True, tf32=True, NUM_THREADS=3)
    with pytest.raises(ZeroDivisionError), session(config, allow_code=False):
        _ = 1 / 0
    assert flags() == before


def test_what_the_config_does_not_mention_is_left_alone(tiny_mmar: Path, edited: Edited) -> None:
    edited(tiny_mmar / "config/config_train.json", lambda conf: conf.pop("determinism"))
    torch.backends.cudnn.benchmark = True
    before = flags()
    with session(config_of(tiny_mmar), allow_code=False):
        assert flags() == before


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "two"])
def test_a_number_of_threads_that_is_none_is_refused(tiny_mmar: Path, threads: Scalar) -> None:
    before = flags()
    config = config_of(tiny_mmar, NUM_THREADS=threads)
    with (
        pytest.raises(ConfigError, match="--set: NUM_THREADS: has to be a positive whole number"),
        session(config, allow_code=False),
    ):
        pass
    assert flags() == before


def test_several_gpus_in_a_single_process_are_refused_with_the_way_out(tiny_mmar: Path) -> None:
    config = config_of(tiny_mmar, multi_gpu=True)
    with (
        pytest.raises(MmarError, match="run it with --set multi_gpu=False"),
        session(config, allow_code=False),
    ):
        pass


# --- Determinism ---------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_numbers_from_every_source(tiny_mmar: Path) -> None:
    found = []
    for _ in range(2):
        with session(config_of(tiny_mmar), allow_code=False):
            found.append(drawn())
    assert found[0] == found[1]


def test_another_seed_draws_other_numbers(tiny_mmar: Path, edited: Edited) -> None:
    with session(config_of(tiny_mmar), allow_code=False):
        first = drawn()
    edited(
        tiny_mmar / "config/config_train.json",
        lambda conf: conf["determinism"].update(random_seed=1),
    )
    with session(config_of(tiny_mmar), allow_code=False):
        second = drawn()
    assert all(one != other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 + 5])
def test_seed_everything_seeds_every_source(seed: int) -> None:
    seed_everything(seed)
    first = drawn()
    seed_everything(seed)
    assert drawn() == first


# --- Device and permissions ----------------------------------------------------------------------


def test_without_a_gpu_the_cpu_is_used_and_amp_is_off(
    tiny_mmar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with session(config_of(tiny_mmar, amp=True), allow_code=False) as context:
        assert (context.device, context.amp) == (torch.device("cpu"), False)


@pytest.mark.gpu
def test_with_a_gpu_it_is_used_and_amp_is_on(tiny_mmar: Path) -> None:
    with session(config_of(tiny_mmar, amp=True), allow_code=False) as context:
        assert (context.device.type, context.amp) == ("cuda", True)


def test_use_gpu_false_keeps_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(RuntimeSettings(use_gpu=False)) == torch.device("cpu")


@pytest.mark.parametrize("allowed", [True, False])
def test_permission_for_code_is_the_callers(tiny_mmar: Path, allowed: bool) -> None:
    with session(config_of(tiny_mmar), allow_code=allowed) as context:
        assert context.allow_code is allowed
