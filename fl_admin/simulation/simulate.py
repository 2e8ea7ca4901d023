"""A federation on one machine: prepare, run an engine beside us, follow, collect.

Two engines run the same job to the same bits: ``inline`` takes the sites in turn in one process,
``nvflare`` runs NVFlare's simulator with a process for each site.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from fl_admin.jobs.job import Job
from fl_admin.kits.split_paths import SPLIT_AT, is_split
from fl_admin.report.html import write_report
from fl_admin.report.plots import import_drawing
from fl_admin.simulation.follow import InlineFollower, RunFollower, SimulationView
from fl_admin.simulation.inline.job_terms import ADVICE, job_terms
from fl_admin.simulation.inline.plan import ERROR_FILE, RUN, InlinePlan
from fl_admin.simulation.processes import MEMORY_OF_NVFLARE, ProcessTree
from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_client.jobs.documents import document_faults
from fl_client.jobs.files import META
from fl_client.site import PROCESSES_VARIABLE, Site
from fl_server.record.cross_site import CrossSiteMatrix, read_cross_site_matrix
from fl_server.record.files import read_run_record, write_run_record
from fl_server.record.recorder import finish_run
from fl_server.record.values import RunRecord
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import THREADS_VARIABLE
from mmar_runtime.config.sources import read_json, read_site_values
from mmar_runtime.config.upgrades import Notice
from mmar_runtime.confinement.places import job_environment, make_scratch, remove_scratch
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.encryption_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG
from mmar_runtime.files import write_text_atomically
from mmar_runtime.flare import HANDOVER
from mmar_runtime.policy.mmar_check import approval_fault
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    SITE_POLICY_FILE,
    SitePolicy,
    policy_document,
)

Engine = Literal["inline", "nvflare"]

SECONDS_BETWEEN_LOOKS = 0.2
"""How soon the end of a run is noticed."""

FATAL = "due to FATAL_SYSTEM_ERROR received:"
"""What NVFlare's log says before the reason of an aborted run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where one simulation keeps everything: ``<workspace>/run-001`` and so on."""

    root: Path

    @classmethod
    def create(cls, workspace: Path, *, engine: Engine) -> RunFolder:
        """The next free folder of a workspace; earlier runs stay.

        Raises:
            ConfigError: NVFlare's simulator cannot pass the path on.
        """
        workspace = workspace.expanduser().resolve()
        if engine == "nvflare" and is_split(workspace):
            message = f"NVFlare cannot simulate below a path with {SPLIT_AT}: {str(workspace)!r}"
            raise ConfigError(
                [Problem(Location("--workspace"), message, "Choose another one.", "workspace")]
            )
        workspace.mkdir(parents=True, exist_ok=True)
        taken = [
            int(path.name.removeprefix("run-"))
            for path in workspace.glob("run-*")
            if path.name.removeprefix("run-").isdigit()
        ]
        root = workspace / f"run-{max(taken, default=0) + 1:03d}"
        root.mkdir()
        return cls(root=root)

    @property
    def job(self) -> Path:
        """The job as it runs."""
        return self.root / "job"

    @property
    def flare(self) -> Path:
        """NVFlare's own workspace root."""
        return self.root / "nvflare"

    @property
    def results(self) -> Path:
        """Weights, JSON, CSV and the report."""
        return self.root / "results"

    @property
    def handover(self) -> Path:
        """Where the processes of NVFlare's simulator hand models over; gone with the run."""
        return self.root / "handover"

    @property
    def scratch(self) -> Path:
        """Home folder, caches and temporary files of the processes of a simulation."""
        return self.root / "scratch"

    @property
    def inline_plan(self) -> Path:
        """What the process of the inline engine is told."""
        return self.root / "inline.json"

    @property
    def log(self) -> Path:
        """What NVFlare prints."""
        return self.log_of("nvflare")

    def log_of(self, engine: Engine) -> Path:
        """What an engine prints."""
        return self.root / "logs" / f"{engine}.log"

    @property
    def policy(self) -> Path:
        """The policy of all simulated sites, as ``mmar evaluate --policy`` takes it."""
        return self.root / "sites" / SITE_POLICY_FILE

    def site(self, site: str) -> Path:
        """A site's folder; by the inline engine its run writes there too."""
        return self.root / "sites" / site

    def kit(self, job: str, site: str, engine: Engine) -> Path:
        """What a site of a simulated job has in place of a kit, as ``mmar site`` takes it."""
        return self.site(site) if engine == "inline" else self.flare / job / site

    def startup(self, job: str) -> Path:
        """Where an encrypted run has its keys: what it lies in is like the kit of a site."""
        return self.flare / job / "startup"

    def environment(self, site: str) -> Path:
        """The environment of one site, as ``mmar evaluate -e`` takes it."""
        return self.site(site) / "environment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """A simulation that has been checked and can start.

    Attributes:
        job: the job as given.
        rounds: rounds of training; 0 for a job that only validates.
        sites: site name -> the site's own values.
        notices: what the loader translates in the job's configs.
        engine: what runs it.
        min_sites: contributions that a round needs.
        workers: processes in which the inline engine's sites take turns.
        not_inline: what the inline engine does not know, where it was passed over for that.
        gpu: NVFlare's GPU assignment, or None.
        policy: of every site and of the server.
    """

    job: Job
    rounds: int
    sites: Mapping[str, Mapping[str, Scalar]]
    notices: tuple[Notice, ...]
    engine: Engine
    min_sites: int
    workers: int = 1
    not_inline: tuple[Problem, ...] = ()
    gpu: str | None = None
    policy: SitePolicy = DEFAULT_POLICY

    @property
    def encrypted(self) -> bool:
        """Whether sites send their updates encrypted."""
        return self.job.documents.federation.get("encrypt_layers") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a simulation left behind.

    Attributes:
        folder: where everything lies.
        record: the run record; None if no round began.
        matrix: models x sites; None if there is none.
        failure: why the run did not end as asked; None if it did.
        seconds: wall time from the start of the engine to its end.
    """

    folder: RunFolder
    record: RunRecord | None
    matrix: CrossSiteMatrix | None
    failure: str | None
    seconds: float


