"""A site that registers anew takes its place in running jobs; with real processes it does so in
``tests/federation/test_console.py``."""

from __future__ import annotations

import inspect

import pytest
from nvflare.apis.client import Client
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.server_engine import ServerEngine

from fl_server.flare.readmission import _took_place

OLD, NEW, OTHER = Client("site-1", "old"), Client("site-1", "new"), Client("site-2", "other")


@pytest.mark.parametrize(
    ("client", "before", "after"),
    [
        (NEW, [OLD, OTHER], [OTHER, NEW]),  # it came back
        (OLD, [OLD, OTHER], [OLD, OTHER]),  # it was never gone
        (OTHER, [OLD], [OLD]),  # it has no part in the job
    ],
    ids=["came back", "never gone", "no part"],
)
def test_a_new_token_takes_the_place_of_the_sites_own_old_token(
    client: Client, before: list[Client], after: list[Client]
) -> None:
    participants = {one.token: one for one in before}

    assert _took_place(client, participants) == (before != after)
    assert list(participants.values()) == after


def test_nvflare_has_what_it_uses() -> None:
    """None of it is documented: another version may do without."""
    engine = inspect.getsource(ServerEngine)
    for name in (
        "run_processes", "job_runner", "check_client_resources", "start_client_job",
        "get_client_from_name", "sync_clients_from_main_process",
    ):  # fmt: skip
        assert name in engine
    assert "running_jobs" in inspect.getsource(JobRunner)
