"""A job folder: read, refused, and copied with another number of rounds and sites."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.job import Job
from fl_client.jobs.classes import ALLOWED_CLASSES
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, FEDERATION, SERVER_CONFIG

Edited = Callable[[Path, Callable[[Any], object]], Path]


def test_a_job_has_a_name_an_app_that_is_an_mmar_and_rounds(job: Job) -> None:
    again = Job.open(str(job.folder))

    assert again == job
    assert again.name == "spleen_ct_segmentation"
    assert again.mmar.root == again.folder / "app"
    assert again.rounds == 3


def test_it_names_its_classes(job: Job) -> None:
    found = job.class_paths()

    assert FEDERATION in found
    assert list(found) == sorted(set(found) & set(ALLOWED_CLASSES))


def test_a_nested_class_is_found_too(job: Job, edited: Edited) -> None:
    def nest(document: Any) -> None:
        document["workflows"][0]["args"] = {"model": [{"path": "os.system"}]}

    edited(job.mmar.document(SERVER_CONFIG), nest)

    assert "os.system" in job.class_paths()


# --- what is refused


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job: '.*/nothing' does not exist"):
        Job.open(tmp_path / "nothing")


def test_a_zip_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "job.zip").write_bytes(b"PK")

    with pytest.raises(ConfigError, match=r"job: '.*/job.zip' is not a folder\n.*unpacked first"):
        Job.open(tmp_path / "job.zip")


def test_a_folder_without_meta_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"meta\.json"):
        Job.open(tmp_path)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"deploy_map": {}}, "has to name one app for all sites"),
        ({"deploy_map": {"app": ["site-1"], "other": ["site-2"]}}, r"found \['app', 'other'\]"),
        ({"name": ""}, "has to be a name of letters"),
        ({"name": 7}, "has to be a name of letters"),
        ({"deploy_map": {"elsewhere": ["@ALL"]}}, "elsewhere' does not exist"),
    ],
)
def test_a_meta_json_that_does_not_say_what_to_run(
    job: Job, edited: Edited, meta: dict[str, Any], message: str
) -> None:
    edited(job.folder / "meta.json", lambda document: document.update(meta))

    with pytest.raises(ConfigError, match=message):
        Job.open(job.folder)


@pytest.mark.parametrize("file", [SERVER_CONFIG, CLIENT_CONFIG])
def test_an_app_without_its_federated_configs(job: Job, file: str) -> None:
    job.mmar.document(file).unlink()

    with pytest.raises(ConfigError, match=file.replace(".", r"\.")):
        Job.open(job.folder)


@pytest.mark.parametrize("rounds", [0, -1, True, 1.5, "3", None])
def test_a_number_of_rounds_that_is_none(job: Job, edited: Edited, rounds: Any) -> None:
    edited(job.mmar.document(SERVER_CONFIG), lambda document: document.update(num_rounds=rounds))

    with pytest.raises(ConfigError, match="num_rounds: has to be a positive whole number"):
        _ = job.rounds


# --- copied


def test_a_copy_has_the_rounds_and_sites_asked_for_and_the_job_stays(
    job: Job, tmp_path: Path
) -> None:
    copy = job.copied_to(tmp_path / "copy", rounds=7, min_sites=4)

    assert (copy.rounds, job.rounds) == (7, 3)
    assert copy.mmar.root == tmp_path / "copy" / "app"
    assert json.loads((copy.folder / "meta.json").read_text())["min_clients"] == 4
    assert json.loads(copy.mmar.document(SERVER_CONFIG).read_text())["min_clients"] == 4
    assert json.loads((job.folder / "meta.json").read_text())["min_clients"] == 2


def test_without_a_number_the_copy_keeps_the_jobs_rounds(job: Job, tmp_path: Path) -> None:
    assert job.copied_to(tmp_path / "copy", rounds=None, min_sites=1).rounds == 3


def test_the_training_itself_is_copied_unchanged(job: Job, tmp_path: Path) -> None:
    copy = job.copied_to(tmp_path / "copy", rounds=7, min_sites=4)

    for name in ("config_train.json", "config_cross_validation.json", CLIENT_CONFIG):
        assert copy.mmar.document(name).read_bytes() == job.mmar.document(name).read_bytes()


def test_a_copy_never_replaces_what_is_there(job: Job, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()

    with pytest.raises(FileExistsError):
        job.copied_to(tmp_path / "copy", rounds=1, min_sites=1)


# --- which sites it needs


@pytest.mark.parametrize(
    ("changes", "connected", "told"),
    [
        ({"min_clients": 3}, ["site-2", "site-1"],
         "the job needs 3 sites, 2 are connected: site-1, site-2"),
        ({"min_clients": 2}, ["site-1", "site-2"], ""),
        ({"min_clients": 2}, [], "the job needs 2 sites, 0 are connected"),
        ({"min_clients": 2, "deploy_map": {"app": ["server", "site-1", "site-3"]}},
         ["site-1", "site-2"], "the job needs 2 sites of site-1, site-3, 1 is connected: site-1"),
        ({"min_clients": 1, "mandatory_clients": ["site-3"]}, ["site-1"],
         "the job needs site-3, not connected now"),
        ({"min_clients": 2, "deploy_map": {"app": {"sites": ["@all"]}}}, ["site-1", "site-2"], ""),
    ],
)  # fmt: skip
def test_sites_that_a_job_lacks(
    job: Job, edited: Edited, changes: dict[str, Any], connected: list[str], told: str
) -> None:
    edited(job.folder / "meta.json", lambda meta: meta.update(changes))

    assert job.shortage(connected) == told
