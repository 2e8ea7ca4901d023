"""Plain JSON values -> nodes of the grammar, with every fault on the way collected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmar_runtime.config.expressions import ExpressionRefused, is_expression, parse_expression
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    DataListSource,
    Expression,
    ListNode,
    Literal,
    Node,
    Reference,
    TransformRef,
    WeightsFile,
    WeightsKind,
    map_node,
)
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import SCALARS, SITE, Variable
from mmar_runtime.config.variables import SubstitutionError, names_in, substitute
from mmar_runtime.errors import Problem, did_you_mean

DATA_LIST_KEYS = ("data_list_file_path", "data_file_base_dir", "data_list_key")
METRIC_KEYS = ("log_label", "negate")
COMPONENT_KEYS = ("name", "path", "args", "disabled", "rank", *METRIC_KEYS, *DATA_LIST_KEYS)
WEIGHTS_KEYS = ("ts_path", "ckpt_path")
AUTOML_KEYS = ("search", "apply", "@disabled")
AUTOML_ADVICE = "AutoML is not there. Take it out, to train once with the values that are written."
COMPONENT_BEARING = {
    ("Compose", "transforms"),
    ("OneOf", "transforms"),
    ("RandomOrder", "transforms"),
    ("SomeOf", "transforms"),
}
"""The arguments that hold components themselves; elsewhere in ``args`` the parser refuses
components, so that a reviewer of a config need not look for components in odd places."""

FOREIGN_KEYS = ("path", "class_path", "_target_")
"""Keys by which other libraries take any object for a component."""

MAX_DEPTH = 40
MAX_PROBLEMS = 100
"""The most problems of a document; the parser skips all values after them."""


class NodeParser:
    """Parses the values of a document; ``problems`` collects their faults."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self.variables = variables
        self.problems: list[Problem] = []

    def value(self, raw: Any, location: Location, *, components: bool = False) -> Node:
        """Return the node of any JSON value.

        Args:
            raw: the value as read.
            location: of the value.
            components: whether components are allowed here and below.
        """
        if len(self.problems) >= MAX_PROBLEMS:
            return Literal(location=location, value=None)
        if len(location.path) > MAX_DEPTH:
            return self._refused(location, f"is nested more than {MAX_DEPTH} levels deep", "depth")
        if isinstance(raw, list):
            items = [
                self.value(item, location / index, components=components)
                for index, item in enumerate(raw)
            ]
            return ListNode(location=location, items=tuple(items))
        refers = isinstance(raw, str) and raw.strip().startswith(("@", "#"))
        if components and not refers:
            return self.entry(raw, location)
        if isinstance(raw, dict):
            return self._plain_object(raw, location)
        if isinstance(raw, str):
            return self._text(raw, location)
        return Literal(location=location, value=raw)

    def entry(self, raw: Any, location: Location) -> Node:
        """Return the node of a place for a component, an object with a key of the grammar."""
        if not isinstance(raw, dict):
            several = isinstance(raw, list) and len(raw) > 1
            is_choice = several and all(isinstance(item, dict) for item in raw)
            return self._refused(
                location,
                f"has to be a component, an object with 'name' or 'path', found {_kind(raw)}",
                "component",
                "AutoML chose among several; keep one." if is_choice else "",
            )
        if "ref" in raw:
            return self._transform_ref(raw, location)
        if any(key in raw for key in WEIGHTS_KEYS):
            return self._weights_file(raw, location)
        if "name" not in raw and "path" not in raw:
            advice = did_you_mean_key(raw, ("name", "path", "ref", *WEIGHTS_KEYS))
            return self._refused(
                location,
                f"is not a component: it has no 'name' and no 'path'. {advice}",
                "component",
            )
        return self._component(raw, location)

    def _component(self, raw: dict[str, Any], location: Location) -> ComponentSpec:
        self._known_keys(raw, COMPONENT_KEYS, location)
        name, alias = self._name(raw, location)
        path = self._optional_text(raw, "path", location)
        if path is not None and not (
            "." in path and all(part.isidentifier() for part in path.split("."))
        ):
            self._problem(location / "path", f"{path!r} is not a path; write module.Class", "path")
        raw_args = raw.get("args", {})
        if not isinstance(raw_args, dict):
            self._problem(
                location / "args", f"has to be an object, found {_kind(raw_args)}", "arguments"
            )
            raw_args = {}
        args = {
            key: self.value(
                value,
                location / "args" / key,
                components=(name or "", key) in COMPONENT_BEARING,
            )
            for key, value in raw_args.items()
        }
        data_list = self._data_list(raw, location)
        if data_list is not None and "data" in args:
            message = "the argument 'data' and a data list; the component takes one of them"
            self._problem(location / "args" / "data", message, "data-list")
        return ComponentSpec(
            location=location,
            name=None if path is not None else name,
            path=path,
            alias=alias,
            args=map_node(location / "args", args),
            disabled=self._flag(raw, "disabled", location),
            rank=self._rank(raw, location),
            log_label=self._log_label(raw, location),
            negate=self._flag(raw, "negate", location),
            data_list=data_list,
        )

    def _name(self, raw: dict[str, Any], location: Location) -> tuple[str | None, str | None]:
        text = self._optional_text(raw, "name", location)
        if text is None:
            return None, None
        name, hash_sign, alias = text.partition("#")
        if hash_sign and not alias:
            self._problem(location / "name", f"{text!r} has nothing after its '#'", "name")
        return name, alias or None

    def _log_label(self, raw: dict[str, Any], location: Location) -> str | None:
        """Return the name of a metric; it leaves the site and so holds no value of the site."""
        text = raw.get("log_label")
        for name in names_in(text) if isinstance(text, str) else ():
            if name in self.variables and self.variables[name].source.file == SITE:
                message = f"{{{name}}} is the site's own value, and a metric's name leaves the site"
                self._problem(location / "log_label", message, "site-value", "Write a plain name.")
                return None
        return self._optional_text(raw, "log_label", location)

    def _data_list(self, raw: dict[str, Any], location: Location) -> DataListSource | None:
        if not any(key in raw for key in DATA_LIST_KEYS):
            return None
        missing = [key for key in DATA_LIST_KEYS if key not in raw]
        if missing:
            self._problem(
                location,
                f"the data list needs {', '.join(DATA_LIST_KEYS)}; missing: {', '.join(missing)}",
                "data-list",
            )
            return None
        file, base, key = (self._optional_text(raw, key, location) for key in DATA_LIST_KEYS)
        if file is None or base is None or key is None:
            return None
        return DataListSource(location=location, file=file, base=base, key=key)

    def _transform_ref(self, raw: dict[str, Any], location: Location) -> Node:
        self._known_keys(raw, ("ref", "disabled"), location)
        name = self._optional_text(raw, "ref", location)
        return TransformRef(
            location=location, name=name or "", disabled=self._flag(raw, "disabled", location)
        )

    def _weights_file(self, raw: dict[str, Any], location: Location) -> Node:
        self._known_keys(raw, (*WEIGHTS_KEYS, "disabled"), location)
        given = [key for key in WEIGHTS_KEYS if key in raw]
        if len(given) > 1:
            self._problem(location, "has ts_path and ckpt_path; write one entry for each", "model")
        disabled = self._flag(raw, "disabled", location)
        path = self._optional_text(raw, given[0], location) or ""
        kind: WeightsKind = "ts_path" if given[0] == "ts_path" else "ckpt_path"
        return WeightsFile(location=location, kind=kind, path=path, disabled=disabled)

    def _plain_object(self, raw: dict[str, Any], location: Location) -> Node:
        foreign = any(isinstance(raw.get(key), str) for key in FOREIGN_KEYS)
        if foreign or (isinstance(raw.get("name"), str) and "args" in raw):
            self._problem(
                location,
                "a component inside another component's arguments; only the transforms of Compose, "
                "OneOf, RandomOrder and SomeOf may be given so",
                "hidden-component",
                'Give it an entry of its own in the section and write "@entry" here.',
            )
        items = {key: self.value(value, location / key) for key, value in raw.items()}
        return map_node(location, items)

    def _text(self, text: str, location: Location) -> Node:
        if is_expression(text.strip()):
            try:
                return Expression(location=location, text=text, tree=parse_expression(text.strip()))
            except ExpressionRefused as error:
                return self._refused(location, str(error), "expression")
        if text.strip().startswith("@"):
            name = text.strip()[1:]
            if not name.isidentifier():
                return self._refused(
                    location, f"{text!r} is not a reference; write @name", "reference"
                )
            return Reference(location=location, name=name)
        return Literal(location=location, value=self._substituted(text, location))

    def _substituted(self, text: str, location: Location) -> Scalar:
        try:
            return substitute(text, self.variables, location)
        except SubstitutionError as error:
            self.problems.append(error.problem)
            return None

    def scalar(self, raw: Any, location: Location) -> Scalar:
        """Return a primitive value with its variables filled in; anything else is a problem."""
        if isinstance(raw, str):
            return self._substituted(raw, location)
        if raw is None or isinstance(raw, SCALARS):
            return raw
        self._problem(location, f"has to be a plain value, found {_kind(raw)}", "type")
        return None

    def _optional_text(self, raw: dict[str, Any], key: str, location: Location) -> str | None:
        if key not in raw:
            return None
        before = len(self.problems)
        value = self.scalar(raw[key], location / key)
        if len(self.problems) > before:
            return None
        if not isinstance(value, str) or not value:
            self._problem(location / key, f"has to be a string, found {value!r}", "type")
            return None
        return value

    def _flag(self, raw: dict[str, Any], key: str, location: Location) -> bool:
        """Return whether a key is true: only true counts, all but false is a mistake."""
        if key not in raw:
            return False
        before = len(self.problems)
        value = self.scalar(raw[key], location / key)
        if not isinstance(value, bool) and len(self.problems) == before:
            self._problem(location / key, f"has to be true or false, found {value!r}", key)
        return value is True

    def _rank(self, raw: dict[str, Any], location: Location) -> int | None:
        if "rank" not in raw:
            return None
        before = len(self.problems)
        value = self.scalar(raw["rank"], location / "rank")
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if len(self.problems) == before:
            self._problem(
                location / "rank", f"has to be a process number from 0, found {value!r}", "rank"
            )
        return None

    def _known_keys(self, raw: dict[str, Any], known: tuple[str, ...], location: Location) -> None:
        for key in raw:
            if key not in known:
                advice = AUTOML_ADVICE if key in AUTOML_KEYS else did_you_mean(key, known)
                self._problem(location / key, f"unknown key {key!r}", "unknown-key", advice)

    def _refused(self, location: Location, message: str, rule: str, advice: str = "") -> Literal:
        self._problem(location, message, rule, advice)
        return Literal(location=location, value=None)

    def _problem(self, location: Location, message: str, rule: str, advice: str = "") -> None:
        self.problems.append(Problem(location, message, advice, rule))


def did_you_mean_key(raw: Mapping[str, Any], known: tuple[str, ...]) -> str:
    """Return advice for an object without a key of the grammar."""
    for key in raw:
        advice = did_you_mean(key, known)
        if advice.startswith("Did"):
            return advice
    if "_target_" in raw:
        return "A MONAI bundle writes '_target_'; write 'name', and the rest into 'args'."
    return "Found: " + (", ".join(map(repr, raw)) or "nothing") + "."


def _kind(raw: Any) -> str:
    names = {list: "an array", dict: "an object", type(None): "null", bool: "a truth value"}
    return names.get(type(raw), repr(raw))
