"""``--set``: which type a word gets, and which words are refused."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.config.overrides import parse_overrides, typed_value
from mmar_runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("5", 5),
        ("-3", -3),
        (" 7 ", 7),
        ("2e-4", 0.0002),
        ("1.0", 1.0),
        ("True", True),
        ("false", False),
        ("YES", True),
        ("no", False),
        ("on", True),
        ("Off", False),
        ("y", True),
        ("N", False),
        ("t", True),
        ("f", False),
        ("", ""),
        ("models/model.pt", "models/model.pt"),
        (" padded ", " padded "),
        ("None", "None"),
        ("0x10", "0x10"),
    ],
)
def test_a_word_gets_the_type_that_clara_gave_it(word: str, value: object) -> None:
    assert typed_value(word) == value
    assert type(typed_value(word)) is type(value)


@pytest.mark.parametrize("word", ["1_000", "2024_01", "1_0.5", "٣", "１２", "²"])  # noqa: RUF001
def test_only_plain_digits_make_a_number(word: str) -> None:
    assert typed_value(word) == word


def test_values_may_hold_an_equals_sign() -> None:
    assert parse_overrides(["url=http://host/?a=1"]) == {"url": "http://host/?a=1"}


def test_the_last_of_several_values_wins() -> None:
    assert parse_overrides(["epochs=5", "amp=True", "epochs=7"]) == {"epochs": 7, "amp": True}


def test_a_bare_word_is_refused_but_from_claras_scripts() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(["epochs", "=5"])
    assert [str(problem) for problem in caught.value.problems] == [
        "--set: 'epochs' is not NAME=VALUE\n    Write epochs=..., without blanks.",
        "--set: '=5' names no variable\n"
        "    Write NAME=VALUE; the name has letters, digits and underscores only.",
    ]

    assert parse_overrides(["epochs=5", "0"], bare_words=True) == {"epochs": 5}


def test_a_name_may_be_padded() -> None:
    assert parse_overrides([" epochs =5"]) == {"epochs": 5}


@pytest.mark.parametrize("token", ["=5", " =5", "train.loss=5", "a b=5", "1st=5", "é=5"])
def test_what_is_no_name_is_refused(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides([token])

    assert [str(problem) for problem in caught.value.problems] == [
        f"--set: {token!r} names no variable\n"
        "    Write NAME=VALUE; the name has letters, digits and underscores only."
    ]


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-Infinity", "1e999", "9" * 5000])
def test_a_number_that_is_not_finite_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides([f"learning_rate={word}"])

    [problem] = caught.value.problems
    assert str(problem) == f"--set: learning_rate: {word!r} is not a finite number"
    assert problem.rule == "override"


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(["=5", "epochs=5", "lr=nan", "a.b=1"])

    assert len(caught.value.problems) == 3


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


@given(values=st.dictionaries(names, st.integers() | st.booleans()))
def test_whole_numbers_and_truth_values_survive_the_command_line(
    values: dict[str, int | bool],
) -> None:
    found = parse_overrides(f"{name}={value}" for name, value in values.items())

    assert found == values
    assert [type(value) for value in found.values()] == [type(value) for value in values.values()]


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_real_numbers_survive_the_command_line(number: float) -> None:
    assert parse_overrides([f"lr={number!r}"]) == {"lr": number}


@given(name=names, text=st.text())
def test_whatever_is_written_becomes_one_plain_value_or_is_refused(name: str, text: str) -> None:
    with contextlib.suppress(ConfigError):
        [(found, value)] = parse_overrides([f"{name}={text}"]).items()
        assert found == name
        assert value == text or not isinstance(value, str)
        assert not isinstance(value, float) or math.isfinite(value)
