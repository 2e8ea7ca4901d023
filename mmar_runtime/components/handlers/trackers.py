"""Handlers that record a run for TensorBoard, ClearML or MLflow, and how they end with it.

MONAI's handlers leave the end to the script around them. An open writer may lose its last events.
ClearML writes an offline session when its task closes. MLflow's next training would continue an
open run. The handlers here end with the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from ignite.engine import Engine
from monai.handlers import ClearMLImageHandler, ClearMLStatsHandler, MLFlowHandler
from monai.handlers.clearml_handlers import ClearMLHandler
from monai.handlers.tensorboard_handlers import TensorBoardHandler

from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.errors import RunAborted

logger = logging.getLogger(__name__)

MLFLOW_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
PROCESS_TAG = "mmar.process"
"""The tag by which the MLflow handlers of a process find their common run."""
PROCESS = uuid.uuid4().hex


def close_at_end(built: object, at_end: ExitStack) -> None:
    """Have a tracker finished when the run ends; leave anything else alone."""
    if isinstance(built, TensorBoardHandler | MLFlowHandler):
        at_end.push(partial(_finish, built))


def log_checkpoints(handlers: Iterable[object]) -> None:
    """Let the CheckpointSavers among the handlers report their files to a ClearML handler.

    ClearML notices by itself a ``torch.save`` to a file with a name. A checkpoint is
    written to a file without a name, which then takes its place, so nothing would be logged.
    """
    handlers = list(handlers)
    trackers = (handler for handler in handlers if isinstance(handler, ClearMLTaskHandler))
    tracker = next(trackers, None)
    if tracker is not None:  # the first is enough: all of them share a task
        for saver in handlers:
            if isinstance(saver, AtomicCheckpointSaver):
                saver.listeners.append(tracker.checkpoint_written)


def _finish(
    tracker: TensorBoardHandler | MLFlowHandler,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Close a tracker; that it cannot be closed must not cost the result of the run."""
    try:
        if isinstance(tracker, ClearMLTaskHandler | OwnRunMLFlowHandler):
            tracker.finish(error)
        else:
            tracker.close()
    except Exception as fault:
        logger.warning(
            "%s could not be closed: %s: %s", type(tracker).__name__, type(fault).__name__, fault
        )


def _stopped(error: BaseException) -> bool:
    return isinstance(error, RunAborted | KeyboardInterrupt)


# --- ClearML --------------------------------------------------------------------------------------


class ClearMLTaskHandler(ClearMLHandler):
    """Adds to MONAI's ClearML handlers an end and checkpoints, and leaves the process alone.

    The first of them opens the task, the others join it; its opener closes it. A
    task that was open before the run stays open.
    """

    clearml_task: Any

    def __init__(self, **arguments: Any) -> None:
        from clearml import Task
        from clearml.backend_api.session.defs import MissingConfigError

        self._opened = Task.current_task() is None
        with contextlib.suppress(ImportError):
            from clearml.utilities.check_updates import CheckPackageUpdates

            # Else ClearML reports to its makers, even in offline mode, which version runs here. The
            # setting ``suppress_update_message`` only hides the answer.
            CheckPackageUpdates._package_version_checked = True
        if self._opened:
            _adapt_to_training(Task)
        try:
            with _own_signal_handlers():
                super().__init__(**arguments)
        except MissingConfigError as error:
            # ClearML's own text sends people to open an account at a public server.
            raise ValueError(
                "ClearML knows no server; write one into clearml.conf with 'clearml-init', or set "
                "CLEARML_OFFLINE_MODE=1 to keep the session in a folder"
            ) from error
        wanted = arguments.get("task_name", self.clearml_task.name)
        if wanted != self.clearml_task.name:
            logger.warning(
                "the ClearML task is %r; the handler that asks for %r has been built after the one "
                "that opened it",
                self.clearml_task.name,
                wanted,
            )
        self._patterns = _model_patterns(arguments.get("auto_connect_frameworks", True))
        self._models: dict[str, Any] = {}
        self._unlogged: dict[Path, None] = {}

    def checkpoint_written(self, path: Path) -> None:
        """Log a checkpoint as an output model of the task, as far as the config wants models.

        Offline each call would add one more copy to the session, so there the last file of each
        name is logged at the end.
        """
        names = (str(path), path.name)
        if any(fnmatch(name, pattern) for pattern in self._patterns for name in names):
            self._unlogged[path] = None
            if not self.clearml_task.is_offline():
                self._log_models()

    def finish(self, error: BaseException | None) -> None:
        """Close the writer, and the task too if this handler opened it."""
        self.close()  # type: ignore[attr-defined]  # the TensorBoard handler's, see the subclasses
        self._log_models()
        if not self._opened:
            return
        if error is not None and _stopped(error):
            self.clearml_task.mark_stopped()
        elif error is not None:
            # The text of an error may name files or patients.
            self.clearml_task.mark_failed(status_reason=type(error).__name__)
        self.clearml_task.close()

    def _log_models(self) -> None:
        paths, self._unlogged = list(self._unlogged), {}
        for path in paths:
            if not path.is_file():
                continue  # a saver that keeps the last few has removed it since
            try:
                self._log_model(path)
            except Exception as error:  # a server out of reach must not end the training
                logger.warning("ClearML did not take %s: %s", path.name, error)

    def _log_model(self, path: Path) -> None:
        if path.name not in self._models:
            self._models[path.name] = _output_model(self.clearml_task, path)
        model = self._models[path.name]
        if self.clearml_task.is_offline():
            model.update_weights(str(path), auto_delete_file=False)
        elif not self.clearml_task.output_uri:
            model.update_weights(register_uri=str(path))
        else:
            # Uploaded in the background, while the next checkpoint may replace this file.
            descriptor, copy = tempfile.mkstemp(prefix="mmar-checkpoint-", suffix=path.suffix)
            os.close(descriptor)
            shutil.copyfile(path, copy)
            model.update_weights(copy, target_filename=path.name, auto_delete_file=True)


