"""Random inputs to all that reads what strangers write; ``make fuzz`` runs millions of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmar_runtime.config.expressions import ExpressionRefused, parse_expression, walk
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import Variable
from mmar_runtime.config.variables import SubstitutionError, looks_like_construct, substitute
from tests.security.case import TRAIN, Case, base_files, put
from tests.security.corpus.expression import TEXTS
from tests.security.fuzzing import (
    SEEDS,
    TARGETS,
    Target,
    UpdateTarget,
    WorkflowTarget,
    changed_json,
)

NAMES = [kind.name for kind in TARGETS]
EXAMPLES = {"workflow": 30, "archive": 30}
"""Random inputs of a target here; of the others there are ten times as many."""

SLOW = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Interpreting ``print`` leaves the handlers of its logger as they were."""
    logger = logging.getLogger("mmar_runtime.expressions")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def target(name: str, folder: Path) -> Target:
    [kind] = [one for one in TARGETS if one.name == name]
    return kind(folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of complex numbers of half precision
def test_no_random_input_makes_a_target_fail(name: str, tmp_path: Path) -> None:
    tested, random = target(name, tmp_path), Random(f"{name}/test")

    for _ in range(EXAMPLES.get(name, 300)):
        tested.run(tested.make(random))


@pytest.mark.parametrize("name", [path.stem for path in sorted(SEEDS.glob("*.json"))])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_once_went_wrong_goes_right(name: str, tmp_path: Path) -> None:
    tested = target(name, tmp_path)

    assert tested.kept
    for kept in tested.kept:
        tested.run(kept)


def test_the_same_seed_makes_the_same_inputs(tmp_path: Path) -> None:
    for kind in TARGETS:
        first, second = (kind(tmp_path).make(Random("seed")) for _ in range(2))
        assert first == second


# --- The language --------------------------------------------------------------------------------

PIECES = st.sampled_from(["@model", "x", "['a']", "lambda x:",
                          "(", ")", "[", "]", "{", "}", "'", '"', "f'", "+", "**", "print", "__",
                          "#",
                          ".state.", "from_engine(", "1", "9" * 30, ",", " if ", " else ",
                          "\\"])  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=15).map("".join)))
@example("@" * 900)
@example("f'{" * 100)
def test_any_text_is_a_tree_or_refused(text: str) -> None:
    for start in ("#", "lambda x: "):
        try:
            tree = parse_expression(start + text)
        except ExpressionRefused:
            continue
        assert sum(1 for _ in walk(tree)) < 1000


@given(st.sampled_from([text for _, text in TEXTS.values()]), st.randoms())
def test_a_hostile_expression_with_a_character_less_is_refused_or_harmless(
    text: str, random: Any
) -> None:
    at = random.randrange(len(text))
    try:
        tree = parse_expression(text[:at] + text[at + 1 :])
    except ExpressionRefused:
        return
    assert not any(getattr(node, "callee", "print") not in SAFE for node in walk(tree))


SAFE = ("print", "monai.handlers.from_engine")


# --- Variables -----------------------------------------------------------------------------------

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(PLAIN, st.lists(PLAIN, min_size=3, max_size=3))
def test_no_value_makes_a_construct_of_a_text(text: str, values: list[str]) -> None:
    place = Location("config_train.json")
    variables = {f"V{i}": Variable(value, place) for i, value in enumerate(values)}
    for template in (text, f"{{V0}}{text}", f"{text}{{V1}}{{V2}}", "{V0}", "{V0}{V1}{V2}"):
        try:
            found = substitute(template, variables, place)
        except SubstitutionError:
            continue
        assert not looks_like_construct(str(found)) or looks_like_construct(template)


# --- Whole workflows and contributions -----------------------------------------------------------


@SLOW
@given(seed=st.integers(0, 2**32))
def test_a_workflow_with_random_changes_gets_a_verdict(seed: int, tmp_path: Path) -> None:
    tested = WorkflowTarget(tmp_path)

    tested.run(tested.make(Random(seed)))


@SLOW
@given(seed=st.integers(0, 2**32))
def test_changes_of_a_workflow_keep_to_json(seed: int, tmp_path: Path) -> None:
    import json

    document = json.loads(base_files("mmar")[TRAIN])
    json.dumps(changed_json(Random(seed), document, ("name", "path", "args")))


@SLOW
@given(seed=st.integers(0, 2**48))
def test_a_contribution_with_random_changes_gets_an_answer(seed: int, tmp_path: Path) -> None:
    UpdateTarget(tmp_path).run(seed)


# --- The fuzzer itself ---------------------------------------------------------------------------


def test_a_fault_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("mmar_runtime.policy.mmar_check.load_train_config", broken)
    tested = WorkflowTarget(tmp_path)

    with pytest.raises(AssertionError, match="cannot be judged: KeyError"):
        tested.run(tested.make(Random(0)))


def test_a_pointer_sets_appends_and_takes_away() -> None:
    from tests.security.case import GONE

    document: dict[str, Any] = {"a": [1, {"b": 2}], "c": 3}
    for pointer, value in (("a/1/b", 4), ("a/-", 5), ("a/0", GONE), ("c", GONE), ("d/e", 6)):
        put(document, pointer, value)

    assert document == {"a": [{"b": 4}, 5], "d": {"e": 6}}
    assert Case(id="x", family="benign", tries="", rules=()).name == "benign/x"
