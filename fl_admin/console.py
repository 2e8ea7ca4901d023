"""Jobs at a server: submitted, listed, followed, aborted and fetched through NVFlare's Session API.

``Console`` is one connection of an admin kit. What NVFlare says is turned into values of ours, and
what it raises into errors that say what to do.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
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
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from fl_admin.job import Job
from fl_client.job_check import SIGNATURES
from fl_server.flare.run_recorder import RECORD_TOPIC
from fl_server.run_record import RunRecord
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, FederationError, Problem

ADMIN_CONFIG = Path("startup") / "fed_admin.json"
CONNECT_SECONDS = 15.0
SECONDS_BETWEEN_LOOKS = 2.0
FINISHED = "FINISHED:"
DEPLOYED = "OK"
NVFLARE_ERROR = "NVFLARE_ERROR: "

RESULTS = Path("workspace") / "results"
"""Where a downloaded job keeps what its server wrote."""


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
    def refusals(self) -> tuple[str, ...]:
        """What sites said that did not take the job, each with the site's name."""
        return tuple(
            f"{site}: {answer}" for site, answer in self.deployment.items() if answer != DEPLOYED
        )

    def as_dict(self) -> dict[str, Any]:
        """The same, for ``--json``."""
        return {
            "id": self.job_id,
            "name": self.name,
            "status": self.status,
            "submitter": self.submitter,
            "submitted": self.submitted,
            "duration": self.duration,
            "deployment": self.deployment,
            "schedule": list(self.schedule),
        }


Watch = Callable[[JobState, RunRecord | None], object]
"""Told of a job's state, and of its record as far as it is known."""


