"""Received weights -> local epochs -> update; trainer and data cache live across rounds."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine
from monai.data.utils import set_rnd

from fl_client.local_work import LocalWork
from fl_client.private_tensors import PrivateTensors
from fl_client.site import Site
from fl_client.updates import first_not_finite, weight_difference
from mmar_runtime.components.builder import BuildContext
from mmar_runtime.components.measuring import Measurements
from mmar_runtime.components.processes import agree_on_buffers, asked_together
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import ConfigError, Problem, RunAborted, WeightsError
from mmar_runtime.exchange.messages import BestModel, SiteReport, Update
from mmar_runtime.exchange.plain import from_plain
from mmar_runtime.results import EpochReport, EvaluationResult
from mmar_runtime.weights import Weights, load_into, weights_of
from mmar_runtime.workflows.evaluation import result_of
from mmar_runtime.workflows.explaining import explained
from mmar_runtime.workflows.observing import (
    Observer,
    ShouldStop,
    SilentObserver,
    forget_batch,
    stop_between_iterations,
)
from mmar_runtime.workflows.resuming import restore_saver, saver_state
from mmar_runtime.workflows.samples import DrawnSamples, passes_of
from mmar_runtime.workflows.session import seed_everything
from mmar_runtime.workflows.training import TrainingWorkflow


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTensors:
    """The tensors that a site sends, for those who judge or filter them.

    Attributes:
        sizes: name of each tensor -> the numbers in it.
        buffers: names of those that no optimizer moves, such as the statistics of batch norms.
    """

    sizes: Mapping[str, int]
    buffers: frozenset[str]


class LocalTrainer:
    """One site's training over all the rounds of a job.

    Building is done once, in the constructor: engines, network, optimizer and data cache then live
    on, and epochs go on counting. The received model is validated by an evaluator of its own, so
    that neither handlers nor best-model bookkeeping take it for one that was trained here.

    Args:
        site: where this is.
        config: the training workflow as it runs here.
        context: device and permissions.
        work: how much to train in a round, and what to share.
        process: an opaque name of this process, for the report.
        counts: counts what is built.
        observer: told of iterations, epochs and validations.
        should_stop: asked between iterations.
        in_place: whether an update may lie in the memory of the network, which then holds no
            weights until the next ones are received.
    """

    def __init__(
        self,
        site: Site,
        config: TrainConfig,
        context: BuildContext,
        *,
        work: LocalWork,
        process: str,
        counts: Counter[str],
        observer: Observer | None = None,
        should_stop: ShouldStop = lambda: False,
        in_place: bool = False,
    ) -> None:
        if config.validate is None:
            message = "a federated job needs a section 'validate': each round's model is scored"
            raise ConfigError([Problem(config.train.location, message, "", "section")])
        self.site = site
        self.config = config
        self.work = work
        self.process = process
        self.counts = counts
        self.best: BestModel | None = None
        self._observer = observer or SilentObserver()
        self._processes = context.processes
        self._should_stop = asked_together(should_stop, context.processes, context.device)
        self._round_number = 0
        self._in_place = in_place
        if config.settings.random_seed is not None:
            # Building draws numbers too: DataLoader seeds the transforms. The weights it draws are
            # replaced by received ones before anything uses them.
            seed_everything(self._process_seed(config.settings.random_seed, 0))
        self._workflow = TrainingWorkflow(
            config, context, counts=counts, observer=self, should_stop=should_stop
        )
        self.network = self._trained_network()
        self._stateful = self._workflow.stateful()
        self._private = PrivateTensors(weights_of(self.network), work.shared)
        self._dataset: Any = self._workflow.entry("train", "dataset")
        self._scorer, self._scores = self._received_model_evaluator()
        self._drawn = self._counted_samples() if work.weigh_by == "samples" else None

    def _trained_network(self) -> torch.nn.Module:
        if (network := self._workflow.network) is None:
            message = "a federated job needs an entry 'model' in 'train'"
            raise ConfigError([Problem(self.config.train.location, message, "", "section")])
        return network

    @property
    def engine(self) -> Engine:
        """What trains the network."""
        return self._workflow.engine

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch on this site's data."""
        return len(self._workflow.entry("train", "dataloader"))

    @property
    def cases_per_epoch(self) -> int:
        """Items of the training data that all processes of this site go through in one epoch."""
        return len(self._dataset) * self._processes.count

    def _counted_samples(self) -> DrawnSamples:
        loader = self._workflow.entry("train", "dataloader")
        passes = passes_of(
            loader,
            self._processes,
            listed=self._workflow.builder.listed.get("train"),
            place=self.config.train.location / "dataloader",
        )
        return DrawnSamples(self.engine, loader, passes)

    def _received_model_evaluator(self) -> tuple[Engine, Measurements]:
        builder = self._workflow.builder.fork(
            "validate",
            anew=("key_metric", "additional_metrics", "evaluator"),
            given={"handlers": []},
        )
        evaluator: Engine = builder.get("validate", "evaluator")
        if not self._processes.several:
            # Processes evaluate different numbers of cases, so they could not stop together.
            stop_between_iterations(evaluator, self._should_stop)
        return evaluator, builder.measurements("validate", evaluator)

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield what takes memory between two rounds: optimizer, private and best tensors."""
        for part in self._workflow.parts().values():
            if isinstance(part, torch.optim.Optimizer):
                for state in part.state.values():
                    yield from (kept for kept in state.values() if isinstance(kept, torch.Tensor))
        yield from self._private.tensors.values()
        yield from () if self.best is None else self.best.weights.values()

    def train(self, received: Weights, round_number: int) -> Update:
        """Validate the received model, train on from it, and return what that changed.

        Args:
            received: the global weights; left as they are.
            round_number: counted from 1.

        After an error the trainer is as it was before the round.

        Raises:
            WeightsError: the weights do not fit, or training ended in values that are not finite.
            RunAborted: ``should_stop`` said so.
            DataError, ComponentError: something inside the engines failed.
        """
        # The network's own weights are those that the next round receives.
        before = copy.deepcopy(self._stateful.state(without=self.network)), self.best
        try:
            return self._round(received, round_number)
        except BaseException:
            state, self.best = before
            self._stateful.put_back(state, without=self.network)
            raise

    def state(self) -> dict[str, Any]:
        """Return all that the next round goes on from: tensors and plain values."""
        best = self.best and {
            "weights": self.best.weights,
            "round_number": self.best.round_number,
            "result": self.best.result.as_dict(),
        }
        return {
            "training": self._stateful.state(without=self.network),
            "savers": [saver_state(saver) for saver in self._workflow.savers()],
            "private": self._private.state(),
            "best": best,
        }

    def put_back(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that ``state`` has returned, in another process.

        Raises:
            ValueError: the state is of another training.
        """
        self._stateful.put_back(state["training"], without=self.network)
        for saver, saved in zip(self._workflow.savers(), state["savers"], strict=True):
            restore_saver(saver, saved)
        self._private.put_back(state["private"])
        if best := state["best"]:
            self.best = BestModel(
                weights=best["weights"],
                round_number=best["round_number"],
                result=from_plain(EvaluationResult, best["result"]),
            )

    def _round(self, received: Weights, round_number: int) -> Update:
        started = time.monotonic()
        self._round_number = round_number
        received_result = self.score(received)
        self._seed(round_number)
        before, drawn = self._workflow.iteration, self._drawn
        drawn_before = 0 if drawn is None else drawn.total
        self._workflow.validated = None
        workflow, work = self._workflow, self.work
        reports = workflow.run_steps(work.steps) if work.steps else workflow.run_epochs(work.epochs)
        if self._processes.several:
            agree_on_buffers(self.network)
        steps = self._workflow.iteration - before
        if steps == 0:
            raise WeightsError("the round did no optimizer step; is the data set empty?")
        local_result = self._validated_at_the_end()
        trained = self.network.state_dict()
        shared = self._private.shared(trained)
        difference = weight_difference(shared, received, in_place=self._in_place)
        self._private.keep(trained)
        return Update(
            round_number=round_number,
            difference=difference,
            steps=steps,
            samples=None if drawn is None else drawn.total - drawn_before,
            epoch_samples=None if drawn is None else drawn.per_epoch,
            report=SiteReport(
                received_metrics=received_result.metrics,
                local_metrics=local_result.metrics,
                epochs=reports,
                seconds=round(time.monotonic() - started, 3),
                built=dict(self.counts),
                process=self.process,
            ),
        )

    def score(self, weights: Weights) -> EvaluationResult:
        """Return the metrics of weights on the site's validation data; the network keeps them."""
        load_into(self.network, self._private.join(weights), source="the server")
        return self._score_network()

    @property
    def shared_tensors(self) -> SharedTensors:
        """The tensors of the network that leave the site."""
        shared = self._private.shared(self.network.state_dict())
        buffers = (name for name, _ in self.network.named_buffers(remove_duplicate=False))
        return SharedTensors(
            sizes={name: tensor.numel() for name, tensor in shared.items()},
            buffers=frozenset(buffers),
        )

    def shared(self, weights: Weights) -> Weights:
        """Return those of the network's weights that may leave the site."""
        return self._private.shared(weights)

    def for_evaluation(self, weights: Weights) -> Weights:
        """Return a received model, with this site's own tensors where not all are shared.

        Raises:
            WeightsError: this site has trained none of its own yet.
        """
        return self._private.join(weights, trained=True)

    def _score_network(self) -> EvaluationResult:
        with explained(self.config):
            self._scorer.run()
        forget_batch(self._scorer)
        if self._should_stop():
            raise RunAborted("stopped during validation")
        return result_of(self._scorer, self._scores)

    def _seed(self, round_number: int) -> None:
        if (job_seed := self.config.settings.random_seed) is None:
            return
        seed = self._process_seed(job_seed, round_number)
        seed_everything(seed)
        # The random transforms have generators of their own.
        set_rnd(self._dataset, seed)

    def _process_seed(self, job_seed: int, round_number: int) -> int:
        """Return a seed of its own for each of several processes."""
        return self.site.round_seed(job_seed, round_number) + self._processes.rank

    def _validated_at_the_end(self) -> EvaluationResult:
        """Return the local model's metrics: from the config's own validation if it has just run."""
        validated = self._workflow.validated
        if validated is not None and validated[0] == self._workflow.epoch and not self.work.steps:
            return validated[1]
        result = self._score_network()
        self.validation(result, epoch=self._workflow.epoch)
        return result

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        """Pass the report on to the observer."""
        self._observer.iteration(epoch=epoch, epochs=epochs, done=done, of=of, loss=loss)

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        """Pass the report on to the observer."""
        self._observer.epoch(report, epochs=epochs)

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        """Pass the result on, and keep the model just validated if it is the best so far."""
        self._observer.validation(result, epoch=epoch)
        if not result.beats(None if self.best is None else self.best.result):
            return
        weights = weights_of(self.network)
        # A model of NaN can score, and would be submitted at the end.
        if first_not_finite(weights) is None:
            self.best = BestModel(weights=weights, result=result, round_number=self._round_number)
