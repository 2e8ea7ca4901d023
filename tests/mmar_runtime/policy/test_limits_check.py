"""Numbers that could use up a machine: in arguments, in expressions, in headers of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.errors import ConfigError
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.limits_check import PLANAR, image_limits_check
from mmar_runtime.policy.mmar_check import check_mmar
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, Limits, SitePolicy

Edited = Callable[[Path, Callable[[Any], object]], Path]


def train(root: Path) -> Path:
    return root / "config/config_train.json"


def problems(root: Path, policy: SitePolicy = DEFAULT_POLICY) -> list[str]:
    # The tests change a network or an image alone, which then does not fit the rest.
    found = check_mmar(root, policy).problems
    assert {one.rule for one in found} <= {"limit", "network", "grids", "undecided", "window"}
    return [one.location.place for one in found if one.rule == "limit"]


def arguments(section: str, entry: str, **values: object) -> Callable[[Any], object]:
    return lambda document: document[section][entry].setdefault("args", {}).update(values)


def transform(name: str, **values: object) -> Callable[[Any], object]:
    one = {"name": name, "args": {"keys": "image", **values}}
    return lambda document: document["train"]["pre_transforms"].append(one)


# --- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        1_000_000,
        "#1000 * 1000",
        "#1000 * 1000 if True else 1",
        "#0 or 1000000",
        "#4 and 1000000",
        "#(not 0) * 1000000",
        "#(2 > 1) * 1000000",
        "#1000000 // 1",
        "#0 - 1000000",
        "#(1 / 0.000001)",
        "#4 / (1 if 1 else 0)",
        "#@loss * 4",
    ],
)
@pytest.mark.parametrize(
    ("entry", "argument", "good"),
    [("dataloader", "num_workers", 8), ("dataloader", "batch_size", 64),
     ("model", "num_res_units", 4)],
)  # fmt: skip
def test_a_number_has_a_bound_however_it_is_written(
    tiny_mmar: Path, edited: Edited, entry: str, argument: str, good: int, value: object
) -> None:
    edited(train(tiny_mmar), arguments("train", entry, **{argument: good}))
    assert problems(tiny_mmar) == []

    edited(train(tiny_mmar), arguments("train", entry, **{argument: value}))
    assert f"train.{entry}.args.{argument}" in problems(tiny_mmar)


def test_a_site_has_fewer_workers(tiny_mmar: Path, edited: Edited) -> None:
    edited(train(tiny_mmar), arguments("train", "dataloader", num_workers=4))
    few = replace(DEFAULT_POLICY, limits=Limits(workers=2))

    assert problems(tiny_mmar) == []
    assert problems(tiny_mmar, few) == ["train.dataloader.args.num_workers"]


@pytest.mark.parametrize("channels", [[4, 10**6], "#[4, 1000 * 1000]", [4, "#1000000"]])
def test_a_list_is_bounded_number_by_number(
    tiny_mmar: Path, edited: Edited, channels: object
) -> None:
    edited(train(tiny_mmar), arguments("train", "model", channels=channels))

    assert len(problems(tiny_mmar)) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("SpatialPadd", {"spatial_size": 2000}),
        ("Resized", {"spatial_size": [2000, 2000, 2000]}),
        ("BorderPadd", {"spatial_border": 10_000}),
        ("DivisiblePadd", {"k": 50_000}),
        ("DivisiblePadd", {"k": 1e300}),
        ("Zoomd", {"zoom": 1000}),
        ("CopyItemsd", {"times": 10**9, "names": ["a"]}),
        ("SimulateDelayd", {"delay_time": 1e9}),
        ("RandSpatialCropSamplesd", {"roi_size": 8, "num_samples": 10**9}),
    ],
)
def test_a_transform_makes_no_image_that_nobody_can_hold(
    tiny_mmar: Path, edited: Edited, name: str, values: dict[str, object]
) -> None:
    edited(train(tiny_mmar), transform(name, **values))

    assert problems(tiny_mmar)[0].startswith("train.pre_transforms[5].args.")


def test_one_length_counts_for_all_axes_of_the_network(tiny_mmar: Path, edited: Edited) -> None:
    def network(name: str, **values: object) -> None:
        one = {"name": name, "args": values}
        edited(train(tiny_mmar), lambda document: document["train"].update(model=one))

    edited(train(tiny_mmar), transform("Resized", spatial_size=1100))

    network("UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
    assert problems(tiny_mmar) == []
    network("EfficientNetBN", model_name="efficientnet-b0", pretrained=False)
    assert problems(tiny_mmar) == []

    network("UNet", spatial_dims="#3", in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
    assert problems(tiny_mmar) == ["train.pre_transforms[5].args.spatial_size"]
    network("SegResNet")
    assert problems(tiny_mmar) == ["train.pre_transforms[5].args.spatial_size"]


def test_an_evaluation_may_be_of_volumes(tiny_mmar: Path, edited: Edited) -> None:
    def resized(length: int) -> Callable[[Any], object]:
        one = {"name": "Resized", "args": {"keys": "image", "spatial_size": length}}
        return lambda document: document["pre_transforms"].append(one)

    edited(tiny_mmar / "config/config_validation.json", resized(512))
    assert problems(tiny_mmar) == []

    edited(tiny_mmar / "config/config_validation.json", resized(1100))
    assert problems(tiny_mmar)[-1:] == ["pre_transforms[5].args.spatial_size"]


def test_planar_networks_are_those_whose_default_is_two_axes() -> None:
    entries = [one for one in load_component_table().components.values() if one.kind == "network"]
    defaults = {
        one.name: signature(getattr(import_module(one.module), one.name)).parameters
        for one in entries
    }
    planar = {
        name
        for name, parameters in defaults.items()
        if "spatial_dims" in parameters and parameters["spatial_dims"].default == 2
    }

    assert planar <= PLANAR
    without = [name for name in PLANAR - planar if "spatial_dims" in defaults[name]]
    assert without == []


def test_sizes_that_people_use_are_no_fault(tiny_mmar: Path, edited: Edited) -> None:
    for one in (
        transform("SpatialPadd", spatial_size=[160, 160, 160]),
        transform("RandSpatialCropd", roi_size=[96, 96, -1]),
        transform("Resized", spatial_size=[512, 512, 300]),
        transform("DivisiblePadd", k=32),
        transform("Zoomd", zoom=[1.5, 1.5, 3]),
    ):
        edited(train(tiny_mmar), one)

    assert problems(tiny_mmar) == []


@pytest.mark.parametrize(
    "size",
    [
        "#[2000, 2000, 2000]",
        "#[0 or 2000, 2000, 2000]",
        "#[64, 64, 64] if True else [2000, 2000, 2000]",
        "#0 or [2000, 2000, 2000]",
        "#2000 if True else 64",
        ["#0 or 2000", 2000, 2000],
        [[2000, 2000], [2000]],
        "#[64, 64, 1 / 0]",
    ],
)
def test_the_largest_size_of_an_expression_counts(
    tiny_mmar: Path, edited: Edited, size: object
) -> None:
    edited(train(tiny_mmar), transform("Resized", spatial_size=size))

    assert "train.pre_transforms[5].args.spatial_size" in problems(tiny_mmar)


@pytest.mark.parametrize(
    "size", ["#[64, 64, 64] if True else [96, 96, 96]", "#[2 * 32, 64, -1]", "#64 or 96", None]
)
def test_sizes_may_be_computed(tiny_mmar: Path, edited: Edited, size: object) -> None:
    edited(train(tiny_mmar), transform("Resized", spatial_size=size))

    assert problems(tiny_mmar) == []


@pytest.mark.parametrize("pixdim", [[1, 1, 0.001], "#[1, 1, 0 or 0.001]", "#1 / 1000"])
def test_a_spacing_has_a_least(tiny_mmar: Path, edited: Edited, pixdim: object) -> None:
    edited(train(tiny_mmar), transform("Spacingd", pixdim=[1.0, -1, "#0 or 1.5"]))
    assert problems(tiny_mmar) == []

    edited(train(tiny_mmar), transform("Spacingd", pixdim=pixdim))
    assert problems(tiny_mmar) == ["train.pre_transforms[6].args.pixdim"]


def test_copies_of_copies_are_counted_together(tiny_mmar: Path, edited: Edited) -> None:
    crop = transform("RandSpatialCropSamplesd", roi_size=[96, 96, 96], num_samples=16)
    edited(train(tiny_mmar), arguments("train", "dataloader", batch_size=16))
    edited(train(tiny_mmar), crop)
    assert problems(tiny_mmar) == []

    edited(train(tiny_mmar), crop)  # 16 * 16 crops of each of the 16 items
    edited(train(tiny_mmar), transform("RepeatChanneld", repeats=3))
    assert problems(tiny_mmar) == ["train.pre_transforms[7]"]


def test_windows_that_the_network_is_given_at_once_are_counted_together(
    tiny_mmar: Path, edited: Edited
) -> None:
    window = {"roi_size": [1000, 1000, 1000], "sw_batch_size": 8}
    edited(train(tiny_mmar), arguments("validate", "inferer", **window))
    assert problems(tiny_mmar) == []  # 8 billion voxels, which is the most

    edited(train(tiny_mmar), arguments("validate", "inferer", sw_batch_size=9))
    assert problems(tiny_mmar) == ["validate.inferer"]


def test_borders_of_borders_are_counted_together(tiny_mmar: Path, edited: Edited) -> None:
    for _ in range(3):
        edited(train(tiny_mmar), transform("BorderPadd", spatial_border=64))
        edited(train(tiny_mmar), transform("DivisiblePadd", k=32))
    assert problems(tiny_mmar) == []

    for _ in range(20):
        edited(train(tiny_mmar), transform("BorderPadd", spatial_border=512))
    assert len(problems(tiny_mmar)) == 1


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("MedianSmoothd", {"radius": 1}, {"radius": 3}),  # 27 and 343 values for each voxel
        ("AsDiscreted", {"to_onehot": 14}, {"to_onehot": 133}),
        (
            "GridPatchd",  # each voxel in 8 patches, and in 125
            {"patch_size": [64] * 3, "overlap": 0.5},
            {"patch_size": [64] * 3, "overlap": 0.8},
        ),
    ],
)
def test_values_that_are_made_of_each_voxel_are_counted(
    tiny_mmar: Path, edited: Edited, name: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    edited(train(tiny_mmar), lambda document: document["validate"].update(post_transforms=[]))
    edited(train(tiny_mmar), transform("Resized", spatial_size=[512, 512, 512]))
    edited(train(tiny_mmar), arguments("train", "dataloader", batch_size=2))
    edited(train(tiny_mmar), transform(name, **good))
    assert problems(tiny_mmar) == []

    edited(train(tiny_mmar), transform(name, **bad))
    assert problems(tiny_mmar) == ["train.pre_transforms[7]"]


def test_a_job_starts_no_million_of_threads(tiny_mmar: Path, edited: Edited) -> None:
    edited(train(tiny_mmar), lambda document: document.update(NUM_THREADS=8))
    assert problems(tiny_mmar) == []

    for threads in (10**9, 0, True, 1.5, "8"):
        edited(
            train(tiny_mmar), lambda document, threads=threads: document.update(NUM_THREADS=threads)
        )
        assert problems(tiny_mmar) == ["NUM_THREADS"]


def test_the_network_is_not_run_on_a_huge_input(tiny_mmar: Path, edited: Edited) -> None:
    def summary(side: int) -> Callable[[Any], object]:
        shown = {"network": "@model", "input_size": [1, 1, side, side, side]}
        return lambda document: document.update(network_summary=shown)

    edited(train(tiny_mmar), summary(96))
    assert problems(tiny_mmar) == []
    edited(train(tiny_mmar), summary(10_000))
    assert problems(tiny_mmar) == ["network_summary.input_size"]


def test_a_file_of_weights_is_no_larger_than_a_network_may_be(
    tiny_mmar: Path, edited: Edited
) -> None:
    edited(train(tiny_mmar), lambda document: document.update(dont_load_ckpt_model=False))
    with (tiny_mmar / "models/model.pt").open("wb") as stream:
        stream.truncate(1000 * 16 + 1)  # no byte of it is written or read
    small = replace(DEFAULT_POLICY, limits=Limits(parameters=1000))

    assert problems(tiny_mmar) == []
    assert "train.handlers[0].args.load_path" in problems(tiny_mmar, small)


# --- Images --------------------------------------------------------------------------------------


def image_problems(root: Path, limits: Limits) -> list[str]:
    try:
        load_train_config(Mmar.open(root), checks=[image_limits_check(limits)])
    except ConfigError as error:
        return [f"{one.location.place} {one.message}" for one in error.problems]
    return []


def declared(path: Path, *size: int) -> None:
    """A NIfTI file that declares this size and holds nothing."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape(size)
    header["magic"] = b"n+1"
    path.write_bytes(header.binaryblock + bytes(4))


