"""What a site's policy and values leave to the process of a job."""

from __future__ import annotations

from pathlib import Path

from fl_client.jobs.wall import LAUNCHER, job_confinement, other_launchers
from mmar_runtime.confinement.wall import Confinement
from mmar_runtime.policy.site_policy import Limits, SitePolicy


def test_the_limits_of_a_policy_are_those_of_the_process() -> None:
    policy = SitePolicy(limits=Limits(memory_gib=2, disk_gib=3))

    rights = Confinement(connect_ports=(8003,), write=(Path("/run"),))

    found = job_confinement(rights, policy, [])

    assert (found.memory, found.file_bytes) == (2 * 2**30, 3 * 2**30)
    assert (found.connect_ports, found.write) == ((8003,), (Path("/run"),))


def test_a_site_that_lets_handlers_send_bounds_no_ports() -> None:
    found = job_confinement(Confinement(connect_ports=(8003,)), SitePolicy(egress=True), [])

    assert found.connect_ports is None


def test_a_job_reads_the_data_of_the_policy_and_the_paths_among_the_values() -> None:
    policy = SitePolicy(data_roots=(Path("/data"),))
    values = {"DATA_ROOT": "/data/study", "NAME": "data/relative", "NUM_PROCESSES": 2}

    found = job_confinement(Confinement(read=(Path("/job"),)), policy, [values, {"LIST": "/list"}])

    assert found.read == tuple(map(Path, ("/job", "/data", "/data/study", "/list")))


def test_a_launcher_that_confines_nothing_is_found() -> None:
    path = "nvflare.app_opt.job_launcher.docker_launcher.ClientDockerJobLauncher"
    components = [{"id": "launcher", "path": LAUNCHER}, {"id": "gate", "path": "a.ResultGate"}]

    assert other_launchers({"components": components}) == []
    assert other_launchers({"components": [*components, {"path": path}]}) == [path]
