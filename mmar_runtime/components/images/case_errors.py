"""Which files a case has, and where the configuration names the transform that failed on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from traceback import walk_tb
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from monai.transforms.compose import execute_compose
from monai.utils import ImageMetaKey

from mmar_runtime.config.location import Location

FILE = ImageMetaKey.FILENAME_OR_OBJ
MAX_SHOWN = 4
FILES = "    files: "
"""Begins the line that names the files of a case."""


class TransformError(Exception):
    """A transform failed, or cases do not go into a batch; the text says where, which files, why.

    A process of a DataLoader sends an error as text, so the text is all that there is.
    """


class PlacedTransforms(Compose):
    """MONAI's ``Compose``, but for the text of its errors.

    Args:
        transforms: the transforms.
        places: where the configuration names each of them.
    """

    def __init__(self, transforms: Sequence[Any], places: Sequence[Location]) -> None:
        super().__init__(transforms)
        self._places = tuple(places)

    def __call__(  # type: ignore[override]  # MONAI's base class gives a single argument
        self, input_: Any, *args: Any, **options: Any
    ) -> Any:
        """Return the transformed case.

        Raises:
            TransformError: a transform raised; its exception is the cause.
        """
        try:
            return super().__call__(input_, *args, **options)
        except TransformError:
            raise
        except Exception as error:
            raise TransformError(self._told(error, input_)) from error

    def _told(self, error: Exception, case: Any) -> str:
        failed = next(_failing(error), None)
        position = next(
            (at for at, transform in enumerate(self.transforms) if transform is failed),
            # Where threads fill a cache, each has copies of the transforms.
            next((at for at, one in enumerate(self.transforms) if type(one) is type(failed)), None),
        )
        root = root_of(error)
        text = f"{type(root).__name__}: {text_of(root)}"
        if position is not None:
            text = f"{self._places[position]}: {type(failed).__name__} failed: {text}"
        files = case_files(case)
        return f"{text}\n{FILES}{shown_files(files)}" if files else text


def placed_collate(place: Location, cases: Any) -> Any:
    """Return the batch of some cases, as MONAI's data loader makes it.

    Raises:
        TransformError: the cases do not go into one batch.
    """
    try:
        return list_data_collate(cases)
    except Exception as error:
        text = str(error).partition("\n\nMONAI hint")[0]
        told = f"{place}: the cases do not go into one batch: {text}"
        raise TransformError(f"{told}\n{FILES}{shown_files(case_files(cases))}") from error


def root_of(error: BaseException) -> BaseException:
    """Return the first cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def text_of(error: BaseException) -> str:
    """Return an error's own words; MONAI puts whole tracebacks of other errors behind some."""
    return str(error).partition("\nTraceback (most recent call last)")[0].rstrip()


def _failing(error: Exception) -> Iterator[object]:
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code is execute_compose.__code__:
            yield frame.f_locals.get("_transform")


# --- Files ----------------------------------------------------------------------------------------


def case_files(case: Any) -> tuple[str, ...]:
    """Return the files of a case or of a batch, each once: of what is loaded, and of paths.

    Args:
        case: an item of a data set before or after any transform, a batch, or a list of either.
    """
    return tuple(dict.fromkeys(_files(case)))


def shown_files(files: Sequence[str]) -> str:
    """Return a few files for a person, and the number of the others.

    >>> shown_files(["a.nii", "b.nii", "c.nii", "d.nii", "e.nii"])
    'a.nii, b.nii, c.nii, d.nii and 1 more'
    """
    rest = len(files) - MAX_SHOWN
    return ", ".join(files[:MAX_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def files_not_finite(batch: Any) -> tuple[str, ...]:
    """Return the files of those images and labels of a batch that are infinite or not a number."""
    return tuple(dict.fromkeys(_not_finite(batch)))


def _not_finite(batch: Any) -> Iterator[str]:
    if isinstance(batch, list | tuple):  # the engine has taken the batch apart
        for case in batch:
            yield from _not_finite(case)
    for value in batch.values() if isinstance(batch, Mapping) else ():
        if isinstance(value, MetaTensor) and value.is_floating_point():
            names = list(_names(value.meta.get(FILE)))
            voxels = value.as_tensor() if len(names) > 1 else value.as_tensor()[None]
            if len(names) == len(voxels):
                unfit = (~torch.isfinite(voxels)).flatten(1).any(1).tolist()
                yield from (name for name, bad in zip(names, unfit, strict=True) if bad)


def _files(case: Any) -> Iterator[str]:
    if isinstance(case, list | tuple):
        for part in case:
            yield from _files(part)
    elif isinstance(case, Mapping):
        for key, value in case.items():
            if isinstance(value, MetaTensor):
                yield from _names(value.meta.get(FILE))
            elif isinstance(key, str) and key.endswith("_meta_dict") and isinstance(value, Mapping):
                yield from _names(value.get(FILE))
            elif key in ("image", "label", "mask"):
                yield from _names(value)
    elif isinstance(case, MetaTensor):
        yield from _names(case.meta.get(FILE))


def _names(value: Any) -> Iterator[str]:
    for name in value if isinstance(value, list | tuple) else [value]:
        if isinstance(name, str):
            yield name
