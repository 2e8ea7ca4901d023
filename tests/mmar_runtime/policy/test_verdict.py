"""What a verdict tells, and that no hostile text can misuse it."""

from __future__ import annotations

import json

from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.policy.verdict import MAX_PROBLEMS, MAX_TEXT, Verdict, verdict


def test_nothing_found_is_accepted() -> None:
    found = Verdict("mmar")

    assert found.accepted
    assert found.as_dict() == {"path": "mmar", "verdict": "accept", "problems": [], "notices": []}


def test_a_problem_refuses_and_is_told_with_rule_file_and_place() -> None:
    place = Location("config_train.json") / "train" / "model"
    found = verdict("mmar", [Problem(place, "is code", "Leave it out.", "code")], ["a notice"])

    assert not found.accepted
    assert found.as_dict() == {
        "path": "mmar",
        "verdict": "reject",
        "problems": [
            {
                "rule": "code",
                "file": "config_train.json",
                "place": "train.model",
                "message": "is code",
            }
        ],
        "notices": ["a notice"],
    }


def test_what_is_not_printable_is_escaped_everywhere() -> None:
    text = "\x1b[2J\n\ud800\u202e"
    found = verdict(text, [Problem(Location(text) / text, text, text)], [text])

    for part in (found.path, found.notices[0], found.problems[0].message, str(found.problems[0])):
        assert "\x1b" not in part
        assert "\ud800" not in part
        assert "\u202e" not in part
    json.dumps(found.as_dict()).encode()


def test_long_texts_and_long_lists_are_cut() -> None:
    many = [Problem(Location("file"), f"{number} " + "a" * 10_000) for number in range(1000)]
    found = verdict("mmar", many)

    assert len(found.problems) == MAX_PROBLEMS + 1
    assert found.problems[-1].message == "... and 900 more problems"
    assert max(len(one.message) for one in found.problems) <= MAX_TEXT + len("...")


def test_the_same_problem_is_told_once() -> None:
    same = Problem(Location("file"), "is wrong")

    assert len(verdict("mmar", [same, same]).problems) == 1
