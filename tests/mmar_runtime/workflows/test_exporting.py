"""What is exported answers as the checkpoint's network does, or there is no file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet

from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    MmarError,
    WeightsError,
)
from mmar_runtime.mmar import Mmar
from mmar_runtime.results import EXPORT_SUFFIXES, ExportFormat, ExportResult
from mmar_runtime.weights import weights_of, write_checkpoint
from mmar_runtime.workflows import exporting
from mmar_runtime.workflows.evaluation import evaluate
from mmar_runtime.workflows.exporting import export

SHAPE = (1, 1, 16, 16, 16)
FORMATS: list[ExportFormat] = ["torchscript", "torch_export", "onnx"]
ONNX_TOLERANCE = 1e-5

OWN_NETWORKS = """
import torch


class _Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(3.0))


class Unscriptable(_Scaled):
    def forward(self, image):
        return {**{"pred": self.scale * image}}["pred"]


class Deciding(_Scaled):
    def forward(self, image):
        scaled = {**{"pred": self.scale * image}}["pred"]
        return scaled + 1 if image.sum() > 0 else scaled


class OneAtATime(_Scaled):
    def forward(self, image):
        if image.shape[0] != 1:
            raise ValueError("one at a time")
        return self.scale * image


class SeveralHeads(_Scaled):
    def forward(self, image):
        return self.scale * image, [image + self.scale, image - self.scale]


class InWords(_Scaled):
    def forward(self, image):
        return f"{self.scale * image}"


class Infinite(_Scaled):
    def forward(self, image):
        return self.scale * image / 0
"""

Exported = Callable[..., ExportResult]


def own_checkpoint(root: Path, *, scale: float = 3.0) -> None:
    torch.save({"scale": torch.tensor(scale)}, root / "models" / "model.pt")


def edit_train(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = root / "config" / "config_train.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def unet(**changes: Any) -> UNet:
    """The network of the tiny MMAR, in evaluation mode, with weights drawn from a fixed seed."""
    arguments = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8],
        "strides": [2],
        **changes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network: UNet = UNet(**arguments).eval()
    return network


@pytest.fixture
def root(tiny_mmar: Path) -> Path:
    """The tiny MMAR with a checkpoint of bare weights."""
    torch.save(weights_of(unet()), tiny_mmar / "models" / "model.pt")
    return tiny_mmar


@pytest.fixture
def exported(root: Path) -> Exported:
    """``exported(format, ...)``: export the MMAR's checkpoint to ``models/model.*``."""

    def run(format: ExportFormat = "torchscript", **changes: Any) -> ExportResult:
        arguments: dict[str, Any] = {
            "model_path": root / "models" / "model.pt",
            "output_path": root / "models" / f"model{EXPORT_SUFFIXES[format]}",
            "input_shape": SHAPE,
            "verify": True,
            "allow_code": False,
            **changes,
        }
        return export(load_train_config(Mmar.open(root)), format=format, **arguments)

    return run


@pytest.fixture
def own_network(root: Path) -> Iterator[Callable[[str], None]]:
    """``own_network(name)``: the MMAR trains a network of its own code, with a scale of 3."""

    def use(name: str) -> None:
        (root / "custom").mkdir(exist_ok=True)
        (root / "custom" / "own_networks.py").write_text(OWN_NETWORKS, encoding="utf-8")
        model = {"path": f"own_networks.{name}"}
        edit_train(root, lambda document: document["train"].update(model=model))
        own_checkpoint(root)

    path = list(sys.path)
    yield use
    sys.modules.pop("own_networks", None)
    sys.path[:] = path


