"""Runs cases, apart from each other, and says what happened in each.

    python -m tests.security.runner                 (every case: the figures, and what went wrong)
    python -m tests.security.runner --json [NAME...]           (one JSON line for each)
    python -m tests.security.runner --command [NAME...]        (through a fresh `mmar check --json`)

A lean parent, which has imported the command line and nothing heavier, forks once for a few cases.
The child writes each subject, calls ``mmar check`` on it and reports exit code, rules, seconds and
what it has imported. What it prints, as JSON and as text, is searched for the canary. Where a child
does not come to its end, each of its cases is run once more, in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fl_client.jobs.limited_check  # what the command imports when it is run
from fl_admin.cli.main import main as mmar
from fl_client.job_check import check_path
from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.site_policy import SitePolicy
from mmar_runtime.policy.verdict import Verdict
from tests.security.case import CANARY, Case, UpdateCase
from tests.security.corpus.all import BENIGN, HOSTILE
from tests.security.corpus.update import judged

HEAVY = ("torch", "monai", "ignite", "nvflare")
"""What a check must not import."""

MAX_SECONDS = 30
"""Until a case is ended; a second is the most that it may take."""

MAX_MEMORY = 4 * 2**30

TOGETHER = 10
"""Cases in one process: a fork costs as much as a check."""

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where the files of a case cost least; None means the system's folder for such files."""

AT_THE_END = 99
"""Exit code of a process that has got through its cases."""

AnyCase = Case | UpdateCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one case.

    Attributes:
        name: of the case.
        family: of the case.
        code: the exit code of ``mmar check``; negative where a signal ended it.
        rules: that were told.
        seconds: of the check alone, by the clock.
        work: seconds of the processor; what a busy machine does not change.
        imported: heavy packages that the check brought in.
        executed: whether the marker is there.
        leaked: whether the canary shows in what was printed.
        fault: the traceback, where the command raised.
        messages: of the problems, for a person.
    """

    name: str
    family: str
    code: int
    rules: tuple[str, ...] = ()
    seconds: float = 0.0
    work: float = 0.0
    imported: tuple[str, ...] = ()
    executed: bool = False
    leaked: bool = False
    fault: str = ""
    messages: tuple[str, ...] = ()


def _judged_here(
    path: str, policy: SitePolicy, *, overrides: Mapping[str, Any], debug: bool
) -> Verdict:
    """The command's judge, without one more process: the case is in one already."""
    assert not debug
    return check_path(path, policy, overrides)


def run(cases: Sequence[AnyCase]) -> Iterator[Outcome]:
    """The outcome of each case, one after another."""
    fl_client.jobs.limited_check.limited_check = _judged_here
    load_component_table()  # every process of a site has read it once
    for start in range(0, len(cases), TOGETHER):
        some = cases[start : start + TOGETHER]
        status, found = _forked(some)
        if status != AT_THE_END:
            found = [outcome for case in some for outcome in _forked([case])[1]]
        yield from found


@contextlib.contextmanager
def workplace(above: str | None = None) -> Iterator[Path]:
    """A folder for one case, with a file of the site in it."""
    place = Path(tempfile.mkdtemp(prefix="mmar-case-", dir=above))
    try:
        (place / "site").mkdir()
        secret = {CANARY: CANARY, "training": [{"canary_5f1c0b7e94": CANARY, "image": "x"}]}
        (place / "site/secret.json").write_text(json.dumps(secret))
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _forked(cases: Sequence[AnyCase]) -> tuple[int, list[Outcome]]:
    """How a process ended, and what came of the cases that it had."""
    sys.stdout.flush()
    with ExitStack() as stack:
        places = [stack.enter_context(workplace(IN_MEMORY)) for _ in cases]
        child = os.fork()
        if child == 0:
            try:
                for case, place in zip(cases, places, strict=True):
                    _child(case, place)
                os._exit(AT_THE_END)
            finally:
                os._exit(1)  # whatever happened: the parent's code does not go on here
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = [_outcome(case, place, status) for case, place in zip(cases, places, strict=True)]
        return status, found


