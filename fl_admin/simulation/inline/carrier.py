"""Carries a federated run in this process: tasks to the sites, one after another, replies back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fl_admin.jobs.job import Job
from fl_admin.simulation.inline.plan import InlinePlan
from fl_admin.simulation.inline_engine import inline_terms
from fl_client.local_work import LocalWork
from fl_client.simulation.sites import Sites
from fl_client.simulation.turns import MEMORY, SitesInTurn
from fl_client.simulation.workers import SitesInWorkers
from fl_client.site import Site
from fl_server.federation import FederatedRun, failure_reason
from fl_server.initial_model import InitialModel, initial_model
from fl_server.record.evaluation_digest import evaluation_digest
from fl_server.record.values import RunRecord
from fl_server.run_files import RunFiles
from fl_server.updates import Received
from mmar_runtime.confinement.wall import forbid_programs
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import BestModel, Failure, Reply, Task, Update
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.mmar import Mmar
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import digest
from mmar_runtime.workflows.process_state import ProcessState

ENGINE = "inline"
PACKAGES = ("mmar-fl", "torch", "monai", "pytorch-ignite")


def inline_run(
    name: str,
    terms: JobTerms,
    initial: InitialModel,
    sites: tuple[str, ...],
    folder: Path,
    *,
    evaluation_sha256: str,
) -> FederatedRun:
    """Return the run of a job in this process.

    Args:
        name: the job's name.
        terms: what it asks for.
        initial: where it starts.
        sites: the names of its sites.
        folder: where results are written.
        evaluation_sha256: digest of how the job evaluates models.
    """
    record = RunRecord(
        job=name,
        engine=ENGINE,
        started=datetime.now(UTC),
        key_metric=initial.key_metric,
        rounds_asked=terms.rounds,
        sites=sites,
        min_sites=terms.min_sites,
        versions={name: version(name) for name in PACKAGES},
        initial_weights_sha256=digest(initial.weights),
        shared_names=initial.shared_names,
        weigh_by=terms.weigh_by,
    )
    size = sum(tensor.nbytes for tensor in initial.weights.values())
    return FederatedRun(
        record,
        name,
        terms,
        initial,
        RunFiles(folder, initial.train_conf, durable=False),
        evaluation_sha256=evaluation_sha256,
        # With more sites there is a sum, which takes as much; then the memory goes back.
        spare=SpareMemory(size if len(sites) < 3 else 0),
    )


class Carrier:
    """Moves the tasks and replies of a run between its server and its sites.

    Args:
        run: of the server.
        sites: of the simulation.
    """

    def __init__(self, run: FederatedRun, sites: Sites) -> None:
        self._run = run
        self._sites = sites
        self._job = run.record.job

    def carry(self) -> RunRecord:
        """Carry the run to its end; the finished record. What falls short is in it."""
        run = self._run
        try:
            for _ in range(run.record.rounds_asked):
                self._train()
                run.close_round()
            self._score()
            run.close_scores()
            self._submit()
            self._validate()
            run.end()
        except Exception as error:
            run.fail(failure_reason(error))
            if not isinstance(error, FederationError):
                raise
        finally:
            run.close()
        return run.record

    def _train(self) -> None:
        self._ask(self._run.open_round(), self._run.take, self._run.absent)

    def _score(self) -> None:
        self._ask(self._run.scores_wanted(), self._run.scored, lambda *_: None)

    def _submit(self) -> None:
        self._ask(self._run.models_wanted(), self._run.model, self._run.model_absent)

    def _validate(self) -> None:
        for task in self._run.cells_wanted():
            take = partial(self._run.cell, task.owner)
            self._ask(task, take, partial(self._run.cell_absent, task.owner))

    def _ask(
        self,
        task: Task,
        take: Callable[[str, Received], object],
        absent: Callable[[str, str], object],
    ) -> None:
        """Have every site do a task; hand each reply to the run, or the status of a failure."""
        for site, reply in self._sites.ask(task):
            if isinstance(reply, Failure):
                absent(site, reply.status)
            else:
                take(site, self._received(site, reply))
            del reply  # its tensors hold until the next site works

    def _received(self, site: str, reply: Reply) -> Received:
        """Return a reply as a server gets it: plain values, with what the site says of itself."""
        own: dict[str, Any] = {"site": site, "job": self._job}
        match reply:
            case Update():
                report = to_plain(reply.report)
                named = {"samples": reply.samples, "epoch_samples": reply.epoch_samples}
                counts = {name: count for name, count in named.items() if count is not None}
                metadata = {
                    "kind": "WEIGHT_DIFF",
                    "round": reply.round_number,
                    "base_model": self._run.base_model(),
                    "steps": reply.steps,
                    **counts,
                    "report": report,
                }
                weights = reply.difference
            case BestModel():
                metrics = to_plain(reply.result.metrics)
                metadata = {
                    "kind": "WEIGHTS",
                    "model_round": reply.round_number,
                    "metrics": metrics,
                }
                weights = reply.weights
            case EvaluationResult():
                metadata = {"kind": "METRICS", "cases": reply.cases}
                return Received(data=to_plain(reply.metrics), metadata={**own, **metadata})
            case _:
                raise TypeError(f"{site} answered with {type(reply).__name__}")
        return Received(
            data=arrays_of(weights), metadata={**own, **metadata}, weights=lambda: weights
        )


def sites_in_turn(plan: InlinePlan, terms: JobTerms, *, names: Collection[str]) -> SitesInTurn:
    """Sites of a plan, in this process."""
    sites = [
        Site(name=name, mmar=Mmar.open(plan.app(name)), values=values, policy=plan.policy)
        for name, values in plan.sites.items()
        if name in names
    ]
    work = LocalWork(
        epochs=terms.local_epochs,
        steps=terms.steps_aggregation,
        weigh_by=terms.weigh_by,
        shared=terms.shared_names,
    )
    return SitesInTurn(
        sites, plan.folders, work, rounding=terms.transfer, memory=MEMORY // plan.workers
    )


def _sites(plan: InlinePlan, terms: JobTerms) -> SitesInTurn | SitesInWorkers:
    names = tuple(plan.sites)
    if plan.workers == 1:
        return sites_in_turn(plan, terms, names=names)
    return SitesInWorkers(names, plan.workers, sites_in_turn, (plan, terms), confined=plan.confined)


def simulate(plan: InlinePlan) -> bool:
    """Run the job; returns whether it ended well."""
    job = Job.open(plan.job)
    terms = inline_terms(job)
    sites = _sites(plan, terms)
    if plan.confined:
        forbid_programs()  # the processes of the workers have started
    try:
        fresh = ProcessState.now()
        initial = initial_model(
            job.mmar, values=plan.common, policy=plan.policy, shared=terms.shared_names
        )
        fresh.restore()
        evaluation = evaluation_digest(job.mmar, shared_names=initial.shared_names)
        run = inline_run(
            job.name, terms, initial, sites.names, plan.results, evaluation_sha256=evaluation
        )
        del initial  # the run lets go of its weights after the first round
        return Carrier(run, sites).carry().status == "complete"
    finally:
        sites.close()
