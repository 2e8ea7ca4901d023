"""The nodes of a document: walking them, the names they refer to, and back to JSON."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import (
    ComponentSpec,
    ListNode,
    Literal,
    MapNode,
    Node,
    Reference,
    TransformRef,
    WeightsFile,
    children,
    is_disabled,
    map_node,
    plain,
    referenced_names,
    walk,
)
from mmar_runtime.config.parser import NodeParser

PLACE = Location("config_train.json")

HANDLERS = [
    {"name": "StatsHandler", "args": {"output_transform": "lambda x: x['loss']"}},
    {"name": "EarlyStopHandler", "disabled": True, "args": {"trainer": "@trainer"}},
]


def entry(raw: Any) -> Node:
    parser = NodeParser({})
    node = parser.value(raw, PLACE, components=isinstance(raw, list) or "name" in raw)
    assert not parser.problems
    return node


def test_walking_meets_parents_first() -> None:
    spec = entry({"name": "UNet", "args": {"channels": [4, 8]}})
    assert isinstance(spec, ComponentSpec)

    places = [node.location.place for node in walk(spec)]

    assert places == ["", "args", "args.channels", "args.channels[0]", "args.channels[1]"]
    assert list(children(spec)) == [spec.args]


def test_walking_passes_disabled_components_unless_told_otherwise() -> None:
    handlers = entry(HANDLERS)

    def titles(nodes: Any) -> list[str]:
        return [node.title for node in nodes if isinstance(node, ComponentSpec)]

    assert titles(walk(handlers)) == ["StatsHandler"]
    assert titles(walk(handlers, with_disabled=True)) == ["StatsHandler", "EarlyStopHandler"]


def test_only_components_refs_and_weights_can_be_disabled() -> None:
    off = [
        ComponentSpec(
            location=PLACE, name="UNet", path=None, args=map_node(PLACE, {}), disabled=True
        ),
        TransformRef(location=PLACE, name="LoadImaged", disabled=True),
        WeightsFile(location=PLACE, kind="ts_path", path="model.ts", disabled=True),
    ]

    assert all(map(is_disabled, off))
    assert not is_disabled(Literal(location=PLACE, value=True))
    assert list(walk(off[0])) == []


def test_references_are_found_in_values_and_in_expressions() -> None:
    spec = entry(
        {
            "name": "CheckpointSaver",
            "args": {
                "save_dict": {"model": "@model", "conf": "@conf"},
                "params": "#[@optimizer, @model]",
                "note": "user@host",
            },
        }
    )

    found = [(name, location.place) for name, location in referenced_names(spec)]

    assert found == [
        ("model", "args.save_dict.model"),
        ("conf", "args.save_dict.conf"),
        ("model", "args.params"),
        ("optimizer", "args.params"),
    ]


def test_a_component_is_called_by_its_class() -> None:
    by_name = entry({"name": "UNet#net"})
    by_path = entry({"name": "UNet", "path": "monai.networks.nets.SegResNet"})

    assert isinstance(by_name, ComponentSpec)
    assert isinstance(by_path, ComponentSpec)
    assert (by_name.title, by_name.alias) == ("UNet", "net")
    assert (by_path.title, by_path.name) == ("SegResNet", None)


@pytest.mark.parametrize(
    "raw",
    [
        {"name": "UNet"},
        {"path": "own.network.Net", "args": {"channels": [4, 8], "norm": None, "act": {"a": 1.5}}},
        {"name": "Adam", "args": {"params": "#@model.parameters()", "lr": 0.1}},
        {"name": "MeanDice", "log_label": "dice", "args": {"output_transform": "lambda x: x"}},
        {"name": "StatsHandler", "rank": 0},
        {
            "name": "Dataset",
            "data_list_file_path": "/data/dataset.json",
            "data_file_base_dir": "/data",
            "data_list_key": "training",
            "args": {"transform": "@pre_transforms"},
        },
        {"ref": "LoadImaged"},
        {"ts_path": "models/model.ts"},
        {"ckpt_path": "models/model.pt"},
    ],
)
def test_a_component_becomes_the_json_that_it_was(raw: dict[str, Any]) -> None:
    parser = NodeParser({})

    node = parser.entry(raw, PLACE)

    assert not parser.problems
    assert plain(node) == raw


def test_disabled_components_are_not_written_back() -> None:
    assert plain(entry(HANDLERS)) == HANDLERS[:1]


def test_a_mapping_cannot_be_changed_after_it_was_read() -> None:
    given: dict[str, Node] = {"a": Literal(location=PLACE, value=1)}
    node = map_node(PLACE, given)
    given["b"] = Reference(location=PLACE, name="model")

    assert list(node.items) == ["a"]
    with pytest.raises(TypeError):
        node.items["b"] = given["b"]  # type: ignore[index]


def test_lists_and_mappings_hold_nodes() -> None:
    node = entry({"a": [1]})

    assert isinstance(node, MapNode)
    assert isinstance(node.items["a"], ListNode)
    assert plain(node) == {"a": [1]}
