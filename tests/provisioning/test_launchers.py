"""Kits for NVFlare's launchers of Slurm, Docker and Kubernetes, as its own command makes them."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS
from nvflare.apis.app_validation import AppValidationKey
from nvflare.apis.workspace import Workspace
from nvflare.app_opt.job_launcher import k8s_launcher
from nvflare.app_opt.job_launcher.slurm import launcher as slurm_launcher
from nvflare.app_opt.job_launcher.study_runtime import (
    load_study_runtime_file,
    resolve_study_runtime,
)
from nvflare.fuel.utils.class_utils import instantiate_class
from nvflare.private.fed.utils.app_authz import AppAuthzService
from nvflare.tool.deploy.deploy_common import LAUNCHER_IDS
from nvflare.utils.job_launcher_utils import (
    DOCKER_JOB_LAUNCHER_KEYS,
    validate_portable_resource_conflicts,
    validate_portable_resource_spec,
)

from fl_admin.kits.local_files import AUTHORIZATION
from fl_admin.kits.provision import Kits
from fl_admin.kits.setup.finding import State
from fl_admin.kits.setup.kit import open_kit
from fl_admin.kits.setup.kit_files import check_files, check_resources
from fl_client.job_check import check_job
from mmar_runtime.policy.site_policy import DEFAULT_POLICY
from tests.conftest import Edited
from tests.provisioning.conftest import PROVISIONING, SERVER, SITE

LAUNCHERS = PROVISIONING / "launchers"
RUNTIMES = ("slurm", "docker", "k8s")
PARTS = {"@default": {"num_of_gpus": 1, "num_of_cpus": 4, "memory": "16Gi"}}
JOB = PROVISIONING.parent / "jobs" / "spleen_ct_segmentation"
PAGE = PROVISIONING.parent / "docs" / "do" / "site-it.md"


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
    [launcher] = [one for one in components(prepared) if one["id"] in LAUNCHER_IDS]
    side = "Client" if (prepared / "startup/fed_client.json").is_file() else "Server"

    built = {
        one["id"]: instantiate_class(one["path"], one.get("args")) for one in components(prepared)
    }

    assert launcher["id"] == f"{prepared.name}_launcher"
    assert type(built[launcher["id"]]).__name__.startswith(side)


def test_what_was_prepared_is_as_strict_as_the_kit(prepared: Path) -> None:
    kit = open_kit(prepared)

    assert check_files(kit).state is State.OK
    assert check_resources(kit, DEFAULT_POLICY).state is State.OK
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


# --- What NVFlare's launchers would take from a job


@pytest.mark.parametrize("place", [("launcher_spec", SITE), ("launcher_spec", "default"),
                                   ("resource_spec", SITE)])  # fmt: skip
@pytest.mark.parametrize(
    ("mode", "spec"),
    [
        ("docker", {"image": "evil"}),
        ("docker", {"python_path": "/evil"}),
        ("docker", {"entrypoint": ["/bin/sh"]}),
        ("k8s", {"image": "evil"}),
        ("k8s", {"python_path": "/evil"}),
        ("slurm", {"image": "/evil.sif"}),
        ("slurm", {"nodes": 2, "additional_node_command": "touch /evil"}),
    ],
)
def test_what_a_launcher_would_run_is_code_to_nvflare_and_no_key_to_us(
    mode: str, spec: dict[str, Any], place: tuple[str, str], tmp_path: Path, edited: Edited
) -> None:
    """Nobody has the right to bring code, in the kits of ``mmar provision``."""
    key, name = place
    meta = {key: {name: {mode: spec}}}

    assert AppAuthzService.derive_local_app_info({}, meta, SITE) == {AppValidationKey.BYOC: True}
    roles = AUTHORIZATION["permissions"].values()
    assert {one.get("byoc", "none") for one in roles} == {"none"}

    job = shutil.copytree(JOB, tmp_path / "job")
    edited(job / "meta.json", lambda one: one.update(meta))
    assert not check_job(job).accepted


def keys_on_the_page(launcher: str) -> list[set[str]]:
    """The two cells of a launcher's line in the table of what it takes from a job."""
    [line] = [one for one in PAGE.read_text().splitlines() if one.startswith(f"| `{launcher}` |")]
    return [set(re.findall(r"`(\w+)`", cell)) for cell in line.strip("| ").split("|")[1:]]


