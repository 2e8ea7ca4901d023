"""Weights of sites: factors that mean something else, and tensors that have no mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet

SERVER = "job/app/config/config_fed_server.json"
FACTORS = "workflows[0].args.aggregation_weights"

NETWORK = """
import torch
from monai.networks.nets import UNet


class Net(UNet):
    def __init__(self):
        super().__init__(3, 1, 2, channels=[4, 8], strides=[2])
        self.register_buffer("seen", torch.zeros(2, dtype=torch.{dtype}))
"""


def given(*factors: str) -> Callable[[Workspace], list[str]]:
    """Name factors at the command line."""
    return lambda workspace: workspace.simulate(
        "--data", workspace.sites(), "--aggregation-weights", *factors
    )


def in_the_job(run_of: Callable[[Workspace], list[str]], **args: Any) -> Callable[[Workspace], Any]:
    """Write arguments of the server into a finished job."""

    def plant(workspace: Workspace) -> list[str]:
        from fl_admin.cli.main import main

        made = ["job", "create", str(workspace.masks), "--out", str(workspace.root / "job")]
        assert main([*made, "--min-sites", "2", "--rounds", "1"]) == 0
        workspace.edit(lambda job: job["workflows"][0]["args"].update(args), SERVER)
        return run_of(workspace)

    return plant


def simulated(workspace: Workspace) -> list[str]:
    runs = ["-w", str(workspace.root / "runs")]
    return ["simulate", str(workspace.root / "job"), "--data", workspace.sites(), *runs]


def checked(workspace: Workspace) -> list[str]:
    return ["check", str(workspace.root / "job")]


def network_with(dtype: str) -> Callable[[Workspace], list[str]]:
    """Train a network of the MMAR's own, with a buffer of a type."""

    def plant(workspace: Workspace) -> list[str]:
        custom = workspace.masks / "custom"
        custom.mkdir()
        (custom / "nets.py").write_text(NETWORK.format(dtype=dtype))
        workspace.edit(lambda conf: conf["train"].update(model={"path": "nets.Net", "args": {}}))
        (workspace.masks / "config/config_cross_validation.json").unlink()
        policy = workspace.root / "policy.json"
        policy.write_text(
            json.dumps({"policy_version": 1, "confinement": "off", "byoc": {"mode": "on"}})
        )
        return workspace.simulate("--data", workspace.sites(), "--policy", str(policy))

    return plant


MISTAKES = (
    Mistake(
        name="a site of another federation",
        plant=given("site-7=2"),
        place=f"{FACTORS}['site-7']",
        remedy="its sites: site-1, site-2",
    ),
    Mistake(
        name="another spelling of a site",
        plant=given("Site-1=2"),
        place=f"{FACTORS}['Site-1']",
        remedy="Did you mean 'site-1'",
    ),
    Mistake(
        name="a factor of nothing",
        plant=given("site-1=0"),
        place="aggregation_weights['site-1']",
        remedy="1 is the factor of a site that is not named",
    ),
    Mistake(
        name="a factor in percent",
        plant=given("site-1=60%"),
        place="--aggregation-weights: 'site-1=60%'",
        remedy="Write SITE=WEIGHT",
    ),
    Mistake(
        name="factors with a comma between them",
        plant=given("site-1=0.6,site-2=0.4"),
        place="--aggregation-weights: 'site-1=0.6,site-2=0.4'",
        remedy="blanks between them",
    ),
    Mistake(
        name="a site that is named twice",
        plant=given("site-1=1", "site-1=2"),
        place="--aggregation-weights: 'site-1'",
        remedy="Name each site once",
    ),
    Mistake(
        name="a factor in quotes",
        plant=in_the_job(simulated, aggregation_weights={"site-1": "2"}),
        place=f"{FACTORS}['site-1']",
        remedy="1 is the factor of a site that is not named",
    ),
    Mistake(
        name="factors by position",
        plant=in_the_job(simulated, aggregation_weights=[2, 1]),
        place=FACTORS,
        remedy='Write an object such as {"site-2": 1.5}',
    ),
    Mistake(
        name="a factor below zero, as a site sees it",
        plant=in_the_job(checked, aggregation_weights={"site-1": -1}),
        place=f"{FACTORS}['site-1']",
        remedy="1 is the factor of a site that is not named",
        code=3,
    ),
    Mistake(
        name="the singular of a key",
        plant=in_the_job(simulated, aggregation_weight={"site-1": 2}),
        place="workflows[0].args.aggregation_weight",
        remedy="Did you mean 'aggregation_weights'",
    ),
    Mistake(
        name="another word for what weighs",
        plant=in_the_job(simulated, weigh_by="sample"),
        place="workflows[0].args.weigh_by",
        remedy="'samples', 'steps', 'equal'",
    ),
    Mistake(
        name="flags have no mean",
        plant=network_with("bool"),
        place="config_train.json: train.model: seen is bool",
        remedy="--exclude-vars seen",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    plant = in_the_job(checked, aggregation_weights={"site-1": 0.6, "site-2": 2}, weigh_by="steps")

    assert_quiet(run(*plant(workspace)), MISTAKES)
