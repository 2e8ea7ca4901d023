"""The example job's training and validation, written by hand against MONAI and ignite.

What a careful researcher writes without a configuration: the same transforms, caches, handlers and
engines, for one site.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, Dataset, load_decathlon_datalist
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import (
    CheckpointSaver,
    LrScheduleHandler,
    MeanDice,
    MetricsSaver,
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
    Invertd,
    LoadImaged,
    RandCropByPosNegLabeld,
    RandShiftIntensityd,
    SaveImaged,
    ScaleIntensityRanged,
)

BOTH = ["image", "label"]
PAIR = from_engine(["pred", "label"])


NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 16, 32, 64],
    "strides": [2, 2, 2],
    "num_res_units": 1,
    "norm": "instance",
}


def network() -> UNet:
    """The job's network."""
    return UNet(**NETWORK)


def loading(crop: list[str]) -> list[Any]:
    return [
        LoadImaged(BOTH, image_only=False),
        EnsureChannelFirstd(BOTH),
        ScaleIntensityRanged("image", -57, 164, 0.0, 1.0, clip=True),
        CropForegroundd(crop, source_key="image"),
    ]


def post() -> Compose:
    return Compose(
        [
            Activationsd("pred", softmax=True),
            AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=2),
        ]
    )


def metrics() -> dict[str, Any]:
    from ignite.metrics import Accuracy

    return {
        "key_val_metric": {
            "val_mean_dice": MeanDice(include_background=False, output_transform=PAIR)
        },
        "additional_metrics": {"val_acc": Accuracy(output_transform=PAIR)},
    }


class HandWrittenSite:
    """Data, optimizer and engines of one site.

    Args:
        data: holds ``dataset.json``.
        work: what the handlers write goes here.
        net: the network, which several sites may share.
        epochs: epochs that one call of ``trainer.run`` does.
        every: epochs between two validations.
    """

    def __init__(
        self, data: Path, work: Path, net: torch.nn.Module, *, epochs: int, every: int
    ) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.net, self.epochs = net, epochs
        self._data, self._work = data, work
        crop = RandCropByPosNegLabeld(
            BOTH, "label", [32, 32, 32], pos=1, neg=1, num_samples=4, image_key="image"
        )
        drawn = [crop, RandShiftIntensityd("image", 0.1, prob=0.5)]
        train_data = CacheDataset(
            self.items("training"),
            Compose([*loading(BOTH), *drawn, EnsureTyped(BOTH)]),
            num_workers=0,
            progress=False,
        )
        val_data = CacheDataset(
            self.items("validation"),
            Compose([*loading(BOTH), EnsureTyped(BOTH)]),
            num_workers=0,
            progress=False,
        )
        self.val_loader = DataLoader(val_data, batch_size=1, num_workers=0)
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 500, 0.1)
        nothing = {"output_transform": lambda x: None}
        self.evaluator = self._evaluator(
            [
                StatsHandler(**nothing),
                TensorBoardStatsHandler(log_dir=str(work), **nothing),
                CheckpointSaver(str(work), {"model": net}, save_key_metric=True),
            ]
        )
        self.scorer = self._evaluator([])
        loss = {"tag_name": "train_loss", "output_transform": from_engine(["loss"], first=True)}
        self.trainer = SupervisedTrainer(
            "cpu",
            epochs,
            DataLoader(train_data, batch_size=2, shuffle=True, num_workers=0),
            net,
            self.optimizer,
            DiceCELoss(to_onehot_y=True, softmax=True),
            inferer=SimpleInferer(),
            postprocessing=post(),
            train_handlers=[
                LrScheduleHandler(schedule, print_lr=True),
                ValidationHandler(every, self.evaluator),
                CheckpointSaver(str(work), {"model": net, "opt": self.optimizer}, save_final=True),
                StatsHandler(**loss),
                TensorBoardStatsHandler(log_dir=str(work), **loss),
            ],
        )
        self._cross: SupervisedEvaluator | None = None

    def items(self, key: str) -> list[Any]:
        """The site's list of data."""
        found: list[Any] = load_decathlon_datalist(
            str(self._data / "dataset.json"), True, key, str(self._data)
        )
        return found

    def _evaluator(self, handlers: list[Any]) -> SupervisedEvaluator:
        return SupervisedEvaluator(
            "cpu",
            self.val_loader,
            self.net,
            inferer=SlidingWindowInferer([32, 32, 32], 4, 0.25),
            postprocessing=post(),
            val_handlers=handlers,
            **metrics(),
        )

    def train(self) -> int:
        """As many further epochs; the steps that they took."""
        state = self.trainer.state
        before = state.iteration
        state.max_epochs = state.epoch + self.epochs
        self.trainer.run()
        return int(state.iteration - before)

    def score(self) -> float:
        """Validate whatever the network holds."""
        self.scorer.run()
        return float(self.scorer.state.metrics["val_mean_dice"])

    def cross_validate(self) -> float:
        """The job's cross-site validation: volumes at their own size, predictions written."""
        if self._cross is None:
            pre = Compose([*loading(["image"]), EnsureTyped(BOTH)])
            eval_folder = str(self._work / "eval")
            first, last = post().transforms
            back = Invertd("pred", pre, "image", meta_keys="pred_meta_dict", nearest_interp=False)
            save = SaveImaged(
                "pred",
                meta_keys="pred_meta_dict",
                output_dir=eval_folder,
                resample=False,
                squeeze_end_dims=True,
                print_log=False,
            )
            self._cross = SupervisedEvaluator(
                "cpu",
                DataLoader(Dataset(self.items("validation"), pre), batch_size=1, num_workers=0),
                self.net,
                inferer=SlidingWindowInferer([32, 32, 32], 4, 0.25),
                postprocessing=Compose([first, back, last, save]),
                val_handlers=[
                    StatsHandler(output_transform=lambda x: None),
                    MetricsSaver(
                        eval_folder,
                        ["val_mean_dice", "val_acc"],
                        ["val_mean_dice"],
                        from_engine(["image_meta_dict"]),
                        "*",
                    ),
                ],
                **metrics(),
            )
        self._cross.run()
        return float(self._cross.state.metrics["val_mean_dice"])
