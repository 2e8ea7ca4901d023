"""A federation in this process: which ways give the same bits, and what a failing site costs."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fl_client.local_training import LocalTrainer
from fl_client.local_work import LocalWork
from fl_client.simulation.turns import ASIDE
from fl_server import federation as course
from fl_server import run_files
from fl_server.record.files import read_run_record
from fl_server.record.recorder import RunRecorder
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.policy.site_policy import CrossSite, Limits, SitePolicy
from tests.fl_admin.simulation.inline.conftest import NAMES, Federation, InAnyOrder, Ran

CONTRIBUTED = dict.fromkeys(NAMES, "contributed")


@pytest.fixture(scope="module")
def ran(federation: Federation) -> Ran:
    return federation.run()


def test_a_run_is_complete_and_its_record_is_written(ran: Ran) -> None:
    assert ran.record.status == "complete"
    assert ran.statuses == [CONTRIBUTED, CONTRIBUTED]
    assert read_run_record(ran.results / "run_record.json") == ran.record
    assert len(set(ran.digests)) == 2


def test_the_last_and_the_best_model_are_those_of_the_record(ran: Ran) -> None:
    best = ran.record.best_round

    assert ran.models["FL_global_model"] == ran.digests[-1]
    assert best is not None
    assert ran.models["best_FL_global_model"] == ran.digests[best - 1]


class SecondIsBest:
    """Selects the global model of round 2, whatever the scores are."""

    def __init__(self, recorder: RunRecorder, key_metric: str, *, higher_is_better: bool) -> None:
        self._recorder = recorder

    def is_best(self, round_number: int) -> bool:
        if round_number == 2:
            self._recorder.best(2)
        return round_number == 2


def test_a_best_model_that_was_not_written_in_its_round_is_written_when_it_is_selected(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rounds that follow each other soon only the first and the last model are written."""
    monkeypatch.setattr(course, "ModelSelection", SecondIsBest)

    ran = federation.run(rounds=4)

    assert ran.record.best_round == 2
    assert ran.models["best_FL_global_model"] == ran.digests[1]
    assert ran.models["FL_global_model"] == ran.digests[3]


def test_a_run_that_fails_keeps_the_model_of_its_last_whole_round(federation: Federation) -> None:
    """Of four rounds, the second is neither the first nor the last."""
    ran = federation.run(policies={"site-2": SitePolicy(limits=Limits(rounds=2))}, rounds=4)

    assert ran.record.status == "failed"
    assert len(ran.record.closed_rounds) == 2
    assert ran.models["FL_global_model"] == ran.digests[1]


def test_each_site_builds_its_entries_once_in_the_one_process(ran: Ran) -> None:
    outcomes = [one.sites[name] for one in ran.record.rounds for name in NAMES]

    assert len({outcome.process for outcome in outcomes}) == 1
    assert {outcome.built["train.trainer"] for outcome in outcomes} == {1}


def test_nothing_depends_on_the_order_of_the_sites(federation: Federation, ran: Ran) -> None:
    shuffled = federation.run(through=InAnyOrder)

    assert shuffled.digests == ran.digests
    assert (shuffled.models, shuffled.matrix) == (ran.models, ran.matrix)


def test_nor_on_whether_a_site_waits_in_memory_or_in_a_file(
    federation: Federation, ran: Ran
) -> None:
    in_files = federation.run(memory=0)

    assert all((folder / ASIDE).is_file() for folder in in_files.folders.values())
    assert not any((folder / ASIDE).exists() for folder in ran.folders.values())
    assert in_files.digests == ran.digests
    assert (in_files.models, in_files.matrix) == (ran.models, ran.matrix)


def test_nor_do_sites_in_a_process_learn_from_each_other(federation: Federation, ran: Ran) -> None:
    """A site alone computes what it computed among others: the first epoch is the same."""
    alone = LocalTrainerAlone(federation)

    for name in NAMES:
        assert alone.first_epoch(name) == to_plain(ran.record.rounds[0].sites[name].epochs)


