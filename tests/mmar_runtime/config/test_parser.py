"""From JSON values to nodes: what each value means, and every mistake with its place."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    DataListSource,
    Expression,
    ListNode,
    Literal,
    MapNode,
    Node,
    Reference,
    TransformRef,
    WeightsFile,
    plain,
)
from mmar_runtime.config.parser import MAX_DEPTH, MAX_PROBLEMS, NodeParser
from mmar_runtime.config.sources import SITE, Variable

PLACE = Location("train.json") / "loss"
VALUES = {"NET": "UNet", "ON": True, "OFF": False, "ONE": 1, "WORD": "true", "EMPTY": ""}


def parser() -> NodeParser:
    source = Location("environment.json")
    return NodeParser({name: Variable(value, source) for name, value in VALUES.items()})


def value(raw: Any) -> Node:
    reading = parser()
    node = reading.value(raw, PLACE)
    assert not reading.problems
    return node


def component(raw: Any) -> ComponentSpec:
    reading = parser()
    node = reading.entry(raw, PLACE)
    assert not reading.problems
    assert isinstance(node, ComponentSpec)
    return node


def faults(raw: Any) -> list[str]:
    """The faults of an entry, without the document and the entry's name before each."""
    reading = parser()
    reading.entry(raw, PLACE)
    return [str(problem).removeprefix("train.json: loss") for problem in reading.problems]


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "meaning"),
    [
        (5, Literal),
        (None, Literal),
        (True, Literal),
        ("text", Literal),
        ("lambda_scale", Literal),
        ("user@host", Literal),
        ("{NET}", Literal),
        ([], ListNode),
        ({}, MapNode),
        ("@model", Reference),
        (" @model ", Reference),
        ("#@model.parameters()", Expression),
        (" #1", Expression),
        ("lambda x: None", Expression),
    ],
)
def test_each_value_has_one_meaning(raw: Any, meaning: type) -> None:
    assert type(value(raw)) is meaning


def test_variables_are_filled_in_everywhere_but_in_expressions() -> None:
    raw = {"name": "{NET}", "args": {"a": ["{ONE}"], "b": {"c": "x{ONE}"}, "d": "lambda x: f'{x}'"}}

    spec = component(raw)

    assert spec.name == "UNet"
    assert plain(spec.args) == {"a": [1], "b": {"c": "x1"}, "d": "lambda x: f'{x}'"}


def test_every_node_knows_its_place() -> None:
    node = component({"name": "A", "args": {"a": [{"b": "@c"}]}}).args.items["a"]

    assert isinstance(node, ListNode)
    assert isinstance(node.items[0], MapNode)
    assert str(node.items[0].items["b"].location) == "train.json: loss.args.a[0].b"


def test_an_undefined_variable_is_a_fault_at_its_place() -> None:
    assert faults({"name": "A", "args": {"a": ["{WROD}"]}}) == [
        ".args.a[0]: the variable {WROD} is not defined\n    Did you mean 'WORD'?"
    ]


@pytest.mark.parametrize("text", ["@", "@my model", "@model.weights", "@1"])
def test_a_reference_is_one_name(text: str) -> None:
    assert faults({"name": "A", "args": {"a": text}}) == [
        f".args.a: {text!r} is not a reference; write @name"
    ]


def test_a_refused_expression_says_what_is_allowed() -> None:
    [fault] = faults({"name": "A", "args": {"a": "#__import__('os')"}})

    assert fault.startswith(".args.a: Found ")
    assert " Allowed: " in fault


def test_a_document_has_a_bottom() -> None:
    raw: Any = 1
    for _ in range(MAX_DEPTH):
        raw = [raw]

    [fault] = faults({"name": "A", "args": {"a": raw}})

    assert fault.endswith("]: is nested more than 40 levels deep")


# --- Components ----------------------------------------------------------------------------------


def test_a_component_has_a_name_and_arguments() -> None:
    spec = component({"name": "DiceLoss", "args": {"sigmoid": True}})

    assert (spec.name, spec.path, spec.alias) == ("DiceLoss", None, None)
    assert (spec.disabled, spec.rank, spec.log_label, spec.data_list) == (False, None, None, None)
    assert plain(spec.args) == {"sigmoid": True}


def test_a_path_wins_over_a_name() -> None:
    spec = component({"name": "DiceLoss", "path": "own.losses.Dice"})

    assert (spec.name, spec.path) == (None, "own.losses.Dice")


def test_the_text_behind_a_hash_is_an_alias() -> None:
    spec = component({"name": "LoadImaged#load"})

    assert (spec.name, spec.alias) == ("LoadImaged", "load")


def test_an_alias_is_not_empty() -> None:
    assert faults({"name": "LoadImaged#"}) == [".name: 'LoadImaged#' has nothing after its '#'"]


@pytest.mark.parametrize("name", ["#load", "@loss", "lambda: 0", "{EMPTY}@loss"])
def test_a_name_is_no_construct(name: str) -> None:
    assert faults({"name": name}) == [
        f".name: {name.removeprefix('{EMPTY}')!r} looks like a construct, which has no meaning "
        "here\n    Variables hold values; write references and expressions in the config itself."
    ]


