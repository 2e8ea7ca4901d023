"""JSON text, and whose value of a variable wins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.config.sources import (
    BUILT_IN,
    MAX_JSON_BYTES,
    MAX_REFUSALS,
    first_level_primitives,
    parse_json,
    read_json,
    read_site_values,
    resolve_variables,
)
from mmar_runtime.errors import ConfigError


def faults(read: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read()
    return [str(problem) for problem in caught.value.problems]


def faults_in(text: str) -> list[str]:
    return faults(lambda: parse_json(text, "config.json"))


# --- JSON text -----------------------------------------------------------------------------------


def test_json_becomes_plain_values() -> None:
    text = '{"a": [1, 2.5, null, true, "x"], "b": {}, "c": {"d": -1e-3}}'

    assert parse_json(text, "config.json") == {
        "a": [1, 2.5, None, True, "x"],
        "b": {},
        "c": {"d": -0.001},
    }


def test_broken_json_names_line_and_column_and_shows_the_line() -> None:
    assert faults_in('{\n  "epochs": 5\n  "amp": true\n}') == [
        "config.json: not valid JSON at line 3, column 3: Expecting ',' delimiter "
        "(near '\"amp\": true')\n"
        "    Look for a missing or trailing comma, quote or bracket just before that place."
    ]


def test_json_that_ends_too_early_has_no_line_to_show() -> None:
    [fault] = faults_in('{"a": 1,\n')

    assert fault.startswith(
        "config.json: not valid JSON at line 2, column 1: "
        "Expecting property name enclosed in double quotes\n"
    )


def test_only_line_feeds_count_as_lines() -> None:
    [fault] = faults_in('{"a": "\u2028",\n "b" 1}')

    assert "line 2, column 6" in fault
    assert "(near '\"b\" 1}')" in fault


def test_a_key_given_twice_is_shown_with_its_place() -> None:
    assert faults_in('{"train": {"loss": {"name": "A", "name": "B"}}}') == [
        "config.json: train.loss.name: an object has the key 'name' twice\n    Keep a single value."
    ]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_shown_with_their_place(text: str) -> None:
    assert faults_in(f'{{"train": [1, {text}]}}') == [
        f"config.json: train[1]: {text} is not JSON\n    Write a finite number or null."
    ]


def test_a_number_too_large_for_a_float_is_no_infinity() -> None:
    assert faults_in('{"lr": 1e999}') == [
        "config.json: lr: 1e999 is too large\n    Write a finite number or null."
    ]


def test_a_number_with_thousands_of_digits_is_refused() -> None:
    assert faults_in('{"epochs": ' + "9" * 5000 + "}") == [
        "config.json: epochs: 99999999999999999999... has 5000 digits\n    Write a smaller number."
    ]


def test_all_that_is_not_json_is_told_at_once() -> None:
    text = '{"a": NaN, "b": {"c": 1, "c": 2}, "d": [[Infinity]]}'

    places = [fault.split(": ")[1] for fault in faults_in(text)]

    assert places == ["a", "b.c", "d[0][0]"]
    assert len(faults_in("[" + "NaN, " * 5000 + "0]")) == MAX_REFUSALS


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 700 + "]" * 700 + "x"])
def test_brackets_without_end_are_a_fault_like_others(text: str) -> None:
    [fault] = faults_in(text)

    assert fault.startswith("config.json: ")


# --- JSON files ----------------------------------------------------------------------------------


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf{}")

    assert read_json(path) == {}


def test_a_fault_in_a_file_carries_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": NaN}')

    [by_file] = faults(lambda: read_json(path))
    [by_name] = faults(lambda: read_json(path, name="config/a.json"))

    assert by_file.startswith("a.json: a: NaN")
    assert by_name.startswith("config/a.json: a: NaN")


def test_a_missing_file_comes_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "config_trian.json"
    for name in ("environment.json", "config_train.json", "notes.txt"):
        (tmp_path / name).write_text("{}")

    assert faults(lambda: read_json(path)) == [
        f"config_trian.json: there is no file {str(path)!r}\n"
        "    In that folder: config_train.json, environment.json."
    ]


def test_a_missing_file_in_a_folder_without_json(tmp_path: Path) -> None:
    [fault] = faults(lambda: read_json(tmp_path / "a.json"))

    assert fault.endswith("\n    That folder holds no JSON file.")


def test_a_missing_folder_asks_for_the_mmars_path(tmp_path: Path) -> None:
    folder = tmp_path / "mmra"

    [fault] = faults(lambda: read_json(folder / "a.json"))

    assert fault.endswith(
        f"\n    There is no folder {str(folder)!r} either; is the MMAR's path right?"
    )


def test_a_file_that_is_no_text_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xe9"}')

    [fault] = faults(lambda: read_json(path))

    assert fault == "a.json: is not UTF-8: byte 7 is 0xe9\n    Save it as UTF-8."


def test_a_folder_that_cannot_be_listed_is_no_fault_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    [fault] = faults(lambda: read_json(tmp_path / "a.json"))

    assert fault.endswith("\n    That folder cannot be listed.")


def test_what_cannot_be_read_is_named_without_its_folder(tmp_path: Path) -> None:
    [fault] = faults(lambda: read_json(tmp_path / f"{'a' * 300}.json"))

    assert fault == f"{'a' * 300}.json: cannot be read: File name too long"


def test_a_folder_in_place_of_a_file_cannot_be_read(tmp_path: Path) -> None:
    [fault] = faults(lambda: read_json(tmp_path))

    assert ": cannot be read: " in fault


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b" " * (MAX_JSON_BYTES + 1))

    assert faults(lambda: read_json(path)) == ["a.json: is larger than 4 MiB"]


def test_a_device_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    os.mkfifo(path)

    assert faults(lambda: read_json(path)) == ["a.json: cannot be read: no plain file"]
    assert faults(lambda: read_json(Path("/dev/zero"))) == ["zero: cannot be read: no plain file"]
    assert faults(lambda: read_json(tmp_path / "a\0")) == [
        "a\0: cannot be read: embedded null byte"
    ]


def test_half_a_character_is_refused_and_a_whole_one_in_two_halves_is_not() -> None:
    assert parse_json(r'{"a": "\ud83e\udde0"}', "a.json") == {"a": "\U0001f9e0"}

    [fault] = faults(lambda: parse_json(r'{"a": "\ud83e"}', "a.json"))
    assert fault.startswith("a.json: holds half a character")


def test_a_fraction_of_very_many_digits_is_refused() -> None:
    [fault] = faults(lambda: parse_json('{"a": 0.' + "9" * 200 + "}", "a.json"))

    assert "has 202 digits" in fault


# --- Variables -----------------------------------------------------------------------------------


LAYERS = ("workflow", "environment", "site", "overrides")
"""Who may set a variable, low to high; all of them win over what is built in."""


def variables(root: Path = Path("/mmar"), **layers: dict[str, Any]) -> dict[str, Any]:
    """Each variable's value, where the layers are given as plain mappings."""
    found = resolve_variables(
        mmar_root=root,
        workflow=layers.get("workflow", {}),
        workflow_file="config_train.json",
        environment=layers.get("environment", {}),
        environment_file="environment.json",
        site=layers.get("site"),
        overrides=layers.get("overrides"),
    )
    return {name: variable.value for name, variable in found.items()}


