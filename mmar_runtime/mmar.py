"""The MMAR on disk: a folder with ``config/``, ``models/``, ``eval/``, ``custom/`` and more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

ENGINES = frozenset({"train", "trainer", "evaluator", "validate"})
"""A document of ``config`` with such a section is a workflow."""

TRAIN_NAMES = ("config_train",)
EVALUATION_NAMES = ("config_validation", "config_cross_validation", "config_inference")
"""Names that make a document a workflow, with any content."""

RESUME_FILE = "resume.pt"
"""Where a training keeps the point to go on from, among its checkpoints."""


@dataclass(frozen=True, slots=True)
class Mmar:
    """An MMAR's folder; the absolute path of its root is all there is to know."""

    root: Path

    @classmethod
    def open(cls, folder: str | Path) -> Mmar:
        """Return the MMAR in a folder.

        Raises:
            ConfigError: there is no such folder, or it holds no ``config`` folder.
        """
        root = Path(folder).expanduser().resolve()
        if not (root / "config").is_dir():
            what = "is a file" if root.exists() else "does not exist"
            if root.is_dir():
                what = "holds no folder 'config'"
            message = f"the MMAR folder {str(root)!r} {what}"
            advice = "Point -m/--mmar at the folder above 'config'."
            nested = sorted(path.parent.name for path in root.glob("*/config") if path.is_dir())
            if nested:
                advice = f"Did you mean {str(root / nested[0])!r}?"
            raise ConfigError([Problem(Location("MMAR"), message, advice, "mmar")])
        return cls(root)

    def document(self, file: str | Path) -> Path:
        """Return the path of a document: below the root, or below ``config/`` for a bare name."""
        path = self.root / file
        if not path.exists() and len(Path(file).parts) == 1:
            return self.root / "config" / file
        return path

    @property
    def custom(self) -> Path:
        """The folder of the MMAR's own code, if it has any."""
        return self.root / "custom"

    @property
    def models(self) -> Path:
        """Where checkpoints are read from and written to."""
        return self.root / "models"


def is_workflow(path: Path, content: Any) -> bool:
    """Return whether a document is a workflow by its name, or could be by its content."""
    named = path.stem.startswith((*TRAIN_NAMES, *EVALUATION_NAMES))
    return named or (isinstance(content, dict) and bool(ENGINES & content.keys()))
