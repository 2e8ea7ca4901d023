"""The server's part of a federation on one machine: rounds, scores, cross-site validation, record.

The rules are those of ``fl_server``; that of NVFlare's workflows is here: a site that fails is
passed over as long as enough others are left, and the run ends when they are not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fl_admin.simulation.inline.job_terms import JobTerms
from fl_client.simulation.sites import Sites
from fl_server.guard.reply_guard import PlainReplyGuard, arrays_of, reason_of
from fl_server.initial_model import InitialModel
from fl_server.model_selection import ModelSelection
from fl_server.received_update import ReceivedUpdate, added_up, contribution_from
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL, expected_models
from fl_server.record.cross_site_results import CrossSiteResults, MatrixRows
from fl_server.record.run_record import (
    RecordFile,
    RunRecord,
    RunRecorder,
    SiteAbsence,
    SiteContribution,
    add_digest,
    begin_run,
)
from fl_server.round_mean import RoundMean
from fl_server.update_guard import UpdateFault
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.messages import (
    BestModel,
    Failure,
    Score,
    Submit,
    Train,
    Update,
    Validate,
)
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.files import flush_below, link
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights, digest, read_checkpoint, write_checkpoint

ENGINE = "inline"
BYTES_WAITING = 2**28
MOST_WAITING = 16
"""What may wait to be written: bytes of models, though one model of any size, and files."""

PACKAGES = ("mmar-fl", "torch", "monai", "pytorch-ignite")
RECORD_FILE = "run_record.json"
SECONDS_BETWEEN_MODELS = 30
"""Writing a large global model takes longer than a round of small sites."""

SECONDS_BETWEEN_RECORDS = 0.5
"""Contributions of small sites come faster than anybody reads the record."""

logger = logging.getLogger(__name__)


class InlineServer:
    """Runs a job from its first weights to its published results.

    Args:
        name: the job's name.
        terms: what it asks for.
        initial: where it starts.
        sites: its sites.
        folder: where results are written.
        evaluation_sha256: digest of how the job evaluates models.
    """

    def __init__(
        self,
        name: str,
        terms: JobTerms,
        initial: InitialModel,
        sites: Sites,
        folder: Path,
        *,
        evaluation_sha256: str,
    ) -> None:
        self._name = name
        self._terms = terms
        self._guard = PlainReplyGuard(
            initial,
            name,
            terms.limits,
            transfer=terms.transfer,
            steps=terms.steps_aggregation,
        )
        self._weights: Weights = initial.weights
        size = sum(tensor.nbytes for tensor in self._weights.values())
        # With more sites there is a sum, which takes as much; then the memory goes back.
        self._spare = SpareMemory(size if len(sites.names) < 3 else 0)
        # These weights are let go of after the first round.
        self._initial = replace(initial, weights={})
        self._sites = sites
        self._folder = folder
        self._evaluation_sha256 = evaluation_sha256
        self._recorder = RunRecorder(self._begin())
        self._selection = ModelSelection(self._recorder, initial.key_metric)
        self._cross_site = CrossSiteResults()
        self._round_digests: dict[int, Future[str]] = {}
        self._digests: dict[str, Future[str]] = {}

    def _begin(self) -> RunRecord:
        return begin_run(
            job=self._name,
            engine=ENGINE,
            started=datetime.now(UTC),
            key_metric=self._initial.key_metric,
            rounds_asked=self._terms.rounds,
            sites=self._sites.names,
            min_sites=self._terms.min_sites,
            versions={name: version(name) for name in PACKAGES},
            initial_weights_sha256=digest(self._weights),
            shared_names=self._initial.shared_names,
        )

    def run(self) -> RunRecord:
        """Run; the finished record, which is written as well. What falls short is in it."""
        with (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests") as self._hashing,
            _Files(self._folder, self._settled_record, self._initial.train_conf) as self._files,
        ):
            try:
                for number in range(1, self._terms.rounds + 1):
                    self._round(number)
                self._score_last_model()
                self._validate_everywhere()
                self._publish()
            except Exception as error:
                self._recorder.finish("failed", str(error) or type(error).__name__)
                self._keep_last_model()
                if not isinstance(error, FederationError):
                    raise
            finally:
                self._files.record()
        return self._settled_record()

    def _keep_last_model(self) -> None:
        """What the rounds have given until now, whatever has ended them."""
        number = len(self._recorder.record.closed_rounds)
        if number > self._files.written:
            self._files.global_model(self._weights, number, soon=True)

    def _settled_record(self) -> RunRecord:
        """The record as it stands, once the digests of all its models are there."""
        record = self._recorder.record
        for one in record.rounds:
            if one.awaits_digest:
                sha256 = self._round_digests[one.number].result()
                record = add_digest(record, one.number, sha256)
        return record

    # --- training

    def _round(self, number: int) -> None:
        self._recorder.start_round(number)
        self._files.record()
        mean = RoundMean(
            self._sites.names,
            min_sites=self._terms.min_sites,
            aggregation_weights=self._terms.aggregation_weights,
            norm_ratio=self._guard.norm_ratio,
            spare=self._spare,
        )
        rejections: dict[str, str] = {}
        failed: set[str] = set()
        model = arrays_of(self._weights)
        task = Train(weights=self._weights, round_number=number, timeout=self._terms.train_timeout)
        for site, reply in self._sites.ask(task):
            if isinstance(reply, Failure):
                self._failed(site, reply, failed, number)
                continue
            if not isinstance(reply, Update):
                raise TypeError(f"{site} answered {task} with {type(reply).__name__}")
            found = self._judged(site, reply, number, model)
            if isinstance(found, SiteContribution):
                mean.add(site, added_up(reply.difference), reply.steps)
                self._recorder.contribution(site, found)
                self._recorder.score(number - 1, site, found.received_metrics)
            else:
                rejections[site] = found
                self._recorder.rejected(site, found)
            del reply  # its tensors hold until the next site works
            self._files.record(soon=False)
        for site, fault in mean.settle().items():
            rejections[site] = str(fault)
            absence = SiteAbsence(status="rejected", reason=str(fault))
            self._recorder.changed(site, absence)
        mean.require_enough(rejections)
        weights = mean.new_global(self._weights)
        if self._selection.is_best(number - 1):
            self._files.best_model(self._weights, number - 1)
        self._weights = weights
        self._files.global_model(weights, number, soon=number == self._terms.rounds)
        self._close_round(number)

    def _close_round(self, number: int) -> None:
        """The digest of the new model is taken while the sites work on, one at a time."""
        if number > 1:
            self._recorder.digest(number - 1, self._round_digests[number - 1].result())
        self._round_digests[number] = self._hashing.submit(digest, self._weights)
        self._recorder.close_round()
        self._files.record()

    def _failed(self, site: str, failure: Failure, failed: set[str], number: int) -> None:
        """Record a site that could not train; go on if enough others are left."""
        failed.add(site)
        if not failure.status:
            logger.warning("%s did not answer in round %d in time", site, number)
            return
        self._recorder.failed(site, failure.status)
        self._files.record()
        left = len(self._sites.names) - len(failed)
        if left < self._terms.min_sites:
            raise FederationError(
                f"{site} failed in round {number}: {failure.status}; {left} sites are left, "
                f"the job asks for {self._terms.min_sites}"
            )

    def _judged(self, site: str, update: Update, number: int, model: Any) -> SiteContribution | str:
        """A contribution that is good, or why it is not."""
        report = update.report.as_dict()
        metadata = self._claims(
            site,
            kind="WEIGHT_DIFF",
            round=update.round_number,
            base_model=_before(update.round_number),
            steps=update.steps,
            initial_metrics=report["received_metrics"],
            report=report,
        )
        faults = self._guard.contribution_faults(
            arrays_of(update.difference),
            metadata,
            site=site,
            round_number=number,
            model=model,
            base_model=_before(number),
            contributors=(),
        )
        if not faults:
            received = ReceivedUpdate(
                difference=update.difference, steps=update.steps, report=report
            )
            try:
                return contribution_from(received)
            except FederationError as error:
                faults = (UpdateFault("report", "report", str(error)),)
        logger.warning("contribution of %s rejected: %s", site, reason_of(faults))
        return reason_of(faults)

    def _claims(self, site: str, **metadata: object) -> dict[str, object]:
        return {"site": site, "job": self._name, **metadata}

    # --- after training

    def _score_last_model(self) -> None:
        number = len(self._recorder.record.rounds)
        task = Score(weights=self._weights, timeout=self._terms.score_timeout)
        for site, reply in self._sites.ask(task):
            if not isinstance(reply, EvaluationResult):
                continue
            metrics = dict(reply.metrics)
            claims = self._claims(site, kind="METRICS", cases=reply.cases)
            faults = self._guard.score_faults(metrics, claims, site=site)
            if faults:
                logger.warning("score of %s refused: %s", site, reason_of(faults))
            else:
                self._recorder.score(number, site, metrics)
        if self._selection.is_best(number):
            self._files.best_model(self._weights, number)
        self._files.record()

    def _validate_everywhere(self) -> None:
        self._digests[GLOBAL_MODEL] = self._round_digests[self._terms.rounds]
        self._validate(GLOBAL_MODEL, self._weights, is_global=True)
        best = self._files.read(BEST_GLOBAL_MODEL)
        self._digests[BEST_GLOBAL_MODEL] = self._hashing.submit(digest, best)
        self._validate(BEST_GLOBAL_MODEL, best, is_global=True)
        del best
        for owner in self._sites.names:
            for site, reply in self._sites.ask(Submit(), only=owner):
                if isinstance(reply, BestModel):
                    self._take_model(site, reply)
                elif isinstance(reply, Failure) and reply.status:
                    self._cross_site.model_failed(site, reply.status)

    def _take_model(self, site: str, model: BestModel) -> None:
        """Keep a site's own model, and have all evaluate it, unless the guard refuses it."""
        metrics = dict(model.metrics)
        claims = self._claims(site, kind="WEIGHTS", model_round=model.round_number, metrics=metrics)
        faults = self._guard.model_faults(arrays_of(model.weights), claims, site=site, answered=())
        if faults:
            logger.warning("model of %s refused: %s", site, reason_of(faults))
            self._cross_site.model_failed(site, reason_of(faults))
            return
        self._recorder.local_best(site, model.round_number, metrics)
        self._digests[site] = self._hashing.submit(digest, model.weights)
        self._files.model(site, model.weights)
        self._files.record(soon=False)
        self._validate(site, model.weights, is_global=False)

    def _validate(self, owner: str, weights: Weights, *, is_global: bool) -> None:
        task = Validate(
            weights=weights,
            owner=owner,
            is_global=is_global,
            timeout=self._terms.validation_timeout,
        )
        for site, reply in self._sites.ask(task):
            if isinstance(reply, Failure):
                if reply.status:
                    self._cross_site.cell_failed(owner, site, reply.status)
            elif isinstance(reply, EvaluationResult):
                metrics = dict(reply.metrics)
                claims = self._claims(site, kind="METRICS", cases=reply.cases)
                faults = self._guard.validation_faults(metrics, claims, site=site, answered=())
                if faults:
                    self._cross_site.cell_failed(owner, site, reason_of(faults))
                else:
                    self._cross_site.cell(owner, site, metrics)

    def _publish(self) -> None:
        outcome = self._cross_site.publish(
            self._settled_record(),
            self._folder,
            rows=self._rows(),
            min_sites=self._terms.min_sites,
        )
        for sentence in outcome.told:
            logger.warning("%s", sentence)
        if outcome.blocking:
            raise FederationError("; ".join(outcome.blocking))
        self._recorder.finish("complete")

    def _rows(self) -> MatrixRows:
        models = expected_models(self._sites.names)
        return MatrixRows(
            key_metric=self._initial.key_metric,
            models=models,
            of_server=expected_models(()),
            weights_sha256={
                name: self._digests[name].result() for name in models if name in self._digests
            },
            evaluation_sha256=self._evaluation_sha256,
        )


