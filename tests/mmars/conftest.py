"""The MMARs beside this file, copied to a place of their own, with data and a shell.

Fixtures:
    mmar          ``mmar("gan") -> InstalledMmar``: a copy, whose commands run as they are written.
    lasting_mmar  the same, for all tests of a module.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MMARS = Path(__file__).resolve().parent

collect_ignore_glob = ["*/custom/*"]  # code of the MMARs, no tests

OBLIQUE = (
    (-0.8, 0.0, 0.0, 12.0),
    (0.0, 0.0, 1.2, -7.0),
    (0.0, 1.0, 0.0, 3.0),
    (0.0, 0.0, 0.0, 1.0),
)
"""Voxels of 0.8 x 1 x 1.2 mm; the axes run to the left, to the top and to the front."""

SLANTED = (
    (-0.8, 0.1, 0.3, 12.0),
    (0.1, 0.96, 0.05, -7.0),
    (0.16, -0.06, 1.4, 3.0),
    (0.0, 0.0, 0.0, 1.0),
)
"""Voxels of 0.82 x 0.97 x 1.43 mm, whose axes are along none of the world's."""

STRAIGHT = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledMmar:
    """A copy of an MMAR.

    Attributes:
        options: what its commands get in ``additional_options``, besides a test's own.
    """

    root: Path
    options: str = ""

    def run(self, script: str, *words: str, options: str = "", **variables: str) -> str:
        """What a command prints to stdout and stderr; the test fails if the command does."""
        python = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",  # the networks are too small for more
            "additional_options": f"{self.options} {options}",
            **variables,
        }
        done = subprocess.run(
            ["bash", f"commands/{script}", *words],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def json(self, file: str) -> Any:
        return json.loads((self.root / file).read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def commands_start_warm(warm: None) -> None:
    """Have ``python3`` of the commands forked from a Python that has torch and MONAI loaded."""


@pytest.fixture
def mmar(tmp_path: Path) -> Callable[[str], InstalledMmar]:
    """``mmar(name)``: a copy of that MMAR with its data."""
    return partial(_install, tmp_path)


@pytest.fixture(scope="module")
def lasting_mmar(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], InstalledMmar]:
    """The same for all tests of a module."""
    return partial(_install, tmp_path_factory.mktemp("mmars"))


def _install(folder: Path, name: str) -> InstalledMmar:
    root = folder / name
    shutil.copytree(MMARS / name, root)
    return INSTALL[name](root)


# --- Data ----------------------------------------------------------------------------------------

CASES = {"training": 4, "validation": 2, "test": 1}


def with_blobs(
    root: Path,
    *,
    shape: tuple[int, ...] = (16, 16, 16),
    affine: Sequence[Sequence[float]] = STRAIGHT,
    classes: int = 2,
    lists: Mapping[str, int] = CASES,
    file: str = "data/dataset.json",
) -> InstalledMmar:
    """NIfTI volumes with a bright blob, and a brighter one in it for each further class."""
    import nibabel

    def write(path: Path, volume: Any) -> None:
        nibabel.save(nibabel.Nifti1Image(volume, np.array(affine)), path)

    def case(name: str, random: np.random.Generator) -> dict[str, str]:
        label = np.zeros(shape, dtype=np.uint8)
        for value in range(1, classes):
            margins = [min(2 + 2 * value, 3 * size // 8) for size in shape]
            label[tuple(slice(margin, -margin) for margin in margins)] = value
        image = (random.normal(0, 20, size=shape) + 100 * label).astype(np.int16)
        write(root / "data" / f"{name}_image.nii.gz", image)
        write(root / "data" / f"{name}_label.nii.gz", label)
        return {"image": f"{name}_image.nii.gz", "label": f"{name}_label.nii.gz"}

    return _with_cases(root, case, lists, file)


def with_halves(root: Path) -> InstalledMmar:
    """PNG images whose brighter half is the left one (0) or the right one (1)."""
    from PIL import Image

    def case(name: str, random: np.random.Generator) -> dict[str, Any]:
        side = int(name[-1]) % 2
        image = random.integers(0, 100, size=(40, 36), dtype=np.uint8)
        image[:, 18 * side : 18 * (side + 1)] += 100
        Image.fromarray(image).save(root / "data" / f"{name}.png")
        return {"image": f"{name}.png", "label": side}

    return _with_cases(root, case, {"training": 8, "validation": 4, "test": 4})


FINDINGS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 0, 0), (1, 1, 1))


def with_findings(root: Path) -> InstalledMmar:
    """PNG images in colour: each of three findings is a bright third, and a number of the label."""
    from PIL import Image

    def case(name: str, random: np.random.Generator) -> dict[str, Any]:
        findings = FINDINGS[int(name[-1])]
        image = random.integers(0, 100, size=(30, 36, 3), dtype=np.uint8)
        for number, present in enumerate(findings):
            image[10 * number : 10 * (number + 1)] += np.uint8(120 * present)
        Image.fromarray(image).save(root / "data" / f"{name}.png")
        return {"image": f"{name}.png", "label": list(findings)}

    lists = {"training": 6, "validation": 5, "test": 2}
    _with_cases(root, case, lists, "config/dataset_0.json")
    return InstalledMmar(root=root, options=f"DATA_ROOT={root / 'data'}")


def with_pictures(root: Path) -> InstalledMmar:
    """Arrays of 16 x 16 pixels with a bright square, and the square as a label."""

    def case(name: str, random: np.random.Generator) -> dict[str, str]:
        row, column = random.integers(1, 9, size=2)
        label = np.zeros((16, 16), dtype=np.float32)
        label[row : row + 6, column : column + 6] = 1
        image = label + random.normal(0, 0.1, size=label.shape).astype(np.float32)
        np.save(root / "data" / f"{name}_image.npy", image)
        np.save(root / "data" / f"{name}_label.npy", label)
        return {"image": f"{name}_image.npy", "label": f"{name}_label.npy"}

    return _with_cases(root, case, CASES)


def _with_cases(
    root: Path,
    case: Callable[[str, np.random.Generator], dict[str, Any]],
    lists: Mapping[str, int],
    file: str = "data/dataset.json",
) -> InstalledMmar:
    """Write the cases and the data list; those of the list ``test`` are images alone."""
    (root / "data").mkdir()
    random = np.random.default_rng(0)
    document: dict[str, list[Any]] = {
        key: [case(f"{key}_{number}", random) for number in range(count)]
        for key, count in lists.items()
    }
    document["test"] = [item["image"] for item in document.get("test", [])]
    (root / file).write_text(json.dumps(document), encoding="utf-8")
    return InstalledMmar(root=root)


def _segmentation_3d(root: Path) -> InstalledMmar:
    with_blobs(root, shape=(20, 18, 16), affine=OBLIQUE)
    data = root / "data"
    return InstalledMmar(root=root, options=f"DATA_ROOT={data} DATASET_JSON={data}/dataset.json")


def _segmentation_3d_v4_0(root: Path) -> InstalledMmar:
    with_blobs(root, affine=np.diag([1.0, 1.0, 1.2, 1.0]).tolist(), file="config/dataset_0.json")
    return InstalledMmar(root=root, options=f"DATA_ROOT={root / 'data'}")


def _multi_class_v4_1(root: Path) -> InstalledMmar:
    with_blobs(root, shape=(20, 18, 16), affine=SLANTED, classes=4)
    data = root / "data"
    return InstalledMmar(root=root, options=f"DATA_ROOT={data} DATASET_JSON={data}/dataset.json")


INSTALL: Mapping[str, Callable[[Path], InstalledMmar]] = {
    "segmentation_3d": _segmentation_3d,
    "segmentation_3d_v4_0": _segmentation_3d_v4_0,
    "multi_class_v4_1": _multi_class_v4_1,
    "classification_2d": with_halves,
    "classification_2d_v4_0": with_findings,
    "click_training": with_pictures,
    "own_components": with_blobs,
    "own_workflow": lambda root: InstalledMmar(root=root),
    "gan": with_pictures,
    "ensemble": lambda root: with_blobs(
        root, lists={"fold_0": 2, "fold_1": 2, "validation": 2, "test": 0}
    ),
    "fine_tuning": with_blobs,
    "multi_class_slices": lambda root: with_blobs(root, shape=(16, 16, 4), classes=3),
}
