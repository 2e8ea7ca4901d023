"""What expressions mean over built objects, and what they refuse to do at run time."""

from __future__ import annotations

import doctest
import inspect
import logging
import math
from collections.abc import Callable
from typing import Any, cast

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.handlers import MetricLogger
from monai.handlers.utils import from_engine

from mmar_runtime.components import expressions
from mmar_runtime.components.expressions import interpret
from mmar_runtime.config.expressions import (
    CALLEES,
    MAX_DEPTH,
    MAX_INTEGER,
    NAMED_CONSTANTS,
    REFERENCE_METHODS,
    parse_expression,
)
from mmar_runtime.errors import ComponentError


def value_of(text: str, **objects: object) -> Any:
    return interpret(parse_expression(text), objects.__getitem__)


def function_of(text: str, **objects: object) -> Callable[[object], Any]:
    return cast("Callable[[object], Any]", value_of(text, **objects))


def network() -> torch.nn.Linear:
    return torch.nn.Linear(1, 1)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def info_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mmar_runtime.expressions")


def run_engine(handler: Callable[..., object], outputs: list[object]) -> Engine:
    """An engine that puts out the values one by one, in one epoch, with the handler attached."""
    engine = Engine(lambda _, batch: batch)
    engine.add_event_handler(Events.ITERATION_COMPLETED, handler)
    engine.run(outputs, max_epochs=1)
    return engine


# --- The tables ----------------------------------------------------------------------------------


def test_every_callee_method_and_dtype_of_the_grammar_has_a_meaning() -> None:
    assert set(expressions._CALLEES) == set(CALLEES.values())
    assert set(expressions._METHODS) == set(REFERENCE_METHODS)
    assert set(expressions._DTYPES) == set(NAMED_CONSTANTS.values())


@pytest.mark.parametrize("name", sorted(set(NAMED_CONSTANTS.values())))
def test_named_constants_are_the_dtypes_of_that_name(name: str) -> None:
    module, _, dtype = name.partition(".")
    assert value_of(f"#{name}") is getattr({"torch": torch, "numpy": numpy}[module], dtype)


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#None", None),
        ("#'@model'", "@model"),
        ("#[1, (2, 'x'), {'a': 1, 0: []}]", [1, (2, "x"), {"a": 1, 0: []}]),
        ("#1 + 2 * 3 - 4 / 8", 1 + 2 * 3 - 4 / 8),
        ("#7 // 2 % 2", 7 // 2 % 2),
        ("#-7 % 3", -7 % 3),
        ("#1 == 1.0", True),
        ("#'a' < 'b'", True),
        ("#2 != 2", False),
        ("#None == 0", False),
        ("#1 if 2 > 1 else 1 / 0", 1),
        ("#1 / 0 if 2 <= 1 else 2", 2),
        ("#0 and 1 / 0", 0),
        ("#1 or 1 / 0", 1),
        ("#0 or '' or 3", 3),
        ("#1 and [] and 1 / 0", []),
        ("#not [] and not 0", True),
        ("#f'{{{1:03d}}} {0.5:.1%} {None} {\"a\":>3} @b'", "{001} 50.0% None   a @b"),
        ("#f'{True} {[1, [2], \"c\"]} {2:}'", "True [1, <list of 1>, c] 2"),
    ],
)
def test_value(text: str, value: object) -> None:
    result = value_of(text)
    assert (result, type(result)) == (value, type(value))


def test_reference_is_the_built_object_itself() -> None:
    model = network()
    assert value_of("#@model", model=model) is model
    assert value_of("#{'net': @model}", model=model)["net"] is model


def test_each_reference_is_resolved_once_and_before_a_lambda_is_called() -> None:
    asked: list[str] = []

    def resolve(name: str) -> object:
        asked.append(name)
        return name

    function = interpret(parse_expression("lambda x: (@b, @a, @b, x)"), resolve)
    assert asked == ["a", "b"]
    assert cast("Callable[[object], object]", function)(1) == ("b", "a", "b", 1)
    assert asked == ["a", "b"]


def test_what_the_resolver_raises_comes_through() -> None:
    with pytest.raises(KeyError, match="model"):
        value_of("lambda x: @model")


