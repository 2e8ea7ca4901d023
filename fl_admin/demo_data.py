"""A made-up abdominal CT data set, one folder per site, to try a federation without patients.

Each volume is a phantom: an oval body with a rim of fat, spine, aorta, liver, kidneys, a stomach
with gas, and a bean-shaped spleen, which is the label. The sites differ the way hospitals do, in
contrast phase, noise, spacing and organ size. Positions are millimetres from the middle of the
body, right, anterior and superior being positive; intensities are Hounsfield units (HU).

The numbers are chosen so that a small network learns the spleen within a minute on one core. A Dice
score reached here says that the plumbing works, and nothing about patients.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmar_runtime.errors import DataError
from mmar_runtime.files import replace_folder, write_json

Floats: TypeAlias = NDArray[np.floating]
Mask: TypeAlias = NDArray[np.bool_]
Triple: TypeAlias = tuple[float, float, float]
Grid: TypeAlias = tuple[Floats, Floats, Floats]

SHAPE = (64, 64, 40)
SPLEEN_LABEL = 1
TRAINING_CASES = 3
VALIDATION_CASES = 2
TEST_CASES = 1
MARKER_FILE = ".mmar-demo-data.json"

AIR_HU = -1000.0
FAT_HU = -100.0
MUSCLE_HU = 45.0
STOMACH_HU = 25.0
BONE_HU = 420.0
FAT_RIM_MM = 14.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteProfile:
    """How one site's scans look.

    Attributes:
        phase: the contrast phase, in words.
        spacing_mm: voxel size along the three axes.
        spleen_hu: mean intensity of the spleen; likewise for the other organs.
        mottle_hu: amplitude of the bands across the spleen in early enhancement.
        noise_hu: standard deviation of the voxel noise.
        offset_hu: calibration error of the scanner, added to everything but air.
        body_scale: size of the body relative to the first site's patients.
        spleen_scale: length of the spleen relative to the first site's patients.
    """

    phase: str
    spacing_mm: Triple
    spleen_hu: float
    liver_hu: float
    kidney_hu: float
    aorta_hu: float
    mottle_hu: float = 0.0
    noise_hu: float
    offset_hu: float = 0.0
    body_scale: float = 1.0
    spleen_scale: float = 1.0


PROFILES = (
    SiteProfile(
        phase="portal venous", spacing_mm=(5.0, 5.0, 5.0), noise_hu=8.0,
        spleen_hu=120.0, liver_hu=105.0, kidney_hu=170.0, aorta_hu=150.0,
    ),
    SiteProfile(
        phase="low contrast", spacing_mm=(5.2, 5.2, 5.0), noise_hu=11.0, offset_hu=8.0,
        spleen_hu=88.0, liver_hu=98.0, kidney_hu=105.0, aorta_hu=95.0,
        body_scale=1.06, spleen_scale=0.9,
    ),
    SiteProfile(
        phase="arterial", spacing_mm=(5.0, 5.0, 6.0), noise_hu=9.0, offset_hu=-10.0,
        spleen_hu=135.0, liver_hu=70.0, kidney_hu=190.0, aorta_hu=280.0, mottle_hu=20.0,
        spleen_scale=1.15,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoCase:
    """One labelled volume on disk.

    Attributes:
        image: NIfTI file, int16 HU, axes ``(right, anterior, superior)``.
        label: NIfTI file on the same grid, uint8, 1 inside the spleen.
    """

    image: Path
    label: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSite:
    """What was written for one site.

    Attributes:
        name: ``site-1``, ``site-2``, and so on.
        directory: the site's folder; the paths in the data list are relative to it.
        datalist: the site's ``dataset.json``.
        training: the cases under ``training``, in the order of the data list.
        validation: the cases under ``validation``, likewise.
    """

    name: str
    directory: Path
    datalist: Path
    training: tuple[DemoCase, ...]
    validation: tuple[DemoCase, ...]

    @classmethod
    def read(cls, directory: Path) -> DemoSite:
        """Return what is in a site's folder."""
        datalist = directory / "dataset.json"
        content = json.loads(datalist.read_text(encoding="utf-8"))
        training, validation = (
            tuple(DemoCase(directory / case["image"], directory / case["label"]) for case in cases)
            for cases in (content["training"], content["validation"])
        )
        return cls(
            name=directory.name,
            directory=directory,
            datalist=datalist,
            training=training,
            validation=validation,
        )


