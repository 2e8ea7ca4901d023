"""Errors teach: where, what was found, what to do; and all problems in one go."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime import errors
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, MmarError, Problem, UnfitDataError, did_you_mean

PLACE = Location("config_train.json") / "train" / "loss"


def test_a_problem_reads_as_place_finding_and_advice() -> None:
    problem = Problem(PLACE, "unknown loss 'DiceLos'", "Did you mean 'DiceLoss'?")

    assert str(problem) == (
        "config_train.json: train.loss: unknown loss 'DiceLos'\n    Did you mean 'DiceLoss'?"
    )


def test_a_problem_without_advice_is_one_line() -> None:
    assert str(Problem(PLACE, "is missing")) == "config_train.json: train.loss: is missing"


def test_a_problem_for_programs() -> None:
    assert Problem(PLACE, "is missing", "Add it.", "section").as_dict() == {
        "rule": "section",
        "file": "config_train.json",
        "place": "train.loss",
        "message": "is missing",
        "advice": "Add it.",
    }


def test_one_problem_and_several() -> None:
    first, second = Problem(PLACE, "first"), Problem(PLACE, "second")

    assert str(ConfigError([first])) == f"1 problem in the configuration:\n{first}"
    assert str(ConfigError([first, second])) == (
        f"2 problems in the configuration:\n{first}\n{second}"
    )


def test_a_problem_is_told_once_and_the_order_is_kept() -> None:
    first, second = Problem(PLACE, "first"), Problem(PLACE, "second")

    assert ConfigError(iter([second, first, second])).problems == (second, first)


def test_an_error_has_a_reason() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        ConfigError([])


def every_error() -> list[type[MmarError]]:
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    return [kind for kind in kinds if issubclass(kind, MmarError)]


def test_every_error_is_in_the_picture() -> None:
    for kind in every_error():
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__


def test_exit_codes_tell_what_to_mend_what_failed_and_what_was_stopped() -> None:
    others = {kind.__name__: kind.exit_code for kind in every_error() if kind.exit_code != 2}

    assert others == {"FederationError": 1, "RunAborted": 130}


def test_an_unknown_word_gets_the_nearest_choice() -> None:
    assert did_you_mean("UNte", ["UNet", "VNet", "SegResNet"]) == "Did you mean 'UNet'?"
    assert did_you_mean("dicelos", ["DiceLoss", "DiceCELoss"]) == (
        "Did you mean 'DiceLoss' or 'DiceCELoss'?"
    )


def test_of_spellings_that_differ_in_case_the_most_similar_is_shown() -> None:
    aliases = ["LoadImaged", "LoadImageD"]

    assert did_you_mean("LoadImagde", aliases) == "Did you mean 'LoadImaged'?"
    assert did_you_mean("LoadImgeD", aliases) == "Did you mean 'LoadImageD'?"


def test_a_word_far_from_all_gets_a_short_list() -> None:
    assert did_you_mean("xyz", ["VNet", "UNet", "VNet"]) == "Allowed: 'UNet', 'VNet'."


def test_a_long_list_or_none_is_not_shown() -> None:
    assert did_you_mean("xyz", [f"Net{index}" for index in range(13)]) == ""
    assert did_you_mean("xyz", []) == ""


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=12))
def test_advice_names_choices_only(word: str, choices: list[str]) -> None:
    advice = did_you_mean(word, choices)

    assert any(repr(choice) in advice for choice in choices)


def test_a_choice_itself_is_the_nearest() -> None:
    assert did_you_mean("unet", ["UNet", "unet"]) == "Did you mean 'unet'?"


def test_plain_errors_survive_being_sent_between_processes() -> None:
    for kind in every_error():
        if kind is not ConfigError:
            assert str(pickle.loads(pickle.dumps(kind("text")))) == "text"  # noqa: S301


def test_problems_of_data_are_grouped_and_their_text_stays_short() -> None:
    problems = [
        Problem(Location("d.json") / "training" / index / "label", "holds 255", "Use 0 and 1.", "v")
        for index in range(100)
    ]
    other = Problem(Location("d.json") / "test", "is missing", "", "list")

    error = UnfitDataError.of([*problems, other])

    lines = str(error).splitlines()
    assert lines[:2] == ["101 problems in the data:", "d.json: training[0].label: holds 255"]
    assert lines[-3:] == [
        "    Use 0 and 1.",
        "... and 95 more of this kind; --json lists all",
        "d.json: test: is missing",
    ]
    assert len(error.problems) == 101
    assert len(lines) <= 20
