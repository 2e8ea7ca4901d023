"""Feeds random inputs to all that reads what strangers write; the same seed, the same inputs.

    python scripts/fuzz.py                          # 2,100,000 inputs over all targets
    python scripts/fuzz.py --count 20000 --seed 7   # fewer, others
    python scripts/fuzz.py --target expression log  # some targets only

A fault is an error that the code does not declare, an input that takes longer than a second of the
processor, or anything that `tests.security.fuzzing.Watch` sees: a program, a connection, a file
elsewhere. Faults are written to build/fuzz/, one JSON file each; what is mended is then kept in
tests/security/fuzz_seeds/, which the tests run again. Exit code 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from tests.security.fuzzing import TARGETS, Target, Watch, digest

OUTPUT = Path("build/fuzz")
SHARES = {
    "expression": 0.29,
    "possible": 0.1,
    "substitution": 0.26,
    "document": 0.18,
    "log": 0.06,
    "data_list": 0.03,
    "image": 0.03,
    "update": 0.04,
    "workflow": 0.008,
    "archive": 0.002,
}
"""How the inputs are spread: what is cheap carries the number, what is dear gets thousands."""

CHUNK = 500
"""Inputs that share a state of the random numbers; a chunk is run by one process."""

WARM = 30
"""Inputs of each target before anything is watched."""

MAX_SECONDS = 1.0
MAX_KEPT = 100
"""Faults of one kind that are written down."""

MAX_MEMORY = 16 * 2**30
ENDLESS = 20
"""Seconds until an input is ended."""


class Endless(BaseException):
    """An input took so long that it was ended."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An input that went wrong."""

    target: str
    kind: str
    text: str
    given: Any


@dataclass(slots=True)
class Chunk:
    """What came of one chunk."""

    target: str
    count: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    faults: list[Fault] = field(default_factory=list)


_targets: dict[str, Target] = {}
_watches: list[Watch] = []


def _start(folder: str, names: tuple[str, ...]) -> None:
    """In each process: its own folder, its own targets."""
    own = Path(tempfile.mkdtemp(dir=folder))
    tempfile.tempdir = str(own)  # so that a check's own files lie where files may be written
    _watches.append(Watch(own))
    _targets.update({kind.name: kind(own) for kind in TARGETS if kind.name in names})
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    signal.signal(signal.SIGALRM, _end)
    for target in _targets.values():  # what is imported once is no fault of an input
        random = Random(0)
        for _ in range(WARM):
            target.run(target.make(random))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(signum: int, frame: FrameType | None) -> None:
    raise Endless


def _run_chunk(task: tuple[str, int, int, int]) -> Chunk:
    name, seed, number, count = task
    target, [watch] = _targets[name], _watches
    random = Random(f"{seed}/{name}/{number}")
    found = Chunk(name)
    start = time.perf_counter()
    for _ in range(count):
        given = target.make(random)
        watch.seen.clear()
        watch.watching = True
        used = time.process_time()
        kind, text = _run_one(target, given)
        used = time.process_time() - used
        watch.watching = False
        if watch.seen:
            kind, text = "seen", "; ".join(watch.seen)
        elif not kind and used > MAX_SECONDS:
            kind, text = "slow", f"{used:.2f} s"
        if kind:
            found.faults.append(Fault(name, kind, text, target.encoded(given)))
        found.count += 1
        found.slowest = max(found.slowest, used)
    found.seconds = time.perf_counter() - start
    return found


def _run_one(target: Target, given: Any) -> tuple[str, str]:
    signal.alarm(ENDLESS)
    try:
        target.run(given)
    except Endless:
        return "endless", f"more than {ENDLESS} s"
    except BaseException as error:
        return "crash", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    finally:
        signal.alarm(0)
    return "", ""


def _tasks(options: argparse.Namespace) -> Iterator[tuple[str, int, int, int]]:
    shares = {name: SHARES[name] for name in options.target}
    for name, share in shares.items():
        count = max(1, round(options.count * share / sum(shares.values())))
        for number in range(-(-count // CHUNK)):
            yield name, options.seed, number, min(CHUNK, count - number * CHUNK)


def _chunks(options: argparse.Namespace, folder: str) -> Iterator[Chunk]:
    """The chunks as they are finished; one whose process died counts as a fault."""
    with ProcessPoolExecutor(
        options.processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(folder, tuple(options.target)),
    ) as pool:
        tasks = {pool.submit(_run_chunk, task): task for task in _tasks(options)}
        for done in as_completed(tasks):
            try:
                yield done.result()
            except BrokenProcessPool:
                broken = [task for future, task in tasks.items() if future.exception()]
                text = f"a process died; it had one of the first of {broken[:4]}"
                yield Chunk(broken[0][0], faults=[Fault(broken[0][0], "died", text, None)])
                return


def _keep(fault: Fault) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    record = {"target": fault.target, "kind": fault.kind, "text": fault.text, "input": fault.given}
    path = OUTPUT / f"{fault.target}-{fault.kind}-{digest(fault.given)}.json"
    path.write_text(json.dumps(record, indent=2))


def main() -> int:
    """Run the inputs over the targets, on at most two processes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=2_100_000, help="inputs over all targets")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--processes", type=int, default=2, help="processes at a time")
    parser.add_argument("--target", nargs="+", default=list(SHARES), choices=list(SHARES))
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="mmar-fuzz-", dir=memory if memory.is_dir() else None)
    start = time.perf_counter()
    totals: dict[str, Chunk] = {}
    kinds: Counter[str] = Counter()
    try:
        for chunk in _chunks(options, folder):
            total = totals.setdefault(chunk.target, Chunk(chunk.target))
            total.count += chunk.count
            total.seconds += chunk.seconds
            total.slowest = max(total.slowest, chunk.slowest)
            for fault in chunk.faults:
                kinds[fault.kind] += 1
                if kinds[fault.kind] <= MAX_KEPT:
                    _keep(fault)
                    print(
                        f"{fault.target} {fault.kind}: {fault.text.splitlines()[0][:200]}",
                        flush=True,
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for total in totals.values():
        print(
            f"{total.target:13} {total.count:9,} inputs  {total.seconds:7.1f} s  "
            f"{total.seconds / max(1, total.count) * 1e6:7.0f} us each  "
            f"slowest {total.slowest:.3f} s"
        )
    count = sum(total.count for total in totals.values())
    seconds = time.perf_counter() - start
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "no fault"
    print(f"{count:,} inputs, seed {options.seed}: {told}, in {seconds:.0f} s")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
