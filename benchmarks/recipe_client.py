"""The client of `recipe.py`, as NVFlare's Client API asks for it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nvflare.client as flare
import torch
from by_hand import HandWrittenSite, network
from ignite.engine import Events


def main(data: Path, epochs: int, work: Path) -> None:
    torch.set_num_threads(1)
    flare.init()
    name = flare.get_site_name()
    net = network()
    site = HandWrittenSite(data / name, work / name, net, epochs=epochs, every=epochs)
    first_step: list[float] = []
    site.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: first_step.append(time.time())
    )
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        state = {key: torch.as_tensor(value) for key, value in received.params.items()}
        net.load_state_dict(state)
        score = site.score()
        steps = site.train()
        (work / f"{name}.json").write_text(json.dumps({"first_step": first_step[0]}))
        flare.send(
            flare.FLModel(
                params={key: value.cpu() for key, value in net.state_dict().items()},
                metrics={"val_mean_dice": score},
                meta={"NUM_STEPS_CURRENT_ROUND": steps},
            )
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