def test_parameters_train_in_an_optimizer() -> None:
    model = network()
    parameters = value_of("#@model.parameters()", model=model)
    assert [id(item) for item in parameters] == [id(model.weight), id(model.bias)]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    before = model.bias.item()
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.bias.item() == pytest.approx(before - 0.5 * 1)


def test_named_parameters() -> None:
    named = value_of("#@model.named_parameters()", model=network())
    assert [name for name, _ in named] == ["weight", "bias"]


def test_parameters_of_something_else_are_refused() -> None:
    with pytest.raises(ComponentError, match=r"@model\.parameters\(\) was asked of list of 0"):
        value_of("#@model.parameters()", model=[])


# --- from_engine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#monai.handlers.from_engine(['pred','label'])", from_engine(["pred", "label"])),
        ("#monai.handlers.from_engine(['loss'], first=True)", from_engine(["loss"], first=True)),
        ("#from_engine('loss', True)", from_engine("loss", first=True)),
        ("#from_engine(first=False, keys=('loss', 'pred'))", from_engine(["loss", "pred"])),
    ],
)
def test_from_engine_is_monais(text: str, expected: Callable[[object], object]) -> None:
    output = [{"pred": 1, "label": 2, "loss": 3}, {"pred": 4, "label": 5, "loss": 6}]
    function = value_of(text)
    assert function(output) == expected(output)
    assert function(output[0]) == expected(output[0])
    assert function.__qualname__ == expected.__qualname__


def test_from_engine_feeds_a_metric() -> None:
    loss = value_of("#monai.handlers.from_engine(['loss'], first=True)")
    engine = Engine(lambda _, batch: batch)
    Average(output_transform=loss).attach(engine, "loss")
    engine.run([[{"loss": 1.0}, {"loss": 1.0}], [{"loss": 2.0}, {"loss": 2.0}]], max_epochs=1)
    assert engine.state.metrics["loss"] == (1.0 + 2.0) / 2


# --- Lambdas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "argument", "value"),
    [
        ("lambda x: None", object(), None),
        ("lambda x: x", 5, 5),
        ("lambda x: x['loss']", {"loss": 0.5}, 0.5),
        ("lambda x: (x['pred'], x['label'])", {"pred": 1, "label": 2}, (1, 2)),
        ("lambda x: x[0]['loss'] * 2", [{"loss": 0.5}], 1.0),
        ("lambda x: x[-1]", (1, 2), 2),
        ("lambda x: x[1] + 1", torch.tensor([1, 2]), torch.tensor(3)),
        ("lambda x: x[1] + 1", numpy.array([1, 2]), 3),
        ("lambda x: x + x", numpy.float32(0.5), 1.0),
        ("lambda x: x == 1", numpy.int64(1), True),
        ("lambda x: x * 2", torch.tensor([1.0]), torch.tensor([2.0])),
        ("lambda x: x > 1", torch.tensor(2), torch.tensor(True)),
        ("lambda x: 'yes' if x[0] > 1 else 'no'", torch.tensor([2, 3]), "yes"),
    ],
)
def test_lambda(text: str, argument: object, value: object) -> None:
    assert function_of(text)(argument) == value


def test_a_lambda_of_two_numbers_says_which_is_better() -> None:
    lower: Any = value_of("lambda new, best: new < best")
    assert (lower(1.0, 2.0), lower(2.0, 1.0), lower(1.0, 1.0)) == (True, False, False)


def test_a_lambda_changes_voxels_and_their_type() -> None:
    voxels = torch.tensor([-1.0, 0.0, 2.0])

    assert function_of("lambda x: (x > 0).float()")(voxels).tolist() == [0.0, 0.0, 1.0]
    assert function_of("lambda x: (x < 0) | (x > 1)")(voxels).tolist() == [True, False, True]
    assert function_of("lambda x: -x")(voxels).tolist() == [1.0, 0.0, -2.0]
    assert function_of("lambda x: x.to(torch.int64)")(voxels).dtype == torch.int64
    assert function_of("lambda x: x.astype(np.int32)")(voxels).dtype == torch.int32
    with pytest.raises(ComponentError, match=r"Only a tensor becomes torch.float, not str"):
        function_of("lambda x: x.float()")("path")