def test_without_any_document_the_built_in_values_hold() -> None:
    assert variables() == {
        "MMAR_ROOT": "/mmar",
        "multi_gpu": False,
        "amp": False,
        "use_gpu": True,
        "print_conf": False,
        "MMAR_CKPT_DIR": "/mmar/models",
        "MMAR_CKPT": "/mmar/models/model.pt",
        "MMAR_TORCHSCRIPT": "/mmar/models/model.ts",
        "MMAR_EVAL_OUTPUT_PATH": "/mmar/eval",
    }


@pytest.mark.parametrize("lower", LAYERS)
@pytest.mark.parametrize("higher", LAYERS)
def test_of_two_layers_the_higher_wins(lower: str, higher: str) -> None:
    if LAYERS.index(lower) < LAYERS.index(higher):
        assert variables(**{lower: {"lr": 1}, higher: {"lr": 2}})["lr"] == 2


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_wins_over_what_is_built_in(layer: str) -> None:
    assert variables(**{layer: {"amp": True}})["amp"] is True


@given(
    st.dictionaries(
        st.sampled_from(LAYERS),
        st.dictionaries(st.sampled_from(("amp", "lr", "epochs")), st.integers()),
    )
)
def test_the_highest_layer_that_sets_a_variable_wins(layers: dict[str, dict[str, int]]) -> None:
    found = variables(**layers)

    for name in ("amp", "lr", "epochs"):
        given = [layers[layer][name] for layer in LAYERS if name in layers.get(layer, {})]
        assert found.get(name) == (given[-1] if given else BUILT_IN.get(name))


