"""A run of two sites that share three small tensors; replies are plain values, no carrier."""

from __future__ import annotations

import json
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
from fl_server.record.values import RunRecord, SiteAbsence, SiteOutcome
from fl_server.run_files import RunFiles
from fl_server.updates import Received
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.weights import Weights

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
        lines: of the audit log.
    """

    run: FederatedRun
    files: RunFiles
    lines: list[dict[str, Any]] = field(default_factory=list)

    def update(
        self, site: str, *, step: float = 1.0, steps: object = 1, **claims: object
    ) -> Received:
        """An update that moves every weight by ``step``, with claims other than the right ones."""
        arrays = {
            name: np.full(tensor.shape, step if tensor.is_floating_point() else 1).astype(
                tensor.numpy().dtype
            )
            for name, tensor in WEIGHTS.items()
        }
        report = {
            "received_metrics": {DICE: 0.25},
            "local_metrics": {DICE: 0.5},
            "epochs": [{"epoch": 1, "loss": 0.5, "metrics": {}}],
            "seconds": 1.5,
            "built": {"train.trainer": 1},
            "process": "p",
        }
        metadata = {
            "site": site,
            "job": JOB,
            "kind": "WEIGHT_DIFF",
            "round": len(self.run.record.rounds),
            "base_model": self.run.base_model(),
            "steps": steps,
            "initial_metrics": {DICE: 0.25},
            "report": report,
            **claims,
        }
        return received(arrays, metadata)

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
    def record_on_disk(self) -> Any:
        self.files.wait()
        return json.loads((self.files.folder / "run_record.json").read_text(encoding="utf-8"))


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
        *, sites: tuple[str, ...] = ("site-1", "site-2"), run: Mapping[str, Any] = {}, **terms: Any
    ) -> MadeUpRun:
        files = RunFiles(tmp_path / f"results-{len(runs)}", {}, durable=False)
        lines: list[dict[str, Any]] = []

        def note(event: str, **facts: Any) -> None:
            def write() -> None:
                found = {key: one() if callable(one) else one for key, one in facts.items()}
                lines.append({"event": event, **found})

            files.do(write)

        made = FederatedRun(
            RunRecord(
                job=JOB,
                engine="inline",
                started=datetime.now(UTC),
                key_metric=DICE,
                rounds_asked=3,
                sites=sites,
                min_sites=1,
                versions={},
                initial_weights_sha256="0" * 64,
            ),
            JOB,
            JobTerms(**{"rounds": 3, "min_sites": 1, **terms}),
            initial(),
            files,
            evaluation_sha256="0" * 64,
            note=note,
            **run,
        )
        made.open_round()
        runs.append(MadeUpRun(made, files, lines))
        return runs[-1]

    yield start
    for one in runs:
        one.run.close()


def initial() -> InitialModel:
    metrics = MetricContract(key_metric=DICE, names=frozenset({DICE}), ranges={DICE: (0.0, 1.0)})
    return InitialModel(
        weights=WEIGHTS,
        train_conf={},
        key_metric=DICE,
        metrics=metrics,
        cross_site_metrics=metrics,
    )