def _child(case: AnyCase, place: Path) -> None:
    """In the new process: write, check, report; what it prints goes to files."""
    os.environ["MMAR_CANARY"] = CANARY
    bounded()
    with (place / "out").open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    before = set(sys.modules)
    try:
        report = _guarded(case, place) if isinstance(case, UpdateCase) else _checked(case, place)
    except BaseException:
        report = {"code": 98, "fault": traceback.format_exc()}
    found = {name.partition(".")[0] for name in set(sys.modules) - before}
    report["imported"] = sorted(found & set(HEAVY))
    (place / "report").write_text(json.dumps(report))


def _checked(case: Case, place: Path) -> dict[str, Any]:
    """``mmar check`` as JSON, which is measured, and as text where that could show a secret."""
    subject = _written(case, place)
    arguments = [str(subject), *case.arguments(place), *_policy(case, place)]
    report = _measured(lambda: mmar(["check", "--json", *arguments]))
    sys.stdout.flush()
    shutil.copy(place / "out", place / "json")
    if case.reads_the_site:
        mmar(["check", *arguments])
        sys.stdout.flush()
    return report


def _measured(check: Callable[[], int]) -> dict[str, Any]:
    start, work = time.perf_counter(), time.process_time()
    code = check()
    return {
        "code": code,
        "seconds": time.perf_counter() - start,
        "work": time.process_time() - work,
    }


def _guarded(case: UpdateCase, place: Path) -> dict[str, Any]:
    """The update guard over one contribution."""
    judged(UpdateCase(id="none", family="benign", tries="", change=lambda *_: None), place / "none")
    rules: list[str] = []

    def guard() -> int:
        rules.extend(judged(case, place / "marker"))
        return 3 if rules else 0

    report = _measured(guard)
    sys.stdout.write(f"{rules}\n")
    sys.stdout.flush()
    problems = [{"rule": rule, "file": "", "place": "", "message": ""} for rule in rules]
    (place / "json").write_text(json.dumps({"path": "", "problems": problems}))
    return report


def bounded() -> None:
    """Bound what this process may take: time and memory; and let nobody wait for its input."""
    signal.alarm(MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)


def _written(case: Case, place: Path) -> Path:
    return case.write(place, marker=place / "marker", secret=place / "site/secret.json")


def _policy(case: Case, place: Path) -> list[str]:
    if case.policy is None:
        return []
    path = place / "site/policy.json"
    path.write_text(json.dumps(case.policy))
    path.chmod(0o600)
    return ["--policy", str(path)]


def _outcome(case: AnyCase, place: Path, status: int) -> Outcome:
    report = json.loads(_read(place / "report") or '{"code": 97, "fault": "no report"}')
    if status < 0:
        report = {"code": status, "fault": f"ended by signal {-status}"}
    verdict = _verdict(_read(place / "json"))
    return Outcome(
        name=case.name,
        family=case.family,
        code=report["code"],
        rules=tuple(dict.fromkeys(one["rule"] for one in verdict.get("problems", ()))),
        seconds=report.get("seconds", 0.0),
        work=report.get("work", 0.0),
        imported=tuple(report.get("imported", ())),
        executed=(place / "marker").exists(),
        leaked=CANARY in _read(place / "out"),
        fault=report.get("fault", ""),
        messages=tuple(
            f"{one['rule']} {one['file']}: {one['place']}: {one['message']}"
            for one in verdict.get("problems", ())
        ),
    )


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _verdict(text: str) -> Mapping[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith('{"path"')]
    return json.loads(lines[0]) if lines else {}


# --- Through the command itself ------------------------------------------------------------------


def run_command(cases: Iterable[AnyCase]) -> Iterator[Outcome]:
    """The same through a fresh ``mmar check --json`` each; slow, and nothing is shared."""
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(_commanded, (one for one in cases if isinstance(one, Case)))


