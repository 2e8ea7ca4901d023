"""How models travel: small tensors in their message, others by the wire or as a file."""

from __future__ import annotations

import gc
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.app_opt.pt import tensor_downloader
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.app_opt.pt.lazy_tensor_dict import LazyTensorDict
from nvflare.app_opt.pt.tensor_downloader import TensorConsumer, TensorDownloadable
from nvflare.fuel.f3.streaming.download_service import ProduceRC
from nvflare.fuel.utils.fobs import FOBSContextKey
from safetensors.torch import load

from mmar_runtime.exchange.arrays import IN_MESSAGE, WHOLE
from mmar_runtime.exchange.tensor_files import stored_of, write_tensors
from mmar_runtime.flare.tensors import HandingOver, ModelDecomposer, Offer, Taking

ITEMS = {"T0": torch.arange(6.0).reshape(2, 3), "T1": torch.tensor([True, False])}


class Packing:
    """What NVFlare knows of a message while it packs it."""

    def __init__(self) -> None:
        self.fobs_ctx: dict[str, Any] = {FOBSContextKey.CELL: object()}

    def register_post_cb(self, *_: object) -> None:
        """Called with what is packed last."""


@pytest.fixture
def handing_over(tmp_path: Path) -> HandingOver:
    return HandingOver(tmp_path)


def offered(by: HandingOver, items: dict[str, torch.Tensor] = ITEMS) -> Offer:
    found = by.to_downloadable(items, 0, {})
    assert isinstance(found, Offer)
    return found


def name_of(offer: Offer) -> str:
    code, name, state = offer.produce(None, "site-1")
    assert (code, type(name)) == (ProduceRC.OK, str)
    assert offer.produce(state, "site-1") == (ProduceRC.EOF, None, {})
    return str(name)


@pytest.mark.parametrize("by_file", [False, True], ids=["by the wire", "in a file"])
def test_a_small_tensor_goes_in_its_message_and_a_large_one_is_asked_for(
    by_file: bool, tmp_path: Path
) -> None:
    decomposer = HandingOver(tmp_path) if by_file else ModelDecomposer()
    packing = Packing()
    small, large = torch.arange(6.0).reshape(2, 3), torch.zeros(IN_MESSAGE)

    packed = decomposer.decompose(small, packing)
    assert decomposer.decompose(large, packing)["type"] == "ref"

    assert torch.equal(decomposer.recompose(packed, packing), small)


def test_a_receiver_with_nvflares_own_decomposer_reads_what_is_sent() -> None:
    ours, theirs = ModelDecomposer(), TensorDecomposer()
    packed = ours.decompose(ITEMS["T0"], Packing())
    assert torch.equal(theirs.recompose(packed, Packing()), ITEMS["T0"])

    consumer = TensorConsumer(None, {})
    code, pieces, state = ours.to_downloadable(ITEMS, 0, {}).produce({}, "site-1")
    consumer.consume("ref", state, pieces)
    assert code == ProduceRC.OK
    assert all(torch.equal(consumer.result[name], ITEMS[name]) for name in ITEMS)


def test_a_large_model_is_packed_as_it_is_asked_for() -> None:
    """A model beyond 64 MiB, of tensors of 24 MiB, each of which is more than a piece."""
    model = {f"T{number}": torch.full((6 * 2**20,), float(number)) for number in range(3)}
    sent, state, found = ModelDecomposer().to_downloadable(model, 0, {}), {}, {}

    for number in range(3):
        code, pieces, state = sent.produce(state, "site-1")
        assert (code, len(pieces)) == (ProduceRC.OK, 1)
        found[f"T{number}"] = load(pieces[0])[f"T{number}"]

    assert sent.produce(state, "site-1") == (ProduceRC.EOF, None, {})
    assert all(torch.equal(found[name], model[name]) for name in model)


