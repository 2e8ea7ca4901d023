"""Where one simulation keeps its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmar_runtime.policy.site_policy import SITE_POLICY_FILE

JOB_FOLDER = "simulate_job"
"""The folder of a participant that holds the job as it runs, as NVFlare's simulator names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder of one simulation: ``<workspace>/run-001`` and so on."""

    root: Path

    @classmethod
    def create(cls, workspace: Path) -> RunFolder:
        """Make the next free folder of a workspace; earlier runs stay."""
        workspace = workspace.expanduser().resolve()
        workspace.mkdir(parents=True, exist_ok=True)
        taken = [
            int(path.name.removeprefix("run-"))
            for path in workspace.glob("run-*")
            if path.name.removeprefix("run-").isdigit()
        ]
        root = workspace / f"run-{max(taken, default=0) + 1:03d}"
        root.mkdir()
        return cls(root=root)

    @property
    def job(self) -> Path:
        """The job as it runs."""
        return self.root / "job"

    @property
    def results(self) -> Path:
        """Weights, JSON, CSV and the report."""
        return self.root / "results"

    @property
    def record(self) -> Path:
        """The run record among the results."""
        return self.results / "run_record.json"

    @property
    def scratch(self) -> Path:
        """Home folder, caches and temporary files of the processes of a simulation."""
        return self.root / "scratch"

    @property
    def flare(self) -> Path:
        """NVFlare's own workspace root."""
        return self.root / "nvflare"

    @property
    def handover(self) -> Path:
        """Where the processes of NVFlare's simulator pass models on; removed after the run."""
        return self.root / "handover"

    @property
    def inline_plan(self) -> Path:
        """The plan that the process of the inline engine reads."""
        return self.root / "inline.json"

    @property
    def sites(self) -> Path:
        """Holds a folder for each site, and the policy of all of them."""
        return self.root / "sites"

    @property
    def policy(self) -> Path:
        """The policy of all simulated sites, as ``mmar evaluate --policy`` takes it."""
        return self.sites / SITE_POLICY_FILE

    def site(self, name: str) -> Path:
        """Return a site's folder; with the inline engine the site's run writes there too."""
        return self.sites / name

    def environment(self, site: str) -> Path:
        """Return the environment of one site, as ``mmar evaluate -e`` takes it."""
        return self.site(site) / "environment.json"

    def log(self, engine: str) -> Path:
        """Return the log of an engine."""
        return self.root / "logs" / f"{engine}.log"


def site_errors(root: Path, pattern: str) -> list[str]:
    """Return the errors that sites have written, each with its site's name in front.

    Args:
        root: holds a folder for each site.
        pattern: of the files below ``root``.
    """
    files = sorted(root.glob(pattern))
    return [f"{file.relative_to(root).parts[0]}: {first_paragraph(file)}" for file in files]


def first_paragraph(file: Path) -> str:
    """Return the message of an error file on one line; the traceback is the next paragraph."""
    return " ".join(file.read_text(encoding="utf-8").partition("\n\n")[0].split())
