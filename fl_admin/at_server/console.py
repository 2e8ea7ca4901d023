"""Jobs at a server: submitted, listed, followed, aborted and fetched through NVFlare's Session API.

``Console`` is one connection of an admin kit. What NVFlare says is turned into values of ours, and
what it raises into errors that say what to do.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from nvflare.apis.job_def import JobMetaKey, RunStatus
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    InvalidJobDefinition,
    JobNotDone,
    JobNotFound,
    JobNotRunning,
    NoConnection,
    NoReply,
    SessionClosed,
    SessionExpired,
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from fl_admin.jobs.job import Job
from fl_admin.kits.setup.certificates import check_certificate
from fl_admin.kits.setup.connection import check_connection
from fl_admin.kits.setup.finding import Finding, State
from fl_admin.kits.setup.kit import CONFIGS, Kit, open_kit
from fl_server.record.values import RunRecord
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, Problem
from mmar_runtime.flare.wire import RECORD_TOPIC
from mmar_runtime.names import shown
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES

CONNECT_SECONDS = 15.0
SECONDS_BETWEEN_LOOKS = 2.0
LOOKS_FOR_ANSWERS = 3
"""How often the answers of the sites are looked for: NVFlare stores them after the job's status."""

SECONDS_TO_START = 300.0
"""How long whoever waits for a job waits for the sites that it lacks."""

SECONDS_TO_RETURN = 120.0
"""How long whoever waits for a job waits for a server that does not answer."""

SECONDS_TO_BE_SURE = 30.0
"""How long a job may seem to run that the server does not have among its running ones."""

FINISHED = "FINISHED:"
DEPLOYED = "OK"
SCHEDULED = "scheduled"
NVFLARE_ERROR = "NVFLARE_ERROR: "
GONE = (NoConnection, NoReply, SessionClosed, SessionExpired)
"""What NVFlare raises if the server does not answer any more."""

