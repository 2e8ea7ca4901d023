"""A federation on one machine: prepare, run NVFlare's SimEnv beside us, follow, collect."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fl_admin.follow import RunFollower, SimulationView
from fl_admin.job import CLIENT_CONFIG, SERVER_CONFIG, Job
from fl_admin.processes import ProcessTree
from fl_admin.report.html import write_report
from fl_client.encryption import encryption_faults, job_layers
from fl_client.job_check import ALLOWED_CLASSES
from fl_client.site import PROCESSES_VARIABLE, Site
from fl_server.cross_site import CrossSiteMatrix, read_cross_site_matrix
from fl_server.run_record import RunRecord, finish_run, read_run_record, write_run_record
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_json, read_site_values
from mmar_runtime.config.upgrades import Notice
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.he_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.policy.custom_check import own_class_fault, undefined_fault
from mmar_runtime.policy.mmar_check import approval_fault
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    SITE_POLICY_FILE,
    SitePolicy,
    policy_document,
)

SECONDS_BETWEEN_LOOKS = 0.2
THREADS_VARIABLE = "NUM_THREADS"
FATAL = "due to FATAL_SYSTEM_ERROR received:"
"""What NVFlare's log says before the reason of an aborted run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where one simulation keeps everything: ``<workspace>/run-001`` and so on."""

    root: Path

    @classmethod
    def create(cls, workspace: Path) -> RunFolder:
        """The next free folder of a workspace; earlier runs stay.

        Raises:
            ConfigError: the path has a space, which NVFlare's simulator cannot pass on.
        """
        workspace = workspace.expanduser().resolve()
        if any(character.isspace() for character in str(workspace)):
            message = f"NVFlare cannot simulate below a path with spaces: {str(workspace)!r}"
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
    def log(self) -> Path:
        """What NVFlare prints."""
        return self.root / "logs" / "nvflare.log"

    @property
    def policy(self) -> Path:
        """The policy of all simulated sites, as ``mmar evaluate --policy`` takes it."""
        return self.root / "sites" / SITE_POLICY_FILE

    def kit(self, job: str, site: str) -> Path:
        """What a site of a simulated job has in place of a kit, as ``mmar site`` takes it."""
        return self.flare / job / site

    def startup(self, job: str) -> Path:
        """Where an encrypted run has its keys: what it lies in is like the kit of a site."""
        return self.flare / job / "startup"

    def environment(self, site: str) -> Path:
        """The environment of one site, as ``mmar evaluate -e`` takes it."""
        return self.root / "sites" / site / "environment.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """A simulation that has been checked and can start.

    Attributes:
        job: the job as given.
        rounds: rounds of training; 0 for a job that only validates.
        sites: site name -> the site's own values.
        notices: what the loader translates in the job's configs.
        gpu: NVFlare's GPU assignment, or None.
        policy: of every site and of the server.
    """

    job: Job
    rounds: int
    sites: Mapping[str, Mapping[str, Scalar]]
    notices: tuple[Notice, ...]
    gpu: str | None = None
    policy: SitePolicy = DEFAULT_POLICY

    @property
    def encrypted(self) -> bool:
        """Whether sites send their updates encrypted."""
        return job_layers(self.job.mmar.root) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a simulation left behind.

    Attributes:
        folder: where everything lies.
        record: the run record; None if no round began.
        matrix: models x sites; None if there is none.
        failure: why the run did not end as asked; None if it did.
        seconds: wall time from the start of NVFlare to its end.
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
    names = [f"site-{number}" for number in range(1, sites + 1)]
    given = {
        name: {
            **_environment_values(environment, name),
            **_data_values(data, name),
            **(overrides or {}),
        }
        for name in names
    }
    values = {name: {**_share_of_threads(own, sites), **own} for name, own in given.items()}
    notices = _checked(job, values, policy)
    return SimulationPlan(
        job=job,
        rounds=rounds or job.rounds,
        sites=values,
        notices=notices,
        gpu=gpu,
        policy=policy,
    )


def _share_of_threads(values: Mapping[str, Scalar], sites: int) -> dict[str, Scalar]:
    """The threads of each process of a site, where all sites share this machine."""
    count = values.get(PROCESSES_VARIABLE, 1)
    processes = count if type(count) is int and count > 0 else 1  # a fault is told with the others
    return {THREADS_VARIABLE: max(1, (os.cpu_count() or 1) // (sites * processes))}


def _environment_values(environment: Path | None, site: str) -> dict[str, Scalar]:
    if environment is None:
        return {}
    path = environment.expanduser().resolve()
    read_json(path)
    if path.name != "environment.json":
        message = f"has to be called environment.json, found {path.name!r}"
        raise ConfigError([Problem(Location(path.name), message, "", "environment")])
    return read_site_values(path.parent, site)


def _data_values(data: Path | None, site: str) -> dict[str, Scalar]:
    if data is None:
        return {}
    root = data.expanduser().resolve() / site
    if not (root / "dataset.json").is_file():
        message = f"there is no {str(root / 'dataset.json')!r}"
        advice = "--data names a folder with site-1/dataset.json, site-2/dataset.json, ..."
        raise ConfigError([Problem(Location("--data"), message, advice, "data-list")])
    return {"DATA_ROOT": str(root), "DATASET_JSON": str(root / "dataset.json")}


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
    problems += [*_not_allowed(job, policy), *_encryption_faults(job)]
    if problems:
        raise ConfigError(problems)
    return tuple(notices.values())


def _not_allowed(job: Job, policy: SitePolicy) -> list[Problem]:
    return [
        Problem(
            Location("config_fed_*.json"),
            f"{path!r} is not among the classes that a simulated site allows",
            "Only the components of mmar-fl and NVFlare's own workflow may be named here, and own "
            "classes of custom/ where the sites' policy allows code.",
            "class",
        )
        for path in job.class_paths()
        if path not in (*ALLOWED_CLASSES, *_own_classes(job, policy))
    ]


def _own_classes(job: Job, policy: SitePolicy) -> tuple[str, ...]:
    """Classes of the job's own code that its NVFlare configs name, where the policy allows them."""
    custom, mode = job.mmar.custom, policy.byoc.mode
    if mode == "off" or (mode == "by_hash" and approval_fault(custom, policy)):
        return ()
    own = [path for path in job.class_paths() if not undefined_fault(path, custom)]
    return tuple(path for path in own if not own_class_fault(path, custom))


