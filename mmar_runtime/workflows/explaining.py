"""Turns exceptions inside MONAI's engines into errors that name the case and the next step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

from ignite.engine import Engine
from monai.engines import Trainer
from monai.transforms import LoadImage

from mmar_runtime.components.images.case_errors import (
    FILES,
    TransformError,
    case_files,
    root_of,
    shown_files,
    text_of,
)
from mmar_runtime.config.sections import Section, WorkflowConfig
from mmar_runtime.errors import ComponentError, DataError, MmarError
from mmar_runtime.workflows.old_code import own_code_advice
from mmar_runtime.workflows.remedies import remedy

NO_READER = "cannot find a suitable reader"
LOADING = re.compile(r"applying transform <(monai|mmar_runtime)\.[\w.]+\.LoadImage")
"""MONAI's words when a transform that reads a file fails, with any exception of the reader."""
CROP_TOO_LARGE = re.compile(r"crop ROI is larger than the image size|proposed random crop", re.I)


LOADERS = "torch.utils.data"
TRANSFORMING = "applying transform"
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")
TOLD_BY_WORKER = re.compile(rf"\b{TransformError.__name__}: (?P<text>.+)\Z", re.DOTALL)


@contextmanager
def explained(config: WorkflowConfig) -> Iterator[None]:
    """Build or run an engine; turn its exceptions into our own, with the exception as the cause.

    Raises:
        DataError: an image cannot be read, or a crop is larger than it.
        ComponentError: any other exception of a component.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, MmarError) and not isinstance(error, ComponentError):
            raise
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        fault = _data_fault(config, causes)
        if fault is not None:
            raise DataError(fault) from error
        advice = own_code_advice(config, causes[-1])
        if isinstance(error, ComponentError) and not _transform_error(error):
            if advice:
                raise ComponentError(f"{error}{advice}") from error
            raise
        told = _told(config, error)
        if not advice and (known := remedy(told.text, config, told.section)):
            advice = f"\n    {known}"
        raise ComponentError(f"{told.text}{advice}") from error


@dataclass(frozen=True, slots=True)
class _Told:
    """What happened, in words, and in which section."""

    section: Section
    text: str


def _told(config: WorkflowConfig, error: Exception) -> _Told:
    engine = _running(error)
    section = _section(config, engine)
    transform = _transform_error(error)
    if transform:
        return _Told(section, transform)
    root = root_of(error)
    modules = [frame.f_globals.get("__name__") for frame, _ in walk_tb(root.__traceback__)]
    where = modules[-1] if modules else "unknown code"
    place = config.file if engine is None else str(section.location)
    text = f"{place}: the run failed in {where}: {type(root).__name__}: {_text(root)}"
    files = _batch_files(error, engine)
    return _Told(section, f"{text}\n{FILES}{shown_files(files)}" if files else text)


def _running(error: Exception) -> Any:
    """Return the engine in which an error arose, the inner one of a validation in training."""
    engines = (frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__))
    return next(reversed([engine for engine in engines if isinstance(engine, Engine)]), None)


def _section(config: WorkflowConfig, engine: Engine | None) -> Section:
    """Return the section of an engine; the first one where no engine had begun."""
    sections = list(config.scopes.values())
    return sections[0] if engine is None or isinstance(engine, Trainer) else sections[-1]


def _transform_error(error: Exception) -> str:
    """Return the text of a failed transform, from this process or one that loads data."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TransformError):
            sent = IN_WORKER.match(str(cause)) and TOLD_BY_WORKER.search(str(cause))
            return sent["text"].strip() if sent else str(cause)
        cause = cause.__cause__
    return ""


def _batch_files(error: Exception, engine: Any) -> tuple[str, ...]:
    """Return the files of the batch at work; none while a batch is loaded."""
    modules = (str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__))
    # While a batch is being loaded, the engine still has the one before.
    loading = any(module.startswith(LOADERS) for module in modules)
    return () if engine is None or loading else case_files(engine.state.batch)


def _data_fault(config: WorkflowConfig, causes: Sequence[BaseException]) -> str | None:
    """Return the fault of the data; None if the cause is another."""
    texts = list(map(str, causes))
    for cause, text in reversed(list(zip(causes, texts, strict=True))):
        if CROP_TOO_LARGE.search(text):
            files = _files_of_transform(causes)
            return _crop_advice(config, cause) + (f"\n{FILES}{files}" if files else "")
        if NO_READER in text:
            return f"{config.file}: an image cannot be read: {_text(cause)}"
    transforming = any(TRANSFORMING in text for text in texts)
    unreadable = any(isinstance(cause, FileNotFoundError | EOFError) for cause in causes)
    if any(map(LOADING.search, texts)) or (transforming and unreadable):
        # Neither MONAI nor the libraries below name the file of a stream that ends too early.
        reads = (
            frame.f_locals.get("filename")
            for cause in causes
            for frame, _ in walk_tb(cause.__traceback__)
            if frame.f_code is LoadImage.__call__.__code__
        )
        file = ", ".join(map(str, next((files for files in reads if isinstance(files, tuple)), ())))
        file, text = file or _files_of_transform(causes), _text(causes[-1])
        named = text if file in text else f"{file}: {text}"
        advice = "The file may be cut off or damaged: copy it anew from where it came."
        return f"{config.file}: an image cannot be read: {named}\n    {advice}"
    return None


def _files_of_transform(causes: Sequence[BaseException]) -> str:
    """Return the files that a failed transform names; empty without one."""
    for cause in causes:
        lines = str(cause).splitlines() if isinstance(cause, TransformError) else []
        if lines and lines[-1].startswith(FILES):
            return lines[-1].removeprefix(FILES)
    return ""


def _text(error: BaseException) -> str:
    """Return the error's own words; for a DataLoader's process the words of the first cause.

    The text of an error from there is a whole traceback, with the first cause on top.
    """
    text = str(error)
    if not IN_WORKER.match(text):
        return text_of(error)
    return text.partition("\n\nThe above exception")[0].strip().splitlines()[-1]


def _crop_advice(config: WorkflowConfig, cause: BaseException) -> str:
    places = [
        spec.location
        for section in config.scopes.values()
        for spec in section.specs("pre_transforms")
        if "Crop" in spec.title and "spatial_size" in spec.args.items
    ]
    where = f"{places[0] / 'args' / 'spatial_size'}" if places else config.file
    return (
        f"{where}: the crop is larger than a volume: {_text(cause)}\n"
        "    Add SpatialPadd before it, resample with Spacingd to a finer spacing, or crop less."
    )
