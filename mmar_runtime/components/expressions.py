"""The meaning of trees of ``mmar_runtime.config.expressions`` over the built objects.

The interpreter walks a tree; it holds no module, no builtin and no name lookup. A callee is one of
two functions of our own, a dtype comes from a table, a reference from the builder. What a lambda is
handed at run time (engines, dictionaries, lists, tensors) is read through the checks below, because
a parser cannot know it: a list times a number, or two shapes whose product is a thousand times
larger, is refused when it happens.

>>> from mmar_runtime.config.expressions import parse_expression
>>> built = {"model": "UNet"}.__getitem__
>>> interpret(parse_expression("#{'model': @model, 'epochs': 2 * 3}"), built)
{'model': 'UNet', 'epochs': 6}
>>> loss = interpret(parse_expression("lambda x: x[0]['loss'] * 100"), built)
>>> loss([{"loss": 0.5}])
50.0
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy
import torch
from monai.handlers import from_engine

from mmar_runtime.config.expressions import (
    FROM_ENGINE,
    MAX_INTEGER,
    NAMED_CONSTANTS,
    PRINT,
    TENSOR,
    Arithmetic,
    Attribute,
    BooleanOperation,
    Call,
    Cast,
    Compare,
    Comparison,
    Conditional,
    Constant,
    Display,
    ExpressionTree,
    FormattedText,
    FormattedValue,
    Lambda,
    MethodCall,
    NamedConstant,
    Node,
    Parameter,
    ReferenceName,
    Subscript,
    references,
)
from mmar_runtime.errors import ComponentError

logger = logging.getLogger("mmar_runtime.expressions")

MAX_SHOWN_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 1000
MAX_SHOWN_ITEMS = 8

_Number: TypeAlias = int | float | torch.Tensor


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """An interpreter of trees over the built objects by name, and over a lambda's argument."""

    objects: Mapping[str, object]
    argument: object = None

    def value(self, node: Node) -> object:
        """Return the value of a tree."""
        match node:
            case Constant():
                return node.value
            case NamedConstant():
                return _DTYPES[node.name]
            case ReferenceName():
                return self.objects[node.name]
            case Parameter():
                return self.argument
            case Lambda():
                body = node.body

                def interpreted_lambda(argument: object, /) -> object:
                    return _Interpreter(self.objects, argument).value(body)

                return interpreted_lambda
            case Comparison():
                return _COMPARISONS[node.operator]
            case Cast():
                return _cast(self.value(node.value), node.dtype)
            case Display():
                items = self.values(node.items)
                if node.kind == "dict":
                    return dict(zip(node.keys, items, strict=True))
                return tuple(items) if node.kind == "tuple" else items
            case Attribute():
                return self._attribute(node)
            case Subscript():
                return self._subscript(node)
            case Arithmetic():
                return self._arithmetic(node)
            case Compare():
                left = _comparable(self.value(node.left))
                right = _comparable(self.value(node.right))
                return _apply(_COMPARISONS[node.operator], left, right, node.operator)
            case BooleanOperation():
                return self._boolean_operation(node)
            case Conditional():
                holds = _truth(self.value(node.condition))
                return self.value(node.then if holds else node.otherwise)
            case Call():
                return self._call(node)
            case MethodCall():
                return self._method_call(node)
            case FormattedText():
                return _cut("".join(map(self._part_text, node.parts)), MAX_TEXT_CHARACTERS)

    def values(self, nodes: Iterable[Node]) -> list[object]:
        """Return the values of trees, in their order."""
        return [self.value(node) for node in nodes]

    def _attribute(self, node: Attribute) -> object:
        try:
            # Both names are fixed by the grammar; no other attribute of an engine can be asked for.
            return getattr(self.argument.state, node.field)  # type: ignore[attr-defined]
        except AttributeError as error:
            raise ComponentError(
                f"{node.parameter.name}.state.{node.field} was asked of {_kind(self.argument)}. "
                "It is there where an engine is given and this state is kept."
            ) from error

    def _subscript(self, node: Subscript) -> object:
        value = self.value(node.value)
        try:
            if isinstance(value, Mapping):
                return value[node.key]
            # Not with a string: a tensor would take it for a sequence of indices.
            if isinstance(value, _SEQUENCES) and isinstance(node.key, int):
                return value[node.key]
        except LookupError as error:
            raise _no_such_item(node.key, value) from error
        raise _no_such_item(node.key, value)

    def _arithmetic(self, node: Arithmetic) -> object:
        left = _number(self.value(node.left), node.operator)
        right = _number(self.value(node.right), node.operator)
        result = _apply(_OPERATORS[node.operator], left, right, node.operator)
        # Without a bound, a few products make an integer that takes minutes to write down.
        if isinstance(result, int) and abs(result) > MAX_INTEGER:
            raise ComponentError(f"The result of {node.operator!r} is beyond {MAX_INTEGER}.")
        return result

    def _boolean_operation(self, node: BooleanOperation) -> object:
        first, *others = node.operands
        value = self.value(first)
        if node.operator == "not":
            return not _truth(value)
        for other in others:
            # As in Python: the deciding value is the result, and later operands are not evaluated.
            if _truth(value) is (node.operator == "or"):
                return value
            value = self.value(other)
        return value

    def _call(self, node: Call) -> object:
        arguments = self.values(node.arguments)
        keywords = {keyword.name: self.value(keyword.value) for keyword in node.keywords}
        return _CALLEES[node.callee](*arguments, **keywords)

    def _method_call(self, node: MethodCall) -> object:
        target = self.objects[node.reference.name]
        # Only of a network: on anything else the name could mean anything.
        if not isinstance(target, torch.nn.Module):
            raise ComponentError(
                f"@{node.reference.name}.{node.method}() was asked of {_kind(target)}. "
                "Only a network, or a loss with weights, has parameters."
            )
        return _METHODS[node.method](target)

    def _part_text(self, part: Constant | FormattedValue) -> str:
        if isinstance(part, Constant):
            return str(part.value)
        value = self.value(part.value)
        if not part.spec:
            return _shown(value)
        plain = _plain(value)
        # Others could bring a __format__ of their own, which ignores the bounds on the format.
        if not isinstance(plain, int | float | str):
            raise ComponentError(
                f"{_kind(value)} cannot be written as {part.spec!r}. Give a number."
            )
        try:
            return _cut(format(plain, part.spec), MAX_SHOWN_CHARACTERS)
        except (ValueError, OverflowError) as error:
            raise ComponentError(f"{_kind(value)} as {part.spec!r}: {error}") from error


