"""``mmar submit`` before it connects: a job that no site would run is not sent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_admin.cli.main import main
from fl_client.jobs.approved import job_digest
from tests.federation.conftest import JOB

Submit = Callable[..., tuple[int, str]]
TRAIN = "app/config/config_train.json"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return Path(shutil.copytree(JOB, tmp_path / "job"))


@pytest.fixture
def submit(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Submit:
    """``submit(*options)``: exit code and standard error; the kit is not there."""

    def run(*options: str) -> tuple[int, str]:
        code = main(["submit", str(job), "--kit", str(tmp_path / "no-kit"), *options])
        return code, capsys.readouterr().err

    return run


def spoil(job: Path, name: str) -> None:
    document = json.loads((job / TRAIN).read_text())
    document["train"]["handlers"].append({"name": name, "args": {}})
    (job / TRAIN).write_text(json.dumps(document))


def test_a_job_that_no_site_would_run_is_refused_with_every_reason(
    job: Path, submit: Submit
) -> None:
    spoil(job, "NoSuchHandler")
    (job / "app/config/further.py").write_text("")

    code, told = submit()

    assert code == 2
    assert "config/further.py: is code outside of custom/" in told
    assert "unknown handler 'NoSuchHandler'" in told
    assert "no-kit" not in told


def test_no_check_leaves_the_judgement_to_the_sites(job: Path, submit: Submit) -> None:
    spoil(job, "NoSuchHandler")

    code, told = submit("--no-check")

    assert code == 2
    assert "NoSuchHandler" not in told
    assert "no-kit" in told


def test_what_a_site_has_to_allow_first_is_a_warning(job: Path, submit: Submit) -> None:
    (job / "app/custom").mkdir()
    (job / "app/custom/mine.py").write_text("X = 1\n")

    _, told = submit()

    assert "a site may refuse this: custom/mine.py: is code that this site has not allowed" in told
    assert "no-kit" in told


@pytest.mark.parametrize(("labels", "is_warning"), [(40, True), (300, False)])
def test_more_metrics_than_by_default_are_for_a_site_to_allow(
    job: Path, submit: Submit, labels: int, is_warning: bool
) -> None:
    document = json.loads((job / TRAIN).read_text())
    metric = json.loads(json.dumps(document["validate"]["key_metric"]))
    names = [f"organ-{number}" for number in range(labels)]
    metric["args"] |= {"reduction": "mean_batch", "return_with_label": names}
    document["validate"]["additional_metrics"].append({**metric, "log_label": "by_organ"})
    (job / TRAIN).write_text(json.dumps(document))

    _, told = submit()

    assert "a site reports 32 at most (outgoing.max_metrics)" in told
    assert ("a site may refuse this" in told) == ("no-kit" in told) == is_warning


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., str]:
    """``policy(**keys)``: the file of a site's policy."""

    def write(**keys: object) -> str:
        file = tmp_path / "policy.json"
        file.write_text(json.dumps({"policy_version": 1, **keys}))
        file.chmod(0o600)
        return str(file)

    return write


def test_a_sites_own_policy_has_the_last_word(submit: Submit, policy: Callable[..., str]) -> None:
    code, told = submit("--policy", policy(limits={"rounds": 2}))

    assert code == 2
    assert "config_fed_server.json: num_rounds: has to be a whole number from 1 to 2" in told
    assert "no-kit" not in told


def test_a_site_that_approves_jobs_takes_the_job_that_it_has_approved_and_no_other(
    job: Path, submit: Submit, policy: Callable[..., str]
) -> None:
    digest = str(job_digest(job / "app"))

    _, told = submit("--policy", policy(jobs="approved"))
    assert f"\nthis site runs the jobs that it has approved, and not this one ({digest})" in told
    assert "no-kit" not in told

    _, told = submit("--policy", policy(jobs="approved", approved_jobs=[digest]))
    assert "no-kit" in told


def test_whose_jobs_a_site_takes_is_a_note(submit: Submit, policy: Callable[..., str]) -> None:
    _, told = submit("--policy", policy(signers=["lead@hub", "vice@hub"]))

    assert "note: that site takes only jobs signed by lead@hub or vice@hub" in told
    assert "no-kit" in told
