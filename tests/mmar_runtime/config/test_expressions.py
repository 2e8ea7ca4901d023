"""The closed expression language: what it accepts, as which tree, and all that it refuses."""

from __future__ import annotations

import ast
import copy
import doctest
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmar_runtime.config import expressions
from mmar_runtime.config.expressions import (
    FROM_ENGINE,
    MAX_CHARACTERS,
    MAX_INTEGER,
    NAMED_CONSTANTS,
    STATE_FIELDS,
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
    ExpressionRefused,
    ExpressionTree,
    FormattedText,
    FormattedValue,
    Keyword,
    Lambda,
    MethodCall,
    NamedConstant,
    Node,
    Parameter,
    ReferenceName,
    Subscript,
    from_engine_keys,
    is_expression,
    parse_expression,
    references,
    walk,
)

X = Parameter("x")
ENGINE = Parameter("engine")
ITERATION = Attribute(ENGINE, "iteration")


def text_list(*texts: str) -> Display:
    return Display("list", tuple(map(Constant, texts)))


# --- What the audit hook sees while a text is parsed ---------------------------------------------

_WATCHED = frozenset({"exec", "import", "open", "os.system", "subprocess.Popen", "socket.connect"})
_seen: list[str] | None = None


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and event in _WATCHED:
        _seen.append(event)


# An audit hook cannot be taken away again; it does nothing while ``_seen`` is None.
sys.addaudithook(_record)


@pytest.fixture
def nothing_happens() -> Iterator[None]:
    """Fails the test if code was executed, imported or opened, or a module appeared."""
    global _seen
    modules = set(sys.modules)
    _seen = []
    try:
        yield
        events = _seen
    finally:
        _seen = None
    assert events == []
    assert set(sys.modules) == modules


# --- Accepted ------------------------------------------------------------------------------------

CORPUS: dict[str, ExpressionTree] = {
    "#@model.parameters()": MethodCall(ReferenceName("model"), "parameters"),
    "#monai.handlers.from_engine(['loss'], first=True)": Call(
        FROM_ENGINE, (text_list("loss"),), (Keyword("first", Constant(True)),)
    ),
    "#monai.handlers.from_engine(['pred','label'])": Call(
        FROM_ENGINE, (text_list("pred", "label"),)
    ),
    "#monai.handlers.from_engine(['image_meta_dict'])": Call(
        FROM_ENGINE, (text_list("image_meta_dict"),)
    ),
    "lambda x: None": Lambda("x", Constant(None)),
    "lambda x: x['loss']": Lambda("x", Subscript(X, "loss")),
    "lambda x: (x['pred'], x['label'])": Lambda(
        "x", Display("tuple", (Subscript(X, "pred"), Subscript(X, "label")))
    ),
    "lambda x: x['image_meta_dict']": Lambda("x", Subscript(X, "image_meta_dict")),
    "lambda engine: print(f'iteration {engine.state.iteration}/{engine.state.epoch_length}') "
    "if engine.state.iteration % 20 == 0 else None": Lambda(
        "engine",
        Conditional(
            Compare("==", Arithmetic("%", ITERATION, Constant(20)), Constant(0)),
            Call(
                "print",
                (
                    FormattedText(
                        (
                            Constant("iteration "),
                            FormattedValue(ITERATION),
                            Constant("/"),
                            FormattedValue(Attribute(ENGINE, "epoch_length")),
                        )
                    ),
                ),
            ),
            Constant(None),
        ),
    ),
    "lambda engine: print(f'loss {engine.state.output[0][\"loss\"]:.4f}') "
    "if engine.state.iteration % 100 == 0 else None": Lambda(
        "engine",
        Conditional(
            Compare("==", Arithmetic("%", ITERATION, Constant(100)), Constant(0)),
            Call(
                "print",
                (
                    FormattedText(
                        (
                            Constant("loss "),
                            FormattedValue(
                                Subscript(Subscript(Attribute(ENGINE, "output"), 0), "loss"), ".4f"
                            ),
                        )
                    ),
                ),
            ),
            Constant(None),
        ),
    ),
}

