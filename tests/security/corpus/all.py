"""Every case of the corpus."""

from __future__ import annotations

from tests.security.case import Case, UpdateCase
from tests.security.corpus import (
    archive,
    arguments,
    benign,
    checkpoint,
    component,
    data_list,
    documents,
    expression,
    lambdas,
    log_config,
    metrics,
    names,
    numbers,
    path,
    paths_beyond,
    reference,
    review,
    small,
    substitution,
    update,
)

HOSTILE: tuple[Case | UpdateCase, ...] = (
    *expression.HOSTILE,
    *component.HOSTILE,
    *substitution.HOSTILE,
    *reference.HOSTILE,
    *path.HOSTILE,
    *paths_beyond.HOSTILE,
    *data_list.HOSTILE,
    *archive.HOSTILE,
    *checkpoint.HOSTILE,
    *log_config.HOSTILE,
    *archive.META_CASES,
    *metrics.HOSTILE,
    *update.HOSTILE,
    *documents.HOSTILE,
    *names.HOSTILE,
    *names.STEP_CASES,
    *small.HOSTILE,
    *arguments.HOSTILE,
    *numbers.HOSTILE,
    *lambdas.HOSTILE,
    *review.HOSTILE,
)
BENIGN: tuple[Case | UpdateCase, ...] = (
    *benign.BENIGN,
    *paths_beyond.BENIGN,
    *update.BENIGN,
    *small.BENIGN,
    *metrics.BENIGN,
    *documents.BENIGN,
    *arguments.BENIGN,
    *numbers.BENIGN,
    *lambdas.BENIGN,
    *names.BENIGN,
    *review.BENIGN,
)
