"""A run of two sites that share three small tensors; replies are plain values, no carrier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fl_server.federation import Faults, FederatedRun
from fl_server.guard.metric_contract import MetricContract
from fl_server.initial_model import InitialModel
from fl_server.record.files import read_run_record
from fl_server.record.values import RunRecord, SiteAbsence, SiteOutcome
from fl_server.run_files import RunFiles
from fl_server.updates import Received
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.weights import Weights
from tests.conftest import plain_metric

JOB = "job-1"
DICE = "val_mean_dice"
WEIGHTS: Weights = {
    "conv.weight": torch.zeros(16, 32),
    "conv.bias": torch.zeros(2),
    "norm.batches": torch.tensor(4),
}


@dataclass
class MadeUpRun:
    """A run, and what its sites may send.

    Attributes:
        run: under test.
        files: of the run.
        weights: of the initial model; they name the tensors of every reply.
        higher_is_better: the direction of the key metric.
        lines: of the audit log.
    """

    run: FederatedRun
    files: RunFiles
    weights: Weights
    higher_is_better: bool = True
    lines: list[dict[str, Any]] = field(default_factory=list)

    def update(
        self,
        site: str,
        *,
        step: float = 1.0,
        steps: object = 1,
        received_dice: float | None = 0.25,
        **claims: object,
    ) -> Received:
        """An update that moves every weight by ``step``, with claims other than the right ones."""
        arrays = {
            name: np.full(tensor.shape, step if tensor.is_floating_point() else 1).astype(
                tensor.numpy().dtype
            )
            for name, tensor in self.weights.items()
        }
        direction = {"higher_is_better": self.higher_is_better}
        report = {
            "received_metrics": {DICE: plain_metric(received_dice, **direction)},
            "local_metrics": {DICE: plain_metric(0.5, **direction)},
            "epochs": [{"epoch": 1, "loss": 0.5, "metrics": {}}],
            "seconds": 1.5,
            "built": {"train.trainer": 1},
            "process": "p",
        }
        metadata = {
            "kind": "WEIGHT_DIFF",
            "round": len(self.run.record.rounds),
            "base_model": self.run.base_model(),
            "steps": steps,
            "report": report,
            **claims,
        }
        return reply_of(site, arrays, metadata)

    def take(self, site: str, **how: Any) -> Faults:
        """Have the run take an update; its faults."""
        return self.run.take(site, self.update(site, **how))

    def outcome(self, site: str) -> SiteOutcome | None:
        """What the record says of a site in the latest round."""
        return self.run.record.rounds[-1].sites.get(site)

    def reason(self, site: str) -> str:
        """Why the latest round goes without a site."""
        outcome = self.outcome(site)
        assert isinstance(outcome, SiteAbsence)
        return outcome.reason

    def close_round(self) -> Weights:
        """The new global model."""
        self.run.close_round()
        return self.run.scores_wanted().weights

    def noted(self, event: str) -> list[dict[str, Any]]:
        """Lines of the audit log, once all is written."""
        self.files.wait()
        return [line for line in self.lines if line["event"] == event]

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def record_on_disk(self) -> RunRecord:
        """The record, once all is written that can be."""
        self.files._thread.submit(lambda: None).result()
        return read_run_record(self.folder / "run_record.json")

    # --- a run that goes well

    def train(self, *received_dice: float | None) -> None:
        """Every site contributes to a round, with its score of the model that it received."""
        if self.run.record.open_round is None:
            self.run.open_round()
        for site, dice in zip(self.run.sites, received_dice, strict=True):
            assert self.take(site, received_dice=dice) == ()
        self.run.close_round()

    def trained(self) -> None:
        """Two rounds; the scores of the models of rounds 0 and 1 are 0.25 and 0.5."""
        self.train(0.25, 0.25)
        self.train(0.5, 0.5)

    def scored(self, *values: float | None) -> None:
        """The sites score the last model, in the order of their names."""
        for site, value in zip(self.run.sites, values, strict=True):
            assert self.run.scored(site, self._metrics(site, value)) == ()
        self.run.close_scores()

    def _metrics(self, site: str, value: float | None) -> Received:
        found = metrics(site, value)
        found.data[DICE]["higher_is_better"] = self.higher_is_better
        return found

    def submitted(self) -> None:
        """Every site hands over its own best model."""
        for site in self.run.sites:
            assert self.run.model(site, model(site)) == ()

    def evaluated(self, *but: tuple[str, str]) -> None:
        """Every site evaluates every model, but for some cells."""
        for task in self.run.cells_wanted():
            for site in self.run.sites:
                if (task.owner, site) not in but:
                    assert self.run.cell(task.owner, site, metrics(site, 0.75)) == ()

    def asked(self) -> None:
        """All models are out for evaluation."""
        for _ in self.run.cells_wanted():
            pass


def reply_of(site: str, data: Any, metadata: Mapping[str, Any], logs: Any = None) -> Received:
    """A reply with its sender's name and job."""
    return received(data, {"site": site, "job": JOB, **metadata}, logs)


