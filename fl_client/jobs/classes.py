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

from fl_client.jobs.client_config import TRAINING
from fl_client.jobs.encryption import DECRYPT, ENCRYPT, PERSISTOR
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
from fl_client.jobs.transfer import COMPACT
from fl_client.privacy.filter_plan import AGGREGATOR
from fl_client.privacy.settings import SETTINGS
from mmar_runtime.exchange.messages import SCORE, SUBMIT, TRAIN, VALIDATE
from mmar_runtime.exchange.rounding_forms import FORMS
from mmar_runtime.names import NAME, NAME_FORM, SITE_NAME
from mmar_runtime.policy.site_policy import Limits

Document = Literal["server", "client"]
Slot = Literal["component", "executor", "workflow", "task_data_filter", "task_result_filter"]

MAX_STEPS = 1_000_000
"""Optimizer steps of one round."""

MAX_SECONDS = 10_000_000
"""Of a timeout: about 115 days; a site's own limit of a job's minutes is shorter."""

MAX_MODELS = 100
"""That a job brings along to be evaluated at every site."""

FULL_MODEL = (
    "nvflare.app_common.shareablegenerators.full_model_shareable_generator"
    ".FullModelShareableGenerator"
)
WAKER = "fl_client.flare.wake.WakeListener"
EXECUTOR = "fl_client.flare.executor.MmarExecutor"
GIVEN_MODELS = "fl_server.flare.given_models.GivenModels"
MODEL_LOCATOR = "fl_server.flare.model_locator.MmarModelLocator"
RECORDER = "fl_server.flare.run_recorder.RunRecordKeeper"
SCORING = "fl_server.flare.last_model.ScoreLastModel"
VALIDATION = "fl_server.flare.wake.WakingCrossSiteModelEval"
PUBLISHING = "fl_server.flare.publish.PublishResults"

COURSE = (TRAINING, SCORING, VALIDATION, PUBLISHING)
"""The workflows of a job: each at most once, in this order."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An argument that names a component of the document by its id.

    Attributes:
        to: the classes that the component may have.
    """

    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClass:
    """A class that a job may name.

    Attributes:
        document: the one of NVFlare's two documents in which it may stand.
        slot: the place in that document.
        arguments: argument -> its form, or what it refers to. The arguments of privacy filters are
            judged by ``fl_client.privacy.settings``.
        required: arguments that have to be there.
    """

    document: Document
    slot: Slot
    arguments: Mapping[str, Form | Reference] = field(default_factory=dict)
    required: tuple[str, ...] = ()


SITES = whole(1, MAX_SITES)
LIMITED = Form("within the site's limits", lambda value: True)
"""Rounds and epochs: ``job_documents`` judges them by the site's policy, wherever they stand."""

SECONDS = whole(0, MAX_SECONDS)
PERIOD = number(0.001, 60)
MODEL = text(
    re.compile(rf"(?!SRV_){SITE_NAME.pattern}"), "a model's name of letters, digits and ._-"
)
METRIC = text(NAME, NAME_FORM)
FACTORS = mapping(SITE, number(1e-6, 1e6), MAX_SITES)

TO_AGGREGATOR = Reference((AGGREGATOR,))
TO_PERSISTOR = Reference((PERSISTOR, GIVEN_MODELS))


def _range(value: object) -> bool:
    low, high = value if isinstance(value, list) and len(value) == 2 else (1, 0)
    bound = number(-1e12, 1e12)
    return bound.fits(low) and bound.fits(high) and low <= high


LIMITS = record(
    {
        "max_bytes": whole(1, 2**40),
        "max_norm": number(0, 1e38),
        "norm_ratio": number(1, 1e38),
        "max_steps": whole(1, 10**9),
        "metadata_bytes": whole(1, 2**20),
        "metric_ranges": mapping(METRIC, Form("[least, greatest] within 1e12", _range), 200),
    }
)
"""Bounds of the update guard; ``fl_server.guard.update_limits`` reads them."""

