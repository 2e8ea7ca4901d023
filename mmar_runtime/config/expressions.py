"""The closed expression language of MMAR configs: text becomes a small tree, or is refused.

Two spellings exist in the files: ``"#<expression>"`` and a bare ``"lambda x: ..."``. Python's own
parser reads them; ``_Reader`` then gives each kind of its nodes a meaning, and refuses all other
kinds. Nothing is evaluated in this module: ``mmar_runtime.components.expressions`` interprets the
trees.

>>> parse_expression("#@model.parameters()")
MethodCall(reference=ReferenceName(name='model'), method='parameters')
>>> parse_expression("lambda x: x['loss']")
Lambda(parameter='x', body=Subscript(value=Parameter(name='x'), key='loss'))
>>> parse_expression("#monai.os.system('id')")  # doctest: +IGNORE_EXCEPTION_DETAIL
Traceback (most recent call last):
ExpressionRefused: Found a call of 'monai.os.system'. Allowed: monai.handlers.from_engine(...) ...
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NoReturn, TypeAlias, TypeGuard, get_args

MAX_CHARACTERS = 1000
MAX_NODES = 120
MAX_DEPTH = 20
MAX_INTEGER = 2**63 - 1
MAX_FORMAT_SPEC = 4

FROM_ENGINE = "monai.handlers.from_engine"
PRINT = "print"
TENSOR = "torch.tensor"

CALLEES: Mapping[str, str] = MappingProxyType(
    {FROM_ENGINE: FROM_ENGINE, "from_engine": FROM_ENGINE, PRINT: PRINT, TENSOR: TENSOR}
)
"""The names that a config may write before the parenthesis -> the name in the tree."""

REFERENCE_METHODS = ("parameters", "named_parameters")
"""Methods that ``@name`` may be asked for. ``state_dict`` is not among them: no config needs it,
and it hands out the live weights under the names of the model's insides."""

STATE_FIELDS = (
    "iteration",
    "epoch",
    "epoch_length",
    "max_epochs",
    "output",
    "batch",
    "metrics",
    "best_metric",
    "best_metric_epoch",
    "key_metric_name",
    "rank",
)
"""Fields of ``engine.state`` that a lambda with the parameter ``engine`` may read."""

_TORCH_DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64", "int", "long"),
    *("bfloat16", "float16", "float32", "float64", "half", "float", "double"),
)
_NUMPY_DTYPES = (
    *("bool_", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)

CASTS: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"torch.{name}" for name in ("bool", "int", "long", "half", "float", "double")},
        **dict.fromkeys(("to", "type", "astype"), ""),
    }
)
"""Methods that give a tensor another type of numbers -> the type; empty where it is an argument."""

NAMED_CONSTANTS: Mapping[str, str] = MappingProxyType(
    {f"torch.{name}": f"torch.{name}" for name in _TORCH_DTYPES}
    | {f"numpy.{name}": f"numpy.{name}" for name in _NUMPY_DTYPES}
    | {f"np.{name}": f"numpy.{name}" for name in _NUMPY_DTYPES}
)
"""Dotted names with a value, as a config may write them, and the name that the tree holds."""


class ExpressionRefused(ValueError):
    """The text is outside the expression language.

    Attributes:
        message: the refused construct, and the allowed constructs.
        advice: the next step.
    """

    def __init__(self, message: str, advice: str) -> None:
        # Both go to ``args``, so that the error survives being sent between processes.
        super().__init__(message, advice)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}"


# --- The tree ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constant:
    """``None``, a truth value, a bounded whole number, a finite real number, or a string."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class NamedConstant:
    """A dtype by its full name, such as ``torch.float32``; one of ``NAMED_CONSTANTS``."""

    name: str


@dataclass(frozen=True, slots=True)
class ReferenceName:
    """``@name``: an object that the same config declares."""

    name: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """The only parameter of the lambda around it."""

    name: str


@dataclass(frozen=True, slots=True)
class Display:
    """A list, a tuple or a dictionary written out; ``keys`` belong to a dictionary's items."""

    kind: Literal["list", "tuple", "dict"]
    items: tuple[Node, ...]
    keys: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscript:
    """``value[key]``, below a lambda's parameter."""

    value: Node
    key: str | int