def test_a_tensor_holds_real_numbers() -> None:
    weights = value_of("#torch.tensor([1, 0.5])")
    assert torch.equal(weights, torch.tensor([1.0, 0.5]))


def test_a_lambda_can_be_called_again_with_another_argument() -> None:
    function = function_of("lambda x: x + 1")
    assert [function(number) for number in (1, 2, 3)] == [2, 3, 4]


def test_a_lambda_has_one_positional_parameter_for_frameworks_that_look() -> None:
    (parameter,) = inspect.signature(function_of("lambda x: x")).parameters.values()
    assert parameter.kind is parameter.POSITIONAL_ONLY


def test_a_lambda_reads_and_logs_the_state_of_an_engine(caplog: pytest.LogCaptureFixture) -> None:
    function = function_of(
        "lambda engine: print(f'{engine.state.epoch}: {engine.state.iteration}/"
        '{engine.state.epoch_length} {engine.state.output[0]["loss"]:.2f}\') '
        "if engine.state.iteration % 2 == 0 else None"
    )
    run_engine(function, [[{"loss": torch.tensor(step / 8)}] for step in range(4)])
    assert logged(caplog) == ["1: 2/4 0.12", "1: 4/4 0.38"]


def test_a_lambda_serves_as_transform_of_a_handler() -> None:
    engine = Engine(lambda _, batch: batch)
    losses = MetricLogger(loss_transform=function_of("lambda x: x[0]['loss']"))
    losses.attach(engine)
    engine.run([[{"loss": 0.25}], [{"loss": 0.5}]], max_epochs=1)
    assert losses.loss == [(1, 0.25), (2, 0.5)]


def test_state_that_is_not_there_is_named() -> None:
    with pytest.raises(ComponentError, match=r"e\.state\.rank was asked of Engine"):
        function_of("lambda e: e.state.rank")(Engine(lambda *_: None))
    with pytest.raises(ComponentError, match=r"e\.state\.epoch was asked of dict of 0"):
        function_of("lambda e: e.state.epoch")({})


@pytest.mark.parametrize(
    ("text", "argument", "message"),
    [
        ("lambda x: x['loss']", [{"loss": 1}], r"list of 1.*from_engine\(\['loss'\]\)"),
        ("lambda x: x['loss']", {"pred": 1}, r"dict of 1, which has none. Its keys: pred\."),
        ("lambda x: x['k']", dict.fromkeys(range(20)), r"Its keys: 0, 1, 2, 3, 4, 5, 6, 7, \.\.\."),
        ("lambda x: x[3]", [1], "list of 1"),
        ("lambda x: x[3]", torch.zeros(2, 2), r"Tensor of shape \(2, 2\)"),
        ("lambda x: x['a']", torch.zeros(2), "Tensor"),
        ("lambda x: x['a']", numpy.zeros(2), r"ndarray of shape \(2,\)"),
        ("lambda x: x[0]", "text", "str"),
        ("lambda x: x[0]", torch.nn.Sequential(torch.nn.ReLU()), "Sequential"),
        ("lambda x: x[0]", None, "NoneType"),
    ],
)
def test_items_that_are_not_there_are_named(text: str, argument: object, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        function_of(text)(argument)


# --- Numbers that must not grow ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ([0], "not list of 1"),
        ("text", "not str"),
        ((1,), "not tuple of 1"),
        ({}, "not dict of 0"),
        (None, "not NoneType"),
        (numpy.zeros(3), r"not ndarray of shape \(3,\)"),
        (1j, "not complex"),
    ],
)
@pytest.mark.parametrize("text", ["lambda x: x * 1000000000", "lambda x: 1 + x", "lambda x: x % 2"])
def test_arithmetic_takes_numbers_and_tensors_only(
    text: str, argument: object, message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        function_of(text)(argument)


@pytest.mark.parametrize(
    "text",
    [f"#{MAX_INTEGER} + 1", f"#-{MAX_INTEGER} - 1", "#" + " * ".join(["9000000000000000000"] * 10)],
)
def test_integers_stay_within_bounds(text: str) -> None:
    with pytest.raises(ComponentError, match="beyond"):
        value_of(text)


@pytest.mark.parametrize("operator", ["*", "+", "==", "<"])
def test_tensors_of_different_shapes_are_not_multiplied_out(operator: str) -> None:
    function = function_of(f"lambda x: x[0] {operator} x[1]")
    column, row = torch.zeros(1, 1).expand(10**9, 1), torch.zeros(1, 1).expand(1, 10**9)
    with pytest.raises(ComponentError, match="must be equal"):
        function((column, row))
    assert function((torch.ones(2, 2), torch.ones(1))).shape == (2, 2)
    assert function((torch.ones(2, 2), torch.ones(2, 2))).shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#1 / 0", "division by zero"),
        ("#1 % 0", "int % int"),
        ("#1 // 0.0", "int // float"),
        ("#1 < 'a'", "int < str"),
        ("#1 == [1]", "not list of 1"),
        ("#@model == 1", "not Linear"),
        ("#1 + @model", "not Linear"),
        ("#f'{\"a\":.2f}'", "str as '.2f'"),
        ("#f'{[1]:.2f}'", "list of 1 cannot be written as '.2f'"),
        ("#f'{1.5:d}'", "float as 'd'"),
    ],
)
def test_operands_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        value_of(text, model=network())