def metrics(site: str, value: Any, **others: Any) -> Received:
    found = {label: plain_metric(one) for label, one in {DICE: value, **others}.items()}
    return reply_of(site, found, {"kind": "METRICS", "cases": 3})


Spoil = Callable[[dict[str, Any], dict[str, Any]], object]


def weights_of(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), float(value)), "b": torch.full((1,), float(value))}


def model(site: str, spoil: Spoil = lambda arrays, metadata: None) -> Received:
    """A site's own best model: of ``weights_of(5)``, unless it is spoilt."""
    arrays = {name: array.copy() for name, array in arrays_of(weights_of(5)).items()}
    metadata: dict[str, Any] = {
        "kind": "WEIGHTS",
        "model_round": 1,
        "metrics": {DICE: plain_metric(0.9)},
    }
    spoil(arrays, metadata)
    return reply_of(site, arrays, metadata)


def received(arrays: Any, metadata: Any, logs: object = None) -> Received:
    return Received(
        data=arrays,
        metadata=metadata,
        weights=lambda: {name: torch.from_numpy(array) for name, array in arrays.items()},
        logs={} if logs is None else logs,
    )


Started = Callable[..., MadeUpRun]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """``started(**terms)``: a run of three rounds whose first round is open."""
    runs: list[MadeUpRun] = []

    def start(
        *,
        sites: tuple[str, ...] = ("site-1", "site-2"),
        weights: Weights = WEIGHTS,
        durable: bool = False,
        higher_is_better: bool = True,
        run: Mapping[str, Any] = {},
        **given: Any,
    ) -> MadeUpRun:
        terms = JobTerms(**{"rounds": 3, "min_sites": 1, "weigh_by": "steps", **given})
        files = RunFiles(tmp_path / f"results-{len(runs)}", {}, durable=durable)
        lines: list[dict[str, Any]] = []

        def note(event: str, **facts: Any) -> None:
            def write() -> None:
                values = {key: fact() if callable(fact) else fact for key, fact in facts.items()}
                lines.append({"event": event, **values})

            files.do(write)

        record = RunRecord(
            job=JOB,
            engine="inline",
            started=datetime.now(UTC),
            key_metric=DICE,
            rounds_asked=terms.rounds,
            sites=sites,
            min_sites=terms.min_sites,
            versions={},
            initial_weights_sha256="0" * 64 if terms.rounds else None,
            weigh_by=terms.weigh_by,
        )
        made = FederatedRun(
            record,
            JOB,
            terms,
            initial(weights, higher_is_better),
            files,
            evaluation_sha256="0" * 64,
            note=note,
            **run,
        )
        if terms.rounds:
            made.open_round()
        runs.append(MadeUpRun(made, files, weights, higher_is_better, lines))
        return runs[-1]

    yield start
    for one in runs:
        one.run.close()


def initial(weights: Weights, higher_is_better: bool = True) -> InitialModel:
    contract = MetricContract(
        key_metric=DICE,
        names=frozenset({DICE}),
        ranges={DICE: (0.0, 1.0)},
        directions={DICE: higher_is_better},
    )
    return InitialModel(
        weights=weights,
        train_conf={},
        key_metric=DICE,
        metrics=contract,
        cross_site_metrics=contract,
    )
