"""What a server takes from a site that lies, from a site that says too much, and from a console.

The second site of this federation has filters of its own. In the first job it has no gate, and sends
what no honest site would; in the second its gate stands behind a filter that adds a patient's name.
A third job runs at the first site alone: its model is the one that the others have to give too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import AuthorizationError, InvalidJobDefinition
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from fl_admin.console import Console, JobState
from mmar_runtime.audit import AUDIT_FILE, verify_audit
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
    path = federation.site("site-2") / "local" / "privacy.json"
    privacy = json.loads(path.read_text())
    privacy["scopes"][0]["task_result_filters"] = [{"path": f"own_filters.{name}", "args": {}}]
    if not gate:
        privacy["components"] = []
    path.write_text(json.dumps(privacy))


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
    assert state.status == "FINISHED:COMPLETED"
    return record_of(federation, state, tmp_path_factory.mktemp("out"))


def record_of(federation: Federation, state: JobState, folder: Path) -> Any:
    done = federation.download(state.job_id, folder)
    return json.loads((done / "workspace/results/run_record.json").read_text())


def digests(record: Any) -> list[str]:
    return [one["weights_sha256"] for one in record["rounds"]]


def test_hole_w_a_site_that_lies_is_left_out_and_the_model_is_that_of_the_others(
    federation: Federation, lenient: Path, alone: Any, tmp_path: Path
) -> None:
    filtered(federation, "Lies", gate=False)

    state = federation.run(lenient)

    record = record_of(federation, state, tmp_path)
    print(state, json.dumps(record, indent=1)[:6000])
    assert digests(record) == digests(alone)


def test_a_gate_stands_behind_every_filter(
    federation: Federation, lenient: Path, alone: Any, tmp_path: Path
) -> None:
    """Hole L: a filter runs after the site's own, and could put back what that took out."""
    filtered(federation, "Tells", gate=True)

    state = federation.run(lenient)
    record = record_of(federation, state, tmp_path)
    print(state, json.dumps(record, indent=1)[:6000])
    print([one for one in federation.audit("site-2") if one["event"] == "reply-stopped"])
    assert digests(record) == digests(alone)
