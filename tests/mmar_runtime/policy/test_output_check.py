"""Two output images of one name are found before the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.sections import EvaluationConfig
from mmar_runtime.policy.output_check import output_check

Load = Callable[..., EvaluationConfig]


@pytest.fixture
def check(tmp_path: Path, load_evaluation: Load) -> Callable[..., list[str]]:
    """``check(items, saver, ...)``: what is found for these cases and arguments of SaveImaged."""

    def found(items: list[Any], *savers: dict[str, Any]) -> list[str]:
        for item in items:
            for name in item.values() if isinstance(item, dict) else [item]:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).touch()
        (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))
        document = {
            "model": {"ckpt_path": "model.pt"},
            "dataset": {
                "name": "Dataset",
                "data_list_file_path": str(tmp_path / "dataset.json"),
                "data_file_base_dir": str(tmp_path),
                "data_list_key": "test",
            },
            "pre_transforms": [
                {"name": "LoadImaged", "args": {"keys": ["image", "label"]}},
                {"name": "CopyItemsd", "args": {"keys": "image", "names": "other"}},
            ],
            "post_transforms": [
                {"name": "SaveImaged", "args": {"keys": "pred", "output_dir": "eval", **saver}}
                for saver in savers
            ],
            "evaluator": {"name": "SupervisedEvaluator"},
        }
        return list(map(str, output_check(load_evaluation(document))))

    return found


def test_two_patients_whose_files_have_one_name(
    tmp_path: Path, check: Callable[..., list[str]]
) -> None:
    patients = ["p1/ct.nii.gz", "p2/ct.nii.gz"]

    [problem] = check(patients, {})
    assert problem == (
        "config_validation.json: post_transforms[0]: would write "
        f"'{tmp_path}/p1/ct.nii.gz' (dataset.json: test[0]) and '{tmp_path}/p2/ct.nii.gz' "
        "(dataset.json: test[1]) to one file, 'ct_trans': the first would be lost\n"
        '    Write "data_root_dir": "{DATA_ROOT}" in its args, so that the folders are kept.'
    )
    assert check(patients, {"data_root_dir": str(tmp_path)}) == []
    assert check(["a.nii.gz", "b.nii.gz"], {}) == []


def test_two_endings_of_one_name(check: Callable[..., list[str]]) -> None:
    [problem] = check(["ct.nii.gz", "ct.nii"], {})
    assert problem.endswith("Give the files other names.")


def test_of_many_three_are_named(check: Callable[..., list[str]]) -> None:
    problems = check([f"p{number}/ct.nii.gz" for number in range(9)], {})
    assert len(problems) == 3
    assert "'ct_trans' and 5 more" in problems[0]


def test_two_entries_of_a_case(check: Callable[..., list[str]]) -> None:
    case = [{"image": "images/c1.nii.gz", "label": "labels/c1.nii.gz"}]

    for savers in (
        [{}, {"keys": "other"}],
        [{"keys": ["pred", "label"]}],
    ):
        [problem] = check(case, *savers)
        assert "Give each of them a SaveImaged with an output_postfix of its own" in problem
    assert check(case, {}, {"keys": "other", "output_postfix": "prob"}) == []
    assert check(case, {}, {"keys": "other", "output_ext": ".png"}) == []


def test_a_case_that_is_listed_twice_is_another_fault(check: Callable[..., list[str]]) -> None:
    assert check(["a.nii.gz", "a.nii.gz"], {}) == []
