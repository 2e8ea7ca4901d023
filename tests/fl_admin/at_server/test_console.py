"""What a console makes of NVFlare's answers; the answers themselves are in ``tests/federation``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import (
    AuthorizationError,
    InvalidJobDefinition,
    JobNotDone,
    JobNotFound,
    JobNotRunning,
    NoConnection,
)

from fl_admin.at_server import console as console_module
from fl_admin.at_server.console import Console, JobState, admin_kit
from fl_admin.at_server.job_end import explained_end
from fl_admin.cli.main import main
from fl_admin.jobs.job import Job
from mmar_runtime.errors import ConfigError, FederationError

RUNNING: dict[str, Any] = {
    "job_id": "4711",
    "name": "spleen",
    "status": "RUNNING",
    "submitter_name": "lead@hub.org",
    "submit_time_iso": "2026-01-02T03:04:05+00:00",
    "duration": "0:00:07",
    "job_deploy_detail": ["server: OK", "site-1: OK"],
    "schedule_history": ["03:04: scheduled"],
}
REFUSED = RUNNING | {
    "status": "FINISHED:FAILED_TO_RUN",
    "job_deploy_detail": [
        "server: OK",
        "site-1: OK",
        "site-2: NVFLARE_ERROR: refused: code: custom/x.py: not allowed",
        "num_ok_sites 1 < required_min_sites 2",
    ],
}


class SessionStandIn:
    """Answers as NVFlare's session does: with values that were set, or by raising."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.closed = False

    def _next(self, *_: Any, **__: Any) -> Any:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    submit_job = get_job_meta = list_jobs = abort_job = download_job_result = _next
    do_app_command = get_system_info = _next

    def close(self) -> None:
        self.closed = True


def console(*answers: Any) -> Console:
    return Console(SessionStandIn(*answers))  # type: ignore[arg-type]


def test_a_job_is_what_nvflare_says_of_it() -> None:
    state = console(RUNNING).job("4711")

    assert state == JobState(
        job_id="4711",
        name="spleen",
        status="RUNNING",
        submitter="lead@hub.org",
        submitted="2026-01-02T03:04:05+00:00",
        duration="0:00:07",
        deployment={"server": "OK", "site-1": "OK"},
        schedule=("03:04: scheduled",),
    )
    assert not state.finished
    assert state.refusals == ()


def test_a_refusal_says_which_site_and_why() -> None:
    state = console(REFUSED).job("4711")

    assert state.finished
    assert not state.completed
    assert explained_end(state, None) == (
        "spleen (4711) ended as FAILED_TO_RUN\n"
        "    site-2: refused: code: custom/x.py: not allowed\n"
        "        What to do: its administrator can look at the code and approve it: "
        "mmar site approve"
    )


def test_a_job_that_could_not_start_says_why() -> None:
    tries = ["connected sites (2) < min_sites (3)"] * 2 + ["exceeded max schedule count 10"]
    waiting = RUNNING | {
        "status": "FINISHED:CAN_NOT_SCHEDULE",
        "job_deploy_detail": [],
        "schedule_history": [f"2026-11-26 11:0{at}:59: {one}" for at, one in enumerate(tries)],
    }

    assert explained_end(console(waiting).job("4711"), None) == (
        "spleen (4711) ended as CAN_NOT_SCHEDULE\n    the server gave up starting it: "
        "connected sites (2) < min_sites (3); exceeded max schedule count 10"
    )


def test_jobs_are_listed_in_the_order_of_submission() -> None:
    later = RUNNING | {"job_id": "4712", "submit_time_iso": "2026-02-02T03:04:05+00:00"}

    assert [one.job_id for one in console([later, RUNNING]).jobs()] == ["4711", "4712"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (JobNotFound("x"), "the server has no job '4711'"),
        (JobNotDone("x"), "4711 is still running"),
        (JobNotRunning("x"), "4711 does not run"),
        (AuthorizationError("user may not"), "the server does not allow that: user may not"),
        (NoConnection("gone"), "the connection to the server is gone: gone"),
        (InvalidJobDefinition("no meta"), "the server does not take 4711: no meta"),
        (RuntimeError("odd"), "the server answered with an error: odd"),
    ],
)
def test_errors_are_told_in_words(error: Exception, words: str) -> None:
    with pytest.raises(FederationError) as caught:
        console(error).job("4711")

    assert str(caught.value).startswith(words)


