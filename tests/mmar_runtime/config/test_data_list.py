"""Data lists: items with their files, and everything that may be missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.data_list import DataList, data_check, read_data_list
from mmar_runtime.config.file_keys import labels_are_files
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import DataListSource
from mmar_runtime.config.sections import EvaluationConfig, TrainConfig
from mmar_runtime.errors import ConfigError

PLACE = Location("config_train.json") / "train" / "dataset"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with three files; what they hold is not looked at."""
    for name in ("1_image.nii", "1_label.nii", "2_image.nii"):
        (tmp_path / name).touch()
    return tmp_path


def source(folder: Path, key: str = "training", base: Path | None = None) -> DataListSource:
    return DataListSource(
        location=PLACE, file=str(folder / "dataset.json"), base=str(base or folder), key=key
    )


def write(folder: Path, document: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(document))


def read(folder: Path, items: object, **options: Any) -> DataList:
    write(folder, {"training": items})
    return read_data_list(source(folder), **options)


def faults(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call()
    return [str(problem) for problem in caught.value.problems]


# --- Items ---------------------------------------------------------------------------------------


def test_files_are_below_the_base_folder_and_all_else_passes_through(folder: Path) -> None:
    item = {"image": "1_image.nii", "label": "1_label.nii", "location": [1, 2], "weight": 0.5}

    assert read(folder, [item]) == DataList(
        file=folder / "dataset.json",
        key="training",
        items=(
            {
                "image": str(folder / "1_image.nii"),
                "label": str(folder / "1_label.nii"),
                "location": [1, 2],
                "weight": 0.5,
            },
        ),
    )


def test_an_absolute_path_stays_as_it_is(folder: Path) -> None:
    found = read(folder, [{"image": str(folder / "1_image.nii")}])

    assert found.items == ({"image": str(folder / "1_image.nii")},)


def test_a_list_of_test_images_is_a_list_of_paths(folder: Path) -> None:
    found = read(folder, ["1_image.nii", "2_image.nii"])

    assert [item["image"] for item in found.items] == [
        str(folder / "1_image.nii"),
        str(folder / "2_image.nii"),
    ]


def test_an_image_may_be_several_files(folder: Path) -> None:
    found = read(folder, [{"image": ["1_image.nii", "2_image.nii"]}])

    assert found.items[0]["image"] == [str(folder / "1_image.nii"), str(folder / "2_image.nii")]


def test_images_may_have_other_keys_than_image(folder: Path) -> None:
    item = {"t1": "1_image.nii", "t2": "2_image.nii", "label": "1_label.nii"}

    found = read(folder, [item], file_keys=("t1", "t2", "label"))

    assert found.items[0] == {key: str(folder / name) for key, name in item.items()}


def test_an_item_without_any_image_is_told_with_the_keys_of_images(folder: Path) -> None:
    assert faults(lambda: read(folder, [{"label": "1_label.nii"}], file_keys=("t1", "label"))) == [
        "dataset.json: training[0]: has to be an object whose 'image' is a path, or the path of "
        "an image\n    Keys of images here: image, t1."
    ]


def read_csv(folder: Path, text: str, key: str = "all") -> DataList:
    (folder / "list.csv").write_text(text)
    place = DataListSource(location=PLACE, file=str(folder / "list.csv"), base=str(folder), key=key)
    return read_data_list(place)


def test_a_table_has_a_case_in_each_row(folder: Path) -> None:
    found = read_csv(folder, "image;age;label\n1_image.nii;61.5;1_label.nii\n\n2_image.nii;;\n")

    assert found.items == (
        {"image": str(folder / "1_image.nii"), "age": 61.5, "label": str(folder / "1_label.nii")},
        {"image": str(folder / "2_image.nii")},
    )


def test_a_column_says_which_list_a_row_belongs_to(folder: Path) -> None:
    text = "list,image\ntraining,1_image.nii\nvalidation,2_image.nii\n"

    assert read_csv(folder, text, "validation").items == ({"image": str(folder / "2_image.nii")},)
    assert len(read_csv(folder, text, "all").items) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "image\n1_image.nii\n",
            "list.csv: holds no list 'training', which config_train.json: train.dataset asks for\n"
            "    A column 'list' says which list a row belongs to; 'all' has all.",
        ),
        (
            "image,label\n1_image.nii\n",
            "list.csv: line 2 has 1 cells and not 2",
        ),
        (
            "image,image\n",
            "list.csv: its first line has to name the columns, such as image,label, each once",
        ),
        (
            "",
            "list.csv: its first line has to name the columns, such as image,label, each once",
        ),
        (
            'image\n"1_image.nii\n',
            "list.csv: line 2 cannot be read: unexpected end of data",
        ),
    ],
)
def test_a_table_that_cannot_be_a_list_is_told_with_its_line(
    folder: Path, text: str, fault: str
) -> None:
    assert faults(lambda: read_csv(folder, text, "training")) == [fault]