def _encryption_faults(job: Job) -> Iterator[Problem]:
    """What keeps a job from being encrypted as it asks."""
    server, client = (read_json(job.mmar.document(one)) for one in (SERVER_CONFIG, CLIENT_CONFIG))
    yield from encryption_faults(server, client, (SERVER_CONFIG, CLIENT_CONFIG))
    if job_layers(job.mmar.root) is not None and not extra_is_installed():
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
    follower = RunFollower(folder.flare / plan.job.name, tuple(plan.sites), plan.rounds)
    try:
        with ProcessTree(_command(plan, folder), log=folder.log, env=_process_env(plan)) as tree:
            while (code := tree.look()) is None:
                view(follower.look())
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except BaseException:
        # By now no process is left; what there is so far is kept as a failed run.
        _collect(plan, folder, "interrupted")
        raise
    view(follower.look())
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


def _prepare(plan: SimulationPlan, folder: RunFolder) -> None:
    plan.job.copied_to(folder.job, rounds=plan.rounds, min_sites=len(plan.sites))
    local = folder.flare / plan.job.name / "local"
    local.mkdir(parents=True)
    _write_json(local / "environment.json", {**_common(plan.sites), "sites": plan.sites})
    allowed = [*ALLOWED_CLASSES, *_own_classes(plan.job, plan.policy)]
    resources = {"format_version": 2, "class_allow_list": allowed}
    _write_json(local / "resources.json", resources)
    if plan.encrypted:
        from fl_admin.encryption_keys import write_simulation_keys  # brings NVFlare in

        write_simulation_keys(folder.startup(plan.job.name))
    for place in (local / SITE_POLICY_FILE, folder.policy):
        place.parent.mkdir(exist_ok=True)
        _write_json(place, policy_document(plan.policy))
        place.chmod(0o600)
    for site, values in plan.sites.items():
        path = folder.environment(site)
        path.parent.mkdir(parents=True)
        environment = read_json(plan.job.mmar.document("environment.json"))
        _write_json(path, {**environment, **values})


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
    gpu = ["--gpu", plan.gpu] if plan.gpu else []
    return [
        sys.executable,
        "-m",
        "fl_admin.simulation_process",
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


def _process_env(plan: SimulationPlan) -> dict[str, str]:
    threads = min(_threads(values) for values in plan.sites.values())
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


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
    errors = sorted((folder.flare / plan.job.name).glob("*/simulate_job/error-*.txt"))
    texts = [f"{path.parts[-3]}: {_first_paragraph(path)}" for path in errors]
    texts += _fatal_errors(folder)
    return "; ".join(dict.fromkeys(texts)) or f"NVFlare ended with code {code}; see {folder.log}"


def _first_paragraph(path: Path) -> str:
    """The message of an error file, on one line; the traceback is in the paragraph below."""
    return " ".join(path.read_text().partition("\n\n")[0].split())


def _fatal_errors(folder: RunFolder) -> list[str]:
    """The reasons for which NVFlare ended the run, from its log."""
    lines = folder.log.read_text(errors="replace").splitlines()
    return [line.partition(FATAL)[2].strip() for line in lines if FATAL in line]
