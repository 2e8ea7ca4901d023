"""One form of names, and how the text of a stranger is shown."""

from __future__ import annotations

import argparse

import pytest

from mmar_runtime.cli.common import print_note, run_command
from mmar_runtime.errors import MmarError
from mmar_runtime.names import JOB_NAME, MAX_NAME, NAME, SITE_NAME, is_name, shown, visible_line
from tests.security.corpus.names import ODD, PLAIN


@pytest.mark.parametrize("name", PLAIN.values())
def test_a_plain_name_is_one(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", [text for _, text in ODD.values()])
@pytest.mark.parametrize("form", [NAME, JOB_NAME, SITE_NAME])
def test_what_a_reader_takes_for_something_else_is_none(name: str, form: object) -> None:
    assert form.fullmatch(name) is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [None, 1, True, ["a"], b"a", "", "a" * (MAX_NAME + 1), "a\n"])
def test_other_values_are_none(value: object) -> None:
    assert not is_name(value)


class Text(str):
    """A text of a class of its own, whose methods could do anything."""


def test_a_name_is_an_exact_text() -> None:
    assert not is_name(Text("a"))


def test_text_is_shown_on_one_line() -> None:
    assert visible_line("a\nb\x1b[2J\u202ec") == "a\\nb\\x1b[2J\\u202ec"
    assert shown("a\n\n  b" + "c" * 1000) == "a b" + "c" * 397 + "…"


def test_no_error_and_no_note_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    def command(options: argparse.Namespace) -> int:
        print_note("left out: docs/\x1b[2J\nINFO all is well.md")
        raise MmarError("first line \x1b[2J\n    advice \u202e")

    options = argparse.Namespace(debug=False, json=False)
    assert run_command(command, options) == 2

    assert capsys.readouterr().err == (
        "note: left out: docs/\\x1b[2J\\nINFO all is well.md\n"
        "mmar: first line \\x1b[2J\n    advice \\u202e\n"
    )
