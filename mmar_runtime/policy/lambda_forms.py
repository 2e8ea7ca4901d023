"""Which functions an argument may be given: the shape of a lambda's result.

A lambda is a few words of a language, yet in the argument of a metric it decides what leaves a
site. So each argument that takes a function has a form, and a form lists the shapes of its results.

>>> from mmar_runtime.config.expressions import parse_expression
>>> lambda_fault(parse_expression("lambda x: (x['pred'], x['label'])"), "metric_output")
''
>>> lambda_fault(parse_expression("lambda x: x[0]['image'][0][10]"), "metric_output")
"takes a part out of 'image'"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from mmar_runtime.config import expressions
from mmar_runtime.config.expressions import Node, from_engine_keys

LambdaForm: TypeAlias = Literal[
    "metric_output", "log_output", "number", "mask", "voxels", "comparison"
]
"""The purpose of a function.

metric_output   engine's output -> the input of a metric: whole entries of whole batches
log_output      engine's output or batch -> the values that a handler prints or draws, or None
number          engine, or a number such as an epoch -> a number
mask            tensor -> the voxels that count, by comparisons of its values with numbers
voxels          tensor -> a tensor, each value computed from that of its voxel alone
comparison      two numbers -> whether the first is better
"""

LAMBDA_FORMS: tuple[LambdaForm, ...] = get_args(LambdaForm)

INPUT = "image"
"""The entry with the engine's input; a metric compares it with another entry."""

LOSS = "loss"
"""Part of the name of each entry that holds one number for a whole batch."""

SCALES = 0.001, 1000.0
"""Bounds of a number that a metric's input is multiplied with or divided by.

Metrics are rounded before they leave; a larger factor would bring the lost digits back.
"""


def lambda_fault(tree: Node, form: LambdaForm) -> str:
    """Return why an expression is not a function of that form; empty if it is.

    Args:
        tree: the whole expression of the argument.
        form: the purpose of the argument.
    """
    if isinstance(tree, expressions.Comparison) == (form == "comparison"):
        if isinstance(tree, expressions.Comparison):
            return ""
        if isinstance(tree, expressions.Lambda):
            return _RESULTS[form](tree.body)
    match form, tree:
        case "metric_output", expressions.Call(callee=expressions.FROM_ENGINE):
            # It hands over whole entries of an item or of all.
            values = (keyword.value for keyword in tree.keywords)
            first = any(isinstance(value, expressions.Constant) and value.value for value in values)
            keys = from_engine_keys(tree) or ()
            return _first(_first_of(key) for key in keys if first) or _alone(keys)
        case "log_output", expressions.Call(callee=expressions.FROM_ENGINE):
            return ""
    return "is not a function such as from_engine(['pred']) or lambda x: x['loss']"


def lambda_advice(form: LambdaForm) -> str:
    """Return advice on the argument of a form."""
    return f"Write {' or '.join(EXAMPLES[form])}."


# --- The input of a metric -----------------------------------------------------------------------


def _first_of(key: str) -> str:
    """Return the fault of one item's entry; a loss is equal for all items of a batch."""
    fault = f"takes {key!r} of one item alone; a metric is computed from all items of a batch"
    return "" if LOSS in key else fault


def _alone(keys: Iterable[str]) -> str:
    fault = f"takes {INPUT!r} alone, which says nothing about a model"
    return fault if set(keys) == {INPUT} else ""


def _metric_result(body: Node) -> str:
    items = body.items if isinstance(body, expressions.Display) else (body,)
    return _first(map(_metric_item, items)) or _alone(_keys(body))


def _metric_item(item: Node) -> str:
    """Return the fault of an item: an entry, scaled, shifted or compared by numbers, has none."""
    if not isinstance(item, expressions.Compare):
        return _scaled_fault(item, scalable=True)
    entries, constants = _sides(item)
    if len(entries) != 1 or not isinstance(constants[0], int | float):
        return "compares other than one entry with one number"
    if INPUT in _keys(item):
        return f"picks voxels of {INPUT!r} by their values"
    return _scaled_fault(entries[0], scalable=True)


def _scaled_fault(item: Node, *, scalable: bool) -> str:
    if not isinstance(item, expressions.Arithmetic):
        return _metric_entry(item)
    entries, constants = _sides(item)
    if not entries:
        return "holds a number alone"
    if item.operator in ("+", "-"):
        return _first(_scaled_fault(entry, scalable=scalable) for entry in entries)
    number = constants[0] if constants else None
    divisor = item.operator == "/" and isinstance(item.right, expressions.Constant)
    fits = isinstance(number, int | float) and SCALES[0] <= abs(number) <= SCALES[1]
    if not (scalable and fits and (item.operator == "*" or divisor)):
        low, high = SCALES
        return f"computes with {item.operator!r} other than once, with a number of {low} to {high}"
    return _first(_scaled_fault(entry, scalable=False) for entry in entries)


def _sides(
    node: expressions.Compare | expressions.Arithmetic,
) -> tuple[list[Node], list[float | str | None]]:
    """Return the operands that are not constants, and the constants."""
    sides = (node.left, node.right)
    constants = [side.value for side in sides if isinstance(side, expressions.Constant)]
    return [side for side in sides if not isinstance(side, expressions.Constant)], constants


def _metric_entry(node: Node) -> str:
    """Return the fault of an entry; the engine's output and its whole entries have none."""
    if isinstance(node, expressions.Parameter):
        return ""
    root, keys = _chain(node)
    if not isinstance(root, expressions.Parameter):
        return f"holds {_named(node)}, which is not an entry of the engine's output"
    names = [key for key in keys if isinstance(key, str)]
    if len(names) != 1 or keys[-1] != names[0] or len(keys) > 2:
        return _part_of(names)
    return _first_of(names[0]) if len(keys) == 2 else ""


