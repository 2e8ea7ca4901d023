"""Takes the place of OmegaConf, which NVFlare parses YAML with, and reads nothing; see pyhocon.py.

OmegaConf fills in variables of the environment.
"""

from __future__ import annotations


class OmegaConf:
    """The ways by which NVFlare asks for a configuration."""

    @staticmethod
    def load(path: str) -> dict[str, object]:
        """Nothing of a file."""
        return {}

    @staticmethod
    def create(text: str) -> dict[str, object]:
        """Nothing of a text."""
        return {}

    @staticmethod
    def to_container(config: dict[str, object], resolve: bool = True) -> dict[str, object]:
        """Return the same nothing."""
        return config