EXPLANATIONS: Mapping[type[Exception], str] = {
    InvalidJobDefinition: "the server does not take {what}: {error}",
    JobNotFound: "the server has no job {what!r}\n    'mmar jobs' lists those that it has.",
    JobNotDone: "{what} is still running\n    'mmar watch' waits for it, 'mmar abort' ends it.",
    JobNotRunning: "{what} does not run",
    AuthenticationError: "the server does not allow that: {error}",
    AuthorizationError: "the server does not allow that: {error}",
    **dict.fromkeys(GONE, "the connection to the server is gone: {error}"),
    InternalError: "the server answered with an error: {error}",
    RuntimeError: "the server answered with an error: {error}",
}
"""What NVFlare raises -> what it says to the person at the console."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job at the server.

    Attributes:
        job_id: NVFlare's id.
        name: the job's name.
        status: NVFlare's word, such as ``RUNNING`` or ``FINISHED:COMPLETED``.
        submitter: who submitted it.
        submitted: when, as NVFlare writes it.
        duration: how long it ran, as NVFlare writes it.
        deployment: site -> what it said when the job was sent to it.
        schedule: why the server did not start it yet, latest last.
    """

    job_id: str
    name: str
    status: str
    submitter: str
    submitted: str
    duration: str
    deployment: dict[str, str]
    schedule: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status.startswith(FINISHED)

    @property
    def completed(self) -> bool:
        """Whether it ended as was asked."""
        return bool(self.status == RunStatus.FINISHED_COMPLETED.value)

    @property
    def waits_for_sites(self) -> bool:
        """Whether the server has tried to start it, and lacked something."""
        return bool(self.status == RunStatus.SUBMITTED.value and self.schedule)

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why the server did not start it, without the times at which it tried."""
        tries = [line.partition(": ")[2] for line in self.schedule]
        return tuple(reason for reason in dict.fromkeys(tries) if reason != SCHEDULED)

    @property
    def refusals(self) -> tuple[str, ...]:
        """What sites said that did not take the job, each with the site's name."""
        return tuple(
            f"{site}: {answer}" for site, answer in self.deployment.items() if answer != DEPLOYED
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the state for ``--json``."""
        state = asdict(self)
        return {"id": state.pop("job_id"), **state}


Watch = Callable[[JobState, RunRecord | None], object]
"""Told of a job's state, and of its record as far as it is known."""


class Console:
    """A connection to a server, as the admin of a kit."""

    def __init__(self, session: Session, log_in: Callable[[], Session] | None = None) -> None:
        self._session = session
        self._log_in = log_in

    @classmethod
    def connect(cls, folder: Path, *, seconds: float = CONNECT_SECONDS) -> Self:
        """Log in with an admin's start-up kit.

        Raises:
            ConfigError: the folder is not an admin's kit.
            FederationError: the server cannot be reached, or does not accept the kit.
        """
        log_in = partial(_logged_in, admin_kit(folder), seconds)
        return cls(log_in(), log_in)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # NVFlare's threads keep the process alive until the session is closed.
        self._session.close()

    def submit(self, job: Job) -> str:
        """Sign and send a job; returns its id.

        NVFlare signs a folder by writing into it, and takes no blank in its name: it gets a copy.

        Raises:
            FederationError: the server does not take it.
        """
        with tempfile.TemporaryDirectory(prefix="mmar-submit-") as folder, _explained(job.name):
            copy = Path(folder) / re.sub(r"[^A-Za-z0-9._-]", "_", job.folder.name)
            shutil.copytree(job.folder, copy, ignore=shutil.ignore_patterns(*SIGNATURE_FILES))
            return str(self._session.submit_job(str(copy)))

    def sites(self) -> tuple[str, ...]:
        """Return the sites that the server has now, by name."""
        with _explained("the list of sites"):
            clients = self._session.get_system_info().client_info
        return tuple(sorted(str(site.name) for site in clients))

    def jobs(self) -> tuple[JobState, ...]:
        """Return all jobs of the server, in the order of submission."""
        with _explained("the list of jobs"):
            jobs = self._session.list_jobs(detailed=True)
        return tuple(sorted(map(_state, jobs), key=lambda job: job.submitted))

    def job(self, job_id: str) -> JobState:
        """Return the state of a job.

        Raises:
            FederationError: there is none with this id.
        """
        with _explained(job_id):
            return _state(self._session.get_job_meta(job_id))

    def record(self, job_id: str) -> RunRecord | None:
        """Return the record of a running job so far; None where it has none to show yet."""
        try:
            answer = self._session.do_app_command(job_id, RECORD_TOPIC, {})
        except (*GONE, JobNotRunning, InternalError, RuntimeError, AuthorizationError):
            # It starts, or has just ended; or this admin may not ask a running job. A server that
            # does not answer is found out by the next question.
            return None
        return RunRecord.from_dict(answer) if answer else None

    def abort(self, job_id: str) -> None:
        """Stop a job.

        Raises:
            FederationError: there is none, or it is over.
        """
        state = self.job(job_id)
        if state.finished:
            raise FederationError(f"{state.name} ({job_id}) is over already: {state.status}")
        with _explained(job_id):
            self._session.abort_job(job_id)

    def download(self, job_id: str, folder: Path) -> Path:
        """Fetch a finished job into ``folder/<id>``; returns that folder.

        Raises:
            FederationError: it is not done yet, or there is none.
            ConfigError: the folder is there already.
        """
        target = folder.expanduser().resolve() / job_id
        if target.exists():
            message = f"{str(target)!r} is there already"
            advice = "Name another folder with --out, or remove it."
            raise ConfigError([Problem(Location("--out"), message, advice, "folder")])
        with _explained(job_id), redirect_stdout(sys.stderr):
            location = Path(self._session.download_job_result(job_id))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(location, target)
        return target

    def follow(
        self, job_id: str, watch: Watch, *, start_within: float = SECONDS_TO_START
    ) -> JobState:
        """Tell of a job until it is finished; returns its last state.

        Args:
            job_id: NVFlare's id.
            watch: told of the job again and again.
            start_within: seconds that the job may lack sites before it starts. Jobs that run before
                it do not count.

        Raises:
            FederationError: there is no such job; it lacks sites for too long; the server does not
                answer any more, or has forgotten that it runs.
        """
        record: RunRecord | None = None
        lacking, lost = _Clock(), _Clock()
        while not (state := self._patiently(job_id)).finished:
            running = state.status == RunStatus.RUNNING.value
            news = self.record(job_id) if running else None
            record = news or record
            watch(state, record)
            if lacking.since(state.waits_for_sites) > start_within:
                raise FederationError(
                    f"{state.name} has not started within {start_within:.0f} s: "
                    f"{state.obstacles[-1]}\n"
                    "    The server goes on trying, in growing intervals for about 40 minutes: "
                    f"'mmar watch {job_id}' waits again, 'mmar abort {job_id}' takes it back."
                )
            if lost.since(running and news is None and not self._runs(job_id)) > (
                SECONDS_TO_BE_SURE
            ):
                raise FederationError(
                    f"the server says that {state.name} is running, and runs it no more: it was "
                    f"started anew meanwhile\n    'mmar abort {job_id}' clears that; then submit "
                    "the job again."
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
        for _ in range(LOOKS_FOR_ANSWERS):
            if state.deployment or state.status != RunStatus.FAILED_TO_RUN.value:
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
            state = self._patiently(job_id)
        watch(state, record)
        return state

    def _runs(self, job_id: str) -> bool:
        """Return whether the server has a job among its running ones."""
        try:
            running = self._session.get_system_info().job_info
        except (*GONE, InternalError, RuntimeError):
            return True  # which the next look at the job will tell
        return job_id in {str(job.job_id) for job in running}

    def _patiently(self, job_id: str) -> JobState:
        """Return a job's state; a server that does not answer for a while is asked again."""
        deadline = time.monotonic() + SECONDS_TO_RETURN
        while True:
            try:
                return self.job(job_id)
            except FederationError as error:
                if not isinstance(error.__cause__, GONE) or self._log_in is None:
                    raise
                if time.monotonic() > deadline:
                    raise FederationError(
                        f"{error}\n    The job may go on: 'mmar watch {job_id}' looks again."
                    ) from error
                log.warning("the server does not answer; trying again")
            time.sleep(SECONDS_BETWEEN_LOOKS)
            with suppress(FederationError):
                session, self._session = self._session, self._log_in()
                session.close()


class _Clock:
    """How long something has been true without a break."""

    def __init__(self) -> None:
        self._start: float | None = None

    def since(self, holds: bool) -> float:
        """Seconds since it holds; 0 if it does not."""
        now = time.monotonic()
        if not holds:
            self._start = None
        elif self._start is None:
            self._start = now
        return 0.0 if self._start is None else now - self._start


def admin_kit(folder: Path) -> Kit:
    """Return the kit of an admin.

    Raises:
        ConfigError: the folder is none.
    """
    kit = open_kit(folder)
    if kit.kind == "admin":
        return kit
    others = sorted(kit.folder.parent.glob(f"*/startup/{CONFIGS['admin']}"))
    advice = "Jobs are sent and looked after with the kit of an admin"
    advice += f", such as {str(others[-1].parents[1])!r}." if others else "; see 'mmar provision'."
    message = f"is the kit of the {kit.kind} {kit.name}, and no admin's"
    raise ConfigError([Problem(Location("--kit"), message, advice, "kit")])


def _logged_in(kit: Kit, seconds: float) -> Session:
    """Return a session with the server; what would keep NVFlare from one is found out beforehand.

    Raises:
        FederationError: the certificate, the connection or the server stands in the way.
    """

    def findings() -> Iterator[Finding]:
        # What else is found there, such as a key that others can read, 'mmar site setup' reports.
        yield from (found for found in check_certificate(kit) if found.check == "certificate")
        yield check_connection(kit, seconds)

    for finding in findings():
        if finding.state is State.FAULT:
            raise FederationError(
                f"no connection to {kit.address} as {kit.name}: {finding.check}: "
                f"{finding.message}\n    What to do: {finding.advice}"
            )
        if finding.state is State.WARNING:
            log.warning("%s: %s; %s", finding.check, finding.message, finding.advice)
    try:
        with redirect_stdout(sys.stderr):  # NVFlare says there that it connects
            return new_secure_session(kit.name, str(kit.folder), timeout=seconds)
    except NoConnection as error:
        raise FederationError(
            f"no connection to {kit.address} within {seconds:.0f} s: {error}\n"
            "    What listens there takes the kit's certificate, and does not answer as NVFlare's "
            "server does. Is it still starting?"
        ) from error
    except (AuthenticationError, AuthorizationError) as error:
        raise FederationError(
            f"{kit.address} does not accept {kit.name}: {error}\n"
            "    A kit is good for the federation that it was provisioned for."
        ) from error


def _state(meta: Any) -> JobState:
    detail = map(_text_of, meta.get(JobMetaKey.JOB_DEPLOY_DETAIL.value) or ())
    # ``site-1: OK``; a line without a site only adds up the others.
    answers = [line.partition(": ") for line in detail if ": " in line]
    return JobState(
        job_id=_text_of(meta.get(JobMetaKey.JOB_ID.value, "")),
        name=_text_of(meta.get(JobMetaKey.JOB_NAME.value, "")),
        status=_text_of(meta.get(JobMetaKey.STATUS.value, "")),
        submitter=_text_of(meta.get(JobMetaKey.SUBMITTER_NAME.value, "")),
        submitted=_text_of(meta.get(JobMetaKey.SUBMIT_TIME_ISO.value, "")),
        duration=_text_of(meta.get(JobMetaKey.DURATION.value, "")),
        deployment={site: answer.removeprefix(NVFLARE_ERROR) for site, _, answer in answers},
        schedule=tuple(map(_text_of, meta.get(JobMetaKey.SCHEDULE_HISTORY.value) or ())),
    )


def _text_of(value: object) -> str:
    """Return a text of the server, or of a site through the server, as it may be shown."""
    return shown(str(value))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise what NVFlare raises in words for the person at the console.

    Raises:
        FederationError: NVFlare raised an error.
    """
    try:
        yield
    except tuple(EXPLANATIONS) as error:
        text = next(text for kind, text in EXPLANATIONS.items() if isinstance(error, kind))
        raise FederationError(text.format(what=what, error=error)) from error
