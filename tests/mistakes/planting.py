"""One mistake in good MMARs, data sets and command lines: planted, tried, and told.

Each file beside this one is a family of mistakes: a tuple of ``Mistake`` and these two tests.

    @pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
    def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
        mistake.assert_told(workspace, run)

    def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
        assert_quiet(run(*workspace.train()), MISTAKES)
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import edit_json, write_json, write_mmar

TRAIN = "config_train.json"
VALIDATION = "config_validation.json"
PICTURES = Path(__file__).resolve().parents[1] / "mmars/classification_2d/config"

FIRST_BATCH_DONE = re.compile(r"^(epoch \d+/\d+(?!.*loss nan)|\[ *\d+ s\] |trained )", re.MULTILINE)
"""What a command prints when a batch went through, or later."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, and all that it printed."""

    code: int
    text: str

    @property
    def before_training(self) -> str:
        """What it printed until the first batch was through."""
        return FIRST_BATCH_DONE.split(self.text)[0]


Run = Callable[..., Ended]
"""``run("train", "-m", folder)``: the command ``mmar``, in this process."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with two good MMARs and their data.

    Attributes:
        root: holds ``masks``, the segmentation of 16 x 16 x 16 voxels of ``tests/conftest.py``; and
            ``pictures``, the MMAR ``classification_2d`` with PNG images of 40 x 36 pixels.
    """

    root: Path

    @property
    def masks(self) -> Path:
        """The segmentation: two cases to train on, one to validate."""
        return self.root / "masks"

    @property
    def pictures(self) -> Path:
        """The classification: four cases to train on, two to validate; classes 0 and 1."""
        return self.root / "pictures"

    def edit(self, change: Callable[[Any], object], file: str = f"masks/config/{TRAIN}") -> None:
        """Let ``change`` alter a JSON document in place."""
        edit_json(self.root / file, change)

    def train(self, *values: str, mmar: str = "masks") -> list[str]:
        """Return the command line that trains an MMAR; ``values`` are ``NAME=VALUE``."""
        return ["train", *self._mmar(mmar), *_set(values)]

    def evaluate(self, *values: str, mmar: str = "masks") -> list[str]:
        """Return the command line that validates the model of an MMAR."""
        return ["evaluate", *self._mmar(mmar), *_set(values)]

    def _mmar(self, mmar: str) -> list[str]:
        folder = self.root / mmar
        return ["-m", str(folder), "--data", str(folder / "data")]

    def simulate(self, *options: str, mmar: str = "masks") -> list[str]:
        """Return the command line of a federation of two sites, one round, with these data."""
        of = ["-m", str(self.root / mmar), "--sites", "2", "--rounds", "1"]
        return ["simulate", *of, "-w", str(self.root / "runs"), *options]

    def sites(self, mmar: str = "masks") -> str:
        """Give each of two sites a copy of an MMAR's data; returns the folder for ``--data``."""
        for site in ("site-1", "site-2"):
            shutil.copytree(self.root / mmar / "data", self.root / "sites" / site)
        return str(self.root / "sites")

    def copy_to(self, folder: Path) -> Workspace:
        """Return a copy in a folder that does not exist."""
        shutil.copytree(self.root, folder)
        return Workspace(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What a user does wrong, and what the command has to say of it.

    Attributes:
        plant: makes the mistake in a good workspace; returns the command line that meets it.
        place: the text that names the place.
        remedy: the text that says what to do.
        code: the exit code; 0 for what may be meant: it is told, and the run goes on.
    """

    name: str
    plant: Callable[[Workspace], Sequence[str]]
    place: str
    remedy: str
    code: int = 2

    def assert_told(self, workspace: Workspace, run: Run) -> None:
        """Plant the mistake, run the command, and look at what it says and what it leaves."""
        arguments = self.plant(workspace)
        before = _weights(workspace)

        ended = run(*arguments)

        assert ended.code == self.code, ended.text
        assert self.place in ended.before_training, ended.text
        assert self.remedy in ended.before_training, ended.text
        assert "Traceback" not in ended.text
        if self.code:
            assert ended.text == ended.before_training
            assert _weights(workspace) == before


def assert_quiet(ended: Ended, mistakes: Iterable[Mistake]) -> None:
    """Require that a good run succeeds, and that it says none of what the mistakes are told."""
    assert ended.code == 0, ended.text
    assert [mistake.name for mistake in mistakes if mistake.remedy in ended.text] == []


def write_workspace(root: Path) -> Workspace:
    """Write the two MMARs with their data; one epoch each."""
    workspace = Workspace(root)
    write_mmar(workspace.masks)
    shutil.copytree(PICTURES, workspace.pictures / "config")
    _write_pictures(workspace.pictures / "data")
    for mmar in ("masks", "pictures"):
        workspace.edit(lambda conf: conf.update(epochs=1), f"{mmar}/config/{TRAIN}")
    return workspace


def _write_pictures(folder: Path) -> None:
    """Write PNG images whose brighter half is the left one (0) or the right one (1)."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    document: dict[str, list[Any]] = {"training": [], "validation": []}
    for key, count in (("training", 4), ("validation", 2)):
        for number in range(count):
            side = number % 2
            image = random.integers(0, 100, size=(40, 36), dtype=np.uint8)
            image[:, 18 * side : 18 * (side + 1)] += 100
            Image.fromarray(image).save(folder / f"{key}_{number}.png")
            document[key].append({"image": f"{key}_{number}.png", "label": side})
    write_json(folder / "dataset.json", document)


def _set(values: Sequence[str]) -> list[str]:
    return ["--set", *values] if values else []


def _weights(workspace: Workspace) -> dict[str, int]:
    """Return the files of weights with the times when they were written."""
    files = (*workspace.root.rglob("*.pt"), *workspace.root.rglob("*.ts"))
    return {str(file): file.stat().st_mtime_ns for file in files}
