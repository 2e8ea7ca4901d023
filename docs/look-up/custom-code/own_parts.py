import torch
from ignite.metrics import Metric
from monai.data import Dataset
from monai.losses import DiceLoss
from monai.transforms import MapTransform


class SmallNet(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, classes, kernel_size=3, padding=1)

    def forward(self, image):
        return self.layer(image)


class WeightedDice(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight
        self.dice = DiceLoss(to_onehot_y=True, softmax=True)

    def forward(self, pred, label):
        return self.weight * self.dice(pred, label)


class Brightend(MapTransform):
    def __init__(self, keys, by):
        super().__init__(keys)
        self.by = by

    def __call__(self, data):
        found = dict(data)
        for key in self.key_iterator(found):
            found[key] = found[key] + self.by  # a MetaTensor, before and after
        return found


class RepeatedDataset(Dataset):
    def __init__(self, data, transform, times):
        super().__init__(list(data) * times, transform)


class ForegroundError(Metric):
    """How far the predicted foreground is from the label's, in voxels for each case."""

    def reset(self):
        self.errors = []

    def update(self, output):
        predictions, labels = output  # one tensor for each case, one-hot: (class, x, y, z)
        for prediction, label in zip(predictions, labels, strict=True):
            self.errors.append((prediction[1].sum() - label[1].sum()).abs().item())

    def compute(self):
        return sum(self.errors) / len(self.errors)
