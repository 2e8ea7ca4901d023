"""Runs a planned simulation: prepare, start the engine, follow it, collect what it leaves."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from fl_admin.report.html import write_report
from fl_admin.report.plots import import_drawing
from fl_admin.simulation.engine import SimulationPlan
from fl_admin.simulation.follow import SimulationView
from fl_admin.simulation.processes import ProcessTree
from fl_admin.simulation.run_folder import RunFolder
from fl_admin.simulation.site_values import threads_of
from fl_server.record.cross_site import CrossSiteMatrix, read_cross_site_matrix
from fl_server.record.files import read_run_record, write_run_record
from fl_server.record.recorder import finish_run
from fl_server.record.values import RunRecord
from mmar_runtime.config.sources import read_json
from mmar_runtime.confinement.places import job_environment, make_scratch, remove_scratch
from mmar_runtime.files import write_json
from mmar_runtime.policy.site_policy import policy_document

SECONDS_BETWEEN_LOOKS = 0.2
"""How soon the end of a run is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a simulation left in its folder.

    Attributes:
        folder: of the run.
        record: the run record; None if no round began.
        matrix: models x sites; None without a matrix.
        failure: why the run did not end as asked; None if it did.
        seconds: wall time from the start of the engine to its end.
    """

    folder: RunFolder
    record: RunRecord | None
    matrix: CrossSiteMatrix | None
    failure: str | None
    seconds: float


def simulate(
    plan: SimulationPlan, folder: RunFolder, *, view: Callable[[SimulationView], object]
) -> SimulationResult:
    """Run a planned simulation to its end; whatever interrupts it, no process is left.

    Args:
        plan: what to run.
        folder: where; empty.
        view: shown how far the run is, several times a second.
    """
    engine = plan.engine
    try:
        prepare(plan, folder)
        started = time.monotonic()
        follower = engine.follower(plan, folder)
        make_scratch(folder.scratch)
        command = engine.command(plan, folder)
        environment = process_environment(plan, folder)
        log = folder.log(engine.name)
        with ProcessTree(command, log=log, env=environment) as tree:
            code = _followed(tree, lambda: view(follower.look()))
    except BaseException:
        # By now no process is left; what there is so far is kept as a failed run.
        collect(plan, folder, "interrupted")
        raise
    finally:
        shutil.rmtree(folder.handover, ignore_errors=True)
        remove_scratch(folder.scratch)
    failure = None if code == 0 else engine.failure(plan, folder, code)
    record, matrix = collect(plan, folder, failure)
    if failure is None and (record is None or record.status != "complete"):
        failure = "the run ended without a complete record" if record is None else record.failure
    return SimulationResult(
        folder=folder,
        record=record,
        matrix=matrix,
        failure=failure,
        seconds=time.monotonic() - started,
    )


def _followed(tree: ProcessTree, show: Callable[[], object]) -> int:
    """Show how far the run is until it ends; return its exit code."""
    # The report needs the import, and this process has nothing else to do while the sites train.
    threading.Thread(target=import_drawing, name="import").start()
    show()
    while (code := tree.wait(SECONDS_BETWEEN_LOOKS)) is None:
        show()
    show()
    return code


def prepare(plan: SimulationPlan, folder: RunFolder) -> None:
    """Write the job as it runs, the values and the policy of the sites, and the engine's part."""
    plan.job.copied_to(folder.job, rounds=plan.rounds, min_sites=plan.min_sites)
    environment = read_json(plan.job.mmar.document("environment.json"))
    for site, values in plan.sites.items():
        folder.site(site).mkdir(parents=True)
        write_json(folder.environment(site), {**environment, **values})
    write_json(folder.policy, policy_document(plan.policy), private=True)
    plan.engine.prepare(plan, folder)


def process_environment(plan: SimulationPlan, folder: RunFolder) -> dict[str, str]:
    """Return the environment of the engine's process; without confinement all of this process's."""
    given = dict(os.environ)
    if plan.policy.confinement != "off":
        given = job_environment(os.environ, folder.scratch, egress=plan.policy.egress)
    threads = min(map(threads_of, plan.sites.values()))
    given |= {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    return plan.engine.environment(given, folder)


def collect(
    plan: SimulationPlan, folder: RunFolder, failure: str | None
) -> tuple[RunRecord | None, CrossSiteMatrix | None]:
    """Bring the server's results into the run folder, end its record, and write the report."""
    plan.engine.collect(plan, folder)
    if not folder.record.is_file():
        return None, None
    record = read_run_record(folder.record)
    if record.status == "running":
        record = finish_run(record, "failed", failure or "the run ended early", datetime.now(UTC))
        write_run_record(folder.record, record)
    matrix_file = folder.results / "cross_site.json"
    matrix = read_cross_site_matrix(matrix_file) if matrix_file.is_file() else None
    write_report(folder.results / "report.html", record, matrix)
    return record, matrix
