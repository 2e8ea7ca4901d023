"""The process that simulates: ``python -m fl_admin.inline.process RUN_FOLDER``.

A process of its own, because components print and change what holds for a whole process; whoever
started this one keeps the terminal and can end it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from fl_admin.inline.job_terms import JobTerms, job_terms
from fl_admin.inline.plan import ERROR_FILE, InlinePlan
from fl_admin.inline.server import InlineServer
from fl_admin.inline.turns import MEMORY, SitesInTurn
from fl_admin.inline.workers import SitesInWorkers, end_on_sigterm
from fl_admin.job import Job
from fl_client.simulated_site import JobWork
from fl_client.site import Site
from fl_server.evaluation_digest import evaluation_digest
from fl_server.initial_model import initial_model
from mmar_runtime.files import write_text_atomically
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import read_site_policy
from mmar_runtime.workflows.process_state import ProcessState


def sites_in_turn(plan: InlinePlan, work: JobWork, *, names: Collection[str]) -> SitesInTurn:
    """Sites of a plan, in this process."""
    policy = read_site_policy(plan.policy)
    sites = [
        Site(name=name, mmar=Mmar.open(plan.app(name)), values=values, policy=policy)
        for name, values in plan.sites.items()
        if name in names
    ]
    return SitesInTurn(sites, plan.folders, work, memory=MEMORY // plan.workers)


def _crew(plan: InlinePlan, terms: JobTerms) -> SitesInTurn | SitesInWorkers:
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
        names, plan.workers, sites_in_turn, (plan, work), folder=plan.results.parent
    )


def simulate(plan: InlinePlan) -> bool:
    """Run the job; returns whether it ended well."""
    job = Job.open(plan.job)
    terms = job_terms(job)
    fresh = ProcessState.now()
    initial = initial_model(
        job.mmar,
        values=plan.common,
        policy=read_site_policy(plan.policy),
        shared=terms.shared_names,
    )
    fresh.put_back()
    crew = _crew(plan, terms)
    try:
        evaluation = evaluation_digest(job.mmar, shared_names=initial.shared_names)
        server = InlineServer(
            job.name, terms, initial, crew, plan.results, evaluation_sha256=evaluation
        )
        del initial  # the server lets go of its weights after the first round
        record = server.run()
    finally:
        crew.close()
    return record.status == "complete"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one simulation; returns 0 if it ended well."""
    parser = argparse.ArgumentParser(description="Simulate a planned job in this process.")
    parser.add_argument("plan", type=Path)
    options = parser.parse_args(arguments)
    end_on_sigterm()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return 0 if simulate(InlinePlan.read(options.plan)) else 1
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        write_text_atomically(options.plan.with_name(ERROR_FILE), f"{error}\n\n{text}")
        logging.exception("the simulation failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
