"""Images of other formats than NIfTI: each voxel where the file says that it is, in RAS mm.

The reader comes with the extra ``itk``; pydicom only writes the files. All volumes here are
oblique: their axes lie along no axis of the patient, so that an exchanged axis or a lost sign
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from monai.transforms.io.array import SUPPORTED_READERS

from mmar_runtime.components.images.image_readers import leave_dicom_to_itk

SHAPE = 5, 4, 3
"""Columns, rows and slices."""

SPACING = 0.5, 2.0, 3.0
"""mm between columns, rows and slices."""

ORIGIN = 10.0, -20.0, 30.0
"""The first voxel's position in LPS mm."""

VOXELS = np.arange(60, dtype=np.int16).reshape(SHAPE)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def direction() -> np.ndarray:
    """A rotation about two axes: the columns are the directions of the volume's axes in LPS."""
    a, b = np.deg2rad(20), np.deg2rad(-35)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def affine() -> np.ndarray:
    """From the numbers of a voxel to its position in RAS mm."""
    lps = np.eye(4)
    lps[:3, :3] = direction() * SPACING
    lps[:3, 3] = ORIGIN
    return LPS_TO_RAS @ lps


def loaded(path: Path, **arguments: Any) -> Any:
    leave_dicom_to_itk()
    return LoadImaged(keys="image", image_only=True, **arguments)({"image": str(path)})["image"]


def same_places(image: Any) -> bool:
    """Whether each value of the image lies where ``affine`` puts it, whatever the order of axes."""
    found = image.affine.numpy()
    for index in np.ndindex(*image.shape):
        place = found @ [*index, 1]
        at = np.linalg.solve(affine(), place)[:3]
        number = tuple(np.rint(at).astype(int))
        if not np.allclose(at, number, atol=1e-3) or image[index] != VOXELS[number]:
            return False
    return bool(image.numel() == VOXELS.size)


# --- MetaImage and NRRD --------------------------------------------------------------------------


def write_mha(path: Path) -> Path:
    matrix = " ".join(map(str, direction().T.ravel()))
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"TransformMatrix = {matrix}\nOffset = {' '.join(map(str, ORIGIN))}\n"
        f"ElementSpacing = {' '.join(map(str, SPACING))}\nDimSize = {' '.join(map(str, SHAPE))}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + VOXELS.tobytes(order="F"))
    return path


def write_nrrd(path: Path) -> Path:
    axes = (direction() * SPACING).T
    directions = " ".join(f"({','.join(map(str, axis))})" for axis in axes)
    header = (
        "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, SHAPE))}\nspace directions: {directions}\nendian: little\n"
        f"encoding: raw\nspace origin: ({','.join(map(str, ORIGIN))})\n\n"
    )
    path.write_bytes(header.encode() + VOXELS.tobytes(order="F"))
    return path


@pytest.mark.parametrize(("name", "write"), [("a.mha", write_mha), ("a.nrrd", write_nrrd)])
def test_an_oblique_volume_lies_where_its_header_says(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    pytest.importorskip("itk", reason="needs the extra `itk`")

    image = loaded(write(tmp_path / name))

    assert torch.equal(image.as_tensor(), torch.from_numpy(VOXELS).float())
    assert np.allclose(image.affine, affine(), atol=1e-5)


# --- DICOM ---------------------------------------------------------------------------------------


def data_set(instance: int) -> Any:
    """A CT image without its place and pixels."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{instance}"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, f"1.2.3.{instance}"
    made.Modality, made.PatientID, made.InstanceNumber = "CT", "1", instance
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.4", "1.2.5"
    made.FrameOfReferenceUID = "1.2.6"
    made.Columns, made.Rows = SHAPE[0], SHAPE[1]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    made.RescaleSlope, made.RescaleIntercept = 2, -10
    return made


def stored(voxels: np.ndarray) -> bytes:
    """Rows after rows, as stored: the rescaling gives back the voxels, doubled less ten."""
    return np.ascontiguousarray(voxels.T).astype("<i2").tobytes()


def orientation() -> list[str]:
    return decimals([*direction()[:, 0], *direction()[:, 1]])


def position(slice_: int) -> list[str]:
    return decimals(np.array(ORIGIN) + slice_ * SPACING[2] * direction()[:, 2])


def decimals(numbers: Iterable[float]) -> list[str]:
    """Numbers as DICOM has them, in at most 16 characters."""
    return [f"{number:.10f}" for number in numbers]


def write_series(folder: Path) -> Path:
    """A file for each slice; neither the names nor the instance numbers are in their order."""
    folder.mkdir()
    for slice_, (name, instance) in enumerate([("b", 3), ("c", 1), ("a", 2)]):
        made = data_set(instance)
        made.ImageOrientationPatient, made.ImagePositionPatient = orientation(), position(slice_)
        made.PixelSpacing, made.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        made.PixelData = stored(VOXELS[:, :, slice_])
        made.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return folder


def write_frames(path: Path) -> Path:
    """All slices in a file, as scanners write an enhanced CT."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    made = data_set(1)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    made.NumberOfFrames = SHAPE[2]
    measures, plane, rescale, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    measures.SpacingBetweenSlices = SPACING[2]
    plane.ImageOrientationPatient = orientation()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 2, -10, "HU"
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for slice_ in range(SHAPE[2]):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = position(slice_)
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    made.PixelData = b"".join(stored(VOXELS[:, :, slice_]) for slice_ in range(SHAPE[2]))
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("reader", ["ITKReader", None])
@pytest.mark.parametrize("write", [write_series, write_frames])
def test_a_voxel_of_dicom_lies_where_its_slice_does(
    write: Callable[[Path], Path], reader: str | None, tmp_path: Path
) -> None:
    pytest.importorskip("pydicom", reason="pydicom writes the files")
    pytest.importorskip("itk", reason="needs the extra `itk`")

    image = loaded(write(tmp_path / "series.dcm"), reader=reader)

    assert same_places((image + 10) / 2)


def test_without_itk_dicom_has_no_reader_that_could_misplace_slices(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="pydicom writes the files")

    with pytest.raises(RuntimeError, match="cannot find a suitable reader"):
        without_itk(write_series(tmp_path / "series"))


def without_itk(path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai.data.image_reader.has_itk", False)
        # A copy: what is put back stands at the end, and MONAI tries the last reader first.
        others = {name: one for name, one in SUPPORTED_READERS.items() if name != "itkreader"}
        patch.setattr("monai.transforms.io.array.SUPPORTED_READERS", others)
        return loaded(path)
