"""Flower with a client written by hand: `python flower.py DATA SITES ROUNDS EPOCHS WORK`.

An arm for whoever has `flwr[simulation]` installed; the project does not need it. Two workers, each
of which keeps the sites that it has trained before. Like NVFlare's recipe it evaluates no model at
other sites and scores no last model, so it does less than the other arms.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).resolve().parent)
WORKERS = 2

sites: dict[str, Any] = {}
"""Those that this worker has built."""


def site_of(name: str, data: Path, epochs: int, work: Path) -> Any:
    """A site as this worker has left it; new, if it is here for the first time."""
    sys.path.insert(0, HERE)
    import torch
    from by_hand import HandWrittenSite, network
    from ignite.engine import Events

    torch.set_num_threads(1)
    if name not in sites:
        site = HandWrittenSite(data / name, work / name, network(), epochs=epochs, every=epochs)
        told = work / f"{name}.json"

        def note(_: object) -> None:
            if not told.exists():
                told.write_text(json.dumps({"first_step": time.time()}))

        site.trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
        sites[name] = site
    return sites[name]


def main(data: Path, count: int, rounds: int, epochs: int, work: Path) -> None:
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    sys.path.insert(0, HERE)
    from by_hand import network
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    server, client = ServerApp(), ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        name = f"site-{int(context.node_config['partition-id']) + 1}"
        site = site_of(name, data, epochs, work)
        site.net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        score = site.score()
        steps = site.train()
        metrics = MetricRecord({"num-examples": steps, "val_mean_dice": score})
        content = {"arrays": ArrayRecord(site.net.state_dict()), "metrics": metrics}
        return Message(content=RecordDict(content), reply_to=message)

    @server.main()
    def rounds_of(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
        strategy.start(grid, ArrayRecord(network().state_dict()), num_rounds=rounds)

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    init = {"num_cpus": WORKERS, "include_dashboard": False}
    run_simulation(
        server,
        client,
        num_supernodes=count,
        backend_config={"client_resources": resources, "init_args": init},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), Path(sys.argv[5]))
