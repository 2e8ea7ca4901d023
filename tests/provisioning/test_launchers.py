"""Kits for NVFlare's launchers of Slurm, Docker and Kubernetes, as its own command makes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.app_validation import AppValidationKey
from nvflare.app_opt.job_launcher.study_runtime import (
    load_study_runtime_file,
    resolve_study_runtime,
)
from nvflare.fuel.utils.class_utils import instantiate_class
from nvflare.private.fed.utils.app_authz import AppAuthzService
from nvflare.utils.job_launcher_utils import (
    validate_portable_resource_conflicts,
    validate_portable_resource_spec,
)

from fl_admin.local_files import AUTHORIZATION
from fl_admin.provision import Kits
from fl_admin.setup.finding import State
from fl_admin.setup.kit import open_kit
from fl_admin.setup.kit_files import check_files, check_resources
from fl_client.job_check import check_job
from tests.conftest import Edited
from tests.provisioning.conftest import PROVISIONING, SERVER, SITE

LAUNCHERS = PROVISIONING / "launchers"
RUNTIMES = ("slurm", "docker", "k8s")
PARTS = {"@default": {"num_of_gpus": 1, "num_of_cpus": 4, "memory": "16Gi"}}
JOB = PROVISIONING.parent / "jobs" / "spleen_ct_segmentation"


@pytest.fixture(
    scope="module", params=[(runtime, name) for runtime in RUNTIMES for name in (SITE, SERVER)]
)
def prepared(
    request: pytest.FixtureRequest, kits: Kits, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A kit after ``nvflare deploy prepare``, in a folder named after the runtime."""
    runtime, name = request.param
    folder = tmp_path_factory.mktemp("prepared") / runtime
    words = [kits.folder / name, "--output", folder, "--config"]
    command = [Path(sys.executable).with_name("nvflare"), "deploy", "prepare", *words]
    subprocess.run([*map(str, command), LAUNCHERS / f"{runtime}.yaml"], check=True)
    return folder


def components(kit: Path) -> list[Any]:
    document = json.loads((kit / "local" / "resources.json.default").read_text())
    return list(document["components"])


def test_nvflare_builds_every_component_of_what_was_prepared(prepared: Path) -> None:
    [launcher] = [one for one in components(prepared) if one["id"] == f"{prepared.name}_launcher"]
    side = "Client" if (prepared / "startup/fed_client.json").is_file() else "Server"

    built = {
        one["id"]: instantiate_class(one["path"], one.get("args")) for one in components(prepared)
    }

    assert type(built[launcher["id"]]).__name__.startswith(side)


def test_what_was_prepared_is_as_strict_as_the_kit(prepared: Path) -> None:
    kit = open_kit(prepared)

    assert check_files(kit).state is State.OK
    assert check_resources(kit).state is State.OK
    assert json.loads((prepared / "local/authorization.json").read_text()) == AUTHORIZATION


@pytest.mark.parametrize("runtime", ["docker", "k8s"])
def test_what_a_job_finds_in_its_container_is_understood(runtime: str) -> None:
    file = str(LAUNCHERS / "study_runtime.yaml")

    studies = load_study_runtime_file(file, launcher_mode=runtime)
    study = resolve_study_runtime(studies, "default", file)

    assert study.container_image == "mmar-fl"
    [data] = study.datasets
    assert (data.study, data.dataset, data.mode) == ("default", "images", "ro")


def test_a_job_asks_for_its_part_of_a_machine_in_words_that_all_launchers_know(
    tmp_path: Path, edited: Edited
) -> None:
    job = shutil.copytree(JOB, tmp_path / "job")
    edited(job / "meta.json", lambda one: one.update(resource_spec=PARTS))

    assert check_job(job).accepted
    validate_portable_resource_spec(PARTS)
    validate_portable_resource_conflicts({"resource_spec": PARTS})


@pytest.mark.parametrize(
    ("mode", "spec"),
    [
        ("docker", {"image": "evil"}),
        ("docker", {"python_path": "/evil"}),
        ("docker", {"entrypoint": ["/bin/sh"]}),
        ("k8s", {"image": "evil"}),
        ("slurm", {"image": "/evil.sif"}),
        ("slurm", {"nodes": 2, "additional_node_command": "touch /evil"}),
    ],
)
def test_nvflare_counts_what_a_job_would_run_by_a_launcher_as_code(
    mode: str, spec: dict[str, Any]
) -> None:
    """Which nobody has the right to bring, in the kits of ``mmar provision``."""
    meta = {"launcher_spec": {SITE: {mode: spec}}}

    assert AppAuthzService.derive_local_app_info({}, meta, SITE) == {AppValidationKey.BYOC: True}

    roles = AUTHORIZATION["permissions"].values()
    assert {one.get("byoc", "none") for one in roles} == {"none"}


def test_a_job_says_nothing_of_launchers(tmp_path: Path, edited: Edited) -> None:
    job = shutil.copytree(JOB, tmp_path / "job")
    edited(job / "meta.json", lambda one: one.update(launcher_spec={SITE: {"docker": {}}}))

    [problem] = check_job(job).problems

    assert "unknown key 'launcher_spec'" in problem.message
