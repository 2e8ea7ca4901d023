"""NVFlare's PocEnv with kits of ours: a federation on this machine for as long as a recipe runs.

A stock PocEnv makes its kits anew for each run, and their sites allow none of our classes. This one
hands NVFlare a project whose builders are those of ``mmar provision``, so that its server and sites
are as at hospitals: our classes alone, our validator, signed jobs, and 127.0.0.1 as only address.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from nvflare.lighter.spec import Builder, Project, ProvisionContext

from fl_admin.local_federation import ADMIN, project_document, unused_port
from fl_admin.provision import BUILDERS
from fl_admin.recipe import SiteValues, arguments_kept
from mmar_runtime.cli.common import json_text
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import FederationError
from mmar_runtime.files import write_text_atomically

with arguments_kept():
    from nvflare.recipe.poc_env import PocEnv


class PocFiles(Builder):
    """A builder of NVFlare's provisioning: what a PocEnv needs beside ``MmarLocalFiles``.

    It fills in the sites' ``environment.json``. And it puts the server's ``resources.json`` in the
    place of NVFlare's template, of which a PocEnv makes a new one when the kits are there.

    Args:
        values: site -> its values.
    """

    def __init__(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.values = values

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Write both."""
        local = Path(ctx.get_local_dir(project.get_server()))
        shutil.copy(local / "resources.json", local / "resources.json.default")
        for client in project.get_clients():
            file = Path(ctx.get_local_dir(client)) / "environment.json"
            given = {**read_json(file), **self.values.get(client.name, {})}
            write_text_atomically(file, json_text(given) + "\n")
            file.chmod(0o600)


class MmarPocEnv(PocEnv):
    """A server and sites on this machine, each a process of its own, with mutual TLS.

    Its arguments are PocEnv's. ``recipe.set_per_site_config`` says where each site's data lie.

    Args:
        workspace: where the federation is made; whatever is there is removed at the next run.
        num_clients: sites, if ``clients`` does not name them.
        clients: names of the sites.
        gpu_ids: as PocEnv takes them.
        results: where the results of runs are kept, for ``get_result`` removes the workspace.
    """

    def __init__(
        self,
        workspace: str | Path,
        *,
        num_clients: int = 2,
        clients: list[str] | None = None,
        gpu_ids: list[int] | None = None,
        results: str | Path | None = None,
    ) -> None:
        super().__init__(
            num_clients=num_clients if clients is None else len(clients),
            clients=clients,
            gpu_ids=gpu_ids,
            username=ADMIN,
        )
        root = Path(workspace).expanduser().resolve()
        self.poc_workspace = str(root)
        self.results = (
            root.with_name(f"{root.name}-results") if results is None else Path(results).resolve()
        )
        self.site_values: SiteValues = {}

    def deploy(self, job: Any) -> str:
        """Make the kits, start the federation, submit the job; returns its id."""
        sites = self.clients or [f"site-{n}" for n in range(1, self.num_clients + 1)]
        builders = [
            *BUILDERS,
            {
                "path": f"{PocFiles.__module__}.{PocFiles.__qualname__}",
                "args": {"values": {site: dict(one) for site, one in self.site_values.items()}},
            },
        ]
        project = {**project_document(sites, port=unused_port()), "builders": builders}
        with tempfile.TemporaryDirectory(prefix="mmar-poc-") as folder:
            file = Path(folder) / "project.yml"
            file.write_text(yaml.safe_dump(project, sort_keys=False), encoding="utf-8")
            self.project_conf_path = str(file)
            return str(super().deploy(job))

    def get_job_result(self, job_id: str, timeout: float = 0.0) -> str | None:
        """The results of a finished job, kept beside the workspace.

        Raises:
            FederationError: there are results of a job with this id already.
        """
        result = super().get_job_result(job_id, timeout)
        if result is None:
            return None
        target = self.results / job_id
        if target.exists():
            raise FederationError(f"{str(target)!r} is there already")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(result, target)
        return str(target)
