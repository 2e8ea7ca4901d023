"""MMARs made into jobs: what stands in a job, what stays at home, and what no federation can do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.create import CreatedJob, JobRequest, create_job, mmar_to_federate, temporary_job
from fl_admin.jobs.job import Job
from fl_admin.jobs.settings import JobSettings
from fl_client.job_check import check_job
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.errors import ConfigError, MmarError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.mmar_check import SITE_VARIABLES
from mmar_runtime.policy.site_policy import OWN_MMAR_POLICY

Edited = Callable[[Path, Callable[[Any], object]], Path]

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLE = REPOSITORY / "jobs" / "spleen_ct_segmentation"
MMARS = REPOSITORY / "tests" / "mmars"

PLAIN = (
    "classification_2d",
    "classification_2d_v4_0",
    "fine_tuning",
    "multi_class_slices",
    "multi_class_v4_1",
    "segmentation_3d",
    "segmentation_3d_v4_0",
)
WITH_CODE = ("click_training", "own_components")
NOT_FEDERATED = {
    "ensemble": "needs a section 'validate' with a 'key_metric'",
    "gan": "needs an entry 'model' in 'train'",
    "own_workflow": "needs an entry 'model' in 'train'",
}


def made(mmar: Path, out: Path, **request: Any) -> CreatedJob:
    overwrite = request.pop("overwrite", False)
    return create_job(JobRequest(mmar=Mmar.open(mmar), **request), out, overwrite=overwrite)


def document(job: Job, name: str) -> Any:
    return json.loads(job.mmar.document(name).read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- every MMAR of this repository


def test_each_mmar_is_of_one_kind() -> None:
    names = {folder.parent.name for folder in MMARS.glob("*/config")}

    assert names == {*PLAIN, *WITH_CODE, *NOT_FEDERATED}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_mmar_becomes_a_job_that_every_site_takes(name: str, tmp_path: Path) -> None:
    created = made(MMARS / name, tmp_path / "job")

    assert created.refusals == ()
    assert check_job(created.job.folder).accepted
    assert created.job.name == name


@pytest.mark.parametrize("name", WITH_CODE)
def test_an_mmar_with_code_becomes_one_for_sites_that_allow_its_code(
    name: str, tmp_path: Path
) -> None:
    created = made(MMARS / name, tmp_path / "job", with_code=True)

    assert {problem.rule for problem in created.refusals} == {"code"}
    assert check_job(created.job.folder, OWN_MMAR_POLICY).accepted
    assert files(created.job.mmar.custom) == {
        file: content
        for file, content in files(MMARS / name / "custom").items()
        if "__pycache__" not in file
    }


@pytest.mark.parametrize("name", WITH_CODE)
def test_without_its_code_it_becomes_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is code of the MMAR's own\n +--with-code takes"):
        made(MMARS / name, tmp_path / "job")


@pytest.mark.parametrize("name", NOT_FEDERATED)
def test_what_no_federation_can_train_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=NOT_FEDERATED[name]):
        made(MMARS / name, tmp_path / "job", with_code=True)


# --- what stands in the job


def test_the_author_s_documents_are_copied_byte_for_byte(tmp_path: Path) -> None:
    """Old dialects too: whoever runs them reads both."""
    source = MMARS / "segmentation_3d_v4_0"

    app = made(source, tmp_path / "job").job.mmar.root

    for folder in ("commands", "docs", "resources"):
        assert files(app / folder) == files(source / folder)
    for file in ("config_train.json", "config_validation.json", "config_inference.json"):
        assert (app / "config" / file).read_bytes() == (source / "config" / file).read_bytes()
    assert os.access(app / "commands" / "train.sh", os.X_OK)


def test_the_example_job_is_what_create_makes_of_its_mmar(tmp_path: Path) -> None:
    settings = JobSettings(rounds=3, min_sites=2, local_epochs=3)

    job = made(EXAMPLE / "app", tmp_path / "job", name=EXAMPLE.name, settings=settings).job

    example = Job.open(EXAMPLE)
    for file in (SERVER_CONFIG, CLIENT_CONFIG):
        assert document(job, file) == document(example, file)
    meta = json.loads((job.folder / "meta.json").read_text())
    assert meta == json.loads((EXAMPLE / "meta.json").read_text())
    ours = {file for file in files(job.folder) if not file.endswith(".gitkeep")}
    assert ours == {file for file in files(EXAMPLE) if not file.endswith(".gitkeep")}


def test_the_settings_stand_at_their_places(tiny_mmar: Path, tmp_path: Path) -> None:
    settings = JobSettings(
        rounds=7,
        min_sites=3,
        local_epochs=2,
        steps_aggregation=5,
        weigh_by="equal",
        aggregation_weights={"site-2": 2.0},
        arguments={"train_timeout": 60},
    )

    job = made(tiny_mmar, tmp_path / "job", settings=settings, name="a trial").job

    server, client = document(job, SERVER_CONFIG), document(job, CLIENT_CONFIG)
    meta = json.loads((job.folder / "meta.json").read_text())
    assert (meta["name"], meta["min_clients"]) == ("a trial", 3)
    assert (server["num_rounds"], server["min_clients"]) == (7, 3)
    assert (client["local_epochs"], client["steps_aggregation"]) == (2, 5)
    terms = job.documents.terms
    assert (terms.rounds, terms.min_sites, terms.local_epochs) == (7, 3, 2)
    assert (terms.weigh_by, terms.train_timeout) == ("equal", 60)
    assert terms.aggregation_weights == {"site-2": 2.0}
    assert check_job(job.folder).accepted


def test_sites_weigh_by_their_samples_unless_the_job_says_otherwise(
    tiny_mmar: Path, tmp_path: Path
) -> None:
    job = made(tiny_mmar, tmp_path / "job").job

    assert "weigh_by" not in job.documents.federation
    assert job.documents.terms.weigh_by == "samples"


def test_the_author_s_data_and_data_list_stay_at_home(tiny_mmar: Path, tmp_path: Path) -> None:
    (tiny_mmar / "config" / "dataset_0.json").write_text('{"training": [{"image": "doe.nii"}]}')
    (tiny_mmar / "notes.txt").write_text("private")

    created = made(tiny_mmar, tmp_path / "job")

    environment = document(created.job, "environment.json")
    assert {name: environment[name] for name in SITE_VARIABLES} == SITE_VARIABLES
    assert environment["PROCESSING_TASK"] == "segmentation"
    content = b"".join(files(created.job.folder).values())
    assert b"doe.nii" not in content
    assert str(tiny_mmar).encode() not in content
    assert any("taken out; each site has its own" in one for one in created.notices)
    assert any("config/dataset_0.json" in one for one in created.notices)
    assert any("data, notes.txt" in one for one in created.notices)


def test_values_are_written_into_the_environment_where_they_win(
    tiny_mmar: Path, tmp_path: Path
) -> None:
    created = made(tiny_mmar, tmp_path / "job", values={"learning_rate": 0.5})

    config = load_train_config(created.job.mmar, site=SITE_VARIABLES)
    assert config.variables["learning_rate"].value == 0.5


def test_a_value_that_no_workflow_uses_is_refused(tiny_mmar: Path, tmp_path: Path) -> None:
    # The cross-site validation knows no learning rate, and the training does.
    with pytest.raises(ConfigError) as caught:
        made(tiny_mmar, tmp_path / "job", values={"learning_rate": 0.5, "epoch": 3})

    assert [problem.message for problem in caught.value.problems] == [
        "nothing here uses the variable 'epoch'. Did you mean 'epochs'?"
    ]


# --- weights


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """An MMAR with two files of weights; its CheckpointLoader, off by default, reads the first."""
    root = shutil.copytree(MMARS / "fine_tuning", tmp_path / "mmar")
    (root / "models").mkdir()
    (root / "models" / "pretrained.pt").write_bytes(b"weights to start from")
    (root / "models" / "model.pt").write_bytes(b"weights of an earlier run")
    return root


def test_weights_that_nothing_starts_from_stay_at_home(pretrained: Path, tmp_path: Path) -> None:
    created = made(pretrained, tmp_path / "job")

    assert not created.job.mmar.models.exists()
    assert any("models/model.pt, models/pretrained.pt" in one for one in created.notices)


def test_weights_that_the_training_starts_from_go_along(pretrained: Path, tmp_path: Path) -> None:
    created = made(pretrained, tmp_path / "job", values={"dont_load_ckpt_model": False})

    assert files(created.job.mmar.models) == {"pretrained.pt": b"weights to start from"}
    assert any("left out: models/model.pt" in one for one in created.notices)
    assert created.refusals == ()


def test_weights_that_are_not_there_are_asked_for(pretrained: Path, tmp_path: Path) -> None:
    (pretrained / "models" / "pretrained.pt").unlink()

    with pytest.raises(ConfigError, match=r"start from 'models/pretrained.pt', and there is no"):
        made(pretrained, tmp_path / "job", values={"dont_load_ckpt_model": False})


@pytest.mark.parametrize("file", ["../elsewhere.pt", "/elsewhere.pt", "weights/model.pt"])
def test_weights_have_their_place_in_models(pretrained: Path, tmp_path: Path, file: str) -> None:
    values = {"dont_load_ckpt_model": False, "MMAR_CKPT": file}

    with pytest.raises(ConfigError, match=r"Put the file into models/"):
        made(pretrained, tmp_path / "job", values=values)


# --- cross-site validation


def test_it_is_made_from_the_validation_with_the_network_itself(tmp_path: Path) -> None:
    created = made(MMARS / "segmentation_3d", tmp_path / "job")

    job = created.job
    cross, validation = (
        document(job, "config_cross_validation.json"),
        document(job, "config_validation.json"),
    )
    assert cross["model"] == document(job, "config_train.json")["train"]["model"]
    assert {**cross, "model": None} == {**validation, "model": None}
    assert any("is made from config_validation.json" in one for one in created.notices)


def test_without_a_validation_it_is_made_from_the_section_validate(tmp_path: Path) -> None:
    """Its refs are written out; what keeps a site's own best model is not for models of others."""
    created = made(MMARS / "click_training", tmp_path / "job", with_code=True)

    config = load_evaluation_config(
        created.job.mmar, file="config_cross_validation.json", site=SITE_VARIABLES
    )
    train = load_train_config(created.job.mmar, site=SITE_VARIABLES)
    assert train.validate is not None
    for slot in ("pre_transforms", "post_transforms"):
        assert [one.title for one in config.section.specs(slot)] == [
            one.title for one in train.validate.specs(slot)
        ]
    assert "FirstClickd" in [one.title for one in config.section.specs("pre_transforms")]
    handlers = [one.name for one in config.section.specs("handlers")]
    assert handlers[0] == "CheckpointLoader"
    assert "CheckpointSaver" not in handlers
    assert any("is made from the section 'validate'" in one for one in created.notices)


