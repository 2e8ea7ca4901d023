"""The readers of image files that MONAI's LoadImaged tries by itself."""

from __future__ import annotations

from typing import Any

from monai import transforms
from monai.data import PILReader
from monai.transforms.io.array import SUPPORTED_READERS
from monai.transforms.transform import ThreadUnsafe

PYDICOM_READERS = ("nvimgcodecpydicomreader", "pydicomreader")
"""They order the slices of a series by their numbers, and give frames of one file no place."""


class LoadImaged(transforms.LoadImaged, ThreadUnsafe):
    """MONAI's ``LoadImaged``, for threads of a cache and ``reverse_indexing=False`` alone.

    MONAI's reader of NIfTI remembers the files between two calls. Where threads share the reader,
    an image of several files loses channels; a cache gives each thread a copy of this class.

    MONAI hands ``reverse_indexing`` to all readers, and the one of NIfTI then fails. Here it
    reaches the reader of PNG, JPEG and BMP alone.
    """

    def __init__(
        self, keys: Any, reader: Any = None, *, reverse_indexing: bool | None = None, **more: Any
    ) -> None:
        alone = reader is None and reverse_indexing is False
        if reverse_indexing is not None and not alone:
            more["reverse_indexing"] = reverse_indexing
        super().__init__(keys, reader, **more)
        if alone:
            self.register(PILReader(reverse_indexing=False))


def leave_dicom_to_itk() -> None:
    """Take the readers that misplace slices out of MONAI's list; ITK's reads DICOM as well."""
    for name in PYDICOM_READERS:
        SUPPORTED_READERS.pop(name, None)
