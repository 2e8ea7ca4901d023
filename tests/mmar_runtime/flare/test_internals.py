"""Each part of NVFlare that is not its public API is still as this project uses it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.app_opt.pt.lazy_tensor_dict import LazyTensorDict
from nvflare.app_opt.pt.tensor_downloader import TensorDownloadable
from nvflare.fuel.utils.fobs.datum import DatumManager
from safetensors.torch import save_file

from mmar_runtime.flare.internals import CALLS, VALUES


def found(path: str) -> Any:
    """What stands at ``module:name.name`` today."""
    module, _, names = path.partition(":")
    value: Any = importlib.import_module(module)
    for name in names.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("path", "names"),
    [(f"{module}:{name}", names) for module in CALLS for name, names in CALLS[module].items()],
)
def test_nvflare_still_takes_these_parameters(path: str, names: str) -> None:
    assert set(names.split()) <= inspect.signature(found(path)).parameters.keys()


@pytest.mark.parametrize("path", VALUES)
def test_nvflare_still_has_this_value(path: str) -> None:
    assert found(path) == VALUES[path]


def test_a_downloadable_still_has_its_tensors_by_name() -> None:
    tensors = {"w": torch.ones(2)}
    downloadable = TensorDownloadable(tensors, 1024)

    assert list(downloadable.keys) == ["w"]
    assert downloadable.base_obj is tensors


def test_a_tensor_in_a_file_still_tells_its_path(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    items = LazyTensorDict({"w": (str(tmp_path / "w.safetensors"), "w")}, str(tmp_path))

    assert Path(items.make_lazy_ref("w").file_path) == tmp_path / "w.safetensors"


def test_a_message_still_has_its_context() -> None:
    assert DatumManager(fobs_ctx={"a": 1}).fobs_ctx == {"a": 1}
