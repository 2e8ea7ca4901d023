"""The arms of the runtime benchmark, each a process of its own: `python arms.py NAME DATA EPOCHS`.

Each trains the same small UNet on the same volumes with the same transforms, and prints one JSON
line: seconds from the start of the process to the end of each iteration, and its peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import psutil

BORN = psutil.Process(os.getpid()).create_time()
JOB = Path(__file__).resolve().parent.parent / "jobs" / "spleen_ct_segmentation" / "app"


def mmar(data: Path, epochs: int, work: Path) -> list[float]:
    """`mmar train`, through the functions that the command calls."""
    import shutil

    from mmar_runtime.config.data_list import data_check
    from mmar_runtime.config.loader import load_train_config
    from mmar_runtime.mmar import Mmar
    from mmar_runtime.policy.component_check import component_check
    from mmar_runtime.policy.volume_check import volume_check

    shutil.copytree(JOB, work, dirs_exist_ok=True)
    values = {
        "DATA_ROOT": str(data),
        "DATASET_JSON": str(data / "dataset.json"),
        "epochs": epochs,
        "num_interval_per_valid": epochs,
        "NUM_THREADS": 1,
    }
    checks = [component_check(allow_code=True), data_check, volume_check]
    config = load_train_config(Mmar.open(work), overrides=values, checks=checks)
    from mmar_runtime.workflows.observing import SilentObserver
    from mmar_runtime.workflows.training import train

    times: list[float] = []

    class Clock(SilentObserver):
        def iteration(self, **_: object) -> None:
            times.append(time.time() - BORN)

    train(config, allow_code=True, observer=Clock())
    return times


def by_hand(data: Path, epochs: int, work: Path) -> list[float]:
    """The same training, written against MONAI and ignite without a configuration."""
    import torch
    from by_hand import HandWrittenSite, network
    from ignite.engine import Events
    from monai.utils import set_determinism

    torch.set_num_threads(1)
    set_determinism(0)
    torch.backends.cudnn.benchmark = False
    site = HandWrittenSite(data, work, network(), epochs=epochs, every=epochs)
    times: list[float] = []
    site.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: times.append(time.time() - BORN)
    )
    site.trainer.run()
    return times


if __name__ == "__main__":
    arm, folder, count, workspace = sys.argv[1:5]
    stdout = os.dup(1)
    os.dup2(2, 1)  # MONAI's handlers print; the result goes to stdout alone
    iterations = {"mmar": mmar, "by_hand": by_hand}[arm](Path(folder), int(count), Path(workspace))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    os.write(stdout, json.dumps({"times": iterations, "memory": memory}).encode())