def keys_that_kubernetes_takes() -> set[str]:
    source = inspect.getsource(k8s_launcher.K8sJobLauncher.launch_job)
    named = set(re.findall(r'k8s_spec(?:\.get\(|\[)"(\w+)"', source))
    [pair] = re.findall(r'for key in \("(\w+)", "(\w+)"\):\n +limit_val = k8s_spec', source)
    return {*named, *pair, *(f"{key}_request" for key in pair)}


@pytest.mark.parametrize(
    ("launcher", "taken"),
    [
        ("docker", set(DOCKER_JOB_LAUNCHER_KEYS)),
        ("k8s", keys_that_kubernetes_takes()),
        # Slurm's has no python_path of a job; NVFlare counts it as code all the same.
        ("slurm", {*slurm_launcher._JOB_SLURM_KEYS, "python_path"}),
    ],
)
def test_the_page_names_what_the_launchers_read(launcher: str, taken: set[str]) -> None:
    code, plain = keys_on_the_page(launcher)

    assert code | plain == taken
    assert code & plain == set()
    for key in taken:
        meta = {"launcher_spec": {SITE: {launcher: {key: "x"}}}}
        derived = AppAuthzService.derive_local_app_info({}, meta, SITE)
        assert bool(derived) == (key in code)


# --- What a launcher leaves out


def test_docker_takes_what_its_jobs_are_started_with() -> None:
    settings = yaml.safe_load((LAUNCHERS / "docker.yaml").read_text())
    words = settings["job_launcher"]["default_job_container_kwargs"]

    assert words.keys() <= {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS}
    assert (words["cap_drop"], words["read_only"]) == (["ALL"], True)
    assert words["security_opt"] == ["no-new-privileges"]


def test_the_commented_lines_take_the_rights_of_a_jobs_container_in_kubernetes(
    tmp_path: Path,
) -> None:
    text = (LAUNCHERS / "study_runtime.yaml").read_text()
    file = tmp_path / "study_runtime.yaml"
    file.write_text(re.sub(r"(?m)^    # (?=pod_template| )", "    ", text))

    studies = load_study_runtime_file(str(file), launcher_mode="k8s")
    template = resolve_study_runtime(studies, "default", str(file)).pod_template
    mount = {"name": "workspace", "mountPath": "/var/tmp/nvflare/workspace"}
    handle = k8s_launcher.K8sJobHandle(
        "job", None, {"name": "job", "command": "module", "image": "mmar-fl",
                      "container_name": "container-job", "require_main_container": True,
                      "volume_mount_list": [mount]},
        pod_manifest_template=template,
    )  # fmt: skip

    [container] = handle.get_manifest()["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == "mmar-fl"
    assert [one["mountPath"] for one in container["volumeMounts"]] == ["/tmp", mount["mountPath"]]


def test_on_a_node_of_slurm_a_copy_in_local_keeps_nvflare_to_json(
    kits: Kits, tmp_path: Path
) -> None:
    """The launcher sets the path of Python for a job, without what the start script puts there."""
    kit = shutil.copytree(kits.folder / SITE, tmp_path / SITE)
    shutil.copytree(kit / "startup/json_only", kit / "local/custom")

    path = slurm_launcher.SlurmJobLauncher._python_environment(
        Workspace(root_dir=str(kit), site_name=SITE), "job"
    )

    command = [sys.executable, "-c", "import pyhocon; print(pyhocon.__file__)"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(kit / "local/custom/pyhocon.py")


def test_a_job_says_nothing_of_launchers(tmp_path: Path, edited: Edited) -> None:
    job = shutil.copytree(JOB, tmp_path / "job")
    edited(job / "meta.json", lambda one: one.update(launcher_spec={SITE: {"docker": {}}}))

    [problem] = check_job(job).problems

    assert "unknown key 'launcher_spec'" in problem.message
