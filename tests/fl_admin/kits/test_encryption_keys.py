"""Keys of a federation that encrypts: who gets which, how long they last, and what they open."""

from __future__ import annotations

import json
import shutil
import stat
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager

from fl_admin.cli.main import main
from fl_admin.kits.encryption_keys import write_simulation_keys
from fl_admin.kits.provision import Kits, provision
from fl_admin.kits.setup.finding import State
from fl_admin.kits.setup.kit import open_kit
from fl_admin.kits.setup.kit_files import check_versions
from fl_client.flare.encryption import encrypted
from fl_client.flare.encryption_keys import site_keys
from fl_client.versions import VERSIONS_FILE, federation_versions
from mmar_runtime.errors import ConfigError, FederationError, WeightsError
from mmar_runtime.exchange.ckks import CLIENT_CONTEXT, SERVER_CONTEXT, Keys
from mmar_runtime.exchange.encrypted_files import write_encrypted_model
from mmar_runtime.weights import read_checkpoint

# NVFlare's check of signatures leaves the files that it reads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

TEMPLATE = Path(__file__).resolve().parents[3] / "provisioning" / "project.yml"
SERVER, SITES = "fl.example.org", ("site-1", "site-2")
MODEL = {"conv.weight": np.ones((2, 3), np.float32), "norm.batches": np.array(3)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("project") / "project.yml"
    path.write_text(TEMPLATE.read_text() + "he: true\n")
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kits")


@pytest.fixture(scope="module")
def kits(project: Path, out: Path) -> Kits:
    return provision(project, out)


def keys(kits: Kits, name: str, file: str) -> Keys:
    return Keys((kits.folder / name / "startup" / file).read_bytes(), source=file)


def test_sites_get_the_secret_key_and_the_server_does_not(kits: Kits) -> None:
    assert not keys(kits, SERVER, SERVER_CONTEXT).can_decrypt
    for site in SITES:
        assert keys(kits, site, CLIENT_CONTEXT).can_decrypt
    found = {path.relative_to(kits.folder).parts[0] for path in kits.folder.rglob(CLIENT_CONTEXT)}
    assert found == set(SITES)


def test_keys_can_be_read_by_nobody_else(kits: Kits) -> None:
    files = [*kits.folder.parent.rglob("*.tenseal"), *kits.folder.parent.rglob("he_keys.json")]

    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_startup_is_signed_and_what_is_the_sites_own_is_not(kits: Kits, name: str) -> None:
    startup = kits.folder / name / "startup"
    manager = SecurityContentManager(str(startup))

    assert manager.valid_config
    for path in startup.iterdir():
        if path.is_file() and path.name != "signature.json":
            assert manager.load_content(path.name)[1] == LoadResult.OK
    assert not (kits.folder / name / "local" / "signature.json").exists()


def test_keys_that_were_changed_are_not_used(kits: Kits, tmp_path: Path) -> None:
    site_keys(kits.folder / "site-1" / "startup")
    for path in (kits.folder / "site-1" / "startup").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    write = tmp_path / CLIENT_CONTEXT
    write.write_bytes(write.read_bytes() + b"\0")

    with pytest.raises(WeightsError, match="is not as it was provisioned: invalidSignature"):
        site_keys(tmp_path)


def test_a_site_that_joins_later_gets_the_same_keys(kits: Kits, project: Path, out: Path) -> None:
    later = project.with_name("later.yml")
    joins = "  - {name: site-3, type: client, org: hospital_c}\n"
    later.write_text(TEMPLATE.read_text() + joins + "he: true\n")

    again = provision(later, out)

    row = np.arange(5.0)
    sent = keys(kits, "site-1", CLIENT_CONTEXT).encrypt(row, 2.0)
    assert keys(again, SERVER, SERVER_CONTEXT).loaded(sent)
    back = keys(again, "site-3", CLIENT_CONTEXT).decrypt(sent, 2.0, 5)
    assert back == pytest.approx(row)


def test_the_kits_name_the_version_of_the_library_too(kits: Kits) -> None:
    for name in kits.participants:
        named = federation_versions(kits.folder / name) or {}
        assert named["tenseal"] == version("tenseal")


def test_a_site_with_another_version_of_the_library_is_told(kits: Kits, tmp_path: Path) -> None:
    kit = tmp_path / "site-1"
    shutil.copytree(kits.folder / "site-1", kit)
    named = json.loads((kit / VERSIONS_FILE).read_text())
    (kit / VERSIONS_FILE).write_text(json.dumps({**named, "tenseal": "0.2.1"}))

    told = check_versions(open_kit(kit))

    assert told.state is State.FAULT
    assert f"installed: tenseal {version('tenseal')}, the federation 0.2.1" in told.message


def test_without_the_line_a_kit_has_neither_keys_nor_signatures(tmp_path: Path) -> None:
    plain = provision(TEMPLATE, tmp_path)

    assert not list(plain.folder.rglob("*.tenseal"))
    assert not list(plain.folder.rglob("signature.json"))
    assert "tenseal" not in (federation_versions(plain.folder / "site-1") or {})


def test_a_project_that_says_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "project.yml"
    path.write_text(TEMPLATE.read_text() + "he: please\n")

    with pytest.raises(ConfigError, match="he: has to be true or false, found 'please'"):
        provision(path, tmp_path)


def test_without_the_extra_nothing_is_provisioned(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_admin.kits.provision.extra_is_installed", lambda: False)

    with pytest.raises(ConfigError, match=r"pip install 'mmar-fl\[he\]'"):
        provision(project, tmp_path)


def test_kept_keys_that_cannot_be_used_any_more_are_told(project: Path, tmp_path: Path) -> None:
    first = provision(project, tmp_path)
    (first.folder.parent / "state" / "he_keys.json").write_text('{"client": "AAAA"}')

    with pytest.raises(FederationError, match=r"he_keys\.json holds no keys that can be read"):
        provision(project, tmp_path)


# --- a model made readable


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    write_simulation_keys(tmp_path / "kit" / "startup")
    (tmp_path / "kit" / "local").mkdir()
    return tmp_path / "kit"


@pytest.fixture
def model(kit: Path, tmp_path: Path) -> Path:
    arrays = encrypted(MODEL, None, layers=["*"], weight=6.0, keys=site_keys(kit / "startup"))
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    path = tmp_path / "FL_global_model.encrypted.safetensors"
    write_encrypted_model(path, weights, {"train": {"model": {"name": "UNet"}}})
    return path


def decrypt(kit: Path, model: Path, out: Path) -> int:
    words = ["site", "decrypt", "--kit", kit, "--model", model, "--out", out]
    return main([str(word) for word in words])


def test_a_holder_of_the_keys_makes_a_checkpoint(kit: Path, model: Path, tmp_path: Path) -> None:
    assert decrypt(kit, model, tmp_path / "global.pt") == 0

    found = read_checkpoint(tmp_path / "global.pt")
    assert {n: (t.dtype, tuple(t.shape)) for n, t in found.weights.items()} == {
        "conv.weight": (torch.float32, (2, 3)),
        "norm.batches": (torch.int64, ()),
    }
    assert found.weights["conv.weight"].numpy() == pytest.approx(MODEL["conv.weight"], rel=1e-6)
    assert found.train_conf == {"train": {"model": {"name": "UNet"}}}


def test_nobody_else_does(
    kit: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_simulation_keys(tmp_path / "other" / "startup")
    server = tmp_path / "server" / "startup"
    server.mkdir(parents=True)
    for name in ("other", "server"):
        (tmp_path / name / "local").mkdir()
    (kit / "startup" / SERVER_CONTEXT).rename(server / SERVER_CONTEXT)

    assert decrypt(tmp_path / "other", model, tmp_path / "global.pt") == 2
    assert "encrypted with other keys" in capfd.readouterr().err
    assert decrypt(tmp_path / "server", model, tmp_path / "global.pt") == 2
    assert "provisioned without 'he: true'" in capfd.readouterr().err
    (server / "fed_server.json").write_text("{}")
    assert decrypt(tmp_path / "server", model, tmp_path / "global.pt") == 2
    assert "is the kit of a server" in capfd.readouterr().err
    assert not (tmp_path / "global.pt").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [("model.txt", "has to end in .pt"), ("there.pt", "is there already")],
)
def test_nothing_is_written_over(
    kit: Path, model: Path, tmp_path: Path, name: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.pt").write_text("kept")

    assert decrypt(kit, model, tmp_path / name) == 2

    assert told in capfd.readouterr().err
    assert (tmp_path / "there.pt").read_text() == "kept"


def test_a_checkpoint_is_no_encrypted_model(
    kit: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert decrypt(kit, tmp_path / "model.pt", tmp_path / "global.pt") == 2

    assert "an encrypted model is called" in capfd.readouterr().err


def test_keys_of_a_simulation_are_for_one_user_and_one_run(tmp_path: Path) -> None:
    write_simulation_keys(tmp_path / "a")
    write_simulation_keys(tmp_path / "b")

    files = list(tmp_path.rglob("*.tenseal"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    one, two = (tmp_path / name / CLIENT_CONTEXT for name in ("a", "b"))
    assert one.read_bytes() != two.read_bytes()


# --- a job that asks for it


def test_create_writes_what_both_sides_need(tiny_mmar: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    words = ["job", "create", tiny_mmar, "--out", job, "--encrypt-layers", "model.*"]

    assert main([str(word) for word in words]) == 0

    config = job / "app" / "config"
    server = json.loads((config / "config_fed_server.json").read_text())
    client = json.loads((config / "config_fed_client.json").read_text())
    assert server["workflows"][0]["args"]["encrypt_layers"] == ["model.*"]
    [chain] = client["task_result_filters"]
    assert chain["tasks"] == ["train", "submit_model"]
    assert chain["filters"][0]["args"] == {"encrypt_layers": ["model.*"]}
    assert main(["check", str(job)]) == 0


def test_show_tells_of_it(
    tiny_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["job", "create", str(tiny_mmar), "--out", str(tmp_path / "job"), "--he"])
    capfd.readouterr()

    main(["job", "show", str(tmp_path / "job")])

    assert "encrypted:      *\n" in capfd.readouterr().out


def test_no_job_is_made_that_names_what_is_not_to_be_encrypted(
    tiny_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "job"

    asked = ["job", "create", str(tiny_mmar), "--out", str(out), "--encrypt-layers", "!model.*"]
    assert main(asked) == 2

    assert "begins with '!', which only shared_names takes" in capfd.readouterr().err
    assert not out.exists()


def test_without_the_extra_no_job_is_made(
    tiny_mmar: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("fl_admin.jobs.settings.extra_is_installed", lambda: False)

    assert main(["job", "create", str(tiny_mmar), "--out", str(tmp_path / "job"), "--he"]) == 2

    assert "pip install 'mmar-fl[he]'" in capfd.readouterr().err
    assert not (tmp_path / "job").exists()


def test_without_the_extra_nothing_is_simulated(
    tiny_mmar: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    main(["job", "create", str(tiny_mmar), "--out", str(tmp_path / "job"), "--he"])
    monkeypatch.setattr("fl_admin.simulation.plan.extra_is_installed", lambda: False)

    for site in ("site-1", "site-2"):
        shutil.copytree(tiny_mmar / "data", tmp_path / "sites" / site)
    words = ["simulate", tmp_path / "job", "--data", tmp_path / "sites"]
    words += ["--workspace", tmp_path / "runs"]
    assert main([str(word) for word in words]) == 2

    assert "pip install 'mmar-fl[he]'" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()
