"""A planned simulation in this process: its job read, its sites and its server at work."""

from __future__ import annotations

from collections.abc import Collection

from fl_admin.jobs.job import Job
from fl_admin.simulation.inline.engine import Carrier, inline_run
from fl_admin.simulation.inline.job_terms import job_terms
from fl_admin.simulation.inline.plan import InlinePlan
from fl_client.simulation.simulated_site import JobWork
from fl_client.simulation.turns import MEMORY, SitesInTurn
from fl_client.simulation.workers import SitesInWorkers
from fl_client.site import Site
from fl_server.initial_model import initial_model
from fl_server.record.evaluation_digest import evaluation_digest
from mmar_runtime.confinement.wall import forbid_programs
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.process_state import ProcessState


def sites_in_turn(plan: InlinePlan, work: JobWork, *, names: Collection[str]) -> SitesInTurn:
    """Sites of a plan, in this process."""
    sites = [
        Site(name=name, mmar=Mmar.open(plan.app(name)), values=values, policy=plan.policy)
        for name, values in plan.sites.items()
        if name in names
    ]
    return SitesInTurn(sites, plan.folders, work, memory=MEMORY // plan.workers)


def _sites(plan: InlinePlan, terms: JobTerms) -> SitesInTurn | SitesInWorkers:
    work = JobWork(
        local_epochs=terms.local_epochs,
        steps_aggregation=terms.steps_aggregation,
        shared_names=terms.shared_names,
        transfer=terms.transfer,
    )
    names = tuple(plan.sites)
    if plan.workers == 1:
        return sites_in_turn(plan, work, names=names)
    return SitesInWorkers(
        names,
        plan.workers,
        sites_in_turn,
        (plan, work),
        confined=plan.confined,
    )


def simulate(plan: InlinePlan) -> bool:
    """Run the job; returns whether it ended well."""
    job = Job.open(plan.job)
    terms = job_terms(job)
    sites = _sites(plan, terms)
    if plan.confined:
        forbid_programs()  # the processes of the workers have started
    try:
        return _ran(plan, job, terms, sites)
    finally:
        sites.close()


def _ran(plan: InlinePlan, job: Job, terms: JobTerms, sites: SitesInTurn | SitesInWorkers) -> bool:
    fresh = ProcessState.now()
    initial = initial_model(
        job.mmar,
        values=plan.common,
        policy=plan.policy,
        shared=terms.shared_names,
    )
    fresh.restore()
    evaluation = evaluation_digest(job.mmar, shared_names=initial.shared_names)
    run = inline_run(
        job.name, terms, initial, sites.names, plan.results, evaluation_sha256=evaluation
    )
    del initial  # the run lets go of its weights after the first round
    return Carrier(run, sites).carry().status == "complete"