def write_demo_data(
    directory: Path, *, sites: int = 3, seed: int = 0, overwrite: bool = False
) -> tuple[DemoSite, ...]:
    """Write one folder of phantom scans per site and say what is in them.

    The same arguments give the same files, byte for byte. A site's files depend on ``seed`` and
    on the site's number only, so a federation can grow without changing the sites it has. The
    folder appears whole or not at all.

    Args:
        directory: where the site folders go; it must not exist yet, or be empty.
        sites: how many sites to write, at least 1.
        seed: 0 or more; another seed draws other patients from the same sites.
        overwrite: replace ``directory`` if this function wrote it and nothing was added since.

    Raises:
        DataError: there is something at ``directory`` that must not be replaced, the folder
            cannot be written, or ``sites`` or ``seed`` is out of range.
    """
    if sites < 1:
        raise DataError(f"the demo data needs at least 1 site, found sites={sites!r}")
    if seed < 0:
        raise DataError(f"the seed of the demo data must be 0 or more, found seed={seed!r}")
    _refuse_to_replace(directory, overwrite=overwrite)
    names = tuple(f"site-{number}" for number in range(1, sites + 1))
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".demo-data-") as scratch:
            fresh = Path(scratch) / "fresh"
            for index, name in enumerate(names):
                _write_site(fresh / name, index, seed)
            write_json(fresh / MARKER_FILE, {"files": sorted(_files_below(fresh))})
            replace_folder(fresh, directory, previous=Path(scratch) / "previous")
    except OSError as error:
        raise DataError(f"cannot write the demo data to {directory}: {error}") from error
    return tuple(DemoSite.read(directory / name) for name in names)


def site_profile(index: int, seed: int) -> SiteProfile:
    """Return the look of site number ``index``, from 0; the profiles repeat after the third.

    The first three are ``PROFILES`` as they stand. Later ones differ a little from the profile
    that they repeat, by an amount drawn from ``seed``.
    """
    profile = PROFILES[index % len(PROFILES)]
    if index < len(PROFILES):
        return profile
    rng = np.random.default_rng([seed, index])
    return replace(
        profile,
        spleen_hu=profile.spleen_hu + rng.uniform(-4, 4),
        liver_hu=profile.liver_hu + rng.uniform(-4, 4),
        kidney_hu=profile.kidney_hu + rng.uniform(-8, 8),
        noise_hu=profile.noise_hu * rng.uniform(0.9, 1.1),
        offset_hu=profile.offset_hu + rng.uniform(-4, 4),
        body_scale=profile.body_scale * rng.uniform(0.98, 1.02),
        spleen_scale=profile.spleen_scale * rng.uniform(0.95, 1.05),
    )


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid along the axes of the body, in mm; an infinite radius makes a cylinder."""

    centre_mm: Triple
    radii_mm: Triple

    def contains(self, grid: Grid) -> Mask:
        """Return which voxels lie inside; axes as those of ``grid`` taken together."""
        squares = (
            ((axis - centre) / radius) ** 2
            for axis, centre, radius in zip(grid, self.centre_mm, self.radii_mm, strict=True)
        )
        return np.asarray(sum(squares) <= 1.0)

    def scaled(self, factor: float) -> Ellipsoid:
        """Return the same place, every radius times ``factor``."""
        x, y, z = self.radii_mm
        return Ellipsoid(self.centre_mm, (x * factor, y * factor, z * factor))

    def moved(self, shift_mm: Triple) -> Ellipsoid:
        """Return the same size, the centre ``shift_mm`` further."""
        x, y, z = self.centre_mm
        return Ellipsoid((x + shift_mm[0], y + shift_mm[1], z + shift_mm[2]), self.radii_mm)


# The soft tissue is what survives a window that starts at -57 HU, and cropping to the foreground
# cuts away all else. It must stay wider than the 32 voxels of a training patch, at any spacing.
TRUNK = Ellipsoid((0, 0, 0), (140, 108, np.inf))
SPINE = Ellipsoid((0, -62, 0), (19, 19, np.inf))
AORTA = Ellipsoid((-12, -30, 0), (10, 10, np.inf))
LIVER = Ellipsoid((55, 12, 30), (66, 70, 62))
KIDNEYS = (Ellipsoid((56, -45, -40), (23, 21, 42)), Ellipsoid((-56, -45, -40), (23, 21, 42)))
STOMACH = Ellipsoid((-45, 38, 35), (38, 32, 40))
GAS = Ellipsoid((-45, 58, 35), (26, 14, 28))
SPLEEN = Ellipsoid((-84, -32, 30), (30, 42, 46))
HILUM = Ellipsoid((-54, -16, 30), (20, 24, 32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One patient: where the organs are, in mm. The hilum is the hollow of the spleen."""

    trunk: Ellipsoid
    soft_tissue: Ellipsoid
    liver: Ellipsoid
    kidneys: tuple[Ellipsoid, ...]
    stomach: Ellipsoid
    gas: Ellipsoid
    spleen: Ellipsoid
    hilum: Ellipsoid


