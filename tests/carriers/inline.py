"""A script in one process: made-up sites behind the inline engine's carrier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fl_admin.simulation.inline.carrier import Carrier, inline_run
from fl_server.initial_model import initial_model
from fl_server.record.evaluation_digest import evaluation_digest
from fl_server.record.values import RunRecord
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import (
    BestModel,
    Failure,
    Reply,
    Score,
    Submit,
    Task,
    Train,
    Update,
    Validate,
)
from mmar_runtime.metrics import MetricValue
from mmar_runtime.mmar import Mmar
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights
from tests.carriers.script import (
    DICE,
    JOB,
    ROUNDS,
    SITES,
    STATUS,
    Script,
    Word,
    dice,
    difference,
    report,
)


class ScriptedSites:
    """Sites that answer as a script says."""

    names = SITES

    def __init__(self, script: Script) -> None:
        self._script = script

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        for site in self.names if only is None else (only,):
            yield from ((site, reply) for reply in self._replies(site, task))

    def _replies(self, site: str, task: Task) -> Iterator[Reply]:
        word = self._word(site, task)
        if word in ("silent", "late"):  # what comes late in one process was stopped in time
            yield Failure(status="")
        elif word in STATUS:
            yield Failure(status=STATUS[word])
        else:
            yield from [self._reply(site, task, word)] * (2 if word == "twice" else 1)

    def _word(self, site: str, task: Task) -> Word:
        match task:
            case Train():
                return self._script.updates.get((task.round_number, site), "good")
            case Score():
                return self._script.scores.get(site, "good")
            case Submit():
                return self._script.models.get(site, "good")
            case Validate():
                return self._script.cells.get((task.owner, site), "good")

    def _reply(self, site: str, task: Task, word: Word) -> Reply:
        match task:
            case Train():
                return Update(
                    round_number=task.round_number,
                    difference=difference(task.weights, word),
                    steps=1,
                    report=report(site, task.round_number),
                )
            case Submit():
                return BestModel(
                    weights=self._own(word), round_number=1, result=result(dice(word, 0.5))
                )
            case _:
                return result(dice(word, 0.75))

    def _own(self, word: Word) -> Weights:
        return {**self.first, **difference(self.first, word)} if word == "nan" else self.first

    first: Weights


def result(score: MetricValue) -> EvaluationResult:
    return EvaluationResult(key_metric=DICE, metrics={DICE: score}, cases=3)


def run_inline(script: Script, mmar: Path, folder: Path) -> RunRecord:
    """The record of a script's run in this process."""
    opened = Mmar.open(mmar)
    initial = initial_model(opened, values={})
    terms = JobTerms(**{"rounds": ROUNDS, "min_sites": 2, "weigh_by": "steps", **script.terms})
    sites = ScriptedSites(script)
    sites.first = {name: tensor.clone() for name, tensor in initial.weights.items()}
    evaluation = evaluation_digest(opened)
    run = inline_run(JOB, terms, initial, SITES, folder, evaluation_sha256=evaluation)
    return Carrier(run, sites).carry()