@dataclass(frozen=True, slots=True)
class Attribute:
    """``engine.state.<field>`` of a lambda's parameter; ``field`` is one of ``STATE_FIELDS``."""

    parameter: Parameter
    field: str


@dataclass(frozen=True, slots=True)
class Keyword:
    """``name=value`` in a call."""

    name: str
    value: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one of the fixed callees.

    Of ``from_engine``, the keys are always the one positional argument and ``first`` a keyword,
    however the config spelled them.
    """

    callee: str
    arguments: tuple[Node, ...]
    keywords: tuple[Keyword, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodCall:
    """``@name.method()``; the method is one of ``REFERENCE_METHODS``."""

    reference: ReferenceName
    method: str


@dataclass(frozen=True, slots=True)
class Cast:
    """``value.float()`` or ``value.to(torch.float32)``: a tensor as another type of numbers."""

    value: Node
    dtype: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values and one of ``== != < <= > >=`` between them."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers or tensors and one of ``+ - * / // %`` between them."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class BooleanOperation:
    """``and`` and ``or`` over two or more operands, ``not`` over one."""

    operator: Literal["and", "or", "not"]
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Conditional:
    """``then if condition else otherwise``."""

    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class FormattedValue:
    """``{value:spec}`` inside an f-string."""

    value: Node
    spec: str = ""


@dataclass(frozen=True, slots=True)
class FormattedText:
    """An f-string: literal text and formatted values in their order."""

    parts: tuple[Constant | FormattedValue, ...]


@dataclass(frozen=True, slots=True)
class Lambda:
    """A function of exactly one plain parameter; always the root of its tree."""

    parameter: str
    body: Node


@dataclass(frozen=True, slots=True)
class Comparison:
    """A function of two parameters: whether the first is ``< <= > >=`` the second; a root."""

    operator: str


Node: TypeAlias = (
    Constant
    | NamedConstant
    | ReferenceName
    | Parameter
    | Display
    | Subscript
    | Attribute
    | Call
    | MethodCall
    | Cast
    | Compare
    | Arithmetic
    | BooleanOperation
    | Conditional
    | FormattedText
    | Lambda
    | Comparison
)
ExpressionTree: TypeAlias = Node
_Part: TypeAlias = Node | Keyword | FormattedValue
_PARTS = frozenset(get_args(_Part))


def is_expression(text: str) -> bool:
    """Return whether a config string is meant as an expression, in either spelling.

    >>> [is_expression(text) for text in ("#1", "lambda x: None", "lambda_scale", "@model")]
    [True, True, False, False]
    """
    return text.startswith("#") or re.match(r"lambda(?![A-Za-z0-9_])", text) is not None


def parse_expression(text: str) -> ExpressionTree:
    """Return the tree of an expression.

    Args:
        text: begins with ``#`` (an expression) or with ``lambda`` (a bare lambda). ``@name``
            outside of string constants is a reference; inside of one it stays text.

    Raises:
        ExpressionRefused: the text is not in the language. Nothing else is raised for any
            text, and nothing of it has been run.
    """
    _check_text(text)
    tree = _python_tree(_PIECES.sub(_python_piece, text.removeprefix("#")).strip())
    _check_size(tree)
    if isinstance(tree, ast.Lambda):
        return _comparison(tree) or _lambda(tree)
    return _Reader().node(tree)


def walk(tree: _Part) -> Iterator[_Part]:
    """Yield every node of the tree: parents before children, children in their fields' order."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        values = (getattr(node, name) for name in node.__slots__)
        inner = [part for value in values for part in (value if type(value) is tuple else (value,))]
        waiting += (part for part in reversed(inner) if type(part) in _PARTS)


def references(tree: ExpressionTree) -> frozenset[str]:
    """Return the names after ``@`` that the expression needs.

    >>> sorted(references(parse_expression("#{'model': @model, 'conf': @conf, 'note': '@text'}")))
    ['conf', 'model']
    """
    return frozenset(node.name for node in walk(tree) if isinstance(node, ReferenceName))


