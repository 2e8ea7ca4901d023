"""Laws of splitting: disjoint, complete, per patient, the same for every order of the input."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmar_runtime.datatools.document import Document
from mmar_runtime.datatools.splitting import (
    MAX_NAME_CHARACTERS,
    by_key,
    by_pattern,
    fold_data_list,
    parse_share,
    part_sizes,
    split_data_list,
)
from mmar_runtime.errors import ConfigError, DataError

Items = Sequence[Mapping[str, Any]]

PARTS = st.fractions(min_value=Fraction(1, 20), max_value=Fraction(9, 20), max_denominator=40)
SEEDS = st.integers(0, 2**32)


def case(number: int, patient: int | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"image": f"images/case_{number}.nii.gz", "label": f"{number}.nii.gz"}
    return item if patient is None else {**item, "patient": f"p{patient}"}


def cases(count: int) -> list[dict[str, Any]]:
    return [case(number) for number in range(count)]


@st.composite
def patients_cases(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Four to twelve patients with one to four images each, in any order."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=4, max_size=12))
    owners = [patient for patient, size in enumerate(sizes) for _ in range(size)]
    items = [case(number, patient) for number, patient in enumerate(owners)]
    return draw(st.permutations(items))


def document(items: Items, **lists: Any) -> Document:
    return Document(file=Path("dataset.json"), content={"training": list(items), **lists})


def images(items: Items) -> list[str]:
    return [item["image"] for item in items]


def patients(items: Items) -> set[str]:
    return {item["patient"] for item in items}


# --- Laws ----------------------------------------------------------------------------------------


@given(count=st.integers(5, 60), validation=PARTS, test=PARTS, seed=SEEDS)
def test_the_lists_are_disjoint_and_hold_every_case(
    count: int, validation: Fraction, test: Fraction, seed: int
) -> None:
    assume(min(validation, test, 1 - validation - test) * count >= 1)
    items = cases(count)

    found = split_data_list(document(items), validation=validation, test=test, seed=seed).content

    dealt = images(found["training"]) + images(found["validation"]) + images(found["test"])
    assert sorted(dealt) == sorted(images(items))


@given(count=st.integers(5, 60), validation=PARTS, test=PARTS)
def test_each_list_is_within_one_case_of_its_part(
    count: int, validation: Fraction, test: Fraction
) -> None:
    assume(min(validation, test, 1 - validation - test) * count >= 1)

    found = split_data_list(document(cases(count)), validation=validation, test=test).cases

    assert abs(found["validation"] - validation * count) < 1
    assert abs(found["test"] - test * count) < 1
    assert abs(found["training"] - (1 - validation - test) * count) < 1


@given(items=patients_cases(), validation=st.integers(1, 3), seed=SEEDS)
def test_no_patient_is_in_two_lists(
    items: list[dict[str, Any]], validation: int, seed: int
) -> None:
    split = split_data_list(
        document(items), validation=validation, seed=seed, unit_of=by_key("patient")
    )

    training, held_out = split.content["training"], split.content["validation"]
    assert not patients(training) & patients(held_out)
    assert patients(training) | patients(held_out) == patients(items)
    assert len(training) + len(held_out) == len(items)
    assert split.units["validation"] == len(patients(held_out)) == validation


@given(items=patients_cases(), seed=SEEDS, data=st.data())
def test_the_order_of_the_input_does_not_matter(
    items: list[dict[str, Any]], seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(items))

    one, other = (
        split_data_list(document(order), validation=1, test=1, seed=seed).content
        for order in (items, shuffled)
    )

    assert one == other


@given(items=patients_cases(), folds=st.integers(2, 4), seed=SEEDS)
def test_each_case_validates_in_exactly_one_fold(
    items: list[dict[str, Any]], folds: int, seed: int
) -> None:
    found = fold_data_list(document(items), folds=folds, seed=seed, unit_of=by_key("patient"))

    validated = [image for fold in found for image in images(fold.content["validation"])]
    assert sorted(validated) == sorted(images(items))
    for fold in found:
        training, held_out = fold.content["training"], fold.content["validation"]
        assert len(training) + len(held_out) == len(items)
        assert not patients(training) & patients(held_out)
    sizes = [fold.units["validation"] for fold in found]
    assert max(sizes) - min(sizes) <= 1


@given(items=patients_cases(), seed=SEEDS, data=st.data())
def test_folds_do_not_depend_on_the_order_of_the_input(
    items: list[dict[str, Any]], seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(items))

    one, other = (
        [fold.content for fold in fold_data_list(document(order), folds=3, seed=seed)]
        for order in (items, shuffled)
    )

    assert one == other


# --- Examples ------------------------------------------------------------------------------------


def test_a_split_is_the_same_on_every_machine() -> None:
    found = split_data_list(document(cases(10)), validation=3, seed=7)

    # Written down once: whoever changes the order of dealing changes every user's split.
    assert images(found.content["validation"]) == [
        "images/case_3.nii.gz",
        "images/case_5.nii.gz",
        "images/case_6.nii.gz",
    ]


def test_another_seed_is_another_split() -> None:
    splits = {
        tuple(
            images(
                split_data_list(document(cases(20)), validation=5, seed=seed).content["validation"]
            )
        )
        for seed in range(5)
    }

    assert len(splits) == 5


def test_a_case_that_is_added_does_not_stir_the_others_up() -> None:
    before = split_data_list(document(cases(20)), validation=5).content["validation"]
    after = split_data_list(document(cases(21)), validation=5).content["validation"]

    assert len(set(images(before)) & set(images(after))) >= 4


def test_cases_stand_in_the_order_of_their_numbers() -> None:
    items = cases(12)
    random.Random(0).shuffle(items)

    training = split_data_list(document(items), validation=1).content["training"]

    numbers = [int(image.removeprefix("images/case_")[:-7]) for image in images(training)]
    assert numbers == sorted(numbers)


def test_everything_else_of_the_document_stays() -> None:
    given_document = document(
        cases(4), name="CT", numTraining=4, numTest=1, labels={"1": "spleen"}, test=["t.nii.gz"]
    )

    found = split_data_list(given_document, validation=1).content

    assert {key: found[key] for key in ("name", "labels", "numTraining", "numTest", "test")} == {
        "name": "CT",
        "labels": {"1": "spleen"},
        "numTraining": 3,
        "numTest": 1,
        "test": ["t.nii.gz"],
    }
    assert len(given_document.content["training"]) == 4


def test_several_lists_can_be_pooled() -> None:
    pooled = document(cases(4), validation=[case(8)], more=[case(9)])

    found = split_data_list(pooled, validation=2, pool=["training", "validation", "more"]).content

    assert set(found) == {"training", "validation"}
    assert (len(found["training"]), len(found["validation"])) == (4, 2)


def test_a_labelled_test_list_can_stand_beside_one_without_labels() -> None:
    found = split_data_list(
        document(cases(5), test=["t.nii.gz"]), validation=1, test=1, test_key="testing"
    )

    assert found.cases == {"training": 3, "validation": 1, "testing": 1}
    assert found.content["test"] == ["t.nii.gz"]


def test_a_test_list_that_is_the_validation_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be 'validation'"):
        split_data_list(document(cases(5)), validation=1, test=1, test_key="validation")


def test_a_patient_can_be_read_from_the_file_name() -> None:
    items = [{"image": f"images/p{patient}_{scan}.nii.gz"} for patient in range(4) for scan in "ab"]

    found = split_data_list(document(items), validation=0.5, unit_of=by_pattern(r"(p\d+)_"))

    assert found.units == {"training": 2, "validation": 2}
    assert found.cases == {"training": 4, "validation": 4}


def test_the_folds_hold_the_other_lists_too() -> None:
    folds = fold_data_list(document(cases(4), test=["t.nii.gz"]), folds=2)

    assert [fold.content["test"] for fold in folds] == [["t.nii.gz"], ["t.nii.gz"]]


# --- How many ------------------------------------------------------------------------------------


def test_a_share_is_a_count_or_a_part() -> None:
    assert part_sizes(10, {"validation": 3}) == {"training": 7, "validation": 3}
    assert part_sizes(10, {"validation": 0.3}) == {"training": 7, "validation": 3}
    # Ten times the float 0.1 is taken as one, however many tenths are added up.
    assert part_sizes(30, {"validation": 0.1, "test": 0.2}) == {
        "training": 21,
        "validation": 3,
        "test": 6,
    }


@pytest.mark.parametrize(
    ("units", "validation", "words"),
    [
        (10, 0, "none would be left for 'validation'"),
        (10, 10, "none would be left for 'training'"),
        (10, 99, "none would be left for 'training'"),
        (3, 0.01, "none would be left for 'validation'"),
        (10, 1.0, "between 0 and 1"),
        (10, 0.0, "between 0 and 1"),
        (10, -0.2, "between 0 and 1"),
        (0, 0.2, "none would be left"),
    ],
)
def test_a_share_that_leaves_a_list_empty_is_refused(
    units: int, validation: float, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        part_sizes(units, {"validation": validation})


@pytest.mark.parametrize("text", ["", "a", "-1", "1e-1", "20 %", "1/5", ".", "nan", "0.2.1", "%"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is not a share"):
        parse_share(text)


@pytest.mark.parametrize("folds", [-1, 0, 1, 5])
def test_a_number_of_folds_that_cannot_be_is_refused(folds: int) -> None:
    with pytest.raises(DataError, match=f"4 cases or patients cannot make {folds} folds"):
        fold_data_list(document(cases(4)), folds=folds)


# --- Refusals ------------------------------------------------------------------------------------


def refused(given_document: Document, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as error:
        split_data_list(given_document, validation=1, **options)
    return [(problem.location.place, problem.rule) for problem in error.value.problems]


def test_a_list_is_not_replaced_unless_it_is_pooled() -> None:
    assert refused(document(cases(4), validation=[case(9)])) == [("validation", "split")]
    assert refused(document(cases(4), test=[case(9)]), test=1) == [("test", "split")]


def test_a_patient_of_a_list_that_stays_is_not_dealt_out() -> None:
    kept = document([case(1, 1), case(2, 2), case(3, 3)], test=[case(4, 3)])

    assert refused(kept, unit_of=by_key("patient")) == [("test[0]", "leakage")]


def test_an_image_of_a_list_that_stays_is_not_dealt_out() -> None:
    assert refused(document(cases(4), test=["images/case_2.nii.gz"])) == [("test[0]", "leakage")]


def test_an_image_that_is_listed_twice_is_refused() -> None:
    assert refused(document([*cases(4), case(2)])) == [("training[4].image", "duplicate")]


def test_cases_without_label_are_not_mixed_with_labelled_ones() -> None:
    items = [*cases(4), {"image": "images/new.nii.gz"}]

    assert refused(document(items)) == [("training[4]", "missing-label")]


@pytest.mark.parametrize("patient", [None, True, 1.5, "", " ", ["p1"]])
def test_a_case_without_patient_is_refused(patient: object) -> None:
    items = [case(1, 1), case(2, 2), {**case(3), "patient": patient}]

    assert refused(document(items), unit_of=by_key("patient")) == [("training[2]", "patient")]


def test_a_patient_s_number_is_the_same_as_text() -> None:
    items = [{**case(1), "patient": 7}, {**case(2), "patient": "7"}, {**case(3), "patient": 8}]

    split = split_data_list(document(items), validation=1, unit_of=by_key("patient"))

    assert sum(split.units.values()) == 2


def test_a_name_that_the_pattern_does_not_match_is_refused_a_few_times() -> None:
    with pytest.raises(ConfigError, match=r"(?s)'case_0.nii.gz' does not match.*and 4 more"):
        split_data_list(document(cases(9)), validation=1, unit_of=by_pattern("(p)_"))


def test_an_image_of_files_of_two_patients_is_refused() -> None:
    items = [{"image": ["p1_t1.nii", "p1_t2.nii"]}, {"image": ["p2_t1.nii", "p3_t2.nii"]}]

    assert refused(document(items), unit_of=by_pattern(r"(p\d)")) == [("training[1]", "patient")]


# --- Patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(p", "not a regular expression"),
        ("p", "0 groups"),
        ("(p)(q)", "2 groups"),
        ("(" + "p" * 100 + ")", "longer than 100"),
        ("(a+)+b", "very long"),
        ("((?:a|a)*)b", "very long"),
        ("(a?a?a?a?a?aaaaa)", "very long"),
    ],
)
def test_a_pattern_that_is_unfit_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        by_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"([^_]+)_", r"sub-(\w+?)_ses-\d{2}_", r"([+*?{]\(p)_", r"(?i)(P\d+)(?:_ct|_mr)"]
)
def test_what_a_file_name_needs_is_allowed(pattern: str) -> None:
    by_pattern(pattern)


def test_the_slowest_pattern_that_is_allowed_ends() -> None:
    items = [{"image": "a" * MAX_NAME_CHARACTERS}]
    started = time.monotonic()

    with pytest.raises(ConfigError, match="does not match"):
        split_data_list(document(items), validation=1, unit_of=by_pattern("(a*)a*a*a*[xy]"))

    assert time.monotonic() - started < 60
