"""The privacy filters: NVFlare's arithmetic on parameters alone, in their own dtypes.

A site puts them into its ``privacy.json``, a job into ``task_result_filters``. What is no
difference of weights passes as it is, but for whole models: these are held back, because no filter
makes anything of them that another site could evaluate.
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.filters import percentile_privacy, svt_privacy

from fl_client.flare.audit import ledger, note
from fl_client.flare.failure import failure
from fl_client.local_training import SharedTensors
from fl_client.privacy.filter_plan import FilterPlan
from fl_client.privacy.ledger import PrivacyLedger, data_digest
from fl_client.privacy.settings import (
    MODULE,
    Settings,
    SvtSettings,
    TrainedTensors,
    filter_settings,
)
from fl_client.site import Site
from mmar_runtime.config.location import Location
from mmar_runtime.errors import MmarError, PolicyError
from mmar_runtime.policy.site_policy import SitePolicy, site_policy

TRAINED = "mmar_trained"
"""The property of a context by which the executor tells the filters what was trained."""

STATE_WORDS = 624
"""The state of numpy's global generator in words of 32 bits."""

Arrays = dict[str, np.ndarray[Any, Any]]

_NOISE = threading.Lock()


class ModelFilter(DXOFilter):
    """A filter that sees the parameters of a contribution and leaves the rest to its settings.

    Args:
        name: of the filter, as the settings know it.
        arguments: of the filter.

    Raises:
        ConfigError: an argument has a fault.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        kinds = [DataKind.WEIGHT_DIFF]
        super().__init__(supported_data_kinds=kinds, data_kinds_to_filter=kinds)
        self.settings: Settings = filter_settings(
            f"{MODULE}.{name}", arguments, Location(name) / "args"
        )

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the reply, filtered; a failed reply in the place of what the policy holds back."""
        try:
            is_good = shareable.get_return_code() in (None, ReturnCode.OK) and "DXO" in shareable
            if is_good and from_shareable(shareable).data_kind == DataKind.WEIGHTS:
                raise PolicyError("a whole model is not sent where a filter is set up")
            return super().process(shareable, fl_ctx)
        except PolicyError as error:
            task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
            return failure(error, task=task, by=self, fl_ctx=fl_ctx)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return the contribution as it leaves; its metadata stays what it was.

        Raises:
            MmarError: nobody has told which tensors are buffers.
        """
        trained = fl_ctx.get_prop(TRAINED)
        if not isinstance(trained, TrainedTensors):
            raise MmarError(f"{self.settings.name}: the executor does not tell what it has trained")
        gone = set(self.settings.left_out(tuple(dxo.data), trained.buffers))
        left: Arrays = {name: array for name, array in dxo.data.items() if name not in gone}
        seen = {
            name: array
            for name, array in left.items()
            if name not in trained.buffers and array.dtype.kind == "f"
        }
        # Filters of NVFlare's pass over single numbers; as an array of one they do not.
        flat = {name: np.atleast_1d(array) for name, array in seen.items()}
        steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1)
        filtered = self.filtered(flat, steps, trained, fl_ctx) if flat else {}
        for name, array in seen.items():
            left[name] = np.asarray(filtered[name], dtype=array.dtype).reshape(array.shape)
        dxo.data = left
        return dxo

    @abstractmethod
    def filtered(
        self, arrays: Arrays, steps: int, trained: TrainedTensors, fl_ctx: FLContext
    ) -> Arrays:
        """Return what becomes of the parameters.

        Args:
            arrays: differences of floating-point parameters; not to be changed.
            steps: optimizer steps that led to them.
            trained: what was trained.
            fl_ctx: of the reply.
        """


class ExcludeVars(ModelFilter):
    """Leaves tensors out of what a site sends; the site goes on from the server's.

    Args:
        exclude_vars: exact names, or names with ``*`` for any characters.
    """

    def __init__(self, exclude_vars: list[str]) -> None:
        super().__init__("ExcludeVars", {"exclude_vars": exclude_vars})

    def filtered(
        self, arrays: Arrays, steps: int, trained: TrainedTensors, fl_ctx: FLContext
    ) -> Arrays:
        """Return the arrays as they are."""
        return arrays


class PercentilePrivacy(ModelFilter):
    """Sends the largest changes alone, none of them larger than ``gamma`` a step.

    Args:
        percentile: of the changes of all parameters; what is below becomes 0.
        gamma: the largest change a step.
        buffers: ``keep`` leaves buffers out, ``send`` sends them as they are.
    """

    def __init__(self, percentile: float = 10, gamma: float = 0.01, buffers: str = "keep") -> None:
        given = {"percentile": percentile, "gamma": gamma, "buffers": buffers}
        super().__init__("PercentilePrivacy", given)
        self._nvflare = percentile_privacy.PercentilePrivacy(percentile=percentile, gamma=gamma)

    def filtered(
        self, arrays: Arrays, steps: int, trained: TrainedTensors, fl_ctx: FLContext
    ) -> Arrays:
        """Return the result of NVFlare's filter."""
        return _processed(self._nvflare, arrays, steps, fl_ctx)


