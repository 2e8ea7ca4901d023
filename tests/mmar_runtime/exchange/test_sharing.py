"""Patterns of names: they fit what a regular expression would, in less time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.sharing import fitting_names, form_problems, matching, shared_tensors


@given(st.text("ab.*", max_size=8), st.text("ab.", max_size=10))
def test_a_pattern_fits_what_its_regular_expression_does(pattern: str, name: str) -> None:
    regex = re.compile(".*".join(map(re.escape, pattern.split("*"))))

    assert bool(matching([pattern], [name])) == bool(regex.fullmatch(name))


def test_pieces_do_not_overlap() -> None:
    assert matching(["ab*ba"], ["aba", "abba"]) == ("abba",)
    assert matching(["a*b*b"], ["ab", "abb"]) == ("abb",)


def test_a_star_stands_for_any_character() -> None:
    assert matching(["norm.*"], ["norm.a\nb"]) == ("norm.a\nb",)


def test_many_stars_and_a_long_name_take_no_time() -> None:
    """As a regular expression, one of these takes seconds."""
    began = time.monotonic()

    assert matching(["a*a*a*a*b"], ["a" * 300] * 20) == ()

    assert time.monotonic() - began < 5


# --- what is left out again


NAMES = ["body.weight", "head.weight"]


def test_shared_names_may_name_what_is_not_shared() -> None:
    assert shared_tensors(["!head.*"], NAMES, Location("here")) == ("body.weight",)


@pytest.mark.parametrize("pattern", ["!head.weight", "!head.*", "!"])
def test_nothing_else_may(pattern: str) -> None:
    """It would fit no tensor, and so would mean nothing, or that nothing is encrypted."""
    with pytest.raises(ConfigError):
        fitting_names([pattern], NAMES, Location("here"))

    [problem] = form_problems(["body.*", pattern], Location("here"))
    assert problem.location == Location("here") / 1


def test_the_refusal_says_who_takes_it() -> None:
    [problem] = form_problems(["!head.*"], Location("here"))

    assert problem.message == "begins with '!', which only shared_names takes: '!head.*'"
