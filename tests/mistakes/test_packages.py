"""Packages and formats: what reads a file, what writes it, and what it is instead."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.mistakes.planting import VALIDATION, Mistake, Run, Workspace, assert_quiet
from tests.mistakes.test_fit import args, trained

IMAGE = "case_1_image.nii.gz"
NEEDS = {"reader of a package": "itk", "ending that ITK writes": "itk", "network": "torchvision"}
"""Mistakes that are none where the package is installed."""


def with_file(change: Callable[[Path], object]) -> Callable[[Workspace], list[str]]:
    """Spoil one image, and train."""

    def plant(workspace: Workspace) -> list[str]:
        change(workspace.masks / "data" / IMAGE)
        return workspace.train()

    return plant


def _renamed(workspace: Workspace) -> list[str]:
    """Take the ending .gz off a compressed file, and off its name in the list."""
    file = workspace.masks / "data" / IMAGE
    file.rename(file.with_suffix(""))
    workspace.edit(
        lambda lists: lists["training"][0].update(image=IMAGE.removesuffix(".gz")),
        "masks/data/dataset.json",
    )
    return workspace.train()


def _written_by_itk(workspace: Workspace) -> list[str]:
    saver: dict[str, Any] = {
        "keys": "pred",
        "output_dir": "{MMAR_EVAL_OUTPUT_PATH}",
        "output_ext": ".mhd",
    }
    workspace.edit(
        lambda conf: conf["post_transforms"].append({"name": "SaveImaged", "args": saver}),
        f"masks/config/{VALIDATION}",
    )
    return workspace.evaluate()


MISTAKES = (
    Mistake(
        name="reader of a package",
        plant=trained(lambda conf: args(conf["train"], "LoadImaged").update(reader="ITKReader")),
        place="config_train.json: train.pre_transforms[0].args.reader",
        remedy="pip install 'mmar-fl[itk]'",
    ),
    Mistake(
        name="reader that does not exist",
        plant=trained(lambda conf: args(conf["train"], "LoadImaged").update(reader="NiftiReader")),
        place="config_train.json: train.pre_transforms[0].args.reader",
        remedy="'NibabelReader'",
    ),
    Mistake(
        name="network",
        plant=trained(
            lambda conf: conf["train"].update(model={"path": "torchvision.models.resnet18"})
        ),
        place="config_train.json: train.model.path",
        remedy="pip install 'mmar-fl[torchvision]'",
    ),
    Mistake(
        name="package that is not there",
        plant=trained(lambda conf: conf["train"].update(model={"path": "no_such_package.Net"})),
        place="config_train.json: train.model.path",
        remedy="install its package into this environment",
    ),
    Mistake(
        name="ending that ITK writes",
        plant=_written_by_itk,
        place="config_validation.json: post_transforms[2].args.output_ext",
        remedy="pip install 'mmar-fl[itk]'",
    ),
    Mistake(
        name="compressed file without .gz",
        plant=_renamed,
        place="dataset.json: training[0].image",
        remedy="It is compressed: its name has to end with .nii.gz",
    ),
    Mistake(
        name="file that is not compressed",
        plant=with_file(lambda file: file.write_bytes(gzip.decompress(file.read_bytes()))),
        place="dataset.json: training[0].image",
        remedy="It is not compressed: its name has to end with .nii.",
    ),
    Mistake(
        name="pointer of Git LFS",
        plant=with_file(
            lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")
        ),
        place="dataset.json: training[0].image",
        remedy="git lfs pull",
    ),
    Mistake(
        name="web page of a failed download",
        plant=with_file(lambda file: file.write_text("<html>404 Not Found</html>")),
        place="dataset.json: training[0].image",
        remedy="It is a web page",
    ),
    Mistake(
        name="file that is cut off",
        plant=with_file(lambda file: file.write_bytes(file.read_bytes()[:2000])),
        place="dataset.json: training[0].image",
        remedy="copy it anew",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    package = NEEDS.get(mistake.name)
    if package is not None and find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    for mmar in ("masks", "pictures"):
        assert_quiet(run(*workspace.train(mmar=mmar)), MISTAKES)
