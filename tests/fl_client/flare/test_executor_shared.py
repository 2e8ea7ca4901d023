"""The executor in a federation that shares some tensors: only those leave the site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fl_client.flare.executor import MmarExecutor
from fl_server.initial_model import initial_model
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.flare.wire import STATUS
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights

SHARED = ["*.conv.weight"]

Execute = Callable[..., Shareable]


@pytest.fixture
def received(app: Path) -> Weights:
    return initial_model(Mmar.open(app), values={}, shared=SHARED).weights


@pytest.fixture
def execute(fl_ctx: FLContext) -> Iterator[Execute]:
    executor = MmarExecutor(shared_names=SHARED)
    executor.handle_event(EventType.START_RUN, fl_ctx)

    def run(task: str, weights: Weights, **headers: Any) -> Shareable:
        shareable = DXO(DataKind.WEIGHTS, data=arrays_of(weights)).to_shareable()
        for name, value in {AppConstants.CURRENT_ROUND: 0, **headers}.items():
            shareable.set_header(name, value)
        return executor.execute(task, shareable, fl_ctx, Signal())

    yield run
    executor.handle_event(EventType.END_RUN, fl_ctx)


def test_what_leaves_has_the_shared_tensors_alone(execute: Execute, received: Weights) -> None:
    update = from_shareable(execute("train", received))
    model = from_shareable(execute("submit_model", received))

    assert update.data.keys() == model.data.keys() == received.keys()


def test_a_model_from_elsewhere_is_joined_with_the_sites_own(
    execute: Execute, received: Weights
) -> None:
    execute("train", received)

    scored = from_shareable(execute("score_model", received))
    validated = from_shareable(execute("validate", received, model_owner="site-2"))

    assert validated.data == scored.data


def test_before_it_has_trained_a_site_evaluates_nothing(
    execute: Execute, received: Weights
) -> None:
    reply = execute("validate", received, model_owner="site-2")

    assert reply.get_header(STATUS).startswith("weights-error")


def test_a_whole_model_is_not_taken(execute: Execute, app: Path) -> None:
    reply = execute("train", initial_model(Mmar.open(app), values={}).weights)

    assert reply.get_header(STATUS).startswith("weights-error")
