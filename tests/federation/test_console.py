"""A researcher at the console: NVFlare's own, and ``mmar``'s, where things go wrong.

One federation for all of it: each test leaves it as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from fl_admin.at_server.console import Console, JobState
from fl_admin.jobs.job import Job
from fl_admin.simulation.local_federation import LocalFederation
from fl_server.record.recorder import NO_SIGN_OF_LIFE, SERVER_ENDED
from scripts.admin_shell import AdminShell
from tests.conftest import command_line
from tests.federation.conftest import JOB, LEAD, SERVER, SITES, Federation, MakeFederation, edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 120.0
SECONDS_TO_REFUSE = 30.0
JOB_ID = re.compile(r"Submitted job: (\S+)")

Changed = Callable[..., Path]


def mmar(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2)


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    return make_federation()


@pytest.fixture
def changed(job: Path, tmp_path: Path) -> Changed:
    """``changed(rounds=1, min_clients=2)``: a copy of the job for so many rounds and sites."""

    def change(rounds: int = 1, min_clients: int = 2) -> Path:
        copy = Path(shutil.copytree(job, tmp_path / "changed"))
        edit(copy / "meta.json", min_clients=min_clients)
        edit(copy / "app/config/config_fed_server.json", min_clients=min_clients, num_rounds=rounds)
        return copy

    return change


@pytest.fixture
def shell(federation: Federation) -> Iterator[AdminShell]:
    with AdminShell(federation.lead) as one:
        yield one


def await_true(what: Callable[[], bool]) -> float:
    """Seconds until something is true."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() < started + PATIENCE
        time.sleep(0.2)
    return time.monotonic() - started


def processes_of(federation: Federation, job_id: str) -> list[psutil.Process]:
    return [one for one in federation.processes() if job_id in command_line(one)]


def training(federation: Federation, job_id: str) -> Console:
    """Wait until a job is in its first round."""
    with Console.connect(federation.lead) as console:
        await_true(lambda: (record := console.record(job_id)) is not None and bool(record.rounds))
    return console


# --- NVFlare's admin console


def submitted(shell: AdminShell, job: Path) -> str:
    found = JOB_ID.search(shell.ask(f"submit_job {job}"))
    assert found is not None
    return found[1]


def test_a_running_job_is_aborted_and_the_same_job_then_runs_to_its_end(
    federation: Federation, shell: AdminShell, changed: Changed
) -> None:
    job = changed(rounds=2)
    job_id = submitted(shell, job)
    training(federation, job_id)
    assert len(processes_of(federation, job_id)) >= 3
    assert '"status": "RUNNING"' in shell.ask(f"get_job_meta {job_id}")

    assert shell.ask(f"abort_job {job_id}").endswith("Are you sure (y/N): ")
    answer = shell.ask("y")

    assert "Abort signal has been sent to the server app." in answer
    assert await_true(lambda: not processes_of(federation, job_id)) < 30
    await_true(lambda: "FINISHED" in shell.ask(f"get_job_meta {job_id}"))
    assert '"status": "FINISHED:ABORTED"' in shell.ask(f"get_job_meta {job_id}")
    again = submitted(shell, job)
    await_true(lambda: "FINISHED" in shell.ask(f"get_job_meta {again}"))
    assert "FINISHED:COMPLETED" in shell.ask(f"get_job_meta {again}")
    assert f"| {job_id} | " in (listed := shell.ask("list_jobs"))
    assert f"| {again} | " in listed
    assert "content downloaded to" in shell.ask(f"download_job {again}")
    downloaded = federation.lead / "transfer" / again
    record = json.loads((downloaded / "workspace/results/run_record.json").read_text())
    assert record["status"] == "complete"


