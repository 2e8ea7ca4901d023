"""A site that demands privacy filters takes part only where its own scopes have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fl_client.privacy.filters import filter_faults
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy

PATH = "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy"
DEMANDING = SitePolicy(required_filters=("PercentilePrivacy",))


def scope(*filters: Any, **more: Any) -> dict[str, Any]:
    return {"name": "site", "task_result_filters": list(filters), **more}


def missing(local: Path, *scopes: Any, policy: SitePolicy = DEMANDING) -> list[str]:
    (local / "privacy.json").write_text(json.dumps({"scopes": list(scopes)}))
    return [one.rule for one in filter_faults(local, policy)]


@pytest.mark.parametrize(
    "entry",
    [
        {"path": PATH, "args": {"percentile": 10}},
        {"name": "PercentilePrivacy"},
        {"path": PATH, "direction": "OUT"},
        {"path": PATH, "direction": "inout"},
    ],
)
def test_a_filter_on_the_way_out_is_enough(tmp_path: Path, entry: Any) -> None:
    assert missing(tmp_path, scope({"path": "other.Filter"}, entry)) == []


def test_it_can_be_demanded_by_its_full_path(tmp_path: Path) -> None:
    full = SitePolicy(required_filters=(PATH,))

    assert missing(tmp_path, scope({"path": PATH}), policy=full) == []
    assert missing(tmp_path, scope({"path": f"evil.{PATH}"}), policy=full) == ["privacy"]


@pytest.mark.parametrize(
    "scopes",
    [
        [],
        [scope()],
        [scope({"path": "other.Filter"})],
        [scope({"path": PATH, "direction": "in"})],
        [scope(task_data_filters=[{"path": PATH}])],
        [scope({"path": f"{PATH}2"})],
        [scope({"path": 5}, "PercentilePrivacy", None)],
        [scope({"path": PATH}), scope()],
    ],
)
def test_every_scope_that_a_job_could_choose_needs_it(tmp_path: Path, scopes: Any) -> None:
    assert missing(tmp_path, *scopes) == ["privacy"]


def test_without_the_file_it_is_missing(tmp_path: Path) -> None:
    assert [one.rule for one in filter_faults(tmp_path, DEMANDING)] == ["privacy"]


def test_a_site_that_demands_nothing_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "privacy.json").write_text("no JSON")

    assert list(filter_faults(tmp_path, DEFAULT_POLICY)) == []
    with pytest.raises(ConfigError, match="not valid JSON"):
        list(filter_faults(tmp_path, DEMANDING))


@pytest.mark.parametrize("document", [[], {"scopes": {}}, {"scopes": ["site"]}])
def test_a_file_of_another_form_is_an_error(tmp_path: Path, document: Any) -> None:
    (tmp_path / "privacy.json").write_text(json.dumps(document))

    with pytest.raises(ConfigError, match="has to be a JSON object with an array 'scopes'"):
        list(filter_faults(tmp_path, DEMANDING))
