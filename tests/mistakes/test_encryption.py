"""What sites share and hide: encryption, privacy and weights of a job."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet

JOB = "job"


def job(*options: str) -> Callable[[Workspace], list[str]]:
    """Make a job of the MMAR with these options."""

    def plant(workspace: Workspace) -> list[str]:
        where = ["--out", str(workspace.root / JOB), "--min-sites", "2"]
        return ["job", "create", str(workspace.masks), *where, *options]

    return plant


def _without_document(workspace: Workspace, run: Run) -> None:
    ended = run(*job()(workspace))
    assert ended.code == 0, ended.text
    (workspace.root / JOB / "app/config/config_cross_validation.json").unlink()


MISTAKES = (
    Mistake(
        name="encrypted and rounded",
        plant=job("--he", "--transfer", "int8"),
        place="job: transfer",
        remedy="Leave out --transfer, or --he",
    ),
    Mistake(
        name="rounding that does not exist",
        plant=job("--transfer", "int4"),
        place="--transfer",
        remedy="Did you mean 'int8'?",
    ),
    Mistake(
        name="nothing shared",
        plant=job("--exclude-vars", "*"),
        place="job: exclude_vars",
        remedy="Name fewer",
    ),
    Mistake(
        name="argument of a filter misspelled",
        plant=job("--result-filter", "PercentilePrivacy", "percent=10"),
        place="job: result_filters[0].percent",
        remedy="Did you mean 'percentile'?",
    ),
    Mistake(
        name="percentile beyond 100",
        plant=job("--result-filter", "PercentilePrivacy", "percentile=1000"),
        place="job: result_filters[0].percentile",
        remedy="has to be a number from 0 to 100",
    ),
    Mistake(
        name="budget without noise",
        plant=job("--result-filter", "SVTPrivacy", "fraction=0.5"),
        place="job: result_filters[0]",
        remedy="epsilon_release is the budget of the noise",
    ),
    Mistake(
        name="filter that does not exist",
        plant=job("--result-filter", "GaussianNoise", "sigma=1"),
        place="job: 'GaussianNoise'",
        remedy="Write module.Class",
    ),
    Mistake(
        name="weight of a site in words",
        plant=job("--aggregation-weights", "site-1=heavy"),
        place="--aggregation-weights: 'site-1=heavy'",
        remedy="Write SITE=WEIGHT",
    ),
    Mistake(
        name="site that is weighed with nothing",
        plant=job("--aggregation-weights", "site-1=0"),
        place="job: aggregation_weights['site-1']",
        remedy="has to be a number from",
    ),
    Mistake(
        name="encryption of a job that says it itself",
        plant=lambda workspace: [*workspace.simulate(), "--he", "--transfer", "float16"],
        place="job: transfer",
        remedy="Leave out --transfer, or --he",
    ),
    Mistake(
        name="keys that are nowhere",
        plant=lambda workspace: [
            *("site", "decrypt", "--kit", str(workspace.root / "kit")),
            *("--model", str(workspace.root / "m.enc"), "--out", str(workspace.root / "m.pt")),
        ],
        place="--kit",
        remedy="see 'mmar provision'",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_a_job_without_the_document_by_which_sites_evaluate(workspace: Workspace, run: Run) -> None:
    _without_document(workspace, run)
    folder = str(workspace.root / JOB)

    checked = run("check", folder)
    simulated = run("simulate", folder, "--data", workspace.sites(), "-w", str(workspace.root))

    assert (checked.code, simulated.code) == (3, 2)
    for ended in (checked, simulated):
        assert "config_cross_validation.json: is missing" in ended.text
        assert "'mmar job create' derives it" in ended.text


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    privacy: list[Any] = ["--result-filter", "PercentilePrivacy", "percentile=10"]
    encrypted = [] if find_spec("tenseal") is None else ["--he"]
    options = [*privacy, *encrypted, "--aggregation-weights", "site-1=2"]

    assert_quiet(run(*job(*options)(workspace)), MISTAKES)
    assert_quiet(run("check", str(workspace.root / JOB)), MISTAKES)
