"""NVFlare's simulator as an engine: a process for each site."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fl_admin.at_server.job_results import fatal_errors
from fl_admin.kits.split_paths import SPLIT_AT, is_split
from fl_admin.simulation.engine import Engine, EngineName, SimulationPlan
from fl_admin.simulation.follow import RunFollower
from fl_admin.simulation.processes import MEMORY_OF_NVFLARE
from fl_admin.simulation.run_folder import JOB_FOLDER, RunFolder, site_errors
from fl_admin.simulation.site_values import Values, common_values
from fl_client.jobs.classes import ALLOWED_CLASSES
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.files import write_json
from mmar_runtime.flare import HANDOVER
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    SITE_POLICY_FILE,
    SitePolicy,
    policy_document,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NvflareEngine(Engine):
    """Runs a simulation in NVFlare's simulator.

    Attributes:
        gpu: the GPUs that NVFlare shares out; None for none.
    """

    name: ClassVar[EngineName] = "nvflare"
    gpu: str | None = None

    def new_folder(self, workspace: Path) -> RunFolder:
        """Make the next free folder of a workspace.

        Raises:
            ConfigError: NVFlare's simulator cannot pass the path on.
        """
        path = workspace.expanduser().resolve()
        if is_split(path):
            message = f"NVFlare cannot simulate below a path with {SPLIT_AT}: {str(path)!r}"
            advice = "Choose another one."
            raise ConfigError([Problem(Location("--workspace"), message, advice, "workspace")])
        return RunFolder.create(path)

    def prepare(self, plan: SimulationPlan, folder: RunFolder) -> None:
        """Write what all sites read in ``local/``, and the keys of a job that encrypts."""
        workspace = self._workspace(plan, folder)
        classes = {*ALLOWED_CLASSES, *plan.job.class_paths()}  # those of its own code were judged
        write_local(workspace / "local", plan.sites, policy=plan.policy, classes=sorted(classes))
        folder.handover.mkdir(mode=0o700)
        if plan.job.encrypts:
            from fl_admin.kits.encryption_keys import write_simulation_keys  # imports NVFlare

            write_simulation_keys(workspace / "startup")

    def command(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        """Return the command of the process that starts NVFlare's simulator."""
        module = "fl_admin.simulation.nvflare_process"
        words = [sys.executable, "-P", "-m", module, str(folder.job)]
        words += ["--name", plan.job.name, "--sites", ",".join(plan.sites)]
        words += ["--workspace-root", str(folder.flare)]
        return [*words, "--gpu", self.gpu] if self.gpu else words

    def environment(self, given: Mapping[str, str], folder: RunFolder) -> dict[str, str]:
        """Return the given variables, what glibc's malloc needs, and where models are passed on."""
        return {**MEMORY_OF_NVFLARE, **given, HANDOVER: str(folder.handover)}

    def follower(self, plan: SimulationPlan, folder: RunFolder) -> RunFollower:
        """Return an object that reads what sites and server write into NVFlare's workspace."""
        workspace = self._workspace(plan, folder)
        return RunFollower(
            {site: workspace / site / JOB_FOLDER / "progress.jsonl" for site in plan.sites},
            self._results(plan, folder) / folder.record.name,
            plan.rounds,
        )

    def collect(self, plan: SimulationPlan, folder: RunFolder) -> None:
        """Copy the server's results into the run folder."""
        results = self._results(plan, folder)
        if results.is_dir():
            shutil.copytree(results, folder.results, dirs_exist_ok=True)

    def site_errors(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        """Return the errors in the folders of the sites."""
        return site_errors(self._workspace(plan, folder), f"*/{JOB_FOLDER}/error-*.txt")

    def failure(self, plan: SimulationPlan, folder: RunFolder, code: int) -> str:
        """Return the errors of the sites and the reasons for which NVFlare ended the run."""
        log = folder.log(self.name)
        errors = self.site_errors(plan, folder)
        errors += fatal_errors(log)
        return "; ".join(dict.fromkeys(errors)) or f"NVFlare ended with code {code}; see {log}"

    def kit(self, plan: SimulationPlan, folder: RunFolder, site: str) -> Path:
        """Return the site's folder in NVFlare's workspace."""
        return self._workspace(plan, folder) / site

    def _workspace(self, plan: SimulationPlan, folder: RunFolder) -> Path:
        return folder.flare / plan.job.name

    def _results(self, plan: SimulationPlan, folder: RunFolder) -> Path:
        return self._workspace(plan, folder) / "server" / JOB_FOLDER / "results"


def write_local(
    local: Path,
    sites: Mapping[str, Values],
    *,
    policy: SitePolicy = DEFAULT_POLICY,
    classes: Sequence[str] = ALLOWED_CLASSES,
) -> None:
    """Write what all sites of NVFlare's simulator read in ``local/``: values, classes, policy.

    Args:
        local: the folder, in NVFlare's workspace of the job.
        sites: site name -> the site's own values.
        policy: of every site and of the server.
        classes: that a job may name.
    """
    documents = {
        "environment.json": {**common_values(sites), "sites": sites},
        "resources.json": {"format_version": 2, "class_allow_list": list(classes)},
        SITE_POLICY_FILE: policy_document(policy),
    }
    local.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, document in documents.items():
        write_json(local / name, document, private=True)
