"""The tasks of a site in several processes."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fl_client.local_training import SharedTensors
from fl_client.local_work import LocalWork
from fl_client.memory.stored_rounds import STORED
from fl_client.ranks.launcher import START_SECONDS, Ranks
from fl_client.ranks.messages import read_weights, result_from, update_from, write_weights
from fl_client.site import Site
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.messages import BestModel, Update
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE, policy_document
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.observing import ShouldStop

logger = logging.getLogger(__name__)

FOLDER = "ranks"
"""Where weights go from process to process, below the run's folder; nobody else may look in."""


class RankTasks:
    """The tasks in several processes, started when first needed, and anew after one was lost.

    Each process has what ``LocalTasks`` has in one. The best model is kept here, so that it
    outlives them.

    Args:
        site: where this is, and how many processes it has.
        work: how much to train in a round, and what to share; all processes together do a step.
        run: the folder of the run, for logs and weights.
        progress: the file that the first process tells its progress in.
        should_stop: asked all the time.
        start_seconds: within this time the processes have to be ready.
    """

    def __init__(
        self,
        site: Site,
        *,
        work: LocalWork,
        run: Path,
        progress: Path,
        should_stop: ShouldStop,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.site = site
        self.work = work
        self._run = run
        self._folder = run / FOLDER
        self._progress = progress
        self._should_stop = should_stop
        self._start_seconds = start_seconds
        self._ranks: Ranks | None = None
        self._written = 0
        self._best: BestModel | None = None

    @property
    def pids(self) -> list[int]:
        """The processes' numbers in the system, by rank; none while there are none."""
        return [] if self._ranks is None else self._ranks.pids

    def train(self, weights: Weights, round_number: int) -> Update:
        """See ``SiteTasks``."""
        answer = self._ask("train", weights, round_number=round_number)
        self._keep_best(answer)
        difference = self._read(answer["difference"])
        return update_from(answer["update"], {name: difference[name] for name in weights})

    def score(self, weights: Weights) -> EvaluationResult:
        """See ``SiteTasks``."""
        return result_from(self._ask("score", weights)["result"])

    def best(self) -> BestModel:
        """See ``SiteTasks``."""
        if self._best is None and (self._run / STORED).is_dir():
            self._keep_best(self._ask("best", {}))  # of an earlier process of this site
        if self._best is None:
            raise WeightsError("this site has trained no model yet that it could submit")
        return self._best

    def evaluate(self, weights: Weights, *, owner: str) -> EvaluationResult:
        """See ``SiteTasks``."""
        return result_from(self._ask("evaluate", weights, owner=owner)["result"])

    def shared_tensors(self) -> SharedTensors:
        """See ``SiteTasks``."""
        told = self._there().ask("shared_tensors")
        return SharedTensors(sizes=told["sizes"], buffers=frozenset(told["buffers"]))

    def close(self) -> None:
        """End the processes."""
        if self._ranks is not None:
            self._ranks.close()

    def _ask(self, kind: str, weights: Weights, **task: Any) -> dict[str, Any]:
        ranks = self._there()
        self._written += 1
        path = self._folder / f"received-{self._written}.safetensors"
        try:
            return ranks.ask(kind, weights=write_weights(weights, path), **task)
        finally:
            path.unlink(missing_ok=True)

    def _there(self) -> Ranks:
        """Return the processes, started if there are none.

        Raises:
            LaunchError: they did not start.
        """
        if self._ranks is not None and self._ranks.alive:
            return self._ranks
        if self._ranks is not None:
            self._ranks.end()
            logger.warning("the processes are started anew, and go on from the last whole round")
        self._ranks = Ranks(
            self.site.processes,
            self._setup(),
            logs=self._run,
            should_stop=self._should_stop,
            start_seconds=self._start_seconds,
        )
        return self._ranks

    def _setup(self) -> dict[str, Any]:
        """Write the policy to a file, and return the first message to each process."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for left in self._folder.glob("*.safetensors"):  # by processes that were lost
            left.unlink()
        policy = json.dumps(policy_document(self.site.policy))
        path = self._folder / SITE_POLICY_FILE
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(policy)
        return {
            "kind": "setup",
            "site": self.site.name,
            "mmar": str(self.site.mmar.root),
            "values": dict(self.site.values),
            "policy": path.name,
            "work": asdict(self.work),
            "process": uuid.uuid4().hex[:12],
            "folder": str(self._folder),
            "progress": str(self._progress),
            "stored": str(self._run / STORED),
        }

    def _keep_best(self, answer: Mapping[str, Any]) -> None:
        """Keep the processes' best model, if an answer has one that is better."""
        if "best" not in answer:
            return
        told = answer["best"]
        best = BestModel(
            weights=self._read(told["weights"]),
            result=result_from(told["result"]),
            round_number=told["round_number"],
        )
        if best.result.beats(None if self._best is None else self._best.result):
            self._best = best

    def _read(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return the weights of a file, and remove the file."""
        weights = read_weights(told, self._folder)
        (self._folder / told["file"]).unlink()
        return weights