def test_one_that_is_there_stays_as_it_is(tiny_mmar: Path, tmp_path: Path) -> None:
    created = made(tiny_mmar, tmp_path / "job")

    name = "config/config_cross_validation.json"
    assert (created.job.mmar.root / name).read_bytes() == (tiny_mmar / name).read_bytes()


def test_one_that_reads_the_network_from_a_file_is_refused(tiny_mmar: Path, tmp_path: Path) -> None:
    config = tiny_mmar / "config"
    shutil.copy(config / "config_validation.json", config / "config_cross_validation.json")

    with pytest.raises(ConfigError, match="needs the network itself, not a file of weights"):
        made(tiny_mmar, tmp_path / "job")


def test_a_variable_of_the_network_goes_along(
    tiny_mmar: Path, tmp_path: Path, edited: Edited
) -> None:
    (tiny_mmar / "config" / "config_cross_validation.json").unlink()

    def with_variable(train: Any) -> None:
        train["classes"] = 2
        train["train"]["model"]["args"]["out_channels"] = "{classes}"

    edited(tiny_mmar / "config" / "config_train.json", with_variable)

    assert (
        document(made(tiny_mmar, tmp_path / "job").job, "config_cross_validation.json")["classes"]
        == 2
    )

    edited(tiny_mmar / "config" / "config_validation.json", lambda one: one.update(classes=3))
    with pytest.raises(ConfigError, match=r"classes: is 3, and 2 in config_train.json"):
        made(tiny_mmar, tmp_path / "other")


