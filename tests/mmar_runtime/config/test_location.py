"""A place in a document, and how it is written."""

from __future__ import annotations

from mmar_runtime.config.location import Location

DOCUMENT = Location("config_train.json")


def test_a_place_reads_like_the_way_to_it() -> None:
    place = DOCUMENT / "train" / "handlers" / 3 / "args"

    assert place.place == "train.handlers[3].args"
    assert str(place) == "config_train.json: train.handlers[3].args"
    assert repr(place) == "Location('config_train.json: train.handlers[3].args')"


def test_the_whole_document_is_a_place_too() -> None:
    assert DOCUMENT.place == ""
    assert str(DOCUMENT) == "config_train.json"


def test_a_step_makes_a_new_place() -> None:
    inner = DOCUMENT / "train"

    assert DOCUMENT.path == ()
    assert inner == Location("config_train.json", ("train",))


def test_a_key_that_is_no_plain_name_is_quoted() -> None:
    assert (DOCUMENT / "train" / "a.b").place == "train['a.b']"
    assert (DOCUMENT / "").place == "['']"
    assert (DOCUMENT / "3" / 3).place == "['3'][3]"


def test_no_key_can_forge_a_line_or_reach_the_terminal() -> None:
    text = str(DOCUMENT / "x\n\x1b[2Jconfig.json: fine")

    assert text == r"config_train.json: ['x\n\x1b[2Jconfig.json: fine']"
