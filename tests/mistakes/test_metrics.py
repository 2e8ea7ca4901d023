"""Metrics and classes: numbers that would be of something else than they seem to be."""

from __future__ import annotations

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet

MISTAKES = (
    Mistake(
        name="epochs as a word",
        plant=lambda workspace: workspace.train("epochs=two"),
        place="config_train.json: train.trainer.args.max_epochs",
        remedy="Allowed: a whole number from 0",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


@pytest.mark.parametrize("mmar", ["masks", "pictures"])
def test_no_false_alarm(mmar: str, workspace: Workspace, run: Run) -> None:
    assert_quiet(run(*workspace.train(mmar=mmar)), MISTAKES)
