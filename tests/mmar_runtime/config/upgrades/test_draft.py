"""What rules see of a document, and that the document given stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.upgrades.draft import (
    Draft,
    args_of,
    is_component,
    objects,
    set_args,
    short_name,
)


def test_a_draft_is_a_copy() -> None:
    document = {"train": {"loss": {"name": "DiceLoss", "args": {"sigmoid": True}}}}
    draft = Draft(document)

    for _, component in draft.components():
        set_args(component, sigmoid=False)

    assert document == {"train": {"loss": {"name": "DiceLoss", "args": {"sigmoid": True}}}}
    assert draft.document["train"]["loss"]["args"] == {"sigmoid": False}


@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({"train": {}, "validate": {}, "epochs": 1}, [("train",), ("validate",)]),
        ({"validate": {}}, [("validate",)]),
        ({"model": {}, "evaluator": {}}, [()]),
        ({"train": [1]}, [()]),
        ({}, [()]),
    ],
)
def test_the_sections_of_a_document(document: dict[str, Any], places: list[Any]) -> None:
    assert [place for place, _ in Draft(document).sections()] == places


def test_components_and_their_places() -> None:
    inner = {"name": "OneOf", "args": {"transforms": [{"name": "Flipd"}]}}
    document = {
        "train": {
            "model": {"name": "UNet"},
            "pre_transforms": [{"ref": "a"}, {"name": "Compose", "args": {"transforms": [inner]}}],
            "own": {"path": "own.Thing"},
            "note": "text",
        },
        "epochs": 1,
    }

    found = [(place, short_name(component)) for place, component in Draft(document).components()]

    compose = ("train", "pre_transforms", 1)
    one_of = (*compose, "args", "transforms", 0)
    assert found == [
        (("train", "model"), "UNet"),
        (compose, "Compose"),
        (one_of, "OneOf"),
        ((*one_of, "args", "transforms", 0), "Flipd"),
        (("train", "own"), ""),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"name": 5},
        {"args": {}},
        {"name": "UNet", "args": None},
        {"path": "own.Net", "args": [1]},
        ["UNet"],
        "UNet",
        None,
    ],
)
def test_what_is_no_component_is_left_to_the_parser(value: Any) -> None:
    assert not is_component(value)
    assert list(Draft({"train": {"model": value}}).components()) == []


def test_names_are_looked_up_without_their_alias_and_never_for_a_path() -> None:
    document = {
        "train": {
            "pre_transforms": [
                {"name": "Flipd#first"},
                {"name": "Flipd", "path": "own.Flipd"},
                {"path": "own.Flipd"},
                {"name": "Rotated"},
            ]
        }
    }

    found = [place for place, _ in Draft(document).named("Flipd", "Zoomd")]

    assert found == [("train", "pre_transforms", 0)]


def test_arguments_are_made_only_where_some_are_given() -> None:
    component: dict[str, Any] = {"name": "Flipd"}

    assert args_of(component) == {}
    assert component == {"name": "Flipd"}
    set_args(component, keys="image")
    assert component == {"name": "Flipd", "args": {"keys": "image"}}


def test_the_objects_of_an_array() -> None:
    assert objects({"handlers": [{"name": "A"}, 1, None]}, "handlers") == [{"name": "A"}]
    assert objects({"handlers": {"name": "A"}}, "handlers") == []
    assert objects({}, "handlers") == []


# --- Renaming ------------------------------------------------------------------------------------


def renamed(name: str, *refs: str) -> tuple[Any, list[Any]]:
    """A transform that is renamed to ``New``, and what then refers to it."""
    document = {
        "train": {"pre_transforms": [{"name": name}]},
        "validate": {"pre_transforms": [{"ref": ref} for ref in refs]},
    }
    draft = Draft(document)
    for _, component in draft.components():
        draft.rename(component, "New")
    train, validate = draft.document["train"], draft.document["validate"]
    return train["pre_transforms"][0]["name"], [item["ref"] for item in validate["pre_transforms"]]


def test_a_renamed_transform_is_still_found_by_its_refs() -> None:
    assert renamed("Old") == ("New", [])
    assert renamed("Old", "Other") == ("New", ["Other"])
    assert renamed("Old", "Old", "Old") == ("New#Old", ["Old", "Old"])
    assert renamed("Old#mine", "mine") == ("New#mine", ["mine"])
    assert renamed("Old#mine", "Old", "mine") == ("New#mine", ["mine", "mine"])


def test_what_a_ref_means() -> None:
    flip, zoom = {"name": "Flipd#first"}, {"path": "own.Zoom", "name": "Zoomd"}
    draft = Draft(
        {
            "train": {"pre_transforms": [flip], "post_transforms": [zoom, {"ref": "x"}]},
            "validate": {"pre_transforms": [{"name": "Rotated"}]},
        }
    )

    assert draft.transform({"ref": "first"}) == flip
    assert draft.transform({"ref": "Flipd"}) == flip
    assert draft.transform({"ref": "Rotated"}) == {}
    assert draft.transform({"ref": ["no", "text"]}) == {}
    assert draft.transform({"name": "Own"}) == {"name": "Own"}
    assert draft.transform({"args": {}}) == {}
    assert Draft({"pre_transforms": [flip]}).transform({"ref": "first"}) == flip