@pytest.mark.parametrize("labels", [{"0": "healthy", "1": "ill"}, {"healthy": 0, "ill": 1}])
def test_a_word_of_a_classification_is_the_number_that_the_document_names(
    folder: Path, labels: dict[str, object]
) -> None:
    cases = [{"image": "1_image.nii", "label": "ill"}, {"image": "2_image.nii", "label": "other"}]
    write(folder, {"labels": labels, "training": cases})

    found = read_data_list(source(folder), file_keys=("image",))

    assert [item["label"] for item in found.items] == [1, "other"]


def test_a_folder_of_slices_is_an_image(folder: Path) -> None:
    (folder / "series").mkdir()

    assert read(folder, ["series"]).items == ({"image": str(folder / "series")},)


@pytest.mark.parametrize("label", ["benign", 3, [0, 1, 0], ["a", "b"]])
def test_a_label_that_is_no_file_is_a_value(folder: Path, label: object) -> None:
    found = read(folder, [{"image": "1_image.nii", "label": label}], file_keys=("image", "mask"))

    assert found.items[0]["label"] == label


def test_a_label_that_is_no_text_is_a_value_in_any_task(folder: Path) -> None:
    assert read(folder, [{"image": "1_image.nii", "label": 1}]).items[0]["label"] == 1


# --- What may be missing -------------------------------------------------------------------------


def test_a_missing_data_list_and_a_missing_folder_are_told_together(tmp_path: Path) -> None:
    file, base = str(tmp_path / "dataset.json"), str(tmp_path / "data")

    assert faults(lambda: read_data_list(source(tmp_path, base=tmp_path / "data"))) == [
        f"config_train.json: train.dataset.data_list_file_path: there is no data list {file!r}\n"
        "    Set DATASET_JSON in environment.json or with --set DATASET_JSON=...",
        f"config_train.json: train.dataset.data_file_base_dir: there is no data folder {base!r}\n"
        "    Set DATA_ROOT in environment.json or with --set DATA_ROOT=...",
    ]


def test_a_missing_list_comes_with_those_that_are_there(folder: Path) -> None:
    write(folder, {"training": [], "validation": [], "name": "spleen"})

    assert faults(lambda: read_data_list(source(folder, key="trainnig"))) == [
        "dataset.json: holds no list 'trainnig', which config_train.json: train.dataset asks for\n"
        "    Did you mean 'training'?"
    ]
    assert faults(lambda: read_data_list(source(folder, key="test")))[0].endswith(
        "\n    Allowed: 'training', 'validation'."
    )


def test_a_data_list_is_an_object(folder: Path) -> None:
    write(folder, [])

    assert faults(lambda: read_data_list(source(folder))) == [
        "dataset.json: has to be a JSON object"
    ]


@pytest.mark.parametrize("items", [[], {}, "1_image.nii", None])
def test_a_list_is_not_empty(folder: Path, items: object) -> None:
    assert faults(lambda: read(folder, items)) == [
        "dataset.json: training: has to be an array with at least one item"
    ]


@pytest.mark.parametrize(
    "item",
    [
        5,
        None,
        [],
        "",
        {},
        {"label": "1_label.nii"},
        *({"image": x} for x in (5, None, [], "", [5])),
    ],
)
def test_an_item_has_an_image(folder: Path, item: object) -> None:
    assert faults(lambda: read(folder, ["1_image.nii", item])) == [
        "dataset.json: training[1]: has to be an object whose 'image' is a path, or the path of "
        "an image"
    ]


