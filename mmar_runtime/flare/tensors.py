"""How models travel by NVFlare: in their message, by the wire, or as files on one machine."""

from __future__ import annotations

import os
import re
import threading
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.app_opt.pt.lazy_tensor_dict import LazyTensorDict
from nvflare.app_opt.pt.tensor_downloader import TensorConsumer, TensorDownloadable
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.streaming.download_service import Downloadable, ProduceRC, download_object
from nvflare.fuel.utils import fobs
from nvflare.fuel.utils.fobs.datum import DatumManager
from nvflare.fuel.utils.fobs.decomposers.via_downloader import EncKey, EncType

from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.arrays import WHOLE, goes_in_message, piece_of
from mmar_runtime.exchange.tensor_files import (
    KeptFile,
    KeptFolder,
    packed_tensors,
    read_tensors,
    write_tensors,
)
from mmar_runtime.flare import HANDOVER

FILE_NAME = re.compile(r"[0-9a-f]{32}")
GIVEN = {"given": True}
"""What a receiver says that knows the file already."""


def send_tensors(*, to_several: bool = False) -> None:
    """Have models travel as tensors.

    A job can ask for larger pieces: ``tensor_download_chunk_size`` at the top level of its two
    NVFlare configs.

    Args:
        to_several: whether this process sends one and the same model to several others.
    """
    folder = os.environ.get(HANDOVER)
    fobs.register(
        ModelDecomposer() if folder is None else HandingOver(Path(folder), to_several=to_several)
    )


class ModelDecomposer(TensorDecomposer):
    """NVFlare's, with fewer pieces, and none for a small model."""

    def decompose(self, target: torch.Tensor, manager: DatumManager) -> Any:
        """Return a tensor as its message carries it: itself, or a reference to it."""
        if not goes_in_message(manager.fobs_ctx, target):
            return super().decompose(target, manager)
        data = self.native_decompose(target, manager)
        return {EncKey.TYPE: EncType.NATIVE, EncKey.DATA: data}

    def to_downloadable(
        self, items: dict[str, torch.Tensor], max_chunk_size: int, fobs_ctx: dict[str, Any]
    ) -> Downloadable:
        """Return the tensors of one message, to be taken piece by piece."""
        piece = piece_of(items)
        size = max(piece, max_chunk_size)
        if piece == WHOLE:
            return WholeModel(items, size)
        return super().to_downloadable(items, size, fobs_ctx)

    def native_decompose(self, target: torch.Tensor, manager: DatumManager | None = None) -> bytes:
        """Return a tensor as it goes in its message; NVFlare's own decomposer reads the same."""
        return packed_tensors({"t": target})

    def download(
        self, *arguments: Any, **named: Any
    ) -> tuple[str | None, Mapping[str, torch.Tensor] | None]:
        """Take the tensors that a message refers to; an error, or their names and themselves.

        Where the job has NVFlare write them to its files, these are their memory. NVFlare deletes
        its files with the workflow, when the server may still have to take a digest; so they are
        taken to a folder of their own next to NVFlare's folder of the run.
        """
        error, items = super().download(*arguments, **named)
        if not isinstance(items, LazyTensorDict):
            return error, items
        files = {Path(items.make_lazy_ref(name).file_path) for name in items}
        (folder,) = {path.parent for path in files}
        kept = KeptFolder(folder, folder.parent.parent)
        tensors = {}
        for path in files:
            tensors.update(read_tensors(kept.path / path.name, keeper=kept))
        return error, tensors


class WholeModel(TensorDownloadable):
    """NVFlare's, for a model that goes in one piece: each tensor is copied once for it.

    Of several pieces NVFlare's own packs the next one while another is sent.
    """

    def produce_item(self, index: int) -> bytes:
        """Return a tensor as NVFlare's own receiver reads it."""
        name = self.keys[index]
        return packed_tensors({name: self.base_obj[name]})

    def prefetch_item(self, index: int) -> None:
        """Nothing: a second piece comes only of a model that fills the first to its last bytes."""