def draw_anatomy(profile: SiteProfile, rng: np.random.Generator) -> Anatomy:
    """Return a patient as they come to this site, differing from the next in size and position."""
    size = profile.body_scale * rng.uniform(0.97, 1.03)
    spleen_size = profile.spleen_scale * rng.uniform(0.9, 1.1)
    spleen_shift = _draw_shift(rng, 7.0)
    stomach_shift = _draw_shift(rng, 6.0)
    trunk = TRUNK.scaled(size)
    right, front, height = trunk.radii_mm
    return Anatomy(
        trunk=trunk,
        soft_tissue=Ellipsoid(trunk.centre_mm, (right - FAT_RIM_MM, front - FAT_RIM_MM, height)),
        liver=LIVER.scaled(rng.uniform(0.9, 1.1)).moved(_draw_shift(rng, 8.0)),
        kidneys=tuple(
            kidney.scaled(rng.uniform(0.9, 1.1)).moved(_draw_shift(rng, 6.0)) for kidney in KIDNEYS
        ),
        stomach=STOMACH.moved(stomach_shift),
        gas=GAS.moved(stomach_shift),
        spleen=SPLEEN.scaled(spleen_size).moved(spleen_shift),
        hilum=HILUM.scaled(spleen_size).moved(spleen_shift),
    )