ACCEPTED: dict[str, ExpressionTree] = CORPUS | {
    "#None": Constant(None),
    "# 1": Constant(1),
    "#-1": Constant(-1),
    "#-1.5": Constant(-1.5),
    "#1e-4": Constant(1e-4),
    f"#{MAX_INTEGER}": Constant(MAX_INTEGER),
    "#'a' \"b\"": Constant("ab"),
    r"#'a\n\t\\\'\"'": Constant("a\n\t\\'\""),
    r"#'\\x41\\'": Constant(r"\x41" + "\\"),
    "#'mail@example.org # 1'": Constant("mail@example.org # 1"),
    "#@model": ReferenceName("model"),
    "#[]": Display("list", ()),
    "#()": Display("tuple", ()),
    "#{}": Display("dict", ()),
    "#[1, [2], (3,)]": Display(
        "list", (Constant(1), Display("list", (Constant(2),)), Display("tuple", (Constant(3),)))
    ),
    "#{'net': @model, 0: '@model', -1: None}": Display(
        "dict", (ReferenceName("model"), Constant("@model"), Constant(None)), ("net", 0, -1)
    ),
    "#torch.float32": NamedConstant("torch.float32"),
    "#np.uint8": NamedConstant("numpy.uint8"),
    "#numpy.uint8": NamedConstant("numpy.uint8"),
    "#@loss.named_parameters()": MethodCall(ReferenceName("loss"), "named_parameters"),
    "#from_engine('loss', True)": Call(
        FROM_ENGINE, (Constant("loss"),), (Keyword("first", Constant(True)),)
    ),
    "#from_engine(first=False, keys=('a', 'b'))": Call(
        FROM_ENGINE,
        (Display("tuple", (Constant("a"), Constant("b"))),),
        (Keyword("first", Constant(False)),),
    ),
    "#print()": Call("print", ()),
    "#print(1, 'two')": Call("print", (Constant(1), Constant("two"))),
    "#1 + 2 * 3": Arithmetic("+", Constant(1), Arithmetic("*", Constant(2), Constant(3))),
    "#1 - 2": Arithmetic("-", Constant(1), Constant(2)),
    "#1 / 2": Arithmetic("/", Constant(1), Constant(2)),
    "#1 // 2": Arithmetic("//", Constant(1), Constant(2)),
    "#@epochs * 2": Arithmetic("*", ReferenceName("epochs"), Constant(2)),
    "#1 != 2": Compare("!=", Constant(1), Constant(2)),
    "#1 < 2": Compare("<", Constant(1), Constant(2)),
    "#1 <= 2": Compare("<=", Constant(1), Constant(2)),
    "#1 > 2": Compare(">", Constant(1), Constant(2)),
    "#1 >= 2": Compare(">=", Constant(1), Constant(2)),
    "#1 and 2 and 3": BooleanOperation("and", (Constant(1), Constant(2), Constant(3))),
    "#1 or 2": BooleanOperation("or", (Constant(1), Constant(2))),
    "#not @amp": BooleanOperation("not", (ReferenceName("amp"),)),
    "#1 if @amp else 2": Conditional(ReferenceName("amp"), Constant(1), Constant(2)),
    "#f'{{}} @a {1:5d}{2:}'": FormattedText(
        (Constant("{} @a "), FormattedValue(Constant(1), "5d"), FormattedValue(Constant(2)))
    ),
    "#f\"{'@a'}\"": FormattedText((FormattedValue(Constant("@a")),)),
    "#lambda x: x": Lambda("x", X),
    "#(lambda x: x)": Lambda("x", X),
    "lambda _: None": Lambda("_", Constant(None)),
    "lambda x:x[-1]": Lambda("x", Subscript(X, -1)),
    "lambda x: @conf": Lambda("x", ReferenceName("conf")),
}


@pytest.mark.parametrize(("text", "tree"), ACCEPTED.items())
@pytest.mark.usefixtures("nothing_happens")
def test_accepted_expression_has_its_tree(text: str, tree: ExpressionTree) -> None:
    assert repr(parse_expression(text)) == repr(tree)