@pytest.fixture(scope="module")
def ended_job(federation: Federation, job: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a job that was taken back before it began."""
    copy = Path(shutil.copytree(job, tmp_path_factory.mktemp("ended") / "job"))
    edit(copy / "meta.json", min_clients=3)
    with Console.connect(federation.lead) as console:
        job_id = console.submit(Job.open(copy))
        console.abort(job_id)
    return job_id


@pytest.mark.parametrize("target", ["", "server", "site-1", "all"])
def test_logs_stay_where_they_are_and_the_console_says_so_at_once(
    shell: AdminShell, ended_job: str, target: str
) -> None:
    answer = shell.ask(f"get_job_log {ended_job} {target}", seconds=SECONDS_TO_REFUSE)

    assert f"user '{LEAD}' is not authorized for 'get_job_log'" in answer


# --- kits that open no door


def refused(*words: object) -> tuple[int, str]:
    """Exit code and words of a command, which has to answer soon."""
    started = time.monotonic()
    ended = mmar(*words)
    assert time.monotonic() - started < SECONDS_TO_REFUSE
    return ended.returncode, ended.stderr


def test_the_kit_of_a_site(federation: Federation, job: Path) -> None:
    code, told = refused("submit", job, "--kit", federation.site("site-1"))

    assert code == 2
    assert "--kit: is the kit of the site site-1, and no admin's" in told
    assert f"such as '{federation.lead}'" in told


def test_the_kit_of_another_federation(federation: Federation, job: Path, tmp_path: Path) -> None:
    other = LocalFederation.provisioned(tmp_path)
    point_to(other.lead, port=port_of(federation.lead))

    code, told = refused("submit", job, "--kit", other.lead)

    assert code == 1
    assert "and not this federation's authority" in told
    assert "the kit is of another federation than the server" in told


def test_a_port_at_which_nobody_listens(federation: Federation, job: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(federation.lead, tmp_path / LEAD))
    point_to(kit, port=1)

    code, told = refused("submit", job, "--kit", kit)

    assert code == 1
    assert f"no connection to localhost:1 as {LEAD}" in told
    assert "refuses connections: nothing listens there" in told
    assert "is the server started?" in told


def test_a_certificate_that_has_expired(federation: Federation, job: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(federation.lead, tmp_path / LEAD))
    let_expire(kit, federation.kits.parent / "state" / "cert.json")

    code, told = refused("submit", job, "--kit", kit)

    assert code == 1
    assert "certificate: expired on " in told
    assert f"--renew {LEAD}" in told


def port_of(kit: Path) -> int:
    document = json.loads((kit / "startup/fed_admin.json").read_text())
    return int(document["admin"]["port"])


def point_to(kit: Path, port: int) -> None:
    file = kit / "startup/fed_admin.json"
    document = json.loads(file.read_text())
    document["admin"]["port"] = port
    file.write_text(json.dumps(document))


def let_expire(kit: Path, authority: Path) -> None:
    """Give a kit the certificate that it would have had until yesterday."""
    state = json.loads(authority.read_text())
    file = kit / "startup/client.crt"
    now, old = datetime.now(UTC), x509.load_pem_x509_certificate(file.read_bytes())
    builder = x509.CertificateBuilder(
        issuer_name=old.issuer,
        subject_name=old.subject,
        public_key=old.public_key(),  # type: ignore[arg-type]
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=9),
        not_valid_after=now - timedelta(days=1),
    )
    key = load_pem_private_key(state["root_pri_key"].encode(), None)
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    file.write_bytes(signed.public_bytes(Encoding.PEM))


# --- jobs that do not start


def last_job(federation: Federation) -> JobState:
    with Console.connect(federation.lead) as console:
        return console.jobs()[-1]


def test_a_job_for_more_sites_than_there_are_says_so_at_once_and_does_not_hang(
    federation: Federation, changed: Changed
) -> None:
    job = changed(min_clients=3)

    ended = mmar("submit", job, "--kit", federation.lead, "--wait", "--start-within", 5)

    assert ended.returncode == 1
    told = ended.stderr
    assert "note: the job needs 3 sites, 2 are connected: site-1, site-2; it starts" in told
    assert "not started yet: connected sites (2) < min_sites (3)" in told
    assert "has not started within 5 s: connected sites (2) < min_sites (3)" in told
    waiting = last_job(federation)
    assert f"'mmar abort {waiting.job_id}' takes it back" in told
    assert waiting.status == "SUBMITTED"
    assert mmar("abort", waiting.job_id, "--kit", federation.lead).returncode == 0
    assert last_job(federation).status == "FINISHED:ABORTED"


def test_a_job_that_a_site_refuses(federation: Federation, changed: Changed) -> None:
    job = changed()
    policy = federation.site("site-2") / "local/mmar_site_policy.json"
    before = policy.read_text()
    try:
        edit(policy, signers=["somebody@else.org"])
        ended = mmar("submit", job, "--kit", federation.lead, "--wait")
    finally:
        policy.write_text(before)

    assert ended.returncode == 1
    assert f"site-2: refused: signer: app_site-2: signed by {LEAD}" in ended.stderr
    assert "What to do: its administrator names the people whose jobs" in ended.stderr


def test_a_job_whose_network_the_server_cannot_build(
    federation: Federation, changed: Changed
) -> None:
    job = changed()
    for name in ("config_train.json", "config_cross_validation.json"):
        config = job / "app/config" / name
        document = json.loads(config.read_text())
        document.get("train", document)["model"]["args"]["strides"] = [2]
        config.write_text(json.dumps(document))

    ended = mmar("submit", job, "--kit", federation.lead, "--wait", "--json")

    assert ended.returncode == 1
    failure = json.loads(ended.stdout)["failure"]
    assert "ended as EXECUTION_EXCEPTION\n    server: the run cannot begin: config_train" in failure
    assert "train.model: UNet could not be built: ValueError" in failure


# --- jobs that end in the middle


def test_a_job_that_fails_because_of_one_site(
    federation: Federation, changed: Changed, tmp_path: Path
) -> None:
    job = changed()
    out = tmp_path / "out"

    with spoilt_image(federation.values("site-2")):
        ended = mmar("submit", job, "--kit", federation.lead, "--wait", "--out", out)

    assert ended.returncode == 1
    head, line = ended.stderr.rstrip().splitlines()[-2:]
    assert head.endswith("ended as EXECUTION_EXCEPTION, with 0 of 1 rounds done")
    told = re.fullmatch(
        r"    site-2: data-error in round 1: an image or label there cannot be read, .*"
        r"The text is in error-([0-9a-f]{8})\.txt there\.",
        line,
    )
    assert told is not None
    (folder,) = out.iterdir()
    assert (folder / "workspace/results/report.html").is_file()
    assert list(federation.site("site-2").rglob(f"error-{told[1]}.txt"))


@contextmanager
def spoilt_image(environment: Path) -> Iterator[None]:
    values = json.loads(environment.read_text())
    listed = json.loads(Path(values["DATASET_JSON"]).read_text())
    image = Path(values["DATA_ROOT"]) / listed["training"][0]["image"]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    yield
    image.write_bytes(whole)


# --- a site that is lost and comes back


def digests(results: Path) -> list[str]:
    """Of the global model after each round; every site has contributed to each of them."""
    record = json.loads((results / "run_record.json").read_text())
    assert record["status"] == "complete"
    for each in record["rounds"]:
        statuses = {site: one["status"] for site, one in each["sites"].items()}
        assert statuses == dict.fromkeys(SITES, "contributed")
    return [each["weights_sha256"] for each in record["rounds"]]


@pytest.fixture(scope="module")
def eight_rounds(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(job, tmp_path_factory.mktemp("eight") / "job"))
    edit(copy / "app/config/config_fed_server.json", num_rounds=8)
    return copy


@pytest.fixture(scope="module")
def undisturbed(
    federation: Federation, eight_rounds: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The digests of a simulation, in which nothing is lost."""
    folder = tmp_path_factory.mktemp("undisturbed")
    values = {site: json.loads(federation.values(site).read_text()) for site in SITES}
    (folder / "environment.json").write_text(json.dumps({"sites": values}))
    ended = mmar(
        "simulate", eight_rounds, "--sites", len(SITES), "-e", folder / "environment.json",
        "-w", folder / "run",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return digests(folder / "run/run-001/results")


@pytest.mark.parametrize(
    "lost",
    ["the process of the job", pytest.param("the whole site", marks=pytest.mark.rehearsal)],
)
def test_a_site_that_is_killed_comes_back_and_no_bit_is_another(
    federation: Federation, eight_rounds: Path, undisturbed: list[str], tmp_path: Path, lost: str
) -> None:
    job_id = mmar("submit", eight_rounds, "--kit", federation.lead).stdout.strip()
    with Console.connect(federation.lead) as console:
        await_true(
            lambda: (record := console.record(job_id)) is not None and len(record.rounds) > 2
        )
    kit = f"{federation.site('site-2')}{os.sep}"
    theirs = [one for one in federation.processes() if kit in command_line(one)]
    of_the_job = [one for one in theirs if job_id in command_line(one)]
    assert of_the_job
    for one in of_the_job if lost == "the process of the job" else theirs:
        one.send_signal(signal.SIGKILL)
    if lost == "the whole site":
        federation.end("site-2")
        federation.launch("site-2")

    ended = mmar("watch", job_id, "--kit", federation.lead, "--out", tmp_path / "out")

    assert ended.returncode == 0, ended.stderr
    assert digests(Path(ended.stdout.strip()) / "workspace/results") == undisturbed


@pytest.mark.rehearsal
def test_a_site_that_stays_away_costs_itself_alone(
    federation: Federation, changed: Changed, tmp_path: Path
) -> None:
    job = changed(rounds=20)
    edit(job / "app/config/config_fed_server.json", min_clients=1)
    job_id = mmar("submit", job, "--kit", federation.lead).stdout.strip()
    with Console.connect(federation.lead) as console:
        await_true(
            lambda: (record := console.record(job_id)) is not None and len(record.rounds) > 2
        )
    kit = f"{federation.site('site-2')}{os.sep}"
    for one in federation.processes():
        if kit in command_line(one):
            one.send_signal(signal.SIGKILL)
    federation.end("site-2")

    ended = mmar("watch", job_id, "--kit", federation.lead, "--out", tmp_path / "out")

    federation.launch("site-2")
    assert ended.returncode == 0, ended.stderr
    results = Path(ended.stdout.strip()) / "workspace/results"
    rounds = json.loads((results / "run_record.json").read_text())["rounds"]
    without = [
        one["seconds"] for one in rounds if one["sites"]["site-2"].get("reason") == NO_SIGN_OF_LIFE
    ]
    assert len(without) > 10
    assert median(without) < 5  # a site that is there and does not answer is waited for 10 s


def test_afterwards_a_plain_mmar_runs_to_its_end_and_its_results_are_reported(
    federation: Federation, tmp_path: Path
) -> None:
    ended = mmar(
        "submit", JOB / "app", "--rounds", 1, "--kit", federation.lead,
        "--wait", "--out", tmp_path / "out",
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    folder = Path(ended.stdout.strip())
    assert f"report: {folder / 'workspace/results/report.html'}" in ended.stderr
    assert "completed in 0:00:" in ended.stderr
    for site in SITES:
        assert re.search(rf"round 1/1: {site} contributed, \d+ steps in", ended.stderr)


RECIPE = """
import sys
from fl_admin.recipe import MmarFedAvgRecipe, results_of
from nvflare.recipe.prod_env import ProdEnv

mmar, kit, user = sys.argv[1:]
recipe = MmarFedAvgRecipe(mmar=mmar, name="by_recipe", min_clients=2, num_rounds=1, local_epochs=1)
run = recipe.execute(ProdEnv(startup_kit_location=kit, username=user))
print("result:", results_of(run.get_result()))
print("status:", run.get_status())
"""


def test_a_recipe_runs_in_a_federation_with_the_sites_own_data(
    federation: Federation, changed: Changed
) -> None:
    app = changed() / "app"

    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RECIPE, app, federation.lead, LEAD],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )

    found = re.search(r"^result: (.+)\nstatus: FINISHED:COMPLETED$", ended.stdout, re.MULTILINE)
    assert found is not None, ended.stdout[-2000:] + ended.stderr[-2000:]
    record = json.loads((Path(found[1]) / "run_record.json").read_text())
    assert (record["job"], record["status"], record["rounds_asked"]) == ("by_recipe", "complete", 1)


# --- a server that goes away


def test_whoever_watches_a_job_outlives_a_server_that_is_started_anew(
    federation: Federation, changed: Changed, tmp_path: Path
) -> None:
    """The job is one that waits for a third site, so nothing of it is lost."""
    job_id = mmar("submit", changed(min_clients=3), "--kit", federation.lead).stdout.strip()
    command = [sys.executable, "-m", "fl_admin.cli.main", "watch", job_id]
    told = tmp_path / "told.txt"
    with told.open("w") as stream:
        watching = subprocess.Popen([*command, "--kit", str(federation.lead)], stderr=stream)
    await_true(lambda: "not started yet" in told.read_text())

    federation.end(SERVER)
    await_true(lambda: "the server does not answer; trying again" in told.read_text())
    federation.launch(SERVER)
    await_true(lambda: mmar("abort", job_id, "--kit", federation.lead).returncode == 0)

    assert watching.wait(PATIENCE) == 1
    assert "ended as ABORTED" in told.read_text()


def test_a_job_ends_with_the_server_and_what_it_has_done_can_be_fetched(
    federation: Federation, eight_rounds: Path, tmp_path: Path
) -> None:
    job_id = mmar("submit", eight_rounds, "--kit", federation.lead).stdout.strip()
    with Console.connect(federation.lead) as console:
        await_true(
            lambda: (record := console.record(job_id)) is not None and len(record.rounds) > 2
        )
    kit = f"{federation.server}{os.sep}"
    for one in federation.processes():
        if kit in command_line(one):
            one.send_signal(signal.SIGKILL)
    federation.end(SERVER)
    federation.launch(SERVER)
    await_true(lambda: mmar("jobs", "--kit", federation.lead).returncode == 0)

    ended = mmar("watch", job_id, "--kit", federation.lead, "--out", tmp_path / "out")

    assert ended.returncode == 1
    assert f"server: {SERVER_ENDED}" in ended.stderr
    results = tmp_path / "out" / job_id / "workspace/results"
    record = json.loads((results / "run_record.json").read_text())
    assert (record["status"], record["failure"]) == ("failed", SERVER_ENDED)
    assert sum(each["weights_sha256"] is not None for each in record["rounds"]) >= 2
    assert (results / "models/FL_global_model.pt").is_file()
