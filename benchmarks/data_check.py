"""How long a run takes to ask what it needs to know of its data: `python benchmarks/data_check.py`.

100 volumes with labels. Cold: no label has been read before. Warm: the next run of these data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from harness import keep, rows, show

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.datatools.run_check import with_data_checked
from mmar_runtime.mmar import Mmar

JOB = Path(__file__).resolve().parent.parent / "jobs/spleen_ct_segmentation"
SHAPE = (256, 256, 80)
SECONDS = "seconds of the data check"


def write_data(folder: Path, cases: int) -> None:
    """Write volumes of noise with labels, as old as files that a cache may trust."""
    random = np.random.default_rng(0)
    items = []
    for case in range(cases):
        image = random.integers(-1000, 1000, SHAPE, dtype=np.int16)
        label = np.zeros(SHAPE, np.uint8)
        label[60:160, 60:160, 10:70] = random.integers(0, 2, (100, 100, 60), dtype=np.uint8)
        item = {"image": f"image_{case}.nii.gz", "label": f"label_{case}.nii.gz"}
        for key, voxels in (("image", image), ("label", label)):
            volume = nibabel.Nifti1Image(voxels, np.diag([0.8, 0.8, 2.5, 1.0]))
            nibabel.save(volume, folder / item[key])
            long_ago = time.time() - 60
            os.utime(folder / item[key], (long_ago, long_ago))
        items.append(item)
    held_out = cases // 5
    document = {"training": items[held_out:], "validation": items[:held_out]}
    (folder / "dataset.json").write_text(json.dumps(document))


def config(data: Path) -> TrainConfig:
    values = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")}
    return load_train_config(Mmar.open(JOB / "app"), overrides=values)


def seconds(data: Path) -> float:
    loaded = config(data)
    started = time.perf_counter()
    with_data_checked(loaded)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, cache = Path(folder) / "data", Path(folder) / "cache"
        data.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(cache)
        write_data(data, options.cases)
        measured: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
        for _ in range(options.repetitions):
            shutil.rmtree(cache, ignore_errors=True)
            measured["cold"].append({SECONDS: seconds(data)})
            measured["warm"].append({SECONDS: seconds(data)})
    found = rows(measured, base="warm", title="data check")
    show(found)
    print(keep("data_check", found))


if __name__ == "__main__":
    main()
