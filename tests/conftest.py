"""A tiny MMAR for every test that needs one, and the reasons for which a test is skipped.

Fixtures:
    tiny_mmar    an MMAR with its own data, ready to train: ``train(load(tiny_mmar))``.
    make_mmar    ``make_mmar(folder) -> folder`` writes another one, for tests with several sites.
    edited       ``edited(path, change) -> path`` changes a JSON document in place.
    free_port    a port to listen on.
    warm         processes that a test starts, and those that these start, have torch and MONAI
                 loaded from the beginning (tests/warm).
    he_keys      contents of the key files of a federation that encrypts: of a site, of its server.

Nothing here imports torch: a test of the configuration must not wait for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

import tests.warm
from mmar_runtime.metrics import MetricValue

# One thread for sums in each process of the tests: their networks are tiny, several tests run at a
# time, and threads that wait for each other waste two thirds of the processor. Read by torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A property that is slow on a busy machine is no less true; all else as hypothesis has it here.
settings.register_profile(
    "no-deadline", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("no-deadline")

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE_DOCUMENTS = REPOSITORY.parent / "shared"

SIDE = 16
"""Voxels along each axis of a volume."""

TRAINING_CASES = ("case_1", "case_2")
VALIDATION_CASES = ("case_3",)

MakeMmar = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]


# --- Which tests run here ------------------------------------------------------------------------


# The reference documents and data are no part of the project: a clone has none and passes without.
# What these tests try on real files, others try on documents and volumes of our own.
WITHOUT_DOCUMENTS = pytest.mark.skip(
    reason="reads ../shared, which lies beside some checkouts; the project does without it"
)
# The project has to build and pass on machines without a GPU, as most are. The same code runs there
# on the CPU in every test of training; what these add is that tensors come to the other device.
WITHOUT_GPU = pytest.mark.skip(
    reason="no CUDA device; the project has to build and pass without one"
)


FIRST = ("security", "federation", "end_to_end")
"""Folders whose files take minutes: a worker that began with them last would leave others idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine lacks, and begin with what takes long.

    torch is asked for a GPU only if a test wants one.
    """
    items.sort(key=_turn)
    for item in items:
        if item.get_closest_marker("shared") and not REFERENCE_DOCUMENTS.is_dir():
            item.add_marker(WITHOUT_DOCUMENTS)
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(WITHOUT_GPU)


def _turn(item: pytest.Item) -> int:
    folder = next(iter(item.path.relative_to(REPOSITORY).parts[1:]), "")
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


# --- Fixtures ------------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    """A port of this machine to listen on.

    It lies below those that the system gives to outgoing connections: one of another test could
    take it before the process that is told of it does.
    """
    for port in range(20_000 + os.getpid() % 12_000, 32_768):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Path]:
    """The program of a Python whose processes start with torch and MONAI loaded."""
    with tests.warm.warm_python() as program:
        yield program


@pytest.fixture(scope="module")
def warm(warm_python: Path) -> Iterator[None]:
    """``sys.executable`` is the warm Python, for this module and for the processes that it starts.

    Processes that the kernel confines start others from scratch: these have to be confined as well.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(warm_python))
        patch.setenv("WARM_PYTHON", "1")
        yield


@pytest.fixture(scope="session")
def open_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default policy, but that the kernel does not confine the processes of a run."""
    path = tmp_path_factory.mktemp("policy") / "mmar_site_policy.json"
    path.write_text(json.dumps({"policy_version": 1, "confinement": "off"}))
    return path


@pytest.fixture(scope="session")
def he_keys() -> tuple[bytes, bytes]:
    """Keys as ``mmar simulate`` draws them."""
    from fl_admin.kits.he_builder import new_keys

    return new_keys()


@pytest.fixture
def tiny_mmar(tmp_path: Path) -> Path:
    """The root of an MMAR that trains for two epochs on two cases of 16x16x16 voxels."""
    return write_mmar(tmp_path / "mmar")


@pytest.fixture
def make_mmar() -> MakeMmar:
    """``make_mmar(folder, seed=0)``: the same MMAR in another folder; the seed makes its images."""
    return write_mmar


@pytest.fixture
def edited() -> Edited:
    """``edited(path, change)``: ``change`` gets the document's dict and alters it in place.

    Example: ``edited(root / "config/config_train.json", lambda conf: conf.update(epochs=1))``.
    """
    return edit_json


def edit_json(path: Path, change: Callable[[Any], object]) -> Path:
    """Load a JSON document, let ``change`` alter it in place, write it back; returns ``path``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    return write_json(path, document)


