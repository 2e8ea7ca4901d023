"""Three sites with the tiny MMAR and images of their own, and a run of them in this process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fl_admin.simulation.inline.carrier import Carrier, inline_run
from fl_client.local_work import LocalWork
from fl_client.simulation.sites import Sites
from fl_client.simulation.turns import SitesInTurn
from fl_client.site import Site
from fl_server.initial_model import initial_model
from fl_server.record.values import RunRecord
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import Reply, Task
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import SitePolicy
from mmar_runtime.weights import digest, read_checkpoint
from tests.conftest import site_values, write_mmar

NAMES = ("site-1", "site-2", "site-3")
THREADS = {"NUM_THREADS": 1}


@dataclass(frozen=True)
class Ran:
    """What a run has left."""

    record: RunRecord
    results: Path
    folders: Mapping[str, Path]

    @property
    def digests(self) -> list[str | None]:
        return [one.weights_sha256 for one in self.record.rounds]

    @property
    def models(self) -> dict[str, str]:
        files = (self.results / "models").glob("*.pt")
        return {path.stem: digest(read_checkpoint(path).weights) for path in files}

    @property
    def matrix(self) -> str:
        return (self.results / "cross_site.json").read_text()

    @property
    def statuses(self) -> list[dict[str, Any]]:
        return [
            {site: outcome.status for site, outcome in one.sites.items()}
            for one in self.record.rounds
        ]


@dataclass
class InAnyOrder:
    """Sites that do each task in another order."""

    sites: Sites
    random: random.Random = field(default_factory=lambda: random.Random(5))

    @property
    def names(self) -> tuple[str, ...]:
        return self.sites.names

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        names = list(self.names if only is None else (only,))
        self.random.shuffle(names)
        for name in names:
            yield from self.sites.ask(task, only=name)


@dataclass
class Federation:
    """Runs the same job in one way or another."""

    mmars: Mapping[str, Path]
    root: Path
    runs: int = 0

    def run(
        self,
        *,
        through: Callable[[SitesInTurn], Sites] = lambda sites: sites,
        policies: Mapping[str, SitePolicy] | None = None,
        memory: int = 2**30,
        work: LocalWork | None = None,
        rounding: Rounding | None = None,
        **terms: Any,
    ) -> Ran:
        self.runs += 1
        root = self.root / f"run-{self.runs}"
        folders = {name: root / name for name in NAMES}
        sites = [self.site(name, (policies or {}).get(name)) for name in NAMES]
        in_turn = SitesInTurn(sites, folders, work or LocalWork(), rounding=rounding, memory=memory)
        asked = JobTerms(**{"rounds": 2, "min_sites": 3, **terms})
        initial = initial_model(sites[0].mmar, values=THREADS)
        try:
            run = inline_run(
                "job", asked, initial, NAMES, root / "results", evaluation_sha256="0" * 64
            )
            return Ran(Carrier(run, through(in_turn)).carry(), root / "results", folders)
        finally:
            in_turn.close()

    def site(self, name: str, policy: SitePolicy | None = None) -> Site:
        mmar = Mmar.open(self.mmars[name])
        own = site_values(mmar.root)
        return Site(name=name, mmar=mmar, values=own, policy=policy or SitePolicy())


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    root = tmp_path_factory.mktemp("inline")
    mmars = {name: write_mmar(root / name, seed=seed) for seed, name in enumerate(NAMES)}
    return Federation(mmars, root)