def _part_of(names: list[str]) -> str:
    return f"takes a part out of {names[0]!r}" if names else "takes a part out of the output"


def _keys(node: Node) -> list[str]:
    """Return the names of all entries in a result."""
    match node:
        case expressions.Display():
            return [key for item in node.items for key in _keys(item)]
        case expressions.Arithmetic() | expressions.Compare():
            return [*_keys(node.left), *_keys(node.right)]
        case expressions.Subscript():
            return [key for key in _chain(node)[1] if isinstance(key, str)]
    return []


# --- Printed, counted and compared values --------------------------------------------------------


def _log_result(node: Node) -> str:
    match node:
        case expressions.FormattedText():
            values = (
                part.value for part in node.parts if not isinstance(part, expressions.Constant)
            )
            return _first(map(_log_result, values))
        case expressions.Display():
            return _first(map(_log_result, node.items))
        case expressions.Call():  # print, for from_engine gives a function and not a result
            fault = "gives a function back" if node.callee == expressions.FROM_ENGINE else ""
            return fault or _first(map(_log_result, node.arguments))
    return _value_fault(node, _log_result)


def _number_result(node: Node) -> str:
    """Return the fault of a number, or of a tuple: a scheduler takes ``()`` or a metric."""
    if isinstance(node, expressions.Display) and node.kind == "tuple":
        return _first(map(_number_result, node.items))
    if isinstance(node, expressions.Constant) and not isinstance(node.value, int | float):
        return "is not a number"
    return _value_fault(node, _number_result)


def _mask_result(node: Node) -> str:
    match node:
        case expressions.Compare():
            return _first(map(_voxel_fault, (node.left, node.right)))
        case expressions.BooleanOperation():
            return _first(map(_mask_result, node.operands))
        case expressions.Arithmetic(operator="*" | "+"):  # 'and' and 'or' of tensors
            return _first(map(_mask_result, (node.left, node.right)))
    return "is not a comparison"


def _voxels_result(node: Node) -> str:
    """Return the fault of new values: each is computed from that of its voxel and from numbers."""
    match node:
        case expressions.Parameter():
            return ""
        case expressions.Cast():
            return _voxels_result(node.value)
        case expressions.Arithmetic(operator="+" | "-" | "*" | "/"):
            return _first(map(_voxels_operand, (node.left, node.right)))
    return _mask_result(node)


def _voxels_operand(node: Node) -> str:
    number = isinstance(node, expressions.Constant) and isinstance(node.value, int | float)
    return "" if number else _voxels_result(node)


def _voxel_fault(node: Node) -> str:
    if isinstance(node, expressions.Arithmetic):
        return _first(map(_voxel_fault, (node.left, node.right)))
    number = isinstance(node, expressions.Constant) and isinstance(node.value, int | float)
    return "" if number or isinstance(node, expressions.Parameter) else f"holds {_named(node)}"


def _value_fault(node: Node, inner: Callable[[Node], str]) -> str:
    """Return the fault of a value computed from the argument; ``inner`` judges the operands."""
    match node:
        case expressions.Constant() | expressions.Parameter():
            return ""
        case expressions.Subscript() | expressions.Attribute():
            keys = _chain(node)[1]
            names = [key for key in keys if isinstance(key, str)]
            # A second index would pick inside of a tensor.
            return _part_of(names) if len(keys) - len(names) > 1 else ""
        case expressions.Arithmetic() | expressions.Compare():
            return _first(map(inner, (node.left, node.right)))
        case expressions.BooleanOperation():
            return _first(map(inner, node.operands))
        case expressions.Conditional():
            return _first(map(inner, (node.condition, node.then, node.otherwise)))
    return f"holds {_named(node)}"


# --- Both ----------------------------------------------------------------------------------------


def _chain(node: Node) -> tuple[Node, list[str | int]]:
    """Return the value at the start of a chain of subscripts, and the keys in their order."""
    keys: list[str | int] = []
    while isinstance(node, expressions.Subscript):
        keys.insert(0, node.key)
        node = node.value
    return node, keys


def _named(node: Node) -> str:
    return _NAMES.get(type(node), f"a {type(node).__name__}")


def _first(faults: Iterable[str]) -> str:
    return next(filter(None, faults), "")


_NAMES: Mapping[type[object], str] = MappingProxyType(
    {
        expressions.Attribute: "the engine's state",
        expressions.Call: "a call",
        expressions.Cast: "another type of numbers",
        expressions.Conditional: "a choice",
        expressions.BooleanOperation: "a choice",
        expressions.Compare: "a comparison",
        expressions.Constant: "a constant",
        expressions.Display: "a list in a list",
        expressions.FormattedText: "a text",
        expressions.MethodCall: "a call",
        expressions.NamedConstant: "a dtype",
        expressions.ReferenceName: "a reference",
    }
)
_RESULTS: Mapping[LambdaForm, Callable[[Node], str]] = MappingProxyType(
    {
        "metric_output": _metric_result,
        "log_output": _log_result,
        "number": _number_result,
        "mask": _mask_result,
        "voxels": _voxels_result,
    }
)
EXAMPLES: Mapping[LambdaForm, tuple[str, ...]] = MappingProxyType(
    {
        "metric_output": (
            "#monai.handlers.from_engine(['pred', 'label'])",
            "#monai.handlers.from_engine(['loss'], first=True)",
        ),
        "log_output": ("lambda x: None", "#monai.handlers.from_engine(['loss'], first=True)"),
        "number": ("lambda engine: engine.state.metrics['val_mean_dice']",),
        "mask": ("lambda x: x > 0",),
        "voxels": ("lambda x: (x > 0).float()", "lambda x: x / 255"),
        "comparison": ("lambda new, best: new < best",),
    }
)