def _commanded(case: Case) -> Outcome:
    with workplace() as place:
        subject = _written(case, place)
        command = [sys.executable, "-m", "fl_admin.cli.main", "check", "--json", str(subject)]
        command += [*case.arguments(place), *_policy(case, place)]
        start = time.perf_counter()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MAX_SECONDS * 2,
            env={**os.environ, "MMAR_CANARY": CANARY},
        )
        seconds = time.perf_counter() - start
        (place / "json").write_text(done.stdout)
        (place / "out").write_text(done.stdout + done.stderr)
        fault = done.stderr if "Traceback" in done.stderr else ""
        (place / "report").write_text(json.dumps({"code": done.returncode, "fault": fault}))
        return replace(_outcome(case, place, 0), seconds=seconds)


# --- Figures -------------------------------------------------------------------------------------


UNFIT = frozenset(
    {
        *("activation", "class-numbers", "compared", "grids", "key", "label-interpolated"),
        *("label-values", "metric", "network", "undecided", "weights", "window"),
    }
)
"""Rules of parts that do not fit. They are asked once all else is accepted, and a benign case may
change one part alone, which then does not fit the others."""


def faults(outcome: Outcome, case: AnyCase) -> list[str]:
    """What is wrong with an outcome; empty if it is as it has to be."""
    hostile = case.family != "benign"
    wrong = {
        f"crashed: exit {outcome.code} {outcome.fault}": outcome.code not in (0, 3),
        "executed": outcome.executed,
        "leaked": outcome.leaked,
        "accepted": hostile and outcome.code == 0,
        f"refused: {outcome.messages}": not hostile
        and outcome.code == 3
        and not set(outcome.rules) <= UNFIT,
        f"told {outcome.rules}": hostile
        and outcome.code == 3
        and isinstance(case, Case)
        and not set(outcome.rules) & set(case.rules),
        f"imported {outcome.imported}": bool(outcome.imported),
        f"took {outcome.work:.2f} s": outcome.work > 1,
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


def summary(outcomes: Mapping[str, Outcome]) -> str:
    """The figures, a line for each family."""
    lines = []
    families = dict.fromkeys(one.family for one in outcomes.values())
    for family in (*families, ""):
        some = [one for one in outcomes.values() if not family or one.family == family]
        slowest = max(some, key=lambda one: one.seconds)
        lines.append(
            f"{family or 'all':14} {len(some):4} cases  "
            f"{sum(one.code == 3 for one in some):4} refused  "
            f"{sum(one.code == 0 for one in some):4} accepted  "
            f"{sum(one.code not in (0, 3) for one in some):2} crashed  "
            f"{sum(one.executed for one in some)} executed  "
            f"{sum(one.leaked for one in some)} leaked  "
            f"{sum(bool(one.imported) for one in some)} imported  "
            f"median {statistics.median(one.seconds for one in some) * 1000:3.0f} ms  "
            f"slowest {slowest.seconds * 1000:4.0f} ms ({slowest.name})"
        )
    return "\n".join(lines)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the cases that were asked for, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases, or the beginnings of their names")
    parser.add_argument("--json", action="store_true", help="one JSON line for each case")
    parser.add_argument("--command", action="store_true", help="a fresh `mmar check` for each")
    options = parser.parse_args()
    cases = {
        case.name: case
        for case in (*HOSTILE, *BENIGN)
        if not options.names or case.name.startswith(tuple(options.names))
    }
    outcomes = {}
    wrong = 0
    for outcome in (run_command if options.command else run)([*cases.values()]):
        outcomes[outcome.name] = outcome
        if options.json:
            _say(json.dumps(asdict(outcome)))
            continue
        for fault in faults(outcome, cases[outcome.name]):
            wrong += 1
            _say(f"{outcome.name}: {fault}")
    if not options.json and outcomes:
        _say(summary(outcomes))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
