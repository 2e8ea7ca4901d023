"""What a job's two documents have to say so that sites send what the server awaits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fl_client.jobs.encryption import ENCRYPT, encrypting
from fl_client.jobs.transfer import (
    COMPACT,
    compact_filter,
    compacting,
    transfer_faults,
    transfer_of,
)
from fl_client.privacy.filter_plan import AGGREGATOR

FILES = ("config_fed_server.json", "config_fed_client.json")
PLAIN: dict[str, Any] = {"task_data_filters": [], "task_result_filters": []}
OTHER = {"path": "a.Privacy", "args": {}}

Documents = tuple[Any, Any]


@pytest.fixture
def documents() -> Documents:
    server = {"components": [{"path": AGGREGATOR, "args": {"transfer": "int8"}}]}
    return server, copy.deepcopy(compacting(PLAIN, "int8"))


def faults(server: Any, client: Any) -> list[str]:
    return [str(one) for one in transfer_faults(server, client, FILES)]


def test_documents_that_agree_have_no_fault(documents: Documents) -> None:
    assert faults(*documents) == []
    assert transfer_of(documents[1]) == "int8"
    assert documents[1]["task_result_filters"] == [
        {"tasks": ["train"], "filters": [{"path": COMPACT, "args": {"transfer": "int8"}}]}
    ]


def test_a_job_that_rounds_nothing_has_none_either() -> None:
    assert faults({"components": []}, PLAIN) == []
    assert transfer_of(PLAIN) is None


def test_the_rounding_stands_behind_every_other_filter_of_the_updates() -> None:
    chains = [{"tasks": ["train", "submit_model"], "filters": [OTHER]}]

    made = compacting({**PLAIN, "task_result_filters": chains}, "float16")

    assert [(one["tasks"], one["filters"]) for one in made["task_result_filters"]] == [
        (["train"], [OTHER, compact_filter("float16")]),
        (["submit_model"], [OTHER]),
    ]
    assert chains[0]["filters"] == [OTHER]


def _server_says_nothing(server: Any, client: Any) -> None:
    server["components"][0]["args"] = {}


def _client_says_nothing(server: Any, client: Any) -> None:
    client.update(PLAIN)


def _both_say_otherwise(server: Any, client: Any) -> None:
    server["components"][0]["args"]["transfer"] = "float16"


def _no_form(server: Any, client: Any) -> None:
    server["components"][0]["args"]["transfer"] = "int4"
    client["task_result_filters"][0]["filters"] = [compact_filter("int4")]


def _another_behind(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"].append(OTHER)


def _twice(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"].append(compact_filter("int8"))


def _disabled(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"][0]["disabled"] = True


def _with_another_argument(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["filters"][0]["args"]["block"] = 1


def _inwards_only(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["direction"] = "in"


def _for_another_task(server: Any, client: Any) -> None:
    client["task_result_filters"][0]["tasks"] = ["validate"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_server_says_nothing, "transfer is 'int8' here, and None in config_fed_server.json"),
        (_client_says_nothing, "transfer is None here, and 'int8'"),
        (_both_say_otherwise, "transfer is 'int8' here, and 'float16'"),
        (_no_form, "it has to be one of float16, int8"),
        (_another_behind, "CompactUpdate has to be the last filter of the task 'train'"),
        (_twice, "CompactUpdate has to be the last filter of the task 'train'"),
        (_disabled, "CompactUpdate has to be the last filter of the task 'train'"),
        (_with_another_argument, "CompactUpdate has to be the last filter of the task 'train'"),
        (_inwards_only, "CompactUpdate has to be the last filter of the task 'train'"),
        (_for_another_task, "CompactUpdate has to be the last filter of the task 'train'"),
    ],
)
def test_a_job_whose_sites_would_send_something_else_is_refused(
    documents: Documents, spoil: Callable[[Any, Any], None], told: str
) -> None:
    spoil(*documents)

    [found] = faults(*documents)

    assert told in found
    assert "'mmar job create --transfer' writes both documents." in found


def test_what_is_encrypted_is_not_rounded(documents: Documents) -> None:
    server, client = documents

    encrypted = encrypting(client, ["*"])

    assert [one["path"] for one in encrypted["task_result_filters"][0]["filters"]] == [
        COMPACT,
        ENCRYPT,
    ]
    assert any("has to be the last filter" in one for one in faults(server, encrypted))


@pytest.mark.parametrize("filters", [[1], [{"tasks": ["train"]}], 7, [{"filters": [COMPACT]}]])
def test_what_is_no_list_of_filters_is_refused(documents: Documents, filters: Any) -> None:
    documents[1]["task_result_filters"] = filters

    assert faults(*documents)