def test_all_ten_expressions_of_clara_configs_are_among_them() -> None:
    assert len(CORPUS) == 10


@pytest.mark.parametrize("field", STATE_FIELDS)
def test_state_fields_are_read_from_the_lambdas_parameter(field: str) -> None:
    assert parse_expression(f"lambda e: e.state.{field}") == Lambda(
        "e", Attribute(Parameter("e"), field)
    )


@pytest.mark.parametrize(("written", "name"), NAMED_CONSTANTS.items())
def test_named_constants(written: str, name: str) -> None:
    assert parse_expression(f"#{written}") == NamedConstant(name)


@pytest.mark.parametrize(
    "spec",
    ["", ".4f", "5d", ">8", "<8", "^8", ".1%", "05d", "8.3f", ".99f", ",d", "+.2e", "99", "s"],
)
def test_format_specs(spec: str) -> None:
    tree = parse_expression(f"lambda x: f'{{x:{spec}}}'")
    assert tree == Lambda("x", FormattedText((FormattedValue(X, spec),)))


def test_only_the_two_spellings_are_expressions() -> None:
    expected = {
        "#": True,
        "#x": True,
        "lambda": True,
        "lambda:": True,
        "lambda x: x": True,
        "lambdas": False,
        "lambda_scale": False,
        " lambda x: x": False,
        "@model": False,
        "": False,
    }
    assert {text: is_expression(text) for text in expected} == expected


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("lambda current, best: current < best", "<"),
        ("lambda current, best: best > current", "<"),
        ("lambda a, b: a >= b", ">="),
        ("#lambda a, b: (b <= a)", ">="),
    ],
)
def test_a_lambda_of_two_parameters_compares_them(text: str, operator: str) -> None:
    assert parse_expression(text) == Comparison(operator)


def test_a_tensor_gets_another_type_of_numbers() -> None:
    mask = Compare(">", X, Constant(0))
    assert parse_expression("lambda x: (x > 0).float()") == Lambda("x", Cast(mask, "torch.float"))
    assert parse_expression("lambda x: x.to(torch.uint8)") == Lambda("x", Cast(X, "torch.uint8"))
    assert parse_expression("lambda x: x.astype(np.float32)") == Lambda(
        "x", Cast(X, "numpy.float32")
    )


def test_a_minus_turns_a_score_round() -> None:
    score = Attribute(Parameter("engine"), "metrics")
    expected = Arithmetic("-", Constant(0), Subscript(score, "loss"))
    tree = parse_expression("lambda engine: -engine.state.metrics['loss']")
    assert tree == Lambda("engine", expected)


def test_masks_are_joined() -> None:
    one, two = Compare("==", X, Constant(1)), Compare("==", X, Constant(2))
    assert parse_expression("lambda x: (x == 1) | (x == 2)") == Lambda(
        "x", Arithmetic("+", one, two)
    )
    assert parse_expression("lambda x: (x == 1) & (x == 2)") == Lambda(
        "x", Arithmetic("*", one, two)
    )


def test_a_tensor_is_written_out_in_numbers() -> None:
    weights = Display("list", (Constant(0.1), Constant(0.9)))
    assert parse_expression("#torch.tensor([0.1, 0.9])") == Call(TENSOR, (weights,))


# --- Refused -------------------------------------------------------------------------------------

