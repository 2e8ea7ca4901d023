"""MONAI's CheckpointLoader for every file of weights that an MMAR may have, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from torch.nn import Module

from mmar_runtime.errors import CheckpointError, MmarError, WeightsError
from mmar_runtime.weights import (
    MISSING_WEIGHTS_ADVICE,
    load_fitting,
    load_into,
    read_checkpoint,
    refuse_packed,
)

OTHER_NETWORK_ADVICE = (
    "Give the network the arguments that it had then, or let CheckpointLoader load what fits: "
    '"strict": false, "strict_shape": false.'
)


class WholeCheckpointLoader(CheckpointLoader):
    """``CheckpointLoader`` as MONAI has it, arguments and all, with a stricter way for networks.

    A network gets all of its tensors from the file, or none: from a ``.pt`` file as Clara wrote it,
    from bare weights, from safetensors, and from a data-parallel run with its ``module.`` prefix.
    With ``strict`` or ``strict_shape`` set to false it gets those that fit, and the log says which
    do not; MONAI itself would then load none from a file with several parts, without a word.
    """

    def __call__(self, engine: Engine) -> None:
        """Load the objects of ``load_dict`` when the engine starts.

        Raises:
            CheckpointError: no such file, unreadable, or it does not fit an object.
            WeightsError: the tensors that differ between the file and a network.
        """
        everything = self.load_dict
        networks = {name: part for name, part in everything.items() if isinstance(part, Module)}
        for name, network in networks.items():
            self._load_network(name, network)
        others = {name: part for name, part in everything.items() if name not in networks}
        if others:
            self._load_as_monai(others, engine)
        else:
            self.logger.info("Restored all variables from %s", self.load_path)

    def _load_network(self, name: str, network: Module) -> None:
        weights = read_checkpoint(Path(self.load_path), part=name).weights
        source = repr(self.load_path)
        if self.strict:
            try:
                load_into(network, weights, source=source)
            except WeightsError as error:
                raise WeightsError(f"{error}\n    {OTHER_NETWORK_ADVICE}") from error
            return
        for fault in load_fitting(network, weights, source=source):
            self.logger.warning("left out of %s: %s", source, fault)

    def _load_as_monai(self, parts: dict[str, object], engine: Engine) -> None:
        everything, self.load_dict = self.load_dict, parts
        try:
            refuse_packed(Path(self.load_path))
            super().__call__(engine)
        except MmarError:
            raise
        except FileNotFoundError as error:
            message = f"there is no file of weights {self.load_path!r}"
            raise CheckpointError(f"{message}\n    {MISSING_WEIGHTS_ADVICE}") from error
        except Exception as error:  # a damaged file makes torch.load raise anything
            raise CheckpointError(f"{self.load_path!r} cannot be loaded: {error}") from error
        finally:
            self.load_dict = everything