def write_json(path: Path, document: object) -> Path:
    """Write a JSON document with the folders that it needs; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return path


def metric(value: float | None, counted: int = 1, **more: Any) -> MetricValue:
    """Return a metric of so many cases; of ``None`` they have no value, unless it is withheld."""
    is_defined = value is not None or more.get("withheld", False)
    cases = {"counted": counted} if is_defined else {"counted": 0, "undefined": counted}
    return MetricValue(value=value, **{**cases, **more})


def plain_metric(value: Any, counted: Any = 1, **more: Any) -> dict[str, Any]:
    """Return the same as it travels, without a check: tests spoil it."""
    is_defined = value is not None or more.get("withheld", False)
    cases = {"counted" if is_defined else "undefined": counted}
    return {**metric(None, 0).as_dict(), "value": value, **cases, **more}


def as_it_leaves(metrics: Any) -> Any:
    """Return the metrics in a document as the default policy lets them out."""
    from mmar_runtime.exchange.metric_messages import metrics_from
    from mmar_runtime.exchange.plain import to_plain
    from mmar_runtime.policy.site_policy import DEFAULT_POLICY

    return to_plain(DEFAULT_POLICY.rounded(metrics_from(metrics)))


def command_line(process: psutil.Process) -> str:
    """Return the words that started a process; empty for a process that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def processes_of(folder: Path) -> list[psutil.Process]:
    """Find the processes that name a folder in their command line, except this process."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and str(folder) in command_line(process)
    ]


# --- The tiny MMAR -------------------------------------------------------------------------------


def write_mmar(root: Path, *, seed: int = 0) -> Path:
    """Write an MMAR with data, no weights: ``config/``, ``data/`` and an empty ``models/``."""
    config = root / "config"
    write_json(config / "environment.json", environment(root))
    write_json(config / "config_train.json", train_document())
    weights_files = [
        {"ts_path": "{MMAR_TORCHSCRIPT}", "disabled": "{dont_load_ts_model}"},
        {"ckpt_path": "{MMAR_CKPT}", "disabled": "{dont_load_ckpt_model}"},
    ]
    write_json(config / "config_validation.json", evaluation_document(weights_files))
    write_json(config / "config_cross_validation.json", evaluation_document(network()))
    (root / "models").mkdir()
    write_data(root / "data", seed=seed)
    return root


def write_data(folder: Path, *, seed: int = 0) -> None:
    """Write the cases as NIfTI volumes, 1 mm a voxel, and the data list that names them."""
    import nibabel
    import numpy as np

    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for case in (*TRAINING_CASES, *VALIDATION_CASES):
        image = random.integers(-100, 100, size=(SIDE, SIDE, SIDE), dtype=np.int16)
        label = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
        label[4:10, 4:10, 4:10] = 1
        image[label == 1] += 150
        for name, volume in (("image", image), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{case}_{name}.nii.gz")
    lists = {"training": TRAINING_CASES, "validation": VALIDATION_CASES}
    document: dict[str, Any] = {
        key: [{"image": f"{case}_image.nii.gz", "label": f"{case}_label.nii.gz"} for case in cases]
        for key, cases in lists.items()
    }
    document["test"] = [f"{case}_image.nii.gz" for case in VALIDATION_CASES]
    write_json(folder / "dataset.json", document)


def site_values(root: Path, **more: Any) -> dict[str, Any]:
    """The own values of a site that keeps its data in an MMAR's ``data``, one thread for sums.

    Sums over several threads may differ in the last bits between two processes.
    """
    data = root / "data"
    own = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")}
    return {"NUM_THREADS": 1, **own, **more}


def with_more_cases(root: Path) -> Path:
    """Repeat the volumes of an MMAR: four cases to train on, three to validate."""
    names = {"training": "1 2 4 5", "validation": "3 6 7"}
    for key, source in ("4", "1"), ("5", "2"), ("6", "1"), ("7", "2"):
        for kind in ("image", "label"):
            data = root / "data"
            shutil.copy(data / f"case_{source}_{kind}.nii.gz", data / f"case_{key}_{kind}.nii.gz")

    def change(lists: Any) -> None:
        for key, cases in names.items():
            lists[key] = [
                {kind: f"case_{case}_{kind}.nii.gz" for kind in ("image", "label")}
                for case in cases.split()
            ]

    edit_json(root / "data/dataset.json", change)
    return root


def environment(root: Path) -> dict[str, Any]:
    """``environment.json``: the data lie inside the MMAR; everything else as Clara has it."""
    return {
        "DATA_ROOT": str(root / "data"),
        "DATASET_JSON": "data/dataset.json",
        "PROCESSING_TASK": "segmentation",
        "TRAIN_DATALIST_KEY": "training",
        "VAL_DATALIST_KEY": "validation",
        "MMAR_EVAL_OUTPUT_PATH": "eval",
        "MMAR_CKPT_DIR": "models",
        "MMAR_CKPT": "models/model.pt",
        "MMAR_TORCHSCRIPT": "models/model.ts",
    }


def network() -> dict[str, Any]:
    """A UNet of two levels: one channel in, background and foreground out."""
    return {
        "name": "UNet",
        "args": {
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "channels": [4, 8],
            "strides": [2],
        },
    }


def train_document() -> dict[str, Any]:
    """``config_train.json``: two epochs, a validation after each, both CheckpointSavers."""
    return {
        "epochs": 2,
        "num_interval_per_valid": 1,
        "learning_rate": 0.01,
        "amp": False,
        "determinism": {"random_seed": 0},
        "dont_load_ckpt_model": True,
        "train": {
            "loss": {"name": "DiceLoss", "args": {"to_onehot_y": True, "softmax": True}},
            "optimizer": {
                "name": "Adam",
                "args": {"params": "#@model.parameters()", "lr": "{learning_rate}"},
            },
            "lr_scheduler": {
                "name": "StepLR",
                "args": {"optimizer": "@optimizer", "step_size": 1, "gamma": 0.5},
            },
            "model": network(),
            "pre_transforms": [
                {"name": "LoadImaged", "args": {"keys": ["image", "label"]}},
                {"name": "EnsureChannelFirstd", "args": {"keys": ["image", "label"]}},
                {"name": "ScaleIntensityd", "args": {"keys": "image"}},
                {
                    "name": "RandCropByPosNegLabeld",
                    "args": {
                        "keys": ["image", "label"],
                        "label_key": "label",
                        "spatial_size": [8, 8, 8],
                        "num_samples": 1,
                    },
                },
                {"name": "EnsureTyped", "args": {"keys": ["image", "label"]}},
            ],
            **_data("TRAIN_DATALIST_KEY", shuffle=True),
            "inferer": {"name": "SimpleInferer"},
            "handlers": [
                {
                    "name": "CheckpointLoader",
                    "disabled": "{dont_load_ckpt_model}",
                    "args": {"load_path": "{MMAR_CKPT}", "load_dict": {"model": "@model"}},
                },
                {"name": "LrScheduleHandler", "args": {"lr_scheduler": "@lr_scheduler"}},
                {
                    "name": "ValidationHandler",
                    "args": {
                        "validator": "@evaluator",
                        "epoch_level": True,
                        "interval": "{num_interval_per_valid}",
                    },
                },
                {
                    "name": "CheckpointSaver",
                    "rank": 0,
                    "args": {
                        "save_dir": "{MMAR_CKPT_DIR}",
                        "save_dict": {
                            "model": "@model",
                            "optimizer": "@optimizer",
                            "lr_scheduler": "@lr_scheduler",
                            "train_conf": "@conf",
                        },
                        "save_final": True,
                    },
                },
                {
                    "name": "StatsHandler",
                    "rank": 0,
                    "args": {
                        "tag_name": "train_loss",
                        "output_transform": "#monai.handlers.from_engine(['loss'], first=True)",
                    },
                },
            ],
            "post_transforms": [
                {"name": "Activationsd", "args": {"keys": "pred", "softmax": True}},
                {
                    "name": "AsDiscreted",
                    "args": {"keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 2},
                },
            ],
            "trainer": {
                "name": "SupervisedTrainer",
                "args": {
                    "max_epochs": "{epochs}",
                    "train_data_loader": "@dataloader",
                    "network": "@model",
                    "loss_function": "@loss",
                    "optimizer": "@optimizer",
                    "inferer": "@inferer",
                    "postprocessing": "@post_transforms",
                    "train_handlers": "@handlers",
                    "amp": "{amp}",
                },
            },
        },
        "validate": {
            "pre_transforms": [
                {"ref": "LoadImaged"},
                {"ref": "EnsureChannelFirstd"},
                {"ref": "ScaleIntensityd"},
                {"ref": "EnsureTyped"},
            ],
            **_data("VAL_DATALIST_KEY", shuffle=False),
            "inferer": _sliding_window(),
            "handlers": [
                {"name": "StatsHandler", "rank": 0, "args": {"output_transform": "lambda x: None"}},
                {
                    "name": "CheckpointSaver",
                    "rank": 0,
                    "args": {
                        "save_dir": "{MMAR_CKPT_DIR}",
                        "save_dict": {"model": "@model", "train_conf": "@conf"},
                        "save_key_metric": True,
                    },
                },
            ],
            "post_transforms": [{"ref": "Activationsd"}, {"ref": "AsDiscreted"}],
            **_metrics(),
            "evaluator": _evaluator(),
        },
    }


def evaluation_document(model: object) -> dict[str, Any]:
    """``config_validation.json`` for a ``model`` entry: a component, or a list of weights files."""
    return {
        "amp": False,
        "dont_load_ts_model": True,
        "dont_load_ckpt_model": False,
        "model": model,
        "pre_transforms": [
            {"name": "LoadImaged", "args": {"keys": ["image", "label"]}},
            {"name": "EnsureChannelFirstd", "args": {"keys": ["image", "label"]}},
            {"name": "ScaleIntensityd", "args": {"keys": "image"}},
            {"name": "EnsureTyped", "args": {"keys": ["image", "label"]}},
        ],
        **_data("VAL_DATALIST_KEY", shuffle=False),
        "inferer": _sliding_window(),
        "handlers": [
            {
                "name": "CheckpointLoader",
                "disabled": "{dont_load_ckpt_model}",
                "args": {"load_path": "{MMAR_CKPT}", "load_dict": {"model": "@model"}},
            },
            {
                "name": "MetricsSaver",
                "args": {
                    "save_dir": "{MMAR_EVAL_OUTPUT_PATH}",
                    "metrics": ["val_mean_dice", "val_acc"],
                    "metric_details": ["val_mean_dice"],
                    "batch_transform": "#monai.handlers.from_engine(['image_meta_dict'])",
                    "summary_ops": "*",
                },
            },
        ],
        "post_transforms": [
            {"name": "Activationsd", "args": {"keys": "pred", "softmax": True}},
            {
                "name": "AsDiscreted",
                "args": {"keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 2},
            },
        ],
        **_metrics(),
        "evaluator": _evaluator(),
    }


def _data(list_key: str, *, shuffle: bool) -> dict[str, Any]:
    return {
        "dataset": {
            "name": "Dataset",
            "data_list_file_path": "{DATASET_JSON}",
            "data_file_base_dir": "{DATA_ROOT}",
            "data_list_key": f"{{{list_key}}}",
            "args": {"transform": "@pre_transforms"},
        },
        "dataloader": {
            "name": "DataLoader",
            "args": {"dataset": "@dataset", "batch_size": 1, "shuffle": shuffle, "num_workers": 0},
        },
    }


def _sliding_window() -> dict[str, Any]:
    args = {"roi_size": [8, 8, 8], "sw_batch_size": 1, "overlap": 0.0}
    return {"name": "SlidingWindowInferer", "args": args}


def _metrics() -> dict[str, Any]:
    pred_and_label = "#monai.handlers.from_engine(['pred', 'label'])"
    return {
        "key_metric": {
            "name": "MeanDice",
            "log_label": "val_mean_dice",
            "args": {"include_background": False, "output_transform": pred_and_label},
        },
        "additional_metrics": [
            {
                "name": "Accuracy",
                "log_label": "val_acc",
                "args": {"output_transform": pred_and_label},
            }
        ],
    }


def _evaluator() -> dict[str, Any]:
    return {
        "name": "SupervisedEvaluator",
        "args": {
            "val_data_loader": "@dataloader",
            "network": "@model",
            "inferer": "@inferer",
            "postprocessing": "@post_transforms",
            "key_val_metric": "@key_metric",
            "additional_metrics": "@additional_metrics",
            "val_handlers": "@handlers",
            "amp": "{amp}",
        },
    }