class LocalTrainerAlone:
    """A trainer of one site that shares nothing with anyone."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation

    def first_epoch(self, name: str) -> list[dict[str, Any]]:
        from collections import Counter

        from fl_client.outgoing import outgoing_update
        from fl_server.initial_model import initial_model
        from mmar_runtime.workflows.session import session

        site = self.federation.site(name)
        config = site.train_config()
        with session(config, allow_code=False) as context:
            trainer = LocalTrainer(
                site, config, context, work=LocalWork(), process="p", counts=Counter()
            )
            update = trainer.train(initial_model(site.mmar, values={}).weights, 1)
        return [epoch.as_dict() for epoch in outgoing_update(update, site.policy).report.epochs]


# --- sites that fail


DECLINES_ROUNDS = SitePolicy(limits=Limits(rounds=1))


def test_a_site_that_declines_is_passed_over_while_enough_others_are_left(
    federation: Federation,
) -> None:
    ran = federation.run(policies={"site-2": DECLINES_ROUNDS}, min_sites=2)

    assert ran.statuses == [CONTRIBUTED, {**CONTRIBUTED, "site-2": "failed"}]
    assert ran.record.status == "complete"
    reason = ran.record.rounds[1].sites["site-2"].reason
    assert re.fullmatch(r"policy-declined \(reference [0-9a-f]{8}\)", reason)
    reference = reason[-9:-1]
    text = (ran.folders["site-2"] / f"error-{reference}.txt").read_text()
    assert text.startswith("train: round 2; limits.rounds of this site is 1")


def test_the_run_ends_when_they_are_not(federation: Federation) -> None:
    ran = federation.run(policies={"site-2": DECLINES_ROUNDS})

    assert ran.record.status == "failed"
    assert ran.record.failure is not None
    assert "site-2 failed in round 2: policy-declined" in ran.record.failure
    assert "2 sites are left, the job asks for 3" in ran.record.failure
    assert read_run_record(ran.results / "run_record.json") == ran.record


def test_a_site_that_is_too_slow_is_missing(federation: Federation) -> None:
    ran = federation.run(train_timeout=1e-6, min_sites=1)

    assert ran.record.status == "failed"
    assert ran.record.failure is not None
    assert "0 sites contributed, the job asks for 1" in ran.record.failure


def test_what_the_guard_refuses_is_rejected(federation: Federation) -> None:
    ran = federation.run(limits={"max_norm": 1e-9}, min_sites=1)

    assert ran.statuses == [dict.fromkeys(NAMES, "rejected")]
    assert ran.record.failure is not None
    assert "0 sites contributed" in ran.record.failure
    assert "norm" in ran.record.failure


def test_a_norm_far_off_the_rounds_median_is_taken_out_again(federation: Federation) -> None:
    ran = federation.run(limits={"norm_ratio": 1.0}, min_sites=1, rounds=1)

    assert "rejected" in ran.statuses[0].values()
    assert "contributed" in ran.statuses[0].values()
    rejected = {site for site, status in ran.statuses[0].items() if status == "rejected"}
    assert rejected.isdisjoint(ran.record.scores[0].sites)


def test_what_a_site_keeps_at_home_is_no_shortfall(federation: Federation) -> None:
    at_home = SitePolicy(cross_site=CrossSite(share_model=False, evaluate_others=False))
    ran = federation.run(policies={"site-3": at_home}, rounds=1)

    assert ran.record.status == "complete"
    assert "site-3" not in ran.models
    assert '"missing": [\n    [\n      "site-1",\n      "site-3"' in ran.matrix


def test_an_error_of_the_engine_itself_ends_the_run_and_is_raised(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, flush: bool) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(run_files, "write_checkpoint", full)

    with pytest.raises(OSError, match="no space left"):
        federation.run()


# --- what a job can ask for


def test_weights_of_sites_and_rounds_of_steps_change_the_mean(
    federation: Federation, ran: Ran
) -> None:
    weighted = federation.run(aggregation_weights={"site-2": 3.0}, rounds=1)
    steps = federation.run(work=LocalWork(steps=1), rounds=1)

    assert len({ran.digests[0], weighted.digests[0], steps.digests[0]}) == 3
    assert {steps.record.rounds[0].sites[name].steps for name in NAMES} == {1}


def test_a_process_that_dies_ends_the_run_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl_client.simulation.workers import SitesInWorkers
    from mmar_runtime.exchange.messages import Submit
    from tests.fl_client.simulation.dying import dying_sites

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sites = SitesInWorkers(NAMES, 2, dying_sites, ())
    assert [path.name[:9] for path in tmp_path.iterdir()] == ["exchange-"]

    with pytest.raises(FederationError, match="a process that simulates sites has ended"):
        list(sites.ask(Submit()))
    sites.close()
    assert not list(tmp_path.iterdir())
