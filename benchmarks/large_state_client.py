"""The client of `large_state_recipe.py`: it returns each model as it came, and tells when."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nvflare.client as flare


def main(work: Path) -> None:
    flare.init()
    file = work / f"{flare.get_site_name()}.json"
    times: list[float] = []
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        times.append(time.time())
        file.write_text(json.dumps(times))
        meta = {"NUM_STEPS_CURRENT_ROUND": 1}
        flare.send(flare.FLModel(params=received.params, metrics={"score": 0.5}, meta=meta))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
