"""The check of each argument against its form, which the review of its class has stated.

A literal and an expression are judged alike, part by part. A value that is unknown before the run,
such as a text from a lambda's parameter, has no form and is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mmar_runtime.config import expressions
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    Expression,
    ListNode,
    Literal,
    MapNode,
    Node,
    Reference,
    TransformRef,
)
from mmar_runtime.errors import Problem
from mmar_runtime.names import quoted
from mmar_runtime.policy.component_table import MAX_TEXT, ComponentEntry, Form
from mmar_runtime.policy.lambda_forms import lambda_advice, lambda_fault
from mmar_runtime.policy.possible_values import possible_of

KindOf: TypeAlias = Callable[[str], str | None]
"""The kind of entry that a reference means; ``None`` for an object of the MMAR's own code."""

CONF = "conf"
"""The kind of ``@conf``, the configuration itself."""

MAX_LISTED = 8
NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?", re.ASCII)
"""A text that would be a number without its quotes."""

_PLAIN_KEY = re.compile(rf"(?!__)\w[\w .:+\-*]{{0,{MAX_TEXT - 1}}}")


def argument_faults(
    spec: ComponentSpec, entry: ComponentEntry, kind_of: KindOf
) -> Iterator[Problem]:
    """Yield the faults among the values of a component's arguments, in the order of the document.

    Args:
        spec: the component.
        entry: its class.
        kind_of: the kind of entry that a name after ``@`` means in the component's section.
    """
    for name, node in spec.args.items.items():
        form = entry.arguments.get(name)
        if form is None or form.denied:
            continue  # the check of the names reports these
        named_by_keys = form.path == "name" and isinstance(node, MapNode)
        if form.path and not (form.members or named_by_keys):
            continue  # and the check of paths these
        for fault in _Judge(form, kind_of, spec.args.location / name).faults(node):
            message = f"{entry.name}: {name} {fault.message}"
            yield Problem(fault.place, message, fault.advice or allowed(form), fault.rule)


def allowed(form: Form) -> str:
    """Return a sentence about the values that a form allows."""
    parts = ", or ".join(_allowed(form))
    return f"Allowed: {parts}." if parts else ""


@dataclass(frozen=True, slots=True)
class _Fault:
    place: Location
    message: str
    rule: str = "denied-argument"
    advice: str = ""


_Part: TypeAlias = Node | expressions.Node


