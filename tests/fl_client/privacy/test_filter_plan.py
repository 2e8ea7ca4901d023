"""The filters of a site and of a job together: what is wrong is told before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fl_client.privacy.filter_plan import FilterPlan
from fl_client.privacy.ledger import PrivacyLedger
from mmar_runtime.errors import ConfigError, PolicyError
from mmar_runtime.exchange.job_documents import FEDERATION
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, Privacy, SitePolicy

SIZES = {"conv.weight": 90, "head.weight": 10, "norm.running_mean": 4}
BUFFERS = frozenset({"norm.running_mean"})
BOUNDED = SitePolicy(privacy=Privacy(epsilon_max=1.0))


def ours(name: str, **args: Any) -> dict[str, Any]:
    return {"path": f"fl_client.flare.privacy.{name}", "args": args}


EXCLUDE = ours("ExcludeVars", exclude_vars=["head.*"])
PERCENTILE = ours("PercentilePrivacy", percentile=50)
SVT = ours("SVTPrivacy", epsilon=0.1, epsilon_release=0.3)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    folder.mkdir()
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "config").mkdir(parents=True)
    return folder


def written(
    local: Path, app: Path, *, site: Any = (), job: Any = (), optional: Any = ("*",), **values: Any
) -> FilterPlan:
    scope = {"name": "site", "task_result_filters": list(site)}
    privacy = {"scopes": [scope], "default_scope": "site"}
    (local / "privacy.json").write_text(json.dumps(privacy))
    chains = [{"tasks": ["train"], "filters": list(job)}]
    client = {**values, "task_result_filters": chains}
    (app / "config/config_fed_client.json").write_text(json.dumps(client))
    arguments = {"min_sites": 2, "optional_names": list(optional)}
    server = {"workflows": [{"path": FEDERATION, "args": arguments}]}
    (app / "config/config_fed_server.json").write_text(json.dumps(server))
    return FilterPlan.read(local, app)


def faults(local: Path, app: Path, policy: SitePolicy = DEFAULT_POLICY) -> list[str]:
    return [str(one) for one in FilterPlan.read(local, app).faults(policy)]


# --- order


def test_filters_of_the_site_come_before_those_of_the_job(local: Path, app: Path) -> None:
    plan = written(local, app, site=[EXCLUDE, SVT], job=[PERCENTILE])

    assert [(one.owner, one.settings.name) for one in plan.filters] == [
        ("site", "ExcludeVars"),
        ("site", "SVTPrivacy"),
        ("job", "PercentilePrivacy"),
    ]
    assert faults(local, app) == []


def test_an_exclusion_behind_a_privacy_filter_is_refused(local: Path, app: Path) -> None:
    written(local, app, site=[PERCENTILE], job=[EXCLUDE])

    [told] = faults(local, app)

    assert told.startswith("config_fed_client.json: task_result_filters[0].filters[0]: ExcludeVars")
    assert "comes behind PercentilePrivacy of the site" in told
    assert "Keep tensors at the sites by shared_names instead" in told


def test_a_site_is_told_of_its_own_order(local: Path, app: Path) -> None:
    written(local, app, site=[PERCENTILE, EXCLUDE])

    [told] = faults(local, app)

    assert "Write it before the other one in privacy.json." in told


def test_filters_of_other_tasks_and_ways_in_do_not_count(local: Path, app: Path) -> None:
    written(local, app, site=[{**PERCENTILE, "direction": "in"}], job=[])
    document = {"task_result_filters": [{"tasks": ["validate"], "filters": [PERCENTILE]}]}
    (app / "config/config_fed_client.json").write_text(json.dumps(document))

    assert FilterPlan.read(local, app).filters == ()


def test_a_value_of_the_documents_own_is_filled_in(local: Path, app: Path) -> None:
    plan = written(local, app, job=[ours("PercentilePrivacy", gamma="{clip}")], clip=0.25)

    assert plan.filters[0].settings.gamma == 0.25


def test_the_plan_leaves_filters_of_others_out(local: Path, app: Path) -> None:
    others = [{"path": ["x"]}, {"path": "other.Filter"}, {}]

    assert written(local, app, site=[None, 3, *others], job=others).filters == ()


@pytest.mark.parametrize("filters", [{"path": 1}, [None, 3], 5])
def test_a_chain_that_cannot_be_read_is_refused(local: Path, app: Path, filters: Any) -> None:
    chain = {"tasks": ["train"], "filters": filters}
    (app / "config/config_fed_client.json").write_text(json.dumps({"task_result_filters": [chain]}))

    with pytest.raises(ConfigError, match=r"task_result_filters\[0\].filters.*: has to be an"):
        FilterPlan.read(local, app)


def test_whole_models_are_held_back_by_any_filter_or_a_bound(local: Path, app: Path) -> None:
    assert not written(local, app).holds_models_back(DEFAULT_POLICY)

    assert written(local, app).holds_models_back(BOUNDED)
    assert written(local, app, job=[EXCLUDE]).holds_models_back(DEFAULT_POLICY)
    assert written(local, app, site=[EXCLUDE]).holds_models_back(DEFAULT_POLICY)


def test_faults_are_of_the_plan_as_it_was_read(local: Path, app: Path) -> None:
    """What is edited afterwards is no part of it."""
    plan = written(local, app, site=[PERCENTILE])
    (local / "privacy.json").unlink()
    demanding = SitePolicy(required_filters=("PercentilePrivacy", "SVTPrivacy"))

    [told] = plan.faults(demanding)

    assert "'SVTPrivacy' is required by this site's policy" in told.message


# --- what only shows with the network


def require(plan: FilterPlan, root: Path, policy: SitePolicy = DEFAULT_POLICY) -> None:
    plan.require(SIZES, BUFFERS, policy, PrivacyLedger(root))


def test_a_plan_that_fits_says_nothing(local: Path, app: Path, tmp_path: Path) -> None:
    require(written(local, app, site=[EXCLUDE, SVT], job=[PERCENTILE]), tmp_path, BOUNDED)


def test_the_server_has_to_do_without_what_is_left_out(
    local: Path, app: Path, tmp_path: Path
) -> None:
    plan = written(local, app, site=[PERCENTILE], optional=["head.*"])

    with pytest.raises(ConfigError) as caught:
        require(plan, tmp_path)

    assert "leaves out norm.running_mean, without which the server refuses" in str(caught.value)
    assert "optional_names of the job" in str(caught.value)


def test_buffers_that_are_sent_need_no_permission(local: Path, app: Path, tmp_path: Path) -> None:
    require(written(local, app, site=[ours("SVTPrivacy", epsilon_release=1, buffers="send")],
                    optional=[]), tmp_path)  # fmt: skip


def test_an_exclusion_that_fits_nothing_is_an_error(local: Path, app: Path, tmp_path: Path) -> None:
    """What it was to keep at the site would leave under another name."""
    plan = written(local, app, site=[ours("ExcludeVars", exclude_vars=["haed.*"])])

    with pytest.raises(ConfigError, match=r"'haed\.\*' fits none of the 3 tensors"):
        require(plan, tmp_path)


def test_something_has_to_be_left(local: Path, app: Path, tmp_path: Path) -> None:
    plan = written(local, app, site=[ours("ExcludeVars", exclude_vars=["*"])])

    with pytest.raises(ConfigError, match="nothing is left to send"):
        require(plan, tmp_path)


# --- the budget


def test_a_round_that_costs_more_than_is_left_is_not_trained(
    local: Path, app: Path, tmp_path: Path
) -> None:
    """0.4 a round, 1.0 in all: the third one is too much."""
    plan, ledger = written(local, app, site=[SVT]), PrivacyLedger(tmp_path)
    for number in (1, 2):
        require(plan, tmp_path, BOUNDED)
        ledger.spend(0.4, 1.0, job="j", round=number, filter="SVTPrivacy", data="d")

    with pytest.raises(PolicyError, match=r"0\.8 of privacy\.epsilon_max of this site, 1, are"):
        require(plan, tmp_path, BOUNDED)


def test_filters_of_site_and_job_are_paid_together(local: Path, app: Path, tmp_path: Path) -> None:
    three = written(local, app, site=[SVT], job=[SVT, SVT])

    with pytest.raises(PolicyError, match=r"a round costs 1\.2 more"):
        require(three, tmp_path, BOUNDED)


def test_the_cost_of_the_old_noise_depends_on_the_network(
    local: Path, app: Path, tmp_path: Path
) -> None:
    """A tenth of 100 parameters, each with 0.2, and the choice."""
    old = written(local, app, site=[ours("SVTPrivacy", noise_var=0.2)])

    with pytest.raises(PolicyError, match=r"a round costs 2\.1 more"):
        require(old, tmp_path, BOUNDED)


def test_a_bound_without_a_filter_that_counts_is_no_bound(local: Path, app: Path) -> None:
    written(local, app, site=[PERCENTILE])
    assert ["no SVTPrivacy is on the way out" in one for one in faults(local, app, BOUNDED)] == [
        True
    ]

    written(local, app, site=[PERCENTILE], job=[SVT])
    assert faults(local, app, BOUNDED) == []


def test_buffers_leave_uncounted_only_if_the_site_says_so(local: Path, app: Path) -> None:
    sending = ours("SVTPrivacy", epsilon_release=0.3, buffers="send")

    written(local, app, job=[sending])
    [told] = faults(local, app, BOUNDED)
    assert "that keeps buffers at the site" in told
    assert faults(local, app) == []

    written(local, app, site=[sending])
    assert faults(local, app, BOUNDED) == []


# --- chains


@pytest.mark.parametrize("tasks", [["*"], ["validate", "tr*"], ["{u}"]])
@pytest.mark.parametrize("key", ["task_result_filters", "task_data_filters"])
def test_a_chain_for_no_task_of_a_site_is_refused_and_does_not_count(
    local: Path, app: Path, key: str, tasks: Any
) -> None:
    """NVFlare knows no wildcard there: it would run the other chain, and spend nothing."""
    weak = ours("PercentilePrivacy", percentile=0, gamma=1e300)
    written(local, app)
    chains = [{"tasks": tasks, "filters": [SVT]}, {"tasks": ["train"], "filters": [weak]}]
    (app / "config/config_fed_client.json").write_text(json.dumps({"t": "train", key: chains}))

    told = faults(local, app, BOUNDED)

    assert f"config_fed_client.json: {key}[0].tasks: has to list tasks of a site" in told[0]
    assert "no SVTPrivacy is on the way out" in told[1]


@pytest.mark.parametrize("tasks", [[["train"]], "train", None])
def test_a_chain_without_names_of_tasks_is_refused(local: Path, app: Path, tasks: Any) -> None:
    chain = {"tasks": tasks, "filters": [SVT]}
    (app / "config/config_fed_client.json").write_text(json.dumps({"task_result_filters": [chain]}))

    with pytest.raises(ConfigError, match="has to be an array of names of tasks"):
        FilterPlan.read(local, app)


def test_a_task_by_a_value_of_the_document_counts_as_nvflare_reads_it(
    local: Path, app: Path
) -> None:
    chain = {"tasks": ["{t}"], "filters": [SVT]}
    document = {"t": "train", "task_result_filters": [chain]}
    (app / "config/config_fed_client.json").write_text(json.dumps(document))

    [planned] = FilterPlan.read(local, app).filters

    assert planned.settings.name == "SVTPrivacy"


def test_the_scope_is_read_as_nvflare_reads_it(local: Path, app: Path) -> None:
    """It passes over a filter that is disabled, and a scope that is not the default one."""
    assert written(local, app, site=[{**SVT, "disabled": True}]).filters == ()

    scope = {"task_result_filters": [SVT]}
    (local / "privacy.json").write_text(json.dumps({"scopes": [scope]}))
    assert FilterPlan.read(local, app).filters == ()


# --- arguments


def test_a_fault_of_the_site_is_not_told_to_the_job(local: Path, app: Path) -> None:
    """The caller logs it, and says that the administrator knows."""
    with pytest.raises(ConfigError, match=r"privacy.json: scopes\[0\]\.task_result_filters\[0\]"):
        written(local, app, site=[ours("PercentilePrivacy", gamma=-1)])
    with pytest.raises(ConfigError):
        faults(local, app)
