"""The classes that a job's NVFlare documents may name: where each may stand, and its arguments.

A class that is not here is refused, and so is a class in another place, an argument that is not
here, or a value of another form. A test holds the table against the signatures of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Literal

from fl_client.jobs.encryption import DECRYPT, ENCRYPT
from fl_client.jobs.forms import (
    FLAG,
    TENSOR_NAMES,
    Form,
    mapping,
    number,
    optional,
    record,
    several,
    text,
    whole,
    word,
)
from fl_client.jobs.meta import MAX_SITES, SITE
from fl_client.jobs.rounding import COMPACT
from fl_client.privacy.settings import SETTINGS
from mmar_runtime.exchange.job_documents import EXECUTOR, FEDERATION
from mmar_runtime.exchange.rounding_forms import ROUNDINGS
from mmar_runtime.exchange.weighing import FACTOR_RANGE, WEIGH_BY
from mmar_runtime.names import NAME, NAME_FORM, SITE_NAME

Document = Literal["server", "client"]
Slot = Literal["component", "executor", "workflow", "task_data_filter", "task_result_filter"]

MAX_STEPS = 1_000_000
"""Optimizer steps of one round."""

MAX_SECONDS = 10_000_000
"""Of a timeout: about 115 days; a site's own limit of a job's minutes is shorter."""

MAX_MODELS = 100
"""That a job brings along to be evaluated at every site."""

WAKER = "fl_client.flare.wake.WakeListener"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClass:
    """A class that a job may name.

    Attributes:
        document: the one of NVFlare's two documents in which it may stand.
        slot: the place in that document.
        arguments: argument -> its form. ``fl_client.privacy.settings`` judges the arguments of
            privacy filters.
        required: arguments that have to be there.
    """

    document: Document
    slot: Slot
    arguments: Mapping[str, Form] = field(default_factory=dict)
    required: tuple[str, ...] = ()


SITES = whole(1, MAX_SITES)
LIMITED = Form("within the site's limits", lambda value: True)
"""Rounds and epochs: ``documents`` judges them by the site's policy, at any depth."""

SECONDS = whole(0, MAX_SECONDS)
MODEL = text(
    re.compile(rf"(?!SRV_){SITE_NAME.pattern}"), "a model's name of letters, digits and ._-"
)
METRIC = text(NAME, NAME_FORM)
FACTORS = mapping(SITE, number(*FACTOR_RANGE), MAX_SITES)


def _range(value: object) -> bool:
    low, high = value if isinstance(value, list) and len(value) == 2 else (1, 0)
    bound = number(-1e12, 1e12)
    return bound.fits(low) and bound.fits(high) and low <= high


LIMITS = record(
    {
        "max_bytes": whole(1, 2**40),
        "max_norm": number(0, 1e38),
        "norm_ratio": number(1, 1e38),
        "weight_ratio": number(1, 1e9),
        "max_steps": whole(1, 10**9),
        "metadata_bytes": whole(1, 2**20),
        "metric_ranges": mapping(METRIC, Form("[least, greatest] within 1e12", _range), 200),
    }
)
"""Bounds of the update guard; ``fl_server.guard.update_limits`` reads them."""

_result_filter = partial(JobClass, document="client", slot="task_result_filter")

CLASSES: Mapping[str, JobClass] = MappingProxyType(
    {
        EXECUTOR: JobClass(
            document="client",
            slot="executor",
            arguments={
                "local_epochs": LIMITED,
                "steps_aggregation": whole(0, MAX_STEPS),
                "shared_names": optional(TENSOR_NAMES),
            },
        ),
        WAKER: JobClass(
            document="client",
            slot="component",
            arguments={"max_wait": number(0, 60), "idle_wait": number(0, 60)},
        ),
        **{path: _result_filter() for path in SETTINGS},
        COMPACT: _result_filter(arguments={"transfer": word(*ROUNDINGS)}, required=("transfer",)),
        ENCRYPT: _result_filter(
            arguments={"encrypt_layers": TENSOR_NAMES}, required=("encrypt_layers",)
        ),
        DECRYPT: JobClass(document="client", slot="task_data_filter"),
        FEDERATION: JobClass(
            document="server",
            slot="workflow",
            arguments={
                "min_sites": SITES,
                "num_rounds": LIMITED,
                "models": optional(several(MODEL, MAX_MODELS)),
                "shared_names": optional(TENSOR_NAMES),
                "encrypt_layers": optional(TENSOR_NAMES),
                "weigh_by": word(*WEIGH_BY),
                "aggregation_weights": optional(FACTORS),
                "limits": optional(LIMITS),
                "optional_names": optional(TENSOR_NAMES),
                "transfer": optional(word(*ROUNDINGS)),
                "enable_tensor_disk_offload": FLAG,
                "wait_for_others": SECONDS,
                "train_timeout": SECONDS,
                "score_timeout": SECONDS,
                "submit_timeout": SECONDS,
                "validation_timeout": SECONDS,
            },
            required=("min_sites",),
        ),
    }
)
"""Path of a class -> where it may stand, and its arguments. Paths are exact, no prefixes."""

ALLOWED_CLASSES = tuple(sorted(CLASSES))

OWN_AGGREGATOR = "aggregator"
"""The argument of the workflow that holds a class of the job's own code."""

VARIABLES: Mapping[Document, Mapping[str, Form]] = MappingProxyType(
    {
        "server": {"num_rounds": LIMITED, "min_clients": SITES},
        "client": {"local_epochs": LIMITED, "steps_aggregation": whole(0, MAX_STEPS)},
    }
)
"""Values at the top of each document that its entries use as ``{name}``, and that people read."""