def from_engine_keys(tree: ExpressionTree) -> tuple[str, ...] | None:
    """Return the keys that the expression's calls of ``from_engine`` ask for, each once, in order.

    Returns:
        ``None`` where the expression does not call ``from_engine`` at all.

    >>> from_engine_keys(parse_expression("#monai.handlers.from_engine(['pred', 'label'])"))
    ('pred', 'label')
    >>> from_engine_keys(parse_expression("lambda x: x['loss']")) is None
    True
    """
    calls = [node for node in walk(tree) if isinstance(node, Call) and node.callee == FROM_ENGINE]
    if not calls:
        return None
    keys = (key for call in calls for key in _key_names(call.arguments[0]))
    return tuple(dict.fromkeys(keys))


# --- The text ------------------------------------------------------------------------------------

# The input may not hold two underscores in a row, so no text can spell such a name by itself.
_PLACEHOLDER = "reference__"

_PLAIN_ESCAPES = re.compile(r"\\[nt\\'\"]")
_PIECES = re.compile(
    r"""(?P<formatted>(?<![A-Za-z0-9_])(?:[fF][rR]?|[rR][fF]))?
        (?P<string>'(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*")
      | @(?P<reference>[A-Za-z][A-Za-z0-9_]*)?
      | (?P<comment>\#)""",
    re.VERBOSE,
)


def _refuse(given: str, allowed: str, advice: str) -> NoReturn:
    raise ExpressionRefused(f"Found {given}. Allowed: {allowed}.", advice)


def _quoted(text: str) -> str:
    """Return a short text for a message with every character visible, homoglyphs included."""
    longest = 60
    return ascii(text if len(text) <= longest else text[: longest - 3] + "...")


def _check_text(text: str) -> None:
    """Refuse by looking at the characters alone, before any parser sees them."""
    if not is_expression(text):
        _refuse(
            f"{_quoted(text)} where an expression was expected",
            "a string that begins with '#' or with 'lambda'",
            "Begin with '#', or give the value itself.",
        )
    if len(text) > MAX_CHARACTERS:
        _refuse(
            f"an expression of {len(text)} characters",
            f"at most {MAX_CHARACTERS}",
            "Put the code into a component of its own.",
        )
    strange = re.search(r"[^ -~]", text)
    if strange:
        _refuse(
            f"the character {strange[0]!a}",
            "printable ASCII characters",
            "Retype the expression; look-alike letters come with copied text.",
        )
    if "__" in text:
        _refuse(
            f"two underscores in a row in {_quoted(text)}",
            "names without them",
            "Nothing that an expression may reach has such a name.",
        )
    _check_quotes(text)


def _check_quotes(text: str) -> None:
    """Raise unless a person, ``_PIECES`` and every Python release read the strings alike."""
    if "'''" in text or '"""' in text:
        _refuse("a triple quote", "'...' and \"...\"", "Use single quotes, or double ones.")
    if "\\" in _PLAIN_ESCAPES.sub("", text):
        _refuse(
            "a backslash before another character",
            r"\n, \t, \\, \' and \"",
            "Write the character itself.",
        )


def _python_piece(piece: re.Match[str]) -> str:
    if piece["formatted"]:
        _check_braces(piece["string"])
    if piece["string"]:
        return piece[0]
    if piece["comment"]:
        _refuse("a comment", "'#' at the beginning only", "Leave the comment out.")
    if piece["reference"] is None:
        _refuse("'@' without a name", "@name, as in @model", "Name a declared component.")
    # The blanks keep it from growing together with a name next to it: x@y must not parse.
    return f" {_PLACEHOLDER}{piece['reference']} "


def _check_braces(string: str) -> None:
    """Refuse quotes and backslashes inside an f-string's braces that only newer Pythons read."""
    rest = string.replace("{{", "").replace("}}", "")
    if rest.count("{") != rest.count("}") or re.search(r"\{[^}]*\\", rest):
        _refuse(
            f"the f-string {_quoted(string)} with unbalanced braces, or a backslash inside them",
            "{...} with the other kind of quotes inside",
            "Change the quotes, as in f\"{x['loss']}\".",
        )


def _python_tree(source: str) -> ast.expr:
    try:
        # Warnings count as errors: their subjects change between Python releases.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        raise ExpressionRefused(
            f"Found {_quoted(source.replace(_PLACEHOLDER, '@'))}, which does not parse "
            f"({type(error).__name__}). Allowed: one Python expression with @name references, "
            "outside of f-strings.",
            "Correct the spelling.",
        ) from error


