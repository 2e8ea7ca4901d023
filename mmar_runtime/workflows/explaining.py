"""Turns exceptions inside MONAI's engines into errors that name the next step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from monai.transforms import LoadImage

from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import ComponentError, DataError, MmarError
from mmar_runtime.workflows.old_code import own_code_advice

NO_READER = "cannot find a suitable reader"
LOADING = re.compile(r"applying transform <monai\.transforms\.io\.\w+\.LoadImage")
"""MONAI's words when a transform that reads a file fails, with any exception of the reader."""
CROP_TOO_LARGE = re.compile(r"crop ROI is larger than the image size|proposed random crop", re.I)


TRANSFORMING = "applying transform"
IN_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")


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
        if isinstance(error, ComponentError):
            if advice:
                raise ComponentError(f"{error}{advice}") from error
            raise
        root = causes[-1]
        modules = [frame.f_globals.get("__name__") for frame, _ in walk_tb(root.__traceback__)]
        where = modules[-1] if modules else "unknown code"
        raise ComponentError(
            f"{config.file}: the run failed in {where}: {type(root).__name__}: "
            f"{_text(root)}{advice}"
        ) from error


def _data_fault(config: WorkflowConfig, causes: list[BaseException]) -> str | None:
    """Return the fault of the data; None if the cause is another."""
    texts = list(map(str, causes))
    for cause, text in zip(causes, texts, strict=True):
        if CROP_TOO_LARGE.search(text):
            return _crop_advice(config, cause)
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
        text = _text(causes[-1])
        named = text if file in text else f"{file}: {text}"
        return f"{config.file}: an image cannot be read: {named}"
    return None


def _text(error: BaseException) -> str:
    """Return the error's own words; for a DataLoader's process the words of the first cause.

    The text of an error from there is a whole traceback, with the first cause on top.
    """
    text = str(error)
    if not IN_WORKER.match(text):
        return text
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