def test_images_are_judged_by_what_their_headers_declare(tiny_mmar: Path, edited: Edited) -> None:
    assert image_problems(tiny_mmar, Limits()) == []

    declared(tiny_mmar / "data/huge.nii", 30_000, 30_000, 30_000)
    listed = {"image": "huge.nii", "label": "case_1_label.nii.gz"}
    edited(tiny_mmar / "data/dataset.json", lambda d: d["training"].append(listed))

    [found] = image_problems(tiny_mmar, Limits())
    assert found.startswith("training[2].image declares 27000000000000 voxels")


def test_labels_and_bytes_count_as_well(tiny_mmar: Path) -> None:
    assert image_problems(tiny_mmar, Limits(image_bytes=16**3 * 2)) == []
    too_many_bytes = image_problems(tiny_mmar, Limits(image_bytes=16**3))
    assert {one.split()[0] for one in too_many_bytes} == {
        "training[0].image", "training[1].image", "validation[0].image"
    }  # fmt: skip
    too_many_voxels = image_problems(tiny_mmar, Limits(image_voxels=16**3 - 1))
    assert any("label" in one for one in too_many_voxels)


def test_what_spacing_would_make_of_them_counts(tiny_mmar: Path, edited: Edited) -> None:
    edited(train(tiny_mmar), transform("Spacingd", pixdim=[0.5, 0.5, 0.5]))
    assert image_problems(tiny_mmar, Limits()) == []

    for pixdim in (0.001, [0.0001, 0.0001, -1], "#[0 or 0.001, 0.001, 0.001]"):
        edited(train(tiny_mmar), lambda d: d["train"]["pre_transforms"].pop())
        edited(train(tiny_mmar), transform("Spacingd", pixdim=pixdim))
        found = image_problems(tiny_mmar, Limits())
        assert found
        assert "after Spacingd" in found[0]
