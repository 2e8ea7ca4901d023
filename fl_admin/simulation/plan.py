"""Plans a simulation: all that can be checked before a federation starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fl_admin.jobs.job import Job
from fl_admin.simulation.engine import Engine, EngineName, SimulationPlan
from fl_admin.simulation.inline_engine import ADVICE, InlineEngine, inline_terms
from fl_admin.simulation.nvflare_engine import NvflareEngine
from fl_admin.simulation.site_values import (
    Values,
    data_of_sites,
    environment_values,
    sites_with_data,
    threads_of,
    with_threads,
)
from fl_client.jobs.documents import document_faults
from fl_client.jobs.files import code_approval_faults, files_of, missing_documents
from fl_client.site import LOCAL_EPOCHS, PROCESSES_VARIABLE, Site
from fl_client.site_data import WORKFLOWS
from mmar_runtime.config.loader import CROSS_VALIDATION_FILE, unused_values
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_json
from mmar_runtime.config.upgrades import Notice
from mmar_runtime.errors import ConfigError, Problem, UnfitDataError
from mmar_runtime.exchange.encryption_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, FACTORS_PLACE
from mmar_runtime.exchange.weighing import factor_problems
from mmar_runtime.policy.fit_check import fit_notices
from mmar_runtime.policy.path_check import DATA_VARIABLES
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationRequest:
    """The simulation that a researcher asks for.

    Attributes:
        job: the job to run.
        sites: how many; they are called ``site-1``, ``site-2``, ...
        rounds: None means as many as the job asks for; a job that only validates has none.
        data: folder with ``site-N/dataset.json`` for each site.
        environment: JSON with values for all sites and, under ``sites``, for single sites.
        overrides: values from ``--set``, for every site.
        engine: None means ``inline`` if that engine knows all that the job names, else ``nvflare``.
        min_sites: updates that a round needs; None means an update of every site.
        workers: processes in which the inline engine's sites take turns; None means a single one.
        gpu: NVFlare's GPU assignment.
        policy: what every site allows.
    """

    job: Job
    sites: int
    rounds: int | None = None
    data: Path | None = None
    environment: Path | None = None
    overrides: Mapping[str, Scalar] = field(default_factory=dict)
    engine: EngineName | None = None
    min_sites: int | None = None
    workers: int | None = None
    gpu: str | None = None
    policy: SitePolicy = DEFAULT_POLICY


def plan_simulation(request: SimulationRequest) -> SimulationPlan:
    """Check everything that can be checked before a federation starts.

    Each site's own configs are read with its own values, its data lists and files included.

    Raises:
        ConfigError: with the problems of all sites.
    """
    fault = _number_fault(request)
    if fault is not None:
        raise ConfigError([fault])
    names = [f"site-{number}" for number in range(1, request.sites + 1)]
    data: Mapping[str, Values] = {}
    if request.data is None and request.environment is None:
        missing = [name for name in DATA_VARIABLES if not request.overrides.get(name)]
        if missing:
            message = f"no site has data: {' and '.join(missing)} are not set"
            advice = "Name a folder with site-1/dataset.json, site-2/dataset.json, ..."
            raise ConfigError([Problem(Location("--data"), message, advice, "data-list")])
    if request.data is not None:
        data = data_of_sites(request.data, names, Location("--data"))
    # Data win over the environment, and ``--set`` over both.
    given = {
        name: {
            **(environment_values(request.environment, name) if request.environment else {}),
            **data.get(name, {}),
            **request.overrides,
        }
        for name in names
    }
    engine, not_inline = _engine(request, given)
    sites = with_threads(given)
    return SimulationPlan(
        job=request.job,
        rounds=request.rounds or request.job.rounds,
        sites=sites,
        notices=(*_left_out(request, sites), *_checked(request, sites)),
        engine=engine,
        min_sites=request.sites if request.min_sites is None else request.min_sites,
        policy=request.policy,
        not_inline=not_inline,
    )


def _number_fault(request: SimulationRequest) -> Problem | None:
    """Return the first number of a request that makes no sense."""
    sites, rounds = request.sites, request.rounds
    for option, count in (("--sites", sites), ("--rounds", rounds), ("--workers", request.workers)):
        if count is not None and count < 1:
            message = f"has to be a positive whole number, found {count}"
            return Problem(Location(option), message, "", option.removeprefix("--"))
    if rounds is not None and not request.job.trains:
        message = "this job evaluates the models that it brings; it has no rounds"
        return Problem(Location("--rounds"), message, "Leave it out.", "job")
    if request.min_sites is not None and not 1 <= request.min_sites <= sites:
        message = f"has to be from 1 to --sites, {sites}; found {request.min_sites}"
        return Problem(Location("--min-sites"), message, "", "sites")
    return None


def _left_out(request: SimulationRequest, sites: Mapping[str, Values]) -> Iterator[Notice]:
    """Yield in what the simulation is less than the job and the data at hand."""
    there = [] if request.data is None else sites_with_data(request.data)
    if request.environment is not None:
        there += read_json(request.environment).get("sites", {})
    if rest := sorted(set(there) - sites.keys()):
        message = f"of the sites at hand, {', '.join(rest)} take no part"
        yield Notice(rule="sites", message=message, places=(Location("--sites"),))
    least = read_json(request.job.folder / "meta.json").get("min_clients")
    if request.min_sites is None and isinstance(least, int) and least > request.sites:
        message = f"the job needs {least} sites (min_clients), and this run has {request.sites}"
        yield Notice(rule="min-sites", message=message, places=(Location("--sites"),))


def _unused(request: SimulationRequest) -> Iterator[Problem]:
    """Yield the values of ``--set`` that neither the job nor its sites use."""
    mmar = request.job.mmar
    values = {n: value for n, value in request.overrides.items() if n != LOCAL_EPOCHS}
    configs = []
    for file, load in WORKFLOWS:
        if mmar.document(file).is_file():
            with suppress(ConfigError):  # which is told for each site
                configs.append(load(mmar, file=file, overrides=values))
    yield from unused_values(configs)


def _engine(
    request: SimulationRequest, sites: Mapping[str, Values]
) -> tuple[Engine, tuple[Problem, ...]]:
    """Return the engine for a request, and why it is not the inline engine that nobody refused."""
    not_inline: tuple[Problem, ...] = ()
    if request.engine != "nvflare":
        try:
            _require_inline(request, sites)
            return InlineEngine(workers=request.workers or 1), ()
        except ConfigError as error:
            if request.engine == "inline":
                raise
            not_inline = tuple(error.problems)
    if request.workers is not None:
        message = "is for the inline engine; NVFlare's simulator has a process for each site"
        raise ConfigError([Problem(Location("--workers"), message, "", "workers")])
    return NvflareEngine(gpu=request.gpu), not_inline


def _require_inline(request: SimulationRequest, sites: Mapping[str, Values]) -> None:
    """Raise with everything in a request that the inline engine cannot do."""
    inline_terms(request.job)
    needs = {
        "--gpu": request.gpu,
        "required_filters": request.policy.required_filters,
        "privacy.epsilon_max": request.policy.privacy.epsilon_max is not None,
        PROCESSES_VARIABLE: any(own.get(PROCESSES_VARIABLE, 1) != 1 for own in sites.values()),
    }
    problems = [
        Problem(Location(name), f"{name} needs NVFlare's simulator", ADVICE, "engine")
        for name, value in needs.items()
        if value
    ]
    if problems:
        raise ConfigError(problems)


def _checked(request: SimulationRequest, sites: Mapping[str, Values]) -> tuple[Notice, ...]:
    """Return the notices of the loader, each rule once; raise the problems of all sites."""
    job = request.job
    notices: dict[str, Notice] = {}
    problems = [*_unused(request), *missing_documents(job.mmar.root)]
    evaluates = job.mmar.document(CROSS_VALIDATION_FILE).is_file()
    for name, values in sites.items():
        site = Site(name=name, mmar=job.mmar, values=values, policy=request.policy)
        for check in (partial(threads_of, values), partial(site.local_epochs, 1)):
            try:
                check()
            except ConfigError as error:
                problems += error.problems
        loads = (site.cross_validation_config,) if evaluates else ()
        for load in (site.train_config, *loads) if job.trains else loads:
            try:
                config = load()
                for notice in (*config.notices, *fit_notices(config)):
                    # Of the MMAR a notice is the same for all sites; of the data it is a site's.
                    if notice.rule == "data":
                        notice = _notice_at(notice, site)
                        notices.setdefault(str(notice), notice)
                    else:
                        notices.setdefault(notice.rule, notice)
            except (ConfigError, UnfitDataError) as error:
                problems += [_at_site(problem, site) for problem in error.problems]
    factors = job.documents.federation.get("aggregation_weights") or {}
    problems += [*_job_faults(job, request.policy)] or factor_problems(
        factors, FACTORS_PLACE, sites=sites
    )
    if problems:
        raise ConfigError(problems)
    return tuple(notices.values())


def _at_site(problem: Problem, site: Site) -> Problem:
    """Return a problem of a site's data with the site and the path of its list in its place."""
    file = str(site.values.get("DATASET_JSON", ""))
    if problem.location.file == Path(file).name:
        return replace(problem, location=_of_site(problem.location, site))
    # A crop that is too large for a volume is at fault in the job, and names the volume.
    message = problem.message.replace(f"{Path(file).name}: ", f"{site.name}: {file}: ")
    return replace(problem, message=message)


def _notice_at(notice: Notice, site: Site) -> Notice:
    return replace(notice, places=tuple(_of_site(place, site) for place in notice.places))


def _of_site(place: Location, site: Site) -> Location:
    return replace(place, file=f"{site.name}: {site.values.get('DATASET_JSON', '')}")


def _job_faults(job: Job, policy: SitePolicy) -> Iterator[Problem]:
    """Report what a site refuses in a job besides its workflows, or cannot do on this machine."""
    app = job.mmar.root
    yield from document_faults(app, policy)
    if policy.byoc.mode == "by_hash":
        yield from code_approval_faults(app, files_of(app), policy)
    if job.encrypts and not extra_is_installed():
        place = Location(CLIENT_CONFIG) / "task_result_filters"
        yield Problem(place, MISSING_EXTRA, "", "encryption")
