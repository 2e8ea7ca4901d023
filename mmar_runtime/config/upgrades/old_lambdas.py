"""Lambdas of the 4.0 dialect that call MONAI's transforms, read by their shape; nothing is run.

4.0's documents made the input of a metric or of a saver in the lambda itself, and imported MONAI
there. Only a few shapes are known; every other text stays for the expression language to refuse.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Any

from mmar_runtime.config.expressions import MAX_CHARACTERS

TRANSFORMS = ("Activations", "AsDiscrete", "FillHoles", "KeepLargestConnectedComponent")
"""Transforms of one image with a dictionary transform of the same arguments."""

PLAIN = re.compile(r"#?\s*lambda [ -\[\]-~]*")
"""The characters of a lambda: printable ASCII, without the backslash."""

KEY = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")

PLAIN_METHODS = ("detach", "cpu", "float", "contiguous")
"""Methods of a tensor without arguments that change neither a metric nor a file."""


@dataclass(frozen=True, slots=True)
class Value:
    """One entry of an engine's output, and the transforms that it went through, in their order."""

    key: str
    transforms: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()


def computed_values(text: Any) -> tuple[Value, ...]:
    """Return the values that a lambda makes of an engine's output; none for any other text.

    >>> computed_values("lambda x: monai.transforms.AsDiscrete(argmax=True)(x['pred'][0][None])")
    (Value(key='pred', transforms=(('AsDiscrete', (('argmax', True),)),)),)
    >>> computed_values("lambda x: __import__('os').system('id')")
    ()
    """
    body = _body(text)
    several = isinstance(body, ast.Tuple | ast.List) and len(body.elts) > 1
    items = body.elts if isinstance(body, ast.Tuple | ast.List) and several else [body]
    try:
        return tuple(_value(item) for item in items)
    except _UnknownShapeError:
        return ()


class _UnknownShapeError(Exception):
    """The lambda is of a shape that no rule knows."""


def _body(text: Any) -> ast.expr | None:
    """Return the body of a lambda of one plain parameter."""
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS or not PLAIN.fullmatch(text):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text.strip().removeprefix("#").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning):
        return None
    return tree.body if isinstance(tree, ast.Lambda) and len(tree.args.args) == 1 else None


def _value(node: ast.expr | None) -> Value:
    """Return the value of an expression; a loop, as a text can nest deeper than Python's stack."""
    transforms: list[tuple[str, tuple[tuple[str, Any], ...]]] = []
    while True:
        match node:
            case ast.Subscript(value=ast.Name(), slice=ast.Constant(value=str(key))) if (
                KEY.fullmatch(key)
            ):
                return Value(key, tuple(reversed(transforms)))
            case ast.Subscript(
                value=ast.Subscript(value=inner, slice=ast.Constant(value=0)),
                slice=ast.Constant(value=None),
            ):
                node = inner  # the only item of the batch, as a batch
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Subscript(value=inner, slice=ast.Constant(value=0)), attr="unsqueeze"
                ),
                args=[ast.Constant(value=0)],
                keywords=[],
            ):
                node = inner
            case ast.Call(func=ast.Attribute(value=inner, attr=method), args=[]) if _method(
                method, node.keywords
            ):
                transforms.append(("AsDiscrete", _method(method, node.keywords)))
                node = inner
            case ast.Call(func=ast.Attribute(value=inner, attr=method), args=[], keywords=[]) if (
                method in PLAIN_METHODS
            ):
                node = inner
            case ast.Call(func=ast.Call() as made, args=[inner], keywords=[]):
                transforms += reversed(_made(made))
                node = inner
            case _:
                raise _UnknownShapeError


def _method(name: str, keywords: list[ast.keyword]) -> tuple[tuple[str, Any], ...]:
    """Return what AsDiscrete takes to do the same as a method of a tensor; empty for others."""
    given = {word.arg: word.value for word in keywords}
    values = {key: node.value for key, node in given.items() if isinstance(node, ast.Constant)}
    if name == "argmax" and values == {"dim": 1, "keepdim": True}:
        return (("argmax", True),)
    return (("rounding", "torchrounding"),) if name == "round" and not given else ()


def _made(call: ast.Call) -> list[tuple[str, tuple[tuple[str, Any], ...]]]:
    """Return the transforms that a constructor makes, ``Compose`` included, in their order."""
    name = _monai_class(call.func)
    if name == "Compose" and len(call.args) == 1 and isinstance(call.args[0], ast.List):
        parts = call.args[0].elts
        return [step for part in parts for step in _made_simply(part)]
    return _made_simply(call)


def _made_simply(node: ast.expr) -> list[tuple[str, tuple[tuple[str, Any], ...]]]:
    if not isinstance(node, ast.Call) or node.args:
        raise _UnknownShapeError
    name = _monai_class(node.func)
    if name not in TRANSFORMS or any(keyword.arg is None for keyword in node.keywords):
        raise _UnknownShapeError
    return [(name, tuple((str(word.arg), _constant(word.value)) for word in node.keywords))]


def _constant(node: ast.expr) -> Any:
    """Return a plain constant, or a list of plain constants as a tuple."""
    parts = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
    values = tuple(part.value for part in parts if isinstance(part, ast.Constant))
    if len(values) != len(parts) or not all(
        value is None or isinstance(value, bool | int | float | str) for value in values
    ):
        raise _UnknownShapeError
    return values if isinstance(node, ast.List | ast.Tuple) else values[0]


def _monai_class(node: ast.expr) -> str:
    """Return the name of a class of ``monai.transforms``, however the lambda came by it."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    match node:
        case ast.Name(id=root):
            names.append(root)
        case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(root)), *_]):
            names += reversed(root.split("."))
    dotted = ".".join(reversed(names))
    package, _, name = dotted.rpartition(".")
    if package not in ("", "monai.transforms", "transforms"):
        raise _UnknownShapeError
    return name
