"""``mmar simulate``: run a federated job on this machine, by one of two engines."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fl_admin.cli.job.settings import add_settings_arguments
from fl_admin.cli.named_job import named_job
from fl_server.record.values import CANNOT_BEGIN
from mmar_runtime.cli.common import (
    add_output_arguments,
    add_set_argument,
    print_json,
    print_note,
    set_up_logging,
    stop_on_signals,
)
from mmar_runtime.cli.given_values import given_values
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, MmarError, Problem, RunAborted
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, read_site_policy

if TYPE_CHECKING:
    from fl_admin.jobs.job import Job
    from fl_admin.simulation.engine import SimulationPlan
    from fl_admin.simulation.run import SimulationResult

HELP = "run a federated job, or a plain MMAR, on this machine"
EXAMPLES = """examples:
  mmar simulate jobs/spleen_ct_segmentation --sites 3 --rounds 3 --data DATA --workspace RUNS
  mmar simulate JOB --sites 2 -e sites/environment.json --set learning_rate=1e-3
  mmar simulate JOB --data DATA --policy local/mmar_site_policy.json  (as a site would run it)
  mmar simulate path/to/mmar --sites 2 --rounds 5 --local-epochs 2 --data DATA
  mmar simulate path/to/mmar --sites 2 --rounds 5 --transfer int8 --data DATA
  mmar simulate jobs/check --sites 2 --data DATA      (a job of 'mmar job validate')

Of a plain MMAR a job is made on the way, as 'mmar job create' does; it is kept with the run.
DATA holds site-1/dataset.json, site-2/dataset.json, ... ('mmar demo-data DATA' writes such).
With -e, a JSON document gives values to all sites, and under "sites" to single ones:
  {"DATA_ROOT": "/data", "sites": {"site-1": {"DATASET_JSON": "/data/a.json"}}}
