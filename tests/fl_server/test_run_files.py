"""The files of a run: written in order on a thread of their own, and told if they cannot be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from fl_server.federation import failure_reason
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL
from fl_server.record.files import read_run_record
from fl_server.record.values import RunRecord
from fl_server.run_files import MOST_WAITING, RunFiles
from mmar_runtime.errors import CheckpointError
from mmar_runtime.exchange.encryption import CIPHERTEXTS
from mmar_runtime.weights import Weights, read_checkpoint

CONF = {"train": {"model": {"name": "UNet"}}}
LONG = 60.0


def model(value: float) -> Weights:
    return {"w": torch.full((2,), float(value))}


def value_of(path: Path) -> float:
    return float(read_checkpoint(path).weights["w"][0])


@pytest.fixture
def files(tmp_path: Path) -> Iterator[RunFiles]:
    found = RunFiles(tmp_path, CONF, durable=True)
    yield found
    found.close()


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(
        job="job",
        engine="nvflare",
        started=datetime(2030, 1, 1, tzinfo=UTC),
        key_metric="dice",
        rounds_asked=1,
        sites=("site-1",),
        min_sites=1,
        versions={},
        initial_weights_sha256="0" * 64,
    )


def hold(files: RunFiles) -> threading.Event:
    """What is given to be written from now on waits for the event."""
    may = threading.Event()

    def wait() -> None:
        may.wait(LONG)

    files.do(wait)
    return may


def full() -> None:
    raise OSError("no space left")


def test_all_is_written_in_the_order_of_the_calls(files: RunFiles) -> None:
    done: list[int] = []
    may = hold(files)
    for number in range(3):
        files.do(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == []  # nobody waits for the first

    may.set()
    files.wait()

    assert done == [0, 1, 2]


def test_only_so_much_waits_to_be_written(files: RunFiles) -> None:
    may, done = hold(files), threading.Event()

    def give() -> None:
        for _ in range(MOST_WAITING):
            files.do(lambda: None)
        done.set()

    threading.Thread(target=give, daemon=True).start()
    assert not done.wait(0.1)

    may.set()
    assert done.wait(LONG)


def test_a_model_waits_for_models_alone(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """So lines of the log, with digests of large updates, keep no site from its next task."""
    monkeypatch.setattr("fl_server.run_files.BYTES_WAITING", 1)
    may, given = hold(files), [threading.Event(), threading.Event()]

    def give() -> None:
        for number, event in enumerate(given):
            files.model(f"site-{number}", model(number))
            event.set()

    threading.Thread(target=give, daemon=True).start()
    assert given[0].wait(LONG)
    assert not given[1].wait(0.1)

    may.set()
    assert given[1].wait(LONG)


def test_a_model_goes_with_its_configuration(files: RunFiles, tmp_path: Path) -> None:
    files.model("site-1", model(2))
    files.wait()

    kept = read_checkpoint(tmp_path / "models/site-1.pt")
    assert kept.weights["w"].tolist() == [2.0, 2.0]
    assert kept.train_conf == CONF
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_model_is_read_when_it_is_written(files: RunFiles) -> None:
    may = hold(files)
    files.model("site-1", model(2))
    threading.Timer(0.1, may.set).start()

    assert files.read("site-1")["w"].tolist() == [2.0, 2.0]
    with pytest.raises(CheckpointError, match="site-2"):
        files.read("site-2")


def test_encrypted_tensors_are_kept_as_they_are(files: RunFiles, tmp_path: Path) -> None:
    encrypted = {CIPHERTEXTS: torch.zeros(3, dtype=torch.uint8), "w": torch.ones(2)}

    files.model("site-1", encrypted)

    assert files.read("site-1")["w"].tolist() == [1.0, 1.0]
    assert not (tmp_path / "models/site-1.pt").exists()


def test_the_best_model_is_a_second_name_of_the_last(files: RunFiles, tmp_path: Path) -> None:
    files.global_model(model(1), 1, soon=False)
    files.best_model(model(1), 1)
    files.wait()
    last, best = (tmp_path / f"models/{name}.pt" for name in (GLOBAL_MODEL, BEST_GLOBAL_MODEL))
    assert last.samefile(best)

    files.global_model(model(2), 2, soon=False)
    files.wait()

    assert (value_of(last), value_of(best)) == (2.0, 1.0)


def test_without_durability_rounds_that_follow_soon_are_left_out(tmp_path: Path) -> None:
    files = RunFiles(tmp_path, CONF, durable=False)
    for number in (1, 2):
        files.global_model(model(number), number, soon=False)
    assert files.written == 1

    files.best_model(model(2), 2)  # it has no file yet to which this could be a name
    files.global_model(model(3), 3, soon=True)
    files.close()

    assert value_of(tmp_path / f"models/{GLOBAL_MODEL}.pt") == 3.0
    assert value_of(tmp_path / f"models/{BEST_GLOBAL_MODEL}.pt") == 2.0


def test_each_rounds_model_is_written_where_runs_are_durable(files: RunFiles) -> None:
    for number in (1, 2):
        files.global_model(model(number), number, soon=False)

    assert files.written == 2
    assert files.read(GLOBAL_MODEL)["w"].tolist() == [2.0, 2.0]


def test_the_record_is_written_as_it_stands_when_its_turn_comes(
    files: RunFiles, record: RunRecord, tmp_path: Path
) -> None:
    asked: list[int] = []
    may = hold(files)

    def settled() -> RunRecord:
        asked.append(1)
        return record

    for _ in range(3):
        files.record(settled)
    may.set()
    files.wait()

    assert asked == [1]
    assert read_run_record(tmp_path / "run_record.json") == record


@pytest.mark.parametrize(("durable", "rounds"), [(True, 2), (False, 1)])
def test_durable_runs_write_also_a_record_that_follows_soon(
    record: RunRecord, tmp_path: Path, durable: bool, rounds: int
) -> None:
    files = RunFiles(tmp_path, CONF, durable=durable)
    for asked in (1, 2):
        files.record(lambda asked=asked: replace(record, rounds_asked=asked), soon=False)  # type: ignore[misc]
        files.wait()
    files.close()

    assert read_run_record(tmp_path / "run_record.json").rounds_asked == rounds


def test_what_cannot_be_written_is_raised_by_a_later_call(files: RunFiles) -> None:
    files.do(full)

    with pytest.raises(OSError, match="no space left"):
        files.wait()
    files.wait()  # it is told once


def test_a_failure_says_what_cannot_be_written(files: RunFiles, tmp_path: Path) -> None:
    (tmp_path / "models").rmdir()
    (tmp_path / "models").write_text("a file where the folder should be")
    files.model("site-1", model(1))

    with pytest.raises(OSError) as raised:  # noqa: PT011
        files.wait()
    assert failure_reason(raised.value).startswith("the model 'site-1' cannot be written: ")
    (tmp_path / "models").unlink()
    (tmp_path / "models").mkdir()


def test_the_record_is_written_after_a_failure(
    files: RunFiles, record: RunRecord, tmp_path: Path
) -> None:
    """So the record on the disk says that the run has failed."""
    may = hold(files)
    files.do(full)
    files.do(full)
    may.set()
    with pytest.raises(OSError, match="no space left"):
        files.wait()

    files.record(lambda: record)
    files.wait()

    assert read_run_record(tmp_path / "run_record.json") == record


def test_the_record_that_raises_an_earlier_failure_can_be_written_again(
    files: RunFiles, record: RunRecord, tmp_path: Path
) -> None:
    first = files.do(full)
    assert first.exception(LONG) is not None
    with pytest.raises(OSError, match="no space left"):
        files.record(lambda: record)

    files.record(lambda: record)
    files.wait()

    assert read_run_record(tmp_path / "run_record.json") == record


def test_several_threads_may_have_something_written(files: RunFiles) -> None:
    done: list[int] = []

    def give() -> None:
        for number in range(200):
            files.do(lambda number=number: done.append(number))  # type: ignore[misc]
            files.wait()

    threads = [threading.Thread(target=give) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    files.wait()

    assert sorted(done) == sorted([*range(200)] * 4)


def test_the_end_writes_what_waits_and_leaves_no_thread(tmp_path: Path) -> None:
    others, files = set(threading.enumerate()), RunFiles(tmp_path, CONF, durable=False)
    files.model("site-1", model(1))

    files.close()
    files.close()

    assert value_of(tmp_path / "models/site-1.pt") == 1.0
    assert set(threading.enumerate()) <= others
