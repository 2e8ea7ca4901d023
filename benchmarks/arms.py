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
    from ignite.engine import Events
    from ignite.metrics import Accuracy
    from monai.data import CacheDataset, DataLoader, load_decathlon_datalist
    from monai.engines import SupervisedEvaluator, SupervisedTrainer
    from monai.handlers import (
        CheckpointSaver,
        LrScheduleHandler,
        MeanDice,
        StatsHandler,
        TensorBoardStatsHandler,
        ValidationHandler,
        from_engine,
    )
    from monai.inferers import SimpleInferer, SlidingWindowInferer
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from monai.transforms import (
        Activationsd,
        AsDiscreted,
        Compose,
        CropForegroundd,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        RandCropByPosNegLabeld,
        RandShiftIntensityd,
        ScaleIntensityRanged,
    )
    from monai.utils import set_determinism

    torch.set_num_threads(1)
    set_determinism(0)
    torch.backends.cudnn.benchmark = False
    both = ["image", "label"]
    load = [
        LoadImaged(both, image_only=False),
        EnsureChannelFirstd(both),
        ScaleIntensityRanged("image", -57, 164, 0.0, 1.0, clip=True),
        CropForegroundd(both, source_key="image"),
    ]
    crop = RandCropByPosNegLabeld(
        both, "label", [32, 32, 32], pos=1, neg=1, num_samples=4, image_key="image"
    )
    shift = RandShiftIntensityd("image", 0.1, prob=0.5)
    lists = {
        key: load_decathlon_datalist(str(data / "dataset.json"), True, key, str(data))
        for key in ("training", "validation")
    }
    train_data = CacheDataset(
        lists["training"], Compose([*load, crop, shift, EnsureTyped(both)]), num_workers=0
    )
    val_data = CacheDataset(lists["validation"], Compose([*load, EnsureTyped(both)]), num_workers=0)
    network = UNet(3, 1, 2, [8, 16, 32, 64], [2, 2, 2], num_res_units=1, norm="instance")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 500, 0.1)
    post = Compose(
        [
            Activationsd("pred", softmax=True),
            AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=2),
        ]
    )
    pair = from_engine(["pred", "label"])
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(val_data, batch_size=1, num_workers=0),
        network,
        inferer=SlidingWindowInferer([32, 32, 32], 4, 0.25),
        postprocessing=post,
        key_val_metric={"val_mean_dice": MeanDice(include_background=False, output_transform=pair)},
        additional_metrics={"val_acc": Accuracy(output_transform=pair)},
        val_handlers=[
            StatsHandler(output_transform=lambda x: None),
            TensorBoardStatsHandler(log_dir=str(work), output_transform=lambda x: None),
            CheckpointSaver(str(work), {"model": network}, save_key_metric=True),
        ],
    )
    loss = from_engine(["loss"], first=True)
    trainer = SupervisedTrainer(
        "cpu",
        epochs,
        DataLoader(train_data, batch_size=2, shuffle=True, num_workers=0),
        network,
        optimizer,
        DiceCELoss(to_onehot_y=True, softmax=True),
        inferer=SimpleInferer(),
        postprocessing=post,
        key_train_metric={"train_acc": Accuracy(output_transform=pair)},
        train_handlers=[
            LrScheduleHandler(schedule, print_lr=True),
            ValidationHandler(epochs, evaluator),
            CheckpointSaver(str(work), {"model": network, "opt": optimizer}, save_final=True),
            StatsHandler(tag_name="train_loss", output_transform=loss),
            TensorBoardStatsHandler(
                log_dir=str(work), tag_name="train_loss", output_transform=loss
            ),
        ],
    )
    times: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: times.append(time.time() - BORN)
    )
    trainer.run()
    return times


if __name__ == "__main__":
    arm, folder, count, workspace = sys.argv[1:5]
    stdout = os.dup(1)
    os.dup2(2, 1)  # MONAI's handlers print; the result goes to stdout alone
    iterations = {"mmar": mmar, "by_hand": by_hand}[arm](Path(folder), int(count), Path(workspace))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    os.write(stdout, json.dumps({"times": iterations, "memory": memory}).encode())