class TaskClearMLStatsHandler(ClearMLTaskHandler, ClearMLStatsHandler):
    """``ClearMLStatsHandler`` as MONAI has it, arguments and all, but for its end."""


class TaskClearMLImageHandler(ClearMLTaskHandler, ClearMLImageHandler):
    """``ClearMLImageHandler`` as MONAI has it, arguments and all, but for its end."""


def _output_model(task: Any, path: Path) -> Any:
    from clearml import OutputModel

    class CheckpointModel(OutputModel):
        """A model of this run; nobody can have published it before it is logged."""

        # ClearML 2.1 asks for it before each update, and fails at that in offline mode.
        published = False

    return CheckpointModel(task=task, name=f"{task.name} - {path.stem}", framework="PyTorch")


def _model_patterns(auto_connect_frameworks: object) -> tuple[str, ...]:
    """Return the patterns of the checkpoints that ClearML logs."""
    wanted = auto_connect_frameworks
    if isinstance(wanted, Mapping):
        wanted = wanted.get("pytorch", True)
    if isinstance(wanted, str):
        return (wanted,)
    if isinstance(wanted, list | tuple):
        return tuple(map(str, wanted))
    return ("*",) if wanted else ()


def _adapt_to_training(task_class: Any) -> None:
    """Set up the task that a handler is about to open for a process that trains."""
    # Else ClearML seeds every random source with a number of its own, after the config's seed.
    task_class.set_random_seed(None)
    # Else ClearML reads the sources of the whole repository, for minutes if it is large,
    # to learn which packages the command imports. The configuration names the run anyway.
    task_class.force_requirements_env_freeze()
    # Else ClearML forks this process, with torch's threads in it, to report from there. The child
    # inherits the pipe of a git command that another of ClearML's threads has just started; now
    # and then that thread waits for the pipe to close, and the end of the run waits for the thread.
    # The setting, `sdk.development.report_use_subprocess`, can be made in a file only.
    task_class._report_subprocess_enabled = False


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep SIGINT and SIGTERM with who handles them now.

    ClearML would close the task in the middle of the training, and then pass SIGTERM on twice. That
    turns a request to stop into an interruption.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, handler)


# --- MLflow ---------------------------------------------------------------------------------------


class OwnRunMLFlowHandler(MLFlowHandler):
    """``MLFlowHandler`` as MONAI has it, arguments and all, but for which run it writes to.

    MONAI's handler continues any unfinished run of the experiment, such as a run that failed last
    week. This handler shares a run with the other handlers of its process. A ``run_name`` asks for
    the run of that name, and for going on with it if it is not finished, as with MONAI.
    """

    cur_run: Any
    experiment: Any

    def __init__(self, **arguments: Any) -> None:
        # MLflow reports its use to its makers, unless this variable forbids it.
        os.environ.setdefault(MLFLOW_TELEMETRY, "true")
        super().__init__(**arguments)

    def start(self, engine: Engine) -> None:
        """Find or create the run, and log the facts that are known at the start."""
        if self.cur_run is None and self.run_name is None:
            self._set_experiment()  # type: ignore[no-untyped-call]
            self.cur_run = self._run_of_this_process()
        super().start(engine)

    def finish(self, error: BaseException | None) -> None:
        """Say in the store how the run ended, and let go of the store."""
        if error is not None:
            self.run_finish_status = "KILLED" if _stopped(error) else "FAILED"
        self.close()

    def _run_of_this_process(self) -> Any:
        mine = f"tags.`{PROCESS_TAG}` = '{PROCESS}' and attributes.status = 'RUNNING'"
        runs = self.client.search_runs([self.experiment.experiment_id], filter_string=mine)
        if runs:
            return runs[0]
        return self.client.create_run(self.experiment.experiment_id, tags={PROCESS_TAG: PROCESS})
