"""What rounding does to a result: one round by its bound, several by their metrics, and the bytes.

A site starts each round from the exact global model, so after one round the models differ by the
rounding alone: by no more than the mean of the sites' bounds, weighted as the mean is, and the last
digit of float32 in each model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fl_client.simulation.turns import SitesInTurn
from fl_server.updates import restored_update
from mmar_runtime.exchange.messages import Update
from mmar_runtime.exchange.rounding import is_rounded
from mmar_runtime.exchange.rounding_forms import ROUNDINGS
from mmar_runtime.metrics import values_of
from mmar_runtime.weights import Weights, digest, read_checkpoint
from tests.fl_admin.simulation.inline.conftest import NAMES, Federation, Ran
from tests.rounding import error_bound

ROUNDS = 3
forms = pytest.mark.parametrize("form", ROUNDINGS)


class Overheard:
    """Sites whose replies are kept."""

    def __init__(self, sites: SitesInTurn, sent: dict[tuple[int, str], Update]) -> None:
        self.sites, self.sent, self.names = sites, sent, sites.names

    def ask(self, task: Any, *, only: str | None = None) -> Any:
        for site, reply in self.sites.ask(task, only=only):
            if isinstance(reply, Update):
                # Its tensors hold until the next site works.
                kept = {name: tensor.clone() for name, tensor in reply.difference.items()}
                self.sent[task.round_number, site] = replace(reply, difference=kept)
            yield site, reply


class Runs:
    """The same job with each form, and what the sites sent."""

    def __init__(self, federation: Federation) -> None:
        self.sent: dict[str, dict[tuple[int, str], Update]] = {}
        self.after: dict[str, Ran] = {}
        self.first: dict[str, Weights] = {}
        for form in (None, *ROUNDINGS):
            name, sent = str(form), self.sent.setdefault(str(form), {})
            how: Any = {
                "rounding": form,
                "transfer": form,
                "through": lambda sites, sent=sent: Overheard(sites, sent),
            }
            one = federation.run(rounds=1, **how)
            path = one.results / "models" / "FL_global_model.pt"
            self.first[name] = read_checkpoint(path).weights
            self.after[name] = federation.run(rounds=ROUNDS, **how)

    def bytes_of(self, form: object) -> list[int]:
        record = self.after[str(form)].record
        return [
            one.sites[site].sent_bytes for one in record.rounds for site in NAMES
        ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(federation: Federation) -> Runs:
    return Runs(federation)


def bound_of_the_mean(runs: Runs, form: Any, name: str) -> Any:
    """The weighted mean of what each site's rounding may be off, after the first round."""
    plain = [runs.sent["None"][1, site] for site in NAMES]
    bounds = [error_bound(one.difference[name].numpy(), form) for one in plain]
    weights = np.array([one.steps for one in plain], np.float64)
    return sum(w * b for w, b in zip(weights, bounds, strict=True)) / weights.sum()


@forms
def test_what_a_site_sends_is_off_by_no_more_than_its_bound(runs: Runs, form: Any) -> None:
    for site in NAMES:
        exact = runs.sent["None"][1, site].difference
        came = restored_update(runs.sent[form][1, site].difference)
        for name, tensor in exact.items():
            error = (came[name].double() - tensor.double()).abs().numpy()
            assert (error <= error_bound(tensor.numpy(), form)).all()


@forms
def test_after_one_round_the_model_is_off_by_no_more_than_the_mean_of_the_bounds(
    runs: Runs, form: Any
) -> None:
    exact, rounded = runs.first["None"], runs.first[form]
    moved = 0
    for name, tensor in exact.items():
        array = tensor.numpy()
        if not is_rounded(array.dtype, array.shape):
            assert torch.equal(rounded[name], tensor)
            continue
        error = (rounded[name].double() - tensor.double()).abs().numpy()
        assert (error <= bound_of_the_mean(runs, form, name) + np.spacing(np.abs(array))).all()
        moved += int((error > 0).sum())
    assert moved > 0  # else nothing was rounded, and nothing shown


@forms
def test_metrics_stay_close_over_several_rounds(runs: Runs, form: Any) -> None:
    exact, rounded = (runs.after[str(one)].record for one in (None, form))

    assert rounded.status == "complete"
    for one, other in zip(exact.scores, rounded.scores, strict=True):
        for site in NAMES:
            expected = pytest.approx(values_of(one.sites[site]), abs=0.02)
            assert values_of(other.sites[site]) == expected


@forms
def test_only_what_sites_send_is_rounded(runs: Runs, form: Any) -> None:
    """The first metrics of a round are of the exact global model, at each site the same bits."""
    assert runs.after[form].record.initial_weights_sha256 == (
        runs.after["None"].record.initial_weights_sha256
    )
    first = [runs.after[str(one)].record.rounds[0].sites["site-1"] for one in (None, form)]
    assert first[0].received_metrics == first[1].received_metrics
    assert first[0].local_metrics == first[1].local_metrics


def test_the_record_tells_the_bytes_of_the_wire(runs: Runs) -> None:
    """The tiny network: 864 and 432 numbers in matrices of at least a block, and small ones."""
    sent = {str(form): runs.bytes_of(form) for form in (None, *ROUNDINGS)}
    plain = runs.sent["None"][1, "site-1"].difference
    arrays = [tensor.numpy() for tensor in plain.values()]
    large = sum(a.size for a in arrays if is_rounded(a.dtype, a.shape))
    scales = sum(-(-a.size // 256) for a in arrays if is_rounded(a.dtype, a.shape))
    whole = sum(a.nbytes for a in arrays)

    assert set(sent["None"]) == {whole}
    assert set(sent["float16"]) == {whole - 2 * large + 4 * scales}
    assert set(sent["int8"]) == {whole - 3 * large + 4 * scales}
    assert large > 0.5 * sum(a.size for a in arrays)


@forms
def test_the_same_job_gives_the_same_bits(federation: Federation, runs: Runs, form: Any) -> None:
    again = federation.run(rounds=ROUNDS, rounding=form, transfer=form)

    assert again.digests == runs.after[form].digests
    assert again.models == runs.after[form].models
    assert again.digests[0] == digest(runs.first[form])
    assert again.digests != runs.after["None"].digests


def test_a_difference_that_cannot_be_rounded_is_a_site_that_failed(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmar_runtime.exchange.rounding.LARGEST", {"float16": 0.0})

    ran = federation.run(rounds=1, rounding="float16", transfer="float16")

    assert ran.record.status == "failed"
    assert str(ran.record.failure).startswith("site-1 failed in round 1: weights-error (reference ")


def test_a_site_that_does_not_round_is_rejected(federation: Federation) -> None:
    ran = federation.run(rounds=1, transfer="int8")

    assert ran.statuses == [dict.fromkeys(NAMES, "rejected")]
    assert "has to be int8, given float32" in str(ran.record.failure)
