"""A job's folder as NVFlare's job object, for its execution environments."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn

from nvflare.job_config.api import FedJob
from nvflare.job_config.fed_job_config import FedJobConfig

from mmar_runtime.errors import MmarError


class FolderJobConfig(FedJobConfig):
    """A job whose configuration is a folder already, so there is nothing to generate."""

    def __init__(self, folder: Path, name: str, min_sites: int) -> None:
        super().__init__(name, min_sites)
        self._folder = folder

    def generate_job_config(self, job_root: str) -> None:
        """Copy the folder to where NVFlare wants it; a copy that is there already is replaced."""
        target = Path(job_root) / self.job_name
        if (target / "meta.json").is_file():
            shutil.rmtree(target)
        shutil.copytree(self._folder, target)


class FolderJob(FedJob):
    """NVFlare's job object for a job folder.

    Args:
        folder: the job's folder; it has to stay for as long as this object is used.
        name: the job's name.
        min_sites: sites that the job needs.
    """

    def __init__(self, folder: Path, name: str, min_sites: int) -> None:
        super().__init__(name=name, min_clients=min_sites)
        self.job = FolderJobConfig(folder, name, min_sites)

    def export_job(self, job_root: str) -> None:
        """Copy the folder to ``job_root/<name>``; the apps need not be put together first."""
        self.job.generate_job_config(job_root)

    def to(self, obj: Any, target: str, id: str | None = None, **kwargs: Any) -> NoReturn:
        """Not possible.

        Raises:
            MmarError: always; what was added would be no part of the folder.
        """
        raise MmarError(
            f"a {type(obj).__name__} cannot be added for {target}: the job is the MMAR's folder\n"
            "    Sites set up filters of their own; components stand in the MMAR's documents."
        )

    def to_server(self, obj: Any, id: str | None = None, **kwargs: Any) -> NoReturn:
        """Not possible; see ``to``."""
        self.to(obj, "the server")

    def to_clients(self, obj: Any, id: str | None = None, **kwargs: Any) -> NoReturn:
        """Not possible; see ``to``."""
        self.to(obj, "the sites")

    def simulator_run(
        self,
        workspace: str,
        n_clients: int | None = None,
        clients: list[str] | None = None,
        threads: int | None = None,
        gpu: str | None = None,
        log_config: str | None = None,
    ) -> int:
        """Run the folder as it is in NVFlare's simulator."""
        sites = clients or [f"site-{number}" for number in range(1, (n_clients or 0) + 1)]
        code: int = self.job.simulator_run(
            workspace,
            clients=",".join(sites),
            n_clients=len(sites),
            threads=threads,
            gpu=gpu,
            log_config=log_config,
        )
        return code
