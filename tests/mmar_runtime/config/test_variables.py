"""``{NAME}`` inside a string: one pass, typed where it stands alone, never a new construct."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import Variable
from mmar_runtime.config.variables import (
    MAX_LENGTH,
    SubstitutionError,
    looks_like_construct,
    names_in,
    substitute,
)

PLACE = Location("config_train.json") / "train" / "loss"
ADVICE = "    Variables hold values; write references and expressions in the config itself."


def filled(text: str, **values: Scalar) -> Scalar:
    source = Location("environment.json")
    variables = {name: Variable(value, source) for name, value in values.items()}
    return substitute(text, variables, PLACE)


def refusal(text: str, **values: Scalar) -> str:
    with pytest.raises(SubstitutionError) as caught:
        filled(text, **values)
    assert str(caught.value) == str(caught.value.problem)
    return str(caught.value)


def test_a_string_without_variables_stays_as_it_is() -> None:
    assert filled("DiceLoss") == "DiceLoss"


@pytest.mark.parametrize("value", [5, 0.1, True, None, "", "text", "{B}", "{{"])
def test_a_variable_that_stands_alone_keeps_its_type(value: Scalar) -> None:
    assert filled("{A}", A=value) == value
    assert type(filled("{A}", A=value)) is type(value)


def test_variables_are_written_into_a_text() -> None:
    assert filled("{DIR}/fold_{N}/{AMP}", DIR="/data", N=3, AMP=True) == "/data/fold_3/True"


def test_a_value_is_never_looked_at_again() -> None:
    assert filled("{A}", A="{B}", B="secret") == "{B}"
    assert filled("x{A}", A="{B}", B="secret") == "x{B}"
    assert filled("x{A}}}", A="{B", B="secret") == "x{B}"


def test_two_braces_stand_for_one() -> None:
    assert filled("{{A}}", A=5) == "{A}"
    assert filled("{{{A}}}", A=5) == "{5}"
    assert filled("{{}}") == "{}"


@pytest.mark.parametrize("text", ["{A", "A}", "{ A }", "{A.b}", "{A!r}", "{A:>4}", "{0}", "{}"])
def test_a_single_brace_is_a_mistake(text: str) -> None:
    brace = "{" if "{" in text else "}"

    assert refusal(text, A=5) == (
        f"config_train.json: train.loss: a single {brace!r} in {text!r}\n"
        "    A variable is written {NAME}; for a brace itself write it twice."
    )


def test_undefined_variable_names_its_location() -> None:
    assert refusal("{epohcs}", epochs=5, amp=True) == (
        "config_train.json: train.loss: the variable {epohcs} is not defined\n"
        "    Did you mean 'epochs'?"
    )


def test_undefined_variable_inside_a_text_is_a_fault_too() -> None:
    message = "config_train.json: train.loss: the variable {B} is not defined"

    assert refusal("{A}/{B}", A="x").startswith(message)


def test_where_no_variable_is_near_the_advice_says_how_to_define_one() -> None:
    assert refusal("{learning_rate}").endswith(
        "\n    Define it at the top of the workflow's JSON, in environment.json, or with --set."
    )


def test_null_has_no_text() -> None:
    assert refusal("{A}/model.pt", A=None) == (
        "config_train.json: train.loss: the variable {A} is null, which has no text"
    )


@pytest.mark.parametrize("value", ["@model", "#1", " #1", "lambda x: x", "lambda:0", "\t@model"])
def test_a_value_cannot_be_a_construct(value: str) -> None:
    message = f"holds {value!r}, which looks like a construct\n{ADVICE}"

    assert refusal("{A}", A=value) == f"config_train.json: train.loss: the variable {{A}} {message}"
    assert refusal("x{A}", A=value).endswith(message)


def test_a_value_may_look_a_little_like_a_construct() -> None:
    assert filled("{A}", A="lambda_scale") == "lambda_scale"
    assert filled("{A}", A="user@host") == "user@host"


def test_texts_and_values_together_cannot_be_a_construct() -> None:
    assert refusal("{A}@model", A="") == (
        "config_train.json: train.loss: '@model' looks like a construct, which has no meaning "
        f"here\n{ADVICE}"
    )


def test_a_text_that_grows_too_long_is_refused() -> None:
    assert filled("x{A}", A="y" * (MAX_LENGTH - 1)) == "x" + "y" * (MAX_LENGTH - 1)
    assert refusal("x{A}", A="y" * MAX_LENGTH) == (
        "config_train.json: train.loss: is longer than 4096 characters once its variables are "
        "filled in"
    )


names = st.sampled_from(["A", "B", "_c", "Lr2"])
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(name=names, value=values)
def test_typed_values_come_through_alone(name: str, value: Scalar) -> None:
    if isinstance(value, str) and looks_like_construct(value):
        refusal(f"{{{name}}}", **{name: value})
    else:
        found = filled(f"{{{name}}}", **{name: value})
        assert found == value
        assert type(found) is type(value)


pieces = st.lists(st.tuples(st.booleans(), st.text()), min_size=2)


@given(pieces)
def test_substitution_is_one_pass(pieces: list[tuple[bool, str]]) -> None:
    """Texts and values stand beside each other in the result, each of them as it was."""
    text, given = "", {}
    for index, (is_variable, piece) in enumerate(pieces):
        if is_variable:
            given[f"V{index}"] = piece
            text += f"{{V{index}}}"
        else:
            text += piece.replace("{", "{{").replace("}", "}}")
    expected = "".join(piece for _, piece in pieces)
    constructs = [expected, *(value for value in given.values())]

    if any(map(looks_like_construct, constructs)):
        with pytest.raises(SubstitutionError):
            filled(text, **given)
    else:
        assert filled(text, **given) == expected


braces = st.text(alphabet="{}AB#@ lambdx:1")


@given(text=braces, a=braces, b=braces | st.integers() | st.none())
def test_substitution_never_creates_a_construct(text: str, a: str, b: Scalar) -> None:
    with contextlib.suppress(SubstitutionError):
        found = filled(text, A=a, B=b)
        assert not isinstance(found, str) or not looks_like_construct(found)


def test_the_names_that_a_text_asks_for() -> None:
    assert list(names_in("{DATA_ROOT}/{{epochs}}_{fold} { }")) == ["DATA_ROOT", "fold"]