def scan(
    anatomy: Anatomy, profile: SiteProfile, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return a patient's volume in HU and its label, both ``(right, anterior, superior)``."""
    grid = _grid_mm(profile.spacing_mm)
    soft_tissue = anatomy.soft_tissue.contains(grid)
    spleen = anatomy.spleen.contains(grid) & ~anatomy.hilum.contains(grid) & soft_tissue
    hu = np.full(SHAPE, AIR_HU)
    trunk = np.broadcast_to(anatomy.trunk.contains(grid), SHAPE)
    hu[trunk] = FAT_HU
    for mask, organ_hu in (
        (soft_tissue, MUSCLE_HU),
        (anatomy.liver.contains(grid) & soft_tissue, profile.liver_hu),
        (anatomy.stomach.contains(grid) & soft_tissue, STOMACH_HU),
        (anatomy.gas.contains(grid) & soft_tissue, AIR_HU),
        *((kidney.contains(grid) & soft_tissue, profile.kidney_hu) for kidney in anatomy.kidneys),
        (spleen, profile.spleen_hu),
        (SPINE.contains(grid), BONE_HU),
        (AORTA.contains(grid), profile.aorta_hu),
    ):
        hu[np.broadcast_to(mask, SHAPE)] = organ_hu
    x, y, z = grid
    bands = np.sin((x + y + 0.5 * z) / 4.0)  # 25 mm apart, as early enhancement of the spleen shows
    hu[spleen] += profile.mottle_hu * bands[spleen]
    hu[trunk] += profile.offset_hu + _smooth_noise(rng, 4.0)[trunk]
    hu = _blur(hu) + rng.normal(0.0, profile.noise_hu, SHAPE)
    return np.round(hu).clip(-1024, 3071).astype(np.int16), spleen.astype(np.uint8) * SPLEEN_LABEL


def _draw_shift(rng: np.random.Generator, limit_mm: float) -> Triple:
    x, y, z = rng.uniform(-limit_mm, limit_mm, 3)
    return float(x), float(y), float(z)


def _grid_mm(spacing_mm: Triple) -> Grid:
    """Positions of the voxel centres, one axis each, shaped to broadcast to the volume."""
    x, y, z = (
        step * (np.arange(count) - (count - 1) / 2)
        for count, step in zip(SHAPE, spacing_mm, strict=True)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _smooth_noise(rng: np.random.Generator, amplitude_hu: float) -> Floats:
    """Slow changes of intensity across the volume: noise on a grid of 8 voxels, interpolated."""
    field: Floats = rng.normal(0.0, amplitude_hu, tuple(count // 8 + 1 for count in SHAPE))
    for axis, count in enumerate(SHAPE):
        known = np.arange(field.shape[axis])
        places = np.linspace(0, known[-1], count)
        field = np.apply_along_axis(partial(np.interp, places, known), axis, field)
    return field


def _blur(volume: Floats) -> Floats:
    """Apply the partial volume effect: a voxel takes a quarter from either neighbour per axis."""
    for axis in range(volume.ndim):
        ends = [(1, 1) if axis == other else (0, 0) for other in range(volume.ndim)]
        lower, middle, upper = (
            np.take(np.pad(volume, ends, mode="edge"), range(start, start + SHAPE[axis]), axis)
            for start in range(3)
        )
        volume = lower / 4 + middle / 2 + upper / 4
    return volume


def _refuse_to_replace(directory: Path, *, overwrite: bool) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise DataError(f"{directory} is not a folder; name another place for the demo data")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise DataError(
            f"{directory} is not empty; name another folder, or replace demo data by --overwrite"
        )
    marker = directory / MARKER_FILE
    if not marker.is_file():
        raise DataError(
            f"{directory} holds no {MARKER_FILE}, so it is not demo data and stays as it is; "
            "name another folder"
        )
    try:
        written = {MARKER_FILE, *json.loads(marker.read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{marker} is unreadable, so {directory.name} stays as it is; name another folder"
        ) from error
    if strangers := _files_below(directory) - written:
        raise DataError(
            f"{directory} holds files that are not demo data, {min(strangers)!r} for one; "
            "move them away first"
        )


def _files_below(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _write_site(directory: Path, index: int, seed: int) -> None:
    profile = site_profile(index, seed)
    labelled = _case_names(directory.name, 0, TRAINING_CASES + VALIDATION_CASES)
    unlabelled = _case_names(directory.name, len(labelled), TEST_CASES)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (directory / folder).mkdir(parents=True)
    for number, name in enumerate(labelled + unlabelled):
        rng = np.random.default_rng([seed, index, number])
        image, label = scan(draw_anatomy(profile, rng), profile, rng)
        if name in labelled:
            _write_volume(directory / "imagesTr" / name, image, profile.spacing_mm)
            _write_volume(directory / "labelsTr" / name, label, profile.spacing_mm)
        else:
            _write_volume(directory / "imagesTs" / name, image, profile.spacing_mm)
    datalist = {
        "name": f"phantom spleen, {directory.name}",
        "description": f"made-up abdominal CT, {profile.phase}; no patient data",
        "modality": {"0": "CT"},
        "labels": {"0": "background", str(SPLEEN_LABEL): "spleen"},
        "training": _entries(labelled[:TRAINING_CASES]),
        "validation": _entries(labelled[TRAINING_CASES:]),
        "test": [f"imagesTs/{name}" for name in unlabelled],
    }
    write_json(directory / "dataset.json", datalist)


def _case_names(site: str, before: int, count: int) -> list[str]:
    return [f"{site}-case-{before + number}.nii.gz" for number in range(1, count + 1)]


def _entries(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"image": f"imagesTr/{name}", "label": f"labelsTr/{name}"} for name in names]


def _write_volume(
    path: Path, volume: NDArray[np.int16] | NDArray[np.uint8], spacing_mm: Triple
) -> None:
    # Imported here because nobody needs it until a volume is written, and nor does the command
    # line, which imports this module to know its options.
    import nibabel

    # nibabel is typed in part only, and not here.
    nifti: Any = nibabel.Nifti1Image
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [axis.flat[0] for axis in _grid_mm(spacing_mm)]
    image = nifti(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    # Without a time stamp or file name, so that equal volumes give equal files.
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed,
    ):
        packed.write(image.to_bytes())
