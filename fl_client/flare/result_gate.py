"""The last look at a reply before it leaves, behind every filter of the site and of the job.

The executor sends nothing but what the closed list of ``fl_client.outgoing`` holds. A filter runs
after it, and a job could bring another executor to a site that allows code; so whatever a reply
holds by then is judged once more by its types, names and sizes. Whether the filters ran that pay
for its privacy shows in the ledger: without new lines there no tensors leave.

The gate adds the heads of the site's logs, which the server keeps: so a cut end of a log shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable

from fl_client.flare.audit import heads, ledger, note
from fl_client.flare.encryption_keys import PLACE, asked_layers
from fl_client.jobs.rounding import COMPACT, RULE
from fl_client.outgoing import outgoing_loss, outgoing_metrics
from fl_client.privacy.filter_plan import FilterPlan
from mmar_runtime.errors import FederationError, PolicyError
from mmar_runtime.exchange.encryption import ARRAYS, LAYOUT, LENGTHS, Layout, layout_of, part_faults
from mmar_runtime.exchange.job_documents import JobDocuments
from mmar_runtime.exchange.messages import (
    ANY_COUNT,
    COUNTS,
    EPOCH_KEYS,
    MAX_BUILT,
    MAX_EPOCH_REPORTS,
    MAX_PROCESS_NAME,
    METADATA_KEYS,
    REPORT_KEYS,
    STATUS_WORD,
    Kind,
)
from mmar_runtime.exchange.metric_messages import metrics_from
from mmar_runtime.exchange.rounding import SCALES, Arrays, rounding_faults
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.flare.wire import LOGS, META_NAMES, RETURN_CODES, STATUS
from mmar_runtime.names import is_name
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy, site_policy

REFUSED = "gate-refused"
"""The status word in place of a reply that may not leave."""

KINDS: Mapping[str, Kind] = {
    DataKind.WEIGHT_DIFF: "WEIGHT_DIFF",
    DataKind.WEIGHTS: "WEIGHTS",
    DataKind.METRICS: "METRICS",
}
"""Kind of a DXO -> kind of a reply."""

HEADER_KEYS = frozenset({ReservedHeaderKey.RC, ReservedHeaderKey.CONTENT_TYPE, STATUS})
"""What a reply's headers hold before NVFlare adds the task's name, its ids and the cookies."""


class ResultGate(FLComponent):
    """Stops every reply that holds something else than the closed list; a site's own component."""

    def __init__(self) -> None:
        super().__init__()
        self._has_started = False
        self._layers: Any = None
        self._due = 0
        self._spent: int | None = None
        self._like: Arrays | None = None
        self._encrypted: Layout | None = None
        self._transfer: Rounding | None = None
        self._policy = DEFAULT_POLICY

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Remember what is set up and the model that came; judge a reply behind all filters."""
        if event_type == EventType.START_RUN:
            self._layers = asked_layers(fl_ctx)
            self._transfer = JobDocuments.read(_app(fl_ctx)).filter_argument(COMPACT, RULE)
            self._policy = site_policy(_local(fl_ctx))
            plan = FilterPlan.read(_local(fl_ctx), _app(fl_ctx))
            self._due = plan.spendings(self._policy)  # lines of the ledger for each update
            self._has_started = True
        elif event_type == EventType.BEFORE_TASK_EXECUTION:
            self._spent = _spendings(fl_ctx) if self._due else None
            self._received(tensors_in(fl_ctx.get_prop(FLContextKey.TASK_DATA)))
        elif event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._judge(fl_ctx.get_prop(FLContextKey.TASK_RESULT), fl_ctx)

    def _received(self, arrays: Arrays | None) -> None:
        if arrays is None:
            return
        # Arrays of the same types and shapes that take no memory.
        self._like = {
            name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
            for name, array in arrays.items()
        }
        if self._layers is not None:
            self._encrypted = None  # of another model, should this one have no such layers
            self._encrypted = layout_of(self._like, self._layers, PLACE)

    def _judge(self, reply: object, fl_ctx: FLContext) -> None:
        if faults := list(self._faults(reply, fl_ctx)):
            self._stop(reply)
            note(fl_ctx, "reply-stopped", faults=faults[:5])
            self.log_error(fl_ctx, f"a reply was stopped at the gate: {'; '.join(faults[:5])}")
        elif isinstance(reply, Shareable) and "DXO" in reply:
            # The gate alone adds them: a reply that arrives here with this header is stopped.
            reply.set_header(LOGS, heads(fl_ctx))

    def _faults(self, reply: object, fl_ctx: FLContext) -> Iterator[str]:
        try:
            yield from reply_faults(
                reply, self._like, self._encrypted, self._transfer, self._policy
            )
            if isinstance(reply, Shareable) and "DXO" in reply:
                yield from self._unready()
                if from_shareable(reply).data_kind != DataKind.METRICS:
                    yield from self._unpaid(fl_ctx)
        except Exception as error:  # a reply of anything may raise anything
            yield f"cannot be judged ({type(error).__name__})"

    def _unready(self) -> Iterator[str]:
        """NVFlare goes on where a component fails at an event; then no data leave from here."""
        if not self._has_started:
            yield "cannot be judged: what the site and the job have set up was not read"
        elif self._layers is not None and self._encrypted is None:
            yield "cannot be judged: no model came that has the layers to encrypt"

    def _unpaid(self, fl_ctx: FLContext) -> Iterator[str]:
        """Report a filter that is set up and did not run; a repeated round pays once more."""
        if not self._due:
            return
        before, self._spent = self._spent, None
        spent = _spendings(fl_ctx)
        if before is None or spent is None:
            yield "whether its privacy is paid for cannot be told"
        elif spent < before + self._due:
            yield "a privacy filter that is set up has not run"

    @staticmethod
    def _stop(reply: object) -> None:
        """Empty the reply in place: this is the object that NVFlare sends."""
        if isinstance(reply, Shareable):  # NVFlare sends nothing else
            reply.clear()
            reply[ReservedHeaderKey.HEADERS] = {}
            reply.set_return_code(ReturnCode.TASK_RESULT_FILTER_ERROR)
            reply.set_header(STATUS, REFUSED)


def _app(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_app_dir(fl_ctx.get_job_id()))


def _local(fl_ctx: FLContext) -> Path:
    """Return the folder of the kit that the site owns."""
    return Path(fl_ctx.get_engine().get_workspace().get_site_config_dir())


def _spendings(fl_ctx: FLContext) -> int | None:
    """Return how many lines of the ledger are of this job; None where it cannot be trusted."""
    try:
        return ledger(fl_ctx).account().count(fl_ctx.get_job_id())
    except PolicyError:
        return None


def tensors_in(message: object) -> Arrays | None:
    """Return the tensors that a message carries; None where the message carries none."""
    dxo = message.get("DXO") if isinstance(message, Shareable) else None
    data = dxo.get("data") if isinstance(dxo, dict) else None
    is_tensors = isinstance(data, dict) and all(
        isinstance(array, np.ndarray) for array in data.values()
    )
    return data if is_tensors else None


def reply_faults(
    reply: object,
    model: Arrays | None = None,
    encrypted: Layout | None = None,
    transfer: Rounding | None = None,
    policy: SitePolicy = DEFAULT_POLICY,
) -> Iterator[str]:
    """Report what a reply holds beyond the closed list, without repeating its texts.

    Args:
        reply: as it would leave.
        model: arrays with the names and shapes that the site has received; None for none.
        encrypted: of these the tensors that leave encrypted; None for none.
        transfer: the type of the rounded numbers of updates; None where the job does not round.
        policy: which metrics may leave, how many, and with how many digits.
    """
    if not isinstance(reply, Shareable):
        yield "is no reply"
        return
    yield from _header_faults(reply.get(ReservedHeaderKey.HEADERS))
    if beside := set(reply) - {ReservedHeaderKey.HEADERS, "DXO"}:
        yield f"{len(beside)} parts beside the data"
    if "DXO" not in reply:
        if reply.get_return_code() in (None, ReturnCode.OK):
            yield "no data"
        return
    dxo = from_shareable(reply)
    if (kind := KINDS.get(dxo.data_kind)) is None:
        yield "data of another kind"
        return
    if kind == "METRICS":
        yield from _metric_faults(dxo.data, "metrics", policy)
    else:
        yield from _encrypted_faults(dxo.data, encrypted)
        data = dxo.data
        if transfer is not None and kind == "WEIGHT_DIFF" and type(data) is dict:
            if any(rounding_faults(data, transfer, model or {})):
                yield "a tensor is not rounded as the job asks"
            data = {name: array for name, array in data.items() if not name.startswith(SCALES)}
        yield from _tensor_faults(data, model, encrypted)
    yield from _meta_faults(dxo.meta, kind, policy)


def _header_faults(headers: Any) -> Iterator[str]:
    if not isinstance(headers, dict):
        yield "its headers are no object"
        return
    if unknown := len(set(headers) - HEADER_KEYS):
        yield f"{unknown} headers beyond the list"
    status = headers.get(STATUS)
    if status is not None and not (isinstance(status, str) and STATUS_WORD.fullmatch(status)):
        yield "its status is no status word"
    if headers.get(ReservedHeaderKey.RC, ReturnCode.OK) not in RETURN_CODES:
        yield "its return code is none of NVFlare's"
    if headers.get(ReservedHeaderKey.CONTENT_TYPE, "DXO") != "DXO":
        yield "its content is of another type"


def _encrypted_faults(data: Any, encrypted: Layout | None) -> Iterator[str]:
    """Where the job encrypts: ciphertexts of bounded size, for just the tensors that it names."""
    if encrypted is None or type(data) is not dict:
        return
    faults = [*part_faults(data)]
    yield from faults
    if faults:
        return
    if data[LAYOUT].tobytes() != encrypted.text or data[LENGTHS].size != encrypted.ciphertexts:
        yield "what is encrypted is not what the job encrypts"


def _tensor_faults(data: Any, model: Arrays | None, encrypted: Layout | None) -> Iterator[str]:
    if type(data) is not dict or not data:
        yield "its tensors are no object"
        return
    for name, array in data.items():
        if encrypted is not None and name in ARRAYS:
            continue  # judged before
        if encrypted is not None and name in encrypted.tensors:
            yield "a tensor that leaves encrypted only is in plain"
        if type(array) is not np.ndarray or array.dtype.kind not in "fiub":
            yield "a tensor is no array of numbers"
        elif model is None or name not in model or model[name].shape != array.shape:
            yield "a tensor is none of the model that was received"


def _meta_faults(meta: Any, kind: Kind, policy: SitePolicy) -> Iterator[str]:
    if not isinstance(meta, dict):
        yield "its metadata is no object"
        return
    known = {key: name for key, name in META_NAMES.items() if name in METADATA_KEYS[kind]}
    if unknown := len(set(meta) - set(known)):
        yield f"{unknown} keys of metadata beyond the list"
    named = {name: meta[key] for key, name in known.items() if key in meta}
    for name in named.keys() & COUNTS.keys():
        if not _is_number(named[name], COUNTS[name]):
            yield f"{name} is no whole number from 1 to {COUNTS[name][-1]}"
    for name in named.keys() & {"steps", "epoch_samples"}:
        if type(named[name]) is int and policy.rounded_count(named[name]) != named[name]:
            yield f"{name} has more digits than the policy allows"
    if "metrics" in named:
        yield from _metric_faults(named["metrics"], "metrics", policy)
    if "report" in named:
        yield from _report_faults(named["report"], policy)
    history = named.get("filter_history", ())
    if type(history) not in (list, tuple) or not all(is_name(name) for name in history):
        yield "the history of filters is none"


def _report_faults(report: Any, policy: SitePolicy) -> Iterator[str]:
    if not isinstance(report, dict) or set(report) - set(REPORT_KEYS):
        yield "the report holds more than it may"
        return
    for key in ("received_metrics", "local_metrics"):
        yield from _metric_faults(report.get(key, {}), key, policy)
    yield from _named_faults(report.get("built", {}), "built", MAX_BUILT, COUNTS["built"])
    seconds = report.get("seconds", 0)
    if not (_is_number(seconds) and seconds >= 0):
        yield "seconds are no number"
    process = report.get("process", "p")
    if not (is_name(process) and len(process) <= MAX_PROCESS_NAME):
        yield "the name of the process is none"
    yield from _epoch_faults(report.get("epochs", []), policy)


def _epoch_faults(epochs: Any, policy: SitePolicy) -> Iterator[str]:
    most = min(policy.limits.epochs_per_round + 1, MAX_EPOCH_REPORTS)
    if not isinstance(epochs, list) or len(epochs) > most:
        yield "the epochs are not an array, or are more than a round may have"
        return
    for epoch in epochs:
        if not isinstance(epoch, dict) or set(epoch) - set(EPOCH_KEYS):
            yield "an epoch holds more than it may"
            return
        if not _is_number(epoch.get("epoch"), COUNTS["epoch"]):
            yield "an epoch has no number"
        loss = epoch.get("loss")
        if not (loss is None or (_is_number(loss) and outgoing_loss(float(loss), policy) == loss)):
            yield "an epoch's loss is not a number that the policy lets out"
        metrics = epoch.get("metrics", {})
        yield from _metric_faults(metrics, "an epoch's metrics", policy)
        if isinstance(metrics, dict) and any(map(_goes_by_class, metrics.values())):
            yield "an epoch's metrics: by class, which an epoch does not tell"


def _goes_by_class(metric: Any) -> bool:
    return isinstance(metric, dict) and bool(metric.get("classes"))


def _metric_faults(metrics: Any, what: str, policy: SitePolicy) -> Iterator[str]:
    """Judge metrics: withheld ones must not leave, nor digits that the policy cuts."""
    try:
        given = metrics_from(metrics)
        if outgoing_metrics(given, policy) != given:
            yield f"{what}: a metric that the policy withholds, or more digits than it allows"
    except FederationError:  # its text has words of the job
        yield f"{what}: not an object of metrics, or more than a metric may hold"
    except PolicyError as error:
        yield f"{what}: {error}"


def _named_faults(
    numbers: Any, what: str, most: int, allowed: range | None = None
) -> Iterator[str]:
    """Judge names, which are labels, and one number each: no rows, no arrays, no texts."""
    if not isinstance(numbers, dict) or len(numbers) > most:
        yield f"{what}: no object of numbers, or of more than {most}"
        return
    if not all(is_name(name) for name in numbers):
        yield f"{what}: a name is no label"
    if not all(_is_number(value, allowed) for value in numbers.values()):
        yield f"{what}: a value is no number, or out of its range"


def _is_number(value: Any, allowed: range | None = None) -> bool:
    """Return whether a value is a finite number, or one of the whole numbers that are allowed."""
    if type(value) is int:
        return value in (ANY_COUNT if allowed is None else allowed)
    return allowed is None and type(value) is float and math.isfinite(value)