class Console:
    """A connection to a server, as the admin of a kit."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    def connect(cls, kit: Path, *, seconds: float = CONNECT_SECONDS) -> Self:
        """Log in with an admin's start-up kit.

        Raises:
            ConfigError: the folder is no admin kit.
            FederationError: the server cannot be reached, or does not accept the kit.
        """
        root = kit.expanduser().resolve()
        user, server = admin_of(root)
        try:
            with redirect_stdout(sys.stderr):  # NVFlare says there that it connects
                session = new_secure_session(user, str(root), timeout=seconds)
        except NoConnection as error:
            raise FederationError(
                f"no connection to {server} within {seconds:.0f} s: {error}\n"
                "    Is the server running, and can this machine reach it by that name and port?"
            ) from error
        except (AuthenticationError, AuthorizationError) as error:
            raise FederationError(
                f"{server} does not accept {user}: {error}\n"
                "    A kit is good for the federation that it was provisioned for, and until its "
                "certificate expires."
            ) from error
        return cls(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # NVFlare's threads keep the process alive until the session is closed.
        self._session.close()

    def submit(self, job: Job) -> str:
        """Sign and send a job; returns its id.

        NVFlare signs a folder by writing into it, so it gets a copy.

        Raises:
            FederationError: the server does not take it.
        """
        with tempfile.TemporaryDirectory(prefix="mmar-submit-") as folder, _explained(job.name):
            copy = Path(folder) / job.folder.name
            shutil.copytree(job.folder, copy, ignore=shutil.ignore_patterns(*SIGNATURES))
            return str(self._session.submit_job(str(copy)))

    def jobs(self) -> tuple[JobState, ...]:
        """All jobs of the server, in the order of submission."""
        with _explained("the list of jobs"):
            found = self._session.list_jobs(detailed=True)
        return tuple(sorted(map(_state, found), key=lambda one: one.submitted))

    def job(self, job_id: str) -> JobState:
        """One job.

        Raises:
            FederationError: there is none with this id.
        """
        with _explained(job_id):
            return _state(self._session.get_job_meta(job_id))

    def record(self, job_id: str) -> RunRecord | None:
        """The record of a running job so far; None where it has none to show yet."""
        try:
            found = self._session.do_app_command(job_id, RECORD_TOPIC, {})
        except (JobNotRunning, NoReply, InternalError, RuntimeError, AuthorizationError):
            # It starts, or has just ended; or this admin may not ask a running job.
            return None
        return RunRecord.from_dict(found) if found else None

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
        target.parent.mkdir(parents=True, exist_ok=True)
        with _explained(job_id):
            location = Path(self._session.download_job_result(job_id))
        shutil.move(location, target)
        return target

    def follow(self, job_id: str, watch: Watch) -> JobState:
        """Tell of a job until it is finished; returns its last state."""
        record: RunRecord | None = None
        while not (state := self.job(job_id)).finished:
            if state.status == RunStatus.RUNNING.value:
                record = self.record(job_id) or record
            watch(state, record)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        watch(state, record)
        return state


def admin_of(kit: Path) -> tuple[str, str]:
    """The user name of an admin kit, and the server that it is for.

    Raises:
        ConfigError: the folder is no admin kit.
    """
    path = kit / ADMIN_CONFIG
    advice = f"An admin's kit holds {ADMIN_CONFIG}; see 'mmar provision'."
    if not path.is_file():
        message = f"{str(kit)!r} is no admin's kit"
        raise ConfigError([Problem(Location("--kit"), message, advice, "kit")])
    admin = read_json(path).get("admin", {})
    user, host, port = (admin.get(key) for key in ("username", "host", "port"))
    if not isinstance(user, str) or not isinstance(host, str):
        message = "names no user and no server"
        raise ConfigError([Problem(Location(path.name) / "admin", message, advice, "kit")])
    return user, f"{host}:{port}"


def _state(meta: Any) -> JobState:
    detail = meta.get(JobMetaKey.JOB_DEPLOY_DETAIL.value) or ()
    return JobState(
        job_id=str(meta.get(JobMetaKey.JOB_ID.value, "")),
        name=str(meta.get(JobMetaKey.JOB_NAME.value, "")),
        status=str(meta.get(JobMetaKey.STATUS.value, "")),
        submitter=str(meta.get(JobMetaKey.SUBMITTER_NAME.value, "")),
        submitted=str(meta.get(JobMetaKey.SUBMIT_TIME_ISO.value, "")),
        duration=str(meta.get(JobMetaKey.DURATION.value, "")),
        deployment=dict(_answer(one) for one in map(str, detail) if ": " in one),
        schedule=tuple(map(str, meta.get(JobMetaKey.SCHEDULE_HISTORY.value) or ())),
    )


def _answer(line: str) -> tuple[str, str]:
    """``site-1: OK`` as a pair; a line without a site only adds up the others."""
    site, _, answer = line.partition(": ")
    return site, answer.removeprefix(NVFLARE_ERROR)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What NVFlare raises, in words for the person at the console.

    Raises:
        FederationError: something was raised.
    """
    try:
        yield
    except InvalidJobDefinition as error:
        raise FederationError(f"the server does not take {what}: {error}") from error
    except JobNotFound as error:
        raise FederationError(
            f"the server has no job {what!r}\n    'mmar jobs' lists those that it has."
        ) from error
    except JobNotDone as error:
        raise FederationError(
            f"{what} is still running\n    'mmar watch' waits for it, 'mmar abort' ends it."
        ) from error
    except JobNotRunning as error:
        raise FederationError(f"{what} does not run") from error
    except (AuthenticationError, AuthorizationError) as error:
        raise FederationError(f"the server does not allow that: {error}") from error
    except (NoConnection, SessionClosed, NoReply) as error:
        raise FederationError(f"the connection to the server is gone: {error}") from error
    except (InternalError, RuntimeError) as error:
        raise FederationError(f"the server answered with an error: {error}") from error


def explained_end(state: JobState) -> str:
    """Why a job did not complete, in one line for each thing that is known."""
    lines = [f"{state.name} ({state.job_id}) ended as {state.status.removeprefix(FINISHED)}"]
    lines += state.refusals or state.schedule[-1:]
    return "\n    ".join(lines)