def answer(format: ExportFormat, path: Path, image: torch.Tensor) -> torch.Tensor:
    """What a file answers to an image, asked as somebody without this project would."""
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        [found] = session.run(["pred"], {"image": image.numpy()})
        return torch.from_numpy(found)
    with torch.no_grad():
        if format == "torch_export":
            return torch.export.load(path).module()(image)
        return torch.jit.load(path)(image)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- The file answers as the network does ---------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_answers_as_the_network(
    exported: Exported, root: Path, format: ExportFormat
) -> None:
    result = exported(format)

    image = torch.rand(SHAPE)
    with torch.no_grad():
        expected = unet()(image)
    tolerance = ONNX_TOLERANCE if format == "onnx" else 0.0
    found = answer(format, result.path, image)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)
    assert result.path == root / "models" / f"model{EXPORT_SUFFIXES[format]}"
    assert result.verified
    assert result.max_difference is not None
    assert result.max_difference <= tolerance
    assert result.notices == ()


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_takes_other_batches_than_the_one_it_was_tested_with(
    exported: Exported, format: ExportFormat
) -> None:
    result = exported(format)

    images = torch.rand((3, *SHAPE[1:]))
    with torch.no_grad():
        expected = unet()(images)
    torch.testing.assert_close(
        answer(format, result.path, images), expected, rtol=0.0, atol=ONNX_TOLERANCE
    )
    assert result.method == ("script" if format == "torchscript" else "dynamic_batch")


def test_an_exported_network_evaluates_as_its_checkpoint(exported: Exported, root: Path) -> None:
    exported()

    def metrics(*, torchscript: bool) -> dict[str, float]:
        overrides = {"dont_load_ts_model": not torchscript, "dont_load_ckpt_model": torchscript}
        config = load_evaluation_config(Mmar.open(root), overrides=overrides)
        return dict(evaluate(config, allow_code=True).metrics)

    assert metrics(torchscript=True) == metrics(torchscript=False)


def test_the_same_checkpoint_gives_the_same_report(exported: Exported) -> None:
    assert exported("onnx") == exported("onnx")


def test_the_callers_random_numbers_stay(exported: Exported) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)

    torch.manual_seed(7)
    exported()

    assert torch.equal(torch.rand(1), expected)


def test_without_verification_no_shape_is_needed(exported: Exported) -> None:
    result = exported(verify=False, input_shape=None)

    assert result.path.is_file()
    assert (result.verified, result.max_difference, result.input_shape) == (False, None, None)


def test_the_shape_of_the_network_summary_serves_as_input_shape(
    exported: Exported, root: Path
) -> None:
    summary = {"network": "@model", "input_size": [2, 1, 8, 8, 8]}
    edit_train(root, lambda document: document.update(network_summary=summary))

    assert exported(input_shape=None).input_shape == (2, 1, 8, 8, 8)


def test_a_result_is_plain_values_for_json(exported: Exported, root: Path) -> None:
    assert json.loads(json.dumps(exported().as_dict())) == {
        "path": str(root / "models" / "model.ts"),
        "format": "torchscript",
        "method": "script",
        "verified": True,
        "max_difference": 0.0,
        "input_shape": list(SHAPE),
        "notices": [],
    }


# --- Networks of the MMAR's own code --------------------------------------------------------------


def test_what_cannot_be_scripted_is_traced(
    exported: Exported, own_network: Callable[[str], None]
) -> None:
    own_network("Unscriptable")

    result = exported(allow_code=True)

    assert result.method == "trace"
    assert "cannot be scripted" in result.notices[0]
    assert len(result.notices) == 1
    assert torch.equal(answer("torchscript", result.path, torch.ones(SHAPE)), 3 * torch.ones(SHAPE))


def test_what_a_trace_has_fixed_is_told(
    exported: Exported, own_network: Callable[[str], None]
) -> None:
    own_network("Deciding")

    notices = exported(allow_code=True).notices

    assert "the network decides something by its input" in notices[1]


def test_tracing_needs_a_shape(
    exported: Exported, own_network: Callable[[str], None], root: Path
) -> None:
    own_network("Unscriptable")

    with pytest.raises(ConfigError, match="to trace the network, which cannot be scripted"):
        exported(allow_code=True, input_shape=None, verify=False)
    assert files(root / "models") == ["model.pt"]


def test_a_batch_size_that_the_network_fixes_is_told(
    exported: Exported, own_network: Callable[[str], None]
) -> None:
    own_network("OneAtATime")

    result = exported("torch_export", allow_code=True)

    assert result.method == "fixed_shape"
    assert "takes only [1, 1, 16, 16, 16]" in result.notices[0]


@pytest.mark.parametrize("format", FORMATS)
def test_every_tensor_of_an_answer_is_compared(
    exported: Exported, own_network: Callable[[str], None], format: ExportFormat
) -> None:
    own_network("SeveralHeads")

    assert exported(format, allow_code=True).max_difference == 0.0


