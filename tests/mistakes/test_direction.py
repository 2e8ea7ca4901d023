"""Which model is the best: a key metric by which the wrong one would be kept, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet


def validated(change: Callable[[Any], object]) -> Callable[[Workspace], list[str]]:
    """Plant a change of the section 'validate'."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(lambda conf: change(conf["validate"]))
        return workspace.train()

    return plant


def saver(**args: Any) -> Callable[[Workspace], list[str]]:
    return validated(lambda section: section["handlers"][1]["args"].update(args))


def stop(score: str, patience: int = 1) -> Callable[[Workspace], list[str]]:
    args = {"patience": patience, "score_function": score, "trainer": "@trainer"}
    spec = {"name": "EarlyStopHandler", "args": args}
    return validated(lambda section: section["handlers"].append(spec))


def plateau(workspace: Workspace) -> list[str]:
    schedule = {"name": "ReduceLROnPlateau", "args": {"optimizer": "@optimizer", "mode": "max"}}
    workspace.edit(lambda conf: conf["train"].update(lr_scheduler=schedule))
    return workspace.train()


SAVER = "validate.handlers[1].args"
DICE = "engine.state.metrics['val_mean_dice']"

MISTAKES = (
    Mistake(
        name="a score of overlap turned round",
        plant=validated(lambda section: section["key_metric"].update(negate=True)),
        place="validate.key_metric.negate",
        remedy="Take it out",
    ),
    Mistake(
        name="a comparison whose parameters are swapped",
        plant=validated(
            lambda section: section["evaluator"]["args"].update(
                metric_cmp_fn="lambda best, new: new > best"
            )
        ),
        place="validate.evaluator.args.metric_cmp_fn",
        remedy="Take it out",
    ),
    Mistake(
        name="a sum grows with the number of cases",
        plant=validated(lambda section: section["key_metric"]["args"].update(reduction="sum")),
        place="validate.key_metric.args.reduction",
        remedy="Write 'mean'",
    ),
    Mistake(
        name="the best model by a metric that is not the key metric",
        plant=saver(key_metric_name="val_acc"),
        place=f"{SAVER}.key_metric_name",
        remedy="Make 'val_acc' the key_metric",
    ),
    Mistake(
        name="the best model by a metric that is misspelt",
        plant=saver(key_metric_name="val_meandice"),
        place=f"{SAVER}.key_metric_name",
        remedy="Did you mean 'val_mean_dice'",
    ),
    Mistake(
        name="an evaluator that does not get its key metric",
        plant=validated(lambda section: section["evaluator"]["args"].pop("key_val_metric")),
        place="validate.",
        remedy="key_val_metric",
    ),
    Mistake(
        name="an early stop where the score gets better",
        plant=stop(f"lambda engine: -{DICE}"),
        place="validate.handlers[2].args.score_function",
        remedy="Write the metric without a minus",
    ),
    Mistake(
        name="an early stop without patience",
        plant=stop(f"lambda engine: {DICE}", patience=0),
        place="validate.handlers[2].args.patience",
        remedy="1 is the least",
    ),
    Mistake(
        name="a schedule that waits for a plateau of nothing",
        plant=plateau,
        place="train.handlers[1].args.step_transform",
        remedy="Put the handler into the validate section",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    plant = stop(f"lambda engine: {DICE}")

    assert_quiet(run(*plant(workspace)), MISTAKES)
