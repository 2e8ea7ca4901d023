"""The readers of image files that MONAI's LoadImaged tries."""

from __future__ import annotations

from monai.data.nvimgcodec_pydicom_plugin import is_nvimgcodec_available
from monai.transforms.io.array import SUPPORTED_READERS


def leave_out_absent_readers() -> None:
    """Take NVIDIA's reader of DICOM out of MONAI's list where its decoder is not installed.

    MONAI would make it beside pydicom, warn twice for each LoadImaged, and read without it.
    """
    if not is_nvimgcodec_available():
        SUPPORTED_READERS.pop("nvimgcodecpydicomreader", None)