def plan_simulation(
    job: Job,
    *,
    sites: int,
    rounds: int | None = None,
    data: Path | None = None,
    environment: Path | None = None,
    overrides: Mapping[str, Scalar] | None = None,
    engine: Engine | None = None,
    min_sites: int | None = None,
    workers: int | None = None,
    gpu: str | None = None,
    policy: SitePolicy = DEFAULT_POLICY,
) -> SimulationPlan:
    """Check everything that can be checked before a federation starts.

    Each site's own configs are read with its own values, its data lists and files included.

    Args:
        job: the job to run.
        sites: how many; they are called ``site-1``, ``site-2``, ...
        rounds: None means as many as the job asks for; a job that only validates has none.
        data: folder with ``site-N/dataset.json`` for each site.
        environment: JSON with values for all sites and, under ``sites``, for single ones.
        overrides: values from ``--set``, for every site.
        engine: None means ``inline`` where that knows all that the job names, else ``nvflare``.
        min_sites: contributions that a round needs; None means one of every site.
        workers: processes in which the inline engine's sites take turns; None means one.
        gpu: NVFlare's GPU assignment.
        policy: what every site allows.

    Raises:
        ConfigError: with the problems of all sites.
    """
    if sites < 1 or (rounds is not None and rounds < 1):
        message = f"needs at least one site and one round, found {sites} and {rounds}"
        raise ConfigError([Problem(Location("simulate"), message, "", "sites")])
    if rounds is not None and not job.trains:
        message = "this job evaluates the models that it brings; it has no rounds"
        raise ConfigError([Problem(Location("--rounds"), message, "Leave it out.", "job")])
    if min_sites is not None and not 1 <= min_sites <= sites:
        message = f"needs from 1 to {sites} sites in each round, found {min_sites}"
        raise ConfigError([Problem(Location("simulate"), message, "", "sites")])
    if workers is not None and workers < 1:
        message = f"has to be a positive whole number, found {workers}"
        raise ConfigError([Problem(Location("--workers"), message, "", "workers")])
    names = [f"site-{number}" for number in range(1, sites + 1)]
    of_data = data_of_sites(data, names, Location("--data")) if data is not None else {}
    given = {
        name: {
            **_environment_values(environment, name),
            **of_data.get(name, {}),
            **(overrides or {}),
        }
        for name in names
    }
    asked = {
        "--gpu": gpu,
        "required_filters": policy.required_filters,
        "privacy.epsilon_max": policy.privacy.epsilon_max is not None,
        PROCESSES_VARIABLE: any(map(_has_several_processes, given.values())),
    }
    not_inline: tuple[Problem, ...] = ()
    if engine is None:
        engine, not_inline = _fitting_engine(job, asked)
    if engine == "inline":
        _require_inline(job, asked)
    elif workers is not None:
        message = "is for the inline engine; NVFlare's simulator has a process for each site"
        raise ConfigError([Problem(Location("--workers"), message, "", "workers")])
    values = with_threads(given)
    notices = _checked(job, values, policy)
    return SimulationPlan(
        job=job,
        rounds=rounds or job.rounds,
        sites=values,
        notices=notices,
        engine=engine,
        min_sites=sites if min_sites is None else min_sites,
        workers=workers or 1,
        not_inline=not_inline,
        gpu=gpu,
        policy=policy,
    )


