"""``mmar data``: exit codes, what is printed where, and that nothing is overwritten unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.demo_data import write_demo_data
from mmar_runtime.cli.data import Progress
from mmar_runtime.config.data_list import read_data_list
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import DataListSource


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One site's folder of demo data: 3 training, 2 validation and 1 test cases."""
    return write_demo_data(tmp_path_factory.mktemp("demo") / "data", sites=1)[0].directory


@pytest.fixture
def dataset(demo: Path, tmp_path: Path) -> Path:
    """The demo data list in a folder of its own; the volumes stay where they are."""
    copy = tmp_path / "dataset.json"
    copy.write_bytes((demo / "dataset.json").read_bytes())
    return copy


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def mmar(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


# --- check ---------------------------------------------------------------------------------------


def test_sound_data_exit_with_0(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmar("check", demo / "dataset.json", "--full") == 0

    out, err = capsys.readouterr()
    assert "training: 3 cases, 3 labelled" in out
    assert "shape (voxels)  64 x 64 x 40 in all" in out
    assert "spacing (mm)    5 x 5 x 5 in all" in out
    assert "label 1 spleen: 0.95 %, in 3 cases" in out
    assert out.endswith("no problems\n")
    assert err == ""


def test_a_long_check_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0.0, 2.0, 6.0, 12.0])
    progress = Progress(every=5, clock=lambda: next(seconds))

    for done in (1, 2, 3):
        progress(done, 3)

    assert capsys.readouterr().err == "case 2 of 3 (3 s left)\n"