@pytest.mark.parametrize(
    "text", ["lambda x: 1 if x else 2", "lambda x: not x", "lambda x: x and 1", "lambda x: x or 1"]
)
@pytest.mark.parametrize("argument", [torch.zeros(2), numpy.zeros(2)])
def test_many_numbers_are_neither_true_nor_false(text: str, argument: object) -> None:
    with pytest.raises(ComponentError, match="neither true nor false"):
        function_of(text)(argument)


# --- Text that must not grow, nor tell -----------------------------------------------------------


class Talkative:
    """An object whose own text must not get anywhere."""

    def __str__(self) -> str:
        raise AssertionError("asked for its text")

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        raise AssertionError("asked for its text")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (1, "1"),
        (2**64, "<a whole number beyond 64 bits>"),
        (0.5, "0.5"),
        (torch.tensor([[0.5]]), "0.5"),
        (numpy.float64(0.5), "0.5"),
        (torch.zeros(1, device="meta"), "<Tensor of shape (1,)>"),
        (torch.zeros(2, 3), "<Tensor of shape (2, 3)>"),
        (numpy.zeros(2), "<ndarray of shape (2,)>"),
        ({"val_mean_dice": 0.5, "all": [1, 2]}, "{val_mean_dice: 0.5, all: <list of 2>}"),
        (list(range(10)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (dict.fromkeys(range(9), 0), "{0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, ...}"),
        ((Talkative(), {}), "[<Talkative>, <dict of 0>]"),
        ("a" * 300, "a" * 197 + "..."),
        ("a" * 200, "a" * 200),
        (["a" * 300] * 8, "[" + "a" * 196 + "..."),
        ("one\ntwo\x1b[0m", "one two [0m"),
        (math.inf, "inf"),
    ],
)
def test_values_are_shown_short_and_on_one_line(argument: object, text: str) -> None:
    assert function_of("lambda x: f'{x}'")(argument) == text


def test_an_object_of_its_own_kind_cannot_format_itself() -> None:
    with pytest.raises(ComponentError, match=r"Talkative cannot be written as '\.2f'"):
        function_of("lambda x: f'{x:.2f}'")(Talkative())


def test_an_integer_too_long_to_be_written_is_not() -> None:
    assert function_of("lambda x: f'{x}'")(10**5000) == "<a whole number beyond 64 bits>"
    with pytest.raises(ComponentError, match="int as 'd'"):
        function_of("lambda x: f'{x:d}'")(10**5000)
    with pytest.raises(ComponentError, match=r"int as '\.2f'"):
        function_of("lambda x: f'{x:.2f}'")(10**5000)


def test_formatted_text_is_bounded() -> None:
    function = function_of("lambda x: f'" + "{x}" * 50 + "'")
    assert len(function("a" * 300)) == expressions.MAX_TEXT_CHARACTERS
    assert len(function_of("lambda x: f'{x:f}'")(1e300)) == expressions.MAX_SHOWN_CHARACTERS


def test_print_writes_one_bounded_line_to_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert value_of("#print('%s', 1, f'{2}', 'two\\nlines')") is None
    function_of("lambda x: print(" + "x, " * 20 + ")")("a" * 300)
    first, second = logged(caplog)
    assert first == "%s 1 2 two lines"
    assert len(second) == expressions.MAX_TEXT_CHARACTERS
    assert capsys.readouterr().out == ""