def _fitting_engine(job: Job, asked: Mapping[str, object]) -> tuple[Engine, tuple[Problem, ...]]:
    """The engine for a job, and why it is not the inline one."""
    try:
        _require_inline(job, asked)
    except ConfigError as error:
        return "nvflare", tuple(error.problems)
    return "inline", ()


def _require_inline(job: Job, asked: Mapping[str, object]) -> None:
    """Raise unless the inline engine can do all that is asked for.

    Raises:
        ConfigError: with everything that it cannot do.
    """
    job_terms(job)
    problems = [
        Problem(Location(name), f"{name} needs NVFlare's simulator", ADVICE, "engine")
        for name, value in asked.items()
        if value
    ]
    if problems:
        raise ConfigError(problems)


def _has_several_processes(values: Mapping[str, Scalar]) -> bool:
    return values.get(PROCESSES_VARIABLE, 1) != 1


def with_threads(sites: Mapping[str, Mapping[str, Scalar]]) -> dict[str, dict[str, Scalar]]:
    """The sites' values with a share of this machine's threads for each of their processes.

    A site that says ``NUM_THREADS`` itself keeps its own.
    """
    return {
        name: {THREADS_VARIABLE: _share_of_threads(own, len(sites)), **own}
        for name, own in sites.items()
    }


