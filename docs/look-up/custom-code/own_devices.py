import torch
from ignite.metrics import MeanSquaredError

from mmar_runtime.components.multi_gpu import (
    create_multigpu_supervised_evaluator,
    create_multigpu_supervised_trainer,
)


class Trainer:
    def __init__(self, epochs):
        inputs = torch.randn(8, 3)
        batches = list(zip(inputs.split(2), inputs.sum(dim=1, keepdim=True).split(2), strict=True))
        self.epochs, self.batches = epochs, batches
        net = torch.nn.Linear(3, 1)
        devices = None if torch.cuda.is_available() else []  # every GPU, or the CPU
        self.trainer = create_multigpu_supervised_trainer(
            net,
            torch.optim.SGD(net.parameters(), lr=0.1),
            torch.nn.functional.mse_loss,
            devices=devices,
        )
        self.evaluator = create_multigpu_supervised_evaluator(
            net, metrics={"error": MeanSquaredError()}, devices=devices
        )

    def run(self):
        self.trainer.run(self.batches, max_epochs=self.epochs)
        self.evaluator.run(self.batches)
