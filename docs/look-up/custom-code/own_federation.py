import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.filter import Filter


class Halved(Filter):
    """Sends half of each update."""

    def process(self, shareable, fl_ctx):
        dxo = from_shareable(shareable)
        dxo.data = {name: (array * 0.5).astype(array.dtype) for name, array in dxo.data.items()}
        return dxo.update_shareable(shareable)


class Median:
    """Returns the median of all updates, tensor by tensor."""

    def __init__(self):
        self.updates = []

    def accept(self, shareable, fl_ctx):
        self.updates.append(from_shareable(shareable).data)
        return True

    def aggregate(self, fl_ctx):
        updates, self.updates = self.updates, []
        median = {
            name: np.median([update[name] for update in updates], axis=0) for name in updates[0]
        }
        return DXO(DataKind.WEIGHT_DIFF, data=median).to_shareable()