def test_a_job_that_is_over_cannot_be_aborted() -> None:
    with pytest.raises(FederationError, match="is over already: FINISHED:FAILED_TO_RUN"):
        console(REFUSED).abort("4711")


def test_a_job_that_starts_has_no_record_yet() -> None:
    assert console(JobNotRunning("x")).record("4711") is None
    assert console({}).record("4711") is None


def test_results_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "4711").mkdir()

    with pytest.raises(ConfigError, match="is there already"):
        console("unused").download("4711", tmp_path)


def test_results_go_to_a_folder_with_the_jobs_id(tmp_path: Path) -> None:
    fetched = tmp_path / "transfer" / "4711"
    fetched.mkdir(parents=True)
    (fetched / "meta.json").write_text("{}")

    folder = console(str(fetched)).download("4711", tmp_path / "out")

    assert folder == tmp_path / "out" / "4711"
    assert (folder / "meta.json").is_file()


def test_the_session_is_closed_whatever_happens() -> None:
    session = SessionStandIn(RuntimeError("odd"))
    with pytest.raises(FederationError), Console(session) as one:  # type: ignore[arg-type]
        one.job("4711")

    assert session.closed


def kit(folder: Path, file: str, document: object) -> Path:
    (folder / "startup").mkdir(parents=True)
    (folder / "startup" / file).write_text(json.dumps(document))
    return folder


ADMIN = {
    "username": "lead@hub.org",
    "host": "fl.hub.org",
    "port": 8002,
    "server_identity": "fl.hub.org",
}


def test_a_kit_names_its_admin_and_its_server(tmp_path: Path) -> None:
    found = admin_kit(kit(tmp_path, "fed_admin.json", {"admin": ADMIN}))

    assert (found.name, found.address) == ("lead@hub.org", "fl.hub.org:8002")


def test_the_kit_of_a_site_submits_nothing(tmp_path: Path) -> None:
    site = {
        "servers": [{"identity": "fl", "service": {"target": "fl:8002"}}],
        "client": {"fqsn": "site-1"},
    }
    kit(tmp_path / "lead@hub.org", "fed_admin.json", {"admin": ADMIN})

    with pytest.raises(ConfigError) as caught:
        admin_kit(kit(tmp_path / "site-1", "fed_client.json", site))

    (problem,) = caught.value.problems
    assert problem.message == "is the kit of the site site-1, and no admin's"
    assert problem.advice.endswith(f"such as {str(tmp_path / 'lead@hub.org')!r}.")


def test_a_kit_without_a_user_is_none(tmp_path: Path) -> None:
    document = {"admin": {**ADMIN, "username": ""}}

    with pytest.raises(ConfigError, match="is not as it was provisioned"):
        admin_kit(kit(tmp_path, "fed_admin.json", document))


@pytest.mark.parametrize("command", [["jobs"], ["watch", "4711"], ["abort", "4711"]])
def test_without_a_kit_there_is_nobody_to_ask(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MMAR_ADMIN_KIT", raising=False)

    assert main(command) == 2

    assert "no admin's kit is named" in capsys.readouterr().err


def test_a_folder_that_is_no_kit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "4711", "--kit", str(tmp_path), "--json"]) == 2

    output = capfd.readouterr()
    assert "is not a kit" in output.err
    assert json.loads(output.out)["problems"][0]["rule"] == "kit"


def test_who_only_asks_a_server_does_not_wait_for_torch() -> None:
    program = (
        "import sys, fl_admin.cli.server.job_view\n"
        "import fl_admin.at_server.console, fl_admin.at_server.job_end\n"
        "print(sorted({'torch', 'monai', 'matplotlib'} & sys.modules.keys()))"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert ended.stdout.strip() == "[]", ended.stderr


# --- following a job


SUBMITTED = RUNNING | {"status": "SUBMITTED", "job_deploy_detail": [], "schedule_history": []}
LACKING = SUBMITTED | {
    "schedule_history": ["2026-11-26 11:03:59: connected sites (2) < min_sites (3)"]
}
DONE = RUNNING | {"status": "FINISHED:COMPLETED"}


class SystemStandIn:
    """What NVFlare says of the whole server: its sites, and the jobs that it runs."""

    def __init__(self, *jobs: str, sites: tuple[str, ...] = ()) -> None:
        self.job_info = [SimpleNamespace(job_id=one) for one in jobs]
        self.client_info = [SimpleNamespace(name=one) for one in sites]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "SECONDS_BETWEEN_LOOKS", 0.01)