def _check_size(tree: ast.expr) -> None:
    """Refuse large and deep trees; without recursion, since later steps recurse on the result."""
    count, pending = 0, [(tree, 1)]
    while pending:
        node, depth = pending.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            _refuse(
                "an expression that is too large",
                f"at most {MAX_NODES} parts, nested at most {MAX_DEPTH} deep",
                "Put the code into a component of its own.",
            )
        pending += ((child, depth + 1) for child in _inner_expressions(node))


def _inner_expressions(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        else:
            # Keywords and the like have no meaning alone; their values count.
            yield from _inner_expressions(child)


# --- From Python's tree to ours ------------------------------------------------------------------

_OPERATORS: Mapping[type[ast.AST], str] = MappingProxyType(
    {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%"}
)
_OF_MASKS: Mapping[type[ast.AST], str] = MappingProxyType({ast.BitAnd: "*", ast.BitOr: "+"})
"""How masks of voxels are joined: a product of truth values is true where both are."""

_COMPARISONS: Mapping[type[ast.AST], str] = MappingProxyType(
    {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
)
_MIRRORED: Mapping[str, str] = MappingProxyType({"<": ">", "<=": ">=", ">": "<", ">=": "<="})
_FOUND_NAMES: Mapping[type[ast.AST], str] = MappingProxyType(
    {
        ast.Lambda: "a lambda inside an expression",
        ast.NamedExpr: "an assignment (:=)",
        ast.Starred: "an unpacking (*)",
        ast.Slice: "a slice",
        ast.Set: "a set",
        ast.ListComp: "a comprehension",
        ast.SetComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.GeneratorExp: "a generator",
    }
)
# A lambda's parameter of such a name would hide the name's usual meaning.
_RESERVED_NAMES = frozenset(name.partition(".")[0] for name in (*CALLEES, *NAMED_CONSTANTS))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads nodes of Python's tree inside a lambda, or outside of any.

    Attributes:
        parameter: of the lambda around the nodes; None outside.
    """

    parameter: str | None = None

    def node(self, node: ast.expr) -> Node:
        """Return the meaning of a node."""
        match node:
            case ast.Constant():
                return _constant(node)
            case ast.Name():
                return self._name(node)
            case ast.List() | ast.Tuple():
                kind: Literal["list", "tuple"] = "list" if isinstance(node, ast.List) else "tuple"
                return Display(kind, self.nodes(node.elts))
            case ast.Dict():
                return self._dict(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
            case ast.Compare():
                return self._compare(node)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BoolOp():
                operator: Literal["and", "or"] = "and" if isinstance(node.op, ast.And) else "or"
                return BooleanOperation(operator, self.nodes(node.values))
            case ast.IfExp():
                return Conditional(*self.nodes([node.test, node.body, node.orelse]))
            case ast.JoinedStr():
                return FormattedText(tuple(map(self._text_part, node.values)))
        _refuse(
            _FOUND_NAMES.get(type(node), f"the construct {type(node).__name__}"),
            "constants, @name, lists, tuples, dictionaries, x['key'], engine.state.<field>, "
            "from_engine(...), print(...), arithmetic, comparisons, and/or/not, a if c else b, "
            "f-strings, and one lambda around it all",
            "Put the code into a component of its own.",
        )

    def nodes(self, nodes: list[ast.expr]) -> tuple[Node, ...]:
        """Return the meanings of nodes."""
        return tuple(map(self.node, nodes))

    def _name(self, node: ast.Name) -> Node:
        if node.id == self.parameter:
            return Parameter(node.id)
        if node.id.startswith(_PLACEHOLDER):
            return ReferenceName(node.id.removeprefix(_PLACEHOLDER))
        _refuse(
            f"the name {_quoted(node.id)}",
            "the lambda's own parameter, and @name for objects of the config",
            "Put '@' before the name of a component.",
        )

    def _dict(self, node: ast.Dict) -> Display:
        keys = tuple(_constant_key(key) for key in node.keys)
        if len(set(keys)) != len(keys):
            _refuse("a dictionary with a key twice", "each key once", "Keep a single value.")
        return Display("dict", self.nodes(node.values), keys)

    def _subscript(self, node: ast.Subscript) -> Subscript:
        value = self.node(node.value)
        if not isinstance(value, Parameter | Attribute | Subscript):
            _refuse(
                "a subscript of something other than a lambda's parameter",
                "x['key'], x[0] and engine.state.output['key'] below a lambda",
                "Write the value itself.",
            )
        return Subscript(value, _constant_key(node.slice))

    def _attribute(self, node: ast.Attribute) -> Node:
        dotted = _dotted(node)
        if dotted in NAMED_CONSTANTS:
            return NamedConstant(NAMED_CONSTANTS[dotted])
        owner, _, field = dotted.rpartition(".")
        parameter = self.parameter
        if parameter is not None and owner == f"{parameter}.state" and field in STATE_FIELDS:
            return Attribute(Parameter(parameter), field)
        _refuse(
            f"the attribute {_quoted(_as_written(dotted) or '.' + node.attr)}",
            f"engine.state.<field> of a lambda's parameter, with one of {', '.join(STATE_FIELDS)}; "
            "dtypes such as torch.float32",
            "Use a subscript for a dictionary's items, as in x['loss'].",
        )

    def _call(self, node: ast.Call) -> Call | MethodCall | Cast:
        dotted = _dotted(node.func)
        match CALLEES.get(dotted):
            case str(callee) if callee == FROM_ENGINE:
                return self._from_engine_call(node)
            case str(callee) if callee == TENSOR:
                return self._tensor_call(node)
            case str():
                return self._print_call(node)
        dtype = self._cast_type(node) if self.parameter is not None else None
        if dtype is not None and isinstance(node.func, ast.Attribute):
            return Cast(self._operand(node.func.value), dtype)
        owner, _, method = dotted.rpartition(".")
        simple = "." not in owner and not node.args and not node.keywords
        if owner.startswith(_PLACEHOLDER) and method in REFERENCE_METHODS and simple:
            return MethodCall(ReferenceName(owner.removeprefix(_PLACEHOLDER)), method)
        called = _quoted(_as_written(dotted)) if dotted else "something other than a plain name"
        _refuse(
            f"a call of {called}",
            "monai.handlers.from_engine(...), from_engine(...), print(...), torch.tensor([...]), "
            "@name.parameters(), @name.named_parameters(), and x.float() or x.to(torch.float32) "
            "below a lambda",
            "Use one of these, or put the code into a component of its own.",
        )

    def _cast_type(self, node: ast.Call) -> str | None:
        """Return the type of numbers that a method gives a tensor; None for another call."""
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if method not in CASTS or node.keywords:
            return None
        if CASTS[method]:
            return CASTS[method] if not node.args else None
        given = self.node(node.args[0]) if len(node.args) == 1 else None
        return given.name if isinstance(given, NamedConstant) else None

    def _tensor_call(self, node: ast.Call) -> Call:
        values = self.node(node.args[0]) if len(node.args) == 1 and not node.keywords else None
        if not _is_list_of_numbers(values):
            _refuse(
                "torch.tensor with other arguments than a list of numbers",
                "torch.tensor([0.1, 0.9])",
                "Write the numbers out.",
            )
        return Call(TENSOR, (values,))

    def _print_call(self, node: ast.Call) -> Call:
        if node.keywords:
            _refuse("print with a keyword", "print(value, ...)", "It goes to the log, as one line.")
        return Call(PRINT, self.nodes(node.args))

    def _from_engine_call(self, node: ast.Call) -> Call:
        given = [*zip(_FROM_ENGINE_PARAMETERS, node.args, strict=False)]
        given += [(keyword.arg or "**", keyword.value) for keyword in node.keywords]
        names = [name for name, _ in given]
        # Python's parser lets a repeated keyword pass; only its compiler would object.
        fits = sorted(names) in (["keys"], ["first", "keys"])
        if not fits or len(node.args) > len(_FROM_ENGINE_PARAMETERS):
            _refuse_from_engine()
        values = {name: self.node(value) for name, value in given}
        if not _key_names(values["keys"]):
            _refuse_from_engine()
        if "first" not in values:
            return Call(FROM_ENGINE, (values["keys"],))
        first = values["first"]
        if not (isinstance(first, Constant) and isinstance(first.value, bool)):
            _refuse_from_engine()
        return Call(FROM_ENGINE, (values["keys"],), (Keyword("first", first),))

    def _compare(self, node: ast.Compare) -> Compare:
        operator = _COMPARISONS.get(type(node.ops[0]))
        if operator is None or len(node.ops) > 1:
            _refuse(
                "a chain of comparisons, or one with is or in",
                "one of == != < <= > >= between two values",
                "Join two comparisons by 'and'.",
            )
        return Compare(operator, self.node(node.left), self.node(node.comparators[0]))

    def _arithmetic(self, node: ast.BinOp) -> Arithmetic:
        if type(node.op) in _OF_MASKS:
            masks = self.nodes([node.left, node.right])
            if all(map(_is_mask, masks)):
                return Arithmetic(_OF_MASKS[type(node.op)], *masks)
        operator = _OPERATORS.get(type(node.op))
        if operator is None:
            _refuse(
                f"the operator {type(node.op).__name__}",
                "+ - * / // % between numbers",
                "Powers, shifts, bits and matrix products have no meaning here.",
            )
        return Arithmetic(operator, self._operand(node.left), self._operand(node.right))

    def _operand(self, node: ast.expr) -> Node:
        """Return one side of an arithmetic operation; refuse a side that cannot be a number."""
        operand = self.node(node)
        if isinstance(operand, Constant):
            number = isinstance(operand.value, int | float)
        else:
            number = isinstance(operand, _NUMBER_NODES)
        if not number:
            _refuse(
                f"arithmetic on a {type(operand).__name__} that is not a number",
                "numbers and tensors",
                "Build text with an f-string.",
            )
        return operand

    def _unary(self, node: ast.UnaryOp) -> Node:
        if isinstance(node.op, ast.Not):
            return BooleanOperation("not", (self.node(node.operand),))
        # Not of a sign: so a chain of signs has no meaning.
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.UnaryOp):
            operand = self._operand(node.operand)
            if self.parameter is not None and not isinstance(operand, Constant):
                return Arithmetic("-", Constant(0), operand)
            if (
                isinstance(operand, Constant)
                and isinstance(operand.value, int | float)
                and not isinstance(operand.value, bool)
            ):
                return Constant(-operand.value)
        _refuse("a sign before a value", "a minus before a number", "Leave the sign out.")

    def _text_part(self, part: ast.expr) -> Constant | FormattedValue:
        if isinstance(part, ast.Constant):
            return _constant(part)
        if not isinstance(part, ast.FormattedValue) or part.conversion != -1:
            _refuse("a conversion in an f-string", "{value} and {value:.4f}", "Leave !r or = out.")
        return FormattedValue(self.node(part.value), _format_spec(part.format_spec))


def _is_mask(node: Node) -> bool:
    """Return whether a node is a comparison, or several that are joined."""
    joined = isinstance(node, Arithmetic) and node.operator in _OF_MASKS.values()
    if joined and isinstance(node, Arithmetic):
        return _is_mask(node.left) and _is_mask(node.right)
    return isinstance(node, Compare)


def _is_list_of_numbers(node: Node | None) -> TypeGuard[Display]:
    return isinstance(node, Display) and all(
        isinstance(item, Constant)
        and isinstance(item.value, int | float)
        and not isinstance(item.value, bool)
        for item in node.items
    )


def _comparison(node: ast.Lambda) -> Comparison | None:
    """Return the meaning of ``lambda new, best: new < best``; None for every other lambda."""
    arguments, body = node.args, node.body
    names = [argument.arg for argument in arguments.args]
    plain = ast.unparse(arguments) == ", ".join(names) and len(set(names)) == len(names) == 2
    if not plain or not isinstance(body, ast.Compare) or len(body.ops) != 1:
        return None
    sides = [side.id for side in (body.left, body.comparators[0]) if isinstance(side, ast.Name)]
    operator = _COMPARISONS.get(type(body.ops[0]), "")
    if operator not in _MIRRORED or sides not in (names, names[::-1]):
        return None
    return Comparison(operator if sides == names else _MIRRORED[operator])


def _lambda(node: ast.Lambda) -> Lambda:
    arguments = node.args
    plain = len(arguments.args) == 1 and not (
        arguments.posonlyargs
        or arguments.kwonlyargs
        or arguments.vararg
        or arguments.kwarg
        or arguments.defaults
    )
    if not plain:
        _refuse(
            "a lambda with other than one plain parameter",
            "lambda x: ..., without defaults and stars, and lambda new, best: new < best",
            "MONAI and Ignite call it with one argument, or to compare two numbers.",
        )
    name = arguments.args[0].arg
    if name in _RESERVED_NAMES or name.startswith(_PLACEHOLDER):
        _refuse(
            f"a lambda's parameter named {_quoted(name.replace(_PLACEHOLDER, '@'))}",
            "a plain name with no other meaning here",
            "Rename it to x or engine.",
        )
    return Lambda(name, _Reader(name).node(node.body))


def _constant(node: ast.Constant) -> Constant:
    value = node.value
    if isinstance(value, str) and "__" in value:
        # Our placeholder got into it: Python finds a string that ``_PIECES`` did not, and neither
        # may guess.
        _refuse(
            "a string with two underscores in a row",
            "strings without them",
            "Nothing that an expression may reach has such a name.",
        )
    if value is None or isinstance(value, bool | str):
        return Constant(value)
    if isinstance(value, int) and value <= MAX_INTEGER:
        return Constant(value)
    if isinstance(value, float) and math.isfinite(value):
        return Constant(value)
    # Not shown by value: an integer may have too many digits to be written in decimal.
    _refuse(
        f"a constant of type {type(value).__name__} that has no meaning here",
        f"None, True, False, strings, finite numbers, whole numbers up to {MAX_INTEGER}",
        "Use one of these.",
    )


def _constant_key(node: ast.expr | None) -> str | int:
    # ``None`` is how Python's tree spells ** in a dictionary.
    constant = _Reader().node(node) if isinstance(node, ast.Constant | ast.UnaryOp) else None
    key = constant.value if isinstance(constant, Constant) else None
    if isinstance(key, bool) or not isinstance(key, str | int):
        _refuse(
            "a key that is not a plain string or whole number",
            "keys such as 'loss', 0 and -1",
            "Write the key as a constant; slices and unpacking have no meaning here.",
        )
    return key


def _dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` as text; empty unless the node consists of names and dots."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _as_written(dotted: str) -> str:
    return dotted.replace(_PLACEHOLDER, "@")


def _refuse_from_engine() -> NoReturn:
    _refuse(
        "from_engine with arguments that it does not take",
        "from_engine(keys, first=False), where keys is a constant string or a list or tuple of "
        "constant strings, and first is True or False",
        "Write it as from_engine(['pred', 'label']).",
    )


def _key_names(keys: Node) -> tuple[str, ...]:
    """Return the constant strings that ``from_engine`` is given; empty for any other argument."""
    items = keys.items if isinstance(keys, Display) and keys.kind != "dict" else (keys,)
    values = [item.value if isinstance(item, Constant) else None for item in items]
    names = tuple(value for value in values if isinstance(value, str))
    return names if len(names) == len(values) else ()


# Two digits of width and of precision at most: the width alone decides how long the text gets.
_FORMAT_SPEC = re.compile(r"[<>^]?[+ ]?(?:[0-9]{1,2})?,?(?:\.[0-9]{1,2})?[deEfFgGs%]?")


def _format_spec(node: ast.expr | None) -> str:
    """Return the text after the colon, which must be constant; empty without one."""
    if node is None:
        return ""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    constant = all(isinstance(part, ast.Constant) for part in parts)
    spec = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
    if not constant or len(spec) > MAX_FORMAT_SPEC or not _FORMAT_SPEC.fullmatch(spec):
        _refuse(
            f"the format {_quoted(spec)} in an f-string",
            f"at most {MAX_FORMAT_SPEC} constant characters such as .4f, 5d, >8 and .1%, with a "
            "width below 100",
            "Shorten the format.",
        )
    return spec


_FROM_ENGINE_PARAMETERS = ("keys", "first")
_NUMBER_NODES = (
    Parameter,
    ReferenceName,
    Subscript,
    Attribute,
    Arithmetic,
    Cast,
    Compare,
    BooleanOperation,
    Conditional,
)
