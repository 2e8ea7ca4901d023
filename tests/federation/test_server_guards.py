"""What a server takes from a site that lies, from a site that says too much, and from a console.

The second site of this federation has filters of its own. In the first job it has no gate, and
sends what no honest site would; in the second its gate stands behind a filter that adds a patient's
name. A third job runs at the first site alone: its model is the one that the others have to give.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InvalidJobDefinition
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from fl_admin.at_server.console import JobState
from tests.federation.conftest import LEAD, SERVER, Federation, MakeFederation, edit
from tests.federation.search import files_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENT = "DOE_JOHN_1961"
FILTERS = f'''
import numpy as np
from nvflare.apis.dxo import DataKind, MetaKey, from_shareable
from nvflare.apis.filter import Filter


class Lies(Filter):
    """Not a number in the first round; more weight than all others in the second."""

    def __init__(self):
        super().__init__()
        self.round = 0

    def process(self, shareable, fl_ctx):
        dxo = from_shareable(shareable)
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            return shareable
        self.round += 1
        if self.round == 1:
            dxo.data = {{name: np.full_like(one, np.nan) for name, one in dxo.data.items()}}
        else:
            dxo.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] = 10**18
        return dxo.update_shareable(shareable)


class Tells(Filter):
    """A name of a patient beside the numbers."""

    def process(self, shareable, fl_ctx):
        dxo = from_shareable(shareable)
        dxo.meta["cases"] = ["{PATIENT}"]
        return dxo.update_shareable(shareable)
'''


def prepare(federation: Federation) -> None:
    custom = federation.site("site-2") / "local" / "custom"
    custom.mkdir()
    (custom / "own_filters.py").write_text(FILTERS)


def filtered(federation: Federation, name: str, *, gate: bool) -> None:
    """Put a filter of its own into the second site, with or without the gate behind it."""
    privacy = json.loads((federation.site("site-1") / "local" / "privacy.json").read_text())
    assert [one["id"] for one in privacy["components"]] == ["result_gate"]
    privacy["scopes"][0]["task_result_filters"] = [{"path": f"own_filters.{name}", "args": {}}]
    if not gate:
        privacy["components"] = []
    (federation.site("site-2") / "local" / "privacy.json").write_text(json.dumps(privacy))


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    return make_federation(prepare)


@pytest.fixture(scope="module")
def lenient(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job, content with one site in a round."""
    folder = Path(shutil.copytree(job, tmp_path_factory.mktemp("lenient") / "job"))
    edit(folder / "meta.json", min_clients=1)
    edit(folder / "app/config/config_fed_server.json", min_clients=1)
    return folder


@pytest.fixture(scope="module")
def alone(federation: Federation, lenient: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The record of a run at the honest site alone."""
    job = Path(shutil.copytree(lenient, tmp_path_factory.mktemp("alone") / "job"))
    edit(job / "meta.json", deploy_map={"app": ["server", "site-1"]})
    state = federation.run(job)
    assert state.completed, federation.told(state)
    return record_of(federation, state, tmp_path_factory.mktemp("out"))


def record_of(federation: Federation, state: JobState, folder: Path) -> Any:
    done = federation.download(state.job_id, folder)
    return json.loads((done / "workspace/results/run_record.json").read_text())


def digests(record: Any) -> list[str]:
    return [one["weights_sha256"] for one in record["rounds"]]


def outcomes(record: Any, site: str) -> list[tuple[str, str]]:
    found = [one["sites"][site] for one in record["rounds"]]
    return [(one["status"], one["reason"]) for one in found]


def test_hole_w_a_site_that_lies_is_left_out_and_the_model_is_that_of_the_others(
    federation: Federation, lenient: Path, alone: Any, tmp_path: Path
) -> None:
    filtered(federation, "Lies", gate=False)

    state = federation.run(lenient)

    record = record_of(federation, state, tmp_path)
    (first, not_finite), (second, steps) = outcomes(record, "site-2")
    assert (first, second) == ("rejected", "rejected")
    assert "values that are not finite" in not_finite
    assert steps.startswith("steps: ")
    assert digests(record) == digests(alone)
    # The rounds went on with the sites that the job asks for at least.
    assert state.completed, federation.told(state)
    rejected = [one for one in federation.audit(SERVER) if one["event"] == "contribution-rejected"]
    assert [one["rules"] for one in rejected if one["job"] == state.job_id] == [
        ["finite"],
        ["steps"],
    ]


def test_hole_l_a_gate_stands_behind_every_filter(
    federation: Federation, lenient: Path, alone: Any, tmp_path: Path
) -> None:
    """A filter that runs after all others could put back what the site's own took out."""
    filtered(federation, "Tells", gate=True)

    state = federation.run(lenient)

    record = record_of(federation, state, tmp_path)
    assert outcomes(record, "site-2") == [("failed", "gate-refused")] * 2
    assert digests(record) == digests(alone)
    stopped = [one for one in federation.audit("site-2") if one["event"] == "reply-stopped"]
    assert {tuple(one["faults"]) for one in stopped} == {("1 keys of metadata beyond the list",)}
    for folder in (federation.server, federation.lead, tmp_path):
        assert not files_with(folder, [PATIENT])
    assert files_with(federation.site("site-2"), [PATIENT])  # the filter itself


# --- a console that asks for more


@pytest.fixture
def session(federation: Federation) -> Iterator[Session]:
    one = new_secure_session(LEAD, str(federation.lead))
    yield one
    one.close()


def test_hole_j_a_job_that_describes_itself_in_hocon_reads_no_file_of_the_server(
    session: Session, federation: Federation, job: Path, tmp_path: Path
) -> None:
    """The server parses it when it is submitted, before any check, and keeps what it has read."""
    hostile = Path(shutil.copytree(job, tmp_path / "hostile"))
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"password": PATIENT}))
    meta = json.loads((hostile / "meta.json").read_text())
    (hostile / "meta.json").unlink()
    text = json.dumps({**meta, "name": "hocon"})[1:-1]
    (hostile / "meta.conf").write_text(f'included {{ include file("{secret}") }}\n{text}')

    with pytest.raises(InvalidJobDefinition):
        session.submit_job(str(hostile))

    assert "hocon" not in {one["job_name"] for one in session.list_jobs()}
    held = files_with(federation.server, [PATIENT])
    assert not held


def test_no_console_changes_what_is_logged(session: Session, alone: Any) -> None:
    job_id = session.list_jobs()[0]["job_id"]
    for target in ("all", "server"):
        with pytest.raises(AuthorizationError):
            session.configure_job_log(job_id, "DEBUG", target)
        with pytest.raises(AuthorizationError):
            session.configure_site_log("DEBUG", target)


def test_no_console_reaches_a_shell(session: Session, federation: Federation) -> None:
    for target in ("server", "site-1"):
        with pytest.raises(AuthorizationError):
            session.ls_target(target)


def test_the_logs_of_all_of_them_hold(federation: Federation, alone: Any) -> None:
    for name in (SERVER, "site-1", "site-2"):
        assert federation.log_status(name) == "intact"


def test_when_it_stops_no_process_is_left(federation: Federation, alone: Any) -> None:
    assert len(federation.processes()) >= 3

    federation.stop()

    assert federation.processes() == []
