"""Code of the jobs of `flare_job.py`: sites that send back a difference of zeros at once.

It goes along in the job's `custom/`. Of the executor it replaces the training alone: the checks of
the site, its filters, its audit log and its gate are all there.
"""

from __future__ import annotations

from fl_client.flare.executor import MmarExecutor
from fl_client.local_training import SharedTensors
from fl_client.site_tasks import SiteTasks
from fl_client.updates import weight_difference
from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import BestModel, SiteReport, Update
from mmar_runtime.metrics import MetricValue
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights

HALF = MetricValue(value=0.5, counted=1)
METRICS = {"val_mean_dice": HALF, "val_acc": HALF}


class ReturningTasks:
    """The tasks of a site that needs no time for them."""

    def train(self, weights: Weights, round_number: int) -> Update:
        """The received model after no step at all."""
        report = SiteReport(
            received_metrics=METRICS,
            local_metrics=METRICS,
            epochs=(),
            seconds=0.0,
            built={},
            process="returning",
        )
        return Update(
            round_number=round_number,
            difference=weight_difference(weights, weights),
            steps=1,
            report=report,
        )

    def score(self, weights: Weights) -> EvaluationResult:
        """Always the same."""
        return EvaluationResult(key_metric="val_mean_dice", metrics=METRICS, cases=1)

    def evaluate(self, weights: Weights, *, owner: str) -> EvaluationResult:
        """Always the same."""
        return self.score(weights)

    def best(self) -> BestModel:
        """Declined, so that no model of a site is evaluated."""
        raise PolicyError("a benchmark hands over no model")

    def shared_tensors(self) -> SharedTensors:
        """Not asked for: the job has no filters."""
        raise AssertionError("a job without filters has asked what they would see")

    def close(self) -> None:
        """Nothing was taken."""


class ReturningExecutor(MmarExecutor):
    """The executor of a site, without its training."""

    @staticmethod
    def make_tasks(*_: object) -> SiteTasks:
        """Return the tasks that need no time."""
        return ReturningTasks()
