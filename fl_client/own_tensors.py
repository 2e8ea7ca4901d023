"""The tensors that a site keeps to itself where a federation shares a part of the network."""

from __future__ import annotations

from fl_client.updates import first_not_finite
from mmar_runtime.config.location import Location
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.sharing import shared_tensors
from mmar_runtime.weights import Weights, copy_of

PLACE = Location("config_fed_client.json") / "executors" / "args" / "shared_names"


class OwnTensors:
    """Takes a network's weights apart into shared and own ones, and joins them again.

    Own tensors are those of the last round that ended well.

    Attributes:
        kept: the own ones.

    Args:
        weights: of the network as it was built.
        shared: names of the shared tensors, with ``*`` for any characters; None for all.

    Raises:
        ConfigError: a name fits no tensor of the network, or all are shared.
    """

    def __init__(self, weights: Weights, shared: list[str] | None) -> None:
        self._names = frozenset(
            weights if shared is None else shared_tensors(shared, weights, PLACE)
        )
        self.kept: Weights = {name: weights[name] for name in weights if name not in self._names}
        self._trained = False

    def shared(self, weights: Weights) -> Weights:
        """The shared tensors of a whole network."""
        return {name: tensor for name, tensor in weights.items() if name in self._names}

    def kept_apart(self, weights: Weights) -> Weights:
        """The shared tensors of a network after training; copies of the others are kept here.

        Raises:
            WeightsError: own tensors are not finite; those before stay.
        """
        own = {name: copy_of(weights[name]) for name in self.kept}
        name = first_not_finite(own)
        if name is not None:
            raise WeightsError(
                f"training ended in values that are not finite, in {name}, a tensor of this site's "
                "own; nothing is sent. A lower learning rate, or gradient clipping, may help."
            )
        self.kept = own
        self._trained = True
        return self.shared(weights)

    def joined(self, weights: Weights, *, trained: bool = False) -> Weights:
        """Received tensors and the site's own ones.

        Args:
            weights: as received.
            trained: whether the own ones have to come out of a training.

        Raises:
            WeightsError: a tensor was received that is not shared, or the own ones are untrained.
        """
        private = sorted(self.kept.keys() & weights.keys())
        if private:
            raise WeightsError(f"the server sent {private[0]!r}, which is not shared")
        if self.kept and trained and not self._trained:
            raise WeightsError("this site has not trained the tensors that are its own yet")
        return {**weights, **self.kept}