def test_a_model_that_fills_its_piece_to_the_last_byte_is_packed_once_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The headers of its tensors have no room any more, so it goes in two pieces."""
    packed: list[object] = []
    monkeypatch.setattr(tensor_downloader, "save_tensors", packed.append)  # by NVFlare's thread
    half = torch.zeros(WHOLE // 2, dtype=torch.uint8)
    sent, state = ModelDecomposer().to_downloadable({"T0": half, "T1": half}, 0, {}), {}

    for name in ("T0", "T1"):
        _, (piece,), state = sent.produce(state, "site-1")
        assert load(piece)[name].shape == half.shape

    assert sent.produce(state, "site-1") == (ProduceRC.EOF, None, {})
    assert packed == []


def test_a_model_is_taken_as_a_file_that_is_gone_when_nobody_has_it(
    handing_over: HandingOver, tmp_path: Path
) -> None:
    offer, taking = offered(handing_over), Taking(tmp_path)

    state = {"given": True}
    assert taking.consume("ref", state, name_of(offer)) is state
    offer.release()
    gc.collect()

    found = taking.result
    assert all(stored_of(one) for one in found.values())
    assert all(torch.equal(found[name], ITEMS[name]) for name in ITEMS)

    taking.result = found = None
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_model_for_several_sites_is_written_once(tmp_path: Path) -> None:
    server = HandingOver(tmp_path, to_several=True)
    first, second = offered(server), offered(server, dict(ITEMS))

    assert name_of(first) == name_of(second)
    first.release()
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1  # the second site is still to take it


def test_another_model_in_the_same_memory_has_a_file_of_its_own(
    handing_over: HandingOver, tmp_path: Path
) -> None:
    """As a site's next difference may lie where the last one did, which is still offered."""
    difference = {"T0": torch.zeros(3)}
    first = offered(handing_over, difference)
    difference["T0"].fill_(1)
    second = offered(handing_over, difference)

    taking = Taking(tmp_path)
    taking.consume("ref", {}, name_of(second))
    assert taking.result["T0"].tolist() == [1, 1, 1]
    assert name_of(first) != name_of(second)


def test_where_no_file_can_be_written_a_model_goes_by_the_wire(
    handing_over: HandingOver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(tmp_path)

    with caplog.at_level(logging.WARNING):
        found = handing_over.to_downloadable(ITEMS, 0, {})

    assert isinstance(found, TensorDownloadable)
    assert "goes by the wire, as no file takes it" in caplog.text

    taking = Taking(tmp_path)
    code, pieces, state = found.produce({}, "site-1")
    assert code == ProduceRC.OK
    taking.consume("ref", state, pieces)
    assert all(torch.equal(taking.result[name], ITEMS[name]) for name in ITEMS)


def test_what_nvflare_writes_to_its_own_files_stays_there_also_when_it_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job asks for that by ``enable_tensor_disk_offload``; at its end the audit log is behind."""
    root = tmp_path / "nvflare_tensor_offload_job"
    folder = root / "nvflare_tensors_1"
    folder.mkdir(parents=True)
    for name, tensor in ITEMS.items():
        write_tensors(folder / f"chunk_{name}", {name: tensor})
    files = {name: (str(folder / f"chunk_{name}"), name) for name in ITEMS}
    came = [(None, LazyTensorDict(files, str(folder)))]
    monkeypatch.setattr(TensorDecomposer, "download", lambda *_, **__: came.pop())

    error, found = ModelDecomposer().download("server", "ref", 1.0, None)
    shutil.rmtree(root)
    gc.collect()

    assert error is None
    stored = {name: stored_of(tensor) for name, tensor in found.items()}
    assert all(torch.equal(stored[name].read(), ITEMS[name]) for name in ITEMS)
    del found, stored
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "A" * 32, "0" * 33])
def test_what_is_no_name_of_such_a_file_is_not_opened(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name of a file"):
        Taking(tmp_path).consume("ref", {}, name)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Taking(tmp_path).consume("ref", {}, "0" * 32)


def test_an_offer_that_is_over_is_an_error(handing_over: HandingOver) -> None:
    offer = offered(handing_over)
    offer.release()

    with pytest.raises(RuntimeError, match="no longer offered"):
        offer.produce(None, "site-1")
