"""The rounds of a run: which updates count, what the record says of the others, and the log."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_server.record.values import SiteContribution
from fl_server.updates import Received
from mmar_runtime.errors import ConfigError, FederationError
from mmar_runtime.exchange.rounding import SCALES, restored, rounded
from mmar_runtime.weights import Weights, digest, read_checkpoint
from tests.conftest import plain_metric
from tests.fl_server.conftest import DICE, WEIGHTS, MadeUpRun, Started, received

DICE_AND_SPEED = {DICE: plain_metric(0.5), "speed": plain_metric(1.0)}


def value(weights: Weights) -> float:
    return float(weights["conv.bias"][0])


def test_updates_move_the_global_model_by_their_weighted_mean(started: Started) -> None:
    fed = started()

    assert not fed.take("site-2", step=5.0, steps=3)
    assert not fed.take("site-1", step=1.0, steps=1)

    assert value(fed.close_round()) == (1 * 1 + 3 * 5) / 4


def test_aggregation_weights_are_factors_of_the_steps(started: Started) -> None:
    fed = started(aggregation_weights={"site-1": 3.0})
    fed.take("site-1", step=1.0)
    fed.take("site-2", step=5.0)

    assert value(fed.close_round()) == (3 * 1 + 5) / 4


BY_SAMPLES: dict[str, Any] = {"weigh_by": "samples"}


def samples(count: int, *, epoch: int | None = None) -> dict[str, Any]:
    return {"samples": count, "epoch_samples": epoch or count}


def test_a_site_weighs_as_many_samples_as_it_drew(started: Started) -> None:
    """Batches of another size, or several processes, change the steps alone."""
    fed = started(**BY_SAMPLES)
    assert not fed.take("site-1", step=1.0, steps=10, **samples(20))
    assert not fed.take("site-2", step=5.0, steps=1, **samples(60))

    assert value(fed.close_round()) == (20 * 1 + 60 * 5) / 80
    assert fed.run.record.weigh_by == "samples"
    outcome = fed.outcome("site-2")
    assert isinstance(outcome, SiteContribution)
    assert (outcome.weight, outcome.samples, outcome.steps) == (60, 60, 1)


def test_sites_can_weigh_the_same(started: Started) -> None:
    fed = started(weigh_by="equal", aggregation_weights={"site-2": 3.0})
    fed.take("site-1", step=1.0, steps=1)
    fed.take("site-2", step=5.0, steps=900)

    assert value(fed.close_round()) == (1 + 3 * 5) / 4


def test_factors_of_unknown_sites_are_refused_before_the_first_round(started: Started) -> None:
    with pytest.raises(ConfigError, match=r"aggregation_weights\['site-3'\].*no site of this run"):
        started(aggregation_weights={"site-3": 2.0})


def test_a_tensor_without_a_mean_is_refused_before_the_first_round(started: Started) -> None:
    with pytest.raises(ConfigError, match="mask is bool"):
        started(weights={**WEIGHTS, "mask": torch.ones(2, dtype=torch.bool)})


# --- claims


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, "epoch_samples: has to be a whole number"),
        (samples(0), "epoch_samples: has to be a whole number"),
        (samples(41, epoch=20), "samples: has to be a whole number from 1 to 40"),
        (samples(10**8), "epoch_samples: has to be a whole number from 1 to 10000000"),
        ({"samples": True, "epoch_samples": 20}, "samples: has to be a whole number"),
    ],
)
def test_a_site_claims_no_more_than_its_epochs_and_cases_allow(
    started: Started, counts: dict[str, Any], told: str
) -> None:
    fed = started(**BY_SAMPLES)

    assert told in str(fed.take("site-1", **counts)[0])
    assert not fed.take("site-2", **samples(40, epoch=20))  # one epoch reported, one cut short


def test_a_site_is_held_to_the_cases_that_it_has_stated(started: Started) -> None:
    fed = started(**BY_SAMPLES)
    fed.take("site-1", **samples(20))
    fed.take("site-2", **samples(30))
    fed.close_round()
    fed.run.open_round()

    assert "the site has stated 20 before" in str(fed.take("site-1", **samples(21))[0])
    assert not fed.take("site-2", **samples(15, epoch=30))


def test_samples_come_only_where_the_job_asks_for_them(started: Started) -> None:
    fed = started(weigh_by="equal")

    assert "asks for no number of them" in str(fed.take("site-1", **samples(20))[0])


SIX = tuple(f"site-{number}" for number in range(1, 7))


def test_sites_may_differ_a_hundredfold(started: Started) -> None:
    fed = started(sites=SIX[:3], **BY_SAMPLES)
    for site, count in zip(SIX, (10, 20, 2000), strict=False):
        fed.take(site, **samples(count))
    fed.close_round()

    assert fed.run.record.rounds[0].contributors == SIX[:3]


@pytest.mark.parametrize("rule", ["samples", "steps"])
def test_a_claim_far_above_the_median_of_the_round_is_rejected(started: Started, rule: str) -> None:
    """Whoever comes first waits until the others' claims are known."""
    fed = started(sites=SIX[:3], weigh_by=rule)
    for site, count in zip(SIX, (10**5, 20, 30), strict=False):
        counts = samples(count) if rule == "samples" else {"steps": count}
        assert not fed.take(site, step=float(count), **counts)

    assert value(fed.close_round()) == (20 * 20 + 30 * 30) / 50
    assert "claims a weight of 100000, more than 100 times the median" in fed.reason("site-1")
    assert "limits.weight_ratio" in fed.reason("site-1")


