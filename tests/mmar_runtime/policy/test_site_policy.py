"""A site's policy file: what it may say, what it may not, and what follows from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError
from mmar_runtime.metrics import ClassValue, MetricValue, values_of
from mmar_runtime.policy.files import writers
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
    parse_policy,
    policy_document,
    read_site_policy,
    site_policy,
)

HASH = "0" * 64
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users and groups")


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
        outgoing={"metrics": ["val_mean_dice"], "round_digits": 4, "count_digits": 2},
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
        outgoing=Outgoing(metrics=("val_mean_dice",), round_digits=4, count_digits=2),
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
        ({"policy_version": None}, "policy_version", "is missing, and has to be 1"),
        ({"byok": {}}, "byok", "unknown key 'byok'"),
        ({"byoc": "on"}, "byoc", "has to be a JSON object"),
        ({"byoc": {"mode": "ON"}}, "byoc.mode", "'ON' is not a mode"),
        ({"byoc": {"mode": "by_hash"}}, "byoc.approved", "allows nothing"),
        ({"byoc": {"approved": ["A" * 64]}}, "byoc.approved[0]", "is not a SHA-256"),
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
        ({"outgoing": {"round_digits": 0}}, "outgoing.round_digits", "from 1 to 15"),
        ({"outgoing": {"round_digits": "none"}}, "outgoing.round_digits", "from 1 to 15"),
        ({"outgoing": {"count_digits": 0}}, "outgoing.count_digits", "from 1 to 15"),
        ({"outgoing": {"max_metrics": 257}}, "outgoing.max_metrics", "looser than the built-in"),
        ({"outgoing": {"max_evaluations": 0}}, "outgoing.max_evaluations", "from 1 on"),
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


# --- Who else can change it


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o646, 0o666, 0o777])
def test_a_file_that_everybody_may_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path)
    path.chmod(mode)

    assert problems(path) == {"": "can be written by everybody on this machine"}


@as_root
@pytest.mark.parametrize("mode", [0o620, 0o660, 0o664, 0o674])
def test_a_file_that_a_group_may_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path)
    os.chown(path, -1, 4711)
    path.chmod(mode)

    assert problems(path) == {"": "can be written by the group 4711"}


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o644, 0o755])
def test_who_can_only_read_it_does_not_matter(tmp_path: Path, mode: int) -> None:
    written(tmp_path).chmod(mode)

    assert site_policy(tmp_path) == DEFAULT_POLICY


@as_root
def test_a_group_of_its_owner_alone_is_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most distributions make a group for each user, and new files can be written by it."""
    path = written(tmp_path)
    os.chown(path, 4711, 4711)
    path.chmod(0o664)
    group = SimpleNamespace(gr_name="alice", gr_mem=[])
    alice = SimpleNamespace(pw_name="alice", pw_gid=4711)
    monkeypatch.setattr(writers.grp, "getgrgid", lambda _: group)
    monkeypatch.setattr(writers.pwd, "getpwuid", lambda _: alice)

    assert read_site_policy(path) == DEFAULT_POLICY
    group.gr_mem.append("bob")
    assert problems(path) == {"": "can be written by the group alice"}


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777])
def test_a_folder_in_which_others_could_put_another_file(tmp_path: Path, mode: int) -> None:
    written(tmp_path)
    tmp_path.chmod(mode)

    with pytest.raises(ConfigError, match=r"everybody on this machine, who can replace") as caught:
        site_policy(tmp_path)
    assert f"chmod 700 {tmp_path.name}" in str(caught.value)


def test_a_folder_that_others_can_write_is_a_fault_without_a_policy_too(tmp_path: Path) -> None:
    assert site_policy(tmp_path) == DEFAULT_POLICY
    tmp_path.chmod(0o777)

    with pytest.raises(ConfigError, match="can be written by everybody"):
        site_policy(tmp_path)


@pytest.mark.parametrize("target", ["elsewhere.json", "/etc/passwd", "/dev/null", "nothing"])
def test_a_link_is_no_policy(tmp_path: Path, target: str) -> None:
    written(tmp_path).rename(tmp_path / "elsewhere.json")
    (tmp_path / SITE_POLICY_FILE).symlink_to(target)

    with pytest.raises(ConfigError, match="is a link"):
        site_policy(tmp_path)


@as_root
@pytest.mark.parametrize("name", ["", SITE_POLICY_FILE])
def test_a_policy_of_another_user_is_not_the_sites(tmp_path: Path, name: str) -> None:
    written(tmp_path)
    os.chown(tmp_path / name, 4711, -1)

    with pytest.raises(ConfigError, match="belongs to the user 4711, and this process is another"):
        site_policy(tmp_path)


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


def test_without_a_word_on_metrics_all_leave_with_four_significant_digits() -> None:
    found = DEFAULT_POLICY.rounded(
        {
            "dice": MetricValue(
                value=0.123456789,
                counted=3,
                classes={"spleen": ClassValue(value=0.123456789, counted=3)},
            ),
            "error": MetricValue(value=1.23456e-6, counted=3),
            "hu": MetricValue(value=1034.56, counted=3),
            "auc": MetricValue(value=None, counted=0, undefined=3),
        }
    )

    assert values_of(found) == {"dice": 0.1235, "error": 1.235e-6, "hu": 1035.0, "auc": None}
    assert found["dice"].classes["spleen"].value == 0.1235


def test_all_digits_are_a_consent_that_a_site_writes_down(tmp_path: Path) -> None:
    policy = read_site_policy(written(tmp_path, outgoing={"round_digits": "all"}))

    dice = MetricValue(value=0.123456789, counted=3)
    assert policy.rounded({"dice": dice}) == {"dice": dice}
    assert policy_document(policy)["outgoing"]["round_digits"] == "all"
    assert policy_document(DEFAULT_POLICY)["outgoing"]["round_digits"] == 4


def test_a_metric_that_is_not_named_stays() -> None:
    policy = SitePolicy(outgoing=Outgoing(metrics=("dice",), round_digits=4))

    dice, loss = MetricValue(value=0.123456789, counted=3), MetricValue(value=1.0, counted=3)
    assert values_of(policy.rounded({"dice": dice, "loss": loss})) == {"dice": 0.1235}


@pytest.mark.parametrize(
    "policy",
    [
        DEFAULT_POLICY,
        OWN_MMAR_POLICY,
        SitePolicy(
            byoc=Byoc(mode="by_hash", approved=(HASH,)),
            confinement="required",
            signers=("lead@site.org",),
            data_roots=(Path("/data/study"),),
            limits=Limits(workers=2, memory_gib=16),
            denied_components=("TensorBoardImageHandler",),
            outgoing=Outgoing(metrics=("val_mean_dice",), round_digits=None, max_metrics=3),
            min_dataset_size=20,
            patient_key="patient",
            cross_site=CrossSite(share_model=False, min_cases=5),
            required_filters=("PercentilePrivacy",),
            privacy=Privacy(epsilon_max=8.0),
            torchscript_sha256=(HASH,),
            jobs="approved",
            approved_jobs=(HASH,),
        ),
    ],
)
def test_a_policy_and_its_document_mean_the_same(policy: SitePolicy) -> None:
    document = json.loads(json.dumps(policy_document(policy)))

    assert parse_policy(document, Location("policy")) == policy