# --- Any valid expression ------------------------------------------------------------------------

Pair = tuple[str, object]
NUMBERS: st.SearchStrategy[Pair] = (
    st.integers(-99, 99) | st.floats(-99, 99, allow_nan=False).map(lambda value: round(value, 3))
).map(lambda value: (repr(value), value))
ITEMS: dict[str, object] = {"a": 3, "b": 0.5, "c": [7, 0]}
READS: st.SearchStrategy[Pair] = st.sampled_from(
    [("x['a']", 3), ("x['b']", 0.5), ("x['c'][1]", 0), ("x['c'][-2]", 7), ("@four", 4)]
)


def combine(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Number expressions made of smaller ones, each with the value Python gives it."""
    arithmetic: dict[str, Callable[[Any, Any], object]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b if b else None,
        "//": lambda a, b: a // b if b else None,
        "%": lambda a, b: a % b if b else None,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "and": lambda a, b: a and b,
        "or": lambda a, b: a or b,
    }

    def binary(left: Any, right: Any, sign: str) -> Pair:
        return f"({left[0]} {sign} {right[0]})", arithmetic[sign](left[1], right[1])

    def conditional(test: Any, then: Any, otherwise: Any) -> Pair:
        return f"({then[0]} if {test[0]} else {otherwise[0]})", (
            then[1] if test[1] else otherwise[1]
        )

    def negation(operand: Any) -> Pair:
        return f"(not {operand[0]})", not operand[1]

    made = (
        st.builds(binary, inner, inner, st.sampled_from(sorted(arithmetic)))
        | st.builds(conditional, inner, inner, inner)
        | st.builds(negation, inner)
    )

    def with_value(pair: Any) -> Pair:
        """``None`` marks a division by zero; another expression stands in for it."""
        return pair if pair[1] is not None and abs(pair[1]) < MAX_INTEGER else ("0.25", 0.25)

    return made.map(with_value)


def display(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists, tuples, dictionaries and formatted numbers of smaller expressions."""

    def as_list(items: list[Any]) -> Pair:
        return "[" + ", ".join(text for text, _ in items) + "]", [value for _, value in items]

    def as_tuple(items: list[Any]) -> Pair:
        return "(" + "".join(f"{text}, " for text, _ in items) + ")", tuple(v for _, v in items)

    def as_dict(items: dict[str, Any]) -> Pair:
        texts = ", ".join(f"{key!r}: {text}" for key, (text, _) in items.items())
        return "{" + texts + "}", {key: value for key, (_, value) in items.items()}

    few = st.lists(inner, min_size=1, max_size=3)
    keys = st.text("abc", min_size=1, max_size=3)
    return (
        few.map(as_list)
        | few.map(as_tuple)
        | st.dictionaries(keys, inner, min_size=1, max_size=3).map(as_dict)
    )


VALID_NUMBERS = st.recursive(NUMBERS | READS, combine, max_leaves=12)
VALID = st.recursive(VALID_NUMBERS, display, max_leaves=4)


@given(VALID)
@settings(max_examples=300, deadline=None)
def test_a_valid_expression_has_the_value_that_python_gives_it(pair: Pair) -> None:
    text, value = f"lambda x: {pair[0]}", pair[1]
    if text.count("(") + text.count("[") + text.count("{") > MAX_DEPTH or len(text) > 900:
        return
    result = function_of(text, four=4)(ITEMS)
    assert (result, repr(result)) == (value, repr(value))


@given(VALID_NUMBERS)
@settings(max_examples=100, deadline=None)
def test_a_formatted_number_is_what_python_formats(pair: Pair) -> None:
    text = f'lambda x: f"<{{{pair[0]}:.3f}}>"'
    if text.count("(") > MAX_DEPTH - 5 or len(text) > 900 or "@" in text:
        return
    assert function_of(text)(ITEMS) == f"<{pair[1]:.3f}>"


def test_the_examples_in_the_docstrings_hold() -> None:
    outcome = doctest.testmod(expressions)
    assert outcome.failed == 0
    assert outcome.attempted > 0