HOSTILE = [
    # more than a comparison of two parameters
    "lambda a, b: a == b",
    "lambda a, b: a",
    "lambda a, b: a < a",
    "lambda a, b: a < b < 1",
    "lambda a, b: a < b + 1",
    "lambda a, b=1: a < b",
    "lambda a, *b: a < b",
    "lambda a, /, b: a < b",
    "lambda a, b, c: a < b",
    # other types of numbers
    "#(1).float()",
    "lambda x: x.float(1)",
    "lambda x: x.float(memory_format=1)",
    "lambda x: x.to('cuda')",
    "lambda x: x.to(x)",
    "lambda x: x.type()",
    "lambda x: x.numpy()",
    "lambda x: 'text'.float()",
    "#torch.tensor('x')",
    "#torch.tensor([True])",
    "#torch.tensor([[1]])",
    "#torch.tensor([1], device='cuda')",
    "lambda x: torch.tensor(x)",
    # reaching outwards through names, attributes and calls
    "#monai.os.system('id')",
    "#monai.bundle.run('x')",
    "#monai.utils.run_cmd(['id'])",
    "#monai.handlers",
    "#monai",
    "#monai.handlers.from_engine",
    "#from_engine",
    "#print",
    "#logging.os.system('id')",
    "#torch.load('x.pt')",
    "#torch.hub.load('a', 'b')",
    "#torch.ops.load_library('x.so')",
    "#torch",
    "#torch.float32.to_complex()",
    "#torch.float32.type",
    "#np.load('x.npy')",
    "#np.memmap",
    "#os.environ",
    "#open('/etc/passwd')",
    "#eval('1')",
    "#exec('1')",
    "#compile('1', '', 'eval')",
    "#getattr(@model, 'x')",
    "#type(1)",
    "#globals()",
    "#vars()",
    "#input()",
    "#breakpoint()",
    "#lambda_x",
    "#x",
    # dunder chains, in every disguise
    "#().__class__.__bases__[0].__subclasses__()",
    "#''.__class__",
    "#__import__('os')",
    "#monai.handlers.from_engine(['loss']).__globals__['os']",
    "#from_engine(['loss']).func_globals",
    "#@model.parameters().__class__",
    "#@model.__class__",
    "#@__model",
    "lambda x: x.__class__",
    "lambda x: x['__class__']",
    r"lambda x: x['\x5f\x5fclass\x5f\x5f']",
    r"lambda x: x['\137\137class']",
    r"lambda x: x['\N{LOW LINE}_class']",
    "lambda x: x['_' '_class']",
    "lambda __x: __x",
    # attributes of references, of parameters and of constants
    "#@model.to('cuda')",
    "#@model.to",
    "#@model.parameters",
    "#@model.parameters(True)",
    "#@model.parameters(recurse=False)",
    "#@model.parameters(*[])",
    "#@model.state_dict()",
    "#@model.train()",
    "#@model.conv.parameters()",
    "#@model.parameters().gi_frame",
    "#@model.parameters()()",
    "#@model.parameters()[0]",
    "#@model()",
    "#@model[0]",
    "#@conf['key']",
    "#@model.f_globals",
    "lambda x: x.state",
    "lambda x: x.epoch",
    "lambda x: x.state.dataloader",
    "lambda x: x.state.epoch.real",
    "lambda x: x.state.state.epoch",
    "lambda x: x.state._epoch",
    "lambda x: x.state.epoch()",
    "lambda x: x['a'].state.epoch",
    "lambda x: x['loss'].item()",
    "lambda x: x()",
    "lambda x: x.run()",
    "lambda x: x['f']()",
    "lambda x: y",
    "lambda x: engine.state.epoch",
    "#engine.state.epoch",
    "#(1).real",
    "#'{0.x}'.format(1)",
    "#'{x}'.format_map({})",
    "#''.join([])",
    "#[].append(1)",
    "#{}.get('a')",
    # arithmetic that grows
    "#9**9**9",
    "#2**3",
    "#1 << 99999",
    "#1 >> 1",
    "#1 | 2",
    "#1 & 2",
    "#1 ^ 2",
    "#1 @ 2",
    "#[1] @ [2]",
    "#~1",
    "#+1",
    "#--1",
    "#-@x",
    "#-True",
    "#-'a'",
    "#" + "-" * 900 + "1",
    "#" + "not " * 200 + "1",
    "#'a' * 1000000000",
    "#1000000000 * 'a'",
    "#'a' + 'b'",
    "#'%s' % 1",
    "#'%999999999d' % 1",
    "#[0] * 1000000000",
    "#(0,) * 1000000000",
    "#None + 1",
    "#f'{1}' * 9",
    "#torch.float32 * 2",
    "#print(1) * 2",
    "#@model.parameters() * 2",
    "#" + "9" * 20,
    "#" + "9" * 900,
    "#1e999",
    "#1j",
    "#b'a'",
    "#...",
    # f-strings
    "#f'{1:99999999}'",
    "#f'{1:9999}'",
    "#f'{1:999}'",
    "#f'{1:.999}'",
    "#f'{1:100}'",
    "#f'{1:{9}}'",
    "#f'{1:{99999}}'",
    "#f'{1:x>9}'",
    "#f'{1:0=99999}'",
    "#f'{1:c}'",
    "#f'{1:n}'",
    "#f'{1:%Y}'",
    "#f\"{1:{'9' * 9}}\"",
    "#f'{1!r}'",
    "#f'{1!s:>9}'",
    '#f"{x!r:>99999999}"',
    "#f'{1=}'",
    "#f'{@model}'",
    "#f'{open}'",
    "#f'{(lambda x: x)}'",
    "#f'{x['a']}'",
    "#f'{'@a'}'",
    "#f'{'",
    "#f'{\"\\n\"}'",
    "#f'}'",
    "#f'{}'",
    "#f'{1}' f'{_}'",
    "#rf'{'",
    # constructs that have no meaning
    "#(x := 1)",
    "#[x for x in (1,)]",
    "#{x for x in (1,)}",
    "#{x: 1 for x in (1,)}",
    "#(x for x in (1,))",
    "#[*[1]]",
    "#{1, 2}",
    "#{**{}}",
    "#{1.5: 1}",
    "#{True: 1}",
    "#{None: 1}",
    "#{(1,): 1}",
    "#{@model: 1}",
    "#{not 1: 1}",
    "#{'a': 1, 'a': 2}",
    "#await 1",
    "#(yield)",
    "#(yield from [])",
    "#[1][0]",
    "#'abc'[0]",
    "#(1, 2)[0]",
    "lambda x: x[0:1]",
    "lambda x: x[::999]",
    "lambda x: x[0, 1]",
    "lambda x: x[x]",
    "lambda x: x[1.0]",
    "lambda x: x[True]",
    "lambda x: x[None]",
    "lambda x: x[...]",
    "lambda x: x[f'a']",
    "lambda x: x[not 1]",
    "lambda x: x[-'a']",
    "#1 < 2 < 3",
    "#1 is 1",
    "#1 is not 1",
    "#1 in [1]",
    "#1 not in [1]",
    # lambdas
    "lambda: None",
    "lambda x, y: x",
    "lambda x=1: x",
    "lambda *x: x",
    "lambda **x: x",
    "lambda *, x: x",
    "lambda x, /: x",
    "lambda x: lambda y: x",
    "lambda x: (lambda y: y)(x)",
    "lambda x: 1, 2",
    "lambda x: [lambda y: y]",
    "lambda x: (y := x)",
    "lambda x: (yield x)",
    "lambda x: [y for y in x]",
    "lambda x: [*x]",
    "lambda print: print('x')",
    "lambda monai: monai",
    "lambda np: np.load",
    "lambda torch: torch.float32",
    "lambda @x: 1",
    "lambda x@y: 1",
    "lambda",
    "lambda x",
    "lambda x:",
    "#(lambda x: x)(1)",
    "#[lambda x: x]",
    # calls of the two that may be called
    "#from_engine()",
    "#from_engine([])",
    "#from_engine(['a', 1])",
    "#from_engine(@keys)",
    "#from_engine({'a': 'b'})",
    "#from_engine(['a'], 1)",
    "#from_engine(['a'], first=1)",
    "#from_engine(['a'], first=@first)",
    "#from_engine(['a'], True, 3)",
    "#from_engine(['a'], keys=['b'])",
    "#from_engine(keys='a', keys='b')",
    "#from_engine(['a'], hook=print)",
    "#from_engine(*['a'])",
    "#from_engine(**{'keys': 'a'})",
    "#from_engine(['a'], **{})",
    "#from_engine(['a'])(@model)",
    "#from_engine(['a']).x",
    "#from_engine(['a'])['x']",
    "#from_engine(@keys=['a'])",
    "#handlers.from_engine(['a'])",
    "#monai.handlers.from_engine.x(['a'])",
    "#print(1, file=@model)",
    "#print(1, end='')",
    "#print(*[1])",
    "#print(**{})",
    "#print(print)",
    "#print.x",
    # text that is not what it seems
    "",
    "1",
    "@model",
    " #1",
    "#",
    "##1",
    "# ",
    "#1 # more",
    "#@",
    "#@ model",
    "#@1",
    "#@_model",
    "#@model@model",
    "#1 @model",
    "#1;2",
    "#1\n2",
    "#1\t",
    "#\x00",
    "#'\x00'",
    "#\u043cod\u0435l",
    "#\uff20model",
    "#'\u202e'",
    "#\ud800",
    "#print(\uff41)",
    "#'''a'''",
    '#"""a"""',
    "#'\\x41'",
    "#'\\d'",
    "#'\\u0041'",
    "#'\\",
    "#'unclosed @model",
    "#import os",
    "#x = 1",
    "#del x",
    "#1if 1else 2",
    "#0777",
    "#(",
    "#" + "[" * 3000 + "]" * 3000,
    "#" + "[" * 400 + "]" * 400,
    "#" + "[" * 21 + "]" * 21,
    "#" + "(" * 450 + "1" + ")" * 450,
    "#" + "+".join("1" * 40),
    "#[" + "1," * 121 + "]",
    "#'" + "a" * MAX_CHARACTERS + "'",
    "lambda x: x" + "[0]" * 100,
    "#" + "f'{" * 100,
    "#reference__model",
]


