"""Whether the parts of a workflow fit each other, and the training of the same MMAR."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from mmar_runtime.config import counts, fit, pairs
from mmar_runtime.config.fit import Finding
from mmar_runtime.config.loader import TRAIN_FILE, load_train_config
from mmar_runtime.config.parser import MAX_PROBLEMS
from mmar_runtime.config.predictions import outputs_of
from mmar_runtime.config.sections import EvaluationConfig, TrainConfig, WorkflowConfig
from mmar_runtime.config.sources import BUILT_IN_SOURCE
from mmar_runtime.config.upgrades import Notice
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.document_check import WORKFLOW, read_document
from mmar_runtime.policy.metrics.value_check import value_findings
from mmar_runtime.policy.number_check import number_findings


def fit_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield the loader's check that no part of a workflow makes another's numbers wrong."""
    training = training_beside(config) if isinstance(config, EvaluationConfig) else None
    return (finding.problem for finding in findings(config, training) if finding.certain)


def fit_notices(config: WorkflowConfig) -> Iterator[Notice]:
    """Yield what may be meant, and is worth a look."""
    training = training_beside(config) if isinstance(config, EvaluationConfig) else None
    return (finding.notice for finding in findings(config, training) if not finding.certain)


def findings(config: WorkflowConfig, training: TrainConfig | None) -> Iterator[Finding]:
    """Yield what does not fit within a workflow, or between an evaluation and its training."""
    outputs = outputs_of(config, training)
    found = chain(fit.findings(config, outputs), counts.findings(config, training, outputs))
    yield from islice(found, MAX_PROBLEMS)
    yield from islice(number_findings(config), MAX_PROBLEMS)
    yield from islice(value_findings(config), MAX_PROBLEMS)
    if isinstance(config, EvaluationConfig) and training is not None:
        yield from islice(pairs.findings(config, training), MAX_PROBLEMS)


def training_beside(config: EvaluationConfig) -> TrainConfig | None:
    """Return the training of the MMAR that an evaluation belongs to, with the same values.

    None if there is none, or one that cannot be read or is larger than a site reads: whoever
    evaluates does not need it.
    """
    own = (config.file, BUILT_IN_SOURCE.file)
    values = {
        name: variable.value
        for name, variable in config.variables.items()
        if name != "MMAR_ROOT" and variable.source.file not in own
    }
    mmar = Mmar(config.mmar_root)
    try:
        read_document(mmar.document(TRAIN_FILE), WORKFLOW)
        return load_train_config(mmar, file=TRAIN_FILE, environment=None, overrides=values)
    except ConfigError:
        return None
