import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fl_admin.demo_data import (
    BONE_HU,
    MARKER_FILE,
    MUSCLE_HU,
    PROFILES,
    SHAPE,
    DemoSite,
    site_profile,
    write_demo_data,
)
from mmar_runtime.errors import DataError

WINDOW_FLOOR_HU = -57
PATCH_VOXELS = 32


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoSite, ...]:
    return write_demo_data(tmp_path_factory.mktemp("demo") / "data")


def hashes(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_there_is_a_folder_for_each_site(demo):
    assert [site.name for site in demo] == ["site-1", "site-2", "site-3"]
    assert [site.directory.name for site in demo] == ["site-1", "site-2", "site-3"]
    assert {(len(site.training), len(site.validation)) for site in demo} == {(3, 2)}


def test_the_data_list_is_in_decathlon_style_and_relative_to_the_site(demo):
    for site in demo:
        content = json.loads(site.datalist.read_text())
        assert {"name", "description", "labels", "training", "validation", "test"} <= set(content)
        assert content["labels"] == {"0": "background", "1": "spleen"}
        assert content["training"][0] == {
            "image": f"imagesTr/{site.name}-case-1.nii.gz",
            "label": f"labelsTr/{site.name}-case-1.nii.gz",
        }
        assert content["test"] == [f"imagesTs/{site.name}-case-6.nii.gz"]


def test_the_data_list_names_every_file_of_the_site_and_no_other(demo):
    for site in demo:
        content = json.loads(site.datalist.read_text())
        entries = content["training"] + content["validation"]
        listed = [path for entry in entries for path in entry.values()] + content["test"]
        assert sorted([*listed, "dataset.json"]) == sorted(hashes(site.directory))


def test_images_are_int16_and_labels_mark_the_spleen_on_the_same_grid(demo):
    for site in demo:
        for case in (*site.training, *site.validation):
            image, label = nibabel.load(case.image), nibabel.load(case.label)
            assert image.get_data_dtype() == np.int16
            assert label.get_data_dtype() == np.uint8
            assert image.shape == label.shape == SHAPE
            np.testing.assert_array_equal(image.affine, label.affine)
            assert set(np.unique(voxels(case.label))) == {0, 1}


def test_the_affine_carries_the_spacing_of_the_site_in_mm(demo):
    for site, profile in zip(demo, PROFILES, strict=True):
        image = nibabel.load(site.training[0].image)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(np.diag(image.affine)[:3], profile.spacing_mm)


def test_intensities_are_those_of_ct(demo):
    for site in demo:
        image = voxels(site.training[0].image)
        assert image.min() < -950, "air around the body"
        assert 0.7 * BONE_HU < image.max() < 2 * BONE_HU, "the spine is the brightest"


def test_the_spleen_has_the_volume_of_a_spleen(demo):
    for site, profile in zip(demo, PROFILES, strict=True):
        voxel_ml = np.prod(profile.spacing_mm) / 1000
        for case in (*site.training, *site.validation):
            assert 100 < voxels(case.label).sum() * voxel_ml < 400


def test_the_spleen_stands_out_from_muscle_by_more_than_the_noise(demo):
    for site, profile in zip(demo, PROFILES, strict=True):
        for case in (*site.training, *site.validation):
            spleen_hu = np.median(voxels(case.image)[voxels(case.label) == 1])
            assert spleen_hu - (MUSCLE_HU + profile.offset_hu) > 2 * profile.noise_hu


def test_the_sites_differ_in_contrast(demo):
    site_hu = [
        np.median(voxels(site.training[0].image)[voxels(site.training[0].label) == 1])
        for site in demo
    ]
    assert site_hu[1] + 10 < min(site_hu[0], site_hu[2])


def test_a_training_patch_fits_in_what_is_left_after_the_crop_to_soft_tissue(demo):
    for site in demo:
        for case in (*site.training, *site.validation):
            soft_tissue = np.argwhere(voxels(case.image) > WINDOW_FLOOR_HU)
            assert (np.ptp(soft_tissue, axis=0) + 1 >= PATCH_VOXELS).all()


def test_the_same_seed_gives_the_same_bytes(demo, tmp_path):
    write_demo_data(tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(demo[0].directory.parent)


def test_another_seed_gives_other_patients(demo, tmp_path):
    (site,) = write_demo_data(tmp_path / "other", sites=1, seed=1)
    assert (voxels(site.training[0].label) != voxels(demo[0].training[0].label)).any()


def test_a_site_does_not_change_when_others_join(demo, tmp_path):
    (alone,) = write_demo_data(tmp_path / "alone", sites=1)
    assert hashes(alone.directory) == hashes(demo[0].directory)


def test_compressed_files_carry_no_time_and_no_name(demo):
    content = demo[0].training[0].image.read_bytes()
    assert content[4:8] == bytes(4), "the time of the gzip header"
    assert content[3] == 0, "the flags of the gzip header, of which one announces a file name"
    assert gzip.decompress(content)


def test_three_sites_take_a_few_megabytes(demo):
    root = demo[0].directory.parent
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 5e6


def test_the_fourth_site_is_a_variation_on_the_first():
    assert [site_profile(index, seed=0) for index in range(3)] == list(PROFILES)
    fourth = site_profile(3, seed=0)
    assert fourth.phase == PROFILES[0].phase
    assert fourth != PROFILES[0]
    assert fourth == site_profile(3, seed=0)
    assert fourth != site_profile(3, seed=1)


def test_nothing_is_left_beside_the_folder(tmp_path):
    write_demo_data(tmp_path / "data", sites=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_missing_parents_are_made_and_an_empty_folder_is_used(tmp_path):
    (tmp_path / "empty").mkdir()
    write_demo_data(tmp_path / "empty", sites=1)
    write_demo_data(tmp_path / "deep" / "down", sites=1)
    assert (tmp_path / "empty" / "site-1" / "dataset.json").is_file()
    assert (tmp_path / "deep" / "down" / "site-1" / "dataset.json").is_file()


def test_a_failure_on_the_way_leaves_things_as_they_were(tmp_path, monkeypatch):
    def no_space_left(*_: object) -> None:
        raise OSError("no space left on device")

    write_demo_data(tmp_path / "data", sites=1)
    before = hashes(tmp_path / "data")
    monkeypatch.setattr("fl_admin.demo_data._write_volume", no_space_left)
    with pytest.raises(DataError, match="no space left on device"):
        write_demo_data(tmp_path / "data", sites=1, seed=1, overwrite=True)
    with pytest.raises(DataError, match="no space left on device"):
        write_demo_data(tmp_path / "new", sites=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert hashes(tmp_path / "data") == before


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(DataError, match="is not empty"):
        write_demo_data(tmp_path, sites=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_overwriting_replaces_demo_data(tmp_path):
    write_demo_data(tmp_path / "data", sites=2)
    write_demo_data(tmp_path / "data", sites=1, seed=1, overwrite=True)
    write_demo_data(tmp_path / "expected", sites=1, seed=1)
    assert hashes(tmp_path / "data") == hashes(tmp_path / "expected")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "expected"]


def test_overwriting_refuses_a_folder_without_the_marker(tmp_path):
    (tmp_path / "site-1").mkdir()
    with pytest.raises(DataError, match="is not demo data"):
        write_demo_data(tmp_path, sites=1, overwrite=True)
    assert (tmp_path / "site-1").is_dir()


def test_overwriting_refuses_a_folder_to_which_something_was_added(tmp_path):
    write_demo_data(tmp_path / "data", sites=1)
    result = tmp_path / "data" / "site-1" / "model.pt"
    result.write_bytes(b"a night of training")
    with pytest.raises(DataError, match=r"site-1/model\.pt"):
        write_demo_data(tmp_path / "data", sites=1, overwrite=True)
    assert result.read_bytes() == b"a night of training"


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"files": 3}', '{"files": [["x"]]}'])
def test_overwriting_refuses_a_broken_marker(tmp_path, marker):
    (tmp_path / MARKER_FILE).write_text(marker)
    with pytest.raises(DataError, match="unreadable"):
        write_demo_data(tmp_path, sites=1, overwrite=True)
    assert (tmp_path / MARKER_FILE).read_text() == marker


def test_a_link_or_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    write_demo_data(tmp_path / "data", sites=1)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "file").write_text("mine")
    for name in ("link", "file"):
        with pytest.raises(DataError, match="is not a folder"):
            write_demo_data(tmp_path / name, sites=1, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("sites", "seed", "found"), [(0, 0, "sites=0"), (1, -1, "seed=-1")])
def test_counts_out_of_range_are_refused(tmp_path, sites, seed, found):
    with pytest.raises(DataError, match=found):
        write_demo_data(tmp_path / "data", sites=sites, seed=seed)
    assert not any(tmp_path.iterdir())


def test_importing_the_module_reads_no_imaging_or_training_library():
    check = (
        "import sys, fl_admin.demo_data;"
        "print(sorted({'nibabel', 'torch', 'monai'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