def test_later_rounds_judge_by_the_round_before(started: Started) -> None:
    fed = started(sites=SIX[:3], weigh_by="steps", limits={"weight_ratio": 3})
    for site in SIX[:3]:
        fed.take(site, steps=10)
    fed.close_round()
    fed.run.open_round()

    assert "more than 3 times the median of the sites, 10" in str(fed.take("site-1", steps=31)[0])
    assert not fed.take("site-2", steps=30)


# --- updates that do not count


def changed(reply: Received, *path: str, to: Any) -> Received:
    owner: Any = reply.metadata
    for step in path[:-1]:
        owner = owner[step]
    owner[path[-1]] = to
    return reply


@pytest.mark.parametrize(
    ("path", "to", "told"),
    [
        (("steps",), 0, "steps: has to be a whole number"),
        (("steps",), True, "steps: has to be a whole number"),
        (("kind",), "WEIGHTS", "WEIGHT_DIFF"),
        (("site",), "site-2", "site: belongs to 'site-2', not to 'site-1'"),
        (("job",), "job-2", "job: belongs to 'job-2', not to 'job-1'"),
        (("report",), None, "carries no report"),
        (("report", "received_metrics"), {}, f"the key metric '{DICE}' is missing"),
        (("report", "received_metrics"), {DICE: plain_metric(math.nan)}, "finite"),
        (
            ("report", "received_metrics"),
            {DICE: plain_metric(1.5)},
            "has to be a number from 0 to 1",
        ),
        (("report", "received_metrics"), DICE_AND_SPEED, f"may hold ['{DICE}']"),
    ],
)
def test_the_server_rejects_an_update_with_its_reason_and_the_other_counts(
    started: Started, path: tuple[str, ...], to: Any, told: str
) -> None:
    fed = started()

    assert fed.run.take("site-1", changed(fed.update("site-1", step=9.0), *path, to=to))
    assert not fed.take("site-2", step=2.0)

    assert told in fed.reason("site-1")
    assert value(fed.close_round()) == 2.0
    [line] = fed.noted("contribution-rejected")
    assert (line["site"], line["round"], line["reason"]) == ("site-1", 1, fed.reason("site-1"))


@pytest.mark.parametrize("part", ["received_metrics", "local_metrics", "epochs", "process"])
def test_a_report_that_lacks_something_is_rejected(started: Started, part: str) -> None:
    fed = started()
    reply = fed.update("site-1")
    del reply.metadata["report"][part]

    assert fed.run.take("site-1", reply)
    assert part in fed.reason("site-1")


def test_a_site_has_one_try_in_a_round(started: Started) -> None:
    fed = started()

    assert not fed.take("site-1", step=1.0)
    assert fed.take("site-1", step=100.0)
    assert fed.take("site-2", steps=0)
    assert fed.take("site-2")

    assert value(fed.close_round()) == 1.0
    assert fed.run.record.rounds[0].contributors == ("site-1",)
    assert "steps" in fed.reason("site-2")


def test_an_update_of_somebody_else_is_rejected(started: Started) -> None:
    fed = started()

    [fault] = fed.take("site-9")

    assert str(fault) == "site: site-9 is not a site of this run"
    assert fed.outcome("site-9") is None


