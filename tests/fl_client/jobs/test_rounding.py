"""What a job's two documents have to say so that sites send what the server awaits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fl_client.jobs.encryption import ENCRYPT, with_encryption
from fl_client.jobs.rounding import COMPACT, rounding_faults, rounding_filter, with_rounding
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import FEDERATION, JobDocuments

PLAIN: dict[str, Any] = {"task_data_filters": [], "task_result_filters": []}
OTHER = {"path": "a.Privacy", "args": {}}

Documents = tuple[Any, Any]


@pytest.fixture
def documents() -> Documents:
    server = {"workflows": [{"path": FEDERATION, "args": {"min_sites": 2, "transfer": "int8"}}]}
    return server, copy.deepcopy(with_rounding(PLAIN, "int8"))


def faults(server: Any, client: Any) -> list[str]:
    return [str(fault) for fault in rounding_faults(JobDocuments.of(server, client))]


def test_documents_that_agree_have_no_fault(documents: Documents) -> None:
    assert faults(*documents) == []
    assert documents[1]["task_result_filters"] == [
        {"tasks": ["train"], "filters": [{"path": COMPACT, "args": {"transfer": "int8"}}]}
    ]


def test_a_job_that_rounds_nothing_has_no_fault_either() -> None:
    assert faults({"workflows": []}, PLAIN) == []


def test_the_rounding_comes_after_every_other_filter_of_the_updates() -> None:
    chains = [{"tasks": ["train", "submit_model"], "filters": [OTHER]}]

    made = with_rounding({**PLAIN, "task_result_filters": chains}, "float16")

    assert [(chain["tasks"], chain["filters"]) for chain in made["task_result_filters"]] == [
        (["train"], [OTHER, rounding_filter("float16")]),
        (["submit_model"], [OTHER]),
    ]
    assert chains[0]["filters"] == [OTHER]


def _server_says_nothing(server: Any, client: Any) -> None:
    del server["workflows"][0]["args"]["transfer"]


def _client_says_nothing(server: Any, client: Any) -> None:
    client.update(PLAIN)


def _client_says_otherwise(server: Any, client: Any) -> None:
    server["workflows"][0]["args"]["transfer"] = "float16"


def _unknown_form(server: Any, client: Any) -> None:
    server["workflows"][0]["args"]["transfer"] = "int4"
    client["task_result_filters"][0]["filters"] = [rounding_filter("int4")]


def _another_after_it(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"].append(OTHER)


def _twice(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"].append(rounding_filter("int8"))


def _inwards_only(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["direction"] = "in"


def _for_another_task(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["tasks"] = ["validate"]


def _for_another_task_only(server: Any, client: Any) -> None:
    _for_another_task(server, client)
    client["task_result_filters"].append({"tasks": ["train"], "filters": []})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_server_says_nothing, "transfer is 'int8' here, and None in config_fed_server.json"),
        (_client_says_nothing, "transfer is None here, and 'int8'"),
        (_client_says_otherwise, "transfer is 'int8' here, and 'float16'"),
        (_unknown_form, "it has to be one of float16, int8"),
        (_another_after_it, "CompactUpdate has to be the last filter of the task 'train'"),
        (_twice, "CompactUpdate has to be the last filter of the task 'train'"),
        (_inwards_only, "CompactUpdate has to be the last filter of the task 'train'"),
        (_for_another_task, "CompactUpdate has to be the last filter of the task 'train'"),
        (_for_another_task_only, "CompactUpdate has to be the last filter of the task 'train'"),
    ],
)
def test_a_job_whose_sites_would_send_something_else_is_refused(
    documents: Documents, spoil: Callable[[Any, Any], None], message: str
) -> None:
    spoil(*documents)

    [fault] = faults(*documents)

    assert message in fault
    assert "'mmar job create --transfer' writes both documents." in fault


def test_a_rounding_that_is_switched_off_is_refused(documents: Documents) -> None:
    documents[1]["task_result_filters"][0]["filters"][0]["disabled"] = True

    with pytest.raises(ConfigError, match="NVFlare would leave the class out"):
        faults(*documents)


def test_encrypted_updates_are_not_rounded(documents: Documents) -> None:
    server, client = documents

    encrypted = with_encryption(client, ["*"])

    assert [one["path"] for one in encrypted["task_result_filters"][0]["filters"]] == [
        COMPACT,
        ENCRYPT,
    ]
    assert any("has to be the last filter" in fault for fault in faults(server, encrypted))