def test_a_variable_knows_who_set_it() -> None:
    found = resolve_variables(
        mmar_root=Path("/mmar"),
        workflow={"a": 1, "b": 1, "c": 1, "d": 1},
        workflow_file="config_train.json",
        environment={"b": 2, "c": 2, "d": 2},
        environment_file="environment.json",
        site={"c": 3, "d": 3},
        overrides={"d": 4},
    )

    sources = {name: str(found[name].source) for name in ("amp", "a", "b", "c", "d")}
    assert sources == {
        "amp": "built-in default",
        "a": "config_train.json",
        "b": "environment.json",
        "c": "site",
        "d": "--set",
    }


def test_only_first_level_primitives_of_a_workflow_are_variables() -> None:
    document = {
        "epochs": 5,
        "lr": 0.1,
        "amp": True,
        "tag": "x",
        "train": {},
        "list": [],
        "no": None,
    }

    assert first_level_primitives(document) == {"epochs": 5, "lr": 0.1, "amp": True, "tag": "x"}


@pytest.mark.parametrize("layer", ["environment", "site", "overrides"])
def test_mmar_paths_and_the_data_list_are_joined_to_the_mmar(layer: str) -> None:
    given = {
        "MMAR_CKPT": "models/a.pt",
        "MMAR_CKPT_DIR": "/elsewhere/models",
        "MMAR_EVAL_OUTPUT_PATH": "",
        "MMAR_NUMBER": 5,
        "DATASET_JSON": "data/dataset.json",
        "DATA_ROOT": "data",
        "PRETRAIN": "models/b.pt",
    }

    found = variables(**{layer: given})

    assert {name: found[name] for name in given} == {
        **given,
        "MMAR_CKPT": "/mmar/models/a.pt",
        "DATASET_JSON": "/mmar/data/dataset.json",
    }


def test_paths_in_the_workflow_itself_are_not_joined() -> None:
    found = variables(workflow={"MMAR_CKPT": "models/a.pt", "DATASET_JSON": "dataset.json"})

    assert found["MMAR_CKPT"] == "models/a.pt"
    assert found["DATASET_JSON"] == "dataset.json"


@pytest.mark.parametrize("layer", LAYERS)
def test_no_document_can_move_the_mmar(layer: str) -> None:
    assert variables(**{layer: {"MMAR_ROOT": "/elsewhere"}})["MMAR_ROOT"] == "/mmar"


def test_null_in_the_environment_is_a_value() -> None:
    assert variables(environment={"tag": None})["tag"] is None


def test_an_environment_holds_primitive_values_only() -> None:
    assert faults(lambda: variables(environment={"a": [], "b": {}, "c": 1})) == [
        "environment.json: a: a variable is a number, a truth value or a string, found list",
        "environment.json: b: a variable is a number, a truth value or a string, found dict",
    ]


# --- A site's own values -------------------------------------------------------------------------


def site_values(folder: Path, document: object) -> dict[str, Any]:
    (folder / "environment.json").write_text(json.dumps(document))
    return read_site_values(folder, "site-1")


def test_a_site_without_an_environment_has_no_values_of_its_own(tmp_path: Path) -> None:
    assert read_site_values(tmp_path, "site-1") == {}


def test_values_for_one_site_win_over_those_for_all(tmp_path: Path) -> None:
    document = {
        "DATA_ROOT": "/data",
        "DATASET_JSON": "/data/all.json",
        "sites": {
            "site-1": {"DATASET_JSON": "/data/1.json"},
            "site-2": {"DATASET_JSON": "/data/2.json"},
        },
    }

    assert site_values(tmp_path, document) == {
        "DATA_ROOT": "/data",
        "DATASET_JSON": "/data/1.json",
    }


@pytest.mark.parametrize("document", [[], 5, {"sites": []}, {"sites": {"site-2": "/data"}}])
def test_a_sites_document_has_one_shape(tmp_path: Path, document: object) -> None:
    assert faults(lambda: site_values(tmp_path, document)) == [
        "environment.json: has to be a JSON object; 'sites', where given, maps site names to "
        "objects"
    ]


def test_a_sites_values_are_primitive(tmp_path: Path) -> None:
    document = {"a": [1], "b": 2, "sites": {"site-1": {"b": None}, "site-2": {"c": {}}}}

    assert faults(lambda: site_values(tmp_path, document)) == [
        "environment.json: a: is not a primitive value: [1]",
        "environment.json: sites['site-1'].b: is not a primitive value: None",
    ]