@pytest.mark.parametrize("path", ["DiceLoss", "own.", ".own", "own..Dice", "own.Dice()", "a/b.c"])
def test_a_path_is_module_and_class(path: str) -> None:
    assert faults({"path": path}) == [f".path: {path!r} is not a path; write module.Class"]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("DiceLoss", "'DiceLoss'"),
        ("@loss", "'@loss'"),
        (["DiceLoss"], "an array"),
        (None, "null"),
        (True, "a truth value"),
        (5, "5"),
    ],
)
def test_only_an_object_is_a_component(raw: Any, found: str) -> None:
    assert faults(raw) == [
        f": has to be a component, an object with 'name' or 'path', found {found}"
    ]


@pytest.mark.parametrize(
    ("raw", "advice"),
    [
        ({"nmae": "DiceLoss"}, "Did you mean 'name'?"),
        ({"args": {}, "paht": "a.B"}, "Did you mean 'path'?"),
        ({"args": {}}, "Found: 'args'."),
        ({}, "Found: nothing."),
    ],
)
def test_an_object_without_a_name_is_no_component(raw: Any, advice: str) -> None:
    assert faults(raw) == [f": is not a component: it has no 'name' and no 'path'. {advice}"]


def test_an_unknown_key_of_a_component() -> None:
    assert faults({"name": "A", "arg": {}, "rnak": 0}) == [
        ".arg: unknown key 'arg'\n    Did you mean 'args'?",
        ".rnak: unknown key 'rnak'\n    Did you mean 'rank'?",
    ]


@pytest.mark.parametrize(("raw", "found"), [([], "an array"), (None, "null"), ("x", "'x'")])
def test_arguments_are_an_object(raw: Any, found: str) -> None:
    assert faults({"name": "A", "args": raw}) == [f".args: has to be an object, found {found}"]


@pytest.mark.parametrize("key", ["name", "path", "log_label"])
@pytest.mark.parametrize(("raw", "found"), [(5, "5"), ("", "''"), ("{ONE}", "1"), (None, "None")])
def test_names_are_strings(key: str, raw: Any, found: str) -> None:
    assert faults({"name": "A", key: raw}) == [f".{key}: has to be a string, found {found}"]


def test_a_name_that_is_no_plain_value() -> None:
    assert faults({"name": {"name": "A"}}) == [".name: has to be a plain value, found an object"]


# --- disabled and rank ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "disabled"), [(True, True), (False, False), ("{ON}", True), ("{OFF}", False)]
)
def test_only_true_disables(raw: Any, disabled: bool) -> None:
    assert component({"name": "A", "disabled": raw}).disabled is disabled


@pytest.mark.parametrize(
    ("raw", "found"),
    [("true", "'true'"), (1, "1"), (0, "0"), (None, "None"), ("{WORD}", "'true'"), ("{ONE}", "1")],
)
def test_what_is_neither_true_nor_false_is_a_mistake(raw: Any, found: str) -> None:
    assert faults({"name": "A", "disabled": raw}) == [
        f".disabled: has to be true or false, found {found}"
    ]


@pytest.mark.parametrize(("raw", "rank"), [(0, 0), (3, 3), ("{ONE}", 1)])
def test_a_rank_is_a_process_number(raw: Any, rank: int) -> None:
    assert component({"name": "A", "rank": raw}).rank == rank


@pytest.mark.parametrize(
    ("raw", "found"), [(-1, "-1"), (True, "True"), (0.0, "0.0"), ("0", "'0'"), (None, "None")]
)
def test_what_is_no_process_number_is_a_mistake(raw: Any, found: str) -> None:
    assert faults({"name": "A", "rank": raw}) == [
        f".rank: has to be a process number from 0, found {found}"
    ]


@pytest.mark.parametrize("key", ["name", "disabled", "rank"])
def test_one_mistake_is_told_once(key: str) -> None:
    [undefined] = faults({"name": "A", key: "{NTE}"})
    [no_scalar] = faults({"name": "A", key: [1]})

    assert undefined.startswith(f".{key}: the variable {{NTE}} is not defined")
    assert no_scalar == f".{key}: has to be a plain value, found an array"


# --- Components inside arguments -----------------------------------------------------------------


@pytest.mark.parametrize("title", ["Compose", "OneOf", "RandomOrder", "SomeOf"])
def test_some_transforms_are_made_of_transforms(title: str) -> None:
    transforms = [{"name": "RandFlipd", "args": {"prob": 0.5}}, "@own_transform", "#@own_transform"]

    node = component({"name": title, "args": {"transforms": transforms}}).args.items["transforms"]

    assert isinstance(node, ListNode)
    assert [type(item) for item in node.items] == [ComponentSpec, Reference, Expression]


@pytest.mark.parametrize(
    ("raw", "found"), [("RandFlipd", "'RandFlipd'"), (5, "5"), ("{NET}", None)]
)
def test_what_is_no_transform_cannot_be_among_them(raw: Any, found: str | None) -> None:
    assert faults({"name": "Compose", "args": {"transforms": [raw]}}) == [
        ".args.transforms[0]: has to be a component, an object with 'name' or 'path', "
        f"found {found or repr(raw)}"
    ]


