"""Federated averaging as one script: `python plain_loop.py DATA SITES ROUNDS EPOCHS WORK`.

One network, an optimizer for each site, the same validations as the example job: of the received
model before training, of the local one after it, of the last model, and of each model at each site.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil

BORN = psutil.Process(os.getpid()).create_time()


def main(data: Path, sites: int, rounds: int, epochs: int, work: Path) -> None:
    import torch
    from by_hand import HandWrittenSite, network
    from ignite.engine import Events
    from monai.utils import set_determinism

    torch.set_num_threads(1)
    set_determinism(0)
    net = network()
    first_step: list[float] = []

    def note(_: object) -> None:
        if not first_step:
            first_step.append(time.time() - BORN)

    crew = []
    for number in range(1, sites + 1):
        site = HandWrittenSite(
            data / f"site-{number}",
            work / f"site-{number}",
            net,
            epochs=epochs,
            every=epochs,
        )
        site.trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
        crew.append(site)
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    best: dict[int, tuple[float, dict[str, torch.Tensor]]] = {}
    best_global, best_weights = -1.0, weights
    starts = []
    for number in range(rounds):
        starts.append(time.time() - BORN)
        total = {
            name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in weights.items()
        }
        all_steps, scores = 0, []
        for index, site in enumerate(crew):
            net.load_state_dict(weights)
            scores.append(site.score())
            steps = site.train()
            for name, local in net.state_dict().items():
                total[name] += (local - weights[name]).double() * steps
            all_steps += steps
            score = site.evaluator.state.metrics["val_mean_dice"]
            if index not in best or score > best[index][0]:
                best[index] = score, {k: v.clone() for k, v in net.state_dict().items()}
        if number and sum(scores) > best_global:
            best_global, best_weights = sum(scores), weights
        weights = {
            name: (tensor.double() + total[name] / all_steps).to(tensor.dtype)
            for name, tensor in weights.items()
        }
        torch.save({"model": weights}, work / "global.pt")
    for site in crew:
        net.load_state_dict(weights)
        site.score()
    for model in (weights, best_weights, *(model for _, model in best.values())):
        torch.save({"model": model}, work / "model.pt")
        for site in crew:
            net.load_state_dict(model)
            site.cross_validate()
    seconds = [after - before for before, after in pairwise(starts)]
    told = {"first_step": first_step[0], "round_seconds": seconds}
    (work / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), Path(sys.argv[5]))
