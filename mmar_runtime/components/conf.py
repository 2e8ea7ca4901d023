"""``@conf``: the whole configuration as an object that a CheckpointSaver can save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TrainConf:
    """The configuration as it runs, as plain JSON values.

    ignite saves objects that have a ``state_dict``; so this is the object of ``@conf`` in a
    ``save_dict``. It is written into the checkpoint as ``train_conf``, from which a network can be
    rebuilt later.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = dict(content)

    def state_dict(self) -> dict[str, Any]:
        """Return the configuration."""
        return self.content

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the run keeps the configuration that was read, not the stored one."""
