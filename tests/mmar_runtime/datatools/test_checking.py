"""What a check of a data list finds: each fault with its place, all of them at once."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from fl_admin.demo_data import write_demo_data
from mmar_runtime.datatools.checking import check_data_list
from mmar_runtime.datatools.report import DataReport
from mmar_runtime.errors import ConfigError

SHAPE = (6, 5, 4)
SPLEEN = Path(__file__).resolve().parents[4] / "shared/data/spleen"

Change = Callable[..., None]
WriteVolume = Callable[..., Path]


def found(report: DataReport) -> list[tuple[str, str]]:
    """Place and rule of each problem."""
    return [(problem.location.place, problem.rule) for problem in report.problems]


def check(folder: Path, **options: Any) -> DataReport:
    return check_data_list(folder / "dataset.json", **options)


def nothing() -> Any:
    return np.zeros(SHAPE, dtype=np.uint8)


def affine(*, spacing_mm: tuple[float, ...] = (1.0, 1.0, 2.5), origin_mm: float = 0.0) -> Any:
    matrix = np.diag([*spacing_mm, 1.0])
    matrix[0, 3] = origin_mm
    return matrix


# --- A sound data set ----------------------------------------------------------------------------


def test_a_sound_data_set_has_no_problem(data_set: Path) -> None:
    report = check(data_set, full=True)

    assert report.ok
    assert report.problems == ()
    assert report.notices == ()


def test_the_summary_of_a_list_says_what_is_in_it(data_set: Path) -> None:
    training, validation, test = check(data_set, full=True).lists

    assert (training.key, training.cases, training.labelled) == ("training", 2, 2)
    assert (validation.cases, test.cases, test.labelled) == (1, 1, 0)
    assert training.shape is not None
    assert training.shape.median == SHAPE
    assert training.spacing_mm is not None
    assert training.spacing_mm.maximum == (1.0, 1.0, 2.5)
    assert training.values is not None
    assert -100 <= training.values.minimum < training.values.maximum < 100
    assert training.classes is not None
    assert [(one.value, one.name, one.cases) for one in training.classes] == [
        (0, "background", 2),
        (1, "spleen", 2),
    ]
    assert training.classes[1].share == pytest.approx(12 / 120)
    assert test.classes is None


def test_shapes_and_spacings_are_spread_over_the_cases(data_set: Path, volume: WriteVolume) -> None:
    for folder in ("images", "labels"):
        larger = np.zeros((8, 5, 4), dtype=np.uint8)
        volume(data_set / folder / "case_2.nii.gz", larger, affine=affine(spacing_mm=(1, 1, 5)))

    training = check(data_set).lists[0]

    assert training.shape is not None
    assert training.shape.minimum == (6, 5, 4)
    assert training.shape.median == ((6 + 8) / 2, 5, 4)
    assert training.shape.maximum == (8, 5, 4)
    assert training.spacing_mm is not None
    assert training.spacing_mm.median == (1, 1, (2.5 + 5) / 2)


def test_headers_alone_tell_nothing_of_values(data_set: Path) -> None:
    training = check(data_set).lists[0]

    assert training.shape is not None
    assert training.values is None
    assert training.classes is None


def test_a_report_is_plain_json(data_set: Path) -> None:
    content = json.loads(json.dumps(check(data_set, full=True).as_dict()))

    assert content["ok"] is True
    assert content["lists"][0]["classes"][1]["name"] == "spleen"
    assert content["lists"][0]["shape"]["median"] == list(SHAPE)


def test_only_the_named_lists_are_checked(data_set: Path) -> None:
    (data_set / "images/case_1.nii.gz").unlink()

    assert check(data_set, lists=["validation"]).ok
    assert found(check(data_set, lists=["training"])) == [("training[0].image", "missing-image")]


def test_relative_paths_are_below_the_base(data_set: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "lists/dataset.json"
    elsewhere.parent.mkdir()
    shutil.copy(data_set / "dataset.json", elsewhere)

    assert check_data_list(elsewhere, base=data_set).ok
    problems = check_data_list(elsewhere).problems
    assert len(problems) == 7
    assert "is that DATA_ROOT?" in problems[0].advice


def test_other_arrays_of_the_document_are_no_lists(data_set: Path, change: Change) -> None:
    change(data_set / "dataset.json", modality=["CT"], test=[])

    assert [one.key for one in check(data_set).lists] == ["training", "validation", "test"]


# --- Files ---------------------------------------------------------------------------------------


def test_every_fault_is_reported_at_once(data_set: Path, volume: WriteVolume) -> None:
    (data_set / "images/case_1.nii.gz").unlink()
    volume(data_set / "labels/case_2.nii.gz", np.zeros((6, 5, 3), dtype=np.uint8))
    (data_set / "images/case_4.nii.gz").write_bytes(b"no image")

    assert found(check(data_set)) == [
        ("training[0].image", "missing-image"),
        ("training[1].label", "grid"),
        ("test[0].image", "volume"),
    ]


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
def test_a_file_that_is_cut_off_is_found_by_its_length(
    data_set: Path, volume: WriteVolume, change: Change, name: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, size=(32, 32, 8), dtype=np.uint8)
    file = volume(data_set / name, noise)
    change(data_set / "dataset.json", test=[name])
    assert check(data_set).ok

    file.write_bytes(file.read_bytes()[:-40])

    report = check(data_set)
    assert found(report) == [("test[0].image", "volume")]
    assert "cannot be read to its end" in report.problems[0].message


def test_more_than_the_voxels_is_no_fault(
    data_set: Path, volume: WriteVolume, change: Change
) -> None:
    file = volume(data_set / "more.nii.gz", nothing())
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"more"))
    change(data_set / "dataset.json", test=["more.nii.gz"])

    assert check(data_set).ok


def test_a_spacing_has_to_be_positive(data_set: Path) -> None:
    file = data_set / "images/case_4.nii.gz"
    flat = nibabel.Nifti1Image(nothing(), np.eye(4))
    flat.set_sform(affine(spacing_mm=(1, 1, 0)), code="scanner")
    nibabel.save(flat, file)

    report = check(data_set)

    assert found(report) == [("test[0].image", "volume")]
    assert "a spacing of 1 x 1 x 0 mm" in report.problems[0].message


def test_a_volume_without_voxels_is_found(data_set: Path, volume: WriteVolume) -> None:
    volume(data_set / "images/case_4.nii.gz", np.zeros((6, 5, 0), dtype=np.int16))

    (problem,) = check(data_set).problems
    assert "holds no voxels" in problem.message


def test_a_file_that_is_no_volume_is_only_known_to_exist(data_set: Path, change: Change) -> None:
    (data_set / "photo.npy").write_bytes(b"")
    change(data_set / "dataset.json", test=["photo.npy"])

    report = check(data_set, full=True)

    assert report.ok
    assert report.notices == ("files that were not opened, only known to exist: 1 (.npy)",)


def test_several_files_of_an_image_lie_on_one_grid(
    data_set: Path, change: Change, volume: WriteVolume
) -> None:
    volume(data_set / "t2.nii.gz", np.ones((6, 5, 9), dtype=np.int16))
    change(data_set / "dataset.json", test=[{"image": ["images/case_4.nii.gz", "t2.nii.gz"]}])

    assert found(check(data_set)) == [("test[0].image", "grid")]


# --- Grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voxels", "matrix", "words"),
    [
        ((6, 5, 3), affine(), "shape 6 x 5 x 3 voxels, not 6 x 5 x 4"),
        (SHAPE, affine(spacing_mm=(1, 1, 5)), "spacing 1 x 1 x 5 mm, not 1 x 1 x 2.5"),
        (SHAPE, affine(origin_mm=3), "first voxel at (3, 0, 0) mm, not (0, 0, 0)"),
        (SHAPE, affine(spacing_mm=(-1, -1, 2.5)), "axes LPS, not RAS"),
        (SHAPE, affine(spacing_mm=(1, 1, 2.502)), "spacing 1 x 1 x 2.502 mm, not 1 x 1 x 2.5"),
    ],
)
def test_a_label_on_another_grid_is_told_apart(
    data_set: Path, volume: WriteVolume, voxels: tuple[int, ...], matrix: Any, words: str
) -> None:
    volume(data_set / "labels/case_2.nii.gz", np.zeros(voxels, dtype=np.uint8), affine=matrix)

    report = check(data_set)

    assert found(report) == [("training[1].label", "grid")]
    assert report.problems[0].message.endswith(words)


def test_a_difference_within_the_tolerance_is_none(data_set: Path, volume: WriteVolume) -> None:
    close = affine(spacing_mm=(1, 1, 2.5005), origin_mm=0.0009)
    volume(data_set / "labels/case_2.nii.gz", nothing(), affine=close)

    assert check(data_set).ok


def test_a_turned_label_is_found(data_set: Path, volume: WriteVolume) -> None:
    turned, angle = affine(), math.radians(2)
    turned[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    volume(data_set / "labels/case_2.nii.gz", nothing(), affine=turned)

    assert "axes turned, by up to 0.0349 mm a voxel" in check(data_set).problems[0].message


def test_a_label_without_three_axes_is_found(data_set: Path, volume: WriteVolume) -> None:
    """The second axis of the label runs along its first."""
    flat = affine()
    flat[:3, 1] = flat[:3, 0]
    volume(data_set / "labels/case_2.nii.gz", nothing(), affine=flat)

    assert "axes RNoneS, not RAS" in check(data_set).problems[0].message


def test_channels_of_an_image_do_not_count_for_the_grid(
    data_set: Path, volume: WriteVolume
) -> None:
    volume(data_set / "images/case_1.nii.gz", np.ones((*SHAPE, 2), dtype=np.int16))

    assert check(data_set, full=True).ok


# --- Values --------------------------------------------------------------------------------------


def test_a_label_value_has_to_be_named_in_the_document(data_set: Path, volume: WriteVolume) -> None:
    voxels = nothing()
    voxels[0, 0, :2] = 3
    volume(data_set / "labels/case_2.nii.gz", voxels)

    report = check(data_set, full=True)

    assert found(report) == [("training[1].label", "label-value")]
    assert report.problems[0].message == (
        "holds 3 (2 voxels); 'labels' of the document allows 0, 1"
    )


def test_without_names_any_integer_is_allowed(
    data_set: Path, volume: WriteVolume, change: Change
) -> None:
    change(data_set / "dataset.json", labels=None)
    volume(data_set / "labels/case_2.nii.gz", nothing() + 7)

    assert check(data_set, full=True).ok


def test_a_label_value_has_to_be_an_integer(
    data_set: Path, volume: WriteVolume, change: Change
) -> None:
    change(data_set / "dataset.json", labels=None)
    volume(data_set / "labels/case_2.nii.gz", np.full(SHAPE, 0.5, dtype=np.float32))

    report = check(data_set, full=True)

    assert found(report) == [("training[1].label", "volume")]
    assert "not integers, such as 0.5" in report.problems[0].message


def test_an_image_in_the_place_of_a_label_is_told_apart(
    data_set: Path, volume: WriteVolume, change: Change
) -> None:
    values = np.arange(20 * 20 * 20, dtype=np.int16).reshape(20, 20, 20)
    for file in ("image.nii", "label.nii"):
        volume(data_set / file, values)
    change(data_set / "dataset.json", test=[{"image": "image.nii", "label": "label.nii"}])

    (problem,) = check(data_set, full=True).problems
    assert problem.location.place == "test[0].label"
    assert "is it an image?" in problem.message


def test_nnunet_s_way_to_name_labels_is_understood(data_set: Path, change: Change) -> None:
    change(data_set / "dataset.json", labels={"background": 0, "spleen": 1})

    classes = check(data_set, full=True).lists[0].classes

    assert classes is not None
    assert [one.name for one in classes] == ["background", "spleen"]


@pytest.mark.parametrize("labels", [["background", "spleen"], {"0": 1.5}, {"background": True}, {}])
def test_labels_of_another_shape_are_refused(
    data_set: Path, change: Change, labels: object
) -> None:
    change(data_set / "dataset.json", labels=labels)

    assert found(check(data_set)) == [("labels", "labels")]


def test_a_class_that_no_label_holds_is_worth_a_notice(data_set: Path, change: Change) -> None:
    change(data_set / "dataset.json", labels={"0": "background", "1": "spleen", "2": "tumour"})

    report = check(data_set, full=True)

    assert report.ok
    assert report.notices == (
        "training: no label holds 2 (tumour)",
        "validation: no label holds 2 (tumour)",
    )


def test_an_image_has_to_be_finite(data_set: Path, volume: WriteVolume) -> None:
    voxels = np.zeros(SHAPE, dtype=np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0], voxels[2, 0, 0] = np.nan, np.inf, 9.0
    volume(data_set / "images/case_3.nii.gz", voxels)

    report = check(data_set, full=True)

    assert found(report) == [("validation[0].image", "not-finite")]
    assert "2 voxels" in report.problems[0].message
    assert report.lists[1].values is not None
    assert report.lists[1].values.maximum == 9.0


def test_a_label_may_be_a_value(data_set: Path, change: Change) -> None:
    items = [{"image": f"images/case_{case}.nii.gz", "label": case - 1} for case in (1, 2, 3)]
    change(data_set / "dataset.json", training=items, validation=[])

    report = check(data_set, labels_are_files=False)

    assert found(report) == [("training[2].label", "label-value")]
    assert report.problems[0].message == "holds 2; 'labels' of the document allows 0, 1"


# --- Items among each other ----------------------------------------------------------------------


def test_an_image_stands_in_a_list_once(data_set: Path, change: Change) -> None:
    one, other = ("images/case_4.nii.gz", "images/../images/case_4.nii.gz")
    change(data_set / "dataset.json", test=[one, other])

    report = check(data_set)

    assert found(report) == [("test[1].image", "duplicate")]
    assert report.problems[0].message == "is the same file as that of test[0]"


def test_a_copy_under_another_name_is_found_by_its_voxels(data_set: Path, change: Change) -> None:
    # Unpacked: another file in every byte, the same image.
    nibabel.save(nibabel.load(data_set / "images/case_4.nii.gz"), data_set / "copy.nii")
    change(data_set / "dataset.json", test=["images/case_4.nii.gz", "copy.nii"])

    assert check(data_set).ok
    assert found(check(data_set, full=True)) == [("test[1].image", "duplicate")]


def test_what_is_trained_on_cannot_validate(data_set: Path, change: Change) -> None:
    document = json.loads((data_set / "dataset.json").read_text())
    change(data_set / "dataset.json", validation=document["training"][1:])

    report = check(data_set)

    assert found(report) == [("validation[0].image", "leakage")]
    assert report.problems[0].message == "is trained on too, as training[1]"


def test_a_copy_of_a_training_image_cannot_validate(data_set: Path) -> None:
    shutil.copy(data_set / "images/case_1.nii.gz", data_set / "images/case_3.nii.gz")

    assert check(data_set).ok
    assert found(check(data_set, full=True)) == [("validation[0].image", "leakage")]


def test_a_test_list_may_repeat_the_validation(data_set: Path, change: Change) -> None:
    change(data_set / "dataset.json", test=["images/case_3.nii.gz"])

    assert check(data_set, full=True).ok


def test_the_list_that_trains_may_have_another_name(data_set: Path, change: Change) -> None:
    document = json.loads((data_set / "dataset.json").read_text())
    change(data_set / "dataset.json", fit=document["training"], training=[])

    assert check(data_set, training="fit").ok
    change(data_set / "dataset.json", test=["images/case_1.nii.gz"])
    assert found(check(data_set, training="fit")) == [("test[0].image", "leakage")]


def test_without_a_list_that_trains_no_overlap_is_looked_for(
    data_set: Path, change: Change
) -> None:
    change(data_set / "dataset.json", training=None)

    assert check(data_set).notices == ("no list 'training' was checked, so overlaps are not known",)
    with pytest.raises(ConfigError, match="holds no list 'fit'"):
        check(data_set, training="fit")


def test_an_item_without_label_among_labelled_ones_is_found(data_set: Path, change: Change) -> None:
    document = json.loads((data_set / "dataset.json").read_text())
    items = [*document["training"], {"image": "images/case_4.nii.gz"}]
    change(data_set / "dataset.json", training=items, test=[])

    assert found(check(data_set)) == [("training[2]", "missing-label")]


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"label": "labels/case_1.nii.gz"}, "test[0]"),
        (7, "test[0]"),
        ({"image": 7}, "test[0].image"),
        ({"image": [], "label": 1}, "test[0].image"),
        ({"image": "images/case_4.nii.gz", "label": " "}, "test[0].label"),
        ("", "test[0].image"),
    ],
)
def test_an_item_needs_an_image(data_set: Path, change: Change, item: object, place: str) -> None:
    change(data_set / "dataset.json", test=[item])

    assert found(check(data_set)) == [(place, "data-list")]


# --- Documents that cannot be checked ------------------------------------------------------------


def test_a_list_that_is_not_there_is_refused_with_what_is(data_set: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no list 'trainig'\n.*'training'"):
        check(data_set, lists=["trainig"])


def test_an_empty_list_is_a_fault_only_if_asked_for(data_set: Path, change: Change) -> None:
    change(data_set / "dataset.json", test=[])

    assert check(data_set).ok
    assert found(check(data_set, lists=["test"])) == [("test", "data-list")]


@pytest.mark.parametrize("text", ["[]", "{}", '{"modality": ["CT"]}', "{"])
def test_a_document_without_lists_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)

    with pytest.raises(ConfigError, match=r"dataset\.json"):
        check(tmp_path)


def test_a_base_that_is_not_there_is_refused(data_set: Path) -> None:
    with pytest.raises(ConfigError, match="there is no data folder"):
        check(data_set, base=data_set / "elsewhere")


# --- Data as people have them --------------------------------------------------------------------


def test_the_demo_data_are_sound(tmp_path: Path) -> None:
    (site,) = write_demo_data(tmp_path / "demo", sites=1)

    report = check_data_list(site.datalist, full=True)

    assert report.ok
    training = report.lists[0]
    assert training.cases == 3
    assert training.classes is not None
    assert training.classes[1].name == "spleen"
    assert 0.001 < training.classes[1].share < 0.05


@pytest.mark.shared
@pytest.mark.skipif(not SPLEEN.is_dir(), reason="the reference data are not here")
def test_a_real_ct_is_sound(tmp_path: Path) -> None:
    case = "spleen_8.nii.gz"
    document = {"training": [{"image": f"imagesTr/{case}", "label": f"labelsTr/{case}"}]}
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(document))

    report = check_data_list(file, base=SPLEEN, full=True)

    assert report.ok
    (training,) = report.lists
    assert training.shape is not None
    assert training.shape.median == (512, 512, 32)
    assert training.spacing_mm is not None
    assert training.spacing_mm.median == pytest.approx((0.785156, 0.785156, 7.5))
    assert training.values is not None
    assert (training.values.minimum, training.values.maximum) == (-1024, 1166)
    assert training.classes is not None
    assert [one.value for one in training.classes] == [0, 1]


# --- What a check needs --------------------------------------------------------------------------


def test_the_data_tools_import_no_framework() -> None:
    code = (
        "import sys, mmar_runtime.datatools.checking, mmar_runtime.datatools.listing, "
        "mmar_runtime.datatools.splitting, mmar_runtime.cli.data; "
        "print(sorted({'torch', 'monai', 'ignite', 'nvflare'} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"


# --- Units, positions, names ---------------------------------------------------------------------


def test_micrometres_are_not_told_as_millimetres(data_set: Path) -> None:
    for file in data_set.glob("*/*.nii.gz"):
        volume = nibabel.Nifti1Image(
            np.asarray(nibabel.load(file).dataobj), np.diag([25, 25, 50, 1])
        )
        volume.header.set_xyzt_units("micron")
        nibabel.save(volume, file)

    report = check(data_set, lists=["training"])

    [training] = report.lists
    assert training.unit == "µm"
    assert training.spacing_mm is not None
    assert training.spacing_mm.median == pytest.approx((0.025, 0.025, 0.050))
    assert report.notices[0].startswith("training: lengths in the headers are µm; MONAI reads them")


def test_a_label_without_position_beside_a_positioned_image_is_told(data_set: Path) -> None:
    bare = nibabel.Nifti1Image(nothing(), None)
    bare.header.set_zooms((1, 1, 2.5))
    nibabel.save(bare, data_set / "labels/case_1.nii.gz")

    [problem] = check(data_set).problems

    assert problem.rule == "grid"
    assert "no position, sform_code and qform_code of its header are 0" in problem.message


def test_a_label_that_is_the_image_is_seen_by_its_path_alone(
    data_set: Path, change: Change
) -> None:
    item = {"image": "images/case_1.nii.gz", "label": "images/../images/case_1.nii.gz"}
    change(data_set / "dataset.json", training=[item])

    assert found(check(data_set, lists=["training"])) == [("training[0].label", "label-is-image")]


def test_a_label_with_the_voxels_of_the_image_is_seen_by_full(
    data_set: Path, volume: WriteVolume
) -> None:
    for folder in ("images", "labels"):
        volume(data_set / f"{folder}/case_1.nii.gz", nothing())

    assert ("training[0].label", "label-is-image") in found(check(data_set, full=True))


def test_a_name_in_another_unicode_form_is_explained(data_set: Path, change: Change) -> None:
    composed = unicodedata.normalize("NFC", "images/Bär.nii.gz")
    decomposed = unicodedata.normalize("NFD", composed)
    shutil.copy(data_set / "images/case_4.nii.gz", data_set / decomposed)
    change(data_set / "dataset.json", test=[composed])

    [problem] = check(data_set, lists=["test"]).problems

    assert problem.rule == "missing-image"
    assert "its name in another Unicode form (NFD) is there" in problem.message


def test_pictures_are_opened(data_set: Path, change: Change) -> None:
    Image.fromarray(np.full((4, 8), 9, np.uint8)).save(data_set / "photo.png")
    Image.fromarray(np.full((4, 8), 255, np.uint8)).save(data_set / "mask.png")
    change(data_set / "dataset.json", training=[{"image": "photo.png", "label": "mask.png"}])

    report = check(data_set, lists=["training"], full=True)

    assert found(report) == [("training[0].label", "label-value")]
    [training] = report.lists
    assert training.shape is not None
    assert training.shape.median == (8, 4, 1)  # width and height
    assert training.spacing_mm is None


def test_a_word_that_no_class_has_is_told(data_set: Path, change: Change) -> None:
    items = [{"image": "images/case_1.nii.gz", "label": word} for word in ("ill", "il")]
    change(data_set / "dataset.json", training=items, labels={"well": 0, "ill": 1})

    problems = check(data_set, lists=["training"], labels_are_files=False).problems

    [problem] = [problem for problem in problems if problem.rule == "label-value"]
    assert problem.location.place == "training[1].label"
    assert problem.advice == "Did you mean 'ill'?"


def test_labels_that_are_texts_are_a_notice(data_set: Path, change: Change) -> None:
    item = {"image": "images/case_1.nii.gz", "label": "ill"}
    change(data_set / "dataset.json", training=[item], labels=None)

    report = check(data_set, lists=["training"], labels_are_files=False)

    assert report.notices == (
        "training: labels are texts, such as 'ill'; a training needs numbers from 0, or 'labels' "
        "of the document with the number of each",
    )


def test_images_under_keys_of_their_own_are_looked_at(tmp_path: Path) -> None:
    for name, size in (("t1", 4), ("t2", 5)):
        volume = nibabel.Nifti1Image(np.zeros((size, 4, 4), np.int16), np.eye(4))
        nibabel.save(volume, tmp_path / f"{name}.nii.gz")
    item = {"t1": "t1.nii.gz", "t2": "t2.nii.gz", "age": "61"}
    (tmp_path / "list.json").write_text(json.dumps({"training": [item]}))

    [problem] = check_data_list(tmp_path / "list.json").problems

    assert str(problem).startswith("list.json: training[0].t2: has another grid than")
