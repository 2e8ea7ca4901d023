"""A site with the tiny MMAR, and what one builds there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fl_client.local_evaluation import CrossSiteEvaluator
from fl_client.local_training import LocalTrainer
from fl_client.local_work import LocalWork
from fl_client.site import Site
from fl_server.initial_model import initial_model
from mmar_runtime.exchange.weighing import WeighBy
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.session import session
from tests.conftest import site_values

MakeTrainer = Callable[..., LocalTrainer]


@pytest.fixture
def site(tiny_mmar: Path) -> Site:
    return Site(name="site-1", mmar=Mmar.open(tiny_mmar), values=site_values(tiny_mmar))


@pytest.fixture
def received(site: Site) -> Weights:
    """The first global weights of the job."""
    return initial_model(site.mmar, values={}).weights


@pytest.fixture
def open_sessions() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_trainer(site: Site, open_sessions: ExitStack) -> MakeTrainer:
    """``make_trainer(name="site-1", **work_and_arguments)``: a trainer of this site."""

    def make(
        *,
        name: str = "site-1",
        epochs: int = 1,
        steps: int = 0,
        shared: list[str] | None = None,
        weigh_by: WeighBy = "samples",
        **arguments: Any,
    ) -> LocalTrainer:
        here = Site(
            name=name, mmar=site.mmar, values={**site.values, **arguments.pop("values", {})}
        )
        config = here.train_config()
        given = {"process": "p", "counts": Counter(), **arguments}
        return LocalTrainer(
            here,
            config,
            open_sessions.enter_context(session(config, allow_code=False)),
            work=LocalWork(epochs=epochs, steps=steps, shared=shared, weigh_by=weigh_by),
            **given,
        )

    return make


@pytest.fixture
def evaluator(site: Site, open_sessions: ExitStack) -> CrossSiteEvaluator:
    config = site.cross_validation_config()
    context = open_sessions.enter_context(session(config, allow_code=False))
    return CrossSiteEvaluator(config, context, counts=Counter())
