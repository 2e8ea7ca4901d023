"""All values that a node of a configuration may come to, known without building anything.

The judgement is an abstract interpretation: numbers become an interval, texts a set. Each part of
an expression is looked at once, so the work grows with the size of the tree and with nothing else.

>>> from mmar_runtime.config.expressions import parse_expression
>>> possible = possible_of(parse_expression("#[2 * (8 if 1 < 2 else 16), 'mean']"))
>>> possible.least, possible.most, sorted(possible.texts), possible.others
(16.0, 32.0, ['mean'], False)
>>> possible_of(parse_expression("#1 / (0 or 4)")).most
inf
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

from mmar_runtime.config import expressions
from mmar_runtime.config.nodes import Expression, ListNode, Literal, MapNode, Node, Reference

MAX_TEXTS = 64
"""Texts that one f-string may come to and that are still listed."""

MAX_TEXT = 200
"""Characters of a listed part of an f-string; the interpreter cuts longer parts."""

EXACT = 2.0**53
"""Up to here a real number stores every whole number."""


@dataclass(frozen=True, slots=True)
class Possible:
    """All that a node may come to. Lists and maps count by their items, keys are left out.

    ``None`` adds nothing. A flag counts as the number 0 or 1, which is how Python computes with it.

    Attributes:
        least: the lower end of the interval of its numbers; ``-inf`` without a known one, and
            ``+inf`` where no number is possible.
        most: the upper end, with the signs turned.
        texts: all its texts; ``None`` where they cannot be listed.
        others: whether it may be an object: a component, a dtype, a function.
    """

    least: float = math.inf
    most: float = -math.inf
    texts: frozenset[str] | None = frozenset()
    others: bool = False

    @property
    def has_numbers(self) -> bool:
        """Whether it may be a number at all."""
        return self.least <= self.most


_NOTHING = Possible()
_OBJECT = Possible(others=True)
_FLAG = Possible(0, 1)
_UNBOUNDED = Possible(-math.inf, math.inf)
_ANYTHING = Possible(-math.inf, math.inf, None, others=True)


def possible_values(node: Node) -> Possible:
    """Return all that a node of a configuration may come to.

    A reference may come to anything: its object is not looked up here.
    """
    match node:
        case Literal():
            return _constant(node.value)
        case ListNode():
            return _either(map(possible_values, node.items))
        case MapNode():
            return _either(map(possible_values, node.items.values()))
        case Expression():
            return possible_of(node.tree)
        case Reference():
            return _ANYTHING
    return _OBJECT


def possible_of(tree: expressions.ExpressionTree) -> Possible:
    """Return all that an expression may come to, without the results of a lambda."""
    match tree:
        case expressions.Constant():
            return _constant(tree.value)
        case expressions.Display():
            return _either(map(possible_of, tree.items))
        case expressions.Conditional():
            return _either(map(possible_of, (tree.then, tree.otherwise)))
        case expressions.BooleanOperation(operator="not"):
            return _FLAG
        case expressions.BooleanOperation():
            return _either(map(possible_of, tree.operands))
        case expressions.Compare():
            sides = (possible_of(tree.left), possible_of(tree.right))
            return Possible(0, 1, others=any(side.others for side in sides))  # flag or tensor
        case expressions.Arithmetic():
            left, right = possible_of(tree.left), possible_of(tree.right)
            computes = left.has_numbers and right.has_numbers  # a run refuses all but tensors too
            numbers = _step(tree.operator, left, right) if computes else _NOTHING
            return replace(numbers, others=left.others or right.others)
        case expressions.FormattedText():
            return Possible(texts=_formatted(tree.parts))
        case expressions.Parameter() | expressions.Attribute() | expressions.Subscript():
            return _ANYTHING
        case expressions.ReferenceName():
            return _ANYTHING
        case expressions.MethodCall():  # of named parameters, the names are texts
            return Possible(texts=None, others=True)
        case expressions.Call(callee=expressions.PRINT):
            return _NOTHING
    return _OBJECT


def _constant(value: float | str | None) -> Possible:
    if isinstance(value, str):
        return Possible(texts=frozenset([value]))
    return _NOTHING if value is None else _interval([float(value)])


def _interval(ends: Iterable[float]) -> Possible:
    """Return the interval around numbers; unbounded if any is not finite.

    Beyond ``EXACT`` Python's whole numbers are finer than these ends, which then give way.
    """
    ends = list(ends)
    if not all(map(math.isfinite, ends)):
        return _UNBOUNDED
    least, most = min(ends), max(ends)
    return Possible(
        least if abs(least) < EXACT else math.nextafter(least, -math.inf),
        most if abs(most) < EXACT else math.nextafter(most, math.inf),
    )


def _either(choices: Iterable[Possible]) -> Possible:
    """Return all that is possible for any of the choices."""
    every = list(choices)
    texts = [choice.texts for choice in every if choice.texts is not None]
    return Possible(
        least=min((choice.least for choice in every), default=math.inf),
        most=max((choice.most for choice in every), default=-math.inf),
        texts=frozenset().union(*texts) if len(texts) == len(every) else None,
        others=any(choice.others for choice in every),
    )


def _step(sign: str, left: Possible, right: Possible) -> Possible:
    """Return the interval of a step; each operation is monotonic, so the corners suffice."""
    ends = (left.least, left.most, right.least, right.most)
    by_zero = sign in _DIVISIONS and right.least <= 0 <= right.most
    if by_zero or not all(map(math.isfinite, ends)):
        return _UNBOUNDED
    if sign == "%":  # between zero and the divisor, for any dividend
        return _interval([0.0, right.least, right.most])
    pairs = product((left.least, left.most), (right.least, right.most))
    return _interval(_OPERATORS[sign](left_end, right_end) for left_end, right_end in pairs)


_DIVISIONS = ("/", "//", "%")
_OPERATORS: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": operator.floordiv,
    }
)


def _formatted(
    parts: Iterable[expressions.Constant | expressions.FormattedValue],
) -> frozenset[str] | None:
    """Return the texts of an f-string; ``None`` with a number, an object or a format in it."""
    texts = frozenset([""])
    for part in parts:
        if isinstance(part, expressions.Constant):
            endings = _constant(part.value).texts
        else:
            fixed = not part.spec and _is_text(part.value)
            endings = possible_of(part.value).texts if fixed else None
        if endings is None or len(texts) * len(endings) > MAX_TEXTS:
            return None
        # The interpreter cuts and blanks these texts, so they are not listed.
        if any(len(end) > MAX_TEXT or not end.isprintable() for end in endings):
            return None
        texts = frozenset(before + after for before in texts for after in endings)
    return texts


def _is_text(tree: expressions.Node) -> bool:
    match tree:
        case expressions.Constant():
            return isinstance(tree.value, str)
        case expressions.Conditional():
            return _is_text(tree.then) and _is_text(tree.otherwise)
        case expressions.BooleanOperation(operator="and" | "or"):
            return all(map(_is_text, tree.operands))
    return isinstance(tree, expressions.FormattedText)
