"""The tensors that a site keeps to itself where a federation shares a part of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_client.updates import first_not_finite
from mmar_runtime.config.location import Location
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.sharing import shared_tensors
from mmar_runtime.weights import Weights, copy_of

PLACE = Location("config_fed_client.json") / "executors" / "args" / "shared_names"


class PrivateTensors:
    """Tells shared from private tensors of a network, and joins them again.

    Attributes:
        tensors: the private tensors after the last round that ended well.

    Args:
        weights: of the network as it was built.
        shared: names of the shared tensors, with ``*`` for any characters; None for all.

    Raises:
        ConfigError: a name fits no tensor of the network, or all are shared.
    """

    def __init__(self, weights: Weights, shared: list[str] | None) -> None:
        names = frozenset(weights if shared is None else shared_tensors(shared, weights, PLACE))
        self._shared = names
        self.tensors: Weights = {name: weights[name] for name in weights if name not in names}
        self._trained = False

    def shared(self, weights: Weights) -> Weights:
        """Return the shared tensors of a whole network."""
        return {name: tensor for name, tensor in weights.items() if name in self._shared}

    def keep(self, weights: Weights) -> None:
        """Keep copies of the private tensors of a network after training.

        Raises:
            WeightsError: private tensors are not finite; those of before stay.
        """
        private = {name: copy_of(weights[name]) for name in self.tensors}
        if (name := first_not_finite(private)) is not None:
            raise WeightsError(
                f"training ended in values that are not finite, in {name}, a tensor of this site's "
                "own; nothing is sent. A lower learning rate, or gradient clipping, may help."
            )
        self.tensors = private
        self._trained = True

    def state(self) -> dict[str, Any]:
        """Return the private tensors, and whether they come out of a training."""
        return {"tensors": self.tensors, "trained": self._trained}

    def put_back(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: the state is of other tensors.
        """
        if state["tensors"].keys() != self.tensors.keys():
            raise ValueError("the tensors that are this site's own are others now")
        self.tensors, self._trained = dict(state["tensors"]), state["trained"]

    def join(self, weights: Weights, *, trained: bool = False) -> Weights:
        """Return received tensors together with the private ones.

        Args:
            weights: as received.
            trained: whether the private tensors have to come out of a training.

        Raises:
            WeightsError: the server sent a private tensor, or the site has not trained its own.
        """
        if private := sorted(self.tensors.keys() & weights.keys()):
            raise WeightsError(f"the server sent {private[0]!r}, which is not shared")
        if self.tensors and trained and not self._trained:
            raise WeightsError("this site has not trained the tensors that are its own yet")
        return {**weights, **self.tensors}
