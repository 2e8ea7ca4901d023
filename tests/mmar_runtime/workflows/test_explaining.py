"""Exceptions from inside the engines become errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from mmar_runtime.components.images.case_errors import TransformError
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import CheckpointError, ComponentError, DataError, RunAborted
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.explaining import explained

Edited = Callable[[Path, Callable[[Any], object]], Path]

CROP = ValueError("The size of the proposed random crop ROI is larger than the image size.")
NO_READER = RuntimeError("LoadImaged cannot find a suitable reader for file: case_1.nii.gz.")


@pytest.fixture
def config(tiny_mmar: Path) -> TrainConfig:
    return load_train_config(Mmar.open(tiny_mmar))


def raised_from(cause: Exception) -> Exception:
    """As MONAI raises: the transform's name on top, the reason below it."""
    try:
        raise RuntimeError("applying transform <...>") from cause
    except RuntimeError as error:
        return error


def test_a_run_without_error_passes(config: TrainConfig) -> None:
    with explained(config):
        pass


@pytest.mark.parametrize("wrap", [lambda error: error, raised_from], ids=["bare", "below"])
def test_a_crop_that_is_too_large_names_its_place_and_the_ways_out(
    config: TrainConfig, wrap: Callable[[Exception], Exception]
) -> None:
    with pytest.raises(DataError) as raised, explained(config):
        raise wrap(CROP)
    assert str(raised.value).startswith(
        "config_train.json: train.pre_transforms[3].args.spatial_size: the crop is larger"
    )
    assert "Add SpatialPadd" in str(raised.value)


def test_a_crop_of_the_mmars_own_is_told_without_a_place(
    config: TrainConfig, tiny_mmar: Path, edited: Edited
) -> None:
    edited(
        tiny_mmar / "config/config_train.json", lambda conf: conf["train"]["pre_transforms"].pop(3)
    )
    config = load_train_config(Mmar.open(tiny_mmar))
    with (
        pytest.raises(DataError, match=r"^config_train\.json: the crop is larger"),
        explained(config),
    ):
        raise CROP


@pytest.mark.parametrize(
    "cause", [FileNotFoundError("case_1.nii.gz"), EOFError("case_1.nii.gz"), NO_READER]
)
def test_an_image_that_cannot_be_read_is_named(config: TrainConfig, cause: Exception) -> None:
    with (
        pytest.raises(DataError, match=r"an image cannot be read: .*case_1\.nii\.gz"),
        explained(config),
    ):
        raise raised_from(cause)


def test_what_an_own_component_does_not_find_is_no_image(config: TrainConfig) -> None:
    with pytest.raises(ComponentError, match=r"FileNotFoundError: own\.txt"), explained(config):
        raise FileNotFoundError("own.txt")


def test_an_image_that_cannot_be_read_while_a_cache_is_built_is_a_fault_of_the_data(
    config: TrainConfig,
) -> None:
    with pytest.raises(DataError, match=r"case_1\.nii\.gz"), explained(config):
        raise ComponentError("CacheDataset could not be built") from raised_from(NO_READER)


def test_a_transform_that_fails_while_a_cache_is_built_gets_its_remedy(
    config: TrainConfig,
) -> None:
    told = "config_train.json: train.pre_transforms[2]: X failed: KeyError: was missing in the data"
    with pytest.raises(ComponentError) as raised, explained(config):
        raise ComponentError("CacheDataset could not be built") from TransformError(told)
    assert str(raised.value).startswith(told)
    assert "entries of the data list" in str(raised.value)


def test_the_batch_at_work_is_named(config: TrainConfig) -> None:
    batch = {"image": MetaTensor(torch.ones(1), meta={"filename_or_obj": "a.nii"})}

    def fail(engine: Engine, batch: object) -> None:
        raise RuntimeError("expected scalar type Long but found Float")

    with pytest.raises(ComponentError) as raised, explained(config):
        Engine(fail).run([batch])
    place, files, advice = str(raised.value).splitlines()
    assert place.endswith("RuntimeError: expected scalar type Long but found Float")
    assert files == "    files: a.nii"
    assert "EnsureTyped" in advice


def test_of_an_error_in_a_data_worker_only_the_first_cause_is_told(config: TrainConfig) -> None:
    text = (
        "Caught RuntimeError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        '  File "transform.py", line 1, in apply\n'
        "ValueError: the size of the proposed random crop ROI is larger than the image size\n"
        "\nThe above exception was the direct cause of the following exception:\n\n"
        "RuntimeError: applying transform <...>\n"
    )
    with pytest.raises(DataError) as raised, explained(config):
        raise RuntimeError(text)
    assert "larger than a volume: ValueError: the size of the prop" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_any_other_error_names_its_module_and_keeps_its_cause(config: TrainConfig) -> None:
    with pytest.raises(ComponentError) as raised, explained(config):
        raise raised_from(ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError: division by zero" in str(raised.value)
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_the_module_is_the_one_in_which_the_error_arose(config: TrainConfig) -> None:
    with (
        pytest.raises(ComponentError, match=r"the run failed in json\.decoder: JSONDecodeError"),
        explained(config),
    ):
        json.loads("{")


@pytest.mark.parametrize(
    "error",
    [RunAborted("stopped"), CheckpointError("no file"), ComponentError("x"), KeyboardInterrupt()],
)
def test_our_own_errors_and_an_interruption_pass_as_they_are(
    config: TrainConfig, error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised, explained(config):
        raise error
    assert raised.value is error
