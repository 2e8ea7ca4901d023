"""A job from the command line through a provisioned federation, and what its server got to know.

Strings that stand for patients are planted at the sites: in names of files, in headers of images,
in the environment, and so in the texts of errors. None of them may be anywhere at the server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import pytest

from fl_client.jobs.rounding import with_rounding
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from tests.federation.conftest import SERVER, SITES, Federation, MakeFederation, edit
from tests.federation.search import files_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

IN_NAME = "DOE_JOHN_1961"
IN_HEADER = "ROE_JANE_1958"
IN_ENVIRONMENT = "CANARY-OF-A-PASSWORD"
IN_VALUES = "CANARY-OF-THE-SITE"
PLANTED = (IN_NAME, IN_HEADER, IN_ENVIRONMENT, IN_VALUES)


def mmar(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def plant(federation: Federation) -> None:
    """Give the images of every site names and headers that a server must not see."""
    for site in SITES:
        environment = federation.site(site) / "local" / "environment.json"
        values = json.loads(environment.read_text())
        root, listed = Path(values["DATA_ROOT"]), Path(values["DATASET_JSON"])
        document = json.loads(listed.read_text())
        for item in (*document["training"], *document["validation"]):
            for key in ("image", "label"):
                item[key] = renamed(root, item[key])
        listed.write_text(json.dumps(document))
        edit(environment, OUR_CANARY=IN_VALUES)


def renamed(root: Path, name: str) -> str:
    """The same volume under another name, with free texts in its header."""
    old = root / name
    new = old.with_name(f"{IN_NAME}_{old.name}")
    volume = nibabel.load(old)
    volume.header["descrip"] = IN_HEADER.encode()
    volume.header["aux_file"] = IN_HEADER.encode()
    volume.header["intent_name"] = IN_HEADER.encode()
    nibabel.save(volume, new)
    old.unlink()
    return str(new.relative_to(root))


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    return make_federation(plant, {"SITE_DB_PASSWORD": IN_ENVIRONMENT})


def what_decides(federation: Federation) -> dict[Path, bytes]:
    """All that a service and a container mount read-only, by its place."""
    folders = [federation.kits / name / part
               for name in (SERVER, *SITES) for part in ("startup", "local")]  # fmt: skip
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.parent.name != "__pycache__"}


@pytest.fixture(scope="module")
def decided(federation: Federation) -> dict[Path, bytes]:
    """What decided when server and sites had started."""
    return what_decides(federation)


@pytest.fixture(scope="module")
def done(
    federation: Federation,
    decided: dict[Path, bytes],
    job: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The job of a researcher, from the command line to its results."""
    out = tmp_path_factory.mktemp("out")
    ended = mmar("submit", job, "--kit", federation.lead, "--wait", "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert "round 2/2 done" in ended.stderr
    return Path(ended.stdout.strip())


@pytest.fixture(scope="module")
def results(done: Path) -> Path:
    return done / "workspace" / "results"


def test_it_listens_on_this_machine_only(federation: Federation) -> None:
    listening = {
        one.laddr.ip
        for process in federation.processes()
        for one in process.net_connections(kind="inet")
        if one.status == "LISTEN"
    }

    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_run_needs_not_write_to_what_decides(
    federation: Federation, decided: dict[Path, bytes], done: Path
) -> None:
    assert what_decides(federation) == decided


def test_the_record_and_the_matrix_are_complete(results: Path) -> None:
    record = json.loads((results / "run_record.json").read_text())
    cells = json.loads((results / "cross_site.json").read_text())["cells"]

    assert record["status"] == "complete"
    assert [sorted(one["sites"]) for one in record["rounds"]] == [list(SITES)] * 2
    assert sorted(cells) == ["FL_global_model", "best_FL_global_model", *SITES]
    assert all(sorted(row) == list(SITES) for row in cells.values())


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("model", ["FL_global_model", "best_FL_global_model"])
def test_a_site_gets_its_number_of_the_matrix_from_its_kit_alone(
    federation: Federation, results: Path, model: str, site: str
) -> None:
    """By the newest job of the kit, which is the only one by now."""
    kit = federation.site(site)
    before = sorted(path for path in kit.rglob("*") if path.parent.name != "audit")

    found = mmar(
        "site", "validate", "--kit", kit, "--model", results / "models" / f"{model}.pt", "--json"
    )

    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["metrics"] == cells(results)[model][site]
    assert sorted(path for path in kit.rglob("*") if path.parent.name != "audit") == before


def test_the_models_that_were_taken_away_are_evaluated_again_without_a_training(
    federation: Federation, done: Path, results: Path, job: Path, tmp_path: Path
) -> None:
    made = mmar(
        "job", "validate", job / "app", "--name", "check", "--out", tmp_path / "check",
        "--models-of", done,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    ended = mmar(
        "submit", tmp_path / "check", "--kit", federation.lead, "--wait", "--out", tmp_path
    )

    assert ended.returncode == 0, ended.stderr
    again = Path(ended.stdout.strip()) / "workspace/results"
    assert cells(again) == cells(results)
    merged = mmar("results", "merge", done, again, "--out", tmp_path / "merged", "--json")
    assert merged.returncode == 0, merged.stderr
    assert json.loads(merged.stdout)["cross_site"]["cells"] == cells(results)


def cells(folder: Path) -> Any:
    return json.loads((folder / "cross_site.json").read_text())["cells"]


def test_server_and_sites_have_the_same_job_in_their_logs(federation: Federation) -> None:
    digests = set()
    for name in (SERVER, *SITES):
        assert federation.log_status(name) == "intact"
        judged = [one for one in federation.audit(name) if one["event"] == "job-judged"]
        assert {one["verdict"] for one in judged} == {"accept"}
        digests |= {one["job_digest"] for one in judged[:1]}
    assert len(digests) == 1


def test_what_a_site_logged_as_sent_the_server_logged_as_received(federation: Federation) -> None:
    received = {
        (one["site"], one["tensors"])
        for one in federation.audit(SERVER)
        if one["event"] == "contribution-accepted"
    }
    sent = {
        (site, one["tensors"])
        for site in SITES
        for one in federation.audit(site)
        if one["event"] == "task-out" and one["task"] == "train"
    }

    assert received == sent
    assert len(received) == 2 * 2


def test_an_error_over_a_patients_file_reaches_the_server_as_one_word(
    federation: Federation, job: Path, done: Path, tmp_path: Path
) -> None:
    with spoilt_image(federation.site("site-2")):
        ended = mmar("submit", job, "--kit", federation.lead, "--wait", "--out", tmp_path)

    assert ended.returncode == 1
    planted = (*PLANTED, *(data_root(federation.site(site)) for site in SITES))
    printed = (federation.kits.parent / f"{SERVER}.out").read_text()
    assert not [text for text in planted if text in ended.stdout + ended.stderr + printed]
    for folder in (federation.server, federation.lead, tmp_path, done):
        assert not files_with(folder, planted)
    # The same search finds them where they belong.
    at_home = files_with(federation.site("site-2"), (IN_NAME,))
    assert any(Path(name).name.startswith("error-") for name in at_home)


def data_root(kit: Path) -> str:
    values = json.loads((kit / "local" / "environment.json").read_text())
    return str(values["DATA_ROOT"])


@contextmanager
def spoilt_image(kit: Path) -> Iterator[None]:
    """The first training image of a site is cut short meanwhile."""
    values = json.loads((kit / "local" / "environment.json").read_text())
    listed = json.loads(Path(values["DATASET_JSON"]).read_text())
    image = Path(values["DATA_ROOT"]) / listed["training"][0]["image"]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    yield
    image.write_bytes(whole)


def test_rounded_updates_give_the_bits_of_both_simulations(
    federation: Federation, job: Path, tmp_path: Path, open_policy: Path
) -> None:
    """Last, because the tests before count what one job has left."""
    rounded = shutil.copytree(job, tmp_path / "rounded")
    config = rounded / "app" / "config"
    client = json.loads((config / CLIENT_CONFIG).read_text())
    server = json.loads((config / SERVER_CONFIG).read_text())
    [workflow] = server["workflows"]
    workflow["args"] |= {"transfer": "int8", "enable_tensor_disk_offload": True}
    edit(config / CLIENT_CONFIG, **with_rounding(client, "int8"))
    edit(config / SERVER_CONFIG, workflows=server["workflows"])

    ended = mmar("submit", rounded, "--kit", federation.lead, "--wait", "--out", tmp_path / "out")

    assert ended.returncode == 0, ended.stderr
    deployed = Path(ended.stdout.strip()) / "workspace" / "results"
    data = Path(data_root(federation.site("site-1"))).parent
    for engine in ("inline", "nvflare"):
        simulated = mmar(
            "simulate", rounded, "--data", data, "--set", "NUM_THREADS=1", "--engine", engine,
            "--policy", open_policy, "-w", tmp_path / engine,
        )  # fmt: skip
        assert simulated.returncode == 0, simulated.stderr
        results = tmp_path / engine / "run-001" / "results"
        assert digests(results) == digests(deployed)
        assert cells(results) == cells(deployed)


def digests(results: Path) -> list[str]:
    record = json.loads((results / "run_record.json").read_text())
    return [one["weights_sha256"] for one in record["rounds"]]