def interpret(tree: ExpressionTree, resolve: Callable[[str], object]) -> object:
    """Return the value of an expression.

    Args:
        tree: from ``parse_expression``.
        resolve: gives the built object of a reference's name. It is called once for each name,
            before anything else happens and also for names inside of a lambda; so a missing
            component shows when the expression is built, not at the first iteration.

    Returns:
        The value; for a lambda a function of one argument. Parameters of a model come as a list,
        which can be read more than once.

    Raises:
        ComponentError: the values do not fit the expression. A lambda raises it when it is called.
    """
    objects = {name: resolve(name) for name in sorted(references(tree))}
    return _Interpreter(objects).value(tree)


# --- Reading a lambda's argument ------------------------------------------------------------------


_SEQUENCES = (list, tuple, torch.Tensor, numpy.ndarray)


def _no_such_item(key: str | int, value: object) -> ComponentError:
    advice = "Ask for what is there."
    if isinstance(value, list) and isinstance(key, str):
        advice = (
            "The output of an engine is a list of dictionaries, one for each image: use "
            f"monai.handlers.from_engine([{key!r}]), or x[0][{key!r}] for the first."
        )
    elif isinstance(value, Mapping):
        advice = f"Its keys: {_shown_items(value)}."
    return ComponentError(f"[{key!r}] was asked of {_kind(value)}, which has none. {advice}")


def _kind(value: object) -> str:
    """Return the kind of a value without its content, which may be a patient's data."""
    if isinstance(value, torch.Tensor | numpy.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


# --- Numbers -------------------------------------------------------------------------------------

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": operator.floordiv,
        "%": operator.mod,
    }
)
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
)


def _number(value: object, sign: str) -> _Number:
    """Return the operand itself, or a NumPy scalar as Python's; text and lists are refused."""
    plain = value.item() if isinstance(value, numpy.number) else value
    if isinstance(plain, int | float | torch.Tensor):
        return plain
    raise ComponentError(
        f"{sign!r} takes numbers and tensors, not {_kind(value)}. "
        "Take the number out of it first, as in x[0]['loss']."
    )


