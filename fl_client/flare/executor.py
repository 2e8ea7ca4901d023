"""The NVFlare executor of a site: tasks in, replies out, everything else is ``fl_client``'s."""

from __future__ import annotations

import os
import traceback
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fl_client.flare.exchange import (
    STATUS,
    metrics_reply,
    received_weights,
    update_reply,
    weights_reply,
)
from fl_client.local_evaluation import CrossSiteEvaluator
from fl_client.local_training import LocalTrainer, LocalWork
from fl_client.progress import ProgressFile
from fl_client.site import Site
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    DataError,
    MmarError,
    RunAborted,
    WeightsError,
)
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.session import session

TRAIN = "train"
SCORE = "score_model"
VALIDATE = "validate"
SUBMIT = "submit_model"

STATUS_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (ConfigError, "config-refused"),
    (DataError, "data-error"),
    (WeightsError, "weights-error"),
    (CheckpointError, "checkpoint-error"),
    (torch.OutOfMemoryError, "out-of-memory"),
    (MemoryError, "out-of-memory"),
    (ComponentError, "component-error"),
)
"""All that the server learns of an error; its text stays at the site."""


class MmarExecutor(Executor):
    """Trains, scores, submits and validates for one site; builds each engine once in a job.

    Args:
        local_epochs: epochs that a round trains.
        steps_aggregation: optimizer steps that a round trains; 0 means whole epochs.
    """

    def __init__(self, local_epochs: int = 1, steps_aggregation: int = 0) -> None:
        super().__init__()
        self.local_epochs = local_epochs
        self.steps_aggregation = steps_aggregation
        self._process = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._counts: Counter[str] = Counter()
        self._trainer: LocalTrainer | None = None
        self._evaluator: CrossSiteEvaluator | None = None
        self._sessions = ExitStack()
        self._abort: Signal | None = None
        self._site: Site | None = None
        self._progress: ProgressFile | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Find out where this is when the run starts; put process settings back at its end."""
        if event_type == EventType.START_RUN:
            self._start(fl_ctx)
        elif event_type == EventType.END_RUN:
            self._sessions.close()

    def _start(self, fl_ctx: FLContext) -> None:
        workspace = fl_ctx.get_engine().get_workspace()
        name, job_id = fl_ctx.get_identity_name(), fl_ctx.get_job_id()
        self._site = Site(
            name=name,
            mmar=Mmar.open(workspace.get_app_dir(job_id)),
            values=read_site_values(Path(workspace.get_site_config_dir()), name),
        )
        run = Path(workspace.get_run_dir(job_id))
        self._progress = ProgressFile(run / "progress.jsonl")

    @property
    def site(self) -> Site:
        """This site.

        Raises:
            MmarError: no run has started.
        """
        if self._site is None:
            raise MmarError("no run has started at this site")
        return self._site

    @property
    def progress(self) -> ProgressFile:
        """Where this site's progress is told.

        Raises:
            MmarError: no run has started.
        """
        if self._progress is None:
            raise MmarError("no run has started at this site")
        return self._progress

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Do a task; whatever goes wrong becomes a return code and a status word."""
        tasks = {
            TRAIN: self._train,
            SCORE: self._score,
            SUBMIT: self._submit,
            VALIDATE: self._validate,
        }
        if task_name not in tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        self._abort = abort_signal
        try:
            return tasks[task_name](shareable)
        except RunAborted:
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            return self._failed(task_name, error, fl_ctx)
        finally:
            self._abort = None

    def _failed(self, task_name: str, error: Exception, fl_ctx: FLContext) -> Shareable:
        """Keep the error's text here under a reference; tell the server one word and that."""
        reference = uuid.uuid4().hex[:8]
        word = status_word(error)
        text = "".join(traceback.format_exception(error))
        path = self.progress.path.with_name(f"error-{reference}.txt")
        path.write_text(f"{task_name}: {error}\n\n{text}", encoding="utf-8")
        # NVFlare may send a site's error log to the server, and anyone may listen to log events.
        self.log_error(fl_ctx, f"{word} in task {task_name}; its text is in {path.name} here")
        reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
        reply.set_header(STATUS, f"{word} (reference {reference})")
        return reply

    def _should_stop(self) -> bool:
        return self._abort is not None and bool(self._abort.triggered)

    def _context(self, config: WorkflowConfig) -> Any:
        return self._sessions.enter_context(session(config, allow_code=self.site.allow_code))

    def trainer(self) -> LocalTrainer:
        """This site's trainer, built when first needed."""
        if self._trainer is None:
            config = self.site.train_config()
            self._trainer = LocalTrainer(
                self.site,
                config,
                self._context(config),
                work=LocalWork(epochs=self.local_epochs, steps=self.steps_aggregation),
                process=self._process,
                counts=self._counts,
                observer=self.progress,
                should_stop=self._should_stop,
            )
        return self._trainer

    def evaluator(self) -> CrossSiteEvaluator:
        """This site's evaluator for models from anywhere, built when first needed."""
        if self._evaluator is None:
            config = self.site.cross_validation_config()
            self._evaluator = CrossSiteEvaluator(
                config, self._context(config), counts=self._counts, should_stop=self._should_stop
            )
        return self._evaluator

    def _train(self, shareable: Shareable) -> Shareable:
        # NVFlare counts rounds from 0; records and people count from 1.
        round_number = int(shareable.get_header(AppConstants.CURRENT_ROUND)) + 1
        self.progress.round_number = round_number
        self.progress.task(TRAIN)
        return update_reply(self.trainer().train(received_weights(shareable), round_number))

    def _score(self, shareable: Shareable) -> Shareable:
        self.progress.task(SCORE)
        return metrics_reply(self.trainer().score(received_weights(shareable)))

    def _submit(self, shareable: Shareable) -> Shareable:
        self.progress.task(SUBMIT)
        best = self.trainer().best
        if best is None:
            raise WeightsError("this site has trained no model yet that it could submit")
        meta = {"round": best.round_number, "metrics": dict(best.result.metrics)}
        return weights_reply(best.weights, meta=meta)

    def _validate(self, shareable: Shareable) -> Shareable:
        owner = str(shareable.get_header(AppConstants.MODEL_OWNER))
        self.progress.task(VALIDATE, model=owner)
        return metrics_reply(self.evaluator().evaluate(received_weights(shareable), owner=owner))


def status_word(error: BaseException) -> str:
    """The one word for an error that may leave the site."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in reversed(causes):
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return "out-of-memory"
    for kind, word in STATUS_WORDS:
        if isinstance(error, kind):
            return word
    return "internal-error"