# --- what is refused


def test_all_problems_are_told_at_once_and_nothing_is_left(
    tiny_mmar: Path, tmp_path: Path, edited: Edited
) -> None:
    edited(
        tiny_mmar / "config" / "config_train.json",
        lambda train: train["train"]["model"].update(name="UNte"),
    )
    wrong: Any = "cases"
    settings = JobSettings(rounds=0, min_sites=0, weigh_by=wrong, aggregation_weights={"a/b": -1})
    folder = tmp_path / "jobs"

    with pytest.raises(ConfigError) as caught:
        made(tiny_mmar, folder / "job", settings=settings, name="?", values={"DATA_ROOT": "/data"})

    places = {problem.location.place for problem in caught.value.problems}
    assert places >= {
        "train.model.name",
        "rounds",
        "min_sites",
        "name",
        "DATA_ROOT",
        "weigh_by",
        "aggregation_weights['a/b']",
    }
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("names", [(), ("",), ("conv.*", "*a*b*c*d*")])
def test_tensors_to_encrypt_that_no_site_would_take_are_refused(
    tiny_mmar: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    settings = JobSettings(encrypt_layers=names)

    with pytest.raises(ConfigError, match=r"encrypt_layers.*(name of a tensor|names of|more than)"):
        made(tiny_mmar, tmp_path / "job", settings=settings)


def test_what_a_site_would_refuse_is_told_and_the_job_is_there(
    tiny_mmar: Path, tmp_path: Path
) -> None:
    """A site may allow more than the default; a limit of the policy is no fault of the job."""
    created = made(tiny_mmar, tmp_path / "job", settings=JobSettings(local_epochs=1000))

    assert [str(one.location) for one in created.refusals][:1] == [f"{CLIENT_CONFIG}: local_epochs"]
    assert Job.open(tmp_path / "job") == created.job


def test_a_job_is_no_mmar() -> None:
    with pytest.raises(ConfigError, match="is a job already"):
        mmar_to_federate(EXAMPLE)


def test_code_with_a_link_is_refused(tmp_path: Path) -> None:
    mmar = shutil.copytree(MMARS / "own_components", tmp_path / "mmar")
    (mmar / "custom" / "more.py").symlink_to("/etc/hostname")

    with pytest.raises(ConfigError, match=r"more\.py: is not a plain file"):
        made(mmar, tmp_path / "job", with_code=True)


# --- where it is written


def test_a_job_that_is_there_is_replaced_only_if_asked(tiny_mmar: Path, tmp_path: Path) -> None:
    out = tmp_path / "job"
    before = files(made(tiny_mmar, out, name="first").job.folder)

    with pytest.raises(ConfigError, match="--overwrite replaces it"):
        made(tiny_mmar, out, name="second")
    assert files(out) == before
    assert made(tiny_mmar, out, name="second", overwrite=True).job.name == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "mmar"]


def test_an_error_leaves_the_job_that_is_there(tiny_mmar: Path, tmp_path: Path) -> None:
    out = tmp_path / "job"
    before = files(made(tiny_mmar, out).job.folder)

    with pytest.raises(ConfigError):
        made(tiny_mmar, out, settings=JobSettings(rounds=0), overwrite=True)
    assert files(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "mmar"]


def test_nothing_but_a_job_is_ever_replaced(tiny_mmar: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")

    for out in (tmp_path / "home", tmp_path / "home" / "letter.txt"):
        with pytest.raises(ConfigError, match="is there and is not a job"):
            made(tiny_mmar, out, overwrite=True)
    with pytest.raises(ConfigError, match="holds the MMAR itself"):
        made(tiny_mmar, tmp_path, overwrite=True)


def test_a_folder_that_cannot_be_written_is_said(tiny_mmar: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(MmarError, match="the job cannot be made: "):
        made(tiny_mmar, tmp_path / "file" / "job")


def test_a_temporary_job_is_gone_afterwards(tiny_mmar: Path) -> None:
    with temporary_job(JobRequest(mmar=Mmar.open(tiny_mmar))) as created:
        assert check_job(created.job.folder).accepted

    assert not created.job.folder.exists()
