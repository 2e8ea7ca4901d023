"""A site starts no process for a job whose metadata ask for what is the site's to choose."""

from __future__ import annotations

from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from fl_client.flare.job_launcher import ConfinedJobLauncher

PLAIN = {"name": "job", "job_id": "1", "submitter_name": "lead", "deploy_map": {"app": ["@ALL"]}}


def offered(meta: dict[str, Any]) -> bool:
    """Whether a launcher stands ready for the job, as NVFlare asks for one."""
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.JOB_META, meta, private=True, sticky=False)
    ConfinedJobLauncher().handle_event(EventType.BEFORE_JOB_LAUNCH, fl_ctx)
    return bool(fl_ctx.get_prop(FLContextKey.JOB_LAUNCHER))


@pytest.mark.parametrize(
    "further",
    [
        {},
        {"resource_spec": None},
        {"resource_spec": {}},
        {"resource_spec": {"site-1": {"num_of_gpus": 1, "mem_per_gpu_in_GiB": 8}}},
    ],
)
def test_amounts_are_no_obstacle(further: dict[str, Any]) -> None:
    assert offered({**PLAIN, **further})


@pytest.mark.parametrize(
    "further",
    [
        {"resource_spec": {"site-1": {"docker": {"image": "evil"}}}},
        {"resource_spec": {"site-1": {"num_of_gpus": 10**6}}},
        {"resource_spec": [1]},
        {"launcher_spec": {"default": {"docker": {"image": "evil"}}}},
        {"scope": "public"},
    ],
)
def test_settings_of_a_launcher_and_a_scope_are(further: dict[str, Any]) -> None:
    assert not offered({**PLAIN, **further})