def test_the_table_of_hostile_texts_has_no_doubles() -> None:
    assert len(HOSTILE) == len(set(HOSTILE)) >= 80


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:50]))
@pytest.mark.usefixtures("nothing_happens")
def test_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(ExpressionRefused) as refusal:
        parse_expression(text)
    assert "Found " in refusal.value.message
    assert "Allowed: " in refusal.value.message
    assert refusal.value.advice.endswith(".")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 600
    assert "reference__" not in str(refusal.value) or "reference__" in text


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, SyntaxError])
def test_what_pythons_parser_raises_becomes_a_refusal(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **keywords: object) -> ast.Expression:
        raise error("too much")

    monkeypatch.setattr(ast, "parse", failing)
    with pytest.raises(ExpressionRefused, match=error.__name__):
        parse_expression("#1")


def test_an_unknown_kind_of_node_has_no_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    class TemplateStr(ast.expr):
        """What a later Python may come up with."""

    monkeypatch.setattr(ast, "parse", lambda *_, **__: ast.Expression(TemplateStr()))
    with pytest.raises(ExpressionRefused, match="the construct TemplateStr"):
        parse_expression("#1")


MEANT = {"Constant", "Name", "List", "Tuple", "Dict", "Subscript", "Attribute", "Call"}
MEANT |= {"Compare", "BinOp", "UnaryOp", "BoolOp", "IfExp", "JoinedStr"}
KINDS = [kind for kind in ast.expr.__subclasses__() if kind.__name__ not in MEANT]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_other_construct_of_python_is_refused(
    kind: type[ast.expr], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = ast.Expression(ast.List([kind.__new__(kind)], ast.Load()))
    monkeypatch.setattr(ast, "parse", lambda *_, **__: inside)
    with pytest.raises(ExpressionRefused, match="Allowed: constants"):
        parse_expression("#1")


def test_a_refusal_says_what_was_found_what_is_allowed_and_what_to_do() -> None:
    with pytest.raises(ExpressionRefused) as refusal:
        parse_expression("#monai.os.system('id')")
    assert str(refusal.value) == (
        "Found a call of 'monai.os.system'. Allowed: monai.handlers.from_engine(...), "
        "from_engine(...), print(...), torch.tensor([...]), @name.parameters(), "
        "@name.named_parameters(), and x.float() or x.to(torch.float32) below a lambda. "
        "Use one of these, or put the code into a component of its own."
    )


def test_a_refusal_survives_the_way_to_another_process() -> None:
    # A copy is made of the same pieces as a pickle.
    error = copy.deepcopy(ExpressionRefused("Found x.", "Leave it out."))
    assert (error.message, error.advice) == ("Found x.", "Leave it out.")


def test_trees_are_values() -> None:
    text = "lambda x: (x['pred'], x['label'])"
    tree = parse_expression(text)
    assert tree == parse_expression(text)
    assert hash(tree) == hash(parse_expression(text))
    assert copy.deepcopy(tree) == tree


# --- Questions about a tree ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("#1", set()),
        ("#@model.parameters()", {"model"}),
        ("#{'a': [@a, (@b, '@c')], 'd': 1 if @e else @a}", {"a", "b", "e"}),
        ("lambda x: print(@a, f\"@b {x['@c']}\")", {"a"}),
        ("#not (@a + 1 == @b and @c)", {"a", "b", "c"}),
    ],
)
def test_references(text: str, names: set[str]) -> None:
    assert references(parse_expression(text)) == names


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("#@model", None),
        ("lambda x: x['loss']", None),
        ("#from_engine('loss')", ("loss",)),
        ("#from_engine(['pred', 'label'])", ("pred", "label")),
        ("#from_engine(keys=('pred',), first=True)", ("pred",)),
        ("#[from_engine('b'), from_engine(['a', 'b'])]", ("b", "a")),
    ],
)
def test_from_engine_keys(text: str, keys: tuple[str, ...] | None) -> None:
    assert from_engine_keys(parse_expression(text)) == keys


