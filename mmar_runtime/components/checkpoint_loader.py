"""MONAI's CheckpointLoader with errors that speak of the file of weights."""

from __future__ import annotations

from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from mmar_runtime.errors import CheckpointError
from mmar_runtime.weights import MISSING_WEIGHTS_ADVICE


class ExplainedCheckpointLoader(CheckpointLoader):
    """``CheckpointLoader`` as MONAI has it, arguments and all, but for what it raises."""

    def __call__(self, engine: Engine) -> None:
        """Load the objects of ``load_dict`` when the engine starts.

        Raises:
            CheckpointError: no such file, unreadable, or it does not fit the objects.
        """
        try:
            super().__call__(engine)
        except FileNotFoundError as error:
            message = f"there is no file of weights {self.load_path!r}"
            raise CheckpointError(f"{message}\n    {MISSING_WEIGHTS_ADVICE}") from error
        except Exception as error:  # a damaged file makes torch.load raise anything
            raise CheckpointError(f"{self.load_path!r} cannot be loaded: {error}") from error
