"""A site that registers anew takes its place in the jobs that run.

NVFlare 2.9 gives a restarted site another token and drops the old token, but running jobs know the
old token alone. This uses what NVFlare's job runner itself does at the start of a job; each
attribute is named in ``tests/fl_server/flare/test_readmission.py``.
"""

from __future__ import annotations

import threading
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_scheduler_spec import DispatchInfo


class Readmission(FLComponent):
    """In the server's own process: looks at each heartbeat for a site that came back."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Give a site that has another token than before its place in the running jobs."""
        if event_type != EventType.CLIENT_HEARTBEAT_PROCESSED:
            return
        engine, peer = fl_ctx.get_engine(), fl_ctx.get_peer_context()
        client = engine.get_client_from_name(peer.get_identity_name())
        if client is None:
            return
        for job_id, process in list(engine.run_processes.items()):
            if _took_place(client, process.get(RunProcessKey.PARTICIPANTS) or {}):
                # The site answers over the connection that brought the heartbeat.
                threading.Thread(
                    target=self._start, args=(engine, job_id, client), daemon=True
                ).start()

    def _start(self, engine: Any, job_id: str, client: Client) -> None:
        """Have the site start its part of a job again; the job's files are there already."""
        job = engine.job_runner.running_jobs.get(job_id)
        if job is None:
            return
        with engine.new_context() as fl_ctx:
            free = engine.check_client_resources(job, {client.name: {}}, fl_ctx)
            _, token = free.get(client.name, (False, ""))
            dispatch = DispatchInfo(client.name, {}, token)
            replies = engine.start_client_job(job, {client.name: dispatch}, fl_ctx)
            told = [str(getattr(one.reply, "body", one.reply)) for one in replies]
            self.log_info(fl_ctx, f"{client.name} came back to job {job_id}: {told}")


def _took_place(client: Client, participants: dict[str, Client]) -> bool:
    """Put a site's new token in the place of its old token; return whether there was an old."""
    old = [
        token
        for token, other in participants.items()
        if other.name == client.name and token != client.token
    ]
    for token in old:
        del participants[token]
    if old:
        participants[client.token] = client
    return bool(old)