def test_walk_meets_every_node_once() -> None:
    tree = parse_expression("lambda x: [f'{x:.1f}', from_engine('a', True)]")
    assert [type(node).__name__ for node in walk(tree)] == [
        "Lambda",
        "Display",
        "FormattedText",
        "FormattedValue",
        "Parameter",
        "Call",
        "Constant",
        "Keyword",
        "Constant",
    ]


# --- Any text at all -----------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("@model", "@", "#", "lambda", "x", "y", ":", ".", ",", "(", ")", "[", "]", "{", "}"),
        *("'", '"', "f'", 'f"', "r'", "'a'", "'loss'", "\\", "\\n", "!", "!r", ":.4f", ":999"),
        *("+", "-", "*", "/", "//", "%", "**", "==", "<", "is", "in", "not", "and", "or", ":="),
        *("if", "else", "1", "0", "9", "1e9", "=", ";", "import", "await", "yield", "for", "*"),
        *("__class__", "_", "__", "state", "epoch", "iteration", "print", "open", "eval", "**k"),
        *("from_engine", "monai.handlers", "torch.float32", "=1", "None", "first=True"),
    ]
)


def tree_or_none(text: str) -> Node | None:
    try:
        return parse_expression(text)
    except ExpressionRefused:
        return None


def check_any_text(text: str) -> None:
    """The text is refused or becomes a tree whose every part is within the bounds."""
    global _seen
    modules = set(sys.modules)
    _seen = []
    try:
        tree = tree_or_none(text)
        events = _seen
    finally:
        _seen = None
    assert events == []
    assert set(sys.modules) == modules
    if tree is not None:
        assert all("__" not in repr(part) for part in walk(tree))


@given(st.text())
@example("#\ud800")
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_or_understood(text: str) -> None:
    check_any_text(text)
    check_any_text("#" + text)
    check_any_text("lambda x:" + text)


@given(
    st.lists(WORDS, max_size=25), st.sampled_from(["", " "]), st.sampled_from(["#", "lambda x:"])
)
@settings(max_examples=500, deadline=None)
def test_any_sequence_of_words_is_refused_or_understood(
    words: list[str], blank: str, beginning: str
) -> None:
    check_any_text(beginning + blank.join(words))


@given(
    st.sampled_from([text for text in ACCEPTED if len(text) > 5]),
    st.integers(0, 200),
    st.integers(0, 3),
    WORDS | st.characters(),
)
@settings(max_examples=500, deadline=None)
def test_any_change_of_an_accepted_text_is_refused_or_understood(
    text: str, place: int, removed: int, inserted: str
) -> None:
    place %= len(text)
    check_any_text(text[:place] + inserted + text[place + removed :])


def test_the_examples_in_the_docstrings_hold() -> None:
    outcome = doctest.testmod(expressions)
    assert outcome.failed == 0
    assert outcome.attempted > 0
