"""The check of a stranger's documents in a process of its own, within limits of the kernel.

A site's parent process serves a whole federation: whatever a document costs, it must not cost that
process its memory or its time. The process of a check is a fresh interpreter and not a fork,
because the parent has threads of gRPC. Its import path has nothing of the environment and of the
working directory. Behind the kernel's wall it reads, starts no program and connects to nothing. It
answers with a verdict in JSON; no answer is a refusal.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from fl_client.job_check import check_app, check_path
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.confinement.wall import Confinement, Mode, confine_as
from mmar_runtime.errors import FederationError, Problem
from mmar_runtime.exchange.plain import from_plain, to_plain
from mmar_runtime.policy.mmar_check import guarded
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    SitePolicy,
    parse_policy,
    policy_document,
)
from mmar_runtime.policy.verdict import Verdict, verdict

Subject: TypeAlias = Literal["path", "app"]
"""What is judged: whatever lies at a path, or the app folder of a job alone."""

CPU_SECONDS = 5
"""Of the processor; a usual job takes 0.3 s, half of it for the start of the interpreter."""

MEMORY = 300 * 2**20
FILE_BYTES = 64 * 2**20
"""Of each file that is unpacked from a zip."""

WALL_SECONDS = 10.0
"""By the clock; so long NVFlare's server waits for the judgement of a site."""

MODULE = "fl_client.jobs.limited_check"
MAX_ANSWER = 4 * 2**20

ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""All that the check keeps of the environment; the interpreter itself may need these."""

ADVICE = "Usual documents take a small part of that. Leave out what is deep, long or repeated."


def limited_check(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    *,
    subject: Subject = "path",
    overrides: Mapping[str, Scalar] | None = None,
    debug: bool = False,
) -> Verdict:
    """Return the verdict on what lies at a path, within limits on time and memory; never raises.

    Args:
        path: a job's folder or zip, an MMAR, or one workflow.
        policy: what the site allows.
        subject: whether ``path`` is the app folder of a job, as NVFlare hands it to a site.
        overrides: values from ``--set``.
        debug: whether the process of the check writes tracebacks to the standard error.
    """
    question = {
        "path": os.path.abspath(path),  # the process works in another folder
        "policy": policy_document(policy),
        "subject": subject,
        "overrides": dict(overrides or {}),
        "limits": [CPU_SECONDS, MEMORY, FILE_BYTES],
        "debug": debug,
    }
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    with tempfile.TemporaryFile() as answer:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-m", MODULE],
                input=json.dumps(question).encode(),
                stdout=answer,
                stderr=None if debug else subprocess.DEVNULL,
                env=environment,
                timeout=WALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _over(path, f"takes more than {WALL_SECONDS:.0f} s")
        except OSError as error:
            return _unjudged(path, f"its process cannot be started: {error.strerror}")
        if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return _over(path, f"takes more than {CPU_SECONDS} s of the processor")
        return _answered(path, done.returncode, answer)


def _answered(path: str | Path, code: int, answer: BinaryIO) -> Verdict:
    answer.seek(0)
    try:
        document = json.loads(answer.read(MAX_ANSWER))
        problems = [from_plain(Problem, problem) for problem in document["problems"]]
        notices = [str(notice) for notice in document["notices"]]
        accepted = document["accepted"] is True
    except (ValueError, KeyError, TypeError, FederationError):
        return _unjudged(path, f"its process ended without a verdict, exit code {code}")
    if code or accepted == bool(problems):
        return _unjudged(path, f"its process ended with half a verdict, exit code {code}")
    return verdict(path, problems, notices)


def _over(path: str | Path, what: str) -> Verdict:
    return verdict(path, [Problem(_place(path), f"{what} to be judged", ADVICE, "cost")])


def _unjudged(path: str | Path, why: str) -> Verdict:
    message = f"cannot be judged: {why}"
    advice = "What cannot be judged does not run. See the output of 'mmar check --debug'."
    return verdict(path, [Problem(_place(path), message, advice, "check")])


def _place(path: str | Path) -> Location:
    return Location(Path(path).name)


# --- In the process of the check -----------------------------------------------------------------

_JUDGES: Mapping[Subject, Callable[..., Verdict]] = {"path": check_path, "app": check_app}


def _limit(mode: Mode, cpu: int, memory: int, file_bytes: int) -> None:
    """Bound this process, before it reads anything of a stranger.

    It may read, and unpack into the folder for temporary files; it starts nothing and connects to
    nothing. The soft limit on time raises a signal of its own; the hard one, above it, only kills.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = cpu + 1 if hard == resource.RLIM_INFINITY else min(cpu + 1, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (min(cpu, most), most))
    everything, scratch = Path("/"), Path(tempfile.gettempdir())
    allowed = Confinement(
        read=(everything,), write=(scratch,), memory=memory, file_bytes=file_bytes
    )
    confine_as(mode, allowed)


def main() -> int:
    """Judge what the question on the standard input names; the verdict goes to the output."""
    question = json.load(sys.stdin)
    policy = parse_policy(question["policy"], Location("policy"))
    _limit(policy.confinement, *question["limits"])
    if question["debug"]:
        logging.basicConfig(level=logging.DEBUG)
    judge, path = _JUDGES[question["subject"]], question["path"]
    judged = guarded(path, lambda: judge(path, policy, overrides=question["overrides"]))
    problems = to_plain(judged.problems)
    answer = {"accepted": judged.accepted, "problems": problems, "notices": judged.notices}
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
