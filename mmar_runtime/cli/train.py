"""``mmar train``: train an MMAR at this site, as Clara's ``medl.apps.train`` did."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmar_runtime.cli.checked_run import checked_config
from mmar_runtime.cli.common import (
    add_mmar_arguments,
    add_output_arguments,
    is_first_process,
    json_text,
    print_json,
    print_note,
    stop_on_signals,
)
from mmar_runtime.cli.confine import add_confine_argument
from mmar_runtime.cli.given_values import add_data_argument
from mmar_runtime.config.grids import argument_of
from mmar_runtime.config.loader import TRAIN_FILE, load_train_config
from mmar_runtime.config.nodes import plain
from mmar_runtime.errors import RunAborted
from mmar_runtime.files import write_text_atomically
from mmar_runtime.metrics import in_short
from mmar_runtime.mmar import RESUME_FILE

if TYPE_CHECKING:
    from mmar_runtime.config.nodes import ComponentSpec
    from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.results import EpochReport, EvaluationResult, TrainResult

STATS_FILE = "train_stats.json"

HELP = "train an MMAR"
EXAMPLES = """examples:
  mmar train -m path/to/mmar
  mmar train -m path/to/mmar --set epochs=20 learning_rate=1e-4
  mmar train -m path/to/mmar --set dont_load_ckpt_model=False   (fine-tune models/model.pt)
  mmar train -m path/to/mmar --resume                           (after an interruption)
  torchrun --nproc_per_node=2 -m medl.apps.train -m path/to/mmar --set multi_gpu=True
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_mmar_arguments(parser, config=TRAIN_FILE)
    parser.add_argument(
        "--write_train_stats",
        action="store_true",
        help=f"write {STATS_FILE} into MMAR_CKPT_DIR when the training is complete",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last complete epoch of an interrupted training",
    )
    add_data_argument(parser)
    add_confine_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check everything, train, print the result."""
    config = checked_config(options, load_train_config)
    first, lines = is_first_process(), Lines()
    for note in foreseen(config) if first else ():
        print_note(note)
    observer = lines if first else None
    # MONAI logs to stdout, which belongs to the result; its loggers take hold of it on import.
    with (
        told_how_to_go_on(config, options.resume),
        stop_on_signals() as stop,
        redirect_stdout(sys.stderr),
    ):
        # torch and MONAI take seconds to import; a config with a fault is refused before that.
        from mmar_runtime.workflows.training import train

        result = train(
            config, allow_code=True, observer=observer, should_stop=stop, resume=options.resume
        )
    if not first:
        return 0  # each process has the same result
    if options.write_train_stats:
        content = json_text(train_stats(result, lines)) + "\n"
        write_text_atomically(Path(str(config.value("MMAR_CKPT_DIR"))) / STATS_FILE, content)
    if options.json:
        print_json({**result.as_dict(), "missing": missing(result, config)})
    else:
        print(summary(result, config))
    return 0


@contextmanager
def told_how_to_go_on(config: TrainConfig, resumed: bool) -> Iterator[None]:
    """Say, when a training is stopped, whether it can go on, and where its files are.

    A point of an earlier training is none of this one's, unless this one has gone on from there.
    """
    point = Path(str(config.value("MMAR_CKPT_DIR"))) / RESUME_FILE
    before = _written_at(point)
    try:
        yield
    except (RunAborted, KeyboardInterrupt) as error:
        advice = "No epoch is complete, so there is nothing to resume."
        if resumed or _written_at(point) != before:
            advice = (
                f"To go on after its last epoch, add --resume. Its files are in {point.parent}."
            )
        raise RunAborted(f"{str(error) or 'interrupted'}\n    {advice}") from error


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None


def summary(result: TrainResult, config: TrainConfig) -> str:
    """Return the lines that a person wants to read at the end."""
    counted = "" if result.iterations is None else f" {result.iterations} iterations"
    lines = [f"trained{counted} in {result.seconds:.1f} s"]
    if result.best_metric is not None:
        lines.append(
            f"best {result.key_metric}: {result.best_metric:.4f} in epoch {result.best_epoch}"
        )
    elif result.validations:
        lines.append(f"best {result.key_metric}: undefined in every validation; no best model")
    lines += missing(result, config)
    if result.checkpoints != ():
        lines.append(f"checkpoints: {config.value('MMAR_CKPT_DIR')}")
    return "\n".join(lines)


SAVES = ("save_final", "save_interval", "save_key_metric")
"""Arguments by each of which a CheckpointSaver writes something."""


def foreseen(config: TrainConfig) -> Iterator[str]:
    """Yield what this training will not leave, as far as its documents show it."""
    handlers = [spec for part in config.scopes.values() for spec in part.specs("handlers")]
    engines = config.train.specs("trainer")
    if not any(spec.path or _saves(spec) for spec in (*engines, *handlers)):
        place = config.train.location / "handlers"
        yield f"no checkpoint will be written. Add a CheckpointSaver with save_final ({place})"
    epochs = [argument_of(spec, "", "max_epochs") for spec in engines]
    for spec in config.train.specs("handlers"):
        interval = argument_of(spec, "", "interval")
        by_epochs = argument_of(spec, "", "epoch_level", True) is True
        if spec.title != "ValidationHandler" or not by_epochs or None in (interval, *epochs):
            continue
        if interval > epochs[0] and not argument_of(spec, "", "exec_at_start"):
            place = spec.args.location / "interval"
            yield (
                f"no validation will come in {epochs[0]} epochs, and no best model. Set the "
                f"interval, {interval}, to {epochs[0]} or less ({place})"
            )


def _saves(spec: ComponentSpec) -> bool:
    return spec.title == "CheckpointSaver" and any(argument_of(spec, "", name) for name in SAVES)


def missing(result: TrainResult, config: TrainConfig) -> list[str]:
    """Return what a training is expected to leave, and this one has not left."""
    lines = []
    if result.validations is None and config.validate is None:
        lines.append("not validated, as the config has no section 'validate': no best model")
    if result.validations == 0 and result.best_metric is None:
        lines.append(f"never validated, {_why(config)}: no best model")
    if result.checkpoints is None:
        return lines
    best = Path(str(config.value("MMAR_CKPT")))
    if not result.checkpoints:
        lines.append("no checkpoint was written: the weights are lost; add a CheckpointSaver")
    elif best.name not in result.checkpoints:
        lines.append(f"{best.name} was not written; {result.checkpoints[0]} is the last model")
    if best.is_file() and best.name not in result.checkpoints:
        lines.append(f"{best} is of an earlier training")
    return lines


def _why(config: TrainConfig) -> str:
    """Return why no validation came."""
    specs = [spec for spec in config.train.specs("handlers") if spec.name == "ValidationHandler"]
    if not specs:
        return "as 'train' has no ValidationHandler"
    interval = specs[0].args.items.get("interval")
    shown = "" if interval is None else f", {plain(interval)},"
    return f"as the ValidationHandler's interval{shown} is longer than the training"


def train_stats(result: TrainResult, lines: Lines) -> dict[str, Any]:
    """Return the content of ``train_stats.json``, by the names of MONAI's engine statistics.

    None means unknown: iterations and epochs of a trainer that reports none of
    them, and the best metric of a training without validation.
    """
    length, epochs = lines.epoch_length, lines.epochs
    return {
        "rank": 0,
        "current_epoch": result.epochs[-1].epoch if result.epochs else None,
        "current_iteration": result.iterations,
        "total_epochs": epochs,
        "total_iterations": None if epochs is None or length is None else epochs * length,
        "best_validation_epoch": result.best_epoch,
        "best_validation_metric": result.best_metric,
    }


class Lines:
    """Reports a training as lines on stderr: epochs, validations, and how long it will take.

    Attributes:
        epochs: how many the trainer was asked for; None before the first iteration.
        epoch_length: iterations in an epoch; None before the first epoch.
    """

    def __init__(self) -> None:
        self.epochs: int | None = None
        self.epoch_length: int | None = None
        self._started = time.monotonic()
        self._first_epoch: int | None = None
        self._shown = 0.0

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        """Print a line every ten seconds, so that a long epoch does not look like a hang."""
        self.epochs, self.epoch_length = epochs, of
        if self._first_epoch is None:
            self._first_epoch, self._started = epoch, time.monotonic()
        if time.monotonic() - self._shown < 10:
            return
        self._shown = time.monotonic()
        shown = "" if loss is None else f", loss {loss:.4f}"
        print(f"epoch {epoch}/{epochs}, iteration {done}/{of}{shown}", file=sys.stderr)

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        """Print a line for each epoch."""
        parts = [] if report.loss is None else [f"loss {report.loss:.4f}"]
        parts += [f"{name} {in_short(metric)}" for name, metric in report.metrics.items()]
        left = self._seconds_left(report.epoch, epochs)
        print(f"epoch {report.epoch}/{epochs}: {', '.join(parts)} ({left} left)", file=sys.stderr)

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        """Print a line for each validation."""
        parts = ", ".join(f"{name} {in_short(metric)}" for name, metric in result.metrics.items())
        print(f"validated after epoch {epoch}: {parts}", file=sys.stderr)

    def _seconds_left(self, epoch: int, epochs: int) -> str:
        done = epoch - (self._first_epoch or 1) + 1
        seconds = (time.monotonic() - self._started) / done * (epochs - epoch)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
