"""The kinds of holes that a review found: jobs of JSON alone, refused, and then walled in.

First the researcher's own command refuses each job, and so do sites under a server that judges
nothing. Then two sites judge nothing either, and one of them has no wall: what a job does there, it
does not do at the site with the wall.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.federation import siege
from tests.federation.conftest import (
    REPOSITORY,
    SITES,
    Federation,
    MakeFederation,
    assert_refused,
    edit,
    without_guard,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OPEN, WALLED = SITES
POLICY = "local/mmar_site_policy.json"


LEAST = {"min_dataset_size": 2}
"""Of a site's policy, for the jobs of kind 7; the demo's data lists are long enough for it."""


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    def prepare(federation: Federation) -> None:
        without_guard(federation)
        for site in SITES:
            edit(federation.site(site) / POLICY, **LEAST)

    return make_federation(prepare)


@pytest.fixture
def spoilt(job: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(job, tmp_path / "job"))


def submitted(job: Path, federation: Federation) -> subprocess.CompletedProcess[str]:
    policy = federation.site(WALLED) / POLICY
    command = [sys.executable, "-m", "fl_admin.cli.main", "submit", str(job)]
    options = ["--kit", str(federation.lead), "--policy", str(policy)]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind", siege.KINDS)
def test_a_job_of_each_kind_is_refused_at_submit_and_at_each_site(
    kind: str, federation: Federation, spoilt: Path, tmp_path: Path
) -> None:
    spoil, place = siege.KINDS[kind]
    spoil(spoilt, tmp_path / "marker", tmp_path / "secret.nii.gz")

    done = submitted(spoilt, federation)
    assert done.returncode == 2
    assert place in done.stderr
    assert "Traceback" not in done.stderr

    assert_refused(federation, federation.run(spoilt), place)


def test_the_same_job_unspoilt_is_taken_and_completes(federation: Federation, spoilt: Path) -> None:
    assert submitted(spoilt, federation).returncode == 0
    state = federation.run(spoilt)

    assert state.completed, federation.told(state)


# --- The wall behind the judgement


@pytest.fixture(scope="module")
def credulous(
    make_federation: MakeFederation, tmp_path_factory: pytest.TempPathFactory
) -> Federation:
    """Nobody judges a job: neither the kits nor the installed package. One site has no wall."""
    programs = judging_nothing(tmp_path_factory.mktemp("installed"))

    def prepare(federation: Federation) -> None:
        federation.programs = programs
        without_guard(federation)
        for site, confinement in ((OPEN, "off"), (WALLED, "required")):
            local = federation.site(site) / "local"
            resources = json.loads((local / "resources.json").read_text())
            del resources["app_validator"]
            (local / "resources.json").write_text(json.dumps(resources))
            edit(federation.site(site) / POLICY, confinement=confinement)

    return make_federation(prepare)


def judging_nothing(folder: Path) -> Path:
    """The programs of an installation like this one, in which nothing judges a job."""
    venv.EnvBuilder(symlinks=True).create(folder)
    packages = Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": str(folder)}))
    lines = [str(REPOSITORY), *filter(os.path.isdir, sys.path)]
    judgement = "import tests.federation.judges_nothing as this; this.judge_nothing()"
    (packages / "judging_nothing.pth").write_text("\n".join([*lines, judgement, ""]))
    return folder / "bin"


def data_of(federation: Federation, site: str) -> Path:
    return Path(json.loads(federation.values(site).read_text())["DATA_ROOT"])


@pytest.fixture(scope="module")
def walled_in(
    credulous: Federation, job: Path, tmp_path_factory: pytest.TempPathFactory
) -> Federation:
    """The federation after one job that does all of it, at either site."""
    spoilt = Path(shutil.copytree(job, tmp_path_factory.mktemp("hostile") / "job"))
    edit(spoilt / siege.SERVER_CONFIG, num_rounds=1, min_clients=1)
    edit(spoilt / "meta.json", min_clients=1)
    siege.reviewed_by_nobody(spoilt, Path("{DATA_ROOT}/executed"), Path())
    siege.written_at(spoilt, "{DATA_ROOT}")
    credulous.run(spoilt)
    return credulous


@pytest.mark.rehearsal  # ``tests/security/test_wall.py`` tries an MMAR that nobody has judged
@pytest.mark.parametrize("trace", ["executed", "sub_start.sh"])
def test_what_a_job_executes_and_writes_at_the_open_site_it_does_not_behind_the_wall(
    walled_in: Federation, trace: str
) -> None:
    assert (data_of(walled_in, OPEN) / trace).exists()
    assert not (data_of(walled_in, WALLED) / trace).exists()


@pytest.mark.rehearsal
def test_what_a_job_reads_outside_of_the_data_at_the_open_site_it_does_not_behind_the_wall(
    credulous: Federation, spoilt: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.nii.gz"
    label = next(data_of(credulous, OPEN).glob("labelsTr/*.nii.gz"))  # for it is the label as well
    shutil.copy(label, secret)
    edit(spoilt / siege.SERVER_CONFIG, num_rounds=1, min_clients=1)
    edit(spoilt / "meta.json", min_clients=1)
    siege.path_in_an_expression(spoilt, Path(), secret)

    state = credulous.run(spoilt)

    trained = {site: has_trained(credulous, state.job_id, site) for site in SITES}
    assert trained == {OPEN: True, WALLED: False}


def has_trained(federation: Federation, job_id: str, site: str) -> bool:
    progress = federation.site(site) / job_id / "progress.jsonl"
    return progress.is_file() and '"iteration"' in progress.read_text()
