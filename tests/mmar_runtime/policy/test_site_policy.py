"""A site's policy file: what it may say, what it may not, and what follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    OWN_MMAR_POLICY,
    SITE_POLICY_FILE,
    Byoc,
    CrossSite,
    Limits,
    Outgoing,
    Privacy,
    SitePolicy,
    read_site_policy,
)

HASH = "0" * 64


def written(folder: Path, **fields: Any) -> Path:
    path = folder / SITE_POLICY_FILE
    path.write_text(json.dumps({"policy_version": 1, **fields}), encoding="utf-8")
    path.chmod(0o600)
    return path


def problems(path: Path) -> dict[str, str]:
    """Place -> message of everything that is wrong with a policy file."""
    with pytest.raises(ConfigError) as caught:
        read_site_policy(path)
    assert {one.rule for one in caught.value.problems} == {"policy"}
    return {one.location.place: one.message for one in caught.value.problems}


def test_a_file_that_says_nothing_is_the_default_policy(tmp_path: Path) -> None:
    policy = read_site_policy(written(tmp_path))

    assert policy == DEFAULT_POLICY == SitePolicy()
    assert policy.byoc.mode == "off"
    assert not policy.egress
    assert policy.torchscript_sha256 == ()


def test_every_field_can_be_written(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        byoc={"mode": "by_hash", "approved": [HASH]},
        signers=["lead@site.org"],
        data_roots=["/data/study"],
        limits={"epochs_per_round": 10, "rounds": 20, "wall_minutes": 60, "workers": 2},
        denied_components=["TensorBoardImageHandler"],
        egress=True,
        outgoing={"metrics": ["val_mean_dice"], "round_digits": 4},
        min_dataset_size=20,
        cross_site={"evaluate_others": True, "share_model": False, "min_cases": 5},
        required_filters=["PercentilePrivacy"],
        privacy={"epsilon_max": 8},
        torchscript_sha256=[HASH],
    )

    assert read_site_policy(path) == SitePolicy(
        byoc=Byoc(mode="by_hash", approved=(HASH,)),
        signers=("lead@site.org",),
        data_roots=(Path("/data/study"),),
        limits=Limits(epochs_per_round=10, rounds=20, wall_minutes=60, workers=2),
        denied_components=("TensorBoardImageHandler",),
        egress=True,
        outgoing=Outgoing(metrics=("val_mean_dice",), round_digits=4),
        min_dataset_size=20,
        cross_site=CrossSite(share_model=False, min_cases=5),
        required_filters=("PercentilePrivacy",),
        privacy=Privacy(epsilon_max=8.0),
        torchscript_sha256=(HASH,),
    )


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        ({"policy_version": 2}, "policy_version", "has to be 1"),
        ({"policy_version": True}, "policy_version", "has to be 1"),
        ({"byok": {}}, "byok", "unknown key 'byok'"),
        ({"byoc": "on"}, "byoc", "has to be a JSON object"),
        ({"byoc": {"mode": "ON"}}, "byoc.mode", "'ON' is no mode"),
        ({"byoc": {"mode": "by_hash"}}, "byoc.approved", "allows nothing"),
        ({"byoc": {"approved": ["A" * 64]}}, "byoc.approved[0]", "is no SHA-256"),
        ({"signers": "lead"}, "signers", "has to be an array of texts"),
        ({"signers": [""]}, "signers", "has to be an array of texts"),
        ({"data_roots": ["data"]}, "data_roots[0]", "has to be an absolute folder"),
        ({"data_roots": ["/"]}, "data_roots[0]", "has to be an absolute folder"),
        ({"data_roots": ["/data/../etc"]}, "data_roots[0]", "has to be an absolute folder"),
        ({"limits": {"ram": 1}}, "limits.ram", "unknown key 'ram'"),
        ({"limits": {"workers": 0}}, "limits.workers", "a whole number from 1 on"),
        ({"limits": {"workers": 2.0}}, "limits.workers", "a whole number from 1 on"),
        ({"limits": {"workers": True}}, "limits.workers", "a whole number from 1 on"),
        ({"egress": "yes"}, "egress", "has to be true or false"),
        ({"outgoing": {"round_digits": -1}}, "outgoing.round_digits", "from 0 to 15"),
        ({"outgoing": {"metrics": "all"}}, "outgoing.metrics", "has to be an array of texts"),
        ({"min_dataset_size": 0}, "min_dataset_size", "a whole number from 1 on"),
        ({"privacy": {"epsilon_max": 0}}, "privacy.epsilon_max", "a number above 0"),
        ({"privacy": {"epsilon_max": True}}, "privacy.epsilon_max", "a number above 0"),
        ({"privacy": {"epsilon": 1}}, "privacy.epsilon", "unknown key 'epsilon'"),
        ({"cross_site": {"share_model": 1}}, "cross_site.share_model", "true or false"),
    ],
)
def test_a_field_of_another_kind_is_refused(
    tmp_path: Path, fields: dict[str, Any], place: str, message: str
) -> None:
    found = problems(written(tmp_path, **fields))

    assert list(found) == [place]
    assert message in found[place]


@pytest.mark.parametrize("field", Limits.__dataclass_fields__)
def test_a_limit_can_be_tightened_and_not_loosened(tmp_path: Path, field: str) -> None:
    highest = getattr(Limits(), field)

    tight = read_site_policy(written(tmp_path, limits={field: highest - 1}))
    assert getattr(tight.limits, field) == highest - 1

    found = problems(written(tmp_path, limits={field: highest + 1}))
    assert f"looser than the built-in limit, {highest}" in found[f"limits.{field}"]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    found = problems(written(tmp_path, egress=1, signers=2, limits={"workers": 99}))

    assert set(found) == {"egress", "signers", "limits.workers"}


def test_a_file_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.chmod(0o666)

    assert "can be written by everybody" in problems(path)[""]


def test_a_policy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        read_site_policy(tmp_path / SITE_POLICY_FILE)


def test_ones_own_mmar_may_bring_code_and_send() -> None:
    assert OWN_MMAR_POLICY.byoc.mode == "on"
    assert OWN_MMAR_POLICY.egress
    assert OWN_MMAR_POLICY.limits == DEFAULT_POLICY.limits


def test_the_digest_is_of_the_meaning_not_of_the_text(tmp_path: Path) -> None:
    spelled_out = written(tmp_path, egress=False, byoc={"mode": "off"})

    assert read_site_policy(spelled_out).digest == DEFAULT_POLICY.digest
    assert SitePolicy(min_dataset_size=2).digest != DEFAULT_POLICY.digest
    assert len(DEFAULT_POLICY.digest) == 64


def test_without_a_word_on_metrics_all_leave_unrounded() -> None:
    assert DEFAULT_POLICY.rounded({"dice": 0.123456789}) == {"dice": 0.123456789}


def test_a_metric_that_is_not_named_stays() -> None:
    policy = SitePolicy(outgoing=Outgoing(metrics=("dice",), round_digits=4))

    assert policy.rounded({"dice": 0.123456789, "loss": 1.0}) == {"dice": 0.1235}
