"""The privacy ledger: what is spent stays spent, whoever asks and however often."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fl_client.privacy import ledger as privacy_ledger
from fl_client.privacy.ledger import PrivacyLedger, data_digest
from fl_client.privacy.settings import SvtSettings
from mmar_runtime.audit import AuditLog, verified_lines
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.errors import PolicyError


def spend(ledger: PrivacyLedger, epsilon: float, most: float | None = None, **more: str) -> float:
    facts = {"job": "job-1", "round": 1, "filter": "SVTPrivacy", "data": "a1", **more}
    return ledger.spend(epsilon, most, **facts)


def test_sums_go_on_from_job_to_job(tmp_path: Path) -> None:
    spend(PrivacyLedger(tmp_path), 0.5)
    spend(PrivacyLedger(tmp_path), 0.25, job="job-2")
    spend(PrivacyLedger(tmp_path), 0.25, job="job-2", data="b2")

    account = PrivacyLedger(tmp_path).account()

    assert account.spent == 1.0
    assert account.by("job") == {"job-1": 0.5, "job-2": 0.5}
    assert account.by("data") == {"a1": 0.75, "b2": 0.25}


def test_what_is_beyond_the_bound_is_neither_allowed_nor_written(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    for _ in range(10):
        spend(ledger, 0.1, most=1)  # ten times 0.1 is 0.9999999999999999

    with pytest.raises(PolicyError, match=r"1 of privacy.epsilon_max of this site, 1, are spent"):
        spend(ledger, 0.1, most=1)
    with pytest.raises(PolicyError, match=r"a round costs 0.1 more"):
        ledger.require(0.1, 1)
    assert len(ledger.account().spendings) == 10


def test_sums_that_are_not_exact_reach_the_bound(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    for _ in range(3):
        spend(ledger, 0.1, most=0.3)  # three times 0.1 is 0.30000000000000004

    with pytest.raises(PolicyError):
        spend(ledger, 0.001, most=0.3)


def test_a_spending_waits_for_another_to_end(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with ledger._alone():
            waiting = pool.submit(spend, PrivacyLedger(tmp_path), 1)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        assert waiting.result(10) == 1


def test_a_ledger_that_leads_nowhere_counts_as_spent(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path)
    ledger.path.parent.mkdir()
    assert ledger.require(1, 5) == 0

    ledger.path.symlink_to("nothing")
    with pytest.raises(PolicyError, match="cannot be trusted"):
        ledger.require(1, 5)


def test_jobs_at_the_same_time_cannot_spend_more_than_there_is(tmp_path: Path) -> None:
    def one(_: int) -> bool:
        try:
            return spend(PrivacyLedger(tmp_path), 1, most=5) > 0
        except PolicyError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(16))) == 5
    assert PrivacyLedger(tmp_path).account().spent == 5


def test_a_spending_reads_the_ledger_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, read = PrivacyLedger(tmp_path), []
    spend(ledger, 0.5)

    def counted(path: Path, key: LogKey | None) -> Iterator[dict[str, Any]]:
        read.append(path)
        return verified_lines(path, key)

    monkeypatch.setattr(privacy_ledger, "verified_lines", counted)

    assert spend(ledger, 0.25) == 0.75
    assert read == [ledger.path]


@pytest.mark.parametrize("damage", ["", "half", "changed"])
def test_a_broken_chain_counts_as_spent(tmp_path: Path, damage: str) -> None:
    ledger = PrivacyLedger(tmp_path)
    spend(ledger, 0.5)
    spend(ledger, 0.5)
    first, second = ledger.path.read_text().splitlines(keepends=True)
    texts = {
        "": second,
        "half": first + second[:30],
        "changed": first + second.replace("0.5", "0.1"),
    }
    ledger.path.write_text(texts[damage])

    with pytest.raises(PolicyError, match=r"cannot be trusted: .*line"):
        ledger.require(0.1, None)
    with pytest.raises(PolicyError):
        spend(ledger, 0.1)


def test_whoever_has_no_key_cannot_take_a_spending_back(tmp_path: Path) -> None:
    """A new file with a chain of its own; the kit's key vouches for none of its lines."""
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup/client.key").write_text("a private key")
    key = LogKey.of_kit(tmp_path)
    assert key is not None
    spend(PrivacyLedger(tmp_path, key.for_job("job-1")), 0.5)
    spend(PrivacyLedger(tmp_path, key.for_job("job-2")), 0.25, job="job-2")
    assert PrivacyLedger(tmp_path, key).account().spent == 0.75

    PrivacyLedger(tmp_path).path.unlink()
    spend(PrivacyLedger(tmp_path), 0.1)

    for reader in (key, key.for_job("job-1")):
        with pytest.raises(PolicyError, match="line 1: is not authenticated"):
            PrivacyLedger(tmp_path, reader).account()


def test_a_job_cannot_spend_in_the_name_of_another(tmp_path: Path) -> None:
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup/client.key").write_text("a private key")
    key = LogKey.of_kit(tmp_path)
    assert key is not None
    spend(PrivacyLedger(tmp_path, key.for_job("job-1")), 0.5, job="job-2")

    with pytest.raises(PolicyError, match="line 1: is not authenticated"):
        PrivacyLedger(tmp_path, key).account()


@pytest.mark.parametrize("epsilon", [-0.5, 10**400, True, "0.5"])
def test_a_line_with_an_odd_cost_counts_as_spent(tmp_path: Path, epsilon: Any) -> None:
    ledger = PrivacyLedger(tmp_path)
    facts = {"job": "job-1", "round": 1, "filter": "SVTPrivacy", "data": "a1"}
    AuditLog(ledger.path).append("privacy-spent", epsilon=epsilon, **facts)

    with pytest.raises(PolicyError, match="cannot be trusted"):
        ledger.account()


def test_a_line_that_a_crash_cut_short_can_be_removed(tmp_path: Path) -> None:
    """It was written before the contribution left, so nothing had left."""
    ledger = PrivacyLedger(tmp_path)
    spend(ledger, 0.5)
    whole = ledger.path.read_text()
    ledger.path.write_text(whole + '{"data":"a1","dig')
    ledger.path.write_text(whole)

    assert spend(ledger, 0.25) == 0.75


def test_a_round_costs_the_choice_and_the_noise() -> None:
    assert SvtSettings(epsilon=0.1, epsilon_release=0.4).cost(1000) == 0.5
    # The old noise_var is the budget of each value that is sent: a tenth of 13,953 of them.
    assert SvtSettings(epsilon=0.1, noise_var=0.1).cost(139_523) == pytest.approx(0.1 + 1395.3)


def test_a_data_set_is_known_by_its_list(tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    file.write_text("{}")
    before = data_digest({"DATASET_JSON": str(file)})
    file.write_text('{"training": []}')

    assert len(before) == 12
    assert data_digest({"DATASET_JSON": str(file)}) != before
    assert data_digest({}) == data_digest({"DATASET_JSON": "/nowhere"}) == "unknown"