def test_an_update_whose_tensors_cannot_be_read_is_rejected(started: Started) -> None:
    fed = started()
    good = fed.update("site-1")

    def gone() -> Weights:
        raise OSError

    assert fed.run.take("site-1", replace(good, weights=gone))
    assert fed.reason("site-1") == "update: cannot be judged (OSError)"
    assert not fed.take("site-2", step=2.0)
    assert value(fed.close_round()) == 2.0


def test_what_fails_in_the_sum_itself_ends_the_run(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an update may be in the sum."""

    def fails(*_: object) -> None:
        raise MemoryError

    fed = started()
    monkeypatch.setattr("fl_server.round_mean.RoundMean.add", fails)

    with pytest.raises(MemoryError):
        fed.take("site-1")


def test_a_site_that_said_it_failed_may_contribute_after_all(started: Started) -> None:
    fed = started()
    fed.run.absent("site-1", "data-error")

    assert not fed.take("site-1")
    assert fed.run.record.rounds[0].contributors == ("site-1",)


# --- stragglers


def test_a_straggler_is_not_recorded_and_its_own_later_update_counts(started: Started) -> None:
    fed = started()
    stale = fed.update("site-2", step=100.0)
    fed.take("site-1")
    fed.close_round()
    fed.run.open_round()

    [first, *_] = fed.run.take("site-2", stale)

    assert str(first) == "round: belongs to 1, not to 2"
    assert fed.outcome("site-2") is None
    assert not fed.take("site-2", step=2.0)
    assert value(fed.close_round()) == 1.0 + 2.0


def test_the_failure_of_a_straggler_is_not_recorded(started: Started) -> None:
    fed = started()
    fed.take("site-1")
    fed.close_round()
    fed.run.open_round()

    fed.run.absent("site-2", "data-error", round_number=1)

    assert fed.outcome("site-2") is None


def test_an_update_after_its_round_was_aggregated_counts_nowhere(started: Started) -> None:
    fed = started()
    fed.take("site-1")
    late = fed.update("site-2", step=100.0)
    fed.close_round()

    [fault] = fed.run.take("site-2", late)

    assert str(fault) == "round: arrived after the round was aggregated"
    assert fed.outcome("site-2").status == "missing"  # type: ignore[union-attr]
    fed.run.open_round()
    assert not fed.take("site-2")


def test_a_difference_to_another_model_is_rejected_and_the_right_one_counts(
    started: Started,
) -> None:
    fed = started(min_sites=2)

    assert fed.take("site-1", base_model="model of another run")
    assert "base_model: belongs to" in fed.reason("site-1")
    assert not fed.take("site-1")
    with pytest.raises(FederationError, match="the job asks for 2; rejected: none"):
        fed.close_round()


# --- too few


def test_with_fewer_updates_than_the_job_asks_for_there_is_no_model(started: Started) -> None:
    fed = started(min_sites=2)
    fed.take("site-1")
    fed.take("site-2", steps=0)

    with pytest.raises(FederationError, match=r"1 sites contributed, the job asks for 2; rej.*'s"):
        fed.close_round()


# --- tensors that an update may lack


def without(reply: Received, *names: str) -> Received:
    for name in names:
        del reply.data[name]
    return reply


def test_each_tensor_has_the_mean_of_those_who_sent_it(started: Started) -> None:
    fed = started(optional_names=["*.bias"])

    assert not fed.run.take("site-1", without(fed.update("site-1", step=1.0), "conv.bias"))
    assert not fed.take("site-2", step=5.0, steps=3)

    new = fed.close_round()
    assert new["conv.bias"].tolist() == [5.0, 5.0]
    assert new["conv.weight"].unique().tolist() == [(1 * 1 + 3 * 5) / 4]
    one, other = fed.noted("contribution-accepted")
    assert one["left_out"] == ["conv.bias"]
    assert "left_out" not in other


def test_what_nobody_sent_stays(started: Started) -> None:
    fed = started(optional_names=["*.bias"])
    fed.run.take("site-1", without(fed.update("site-1"), "conv.bias"))

    assert fed.close_round()["conv.bias"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("optional", "lacks", "told"),
    [
        (["*.bias"], ["conv.weight"], "conv.weight: missing"),
        (["*"], list(WEIGHTS), "has no tensor at all"),
    ],
)
def test_any_other_tensor_has_to_be_there(
    started: Started, optional: list[str], lacks: list[str], told: str
) -> None:
    fed = started(optional_names=optional)

    assert fed.run.take("site-1", without(fed.update("site-1"), *lacks))
    assert told in fed.reason("site-1")


def test_an_optional_tensor_that_came_is_judged(started: Started) -> None:
    fed = started(optional_names=["*.bias"])
    reply = fed.update("site-1")
    reply.data["conv.bias"][0] = math.nan

    assert fed.run.take("site-1", reply)


@pytest.mark.parametrize(
    ("terms", "error", "told"),
    [
        ({"optional_names": ["*a*b*c*d*e"]}, ConfigError, r"has more than 4 '\*'"),
        ({"limits": {"max_norms": 1.0}}, ConfigError, r"limits.max_norms: unknown.*\n.*'max_norm'"),
        ({"transfer": "int4"}, FederationError, "transfer is 'int4', no form of float16"),
    ],
)
def test_a_term_that_is_none_is_refused_before_the_run_starts(
    started: Started, terms: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        started(**terms)


# --- updates that came rounded


def rounded_reply(fed: MadeUpRun, site: str, *, form: Any = "int8", **how: Any) -> Received:
    reply = fed.update(site, **how)
    random = np.random.default_rng(int(site[-1]))
    reply.data["conv.weight"] = random.normal(size=(16, 32)).astype(np.float32)
    return received(rounded(reply.data, form), reply.metadata)


def test_the_mean_is_that_of_the_numbers_that_came(started: Started) -> None:
    fed = started(transfer="int8")
    one, two = rounded_reply(fed, "site-1", steps=1), rounded_reply(fed, "site-2", steps=3)
    moved = [restored(each.data)["conv.weight"].astype(np.float64) for each in (one, two)]

    assert not fed.run.take("site-2", two)
    assert not fed.run.take("site-1", one)

    expected = (1 * moved[0] + 3 * moved[1]) / 4
    assert fed.close_round()["conv.weight"].numpy() == pytest.approx(expected, rel=1e-6)


def test_the_record_has_the_bytes_that_came_and_the_log_their_digest(started: Started) -> None:
    fed = started(transfer="int8")
    reply = rounded_reply(fed, "site-1")

    fed.run.take("site-1", reply)

    size = sum(array.nbytes for array in reply.data.values())
    assert fed.outcome("site-1").sent_bytes == size  # type: ignore[union-attr]
    [line] = fed.noted("contribution-accepted")
    assert (line["bytes"], line["tensors"]) == (size, digest(reply.weights()))


def test_another_form_costs_that_site_its_update(started: Started) -> None:
    fed = started(transfer="int8")

    assert fed.run.take("site-1", rounded_reply(fed, "site-1", form="float16"))
    assert not fed.run.take("site-2", rounded_reply(fed, "site-2"))

    assert "'conv.weight': has to be int8, given float16" in fed.reason("site-1")
    assert fed.noted("contribution-rejected")[0]["rules"] == ["transfer"]


# --- norms

SITES = ("site-1", "site-2", "site-3", "site-4")
STEPS = {"site-1": 0.1, "site-2": 0.2, "site-3": 0.3, "site-4": 50.0}


def test_an_update_far_off_the_median_is_taken_out_of_the_round(started: Started) -> None:
    fed = started(sites=SITES, limits={"norm_ratio": 4.0})
    alone = started(sites=SITES)
    for site, step in STEPS.items():
        assert not fed.take(site, step=step)
        if site != "site-4":
            alone.take(site, step=step)

    assert digest(fed.close_round()) == digest(alone.close_round())
    assert "more than 4 times the median" in fed.reason("site-4")
    assert list(fed.run.record.scores[0].sites) == ["site-1", "site-2", "site-3"]
    [line] = fed.noted("contribution-rejected")
    assert (line["site"], line["rules"]) == ("site-4", ["norm"])


def test_the_order_of_arrival_does_not_change_the_bits(started: Started) -> None:
    found = set()
    for order in list(itertools.permutations(SITES))[::5]:
        fed = started(sites=SITES, limits={"norm_ratio": 4.0})
        for site in order:
            fed.take(site, step=STEPS[site])
        found.add(digest(fed.close_round()))

    assert len(found) == 1


def test_norms_of_rounded_updates_are_of_what_is_restored_update(started: Started) -> None:
    fed = started(transfer="int8", limits={"norm_ratio": 1.5})
    spoilt = rounded_reply(fed, "site-2")
    spoilt.data[SCALES + "conv.weight"][:] *= 1000
    fed.run.take("site-1", rounded_reply(fed, "site-1"))
    fed.run.take("site-2", spoilt)

    fed.close_round()

    assert fed.run.record.rounds[0].contributors == ("site-1",)


def test_a_fixed_bound_is_judged_on_arrival(started: Started) -> None:
    fed = started(limits={"max_norm": 1000.0})

    assert not fed.take("site-1", step=0.1)
    assert fed.take("site-2", step=1e6)
    assert "1000 is the most" in fed.reason("site-2")


# --- an aggregator of the job's own


def test_an_own_mean_gets_the_names_of_those_that_count_and_nothing_is_summed_besides(
    started: Started,
) -> None:
    asked: list[Any] = []

    def own(weights: Weights, sites: Any, optional: Any) -> Weights:
        asked.append((tuple(sites), set(optional)))
        return {name: tensor + 7 for name, tensor in weights.items()}

    fed = started(optional_names=["*.bias"], run={"own_mean": own})
    kept: list[str] = []
    for site, steps in (("site-2", 1), ("site-1", 0)):
        reply = fed.update(site, steps=steps)
        fed.run.take(site, reply, counted=lambda site=site: kept.append(site))

    assert value(fed.close_round()) == 7.0
    assert asked == [(("site-2",), {"conv.bias"})]
    assert kept == ["site-2"]


def test_an_own_mean_may_change_what_came_once_its_digest_is_taken(started: Started) -> None:
    came: list[Received] = []

    def own(weights: Weights, sites: Any, optional: Any) -> Weights:
        for array in came[0].data.values():
            array[...] = 0
        return dict(weights)

    fed = started(run={"own_mean": own})
    came.append(fed.update("site-1"))
    expected = digest({name: one.clone() for name, one in came[0].weights().items()})
    fed.run.take("site-1", came[0])
    fed.close_round()

    assert fed.noted("contribution-accepted")[0]["tensors"] == expected


# --- the log and the files


def test_the_log_has_a_line_for_each_update_and_each_model_in_their_order(
    started: Started,
) -> None:
    fed = started()
    fed.take("site-2", steps=7)
    fed.take("site-1", steps=0)
    new = fed.close_round()
    fed.files.wait()

    accepted, rejected, model = fed.lines
    size = sum(tensor.nbytes for tensor in new.values())
    sent = {name: torch.ones_like(tensor) for name, tensor in WEIGHTS.items()}
    assert accepted == {
        "event": "contribution-accepted",
        "site": "site-2",
        "round": 1,
        "steps": 7,
        "weight": 7.0,
        "bytes": size,
        "logs": {},
        "tensors": digest(sent),
    }
    assert (rejected["event"], rejected["rules"]) == ("contribution-rejected", ["steps"])
    assert model == {
        "event": "global-model",
        "round": 1,
        "contributors": ["site-2"],
        "bytes": size,
        "tensors": digest(new),
    }


def test_the_heads_of_a_sites_logs_go_into_record_and_log(started: Started) -> None:
    fed = started()
    heads = {"mmar_audit.jsonl": "7:" + "a" * 64}
    reply = fed.update("site-1")

    assert not fed.run.take("site-1", received(reply.data, reply.metadata, heads))
    assert fed.outcome("site-1").logs == heads  # type: ignore[union-attr]
    assert fed.noted("contribution-accepted")[0]["logs"] == heads


@pytest.mark.parametrize("heads", ["7", ["7"], {"mmar_audit.jsonl": "a\nb"}, {"x": 1}, {1: 2}])
def test_heads_of_another_form_are_rejected(started: Started, heads: Any) -> None:
    fed = started()
    reply = fed.update("site-1")

    assert fed.run.take("site-1", received(reply.data, reply.metadata, heads))
    assert "logs" in fed.reason("site-1")


def test_the_global_model_is_on_the_disk_once_its_round_is_closed(started: Started) -> None:
    fed = started()
    fed.take("site-1", step=3.0)
    new = fed.close_round()
    fed.files.wait()

    kept = read_checkpoint(fed.files.folder / "models" / "FL_global_model.pt").weights

    assert digest(kept) == digest(new)
    assert fed.record_on_disk.rounds[0].sites["site-2"].status == "missing"


# --- whatever comes

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=PLAIN, metadata=PLAIN, logs=PLAIN)
def test_whatever_is_received_nothing_is_raised_and_nothing_counts(
    started: Started, data: Any, metadata: Any, logs: Any
) -> None:
    fed = started()
    good = fed.update("site-1")

    assert fed.run.take("site-1", received(data, good.metadata, logs))
    assert fed.run.take("site-2", received(fed.update("site-2").data, metadata, logs))

    assert fed.run.record.rounds[0].contributors == ()
    fed.run.close()