def _before(round_number: int) -> str:
    """What identifies the global model of which a round starts; within this process that will do.

    A deployed server compares digests, as its models travel.
    """
    return f"model of round {round_number - 1}"


class _Files:
    """Writes models and record while the run goes on; models in the order in which they were given.

    A thread of its own does that. What it could not write is raised by a later call. The models are
    flushed to the disk in the end: most of them are replaced before, and a simulation that a power
    cut has ended starts anew.

    Args:
        folder: of the results.
        settled: the record, for a thread that can wait until it is complete.
        train_conf: the configuration of the network, which goes with each model.

    Attributes:
        written: the round whose global model was given to be written last.
    """

    def __init__(
        self, folder: Path, settled: Callable[[], RunRecord], train_conf: Mapping[str, Any]
    ) -> None:
        self._record_file = RecordFile(folder / RECORD_FILE)
        self._settled = settled
        self._train_conf = train_conf
        self._models = folder / "models"
        self._models.mkdir(parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._writing: deque[tuple[Future[None], int]] = deque()
        self._record_waits = threading.Event()
        self._recorded = 0.0
        self.written = 0
        self._written_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        flush_below(self._models)
        if error is None:
            self._wait()

    def record(self, *, soon: bool = True) -> None:
        """Write the record; unless ``soon``, only if it was not written just before.

        What is written is the record as it stands when its turn comes.
        """
        now = time.monotonic()
        if soon or now - self._recorded > SECONDS_BETWEEN_RECORDS:
            self._recorded = now
            if not self._record_waits.is_set():
                self._record_waits.set()
                self._submit(self._write_record)

    def _write_record(self) -> None:
        self._record_waits.clear()  # what changes from now on is written once more
        self._record_file.write(self._settled())

    def global_model(self, weights: Weights, number: int, *, soon: bool) -> None:
        """Write the first global model of all, and others ``soon`` or if the last was long ago."""
        now = time.monotonic()
        if soon or not self.written or now - self._written_at > SECONDS_BETWEEN_MODELS:
            self.written, self._written_at = number, now
            self.model(GLOBAL_MODEL, weights)

    def best_model(self, weights: Weights, number: int) -> None:
        """Write the global model of a round as the best; a second name where it is written."""
        if number == self.written:
            last, best = self._path(GLOBAL_MODEL), self._path(BEST_GLOBAL_MODEL)
            self._submit(lambda: link(last, best))
        else:
            self.model(BEST_GLOBAL_MODEL, weights)

    def model(self, name: str, weights: Weights) -> None:
        """Write a model's checkpoint; the weights must not be changed any more."""
        path, conf = self._path(name), self._train_conf
        size = sum(tensor.nbytes for tensor in weights.values())
        while self._writing and sum(one for _, one in self._writing) + size > BYTES_WAITING:
            self._writing.popleft()[0].result()
        self._submit(lambda: write_checkpoint(path, weights, conf, flush=False), size)

    def _path(self, name: str) -> Path:
        return self._models / f"{name}.pt"

    def read(self, name: str) -> Weights:
        """The weights of a model that was written before."""
        self._wait()
        return read_checkpoint(self._path(name)).weights

    def _submit(self, write: Callable[[], None], size: int = 0) -> None:
        while self._writing and (self._writing[0][0].done() or len(self._writing) >= MOST_WAITING):
            self._writing.popleft()[0].result()
        self._writing.append((self._thread.submit(write), size))

    def _wait(self) -> None:
        while self._writing:
            self._writing.popleft()[0].result()