@dataclass(frozen=True, slots=True)
class _Judge:
    """One argument against its form.

    Attributes:
        form: what is allowed.
        kind_of: see ``argument_faults``.
        place: of the judged value; an expression is a single place.
    """

    form: Form
    kind_of: KindOf
    place: Location

    def faults(self, part: _Part) -> Iterator[_Fault]:
        """Yield the faults of a node of a document or of an expression."""
        if self.form.data:
            return
        match part:
            case Expression():
                yield from self.faults(part.tree)
            case Literal() | expressions.Constant():
                yield from self._scalar(part.value)
            case ListNode():
                for item in part.items:
                    yield from self._at(item.location).faults(item)
            case MapNode():
                yield from self._members(part.items.items())
            case expressions.Display(kind="dict"):
                yield from self._members(zip(part.keys, part.items, strict=True))
            case expressions.Display():
                yield from self._each(part.items)
            case expressions.Conditional():
                yield from self._each((part.then, part.otherwise))
            case expressions.BooleanOperation(operator="and" | "or"):
                yield from self._each(part.operands)
            case expressions.BooleanOperation() | expressions.Compare():
                yield from self._scalar(True) if self.form.flag else self._number(0, 1)
            case expressions.Arithmetic():
                yield from self._computed(part)
            case expressions.Call(callee=expressions.TENSOR) if self.form.tensor:
                yield from self._each(part.arguments)
            case expressions.FormattedText():
                yield from self._formatted(part)
            case _:
                yield from self._object(part)

    def _at(self, place: Location) -> _Judge:
        return _Judge(self.form, self.kind_of, place)

    def _each(self, parts: Iterable[_Part]) -> Iterator[_Fault]:
        for part in parts:
            yield from self.faults(part)

    def _scalar(self, value: object) -> Iterator[_Fault]:
        form = self.form
        if isinstance(value, str):
            listed = value.isascii() and (value if form.exact else value.lower()) in form.words
            plain = len(value) <= MAX_TEXT and value.isprintable()
            fits = bool(form.pattern) and plain and re.fullmatch(form.pattern, value)
            if not listed and not fits:
                number = form.number is not None and NUMBER.fullmatch(value)
                advice = f"Write {value} without quotes, as a number." if number else ""
                yield self._fault(f"is {'the text ' * bool(number)}{quoted(value)}", advice=advice)
        elif isinstance(value, bool) and form.flag:
            if value and form.off:
                message = f"must be false: {form.off}"
                yield self._fault(message, advice="Write false.")
        elif isinstance(value, int | float):
            yield from self._number(value, value)

    def _number(self, least: float, most: float) -> Iterator[_Fault]:
        form = self.form
        if form.number is None:
            if not (form.flag and not form.off and {least, most} <= {0, 1}):
                yield self._fault("is a number")
        elif not form.number[0] <= least <= most <= form.number[1]:
            finite = math.isfinite(least) and math.isfinite(most)
            reached = f"may be from {least:g} to {most:g}" if least != most else f"is {least:g}"
            reached = reached if finite or least == most else "cannot be bounded before the run"
            bounds = f"{form.number[0]:g} is the least and {form.number[1]:g} the most"
            yield self._fault(f"{reached}; {bounds}", "limit")
        elif form.whole and least == most and not float(least).is_integer():
            yield self._fault(f"is {least}, which is not a whole number")

    def _computed(self, part: expressions.Arithmetic) -> Iterator[_Fault]:
        possible = possible_of(part)
        if possible.others or not possible.has_numbers:
            rule = "denied-argument" if self.form.number is None else "limit"
            yield self._fault("is computed from something that is not a number", rule)
        else:
            yield from self._number(possible.least, possible.most)

    def _formatted(self, part: expressions.FormattedText) -> Iterator[_Fault]:
        texts = possible_of(part).texts
        if texts is None:
            yield self._fault("is a text that cannot be known before the run")
        for text in sorted(texts or ()):
            yield from self._scalar(text)

    def _members(self, members: Iterable[tuple[str | int, _Part]]) -> Iterator[_Fault]:
        for key, value in members:
            form = self.form.members.get(str(key), self.form.members.get("*"))
            # The check of paths judges the names of files.
            if form is None or not (self.form.path or _PLAIN_KEY.fullmatch(str(key))):
                yield self._fault(f"has the key {quoted(str(key))}")
                continue
            place = getattr(value, "location", self.place)
            yield from _Judge(form, self.kind_of, place).faults(value)

    def _object(self, part: _Part) -> Iterator[_Fault]:
        form = self.form
        match part:
            case Reference() | expressions.ReferenceName():
                yield from self._reference(part.name)
                return
            case (
                expressions.Lambda()
                | expressions.Comparison()
                | expressions.Call(callee=expressions.FROM_ENGINE)
            ):
                yield from self._function(part)
                return
            case expressions.NamedConstant():
                fits = form.dtype
            case expressions.MethodCall():
                fits = form.parameters and self.kind_of(part.reference.name) in (None, "network")
            case ComponentSpec() | TransformRef():
                fits = form.components
            case _:
                fits = False
        if not fits:
            yield self._fault(f"is {_NAMES.get(type(part), 'an object')}")

    def _function(
        self, tree: expressions.Lambda | expressions.Comparison | expressions.Call
    ) -> Iterator[_Fault]:
        if self.form.function is None:
            yield self._fault("is a function")
        elif fault := lambda_fault(tree, self.form.function):
            yield self._fault(fault, advice=lambda_advice(self.form.function))

    def _reference(self, name: str) -> Iterator[_Fault]:
        kind = self.kind_of(name)
        if kind in self.form.refers:
            return
        # Without a kind it is the MMAR's own code, which a site has allowed as it is.
        if kind is not None or not (self.form.refers or self.form.function):
            of_kind = "" if kind in (None, CONF) else f", which is a {kind.replace('_', ' ')}"
            yield self._fault(f"is @{name}{of_kind}")

    def _fault(self, message: str, rule: str = "denied-argument", advice: str = "") -> _Fault:
        return _Fault(self.place, message, rule, advice)


_NAMES: dict[type, str] = {
    expressions.NamedConstant: "a type of numbers",
    expressions.MethodCall: "the parameters of a network",
    expressions.Call: "a call",
    ComponentSpec: "a component",
    TransformRef: "a component",
}


def _allowed(form: Form) -> Iterator[str]:
    if form.number is not None:
        what = "a whole number" if form.whole else "a number"
        yield f"{what} from {form.number[0]:g} to {form.number[1]:g}"
    if form.flag:
        yield "false" if form.off else "true or false"
    if form.words:
        words = sorted(form.words)
        more = " and others" if len(words) > MAX_LISTED else ""
        yield f"one of {', '.join(map(repr, words[:MAX_LISTED]))}{more}"
    if form.pattern:
        yield f"a plain text ({form.name})"
    if form.refers:
        kinds = ", ".join(kind.replace("_", " ") for kind in sorted(form.refers))
        yield f"a reference @name to an entry of the kind {kinds}"
    if form.parameters:
        yield '"#@model.parameters()"'
    if form.dtype:
        yield 'a type such as "#torch.float32"'
    if form.function:
        yield "a lambda"
    if form.components:
        yield "transforms written out"
    if form.members:
        keys = ", ".join(sorted(form.members)).replace("*", "plain names")
        yield f"an object with the keys {keys}"
