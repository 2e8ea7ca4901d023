"""What a job's two documents have to say so that all is encrypted that is asked to be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fl_client.jobs.encryption import ENCRYPT, encryption_faults, with_encryption
from mmar_runtime.exchange.job_documents import FEDERATION, JobDocuments

LAYERS = ["conv.*"]
PLAIN: dict[str, Any] = {"task_data_filters": [], "task_result_filters": []}
OTHER = {"path": "a.Privacy", "args": {}}

Documents = tuple[Any, Any]


def server_of(layers: Any) -> dict[str, Any]:
    return {"workflows": [{"path": FEDERATION, "args": {"min_sites": 2, "encrypt_layers": layers}}]}


@pytest.fixture
def documents() -> Documents:
    return server_of(LAYERS), copy.deepcopy(with_encryption(PLAIN, LAYERS))


def faults(server: Any, client: Any) -> list[str]:
    return [str(fault) for fault in encryption_faults(JobDocuments.of(server, client))]


def test_documents_that_agree_have_no_fault(documents: Documents) -> None:
    assert faults(*documents) == []


def test_a_job_that_encrypts_nothing_has_none_either() -> None:
    assert faults({"workflows": []}, PLAIN) == []


def test_the_encryption_stands_behind_every_other_filter() -> None:
    chain = {"tasks": ["train"], "filters": [OTHER]}

    made = with_encryption({**PLAIN, "task_result_filters": [chain]}, LAYERS)

    assert {
        chain["tasks"][0]: [one["path"] for one in chain["filters"]]
        for chain in made["task_result_filters"]
    } == {"train": ["a.Privacy", ENCRYPT], "submit_model": [ENCRYPT]}
    assert chain["filters"] == [OTHER]


def test_a_task_keeps_its_single_chain() -> None:
    """NVFlare takes no two chains of one task."""
    shared = {"tasks": ["train", "validate"], "filters": [OTHER]}

    encrypted = with_encryption({**PLAIN, "task_result_filters": [shared]}, LAYERS)
    made = encrypted["task_result_filters"]

    assert [one["tasks"] for one in made] == [["train"], ["validate"], ["submit_model"]]
    assert [len(one["filters"]) for one in made] == [2, 1, 1]


def _server_says_nothing(server: Any, client: Any) -> None:
    server["workflows"] = []


def _client_says_nothing(server: Any, client: Any) -> None:
    client.update(PLAIN)


def _both_say_otherwise(server: Any, client: Any) -> None:
    server["workflows"][0]["args"]["encrypt_layers"] = ["head.*"]


def _a_best_model_in_plain(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["tasks"] = ["train"]


def _another_behind(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"].append(OTHER)


def _inwards_only(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["direction"] = "in"


def _nobody_decrypts(server: Any, client: Any) -> None:
    client["task_data_filters"] = []


def _no_list(server: Any, client: Any) -> None:
    server["workflows"][0]["args"]["encrypt_layers"] = "*"
    client["task_result_filters"][0]["filters"][0]["args"]["encrypt_layers"] = "*"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_server_says_nothing, "encrypt_layers is ['conv.*'] here, and None in config_fed_server"),
        (_client_says_nothing, "encrypt_layers is None here, and ['conv.*']"),
        (_both_say_otherwise, "encrypt_layers is ['conv.*'] here, and ['head.*']"),
        (_a_best_model_in_plain, "has to be the last filter of the task 'submit_model'"),
        (_another_behind, "EncryptReply has to be the last filter of the task 'train'"),
        (_inwards_only, "EncryptReply has to be the last filter of the task 'train'"),
        (_nobody_decrypts, "DecryptModel has to be the first filter of the task 'score_model'"),
        (_no_list, "encrypt_layers is '*' here"),
    ],
)
def test_a_job_that_would_leave_something_in_plain_is_refused(
    documents: Documents, spoil: Callable[[Any, Any], None], told: str
) -> None:
    spoil(*documents)

    assert any(told in one for one in faults(*documents))
    assert all("'mmar job create --he' writes both documents." in one for one in faults(*documents))


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([], "has to be an array of 1 to 1000 names of tensors"),
        ([""], "encrypt_layers[0]: has to be the name of a tensor"),
        (["conv.*", "*a*b*c*d*"], "encrypt_layers[1]: has more than 4 '*'"),
    ],
)
def test_names_that_no_site_would_take_are_refused_before_a_run(
    layers: list[str], told: str
) -> None:
    [fault] = faults(server_of(layers), with_encryption(PLAIN, layers))

    assert told in fault


def test_an_aggregator_of_the_jobs_own_is_refused(documents: Documents) -> None:
    documents[0]["workflows"][0]["args"]["aggregator"] = {"path": "own.Median"}

    [fault] = faults(*documents)

    assert "'own.Median' cannot add up what is encrypted" in fault