def _share_of_threads(values: Mapping[str, Scalar], sites: int) -> int:
    count = values.get(PROCESSES_VARIABLE, 1)
    processes = count if type(count) is int and count > 0 else 1  # a fault is told with the others
    return max(1, (os.cpu_count() or 1) // (sites * processes))


def _environment_values(environment: Path | None, site: str) -> dict[str, Scalar]:
    if environment is None:
        return {}
    path = environment.expanduser().resolve()
    read_json(path)
    if path.name != "environment.json":
        message = f"has to be called environment.json, found {path.name!r}"
        raise ConfigError([Problem(Location(path.name), message, "", "environment")])
    return read_site_values(path.parent, site)


def data_of_sites(
    folder: Path, sites: Sequence[str], location: Location
) -> dict[str, dict[str, Scalar]]:
    """The values of sites whose data lie in ``folder/<site>``.

    Args:
        folder: of all data.
        sites: their names.
        location: where the folder was named.

    Raises:
        ConfigError: a site has no ``dataset.json`` there.
    """
    root = folder.expanduser().resolve()
    missing = [site for site in sites if not (root / site / "dataset.json").is_file()]
    if missing:
        message = f"there is no dataset.json for {', '.join(missing)} in {str(root)!r}"
        advice = f"{location} names a folder with site-1/dataset.json, site-2/dataset.json, ..."
        raise ConfigError([Problem(location, message, advice, "data-list")])
    return {
        site: {"DATA_ROOT": str(root / site), "DATASET_JSON": str(root / site / "dataset.json")}
        for site in sites
    }


def _checked(
    job: Job, sites: Mapping[str, Mapping[str, Scalar]], policy: SitePolicy
) -> tuple[Notice, ...]:
    """The notices of the first site; the problems of all of them are raised together."""
    notices: dict[str, Notice] = {}
    problems: list[Problem] = []
    for name, values in sites.items():
        site = Site(name=name, mmar=job.mmar, values=values, policy=policy)
        for check in (partial(_threads, values), partial(site.local_epochs, 1)):
            try:
                check()
            except ConfigError as error:
                problems += error.problems
        loads = (site.cross_validation_config,)
        for load in (site.train_config, *loads) if job.trains else loads:
            try:
                for notice in load().notices:
                    notices.setdefault(notice.rule, notice)
            except ConfigError as error:
                problems += error.problems
    problems += _document_faults(job, policy)
    if problems:
        raise ConfigError(problems)
    return tuple(notices.values())


def _document_faults(job: Job, policy: SitePolicy) -> Iterator[Problem]:
    """What a site refuses in the job's NVFlare documents, or cannot do on this machine."""
    yield from document_faults(job.mmar.root, policy)
    names_own = any(path not in ALLOWED_CLASSES for path in job.class_paths())
    if names_own and policy.byoc.mode == "by_hash":
        fault = approval_fault(job.mmar.custom, policy)
        if fault:
            message = f"is code that the sites' policy has not allowed: {fault}"
            yield Problem(Location("custom"), message, "See 'mmar site approve'.", "code")
    if job.documents.federation.get("encrypt_layers") is not None and not extra_is_installed():
        place = Location(CLIENT_CONFIG) / "task_result_filters"
        yield Problem(place, MISSING_EXTRA, "", "encryption")


def simulate(
    plan: SimulationPlan, folder: RunFolder, *, view: Callable[[SimulationView], object]
) -> SimulationResult:
    """Run a planned simulation to its end; whatever interrupts it, no process is left.

    Args:
        plan: what to run.
        folder: where; empty.
        view: shown how far the run is, several times a second.
    """
    _prepare(plan, folder)
    started = time.monotonic()
    follower = _follower(plan, folder)
    try:
        make_scratch(folder.scratch)
        if plan.engine == "nvflare":
            folder.handover.mkdir(mode=0o700)
        log = folder.log_of(plan.engine)
        environment = _process_env(plan, folder)
        with ProcessTree(_command(plan, folder), log=log, env=environment) as tree:
            code = _followed(tree, lambda: view(follower.look()))
    except BaseException:
        # By now no process is left; what there is so far is kept as a failed run.
        _collect(plan, folder, "interrupted")
        raise
    finally:
        shutil.rmtree(folder.handover, ignore_errors=True)
        remove_scratch(folder.scratch)
    failure = None if code == 0 else _failure_text(plan, folder, code)
    record, matrix = _collect(plan, folder, failure)
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
    """Show how far the run is until it has ended; its exit code."""
    # The report will need it, and this process has nothing else to do while the sites train.
    threading.Thread(target=import_drawing, name="import").start()
    show()
    while (code := tree.wait(SECONDS_BETWEEN_LOOKS)) is None:
        show()
    show()
    return code


def _follower(plan: SimulationPlan, folder: RunFolder) -> RunFollower:
    if plan.engine == "inline":
        return InlineFollower(folder.root, tuple(plan.sites), plan.rounds)
    return RunFollower(folder.flare / plan.job.name, tuple(plan.sites), plan.rounds)


def _prepare(plan: SimulationPlan, folder: RunFolder) -> None:
    job = plan.job.copied_to(folder.job, rounds=plan.rounds, min_sites=plan.min_sites)
    environment = read_json(plan.job.mmar.document("environment.json"))
    for site, values in plan.sites.items():
        folder.site(site).mkdir(parents=True)
        _write_json(folder.environment(site), {**environment, **values})
    _write_policy(folder.policy, plan.policy)
    if plan.engine == "inline":
        _prepare_inline(plan, folder, job)
    else:
        _prepare_nvflare(plan, folder)


def _prepare_inline(plan: SimulationPlan, folder: RunFolder, job: Job) -> None:
    """Make each site's folder like its kit, with a copy of the app, and tell the engine all.

    Handlers write into that copy.
    """
    inline = InlinePlan(
        job=folder.job,
        results=folder.results,
        sites=plan.sites,
        folders={site: folder.site(site) for site in plan.sites},
        policy=plan.policy,
        common=_common(plan.sites),
        workers=plan.workers,
    )
    for site, values in plan.sites.items():
        kit = folder.kit(job.name, site, plan.engine)
        (kit / "startup").mkdir()
        (kit / "local").mkdir(mode=0o700)
        _write_json(kit / "local" / "environment.json", dict(values))
        _write_policy(kit / "local" / SITE_POLICY_FILE, plan.policy)
        shutil.copytree(job.mmar.root, inline.app(site))
        shutil.copy(job.folder / META, kit / RUN)
    inline.write(folder.inline_plan)


def _prepare_nvflare(plan: SimulationPlan, folder: RunFolder) -> None:
    local = folder.flare / plan.job.name / "local"
    classes = {*ALLOWED_CLASSES, *plan.job.class_paths()}  # those of its own code were judged
    write_local(local, plan.sites, policy=plan.policy, classes=sorted(classes))
    if plan.encrypted:
        from fl_admin.kits.encryption_keys import write_simulation_keys  # brings NVFlare in

        write_simulation_keys(folder.startup(plan.job.name))


def write_local(
    local: Path,
    sites: Mapping[str, Mapping[str, Scalar]],
    *,
    policy: SitePolicy = DEFAULT_POLICY,
    classes: Sequence[str] = ALLOWED_CLASSES,
) -> None:
    """Write what all sites of NVFlare's simulator read in ``local/``: values, classes, policy.

    Args:
        local: the folder, in NVFlare's workspace of the job.
        sites: site name -> the site's own values.
        policy: of every site and of the server.
        classes: that a job may name.
    """
    documents = {
        "environment.json": {**_common(sites), "sites": sites},
        "resources.json": {"format_version": 2, "class_allow_list": list(classes)},
        SITE_POLICY_FILE: policy_document(policy),
    }
    local.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, document in documents.items():
        write_text_atomically(local / name, json.dumps(document, indent=2) + "\n", private=True)


def _write_policy(path: Path, policy: SitePolicy) -> None:
    text = json.dumps(policy_document(policy), indent=2) + "\n"
    write_text_atomically(path, text, private=True)


def _common(sites: Mapping[str, Mapping[str, Scalar]]) -> dict[str, Scalar]:
    """The values that all sites share: those are the server's too."""
    first, *others = sites.values()
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _command(plan: SimulationPlan, folder: RunFolder) -> list[str]:
    if plan.engine == "inline":
        return [
            sys.executable,
            "-P",
            "-m",
            "fl_admin.simulation.inline.process",
            str(folder.inline_plan),
        ]
    gpu = ["--gpu", plan.gpu] if plan.gpu else []
    return [
        sys.executable,
        "-P",
        "-m",
        "fl_admin.simulation.nvflare_process",
        str(folder.job),
        "--name",
        plan.job.name,
        "--sites",
        ",".join(plan.sites),
        "--workspace-root",
        str(folder.flare),
        *gpu,
    ]


def _threads(values: Mapping[str, Scalar]) -> int:
    """How many threads a site computes with.

    Raises:
        ConfigError: the value is no positive whole number.
    """
    threads = values[THREADS_VARIABLE]
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        message = f"has to be a positive whole number, found {threads!r}"
        raise ConfigError([Problem(Location(THREADS_VARIABLE), message, "", "type")])
    return threads


def _process_env(plan: SimulationPlan, folder: RunFolder) -> dict[str, str]:
    threads = min(_threads(values) for values in plan.sites.values())
    is_flare = plan.engine == "nvflare"
    memory = MEMORY_OF_NVFLARE if is_flare else {}
    handover = {HANDOVER: str(folder.handover)} if is_flare else {}
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    if plan.policy.confinement == "off":
        return {**memory, **os.environ, **own, **handover}
    clean = job_environment(os.environ, folder.scratch, egress=plan.policy.egress)
    return {**memory, **clean, **own, **handover}


def _collect(
    plan: SimulationPlan, folder: RunFolder, failure: str | None
) -> tuple[RunRecord | None, CrossSiteMatrix | None]:
    """Bring the server's results into the run folder and write the report."""
    source = folder.flare / plan.job.name / "server" / "simulate_job" / "results"
    if source.is_dir():
        shutil.copytree(source, folder.results, dirs_exist_ok=True)
    record_file = folder.results / "run_record.json"
    if not record_file.is_file():
        return None, None
    record = read_run_record(record_file)
    if record.status == "running":
        record = finish_run(record, "failed", failure or "the run ended early", datetime.now(UTC))
        write_run_record(record_file, record)
    matrix_file = folder.results / "cross_site.json"
    matrix = read_cross_site_matrix(matrix_file) if matrix_file.is_file() else None
    write_report(folder.results / "report.html", record, matrix)
    return record, matrix


def _failure_text(plan: SimulationPlan, folder: RunFolder, code: int) -> str:
    """What the sites wrote about their errors; the logs where there is nothing."""
    if plan.engine == "inline":
        errors = sorted((folder.root / "sites").glob("*/error-*.txt"))
        texts = [f"{path.parent.name}: {_first_paragraph(path)}" for path in errors]
        error = folder.inline_plan.with_name(ERROR_FILE)
        texts += [_first_paragraph(error)] if error.is_file() else []
        texts = texts or _recorded_failure(folder)
        log = folder.log_of("inline")
        return "; ".join(dict.fromkeys(texts)) or f"the run ended with code {code}; see {log}"
    errors = sorted((folder.flare / plan.job.name).glob("*/simulate_job/error-*.txt"))
    texts = [f"{path.parts[-3]}: {_first_paragraph(path)}" for path in errors]
    texts += _fatal_errors(folder)
    return "; ".join(dict.fromkeys(texts)) or f"NVFlare ended with code {code}; see {folder.log}"


def _recorded_failure(folder: RunFolder) -> list[str]:
    path = folder.results / "run_record.json"
    record = read_run_record(path) if path.is_file() else None
    return [record.failure] if record is not None and record.failure else []


def _first_paragraph(path: Path) -> str:
    """The message of an error file, on one line; the traceback is in the paragraph below."""
    return " ".join(path.read_text().partition("\n\n")[0].split())


def _fatal_errors(folder: RunFolder) -> list[str]:
    """The reasons for which NVFlare ended the run, from its log."""
    lines = folder.log.read_text(errors="replace").splitlines()
    return [line.partition(FATAL)[2].strip() for line in lines if FATAL in line]
