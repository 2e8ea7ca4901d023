"""Rounds without training: `python benchmarks/large_state.py`.

What a round costs besides the work of the sites, from 100 KB to 1 GB: the inline engine's server
with sites that load what they received into a network and return it, guard, mean, digest and files
included; the same without one of these; and a loop that copies and averages, without a checkpoint
and with one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from harness import in_turn, keep, rows, show
from measure import measure

SITES = 2
TENSORS = 20
GAP = "seconds of a round"
TOTAL = "seconds of all rounds / rounds"
"""To the last file: what is still being written and hashed when the last round ends is in it."""

SIZES = "peak memory / size of the model"
LIMITS = {0.1: 0.02, 20.0: 0.1}
"""MB of a model -> seconds that a round of the inline engine may take."""

COPY, WRITTEN, INLINE = "copy, average", "copy, average, written", "inline"
PARTS = {
    "inline, no guard": (
        "fl_server.guard.reply_guard.PlainReplyGuard.contribution_faults",
        lambda *_, **__: (),
    ),
    "inline, no digest": ("fl_server.federation.digest", lambda _: "0" * 64),
    "inline, no file": (
        "fl_server.run_files.write_checkpoint",
        lambda path, *_, **__: path.write_bytes(b""),
    ),
}
"""Arms that leave something out, so that one sees what it costs."""


def weights_of(megabytes: float) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    numbers = max(1, int(megabytes * 1e6 / 4 / TENSORS))
    return {f"layer_{index}": torch.randn(numbers) for index in range(TENSORS)}


def inline(megabytes: float, rounds: int, folder: Path, *, without: str = "") -> list[float]:
    """When each round of the inline engine's server starts, and when all is done."""
    import torch

    from fl_admin.simulation.inline.carrier import Carrier, inline_run
    from fl_client.updates import weight_difference
    from fl_server.guard.metric_contract import MetricContract
    from fl_server.initial_model import InitialModel
    from mmar_runtime.exchange.job_terms import JobTerms
    from mmar_runtime.exchange.messages import (
        BestModel,
        Reply,
        SiteReport,
        Submit,
        Task,
        Train,
        Update,
    )
    from mmar_runtime.metrics import MetricValue
    from mmar_runtime.results import EvaluationResult
    from mmar_runtime.weights import load_into

    torch.set_num_threads(1)
    metrics = {"dice": MetricValue(value=0.5, counted=1)}
    report = SiteReport(
        received_metrics=metrics, local_metrics=metrics, epochs=(), seconds=0, built={}, process="p"
    )

    result = EvaluationResult(key_metric="dice", metrics=metrics, cases=1)

    class Returning:
        """Sites that return the model as they received it; they share the memory of a network."""

        network = torch.nn.ParameterDict(weights_of(megabytes)).requires_grad_(False)
        names = tuple(f"site-{number}" for number in range(1, SITES + 1))

        def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
            for name in self.names if only is None else (only,):
                if isinstance(task, Train):
                    load_into(self.network, task.weights, source="the server")
                    yield (
                        name,
                        Update(
                            round_number=task.round_number,
                            difference=weight_difference(
                                self.network.state_dict(),
                                task.weights,
                                in_place=True,
                            ),
                            steps=1,
                            report=report,
                        ),
                    )
                elif isinstance(task, Submit):
                    best = {
                        key: tensor.clone() for key, tensor in self.network.state_dict().items()
                    }
                    yield name, BestModel(weights=best, round_number=1, result=result)
                else:
                    yield name, result

    contract = MetricContract(key_metric="dice")
    terms = JobTerms(rounds=rounds, min_sites=SITES)
    sites = Returning()
    starts: list[float] = []

    class Clock(Carrier):
        def _train(self) -> None:
            starts.append(time.perf_counter())
            super()._train()

        def _submit(self) -> None:
            """Not measured here."""

        def _validate(self) -> None:
            """Not measured here."""

    with ExitStack() as stack:
        if without:
            stack.enter_context(patch(*PARTS[without]))
        run = inline_run(
            "job",
            terms,
            InitialModel(
                weights=weights_of(megabytes),
                train_conf={},
                key_metric="dice",
                metrics=contract,
                cross_site_metrics=contract,
            ),
            sites.names,
            folder,
            evaluation_sha256="",
        )
        Clock(run, sites).carry()
    return [*starts, time.perf_counter()]


def plain(megabytes: float, rounds: int, folder: Path, *, written: bool) -> list[float]:
    """When each round of a loop that copies and averages starts, and when all is done."""
    import torch

    torch.set_num_threads(1)
    weights = weights_of(megabytes)
    starts = []
    for _ in range(rounds):
        starts.append(time.perf_counter())
        total = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
        for _ in range(SITES):
            local = {key: tensor.clone() for key, tensor in weights.items()}
            for key, tensor in local.items():
                total[key].add_(tensor, alpha=1 / SITES)
        weights = total
        if written:
            torch.save({"model": weights}, folder / "model.pt")
    return [*starts, time.perf_counter()]


def in_child(arm: str, megabytes: float, rounds: int) -> dict[str, float]:
    """One arm in a process of its own, measured."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--child", arm, str(megabytes), str(rounds), folder]
        empty = [sys.executable, __file__, "--child", arm, "0.001", "2", folder]
        log = Path(folder) / "log"
        base = measure(empty, log=log).peak_rss
        found = measure(words, log=log)
        starts = json.loads((Path(folder) / "told.json").read_text())
        return {
            GAP: median(after - before for before, after in pairwise(starts[:-1])),
            TOTAL: (starts[-1] - starts[0]) / rounds,
            SIZES: max(0.0, found.peak_rss - base) * 2**20 / (megabytes * 1e6),
        }


def child(arm: str, megabytes: float, rounds: int, folder: Path) -> None:
    if arm in (COPY, WRITTEN):
        starts = plain(megabytes, rounds, folder, written=arm == WRITTEN)
    else:
        starts = inline(megabytes, rounds, folder, without=arm if arm in PARTS else "")
    (folder / "told.json").write_text(json.dumps(starts))
    time.sleep(0.3)  # for whoever measures the memory of a very short run


def table(size: float, measured: dict[str, list[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Beside a loop that writes nothing, and once more beside one that writes as inline does."""
    bars = {(INLINE, GAP): 1.5} if size >= 200 else {}
    found = rows(measured, base=COPY, title=f"{size:g} MB, {SITES} sites", bars=bars)
    for row in found:
        if row["arm"] == INLINE:
            row["limit"] = {GAP: LIMITS.get(size), SIZES: 4.0}.get(row["figure"])
    title = f"{size:g} MB, {SITES} sites, beside a loop that writes"
    return found + [
        row
        for row in rows(measured, base=WRITTEN, title=title)
        if row["arm"] == INLINE and row["figure"] != SIZES
    ]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        arm, megabytes, rounds, folder = sys.argv[2:6]
        child(arm, float(megabytes), int(rounds), Path(folder))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.1, 20, 200, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="inline without one part, too")
    options = parser.parse_args()
    found = []
    for size in options.megabytes:
        names = (COPY, WRITTEN, INLINE, *(PARTS if options.parts else ()))
        arms = {name: partial(in_child, name, size, options.rounds) for name in names}
        measured = in_turn(arms, options.repetitions)
        found += table(size, measured)
    show(found)
    print(keep("large_state", found))


if __name__ == "__main__":
    main()
