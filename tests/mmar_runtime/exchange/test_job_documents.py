"""A job's two documents as values: what is filled in, what is reported, what is asked for."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import (
    CARRIED,
    DATA_FILTERS,
    EXECUTOR,
    FEDERATION,
    RESULT_FILTERS,
    JobDocuments,
)
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import TASKS

REPOSITORY = Path(__file__).resolve().parents[3]
NAMES = "has to be an array of names of tasks"
APP = REPOSITORY / "jobs/spleen_ct_segmentation/app"


def server_of(**arguments: Any) -> dict[str, Any]:
    return {"workflows": [{"path": FEDERATION, "args": {"min_sites": 2, **arguments}}]}


def client_of(*filters: Any, tasks: Any = TASKS, **arguments: Any) -> dict[str, Any]:
    executor = {"path": EXECUTOR, "args": arguments}
    chains = [{"tasks": ["train"], "filters": list(filters)}]
    executors = [{"tasks": list(tasks), "executor": executor}]
    return {"executors": executors, RESULT_FILTERS: chains}


def problems(read: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read()
    return [f"{one.location}: {one.message}" for one in caught.value.problems]


# --- reading


def test_the_terms_of_the_example_job() -> None:
    documents = JobDocuments.read(APP)

    assert documents.terms == JobTerms(rounds=3, min_sites=2, local_epochs=3)
    assert documents.trains
    assert documents.has_executor


def test_a_plain_mmar_asks_for_nothing(tmp_path: Path) -> None:
    documents = JobDocuments.read(tmp_path)

    assert (documents.federation, documents.executor, documents.trains) == ({}, {}, False)
    assert not documents.has_executor


@pytest.mark.parametrize("text", ["[]", "3", "{", ""])
def test_a_document_that_is_not_an_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config_fed_client.json").write_text(text)

    with pytest.raises(ConfigError, match=r"config_fed_client\.json"):
        JobDocuments.read(tmp_path)


def test_names_in_braces_are_filled_in_at_every_depth() -> None:
    """NVFlare fills in a whole text only, by a value at the top of the same document."""
    server = {"n": 7, "sites": 3, **server_of(num_rounds="{n}", min_sites="{sites}")}
    server["workflows"][0]["args"]["limits"] = {"metric_ranges": {"dice": [0, "{n}"]}}
    client = {"t": "train", **client_of({"path": "own.Half", "args": {"rate": "{rate}"}})}
    client["rate"] = 0.5
    client[RESULT_FILTERS][0]["tasks"] = ["{t}"]

    documents = JobDocuments.of(server, client)

    [chain] = documents.chains(RESULT_FILTERS)
    assert (documents.terms.rounds, documents.terms.min_sites) == (7, 3)
    assert documents.terms.limits == {"metric_ranges": {"dice": [0, 7]}}
    assert (chain.tasks, chain.filters[0].arguments) == (("train",), {"rate": 0.5})


@pytest.mark.parametrize("text", ["{unknown}", "{n}{n}", "round {n}", "{ n }", "{n.real}", "{0}"])
def test_other_braces_stay_as_they_are(text: str) -> None:
    documents = JobDocuments.of({"n": 7, **server_of(models=[text])}, {})

    assert documents.federation["models"] == [text]


def test_a_value_that_is_filled_in_is_not_filled_again() -> None:
    documents = JobDocuments.of({"a": "{b}", "b": "{a}", **server_of(models=["{a}"])}, {})

    assert documents.federation["models"] == ["{b}"]


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    entry = {"path": EXECUTOR, "args": []}
    server = {"components": {}, "workflows": [3, {"path": FEDERATION, "args": []}]}
    client = {
        "executors": [{"tasks": [["train"]], "executor": entry}, {}],
        DATA_FILTERS: 5,
        RESULT_FILTERS: [{}, {"tasks": "train", "filters": [None, {"disabled": True}]}],
    }

    assert problems(lambda: JobDocuments.of(server, client)) == [
        "config_fed_server.json: components: has to be an array of at most 50",
        "config_fed_server.json: workflows[0]: has to be an object",
        "config_fed_server.json: workflows[1].args: has to be an object",
        "config_fed_client.json: executors[0].executor.args: has to be an object",
        f"config_fed_client.json: executors[0].tasks: {NAMES}",
        "config_fed_client.json: executors[1].executor: has to be an object",
        f"config_fed_client.json: executors[1].tasks: {NAMES}",
        "config_fed_client.json: task_data_filters: has to be an array of at most 50",
        "config_fed_client.json: task_result_filters[0].filters: is missing",
        f"config_fed_client.json: task_result_filters[0].tasks: {NAMES}",
        "config_fed_client.json: task_result_filters[1].filters[0]: has to be an object",
        "config_fed_client.json: task_result_filters[1].filters[1].disabled: "
        "NVFlare would leave the class out",
        f"config_fed_client.json: task_result_filters[1].tasks: {NAMES}",
    ]


# --- terms


def test_terms_come_from_the_workflow_and_the_executor() -> None:
    server = server_of(num_rounds=4, transfer="int8", submit_timeout=9, wait_for_others=3)
    client = client_of(local_epochs=2, steps_aggregation=5)

    assert JobDocuments.of(server, client).terms == JobTerms(
        rounds=4,
        min_sites=2,
        local_epochs=2,
        steps_aggregation=5,
        transfer="int8",
        submit_timeout=9,
    )


def test_what_only_nvflare_carries_is_an_argument_but_not_a_term() -> None:
    server = server_of(**dict.fromkeys(CARRIED))

    assert JobDocuments.of(server, client_of()).terms == JobTerms(rounds=0, min_sites=2)


def test_an_unknown_argument_is_not_passed_over() -> None:
    documents = JobDocuments.of(server_of(rounds=3), client_of(processes=2))

    assert problems(lambda: documents.terms) == [
        "config_fed_server.json: workflows[0].args.rounds: is not an argument of a job",
        "config_fed_client.json: executors[0].executor.args.processes: is not an argument of a job",
    ]


def test_a_workflow_without_sites_or_without_ours_has_no_terms() -> None:
    own = {"workflows": [{"path": "own.Course", "args": {"min_sites": 2}}]}

    for server in (own, {"workflows": [{"path": FEDERATION}]}, {}):
        documents = JobDocuments.of(server, client_of())
        assert problems(lambda documents=documents: documents.terms) == [  # type: ignore[misc]
            "config_fed_server.json: workflows[0].args.min_sites: is missing"
        ]


def test_two_documents_that_contradict_each_other_have_no_terms() -> None:
    shared = JobDocuments.of(server_of(shared_names=["a"]), client_of(shared_names=["a"]))
    assert shared.terms.shared_names == ["a"]

    for name in ("b", "{a}"):
        other = JobDocuments.of(server_of(shared_names=["a"]), client_of(shared_names=[name]))
        assert problems(lambda other=other: other.terms) == [  # type: ignore[misc]
            "config_fed_client.json: executors[0].executor.args.shared_names: "
            f"is [{name!r}] here, and ['a'] in config_fed_server.json"
        ]


@pytest.mark.parametrize(
    ("tasks", "trains"), [(TASKS, True), (["*"], True), (["validate"], False), ([], False)]
)
def test_a_job_trains_if_its_sites_take_the_task(tasks: Any, trains: bool) -> None:
    assert JobDocuments.of(server_of(), client_of(tasks=tasks)).trains == trains


# --- chains


def test_chains_keep_their_order_and_know_their_place() -> None:
    first, second = {"path": "a.First", "args": {"n": 1}}, {"path": "b.Second"}
    client = client_of(first, second)
    client[RESULT_FILTERS].append({"tasks": ["validate"], "filters": [first], "direction": "in"})
    documents = JobDocuments.of({}, client)

    train, validate = documents.chains(RESULT_FILTERS)

    assert [(one.path, one.arguments) for one in train.filters] == [
        ("a.First", {"n": 1}),
        ("b.Second", {}),
    ]
    assert (train.direction, validate.direction) == (None, "in")
    assert str(validate.place) == "config_fed_client.json: task_result_filters[1]"
    assert [*documents.chains(DATA_FILTERS)] == []
    assert (documents.counts("a.First"), documents.counts("b.Second")) == (2, 1)
    assert documents.filter_argument("a.First", "n") == 1
    assert documents.filter_argument("c.Third", "n") is None


# --- whatever a document holds

WORDS = st.sampled_from(
    ["path", "args", "tasks", "filters", "executor", "components", "workflows", "executors",
     DATA_FILTERS, RESULT_FILTERS, "train", EXECUTOR, FEDERATION, "min_sites", "num_rounds",
     "shared_names", "disabled", "direction", "{path}", "{tasks}", "{args}", "{x}", ""]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from([EXECUTOR, FEDERATION]) | VALUES,
        "args": st.dictionaries(WORDS, VALUES, max_size=3) | VALUES,
        "tasks": st.lists(WORDS, max_size=2) | VALUES,
        "executor": st.fixed_dictionaries({"path": st.just(EXECUTOR)}) | VALUES,
        "filters": st.lists(st.fixed_dictionaries({"path": WORDS}), max_size=2) | VALUES,
    },
)
SECTIONS = st.lists(ENTRIES | VALUES, max_size=3) | VALUES
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("components", "workflows", "executors", DATA_FILTERS, RESULT_FILTERS), SECTIONS
        ),
        **dict.fromkeys(("path", "tasks", "args"), VALUES),
    },
)


@given(DOCUMENTS, DOCUMENTS)
def test_no_document_crashes_a_reader(server: Any, client: Any) -> None:
    with suppress(ConfigError):
        documents = JobDocuments.of(server, client)
        chains = [*documents.chains(DATA_FILTERS), *documents.chains(RESULT_FILTERS)]
        assert all(isinstance(one.arguments, dict) for chain in chains for one in chain.filters)
        assert isinstance(documents.executor, dict)
        assert isinstance(documents.trains, bool)
        assert documents.counts(EXECUTOR) <= sum(len(chain.filters) for chain in chains)
        documents.filter_argument(EXECUTOR, "x")
        assert isinstance(documents.terms, JobTerms)


# --- the only reader

EXCEPTIONS = {
    "fl_admin/cli/job/from_clara.py": "names them in a help text",
    "fl_admin/jobs/settings.py": "writes a job's documents from templates",
    "fl_admin/jobs/given_models.py": "writes those of a job that evaluates models",
    "fl_admin/jobs/create.py": "leaves an MMAR's own documents out of a new job",
    "fl_admin/jobs/job.py": "copies a job with other numbers, and names places",
    "fl_admin/jobs/clara/reading.py": "reads the documents of older federations",
    "fl_client/jobs/documents.py": "judges each key as it is, before anything is filled in",
    "fl_client/jobs/files.py": "lists the files of a job",
    "mmar_runtime/exchange/job_documents.py": "reads them",
}
"""Modules that name these files for another reason than to report a place, and the reason."""


def names_files(node: ast.AST) -> Iterator[ast.AST]:
    """The mentions of the two files in code, except for places, messages and docstrings."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Location":
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Name) and node.id in ("SERVER_CONFIG", "CLIENT_CONFIG"):
        yield node
    if isinstance(node, ast.Constant) and "config_fed_" in str(node.value):
        yield node
    for inner in ast.iter_child_nodes(node):
        yield from names_files(inner)


def test_nobody_else_opens_a_jobs_documents() -> None:
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("fl_admin", "fl_client", "fl_server", "mmar_runtime", "medl")
        for path in (REPOSITORY / package).rglob("*.py")
        if any(names_files(ast.parse(path.read_text())))
    }

    assert found == set(EXCEPTIONS)


def test_the_example_job_is_as_small_as_its_documents_say() -> None:
    server = json.loads((APP / "config/config_fed_server.json").read_text())

    assert server["components"] == []
    assert [one["path"] for one in server["workflows"]] == [FEDERATION]
