"""A data list from folders: which files belong together, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.datatools.listing import FolderListing, Naming, list_folders
from mmar_runtime.errors import ConfigError


def write_files(base: Path, *paths: str) -> Path:
    for path in paths:
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(b"")
    return base


def pairs(listing: FolderListing) -> list[tuple[str, str]]:
    return [(item["image"], item["label"]) for item in listing.content["training"]]


def refused(base: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        list_folders(base, **options)
    return str(error.value)


# --- Pairs ---------------------------------------------------------------------------------------


def test_images_and_labels_of_the_same_name_belong_together(tmp_path: Path) -> None:
    write_files(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz")
    write_files(tmp_path, "labelsTr/b.nii.gz", "labelsTr/a.nii.gz")

    listing = list_folders(tmp_path, images="imagesTr", labels="labelsTr")

    assert listing.content == {
        "training": [
            {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"},
            {"image": "imagesTr/b.nii.gz", "label": "labelsTr/b.nii.gz"},
        ],
        "test": [],
    }


def test_the_ending_does_not_count(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "labels/a.nii")

    listing = list_folders(tmp_path, images="images", labels="labels")

    assert pairs(listing) == [("images/a.nii.gz", "labels/a.nii")]


def test_cases_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for case in (10, 9, 1, 2):
        write_files(tmp_path, f"images/case_{case}.nii.gz", f"labels/case_{case}.nii.gz")

    listing = list_folders(tmp_path, images="images", labels="labels")

    assert [image for image, _ in pairs(listing)] == [
        f"images/case_{case}.nii.gz" for case in (1, 2, 9, 10)
    ]


def test_an_image_without_label_goes_to_test(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "images/b.nii.gz", "labels/a.nii.gz", "new/c.nii.gz")

    listing = list_folders(tmp_path, images="images", labels="labels", test="new")

    assert listing.content["test"] == ["images/b.nii.gz", "new/c.nii.gz"]
    assert (listing.training, listing.test) == (1, 2)


def test_without_a_folder_of_labels_every_image_goes_to_test(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz")

    assert list_folders(tmp_path, images="images").content == {
        "training": [],
        "test": ["images/a.nii.gz"],
    }


def test_suffixes_are_no_part_of_the_case(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a_0000.nii.gz", "images/a_0001.nii.gz", "labels/a.nii.gz")

    naming = Naming(image_suffixes=("_0000",))
    listing = list_folders(tmp_path, images="images", labels="labels", naming=naming)

    assert pairs(listing) == [("images/a_0000.nii.gz", "labels/a.nii.gz")]
    assert listing.passed_over == 1


def test_each_channel_of_an_image_may_be_a_file(tmp_path: Path) -> None:
    names = [f"{case}_000{channel}.nii.gz" for case in "ab" for channel in (1, 0)]
    write_files(tmp_path, *(f"images/{name}" for name in names), "labels/a.nii.gz")

    naming = Naming(image_suffixes=("_0000", "_0001"))
    listing = list_folders(tmp_path, images="images", labels="labels", naming=naming)

    assert listing.content["training"] == [
        {"image": ["images/a_0000.nii.gz", "images/a_0001.nii.gz"], "label": "labels/a.nii.gz"}
    ]
    assert listing.content["test"] == [{"image": ["images/b_0000.nii.gz", "images/b_0001.nii.gz"]}]
    assert listing.passed_over == 0


def test_a_case_without_one_of_its_channels_is_told(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a_0000.nii.gz", "images/a_0001.nii.gz", "images/b_0000.nii.gz")

    with pytest.raises(ConfigError) as caught:
        list_folders(tmp_path, images="images", naming=Naming(image_suffixes=("_0000", "_0001")))

    assert [str(problem) for problem in caught.value.problems] == [
        "images: the case 'b' has no file 'b_0001', which is a channel\n"
        "    Add the file, or move those of its other channels away."
    ]


@pytest.mark.parametrize("image_suffix", ["_ct", ""])
def test_images_and_labels_may_share_a_folder(tmp_path: Path, image_suffix: str) -> None:
    write_files(tmp_path, f"all/a{image_suffix}.nii.gz", "all/a_seg.nii.gz", "all/notes.txt")

    naming = Naming(image_suffixes=(image_suffix,), label_suffix="_seg")
    listing = list_folders(tmp_path, images="all", labels="all", naming=naming)

    assert pairs(listing) == [(f"all/a{image_suffix}.nii.gz", "all/a_seg.nii.gz")]
    assert listing.passed_over == 1


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "images/._a.nii.gz", "labels/a.nii.gz")

    assert list_folders(tmp_path, images="images", labels="labels").training == 1


def test_other_endings_can_be_asked_for(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.mha", "labels/a.mha")

    naming = Naming(endings=(".mha",))
    listing = list_folders(tmp_path, images="images", labels="labels", naming=naming)

    assert pairs(listing) == [("images/a.mha", "labels/a.mha")]


def test_the_document_names_the_data_set_and_its_labels(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")

    names = {1: "spleen", 0: "background"}
    listing = list_folders(tmp_path, images="images", labels="labels", name="CT", label_names=names)

    assert listing.content["name"] == "CT"
    assert listing.content["labels"] == {"0": "background", "1": "spleen"}


# --- Refusals ------------------------------------------------------------------------------------


def test_two_files_for_one_case_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "images/a.nii", "labels/a.nii.gz")

    text = refused(tmp_path, images="images", labels="labels")

    assert "images: holds 2 files for the case 'a': a.nii, a.nii.gz" in text


def test_a_label_without_image_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "labels/b.nii.gz")

    text = refused(tmp_path, images="images", labels="labels")

    assert "labels/b.nii.gz: there is no image for this label: no case 'b'" in text


def test_folders_without_a_single_pair_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a_ct.nii.gz", "labels/a_seg.nii.gz")

    text = refused(tmp_path, images="images", labels="labels")

    assert "images are called 'a_ct.nii.gz', labels 'a_seg.nii.gz'" in text
    assert "--image-suffix" in text


def test_a_folder_without_image_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.dcm")

    text = refused(tmp_path, images="images")

    assert "holds no image" in text
    assert "'a.dcm'" in text


def test_a_folder_without_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()

    assert "The folder is empty." in refused(tmp_path, images="images")


def test_a_folder_of_labels_without_label_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "labels/a.png")

    text = refused(tmp_path, images="images", labels="labels")

    assert "images are called 'a.nii.gz', labels 'a.png' (passed over)" in text


def test_a_shared_folder_needs_a_suffix(tmp_path: Path) -> None:
    write_files(tmp_path, "all/a.nii.gz")

    assert "that nothing distinguishes" in refused(tmp_path, images="all", labels="all/.")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path, images="images")


def test_a_folder_outside_the_base_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "base/x", "images/a.nii.gz")

    assert "is not below" in refused(tmp_path / "base", images="../images")


def test_many_faults_are_shortened(tmp_path: Path) -> None:
    write_files(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    write_files(tmp_path, *(f"labels/orphan_{number}.nii.gz" for number in range(9)))

    assert "... and 4 more" in refused(tmp_path, images="images", labels="labels")
