"""The readers of image files that MONAI's LoadImaged tries by itself."""

from __future__ import annotations

from monai.transforms.io.array import SUPPORTED_READERS

PYDICOM_READERS = ("nvimgcodecpydicomreader", "pydicomreader")
"""They order the slices of a series by their numbers, and give frames of one file no place."""


def leave_dicom_to_itk() -> None:
    """Take the readers that misplace slices out of MONAI's list; ITK's reads DICOM as well."""
    for name in PYDICOM_READERS:
        SUPPORTED_READERS.pop(name, None)