class HandingOver(ModelDecomposer):
    """Writes what does not go in the message to a file, and tells the receiver its name.

    Messages, their order, and who is told when a model was taken are those of NVFlare; the numbers
    alone take another way. For processes of one user on one machine: whoever can write into the
    folder can change a model on its way.

    Args:
        folder: for the files; nobody else has it.
        to_several: whether one and the same model is sent to several receivers. Then it is written
            once for those who take it at the same time; nobody may change its tensors.
    """

    def __init__(self, folder: Path, *, to_several: bool = False) -> None:
        super().__init__()
        self._folder = folder
        self._to_several = to_several
        self._files: weakref.WeakValueDictionary[tuple[int, ...], _OfferedFile]
        self._files = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def to_downloadable(
        self, items: dict[str, torch.Tensor], max_chunk_size: int, fobs_ctx: dict[str, Any]
    ) -> Downloadable:
        """Return the tensors of one message, to be taken as a file, or else by the wire."""
        try:
            return Offer(self._file_of(items))
        except (OSError, WeightsError) as error:
            self.logger.warning(f"a model goes by the wire, as no file takes it: {error}")
            return super().to_downloadable(items, max_chunk_size, fobs_ctx)

    def download(
        self, from_fqcn: str, ref_id: str, per_request_timeout: float, cell: Cell, **options: Any
    ) -> tuple[str | None, Mapping[str, torch.Tensor] | None]:
        """Take the tensors that a message refers to; an error, or their names and themselves."""
        options.pop("fobs_ctx", None)
        consumer = Taking(self._folder)
        download_object(from_fqcn, ref_id, per_request_timeout, cell, consumer, **options)
        return consumer.error, consumer.result

    def _file_of(self, tensors: Mapping[str, torch.Tensor]) -> KeptFile:
        if not self._to_several:
            return self._written(tensors)
        key = tuple(map(id, tensors.values()))
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = self._written(tensors)
            return file

    def _written(self, tensors: Mapping[str, torch.Tensor]) -> _OfferedFile:
        path = self._folder / uuid.uuid4().hex
        write_tensors(path, tensors)
        return _OfferedFile(path, tensors)


class _OfferedFile(KeptFile):
    """A file, and the tensors in it: while it is there, no others can have their identity."""

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(path)
        self.tensors = tensors


class Offer(Downloadable):
    """A file with the tensors of a message, for its receiver.

    Args:
        file: which the receiver may be told the name of.
    """

    def __init__(self, file: KeptFile) -> None:
        super().__init__(None)
        self._file: KeptFile | None = file

    def produce(
        self, state: dict[str, Any] | None, requester: str
    ) -> tuple[str, str | None, dict[str, Any]]:
        """Return the file's name, then nothing more."""
        if state:
            return ProduceRC.EOF, None, {}
        if self._file is None:
            raise RuntimeError(f"{requester} asks for what is no longer offered")
        return ProduceRC.OK, self._file.path.name, GIVEN

    def release(self) -> None:
        """Everybody has taken it, or nobody will any more."""
        self._file = None


class Taking(TensorConsumer):
    """Takes tensors as a file, or piece by piece from one who hands none over.

    Args:
        folder: where the file lies.
    """

    supports_pipelining = False
    """NVFlare would say that the file was taken before it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, {})
        self._folder = folder

    def consume(self, ref_id: str, state: dict[str, Any], data: object) -> dict[str, Any]:
        """Give the file a name of one's own, and find out what is in it."""
        if type(data) is not str:
            taken: dict[str, Any] = super().consume(ref_id, state, data)
            return taken
        if not FILE_NAME.fullmatch(data):
            raise ValueError("what was handed over is no name of a file")
        file = KeptFile.of(self._folder / data)
        self.result = read_tensors(file.path, keeper=file)
        return state