def _cast(value: object, dtype: str) -> torch.Tensor:
    """Return a tensor as another type of numbers; an array's type is named as PyTorch names it."""
    if not isinstance(value, torch.Tensor):
        raise ComponentError(f"Only a tensor becomes {dtype}, not {_kind(value)}.")
    kind = _DTYPES[dtype]
    if not isinstance(kind, torch.dtype):
        kind = torch.from_numpy(numpy.zeros(0, kind)).dtype
    return value.to(kind)


def _comparable(value: object) -> object:
    plain = value.item() if isinstance(value, numpy.generic) else value
    if plain is None or isinstance(plain, int | float | str | torch.Tensor):
        return plain
    raise ComponentError(f"Only numbers, text, None and tensors compare, not {_kind(value)}.")


def _apply(function: Callable[[Any, Any], Any], left: object, right: object, sign: str) -> object:
    """Return the result for numbers, tensors of one shape, or a tensor and a single number.

    Broadcasting a column against a row would give the product of both sizes. A config could take
    the machine's memory so, by mistake or on purpose.
    """
    tensors = [operand for operand in (left, right) if isinstance(operand, torch.Tensor)]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1 and all(tensor.numel() != 1 for tensor in tensors):
        raise ComponentError(
            f"{sign!r} of the shapes {shapes[0]} and {shapes[1]}. "
            "They must be equal, or one of them a single number."
        )
    try:
        return function(left, right)
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        raise ComponentError(f"{_kind(left)} {sign} {_kind(right)}: {error}") from error


# --- Choices -------------------------------------------------------------------------------------


def _truth(value: object) -> bool:
    try:
        return bool(value)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ComponentError(
            f"{_kind(value)} is neither true nor false. Compare a single number of it."
        ) from error


# --- Text ----------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    """Return one line of bounded length: numbers and text, and a few items of containers.

    Containers in a container are only named.
    Never by their own ``__str__``: an image's would bring its voxels and its file's name.
    """
    plain = _plain(value)
    if plain is None or isinstance(plain, bool | float | str):
        return _cut(str(plain), MAX_SHOWN_CHARACTERS)
    if isinstance(plain, int):
        return str(plain) if abs(plain) <= MAX_INTEGER else "<a whole number beyond 64 bits>"
    if isinstance(plain, Mapping):
        return _cut(f"{{{_shown_items(plain, with_values=True)}}}", MAX_SHOWN_CHARACTERS)
    if isinstance(plain, list | tuple):
        items = ", ".join(map(_shown_item, plain[:MAX_SHOWN_ITEMS]))
        more = ", ..." if len(plain) > MAX_SHOWN_ITEMS else ""
        return _cut(f"[{items}{more}]", MAX_SHOWN_CHARACTERS)
    return f"<{_kind(value)}>"


def _shown_items(value: Mapping[Any, object], with_values: bool = False) -> str:
    texts = [
        f"{_shown_item(key)}: {_shown_item(item)}" if with_values else _shown_item(key)
        for key, item in islice(value.items(), MAX_SHOWN_ITEMS)
    ]
    return ", ".join([*texts, "..."] if len(value) > MAX_SHOWN_ITEMS else texts)


def _shown_item(value: object) -> str:
    return f"<{_kind(value)}>" if isinstance(value, Mapping | list | tuple) else _shown(value)


def _plain(value: object) -> object:
    """Return a tensor or an array of a single number as that number; anything else as it is."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta:
        return value.item()
    return value.item() if isinstance(value, numpy.generic) else value


def _cut(text: str, length: int) -> str:
    """Return the text on one line, so that it cannot pose as another line of the log."""
    shown = text if len(text) <= length else text[: length - 3] + "..."
    return "".join(character if character.isprintable() else " " for character in shown)


_DTYPES: Mapping[str, object] = MappingProxyType(
    {name: resolve_name(name) for name in NAMED_CONSTANTS.values()}
)
_CALLEES: Mapping[str, Callable[..., object]] = MappingProxyType(
    {
        FROM_ENGINE: lambda keys, first=False: from_engine(keys, first=first),
        PRINT: lambda *values: logger.info(
            "%s", _cut(" ".join(map(_shown, values)), MAX_TEXT_CHARACTERS)
        ),
        TENSOR: lambda values: torch.tensor(values, dtype=torch.float32),
    }
)
_METHODS: Mapping[str, Callable[[torch.nn.Module], object]] = MappingProxyType(
    {
        "parameters": lambda network: list(network.parameters()),
        "named_parameters": lambda network: list(network.named_parameters()),
    }
)