def test_problems_exit_with_2_and_their_places(
    demo: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read(dataset)
    content["training"][1]["label"] = "labelsTr/none.nii.gz"
    content["validation"][0] = content["training"][0]
    dataset.write_text(json.dumps(content))

    assert mmar("check", dataset, "--base", demo) == 2

    out, err = capsys.readouterr()
    assert "training: 3 cases" in out
    assert "no problems" not in out
    assert err.startswith("mmar: 2 problems in the data:\n")
    assert "dataset.json: training[1].label: there is no file" in err
    assert "\n    Relative paths are looked up below" in err
    assert "dataset.json: validation[0].image: is trained on too, as training[0]" in err


def test_a_name_in_a_list_does_not_move_the_cursor(
    demo: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read(dataset)
    content["labels"] = {"0": "background", "1": "\x1b[2Jspleen"}
    dataset.write_text(json.dumps(content))

    assert mmar("check", dataset, "--base", demo, "--full") == 0

    out = capsys.readouterr().out
    assert "label 1 \\x1b[2Jspleen: " in out
    assert "\x1b" not in out


def test_json_holds_report_and_problems(
    demo: Path, dataset: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert mmar("check", dataset, "--base", demo, "--full", "--json") == 0
    assert json.loads(capfd.readouterr().out)["ok"] is True

    assert mmar("check", dataset, "--json") == 2
    report = json.loads(capfd.readouterr().out)
    assert report["ok"] is False
    assert len(report["problems"]) == 3 * 2 + 2 * 2 + 1
    assert report["problems"][0]["place"] == "training[0].image"


def test_many_problems_are_shortened_for_people(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset.write_text(json.dumps({"test": [f"{number}.nii" for number in range(30)]}))

    assert mmar("check", dataset) == 2

    assert capsys.readouterr().err.endswith("... and 10 more; --json lists them all\n")


def test_a_list_that_is_not_there_exits_with_2(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mmar("check", dataset, "--lists", "valdiation") == 2
    assert "Did you mean 'validation'?" in capsys.readouterr().err


# --- list ----------------------------------------------------------------------------------------


def test_a_list_of_folders_passes_the_check(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.json"
    folders = ("--images", "imagesTr", "--labels", "labelsTr", "--test", "imagesTs")
    names = ("--label", "0=background", "1=spleen")

    assert mmar("list", demo, *folders, *names, "-o", made) == 0
    assert "5 training (with label), 1 test (without)" in capsys.readouterr().out
    assert read(made)["labels"] == {"0": "background", "1": "spleen"}
    assert mmar("check", made, "--base", demo, "--full") == 0


def test_a_list_is_not_overwritten_unasked(
    demo: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dataset.read_bytes()
    make = ("list", demo, "--images", "imagesTr", "--labels", "labelsTr", "-o", dataset)

    assert mmar(*make) == 2
    assert "is there already" in capsys.readouterr().err
    assert dataset.read_bytes() == before

    assert mmar(*make, "--overwrite") == 0
    assert dataset.read_bytes() != before


@pytest.mark.parametrize("label", ["spleen", "1=", "=spleen", "one=spleen"])
def test_a_label_needs_value_and_name(
    demo: Path, tmp_path: Path, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.json"

    assert mmar("list", demo, "--images", "imagesTr", "--label", label, "-o", made) == 2
    assert "is not VALUE=NAME" in capsys.readouterr().err
    assert not made.exists()


# --- split and kfold -----------------------------------------------------------------------------


def test_a_split_says_how_many_cases_each_list_has(
    demo: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "split.json"
    pool = ("--from", "training", "validation")

    assert mmar("split", dataset, "-o", made, "--validation", "40%", *pool) == 0

    assert capsys.readouterr().out == f"{made}: 3 training, 2 validation\n"
    assert mmar("check", made, "--base", demo) == 0
    assert read(made)["test"] == read(dataset)["test"]


def test_a_split_by_patient_says_how_many_patients(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    split = ("split", dataset, "--validation", "1", "--from", "training", "validation")
    pattern = ("--patient-pattern", r"site-\d+-case-(\d+)")

    assert mmar(*split, *pattern, "-o", tmp_path / "a.json") == 0
    assert "4 training of 4 patients, 1 validation of 1 patient" in capfd.readouterr().out

    assert mmar(*split, *pattern, "-o", tmp_path / "b.json", "--json") == 0
    (made,) = json.loads(capfd.readouterr().out)
    assert made["units"] == {"training": 4, "validation": 1}


def test_an_existing_list_is_not_replaced_by_a_split(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "split.json"

    assert mmar("split", dataset, "-o", made, "--validation", "1") == 2
    assert "validation: is there already, with 2 items" in capsys.readouterr().err
    assert not made.exists()


def test_each_fold_is_a_data_list_of_its_own(
    demo: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folds"
    kfold = ("kfold", dataset, "-o", folder, "--from", "training", "validation", "--folds")

    assert mmar(*kfold, 5) == 0
    assert sorted(file.name for file in folder.iterdir()) == [
        f"fold_{number}.json" for number in range(5)
    ]
    assert "note: paths stay relative" in capsys.readouterr().out
    assert mmar("check", folder / "fold_4.json", "--base", demo) == 0


def test_an_mmar_reads_what_was_split(demo: Path, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folds"
    assert mmar("kfold", dataset, "-o", folder, "--from", "training", "validation") == 0

    for key, count in (("training", 4), ("validation", 1), ("test", 1)):
        place = Location("config_train.json")
        file = str(folder / "fold_2.json")
        source = DataListSource(location=place, file=file, base=str(demo), key=key)
        assert len(read_data_list(source).items) == count


def test_folds_do_not_mix_with_those_of_another_call(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folds"
    kfold = ("kfold", dataset, "-o", folder, "--from", "training", "validation", "--folds")
    assert mmar(*kfold, 3) == 0
    before = (folder / "fold_0.json").read_bytes()

    assert mmar(*kfold, 3) == 2
    assert "(and 2 more); name another place" in capsys.readouterr().err
    assert mmar(*kfold, 2, "--overwrite") == 2
    assert "fold_2.json belongs to other folds" in capsys.readouterr().err
    assert (folder / "fold_0.json").read_bytes() == before
    assert mmar(*kfold, 3, "--overwrite") == 0


def test_two_ways_to_name_the_patient_are_refused(dataset: Path, tmp_path: Path) -> None:
    patients = ("--patient-key", "patient", "--patient-pattern", "(p)")

    with pytest.raises(SystemExit) as error:
        mmar("split", dataset, "-o", tmp_path / "a.json", "--validation", "1", *patients)

    assert error.value.code == 2