@pytest.mark.parametrize("hidden", [{"name": "Adam", "args": {}}, {"path": "own.Adam", "args": {}}])
def test_a_component_hidden_in_arguments_is_refused(hidden: Any) -> None:
    assert faults({"name": "A", "args": {"deep": [{"down": hidden}]}}) == [
        ".args.deep[0].down: a component inside another component's arguments"
        "; only the transforms of "
        "Compose, OneOf, RandomOrder and SomeOf may be given so\n"
        '    Give it an entry of its own in the section and write "@entry" here.'
    ]


# --- Data lists ----------------------------------------------------------------------------------


DATA_LIST = {
    "data_list_file_path": "dataset.json",
    "data_file_base_dir": "/data",
    "data_list_key": "training",
}


def test_a_data_set_says_where_its_items_come_from() -> None:
    assert component({"name": "Dataset", **DATA_LIST}).data_list == DataListSource(
        location=PLACE, file="dataset.json", base="/data", key="training"
    )


def test_a_data_list_needs_all_of_its_keys() -> None:
    assert faults({"name": "Dataset", "data_list_key": "training"}) == [
        ": the data list needs data_list_file_path, data_file_base_dir, data_list_key; "
        "missing: data_list_file_path, data_file_base_dir"
    ]


def test_the_keys_of_a_data_list_are_strings() -> None:
    assert faults({"name": "Dataset", **DATA_LIST, "data_file_base_dir": "{EMPTY}"}) == [
        ".data_file_base_dir: has to be a string, found ''"
    ]


def test_a_data_set_gets_its_items_one_way() -> None:
    assert faults({"name": "Dataset", **DATA_LIST, "args": {"data": []}}) == [
        ".args.data: the argument 'data' and a data list; the component takes one of them"
    ]


# --- Refs and files of weights -------------------------------------------------------------------


def entry(raw: Any) -> Node:
    reading = parser()
    node = reading.entry(raw, PLACE)
    assert not reading.problems
    return node


def test_a_ref_names_a_transform() -> None:
    assert entry({"ref": "LoadImaged", "disabled": "{ON}"}) == TransformRef(
        location=PLACE, name="LoadImaged", disabled=True
    )


def test_a_ref_brings_no_arguments() -> None:
    assert faults({"ref": "LoadImaged", "args": {}}) == [
        ".args: unknown key 'args'\n    Allowed: 'disabled', 'ref'."
    ]


def test_a_ref_is_a_string() -> None:
    assert faults({"ref": 5}) == [".ref: has to be a string, found 5"]


@pytest.mark.parametrize("kind", ["ts_path", "ckpt_path"])
def test_a_model_may_be_a_file(kind: str) -> None:
    found = entry({kind: "models/{NET}.pt", "disabled": "{OFF}"})

    assert isinstance(found, WeightsFile)
    assert (found.kind, found.path, found.disabled) == (kind, "models/UNet.pt", False)


def test_a_model_is_one_file() -> None:
    assert faults({"ts_path": "a.ts", "ckpt_path": "a.pt"}) == [
        ": has ts_path and ckpt_path; write one entry for each"
    ]


def test_a_models_file_is_a_string() -> None:
    assert faults({"ckpt_path": None}) == [".ckpt_path: has to be a string, found None"]


def test_all_faults_of_a_component_are_told() -> None:
    raw = {
        "name": "A#",
        "path": "B",
        "rank": -1,
        "disabled": "yes",
        "colour": "red",
        "args": {"a": "{X}", "b": "#os", "c": "@"},
    }

    places = [fault.split(":")[0] for fault in faults(raw)]

    assert places == [
        *(".colour", ".name", ".path", ".args.a", ".args.b", ".args.c", ".disabled", ".rank")
    ]


# --- What strangers write ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["path", "class_path", "_target_"])
def test_an_object_that_another_library_would_build_is_refused_wherever_it_stands(key: str) -> None:
    [fault] = faults({"name": "UNet", "args": {"norm": ["batch", {key: "os.system"}]}})

    assert fault.startswith(".args.norm[1]: a component inside another component's arguments")
    assert component({"name": "UNet", "args": {"norm": ["batch", {"eps": 1}]}}).title == "UNet"


def test_a_sites_own_value_may_not_be_in_the_name_of_a_metric() -> None:
    reading = NodeParser(
        {"DATA_ROOT": Variable("/data", Location(SITE)), "OWN": Variable("a", PLACE)}
    )

    reading.entry({"name": "MeanDice", "log_label": "dice_{OWN}"}, PLACE)
    assert reading.problems == []

    reading.entry({"name": "MeanDice", "log_label": "dice_{DATA_ROOT}"}, PLACE)
    assert [problem.rule for problem in reading.problems] == ["site-value"]


def test_more_faults_than_anybody_reads_are_not_looked_for() -> None:
    assert len(faults({"name": "UNet", "args": {"x": ["{nothing}"] * 10_000}})) == MAX_PROBLEMS
