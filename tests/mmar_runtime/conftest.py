"""Documents as small literals: ``load_train`` loads one, ``train_faults`` says what is wrong.

A fault is its whole text, so that a test shows what a user reads: file and place, what was found,
and below it the advice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.sections import EvaluationConfig, TrainConfig
from mmar_runtime.errors import ConfigError
from mmar_runtime.mmar import Mmar

Document = Mapping[str, Any]


def write_mmar(root: Path, file: str, document: object, environment: object) -> Mmar:
    """An MMAR of one workflow and an environment; a string is written as it is."""
    (root / "config").mkdir(exist_ok=True)
    for name, content in ((file, document), ("environment.json", environment)):
        text = content if isinstance(content, str) else json.dumps(content)
        (root / "config" / name).write_text(text, encoding="utf-8")
    return Mmar(root)


def faults_of(load: Callable[[], object]) -> list[str]:
    """The text of every problem that loading finds; none if it succeeds."""
    try:
        load()
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.fixture
def load_train(tmp_path: Path) -> Callable[..., TrainConfig]:
    """``load_train(document, environment, **options)``: a ``config_train.json`` of that content."""

    def load(document: object, environment: object = None, **options: Any) -> TrainConfig:
        mmar = write_mmar(tmp_path, "config_train.json", document, environment or {})
        return load_train_config(mmar, **options)

    return load


@pytest.fixture
def load_evaluation(tmp_path: Path) -> Callable[..., EvaluationConfig]:
    """``load_evaluation(document, environment, **options)``: a ``config_validation.json``."""

    def load(document: object, environment: object = None, **options: Any) -> EvaluationConfig:
        mmar = write_mmar(tmp_path, "config_validation.json", document, environment or {})
        return load_evaluation_config(mmar, **options)

    return load


@pytest.fixture
def train_faults(load_train: Callable[..., TrainConfig]) -> Callable[..., list[str]]:
    """The same arguments as ``load_train``; the faults that it reports."""
    return lambda *documents, **options: faults_of(lambda: load_train(*documents, **options))


@pytest.fixture
def evaluation_faults(load_evaluation: Callable[..., EvaluationConfig]) -> Callable[..., list[str]]:
    """The same arguments as ``load_evaluation``; the faults that it reports."""
    return lambda *documents, **options: faults_of(lambda: load_evaluation(*documents, **options))
