"""Samples are cases that were drawn: neither crops, nor batches, nor processes change them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, ThreadDataLoader
from torch.utils.data import BatchSampler, SequentialSampler

from mmar_runtime.components.launch import Processes
from mmar_runtime.components.processes import own_part
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ComponentError
from mmar_runtime.workflows.samples import DrawnSamples, passes_of

PLACE = Location("config_train.json") / "train" / "dataloader"
CASES = [{"image": number} for number in range(5)]


def loader_of(cases: int = 5, *, rank: int = 0, count: int = 1, **arguments: Any) -> Any:
    """A loader of one of several processes."""
    processes = Processes(rank=rank, count=count)
    part = own_part(CASES[:cases], processes, training=True, place=PLACE)
    return DataLoader(Dataset(part, arguments.pop("transform", None)), **arguments)


def counted(loader: Any, *, cases: int = 5, count: int = 1) -> tuple[Engine, DrawnSamples]:
    engine = Engine(lambda engine, batch: None)
    passes = passes_of(loader, Processes(count=count), listed=cases, place=PLACE)
    return engine, DrawnSamples(engine, loader, passes)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_an_epoch_has_as_many_samples_as_cases_whatever_the_batch(batch_size: int) -> None:
    loader = loader_of(batch_size=batch_size)
    engine, drawn = counted(loader)

    engine.run(loader, max_epochs=3)

    assert (drawn.total, drawn.per_epoch) == (3 * 5, 5)


def test_what_is_dropped_is_not_drawn() -> None:
    loader = loader_of(batch_size=2, drop_last=True)
    engine, drawn = counted(loader)

    engine.run(loader, max_epochs=3)

    assert (drawn.total, drawn.per_epoch) == (3 * 4, 4)


def test_crops_of_a_case_are_one_sample() -> None:
    loader = loader_of(batch_size=2, transform=lambda case: [case] * 4)
    engine, drawn = counted(loader)

    engine.run(loader)

    assert engine.state.dataloader is loader
    assert drawn.total == 5


def test_a_loader_that_gives_each_batch_twice_gives_each_case_twice() -> None:
    loader = ThreadDataLoader(Dataset(CASES), batch_size=2, repeats=2, num_workers=0)
    engine, drawn = counted(loader)

    engine.run(loader, epoch_length=6)

    assert drawn.total == 2 * 5


@given(
    cases=st.integers(4, 5),
    count=st.integers(2, 4),
    batch_size=st.integers(1, 3),
    batches=st.integers(1, 9),
)
def test_several_processes_draw_what_one_does_with_as_many_cases_at_a_time(
    cases: int, count: int, batch_size: int, batches: int
) -> None:
    one = passes_of(
        loader_of(cases, batch_size=count * batch_size), Processes(), listed=cases, place=PLACE
    )
    several = {
        passes_of(
            loader_of(cases, rank=rank, count=count, batch_size=batch_size),
            Processes(rank=rank, count=count),
            listed=cases,
            place=PLACE,
        )
        for rank in range(count)
    }

    (each,) = several  # they need not ask each other
    assert each.items_of(batches) == one.items_of(batches)


def test_a_run_that_ends_within_an_epoch_counts_what_it_drew() -> None:
    """The next run draws from the beginning of the data again, as ignite does."""
    loader = loader_of(batch_size=2)
    engine, drawn = counted(loader)
    stop = engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), engine.terminate)
    engine.run(loader, max_epochs=9)
    stop.remove()

    assert drawn.total == 2 * 2

    engine.state.epoch, engine.should_terminate = 0, False
    engine.run(loader, max_epochs=1)
    assert drawn.total == 2 * 2 + 2  # one batch was left of the epoch, and is the first one


def test_an_epoch_may_be_longer_or_shorter_than_the_data() -> None:
    for length, per_epoch in ((1, 2), (2, 4), (3, 5), (4, 5 + 2), (6, 10)):
        loader = loader_of(batch_size=2)
        engine, drawn = counted(loader)

        engine.run(loader, max_epochs=1, epoch_length=length)

        assert (drawn.total, drawn.per_epoch) == (per_epoch, per_epoch)


@pytest.mark.parametrize(
    "loader",
    [
        [1, 2],
        DataLoader(
            Dataset(CASES), batch_sampler=BatchSampler(SequentialSampler(CASES), 2, drop_last=False)
        ),
    ],
)
def test_a_loader_that_does_not_tell_the_size_of_a_batch_is_refused(loader: Any) -> None:
    with pytest.raises(ComponentError, match=r"train\.dataloader: .*weigh_by: steps or equal"):
        passes_of(loader, Processes(), listed=5, place=PLACE)