def test_an_answer_without_tensors_is_refused(
    exported: Exported, own_network: Callable[[str], None], root: Path
) -> None:
    own_network("InWords")

    with pytest.raises(ComponentError, match="the network answers with a str"):
        exported(allow_code=True)
    assert files(root / "models") == ["model.pt"]


@pytest.mark.parametrize("verify", [True, False])
def test_a_network_without_finite_values_is_no_result(
    exported: Exported, own_network: Callable[[str], None], root: Path, verify: bool
) -> None:
    own_network("Infinite")

    if verify:
        with pytest.raises(CheckpointError, match="values that are not finite"):
            exported(allow_code=True)
    else:
        exported(allow_code=True, verify=False)
    assert (root / "models" / "model.ts").exists() is not verify


def test_code_of_the_mmar_is_refused_where_it_is_not_allowed(
    exported: Exported, own_network: Callable[[str], None]
) -> None:
    own_network("Unscriptable")

    with pytest.raises(ConfigError, match="code that this site has not allowed"):
        exported(allow_code=False)


# --- Which network it is --------------------------------------------------------------------------


def test_a_checkpoint_that_names_the_configs_network_is_nothing_to_tell(
    exported: Exported, root: Path
) -> None:
    config = load_train_config(Mmar.open(root))
    write_checkpoint(root / "models" / "model.pt", weights_of(unet()), config.as_json())

    assert exported().notices == ()


def test_the_network_that_the_weights_were_trained_with_wins(
    exported: Exported, root: Path
) -> None:
    """The weights fit both networks; but the activation changes what they mean."""
    config = load_train_config(Mmar.open(root)).as_json()
    config["train"]["model"]["args"]["act"] = "relu"
    trained = unet(act="relu")
    write_checkpoint(root / "models" / "model.pt", weights_of(trained), config)
    edit_train(root, lambda document: document["train"]["model"]["args"].update(act="selu"))

    result = exported()

    image = torch.rand(SHAPE)
    with torch.no_grad():
        assert torch.equal(answer("torchscript", result.path, image), trained(image))
    [notice] = result.notices
    assert notice == (
        "model.pt was trained with another network than config_train.json names; its own is "
        "exported. They differ in: model.args.act"
    )


def test_a_train_conf_without_a_network_leaves_it_to_the_config(
    exported: Exported, root: Path
) -> None:
    write_checkpoint(root / "models" / "model.pt", weights_of(unet()), {"epochs": 2})

    assert exported().verified


def test_a_network_that_nobody_names_is_missed(exported: Exported, root: Path) -> None:
    (root / "config" / "config_train.json").write_text(
        json.dumps({"train": {"trainer": {"path": "own.Trainer"}}}), encoding="utf-8"
    )

    with pytest.raises(ConfigError, match=r"train\.model: is missing, and model\.pt does not say"):
        exported(allow_code=True)


def test_weights_that_do_not_fit_name_their_tensors(exported: Exported, root: Path) -> None:
    torch.save(weights_of(unet(out_channels=3)), root / "models" / "model.pt")

    with pytest.raises(WeightsError, match=r"model\.2.*: shape .* given"):
        exported()
    assert files(root / "models") == ["model.pt"]


def test_a_missing_checkpoint_is_named(exported: Exported, root: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file of weights .*nowhere\.pt"):
        exported(model_path=root / "models" / "nowhere.pt")


# --- Whole or not at all --------------------------------------------------------------------------


def off_by(amount: float) -> dict[str, Callable[[Path, torch.Tensor], Any]]:
    """Runners whose answer is wrong by this much."""

    def wrong(format: ExportFormat) -> Callable[[Path, torch.Tensor], Any]:
        return lambda path, image: answer(format, path, image) + amount

    return {format: wrong(format) for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_answers_otherwise_is_not_written(
    exported: Exported, root: Path, monkeypatch: pytest.MonkeyPatch, format: ExportFormat
) -> None:
    monkeypatch.setattr(exporting, "RUNNERS", off_by(0.5))

    with pytest.raises(CheckpointError, match=r"differs from the network by up to 0\.5; allowed"):
        exported(format)
    assert files(root / "models") == ["model.pt"]


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (torch.zeros(1, 2, 8, 8, 8), "answers with shapes"),
        (torch.full((1, 2, 16, 16, 16), float("nan")), "differs from the network by up to nan"),
        (RuntimeError("no such operator"), "cannot be run .* no such operator"),
    ],
)
def test_whatever_else_is_wrong_with_a_file_keeps_it_away(
    exported: Exported,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    answered: torch.Tensor | Exception,
    message: str,
) -> None:
    def run(path: Path, image: torch.Tensor) -> torch.Tensor:
        if isinstance(answered, Exception):
            raise answered
        return answered

    monkeypatch.setattr(exporting, "RUNNERS", {"torchscript": run})

    with pytest.raises(CheckpointError, match=message):
        exported()
    assert files(root / "models") == ["model.pt"]


