"""NVFlare's own workspace and context around the tiny MMAR; only its engine is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.workspace import Workspace

from tests.conftest import site_values

MakeMmar = Callable[..., Path]

JOB = "job-1"
SITE = "site-1"


@dataclass
class EngineStandIn:
    """What an executor asks of NVFlare's engine: the workspace, and where its events go."""

    workspace: Workspace
    events: list[tuple[str, Any]] = field(default_factory=list)

    def get_workspace(self) -> Workspace:
        return self.workspace

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.events.append((event_type, fl_ctx.get_prop("__event_data__")))


@pytest.fixture
def workspace(tmp_path: Path, make_mmar: MakeMmar) -> Workspace:
    """A site's kit with the job deployed: ``<kit>/job-1/app_site-1`` is the MMAR."""
    kit = tmp_path / "kit"
    for folder in ("startup", "local", JOB):
        (kit / folder).mkdir(parents=True)
    values = site_values(make_mmar(kit / JOB / f"app_{SITE}"))
    (kit / "local" / "environment.json").write_text(json.dumps(values))
    return Workspace(str(kit), SITE, str(kit / "startup"))


@pytest.fixture
def engine(workspace: Workspace) -> EngineStandIn:
    return EngineStandIn(workspace)


@pytest.fixture
def fl_ctx(engine: EngineStandIn) -> FLContext:
    manager = FLContextManager(engine=engine, identity_name=SITE, job_id=JOB)
    return manager.new_context()


@pytest.fixture
def run_folder(workspace: Workspace) -> Path:
    return Path(workspace.get_run_dir(JOB))


@pytest.fixture
def app(workspace: Workspace) -> Path:
    return Path(workspace.get_app_dir(JOB))