def test_the_sites_of_a_server_are_in_the_order_of_their_names() -> None:
    assert console(SystemStandIn(sites=("site-2", "site-1"))).sites() == ("site-1", "site-2")


@pytest.mark.usefixtures("quick")
def test_a_job_is_followed_to_its_end() -> None:
    seen: list[str] = []

    state = console(SUBMITTED, RUNNING, {}, SystemStandIn("4711"), DONE).follow(
        "4711", lambda state, record: seen.append(state.status)
    )

    assert seen == ["SUBMITTED", "RUNNING", "FINISHED:COMPLETED"]
    assert state.completed


@pytest.mark.usefixtures("quick")
def test_the_answers_of_the_sites_are_waited_for_where_a_job_could_not_start() -> None:
    """NVFlare stores the status first, and the answers a moment later."""
    early = REFUSED | {"job_deploy_detail": []}

    state = console(early, early, REFUSED).follow("4711", lambda *_: None)

    assert state.refusals == ("site-2: refused: code: custom/x.py: not allowed",)
    assert not console(*[early] * 4).follow("4711", lambda *_: None).deployment


@pytest.mark.usefixtures("quick")
def test_a_job_that_lacks_sites_is_not_awaited_forever() -> None:
    with pytest.raises(FederationError) as caught:
        console(*[LACKING] * 9).follow("4711", lambda *_: None, start_within=0.02)

    told = str(caught.value)
    assert "has not started within 0 s: connected sites (2) < min_sites (3)" in told
    assert "'mmar abort 4711' takes it back" in told


@pytest.mark.usefixtures("quick")
def test_a_job_that_waits_for_others_to_end_waits_on() -> None:
    state = console(*[SUBMITTED] * 9, DONE).follow("4711", lambda *_: None, start_within=0.02)

    assert state.completed


@pytest.mark.usefixtures("quick")
def test_a_server_that_was_started_anew_runs_its_jobs_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console_module, "SECONDS_TO_BE_SURE", 0.02)
    answers = [RUNNING, JobNotRunning("x"), SystemStandIn()] * 9

    with pytest.raises(FederationError, match="is running, and runs it no more"):
        console(*answers).follow("4711", lambda *_: None)


@pytest.mark.usefixtures("quick")
def test_a_connection_that_is_gone_is_made_anew() -> None:
    first = SessionStandIn(SUBMITTED, NoConnection("gone"))
    second = SessionStandIn(DONE)
    following = Console(first, lambda: second)  # type: ignore[arg-type, return-value]

    assert following.follow("4711", lambda *_: None).completed
    assert first.closed


@pytest.mark.usefixtures("quick")
def test_a_server_that_stays_away_is_not_awaited_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "SECONDS_TO_RETURN", 0.02)

    def nobody() -> Any:
        raise FederationError("refused")

    following = Console(SessionStandIn(*[NoConnection("gone")] * 99), nobody)  # type: ignore[arg-type]

    with pytest.raises(FederationError, match="the connection to the server is gone") as caught:
        following.follow("4711", lambda *_: None)
    assert "The job may go on: 'mmar watch 4711' looks again." in str(caught.value)


def test_a_job_is_signed_in_a_copy(tmp_path: Path) -> None:
    """NVFlare writes signatures into the folder that it is given."""
    example = Path(__file__).resolve().parents[3] / "jobs" / "spleen_ct_segmentation"
    folder = Path(shutil.copytree(example, tmp_path / "my job"))
    (folder / "app" / ".__nvfl_sig.json").write_text("an old signature")
    given: list[Path] = []

    class Signing(SessionStandIn):
        def submit_job(self, path: str) -> str:
            given.append(Path(path))
            assert not list(given[0].rglob(".__nvfl_*"))
            (given[0] / "app" / ".__nvfl_sig.json").write_text("a new signature")
            return "4711"

    assert Console(Signing()).submit(Job.open(folder)) == "4711"  # type: ignore[arg-type]
    assert given[0].name == "my_job"
    assert not given[0].exists()
    assert (folder / "app" / ".__nvfl_sig.json").read_text() == "an old signature"
