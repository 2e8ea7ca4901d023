"""One model on a site's own data, with the numbers that a federation would be told; none is sent.

The classes are those of the federation: ``Site`` reads the job with the site's values and policy,
``LocalTasks`` evaluates, ``outgoing_result`` leaves what the policy lets out.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_client.local_work import LocalWork
from fl_client.outgoing import outgoing_result
from fl_client.site import Site
from fl_client.site_tasks import LocalTasks
from fl_client.task_limits import mmar_problems
from fl_client.updates import first_not_finite
from mmar_runtime.errors import ConfigError, WeightsError
from mmar_runtime.exchange.job_documents import JobDocuments
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.observing import ShouldStop, SilentObserver


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteValidation:
    """How well a model does here.

    Attributes:
        told: what a federation would be told: the metrics that may leave, rounded as the policy
            says, and the number of cases as a bucket.
        cases: how many cases there are; this number never leaves.
    """

    told: EvaluationResult
    cases: int


def validate_here(
    site: Site, weights: Weights, *, source: str, should_stop: ShouldStop = lambda: False
) -> SiteValidation:
    """Evaluate a model by the site's MMAR, as a task ``validate`` of a federation would.

    Args:
        site: where this is.
        weights: of the whole network.
        source: where the weights come from, for errors.
        should_stop: asked between iterations.

    Raises:
        ConfigError: the policy of the site refuses the MMAR, or data are missing; all at once.
        WeightsError: the weights do not fit the network, or are not finite.
        PolicyError: there are fewer cases than the policy tells metrics of.
        DataError, ComponentError: something inside the engine failed.
        RunAborted: ``should_stop`` said so.
    """
    site = site.alone
    if problems := mmar_problems(site):
        raise ConfigError(problems)
    if (name := first_not_finite(weights)) is not None:
        raise WeightsError(f"the weights from {source} are not finite, in {name!r}")
    result = _evaluated(site, weights, source, should_stop)
    return SiteValidation(told=outgoing_result(result, site.policy), cases=result.cases)


def _evaluated(
    site: Site, weights: Weights, source: str, should_stop: ShouldStop
) -> EvaluationResult:
    tasks = LocalTasks(
        site,
        work=LocalWork(),  # nothing is trained; the weights are those of the whole network
        process="",
        observer=SilentObserver(),
        should_stop=should_stop,
    )
    try:
        return tasks.evaluate(weights, owner=source)
    except WeightsError as error:
        if (shared := JobDocuments.read(site.mmar.root).executor.get("shared_names")) is None:
            raise
        raise WeightsError(
            f"{error}\n    The sites of this job share {', '.join(shared)} only. Each keeps the "
            "other tensors to itself, in the memory of the job's process, and the federation "
            "joined them with the model for its numbers. Name a file that holds the whole network."
        ) from error
    finally:
        tasks.close()
