"""A whole workflow: data, network, loop and checkpoint."""

import json
import logging
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


class Trainer:
    """Fits a line to points.

    Args:
        model_path: the file to write.
        num_epochs: how often all points are seen.
        lr: learning rate.
        amp: whether to compute with mixed precision, where there is a GPU.
    """

    def __init__(self, model_path, num_epochs, lr, amp):
        self.model_path = Path(model_path)
        self.num_epochs = num_epochs
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.amp = amp and self.device.type == "cuda"
        self.network = torch.nn.Linear(1, 1).to(self.device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=lr)

    def run(self):
        points = torch.linspace(-1, 1, 32, device=self.device)[:, None]
        losses = []
        for epoch in range(self.num_epochs):
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, enabled=self.amp):
                loss = torch.nn.functional.mse_loss(self.network(points), 2 * points + 1)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            logger.info("epoch %d: loss %.4f", epoch + 1, losses[-1])
        self.model_path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": self.network.state_dict()}, self.model_path)
        self.model_path.with_name("losses.json").write_text(json.dumps(losses))
