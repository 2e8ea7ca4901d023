"""Networks from files: rebuilt from what the file or the MMAR says, or TorchScript."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.components.network import (
    network_from_file,
    other_preparation,
    other_weights,
)
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.nodes import WeightsFile
from mmar_runtime.errors import CheckpointError, ConfigError, WeightsError
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, weights_of, write_checkpoint

Edited = Callable[[Path, Callable[[Any], object]], Path]

CPU = torch.device("cpu")
SIZES = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "strides": [2]}
CONF = {"train": {"model": {"name": "UNet", "args": {**SIZES, "channels": [2, 4]}}}}
"""Not the network of the tiny MMAR's own config, which has 4 and 8 channels."""


def unet(*channels: int) -> UNet:
    return UNet(**SIZES, channels=channels)


def loaded(root: Path, kind: str = "ckpt_path", *, allow_code: bool = False) -> torch.nn.Module:
    torchscript = kind == "ts_path"
    overrides = {"dont_load_ts_model": not torchscript, "dont_load_ckpt_model": torchscript}
    config = load_evaluation_config(Mmar.open(root), overrides=overrides)
    assert isinstance(config.model, WeightsFile)
    context = BuildContext(device=CPU, allow_code=allow_code)
    return network_from_file(config.model, config, context)


# --- Checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_brings_its_own_network(tiny_mmar: Path) -> None:
    network = unet(2, 4)
    write_checkpoint(tiny_mmar / "models/model.pt", weights_of(network), CONF)
    assert digest(weights_of(loaded(tiny_mmar))) == digest(weights_of(network))


def test_bare_weights_take_the_network_of_the_mmars_own_config(tiny_mmar: Path) -> None:
    network = unet(4, 8)
    torch.save(network.state_dict(), tiny_mmar / "models/model.pt")
    assert digest(weights_of(loaded(tiny_mmar))) == digest(weights_of(network))


def test_an_old_train_conf_is_translated(tiny_mmar: Path) -> None:
    network, conf = unet(2, 4), copy.deepcopy(CONF)
    arguments = conf["train"]["model"]["args"]
    arguments["dimensions"] = arguments.pop("spatial_dims")
    write_checkpoint(tiny_mmar / "models/model.pt", weights_of(network), conf)
    assert digest(weights_of(loaded(tiny_mmar))) == digest(weights_of(network))


def test_weights_that_do_not_fit_the_train_conf_are_refused(tiny_mmar: Path) -> None:
    write_checkpoint(tiny_mmar / "models/model.pt", weights_of(unet(4, 8)), CONF)
    with pytest.raises(WeightsError, match=r"model\.pt' *do not fit|shape"):
        loaded(tiny_mmar)


def test_without_any_config_nothing_says_what_the_network_is(tiny_mmar: Path) -> None:
    torch.save(unet(4, 8).state_dict(), tiny_mmar / "models/model.pt")
    (tiny_mmar / "config/config_train.json").unlink()
    with pytest.raises(CheckpointError, match="carries no train_conf"):
        loaded(tiny_mmar)


@pytest.mark.parametrize("conf", [{}, {"train": {}}, {"train": []}])
def test_a_train_conf_without_network_is_refused(tiny_mmar: Path, conf: Any) -> None:
    write_checkpoint(tiny_mmar / "models/model.pt", weights_of(unet(4, 8)), conf)
    with pytest.raises(CheckpointError, match=r"without train\.model"):
        loaded(tiny_mmar)


def test_a_train_conf_is_held_against_the_table(tiny_mmar: Path) -> None:
    conf = copy.deepcopy(CONF)
    conf["train"]["model"]["args"]["chanels"] = [2, 4]
    write_checkpoint(tiny_mmar / "models/model.pt", weights_of(unet(2, 4)), conf)
    with pytest.raises(ConfigError, match=r"model\.pt: train_conf\.args\.chanels: .*unknown"):
        loaded(tiny_mmar)


def test_a_train_conf_that_asks_for_code_is_refused(tiny_mmar: Path) -> None:
    conf = {"train": {"model": {"path": "os.system", "args": {"command": "true"}}}}
    write_checkpoint(tiny_mmar / "models/model.pt", weights_of(unet(2, 4)), conf)
    with pytest.raises(ConfigError, match=r"'os\.system' is code that this site has not allowed"):
        loaded(tiny_mmar)


def test_a_missing_checkpoint_is_named(tiny_mmar: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file of weights '.*models/model\.pt'"):
        loaded(tiny_mmar)


# --- TorchScript ---------------------------------------------------------------------------------


def traced(path: Path) -> UNet:
    network = unet(2, 4).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 1, 8, 8, 8)).save(path)
    return network


def test_torchscript_gives_the_numbers_of_the_network_it_was_made_from(tiny_mmar: Path) -> None:
    network = traced(tiny_mmar / "models/model.ts")
    image = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        found = loaded(tiny_mmar, "ts_path", allow_code=True)(image)
        assert torch.equal(found, network(image))


def test_torchscript_is_code_and_refused_where_code_is_not_allowed(tiny_mmar: Path) -> None:
    traced(tiny_mmar / "models/model.ts")
    with pytest.raises(CheckpointError, match="TorchScript, which is code"):
        loaded(tiny_mmar, "ts_path")


def test_a_missing_torchscript_file_says_how_to_use_a_checkpoint(tiny_mmar: Path) -> None:
    with pytest.raises(CheckpointError, match="--set dont_load_ts_model=True"):
        loaded(tiny_mmar, "ts_path", allow_code=True)


def test_a_file_that_is_no_torchscript_is_refused(tiny_mmar: Path) -> None:
    (tiny_mmar / "models/model.ts").write_bytes(b"no TorchScript")
    with pytest.raises(CheckpointError, match=r"model\.ts' is not TorchScript"):
        loaded(tiny_mmar, "ts_path", allow_code=True)


# --- An export beside its checkpoint -------------------------------------------------------------


def test_an_export_of_other_weights_is_told(tiny_mmar: Path, tmp_path: Path) -> None:
    network, trained_on = unet(4, 8), unet(4, 8)
    exported, checkpoint = tmp_path / "model.ts", tmp_path / "model.pt"
    exported.touch()
    os.utime(exported, (1, 1))

    assert other_weights(network, exported, checkpoint) == ""  # nothing to compare it with
    write_checkpoint(checkpoint, weights_of(network), CONF)
    assert other_weights(network, exported, checkpoint) == ""
    write_checkpoint(checkpoint, weights_of(trained_on), CONF)
    assert other_weights(network, exported, checkpoint) == (
        f"{exported} is older than {checkpoint} and holds other weights; these results are those "
        "of model.ts. 'mmar export' makes it of model.pt again"
    )


def test_images_that_were_prepared_otherwise_when_the_weights_were_trained(
    tiny_mmar: Path, edited: Edited
) -> None:
    config = load_evaluation_config(Mmar.open(tiny_mmar))
    train_conf = load_train_config(Mmar.open(tiny_mmar)).as_json()
    assert list(other_preparation(train_conf, Path("model.pt"), config)) == []

    steps = train_conf["validate"]["pre_transforms"]
    index = next(i for i, step in enumerate(steps) if step["name"] == "ScaleIntensityd")
    steps[index]["args"]["maxv"] = 2.0
    [difference] = other_preparation(train_conf, Path("model.pt"), config)
    assert difference.startswith(
        "images are prepared otherwise than in training (model.pt: "
        f"train_conf.validate.pre_transforms[{index}]): ScaleIntensityd with maxv its default in "
        "place of 2.0"
    )
