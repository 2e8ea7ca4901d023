"""Cross-entropy in which the object weighs more, and a handler that counts its epochs."""

import logging

import torch
from ignite.engine import Events


class ObjectCrossEntropy(torch.nn.Module):
    def __init__(self, object_weight):
        super().__init__()
        self.register_buffer("weight", torch.tensor([1.0, float(object_weight)]))

    def forward(self, pred, label):
        # pred (batch, class, x, y, z), label (batch, 1, x, y, z)
        return torch.nn.functional.cross_entropy(pred, label[:, 0].long(), self.weight)


class LogWeight:
    def __init__(self, loss):
        self.loss = loss

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine):
        weight = self.loss.weight[1].item()
        logging.getLogger("own").info("epoch %d, object weight %g", engine.state.epoch, weight)