class SVTPrivacy(ModelFilter):
    """Sends a noisy choice of changes with noise on each, and writes down what that costs.

    Args:
        epsilon_release: privacy budget of the noise on all values of a round.
        noise_var: in its place, that of the noise on each value, as in Clara Train.
        fraction: of all values, how many are sent.
        epsilon: privacy budget of the choice.
        gamma: the largest change a step.
        tau: change a step above which a value tends to be chosen.
        replace: whether a value may be drawn twice, which then counts once.
        buffers: ``keep`` leaves buffers out, ``send`` sends them as they are.
    """

    def __init__(
        self,
        epsilon_release: float | None = None,
        noise_var: float | None = None,
        fraction: float = 0.1,
        epsilon: float = 0.1,
        gamma: float = 1e-5,
        tau: float = 1e-6,
        replace: bool = True,
        buffers: str = "keep",
    ) -> None:
        budget = {"epsilon_release": epsilon_release, "noise_var": noise_var}
        given = {
            **{key: value for key, value in budget.items() if value is not None},
            "fraction": fraction,
            "epsilon": epsilon,
            "gamma": gamma,
            "tau": tau,
            "replace": replace,
        }
        super().__init__("SVTPrivacy", {**given, "buffers": buffers})
        self._nvflare = svt_privacy.SVTPrivacy(**given)

    def filtered(
        self, arrays: Arrays, steps: int, trained: TrainedTensors, fl_ctx: FLContext
    ) -> Arrays:
        """Return NVFlare's result with unforeseeable noise; write the cost to the disk before.

        Raises:
            PolicyError: the privacy budget of the site is spent.
        """
        self._spend(sum(array.size for array in arrays.values()), trained, fl_ctx)
        with unforeseeable_noise():
            return _processed(self._nvflare, arrays, steps, fl_ctx)

    def _spend(self, values: int, trained: TrainedTensors, fl_ctx: FLContext) -> None:
        workspace = fl_ctx.get_engine().get_workspace()
        # The bound of the site's own file: no executor has to be believed here.
        policy = site_policy(Path(workspace.get_site_config_dir()))
        assert isinstance(self.settings, SvtSettings)
        cost = self.settings.cost(values)
        book = ledger(fl_ctx)
        spent = book.spend(
            cost,
            policy.privacy.epsilon_max,
            job=fl_ctx.get_job_id(),
            round=trained.round_number,
            filter=self.settings.name,
            data=trained.data,
        )
        facts = {"epsilon": cost, "total": spent, "round": trained.round_number}
        note(fl_ctx, "privacy-spent", **facts, ledger=book.head())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilters:
    """The filters of a run, as they stood when it began: NVFlare builds its own then, and no more.

    Attributes:
        plan: the filters of site and job.
        policy: of the site.
        ledger: of the site.
        data: the site's data set; see ``data_digest``.
    """

    plan: FilterPlan
    policy: SitePolicy
    ledger: PrivacyLedger
    data: str

    @classmethod
    def read(cls, fl_ctx: FLContext, site: Site) -> RunFilters:
        """Return the filters of a run that begins.

        Raises:
            ConfigError: as for ``FilterPlan.read``.
        """
        workspace = fl_ctx.get_engine().get_workspace()
        return cls(
            plan=FilterPlan.read(Path(workspace.get_site_config_dir()), site.mmar.root),
            policy=site.policy,
            ledger=ledger(fl_ctx),
            data=data_digest(site.values),
        )

    def prepare(
        self, fl_ctx: FLContext, tensors: Callable[[], SharedTensors], round_number: int
    ) -> None:
        """Judge before a round is trained what will leave of it, and tell the filters of it.

        Args:
            fl_ctx: of the task.
            tensors: tells what a contribution would hold; asked only if there are filters.
            round_number: counted from 1.

        Raises:
            ConfigError: the filters do not fit the network or the job; see ``FilterPlan.require``.
            PolicyError: the privacy budget of the site is spent.
        """
        if not self.plan.filters:
            return
        sent = tensors()
        self.plan.require(sent.sizes, sent.buffers, self.policy, self.ledger)
        trained = TrainedTensors(buffers=sent.buffers, round_number=round_number, data=self.data)
        fl_ctx.set_prop(TRAINED, trained, private=True, sticky=False)

    def require_none(self) -> None:
        """Judge before a whole model is submitted whether it may leave as it is.

        Raises:
            PolicyError: a filter is set up, by site or job, or the site bounds its epsilon.
        """
        if self.plan.holds_models_back(self.policy):
            raise PolicyError(
                "a whole model is not sent where a filter or privacy.epsilon_max is set"
            )


@contextmanager
def unforeseeable_noise() -> Iterator[None]:
    """Start numpy's global generator from the machine's entropy, and restore it afterwards.

    NVFlare draws its noise there, and a job seeds the same generator for its training: whoever
    knows the seed could take the noise off again. The training must not notice either.
    """
    with _NOISE:
        before = np.random.get_state()
        np.random.seed(np.frombuffer(os.urandom(4 * STATE_WORDS), dtype=np.uint32))
        try:
            yield
        finally:
            np.random.set_state(before)


def _processed(
    by: percentile_privacy.PercentilePrivacy | svt_privacy.SVTPrivacy,
    arrays: Arrays,
    steps: int,
    fl_ctx: FLContext,
) -> Arrays:
    """Return the arrays as NVFlare's filter returns them, without the metadata that it adds."""
    dxo = DXO(
        DataKind.WEIGHT_DIFF, data=dict(arrays), meta={MetaKey.NUM_STEPS_CURRENT_ROUND: steps}
    )
    processed: Arrays = by.process_dxo(dxo, Shareable(), fl_ctx).data
    return processed
