"""A job as a recipe, for people who write Python and use NVFlare's execution environments.

    from fl_admin.recipe import MmarFedAvgRecipe, data_of_sites, results_of
    from nvflare.recipe.sim_env import SimEnv

    recipe = MmarFedAvgRecipe(mmar="path/to/mmar", min_clients=2, num_rounds=5)
    recipe.set_per_site_config(data_of_sites("build/data", ["site-1", "site-2"]))
    run = recipe.execute(SimEnv(num_clients=2, workspace_root="build/sim"))
    print(results_of(run.get_result()))

The job is the one that ``mmar job create`` makes. It runs in NVFlare's ``SimEnv`` and ``ProdEnv``,
and in ``fl_admin.recipes.recipe_env.MmarPocEnv``.

NVFlare takes ``--export`` and ``--export-dir`` out of ``sys.argv`` when its recipes are imported.
Importing this module leaves ``sys.argv`` as it is; ``execute`` heeds the two all the same.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fl_admin.at_server.job_results import RESULTS
from fl_admin.jobs.create import JobRequest, create_job, mmar_to_federate
from fl_admin.jobs.refusals import refusal_text
from fl_admin.jobs.settings import JobSettings
from fl_admin.recipes.folder_job import FolderJob
from fl_admin.simulation import site_values
from fl_admin.simulation.nvflare_engine import write_local
from fl_admin.simulation.run_folder import JOB_FOLDER
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.errors import ConfigError, FederationError, Problem
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.exchange.weighing import WeighBy


@contextmanager
def arguments_kept() -> Iterator[None]:
    """Put ``sys.argv`` back as it was."""
    before = list(sys.argv)
    try:
        yield
    finally:
        sys.argv[:] = before


with arguments_kept():
    from nvflare.recipe.prod_env import ProdEnv
    from nvflare.recipe.sim_env import SimEnv
    from nvflare.recipe.spec import ExecEnv, Recipe

SiteValues = Mapping[str, Mapping[str, Scalar]]
"""Site -> the values that its ``environment.json`` would have."""

SIMULATED_RESULTS = Path("server") / JOB_FOLDER / "results"

DEFAULTS = JobSettings()


@runtime_checkable
class TakesSiteValues(Protocol):
    """An environment whose sites get their values from the recipe, such as ``MmarPocEnv``.

    Attributes:
        site_values: of the sites, before the environment starts them.
    """

    site_values: SiteValues


log = logging.getLogger(__name__)


class MmarFedAvgRecipe(Recipe):
    """Federated averaging of the network that an MMAR trains.

    Args:
        mmar: the MMAR's folder; only read.
        name: the job's name: letters, digits, ``.``, ``_`` and ``-``; empty means the name of the
            MMAR's folder.
        min_clients: sites that each round needs.
        num_rounds: rounds of training.
        local_epochs: epochs that a site trains in a round.
        steps_aggregation: optimizer steps that a site trains in a round; 0 means whole epochs.
        weigh_by: what a site claims as its weight in the mean: ``samples``, ``steps`` or ``equal``.
        aggregation_weights: site -> factor of its claim; 1 for a site not named.
        transfer: the form in which sites send large tensors, ``float16`` or ``int8``; None for as
            they are.
        with_code: whether the MMAR's own code goes along; each site has to approve it.
        values: variables for the job's ``environment.json``, which win over the MMAR's.

    Attributes:
        notices: what was made up, left out or translated.
        refusals: for which a site with the default policy would refuse the job.

    Raises:
        ConfigError: with every fault of the arguments and of the MMAR.
    """

    def __init__(
        self,
        *,
        mmar: str | os.PathLike[str],
        name: str = "",
        min_clients: int = DEFAULTS.min_sites,
        num_rounds: int = DEFAULTS.rounds,
        local_epochs: int = DEFAULTS.local_epochs,
        steps_aggregation: int = DEFAULTS.steps_aggregation,
        weigh_by: WeighBy = DEFAULTS.weigh_by,
        aggregation_weights: Mapping[str, float] | None = None,
        transfer: Rounding | None = None,
        with_code: bool = False,
        values: Mapping[str, Scalar] | None = None,
    ) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="mmar-recipe-"))
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        request = JobRequest(
            mmar=mmar_to_federate(Path(mmar)),
            name=name,
            settings=JobSettings(
                rounds=num_rounds,
                min_sites=min_clients,
                local_epochs=local_epochs,
                steps_aggregation=steps_aggregation,
                weigh_by=weigh_by,
                aggregation_weights=aggregation_weights or {},
                transfer=transfer,
            ),
            with_code=with_code,
            values=values or {},
        )
        created = create_job(request, scratch / "job")
        self.notices, self.refusals = created.notices, created.refusals
        for notice in created.notices:
            log.info("%s", notice)
        for refusal in created.refusals:
            log.warning("%s", refusal_text(refusal))
        self._site_values: SiteValues = {}
        super().__init__(FolderJob(created.job.folder, created.job.name, min_clients))

    def _apply_per_site_config(self, config: dict[str, dict[str, Any]]) -> None:
        """Keep the sites' own values; they are never a part of the job."""
        self._site_values = config

    def process_env(self, env: ExecEnv) -> None:
        """Give the sites of a simulation, or of a federation that is made for this, their values.

        Raises:
            ConfigError: a federation has sites with values of their own.
            FederationError: the environment's sites would refuse every job of ours.
        """
        if isinstance(env, SimEnv):
            workspace = Path(env.workspace_root) / str(self._job.name)
            sites = env.clients or [f"site-{n}" for n in range(1, env.num_clients + 1)]
            values = {site: self._site_values.get(site, {}) for site in sites}
            write_local(workspace / "local", site_values.with_threads(values))
        elif isinstance(env, TakesSiteValues):
            env.site_values = self._site_values
        elif not isinstance(env, ProdEnv):
            raise FederationError(
                f"the sites of a {type(env).__name__} allow none of our classes\n"
                "    fl_admin.recipes.recipe_env.MmarPocEnv makes a federation whose sites do."
            )
        elif self._site_values:
            message = "the sites of a federation have values of their own"
            advice = "Leave set_per_site_config out; each site's are in local/ of its kit."
            raise ConfigError([Problem(Location("ProdEnv"), message, advice, "environment")])


def data_of_sites(
    folder: str | os.PathLike[str], sites: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Values for ``set_per_site_config`` where each site's data lie in ``folder/<site>``.

    Raises:
        ConfigError: a site has no ``dataset.json`` there.
    """
    return site_values.data_of_sites(Path(folder), sites, Location("folder"))


def results_of(result: str | os.PathLike[str] | None) -> Path:
    """Return the folder with record, matrix and models in what ``run.get_result()`` returned.

    Raises:
        FederationError: the run has left none.
    """
    if result is not None:
        for place in (SIMULATED_RESULTS, RESULTS):
            if (Path(result) / place).is_dir():
                return Path(result) / place
    raise FederationError(f"there are no results in {result!r}; the run has not ended well")
