"""Rounds without training: `python benchmarks/large_state.py`.

What a round costs besides the work of the sites, from 100 KB to 1 GB: the inline engine's server
with sites that return what they received, guard, mean, digest and files included; and a loop that
copies, averages and writes a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from harness import in_turn, keep, rows, show
from measure import measure

SITES = 2
TENSORS = 20
GAP = "seconds of a round"
SIZES = "peak memory / size of the model"
LIMITS = {0.1: 0.02, 20.0: 0.1}
"""MB of a model -> seconds that a round of the inline engine may take."""


def weights_of(megabytes: float) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    numbers = max(1, int(megabytes * 1e6 / 4 / TENSORS))
    return {f"layer.{index}.weight": torch.randn(numbers) for index in range(TENSORS)}


def inline(megabytes: float, rounds: int, folder: Path) -> list[float]:
    """Seconds of each round of the inline engine's server."""
    import torch

    from fl_admin.inline.job_terms import JobTerms
    from fl_admin.inline.server import InlineServer
    from fl_admin.inline.tasks import Reply, Submit, Task, Train
    from fl_client.simulated_site import SubmittedModel
    from fl_client.updates import LocalUpdate, weight_difference
    from fl_server.initial_model import InitialModel
    from fl_server.metric_contract import MetricContract
    from mmar_runtime.results import EvaluationResult, SiteReport

    torch.set_num_threads(1)
    metrics = {"dice": 0.5}
    report = SiteReport(
        received_metrics=metrics, local_metrics=metrics, epochs=(), seconds=0, built={}, process="p"
    )

    class Returning:
        """Sites that return the model as they received it."""

        names = tuple(f"site-{number}" for number in range(1, SITES + 1))

        def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
            for name in self.names if only is None else (only,):
                if isinstance(task, Train):
                    local = {key: one.clone() for key, one in task.weights.items()}
                    yield (
                        name,
                        LocalUpdate(
                            round_number=task.round_number,
                            difference=weight_difference(local, task.weights),
                            steps=1,
                            report=report,
                        ),
                    )
                elif isinstance(task, Submit):
                    yield name, SubmittedModel(weights=weights, round_number=1, metrics=metrics)
                else:
                    yield name, EvaluationResult(key_metric="dice", metrics=metrics, cases=1)

    weights = weights_of(megabytes)
    contract = MetricContract(key_metric="dice")
    initial = InitialModel(
        weights=weights,
        train_conf={},
        key_metric="dice",
        metrics=contract,
        cross_site_metrics=contract,
    )
    terms = JobTerms(rounds=rounds, min_sites=SITES)
    starts: list[float] = []

    class Clock(InlineServer):
        def _round(self, number: int) -> None:
            starts.append(time.perf_counter())
            super()._round(number)

        def _validate_everywhere(self) -> None:
            """Not measured here."""

        def _publish(self) -> None:
            self._recorder.finish("complete")

    Clock("job", terms, initial, Returning(), folder, evaluation_sha256="").run()
    return [after - before for before, after in pairwise(starts)]


def plain(megabytes: float, rounds: int, folder: Path, *, written: bool) -> list[float]:
    """Seconds of each round of a loop that copies and averages, and may write a checkpoint."""
    import torch

    torch.set_num_threads(1)
    weights = weights_of(megabytes)
    starts = []
    for _ in range(rounds):
        starts.append(time.perf_counter())
        total = {key: torch.zeros_like(one) for key, one in weights.items()}
        for _ in range(SITES):
            local = {key: one.clone() for key, one in weights.items()}
            for key, one in local.items():
                total[key].add_(one, alpha=1 / SITES)
        weights = total
        if written:
            torch.save({"model": weights}, folder / "model.pt")
    return [after - before for before, after in pairwise(starts)]


def in_child(arm: str, megabytes: float, rounds: int) -> dict[str, float]:
    """One arm in a process of its own, measured."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--child", arm, str(megabytes), str(rounds), folder]
        empty = [sys.executable, __file__, "--child", arm, "0.001", "2", folder]
        log = Path(folder) / "log"
        base = measure(empty, log=log).peak_rss
        found = measure(words, log=log)
        seconds = json.loads((Path(folder) / "told.json").read_text())
        return {
            GAP: median(seconds),
            SIZES: max(0.0, found.peak_rss - base) * 2**20 / (megabytes * 1e6),
        }


def child(arm: str, megabytes: float, rounds: int, folder: Path) -> None:
    if arm == "inline":
        seconds = inline(megabytes, rounds, folder)
    else:
        seconds = plain(megabytes, rounds, folder, written=arm.endswith("written"))
    (folder / "told.json").write_text(json.dumps(seconds))
    time.sleep(0.3)  # for whoever measures the memory of a very short run


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        arm, megabytes, rounds, folder = sys.argv[2:6]
        child(arm, float(megabytes), int(rounds), Path(folder))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.1, 20, 200, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    found = []
    for size in options.megabytes:
        names = ("copy, average, written", "copy, average", "inline")
        arms = {name: partial(in_child, name, size, options.rounds) for name in names}
        bars = {("inline", GAP): 1.5} if size >= 200 else {}
        measured = in_turn(arms, options.repetitions)
        part = rows(measured, base=names[0], title=f"{size:g} MB, {SITES} sites", bars=bars)
        for one in part:
            if one["arm"] == "inline":
                one["limit"] = LIMITS.get(size) if one["figure"] == GAP else 4.0
        found += part
    show(found)
    print(keep("large_state", found))


if __name__ == "__main__":
    main()
