"""The inline engine: the sites take turns in one process, without NVFlare."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fl_admin.jobs.job import Job
from fl_admin.simulation.engine import Engine, EngineName, SimulationPlan
from fl_admin.simulation.follow import RunFollower
from fl_admin.simulation.inline.plan import ERROR_FILE, InlinePlan
from fl_admin.simulation.run_folder import JOB_FOLDER, RunFolder, first_paragraph, site_errors
from fl_admin.simulation.site_values import common_values
from fl_client.jobs.classes import WAKER
from fl_client.jobs.files import META
from fl_client.jobs.rounding import COMPACT, rounding_faults
from fl_server.record.files import read_run_record
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import (
    CLIENT_CONFIG,
    DATA_FILTERS,
    EXECUTOR,
    FEDERATION,
    RESULT_FILTERS,
    SERVER_CONFIG,
    JobDocuments,
)
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import TASKS, TRAIN
from mmar_runtime.files import write_json
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE, policy_document

ADVICE = "Run it with --engine nvflare."


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineEngine(Engine):
    """Runs a simulation in one process, or in a few, in which the sites take turns.

    Attributes:
        workers: processes in which the sites take turns.
    """

    name: ClassVar[EngineName] = "inline"
    workers: int = 1

    def prepare(self, plan: SimulationPlan, folder: RunFolder) -> None:
        """Write the plan of the process, and make each site's folder like its kit.

        A site's folder holds a copy of the app, because handlers write into it.
        """
        inline = InlinePlan(
            job=folder.job,
            results=folder.results,
            sites=plan.sites,
            folders={site: folder.site(site) for site in plan.sites},
            policy=plan.policy,
            common=common_values(plan.sites),
            workers=self.workers,
        )
        for site, values in plan.sites.items():
            kit = self.kit(plan, folder, site)
            (kit / "startup").mkdir()
            (kit / "local").mkdir(mode=0o700)
            write_json(kit / "local" / "environment.json", dict(values))
            write_json(kit / "local" / SITE_POLICY_FILE, policy_document(plan.policy), private=True)
            shutil.copytree(folder.job / plan.job.mmar.root.name, inline.app(site))
            shutil.copy(folder.job / META, kit / JOB_FOLDER)
        inline.write(folder.inline_plan)

    def command(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        """Return the command of the process, which reads its plan from a file."""
        module = "fl_admin.simulation.inline.process"
        return [sys.executable, "-P", "-m", module, str(folder.inline_plan)]

    def follower(self, plan: SimulationPlan, folder: RunFolder) -> RunFollower:
        """Return an object that reads what sites and server write into the run folder."""
        progress = {site: folder.site(site) / "progress.jsonl" for site in plan.sites}
        return RunFollower(progress, folder.record, plan.rounds)

    def site_errors(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        """Return the errors in the folders of the sites."""
        return site_errors(folder.sites, "*/error-*.txt")

    def failure(self, plan: SimulationPlan, folder: RunFolder, code: int) -> str:
        """Return the errors of the sites and of the process, or else what the record says."""
        errors = self.site_errors(plan, folder)
        error = folder.inline_plan.with_name(ERROR_FILE)
        errors += [first_paragraph(error)] if error.is_file() else []
        if not errors and folder.record.is_file():
            errors = [read_run_record(folder.record).failure or ""]
        log = folder.log(self.name)
        return "; ".join(dict.fromkeys(errors)) or f"the run ended with code {code}; see {log}"

    def kit(self, plan: SimulationPlan, folder: RunFolder, site: str) -> Path:
        """Return the site's folder."""
        return folder.site(site)


def inline_terms(job: Job) -> JobTerms:
    """Return the terms of a job that the inline engine can run.

    Raises:
        ConfigError: with everything in the job that this engine cannot do.
    """
    documents = job.documents
    faults = [*_document_faults(documents), *rounding_faults(documents)]
    if faults:
        raise ConfigError(faults)
    return documents.terms


def _document_faults(documents: JobDocuments) -> Iterator[Problem]:
    server, client = Location(SERVER_CONFIG), Location(CLIENT_CONFIG)
    for place, entries, known in (
        (server / "components", documents.server.get("components", []), ()),
        (server / "workflows", documents.server.get("workflows", []), (FEDERATION,)),
        (client / "components", documents.client.get("components", []), (WAKER,)),
    ):
        for entry in entries:
            if entry.get("path") not in known:
                message = f"the inline engine does not know {entry.get('path')!r}"
                yield Problem(place / str(entry.get("id", "")), message, ADVICE, "engine")
    if not documents.federation:
        message = "names no FederationController"
        yield Problem(server / "workflows", message, ADVICE, "engine")
    elif "num_rounds" not in documents.federation:
        message = "the inline engine runs jobs that train; this one names no num_rounds"
        yield Problem(server / "workflows", message, ADVICE, "engine")
    for name in ("aggregator", "encrypt_layers"):
        if documents.federation.get(name) is not None:
            message = f"the inline engine does not know the argument {name!r}"
            yield Problem(server / "workflows" / "args" / name, message, ADVICE, "engine")
    executors = documents.client.get("executors", [])
    tasks = sorted(task for executor in executors for task in executor.get("tasks", []))
    if not documents.has_executor or len(executors) != 1 or tasks != sorted(TASKS):
        message = f"the inline engine stands for one {EXECUTOR}, with the tasks {', '.join(TASKS)}"
        yield Problem(client / "executors", message, ADVICE, "engine")
    for key in (DATA_FILTERS, RESULT_FILTERS):
        for chain in documents.chains(key):
            if chain.tasks != (TRAIN,) or any(entry.path != COMPACT for entry in chain.filters):
                message = "the inline engine runs no filters but the rounding of updates"
                yield Problem(chain.place, message, ADVICE, "engine")