def test_a_missing_image_and_a_missing_label_are_told_with_their_places(folder: Path) -> None:
    items = [
        {"image": "1_image.nii", "label": "1_label.nii"},
        {"image": ["2_image.nii", "3_image.nii"], "label": "2_label.nii", "mask": "2_mask.nii"},
    ]

    assert faults(lambda: read(folder, items)) == [
        f"dataset.json: training[1].image: there is no file {str(folder / '3_image.nii')!r}",
        f"dataset.json: training[1].label: there is no file {str(folder / '2_label.nii')!r}",
        f"dataset.json: training[1].mask: there is no file {str(folder / '2_mask.nii')!r}",
    ]


def test_of_many_missing_images_the_first_five_are_told(folder: Path) -> None:
    found = faults(lambda: read(folder, [f"{index}.nii" for index in range(40)]))

    assert [fault.split(": ")[1] for fault in found[:5]] == [
        f"training[{index}].image" for index in range(5)
    ]
    assert found[5:] == [
        "dataset.json: ... and 35 more\n"
        f"    Is DATA_ROOT right? Paths are looked up below {str(folder)!r}."
    ]


# --- The check of a whole config -----------------------------------------------------------------


def dataset(key: str = "training") -> dict[str, Any]:
    return {
        "name": "Dataset",
        "data_list_file_path": "{DATASET_JSON}",
        "data_file_base_dir": "{DATA_ROOT}",
        "data_list_key": key,
    }


TRAINER = {"name": "SupervisedTrainer"}


def test_the_check_reads_every_list_once(
    train_faults: Callable[..., list[str]], folder: Path
) -> None:
    write(folder, {"training": ["3_image.nii"], "validation": ["4_image.nii"]})
    environment = {"DATA_ROOT": str(folder), "DATASET_JSON": str(folder / "dataset.json")}
    document = {
        "train": {"trainer": TRAINER, "dataset": dataset(), "again": dataset()},
        "validate": {
            "evaluator": {"name": "SupervisedEvaluator"},
            "dataset": dataset("validation"),
            "dataloader": {"name": "DataLoader"},
        },
    }

    assert train_faults(document, environment, checks=[data_check]) == [
        f"dataset.json: training[0].image: there is no file {str(folder / '3_image.nii')!r}",
        f"dataset.json: validation[0].image: there is no file {str(folder / '4_image.nii')!r}",
    ]


def test_the_check_passes_where_every_file_is_there(
    load_train: Callable[..., TrainConfig], folder: Path
) -> None:
    write(folder, {"training": [{"image": "1_image.nii", "label": "benign"}]})
    environment = {
        "DATA_ROOT": str(folder),
        "DATASET_JSON": str(folder / "dataset.json"),
        "PROCESSING_TASK": "classification",
    }

    load_train(
        {"train": {"trainer": TRAINER, "dataset": dataset()}}, environment, checks=[data_check]
    )


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({}, True),
        ({"PROCESSING_TASK": ""}, True),
        ({"PROCESSING_TASK": "segmentation"}, True),
        ({"PROCESSING_TASK": "annotation"}, True),
        ({"PROCESSING_TASK": "classification"}, False),
    ],
)
def test_labels_are_files_unless_the_task_says_otherwise(
    load_evaluation: Callable[..., EvaluationConfig], task: dict[str, str], expected: bool
) -> None:
    config = load_evaluation(
        {"model": {"name": "UNet"}, "evaluator": {"name": "SupervisedEvaluator"}}, task
    )

    assert labels_are_files(config) is expected


def test_a_task_that_nobody_knows_is_refused(
    load_train: Callable[..., TrainConfig], folder: Path
) -> None:
    write(folder, {"training": [{"image": "1_image.nii", "label": "1_label.nii"}]})
    environment = {
        "DATA_ROOT": str(folder),
        "DATASET_JSON": str(folder / "dataset.json"),
        "PROCESSING_TASK": "Segmentaton",
    }

    with pytest.raises(ConfigError) as refused:
        load_train(
            {"train": {"trainer": TRAINER, "dataset": dataset()}}, environment, checks=[data_check]
        )

    [problem] = refused.value.problems
    assert str(problem.location) == "environment.json: PROCESSING_TASK"
    assert "'Segmentaton' is not a known task" in problem.message
    assert problem.advice == "Did you mean 'segmentation'?"
