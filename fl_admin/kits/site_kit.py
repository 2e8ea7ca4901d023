"""The folder of a site's start-up kit: whose it is, what the site allows, and the jobs it has run.

A simulated site's folder in NVFlare's workspace is read in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_client.jobs.files import META
from fl_client.site import Site
from mmar_runtime.config.loader import CROSS_VALIDATION_FILE
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_json, read_site_values
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import site_policy

SITE_CONFIG = Path("startup/fed_client.json")
OTHERS = {"fed_server.json": "a server", "fed_admin.json": "an admin"}
"""What lies in ``startup/`` of the kits of others."""

APP = "app_"
"""How NVFlare begins the name of the folder in which a site has the app of a job."""

MAX_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """A job whose app a site has.

    Attributes:
        job_id: NVFlare's id of it, which is the name of its folder in the kit.
        name: the job's own name; empty where nothing says it.
        mmar: its app.
    """

    job_id: str
    name: str
    mmar: Mmar

    def __str__(self) -> str:
        return f"{self.job_id} ({self.name})" if self.name else self.job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteKit:
    """A site's kit.

    Attributes:
        root: its folder.
        name: the site's name in the federation.
    """

    root: Path
    name: str

    @classmethod
    def open(cls, folder: Path) -> SiteKit:
        """Return the kit in a folder.

        Raises:
            ConfigError: the folder is not a site's kit.
        """
        root = folder.expanduser().resolve()
        whose = [who for file, who in OTHERS.items() if (root / "startup" / file).exists()]
        if whose or not all((root / part).is_dir() for part in ("local", "startup")):
            fault = f"is the kit of {whose[0]}" if whose else "is not a site's kit"
            message = f"{str(root)!r} {fault if root.is_dir() else 'does not exist'}"
            advice = "A site's kit holds local/ and startup/; see 'mmar provision'."
            raise ConfigError([Problem(Location("--kit"), message, advice, "kit")])
        path = root / SITE_CONFIG
        if not path.is_file():  # as simulated
            return cls(root=root, name=root.name)
        document = read_json(path)
        client = document.get("client") if isinstance(document, dict) else None
        name = client.get("fqsn") if isinstance(client, dict) else None
        if not isinstance(name, str) or not name:
            place = Location(path.name) / "client" / "fqsn"
            raise ConfigError([Problem(place, "does not say the name of the site", "", "kit")])
        return cls(root=root, name=name)

    def site(self, mmar: Mmar, values: Mapping[str, Scalar] | None = None) -> Site:
        """Return the site as it runs an MMAR: by its own values and policy.

        Args:
            mmar: the MMAR.
            values: further values, which win over those of the kit.

        Raises:
            ConfigError: the values or the policy have faults.
        """
        local = self.root / "local"
        own = read_site_values(local, self.name)
        return Site(
            name=self.name, mmar=mmar, values={**own, **(values or {})}, policy=site_policy(local)
        )

    def jobs(self) -> tuple[RunJob, ...]:
        """Return the jobs whose app is here and can evaluate models of others, the newest first."""
        apps = [
            app
            for app in self.root.glob(f"*/{APP}{self.name}")
            if (app / CROSS_VALIDATION_FILE).is_file()
        ]
        apps.sort(key=lambda app: (app / "config").stat().st_mtime_ns, reverse=True)
        jobs = []
        for app in apps:
            meta = app.parent / META  # NVFlare puts the job's document there
            document = read_json(meta) if meta.is_file() else {}
            name = str(document.get("name", "")) if isinstance(document, dict) else ""
            jobs.append(RunJob(job_id=app.parent.name, name=name, mmar=Mmar(app)))
        return tuple(jobs)

    def job(self, job_id: str | None = None) -> RunJob:
        """Return a job of the kit.

        Args:
            job_id: None for the newest.

        Raises:
            ConfigError: there is none, or none of this id.
        """
        jobs = self.jobs()
        for job in jobs:
            if job_id in (None, job.job_id):
                return job
        raise ConfigError([_no_job(jobs, job_id)])


def _no_job(jobs: tuple[RunJob, ...], job_id: str | None) -> Problem:
    place = Location("--job")
    if job_id is None or not jobs:
        message = "this kit has run no job yet that evaluates models"
        return Problem(place, message, "Name an MMAR with --mmar DIR.", "job")
    listed = ", ".join(str(job) for job in jobs[:MAX_LISTED])
    rest = len(jobs) - MAX_LISTED
    more = f" and {rest} more" if rest > 0 else ""
    guess = did_you_mean(job_id, [job.job_id for job in jobs]) if len(jobs) > 1 else ""
    advice = f"{guess}\n    " if guess else ""
    message = f"this kit has run no job {job_id!r}"
    return Problem(place, message, f"{advice}There are: {listed}{more}.", "job")
