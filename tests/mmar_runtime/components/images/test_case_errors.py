"""A transform that fails says where the configuration names it, and on which files."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Identityd, RandFlipd, ResizeWithPadOrCropd, Transform

from mmar_runtime.components.images.case_errors import (
    PlacedTransforms,
    TransformError,
    case_files,
    files_not_finite,
    shown_files,
)
from mmar_runtime.config.location import Location

PLACE = Location("config_train.json") / "train" / "pre_transforms"


class Fails(Transform):
    """A transform that fails on cases of this file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, case: Any) -> Any:
        if case["image"] == self.file:
            raise ValueError("a bad case")
        return case


def chain(*transforms: Any) -> PlacedTransforms:
    return PlacedTransforms(transforms, [PLACE / at for at in range(len(transforms))])


def test_transforms_do_as_those_of_monai() -> None:
    transforms = chain(RandFlipd("image", prob=1.0), ResizeWithPadOrCropd("image", (4, 4)))
    out = transforms({"image": torch.ones(1, 2, 2)})
    assert out["image"].shape == (1, 4, 4)
    assert transforms.inverse(out)["image"].shape == (1, 2, 2)
    assert len(transforms) == 2


def test_a_failure_names_place_class_files_and_cause() -> None:
    with pytest.raises(TransformError) as raised:
        chain(Identityd("image"), Fails("b.nii"))({"image": "b.nii", "label": "m.nii"})
    assert str(raised.value) == (
        "config_train.json: train.pre_transforms[1]: Fails failed: ValueError: a bad case\n"
        "    files: b.nii, m.nii"
    )


def test_a_failure_while_a_cache_is_filled_by_threads_names_its_place() -> None:
    data = [{"image": "a.nii"}, {"image": "b.nii"}]
    with pytest.raises(TransformError, match=r"pre_transforms\[0\]: Fails failed"):
        CacheDataset(data, chain(Fails("b.nii")), num_workers=2, progress=False)


def test_the_text_arrives_from_a_process_that_loads_data() -> None:
    data = CacheDataset([{"image": "b.nii"}], chain(Fails("b.nii")), cache_num=0)
    with pytest.raises(TransformError) as raised:
        list(DataLoader(data, num_workers=1))
    assert str(raised.value).rstrip().endswith("    files: b.nii")


def test_transforms_can_be_sent_to_another_process() -> None:
    assert len(pickle.loads(pickle.dumps(chain(Fails("a"))))) == 1  # noqa: S301  # our own bytes


def image(*files: str, value: float = 0.0) -> MetaTensor:
    voxels = torch.full((len(files), 1, 2), value) if len(files) > 1 else torch.full((1, 2), value)
    return MetaTensor(voxels, meta={"filename_or_obj": list(files) if len(files) > 1 else files[0]})


def test_the_files_of_cases_and_batches_are_known_by_their_metadata() -> None:
    assert case_files({"image": image("a.nii"), "label": 1}) == ("a.nii",)
    assert case_files({"image": image("a.nii", "b.nii")}) == ("a.nii", "b.nii")
    assert case_files([{"image": image("a.nii")}, {"image": image("a.nii")}]) == ("a.nii",)
    assert case_files({"image": torch.ones(1), "image_meta_dict": {"filename_or_obj": "a"}}) == (
        "a",
    )
    assert shown_files(["a", "b"]) == "a, b"


def test_of_a_batch_only_the_files_with_values_not_finite_are_named() -> None:
    batch = image("a.nii", "b.nii")
    batch[1] = torch.inf
    assert files_not_finite({"image": batch}) == ("b.nii",)
    assert files_not_finite([{"image": image("c.nii", value=torch.nan)}]) == ("c.nii",)
    assert files_not_finite({"image": torch.full((1, 1), torch.nan)}) == ()