_component = partial(JobClass, document="server", slot="component")
_workflow = partial(JobClass, document="server", slot="workflow")
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
        COMPACT: _result_filter(arguments={"transfer": word(*FORMS)}, required=("transfer",)),
        ENCRYPT: _result_filter(
            arguments={"encrypt_layers": TENSOR_NAMES}, required=("encrypt_layers",)
        ),
        DECRYPT: JobClass(document="client", slot="task_data_filter"),
        PERSISTOR: _component(
            arguments={
                "shared_names": optional(TENSOR_NAMES),
                "encrypt_layers": optional(TENSOR_NAMES),
            },
        ),
        GIVEN_MODELS: _component(
            arguments={"models": several(MODEL, MAX_MODELS)}, required=("models",)
        ),
        FULL_MODEL: _component(),
        AGGREGATOR: _component(
            arguments={
                "min_sites": SITES,
                "aggregation_weights": optional(FACTORS),
                "persistor_id": TO_PERSISTOR,
                "limits": optional(LIMITS),
                "optional_names": optional(TENSOR_NAMES),
                "transfer": optional(word(*FORMS)),
            },
            required=("min_sites",),
        ),
        MODEL_LOCATOR: _component(arguments={"persistor_id": TO_PERSISTOR}),
        RECORDER: _component(
            arguments={
                "min_sites": SITES,
                "num_rounds": LIMITED,
                "persistor_id": TO_PERSISTOR,
                "aggregator_id": TO_AGGREGATOR,
            },
            required=("min_sites",),
        ),
        TRAINING: _workflow(
            arguments={
                "min_clients": SITES,
                "num_rounds": LIMITED,
                "start_round": word(0),
                "wait_time_after_min_received": SECONDS,
                "aggregator_id": TO_AGGREGATOR,
                "persistor_id": TO_PERSISTOR,
                "shareable_generator_id": Reference((FULL_MODEL,)),
                "train_task_name": word(TRAIN),
                "train_timeout": SECONDS,
                "ignore_result_error": optional(FLAG),
                "allow_empty_global_weights": word(False),
                "task_check_period": PERIOD,
                "persist_every_n_rounds": whole(0, Limits().rounds),
                "snapshot_every_n_rounds": whole(0, Limits().rounds),
                "memory_gc_rounds": whole(0, Limits().rounds),
                "enable_tensor_disk_offload": FLAG,
            },
        ),
        SCORING: _workflow(
            arguments={
                "min_sites": SITES,
                "task_name": word(SCORE),
                "timeout": SECONDS,
                "aggregator_id": TO_AGGREGATOR,
            },
            required=("min_sites",),
        ),
        VALIDATION: _workflow(
            arguments={
                "aggregator_id": TO_AGGREGATOR,
                "task_check_period": PERIOD,
                "cross_val_dir": word("cross_site_val"),
                "submit_model_timeout": SECONDS,
                "validation_timeout": SECONDS,
                "model_locator_id": Reference((MODEL_LOCATOR,)),
                "formatter_id": word(""),
                "submit_model_task_name": word(SUBMIT, ""),
                "validation_task_name": word(VALIDATE),
                "cleanup_models": FLAG,
                "participating_clients": optional(several(SITE, MAX_SITES)),
                "wait_for_clients_timeout": SECONDS,
            },
        ),
        PUBLISHING: _workflow(
            arguments={"recorder_id": Reference((RECORDER,))},
        ),
    }
)
"""Path of a class -> where it may stand, and its arguments. Paths are exact, no prefixes."""

ALLOWED_CLASSES = tuple(sorted(CLASSES))

OWN_AGGREGATOR = "aggregator"
"""The argument of ``MmarAggregator`` that holds a class of the job's own code."""

VARIABLES: Mapping[Document, Mapping[str, Form]] = MappingProxyType(
    {
        "server": {"num_rounds": LIMITED, "min_clients": SITES},
        "client": {"local_epochs": LIMITED, "steps_aggregation": whole(0, MAX_STEPS)},
    }
)
"""Values at the top of each document that its entries use as ``{name}``, and that people read."""
