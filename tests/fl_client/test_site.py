"""A site reads the job's MMAR with its own values, and draws its own random numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fl_client.site import Site
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.site_policy import Byoc, SitePolicy
from mmar_runtime.workflows.session import session
from mmar_runtime.workflows.training import TrainingWorkflow

Edited = Callable[[Path, Callable[[Any], object]], Path]
MakeMmar = Callable[..., Path]

CODE = SitePolicy(byoc=Byoc(mode="on"))
SENDING = SitePolicy(egress=True)


def test_the_sites_own_values_win_over_the_jobs(
    site: Site, make_mmar: MakeMmar, tmp_path: Path
) -> None:
    elsewhere = make_mmar(tmp_path / "elsewhere") / "data"
    own = {"DATA_ROOT": str(elsewhere), "DATASET_JSON": str(elsewhere / "dataset.json")}

    for config in (
        replace(site, values=own).train_config(),
        replace(site, values=own).cross_validation_config(),
    ):
        (spec,) = next(iter(config.scopes.values())).specs("dataset")
        assert spec.data_list is not None
        assert (spec.data_list.base, spec.data_list.file) == tuple(own.values())


def test_missing_data_are_told_before_anything_is_built(site: Site) -> None:
    (site.mmar.root / "data/case_2_label.nii.gz").unlink()

    with pytest.raises(ConfigError, match=r"there is no file '.*case_2_label\.nii\.gz'"):
        site.train_config()


@pytest.mark.parametrize("switched_off", [True, False])
def test_no_checkpoint_loader_stays_as_the_weights_come_from_the_server(
    site: Site, switched_off: bool
) -> None:
    here = replace(site, values={**site.values, "dont_load_ckpt_model": switched_off})

    for section in (here.train_config().train, here.cross_validation_config().section):
        titles = [spec.title for spec in section.specs("handlers")]
        assert titles
        assert "CheckpointLoader" not in titles


def test_the_jobs_own_code_is_refused_unless_the_site_allows_it(site: Site, edited: Edited) -> None:
    def own_loss(document: Any) -> None:
        document["train"]["loss"] = {"path": "own_loss.Loss"}

    edited(site.mmar.root / "config/config_train.json", own_loss)

    with pytest.raises(ConfigError, match=r"train\.loss"):
        site.train_config()
    assert replace(site, policy=CODE).train_config().train.specs("loss")[0].title == "Loss"


@pytest.mark.parametrize(
    ("file", "load", "place"),
    [
        ("config_train.json", Site.train_config, r"validate\.handlers\[2\]\.name"),
        (
            "config_cross_validation.json",
            Site.cross_validation_config,
            r"config_cross_validation\.json: handlers\[2\]\.name",
        ),
    ],
)
def test_a_handler_that_sends_to_other_machines_is_refused_unless_the_site_allows_it(
    site: Site, edited: Edited, file: str, load: Callable[[Site], Any], place: str
) -> None:
    def add_tracker(document: Any) -> None:
        document.get("validate", document)["handlers"].append({"name": "MLFlowHandler"})

    edited(site.mmar.root / "config" / file, add_tracker)

    with pytest.raises(ConfigError, match=place + ".*this site has not allowed"):
        load(site)
    load(replace(site, policy=SENDING))


# --- seeds


def test_a_round_seed_depends_on_job_seed_site_and_round_and_on_nothing_else(site: Site) -> None:
    other = replace(site, name="site-2")
    seeds = {
        owner.round_seed(job_seed, number)
        for owner in (site, other)
        for job_seed in (0, 1)
        for number in (1, 2, 11)
    }

    assert len(seeds) == 2 * 2 * 3
    assert replace(site, values={"x": 1}).round_seed(0, 1) == site.round_seed(0, 1)


def test_a_round_seed_is_the_same_in_every_process(site: Site) -> None:
    """Python salts ``hash()`` anew in each process; a seed made of it would not be one."""
    code = (
        "from pathlib import Path; from fl_client.site import Site; from mmar_runtime.mmar import "
        "Mmar; print(Site(name='site-1', mmar=Mmar(Path('.')), values={}).round_seed(7, 3))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout

    assert int(printed) == site.round_seed(7, 3)


def test_a_round_seed_fits_every_random_source(site: Site) -> None:
    """numpy takes 32 bits."""
    assert all(0 <= site.round_seed(seed, 1) < 2**32 for seed in range(100))


# --- how much a site trains


def test_a_site_trains_as_many_epochs_as_the_job_asks_unless_it_has_a_number_of_its_own(
    site: Site,
) -> None:
    assert site.local_epochs(5) == 5
    assert replace(site, values={"LOCAL_EPOCHS": 2}).local_epochs(5) == 2


@pytest.mark.parametrize("own", [0, -1, 1.5, "2", True])
def test_a_number_of_epochs_that_is_none_is_refused(site: Site, own: Any) -> None:
    with pytest.raises(ConfigError, match="LOCAL_EPOCHS: has to be a positive whole number"):
        replace(site, values={"LOCAL_EPOCHS": own}).local_epochs(5)


def test_how_many_processes_there_are_is_the_sites_to_say(site: Site, edited: Edited) -> None:
    edited(
        site.mmar.root / "config/environment.json",
        lambda values: values.update(NUM_PROCESSES=4, multi_gpu=True),
    )
    several = replace(site, values={**site.values, "NUM_PROCESSES": 2})

    assert (site.processes, several.processes, several.alone.processes) == (1, 2, 1)
    assert not site.train_config().settings.multi_gpu
    assert several.train_config().settings.multi_gpu
    assert several.cross_validation_config().settings.multi_gpu
    assert not several.alone.cross_validation_config().settings.multi_gpu


def test_batch_size_and_loading_processes_are_the_sites_where_the_mmar_has_variables_for_them(
    site: Site, edited: Edited
) -> None:
    def by_variables(document: Any) -> None:
        document.update(batch_size=1, num_workers=0)
        arguments = {"batch_size": "{batch_size}", "num_workers": "{num_workers}"}
        document["train"]["dataloader"]["args"].update(arguments)

    edited(site.mmar.root / "config/config_train.json", by_variables)
    here = replace(site, values={**site.values, "batch_size": 2, "num_workers": 1})

    for one, expected in ((site, (1, 0)), (here, (2, 1))):
        config = one.train_config()
        with session(config, allow_code=False) as context:
            workflow = TrainingWorkflow(config, context)
            loader = workflow.entry("train", "dataloader")
            assert (loader.batch_size, loader.num_workers) == expected