def test_a_failed_export_leaves_the_earlier_file(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported().path
    before = path.read_bytes()
    monkeypatch.setattr(exporting, "RUNNERS", off_by(0.5))

    with pytest.raises(CheckpointError, match="Nothing was written"):
        exported()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("interruption", "error"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError("disk is full"), CheckpointError)],
)
def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    exported: Exported,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruption: BaseException,
    error: type[BaseException],
) -> None:
    old = root / "models" / "model.ts"
    old.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise interruption

    monkeypatch.setattr(os, "replace", fail)

    with pytest.raises(error):
        exported()
    assert old.read_bytes() == b"old"
    assert files(root / "models") == ["model.pt", "model.ts"]


@pytest.mark.parametrize(
    ("name", "message"), [("model.pt", "is the checkpoint itself"), (".", "is a folder")]
)
def test_a_file_that_must_not_be_replaced_stays(
    exported: Exported, root: Path, name: str, message: str
) -> None:
    before = (root / "models" / "model.pt").read_bytes()

    with pytest.raises(ConfigError, match=message):
        exported(output_path=root / "models" / name)
    assert (root / "models" / "model.pt").read_bytes() == before


def test_a_new_folder_is_made_for_the_file(exported: Exported, root: Path) -> None:
    assert exported(output_path=root / "exports" / "first" / "net.bin").path.is_file()


# --- Shapes and packages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 2, 16, 16, 16), "to have 1 channels, but got 2 channels"),
        ((1, 1, 16, 16), "RuntimeError"),
        ((1, 1, 10**6, 10**6, 10**6), "allocate"),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_shape_that_the_network_refuses_is_told_with_its_words(
    exported: Exported, root: Path, shape: tuple[int, ...], says: str, verify: bool
) -> None:
    with pytest.raises(ConfigError) as refused:
        exported(input_shape=shape, verify=verify)

    assert f"refuses an input of shape {list(shape)}" in str(refused.value)
    assert says in str(refused.value)
    assert files(root / "models") == ["model.pt"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_shape_that_is_needed_is_asked_for(exported: Exported, format: ExportFormat) -> None:
    with pytest.raises(ConfigError, match=r"input_shape: is needed .*\n.*--input_shape"):
        exported(format, input_shape=None)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_its_extra(
    exported: Exported, root: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigError, match=rf"'{package}'.*\n.*mmar-fl\[onnx\]"):
        exported("onnx")
    assert files(root / "models") == ["model.pt"]


def test_the_runtime_is_needed_for_the_comparison_only(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    assert not exported("onnx", verify=False).verified


def test_weights_too_large_for_one_onnx_file_are_refused(
    exported: Exported, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch puts them into a second file, which nobody would move along."""

    def save(path: Path, **_: object) -> None:
        path.write_bytes(b"")
        path.with_suffix(".onnx.data").write_bytes(b"")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(save=save))

    with pytest.raises(ComponentError, match="too large for one ONNX file"):
        exported("onnx")
    assert files(root / "models") == ["model.pt"]


def test_what_an_exporter_cannot_do_is_told(
    exported: Exported, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("\nno operator of that name\nand pages more")

    monkeypatch.setattr(torch.onnx, "export", fail)

    with pytest.raises(MmarError, match=r"UNet cannot be exported as onnx: .*no operator of that"):
        exported("onnx")
    assert files(root / "models") == ["model.pt"]
