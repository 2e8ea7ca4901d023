"""A provisioned federation that encrypts: what its server holds, and who is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fl_client.flare.encryption import decrypted
from fl_client.flare.encryption_keys import site_keys
from fl_client.jobs.encryption import with_encryption
from fl_client.memory.stored_rounds import STORED
from mmar_runtime.exchange.ckks import CLIENT_CONTEXT
from mmar_runtime.exchange.encrypted_files import read_encrypted_model
from mmar_runtime.weights import read_checkpoint
from tests.federation.conftest import SERVER, SITES, Federation, MakeFederation, edit
from tests.federation.search import unpacked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # NVFlare's check of signatures leaves the files that it reads to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

MODELS = ["FL_global_model", "best_FL_global_model", *SITES]
LEAST_BYTES = 64
"""Of a tensor that is searched for; fewer could be found by chance."""


def mmar(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    return make_federation(options={"he": True})


@pytest.fixture(scope="module")
def encrypted_job(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example job, all of whose floating-point tensors leave encrypted."""
    folder = Path(shutil.copytree(job, tmp_path_factory.mktemp("he") / "spleen"))
    config = folder / "app" / "config"
    client = json.loads((config / "config_fed_client.json").read_text())
    edit(config / "config_fed_client.json", **with_encryption(client, ["*"]))
    server = json.loads((config / "config_fed_server.json").read_text())
    server["workflows"][0]["args"]["encrypt_layers"] = ["*"]
    edit(config / "config_fed_server.json", **server)
    return folder


@pytest.fixture(scope="module")
def results(
    federation: Federation, encrypted_job: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("out")
    ended = mmar("submit", encrypted_job, "--kit", federation.lead, "--wait", "--out", out)
    assert ended.returncode == 0, ended.stderr + federation.printed()
    return Path(ended.stdout.strip()) / "workspace" / "results"


def test_rounds_scores_and_matrix_are_complete(results: Path) -> None:
    record = json.loads((results / "run_record.json").read_text())
    cells = json.loads((results / "cross_site.json").read_text())["cells"]

    assert record["status"] == "complete"
    assert [sorted(one["sites"]) for one in record["rounds"]] == [list(SITES)] * 2
    assert record["best_round"] in (1, 2)
    assert sorted(cells) == MODELS
    assert all(sorted(row) == list(SITES) for row in cells.values())


def test_the_server_holds_no_encrypted_tensor_in_plain(
    federation: Federation, results: Path
) -> None:
    """Neither of a global model nor of a site's own, as its checkpoints at home hold them."""
    keys = site_keys(federation.site("site-1") / "startup")
    secret = {}
    for name in MODELS:
        arrays = read_encrypted_model(results / "models" / f"{name}.encrypted.safetensors").weights
        opened = decrypted({one: tensor.numpy() for one, tensor in arrays.items()}, keys)
        secret |= {f"{name}: {one}": array.tobytes() for one, array in opened.items()}
    for site in SITES:
        for file in federation.site(site).rglob("*.pt"):
            if file.parent.name == STORED:  # the state of an optimizer, no weights
                continue
            weights = read_checkpoint(file).weights
            secret |= {f"{file}: {n}": t.numpy().tobytes() for n, t in weights.items()}
    wanted = {name: content for name, content in secret.items() if len(content) >= LEAST_BYTES}
    assert len(wanted) > 6 * 10

    found = held(federation.server, wanted) | held(results, wanted)

    assert found == set()
    # The same search finds them where they belong.
    assert held(federation.site("site-1"), wanted)


def held(folder: Path, wanted: dict[str, bytes]) -> set[str]:
    """Which of these contents stand in a file below a folder."""
    found: set[str] = set()
    for path in (one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
        for content in unpacked(path.read_bytes()):
            found |= {name for name, one in wanted.items() if one in content}
    return found


def test_the_server_holds_no_secret_key(federation: Federation, results: Path) -> None:
    key = (federation.site("site-1") / "startup" / CLIENT_CONTEXT).read_bytes()
    # Of the middle, which the server's own keys, with the same head, do not have.
    middle = {"key": key[len(key) // 2 : len(key) // 2 + 4096]}

    assert held(federation.site("site-2") / "startup", middle) == {"key"}
    assert held(federation.server, middle) == set()
    assert held(federation.lead, middle) == set()


def test_what_a_site_logged_as_encrypted_the_server_logged_as_received(
    federation: Federation, results: Path
) -> None:
    received = {
        (one["site"], one["tensors"])
        for one in federation.audit(SERVER)
        if one["event"] in ("contribution-accepted", "model-in")
    }
    sent = {
        (site, one["tensors"])
        for site in SITES
        for one in federation.audit(site)
        if one["event"] == "reply-encrypted"
    }

    assert received == sent
    assert len(received) == 2 * (2 + 1)  # two rounds and a best model


@contextmanager
def moved_away(file: Path) -> Iterator[None]:
    kept = file.with_suffix(".kept")
    file.rename(kept)
    yield
    kept.rename(file)


def test_a_kit_without_keys_refuses_the_job_in_one_line(
    federation: Federation, results: Path, encrypted_job: Path
) -> None:
    with moved_away(federation.site("site-2") / "startup" / CLIENT_CONTEXT):
        state = federation.run(encrypted_job)

    assert state.status == "FINISHED:FAILED_TO_RUN"
    answer = state.deployment["site-2"]
    assert answer.startswith("refused: encryption: ")
    assert "provisioned without 'he: true'" in answer
    assert "\n" not in answer
    assert SERVER not in answer
