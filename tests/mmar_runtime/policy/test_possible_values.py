"""Whatever an expression comes to lies within what was judged possible."""

from __future__ import annotations

import math
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmar_runtime.components.expressions import interpret
from mmar_runtime.config.expressions import ExpressionRefused, parse_expression
from mmar_runtime.config.location import Location
from mmar_runtime.config.parser import NodeParser
from mmar_runtime.errors import ComponentError
from mmar_runtime.policy.possible_values import Possible, possible_of, possible_values

UNBOUNDED = (-math.inf, math.inf)


def possible(raw: object) -> Possible:
    parser = NodeParser({})
    node = parser.value(raw, Location("config.json"))
    assert not parser.problems
    return possible_values(node)


def numbers(raw: object) -> tuple[float, float]:
    found = possible(raw)
    return found.least, found.most


@pytest.mark.parametrize(
    ("raw", "interval"),
    [
        (3, (3, 3)),
        (True, (1, 1)),
        ([1, [2, -5]], (-5, 2)),
        ({"a": 1, "b": 9}, (1, 9)),
        ("#0 or 40", (0, 40)),
        ("#not 40", (0, 1)),
        ("#5 > 4", (0, 1)),
        ("#(1 < 2) * 40", (0, 40)),
        ("#8 if @model else 16", (8, 16)),
        ("#(1 if 1 else 2) + (10 if 1 else 20)", (11, 22)),
        ("#2 * 3", (6, 6)),
        ("#96 // 5", (19, 19)),
        ("#7 / 2", (3.5, 3.5)),
        ("#(0 - 3) * (2 if 1 else 4)", (-12, -6)),
        ("#17 % 5", (0, 5)),
        ("#1 / 0", UNBOUNDED),
        ("#1 / (1 if 1 else 0 - 1)", UNBOUNDED),
        ("#5 % (0 or 1)", UNBOUNDED),
        ("#1e308 * 10", UNBOUNDED),
        ("#@model + 1", UNBOUNDED),
        ("@model", UNBOUNDED),
        ("#[1, {'a': 2 * 8}]", (1, 16)),
    ],
)
def test_numbers_are_an_interval(raw: object, interval: tuple[float, float]) -> None:
    assert numbers(raw) == interval


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**18 + 1])
def test_a_number_that_a_real_one_does_not_hold_is_inside(number: int) -> None:
    least, most = numbers(number)

    assert least <= number <= most
    assert numbers(2**53 - 1) == (2**53 - 1, 2**53 - 1)


@pytest.mark.parametrize("raw", [None, "text", [], "#None", "#'text'", "#print(5)", "#torch.int8"])
def test_what_is_not_a_number_has_no_interval(raw: object) -> None:
    assert not possible(raw).has_numbers


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        (["mean", ["sum"]], {"mean", "sum"}),
        ("#['mean', 'sum']", {"mean", "sum"}),
        ("#'/etc' if 1 else 'a'", {"/etc", "a"}),
        ("#0 or '/etc'", {"/etc"}),
        ("#f'/e' if 1 else None", {"/e"}),
        ("#f\"{'a' if 1 else 'b'}/{'c' or 'd'}\"", {"a/c", "a/d", "b/c", "b/d"}),
        (3, set()),
    ],
)
def test_texts_are_listed(raw: object, texts: set[str]) -> None:
    assert possible(raw).texts == texts


@pytest.mark.parametrize(
    "raw",
    [
        "@model",
        "#@model or 'a'",
        "#f'{3}'",
        "#f\"{['a']}\"",
        "#f'{None}'",
        "#f\"{'a':>8}\"",
        "#f'a\\n'",
        '#f"' + "{'a' or 'b'}" * 7 + '"',
        "#f\"{'' or 7}\"",
        "#@model.named_parameters()",
    ],
)
def test_texts_that_cannot_be_listed_are_not_guessed(raw: object) -> None:
    assert possible(raw).texts is None


@pytest.mark.parametrize(
    ("raw", "others"),
    [
        ("@model", True),
        ("#torch.float32", True),
        ("lambda x: 3", True),
        ("#monai.handlers.from_engine('pred')", True),
        ("#[1, @model.parameters()]", True),
        ({"deep": ["@model"]}, True),
        ("#@model > 1", True),
        ("#1 + @model", True),
        ([1, "a", None, True], False),
    ],
)
def test_objects_are_seen(raw: object, others: bool) -> None:
    assert possible(raw).others is others


def test_the_work_does_not_multiply_with_the_choices() -> None:
    half = " + ".join(["(1 if 1 else 2)"] * 11)
    tree = parse_expression(f"#({half}) + ({half})")
    started = process_time()

    assert (possible_of(tree).least, possible_of(tree).most) == (22, 44)
    assert process_time() - started < 0.1  # each choice with each other took half a minute


# --- The property --------------------------------------------------------------------------------

_NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(0, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda one: "inf" not in repr(one)),
).map(lambda one: f"({one!r})" if one >= 0 else f"(0 - {-one!r})")
_WORDS = st.sampled_from(["'a'", "'/b'", "''", "f'c'", "None", "True", "False"])


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from([*"+-*/%", "//"]), inner).map(
            "({0[0]} {0[1]} {0[2]})".format
        ),
        st.tuples(inner, st.sampled_from(["<", "==", ">="]), inner).map(
            "({0[0]} {0[1]} {0[2]})".format
        ),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            "({0[0]} {0[1]} {0[2]})".format
        ),
        st.tuples(inner, inner, inner).map("({0[0]} if {0[1]} else {0[2]})".format),
        inner.map("(not {})".format),
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        inner.filter(lambda one: '"' not in one).map('f"x{{{}}}"'.format),
    )


def _leaves(value: object) -> list[object]:
    return (
        [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]
    )


@settings(max_examples=1500, deadline=None)
@given(st.recursive(_NUMBERS | _WORDS, _larger, max_leaves=12))
def test_the_value_of_a_constant_expression_lies_within(text: str) -> None:
    try:
        tree = parse_expression("#" + text)
        value = interpret(tree, {}.__getitem__)
    except (ExpressionRefused, ComponentError):
        return
    found = possible_of(tree)
    for leaf in _leaves(value):
        if isinstance(leaf, str):
            assert found.texts is None or leaf in found.texts
        elif isinstance(leaf, float) and math.isnan(leaf):
            assert (found.least, found.most) == UNBOUNDED
        elif leaf is not None:
            assert found.least <= leaf <= found.most
    assert not found.others
