import torch
from monai.engines import IterationEvents


class NoisyPrediction:
    def __init__(self, std):
        self.std = std

    def attach(self, engine):
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine):
        pred = engine.state.output["pred"]  # not decollated yet: one dictionary for the batch
        engine.state.output["pred"] = pred + self.std * torch.randn_like(pred)
