"""Training with clicks: the network sees its own errors, one click after another."""

import torch
from monai.transforms import MapTransform

from medl.engines.iterations import Iteration


class FirstClickd(MapTransform):
    """Adds an image ``clicks`` with two channels: clicks on the object and clicks beside it.

    The first click is in the middle of the object, at the mean position of its pixels.
    """

    def __init__(self, keys, clicks="clicks"):
        super().__init__(keys)
        self.clicks = clicks

    def __call__(self, data):
        found = dict(data)
        for key in self.key_iterator(found):
            label = torch.as_tensor(found[key])  # (1, height, width)
            clicks = torch.zeros((2, *label.shape[1:]))
            row, column = label[0].nonzero().float().mean(dim=0).round().long().tolist()
            clicks[0, row, column] = 1
            found[self.clicks] = clicks
        return found


class ClickIteration(Iteration):
    """Predict, click where the prediction is wrong, and so on; then one step of training."""

    def __init__(self, max_clicks, train):
        self.max_clicks = max_clicks
        self.train = train

    def __call__(self, engine, batchdata):
        device = engine.state.device
        image, label = engine.prepare_batch(batchdata, device, engine.non_blocking)
        clicks = batchdata["clicks"].to(device)  # (batch, 2, height, width)
        engine.network.eval()
        with torch.no_grad():
            for _ in range(self.max_clicks):
                pred = engine.inferer(torch.cat([image, clicks], dim=1), engine.network)
                clicks = with_click(clicks, pred.sigmoid() > 0.5, label > 0)
        inputs = torch.cat([image, clicks], dim=1)
        output = {"image": image, "label": label, "clicks": clicks}
        if not self.train:
            with torch.no_grad():
                return {**output, "pred": engine.inferer(inputs, engine.network)}
        engine.network.train()
        engine.optimizer.zero_grad()
        pred = engine.inferer(inputs, engine.network)
        loss = engine.loss_function(pred, label)
        loss.backward()
        engine.optimizer.step()
        return {**output, "pred": pred, "loss": loss}


def with_click(clicks, pred, label):
    """The clicks and one more for each image: on the first pixel that is wrong, if there is one."""
    found = clicks.clone()
    for index in range(len(label)):
        wrong = (pred[index, 0] != label[index, 0]).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            channel = 0 if label[index, 0, row, column] else 1
            found[index, channel, row, column] = 1
    return found