Each run gets a folder of its own, RUNS/run-001 and so on; earlier runs stay.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "job", type=Path, nargs="?", metavar="JOB", help="folder of a job or an MMAR"
    )
    parser.add_argument("-m", "--mmar", type=Path, metavar="JOB", help="the same, as an option")
    parser.add_argument("--sites", type=int, default=2, metavar="N", help="sites (%(default)s)")
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds (the job's own; 50)")
    add_settings_arguments(parser)
    parser.add_argument(
        "-w", "--workspace", type=Path, default=Path("runs"), metavar="W",
        help="where runs are kept (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds site-N/dataset.json")
    parser.add_argument(
        "-e", "--environment", type=Path, metavar="FILE", help="environment.json for the sites"
    )
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="the sites' policy (the default policy)"
    )
    parser.add_argument(
        "--min-sites", type=int, metavar="N", help="sites that a round needs (all of them)"
    )
    parser.add_argument(
        "--engine", choices=("inline", "nvflare"),
        help="inline: sites take turns in one process; nvflare: NVFlare's simulator, a process "
        "for each site; the same bits from both (inline, if it knows all that the job names)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, metavar="K",
        help="processes in which the sites of the inline engine take turns (1)",
    )  # fmt: skip
    parser.add_argument(
        "--gpu",
        metavar="IDS",
        help="GPUs for NVFlare's simulator to share out, such as 0 or [0],[1]",
    )
    add_set_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check the job for every site, run it, show the results."""
    set_up_logging(verbose=options.verbose)
    folder = options.job or options.mmar
    if folder is None:
        message = "the job's folder is not named"
        raise ConfigError([Problem(Location("simulate"), message, "mmar simulate JOB ...", "job")])
    # The code of a plain MMAR goes along: the simulated sites judge it by their policy.
    with named_job(Path(folder), options, min_sites=options.sites, with_code=True) as job:
        return _simulate(job, options)


def _simulate(job: Job, options: argparse.Namespace) -> int:
    from fl_admin.simulation.plan import SimulationRequest, plan_simulation
    from fl_admin.simulation.run import simulate

    policy = DEFAULT_POLICY
    if options.policy is not None:  # whoever simulates a job has chosen it
        policy = replace(read_site_policy(options.policy), jobs="signed")
    request = SimulationRequest(
        job=job,
        sites=options.sites,
        rounds=options.rounds,
        data=options.data,
        environment=options.environment,
        overrides=given_values(options),
        engine=options.engine,
        min_sites=options.min_sites,
        workers=options.workers,
        gpu=options.gpu,
        policy=policy,
    )
    plan = plan_simulation(request)
    for notice in plan.notices:
        print_note(notice)
    for problem in plan.not_inline:
        print_note(f"runs on NVFlare's simulator: {problem.message}")
    folder = plan.engine.new_folder(options.workspace)
    print(f"run folder: {folder.root}", file=sys.stderr)
    if plan.job.encrypts:
        print(
            "note: the updates are encrypted, but a simulation keeps all keys on this machine",
            file=sys.stderr,
        )
    from fl_admin.cli.live import live_view

    try:
        with stop_on_signals(), live_view() as view:
            result = simulate(plan, folder, view=view)
    except KeyboardInterrupt as error:
        text = f"{str(error) or 'interrupted'}; what there is so far lies in {folder.root}"
        raise RunAborted(text) from error
    _show(plan, result, as_json=options.json)
    if result.failure is None:
        # Each is a site's own, but here one person has all sites.
        for told in dict.fromkeys(plan.engine.site_errors(plan, result.folder)):
            print_note(told)
    else:
        logs = f"\n    Logs: {folder.log(plan.engine.name)}"
        if CANNOT_BEGIN in result.failure:
            raise MmarError(f"{result.failure}{logs}")
        raise FederationError(f"the run failed: {result.failure}{logs}")
    return 0


def _show(plan: SimulationPlan, result: SimulationResult, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "folder": str(result.folder.root),
                "failure": result.failure,
                "seconds": round(result.seconds, 1),
                "record": result.record.as_dict() if result.record else None,
                "cross_site": result.matrix.as_dict() if result.matrix else None,
            }
        )
        return
    if result.record is None:
        return
    from rich.console import Console

    from fl_admin.report.text import render_text

    console = Console()
    console.print(render_text(result.record, result.matrix))
    print(_where(plan, result))


def _where(plan: SimulationPlan, result: SimulationResult) -> str:
    """Return where the results lie, as far as there are any."""
    folder = result.folder
    places = {
        "report": [folder.results / "report.html"],
        "weights": [folder.results / "models"],
        "JSON": [folder.record, folder.results / "cross_site.json"],
        "CSV": [folder.results / "cross_site.csv"],
        "logs": [folder.log(plan.engine.name)],
    }
    lines = [f"took {result.seconds:.0f} s"]
    for title, paths in places.items():
        there = [str(path) for path in paths if path.is_file() or _has_files(path)]
        if there:
            lines.append(f"{title + ':':<8} {', '.join(there)}")
    if result.failure is None and result.matrix is not None:
        lines += _same_number(plan, result, result.matrix.models[0])
    return "\n".join(lines)


def _has_files(folder: Path) -> bool:
    """Return whether there is something in a folder; a run that failed has no models."""
    return folder.is_dir() and any(folder.iterdir())


def _same_number(plan: SimulationPlan, result: SimulationResult, model: str) -> list[str]:
    """Return how a site gets its number of the matrix again."""
    folder, site = result.folder, next(iter(plan.sites))
    kit = plan.engine.kit(plan, folder, site)
    file, lines = folder.results / "models" / f"{model}.pt", []
    if not plan.job.trains:
        file = folder.job / plan.job.mmar.root.name / "models" / f"{model}.safetensors"
    elif plan.job.encrypts:
        from mmar_runtime.exchange.encrypted_files import SUFFIX

        encrypted, file = file.with_suffix(SUFFIX), folder.root / file.name
        keys = kit.parent
        words = ["mmar", "site", "decrypt", "--kit", keys, "--model", encrypted, "--out", file]
        lines = ["the last global model, decrypted:", f"  {shlex.join(map(str, words))}"]
    command = ["mmar", "site", "validate", "--kit", str(kit), "--model", str(file)]
    return [*lines, f"the same number at {site}:", f"  {shlex.join(command)}"]
