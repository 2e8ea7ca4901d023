"""Turns what goes wrong inside MONAI's engines into errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import ComponentError, DataError, MmarError

NO_READER = "cannot find a suitable reader"
CROP_TOO_LARGE = re.compile(r"crop ROI is larger than the image size|proposed random crop", re.I)


@contextmanager
def explained(config: WorkflowConfig) -> Iterator[None]:
    """Run an engine; an exception from inside it becomes one of ours, with the cause below it.

    Raises:
        DataError: an image cannot be read, or a crop is larger than it.
        ComponentError: any other exception of a component.
    """
    try:
        yield
    except (MmarError, KeyboardInterrupt):
        raise
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            if CROP_TOO_LARGE.search(str(cause)):
                raise DataError(_crop_advice(config, cause)) from error
            if isinstance(
                cause, FileNotFoundError | EOFError
            ) or "cannot find a suitable reader" in str(cause):
                raise DataError(f"{config.file}: an image cannot be read: {cause}") from error
        root = causes[-1]
        raise ComponentError(
            f"{config.file}: the run failed in {_where(root)}: {type(root).__name__}: {root}"
        ) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown code" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))


def _crop_advice(config: WorkflowConfig, cause: BaseException) -> str:
    places = [
        spec.location
        for section in config.scopes.values()
        for spec in section.specs("pre_transforms")
        if "Crop" in spec.title and "spatial_size" in spec.args.items
    ]
    where = f"{places[0] / 'args' / 'spatial_size'}" if places else config.file
    return (
        f"{where}: the crop is larger than a volume: {cause}\n"
        "    Add SpatialPadd before it, resample with Spacingd to a finer spacing, or crop less."
    )
