"""Least numbers count persons: what makes two rows of a list one person, and what does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_client.persons import END_BYTES, count_persons

Items = list[dict[str, Any]]
Lists = Callable[[Path], Items]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images that differ, and a series in a folder."""
    for number in range(6):
        (tmp_path / f"{number}.nii").write_bytes(bytes([number]) * 100)
    (tmp_path / "series").mkdir()
    for number in range(3):
        (tmp_path / "series" / f"{number}.dcm").write_bytes(bytes([9, number]))
    return tmp_path


def rows(*paths: Path, **more: Any) -> Items:
    return [{"image": str(path), **more} for path in paths]


def linked(data: Path) -> Items:
    paths = [data / f"link_{number}.nii" for number in range(6)]
    for path in paths:
        path.symlink_to(data / "0.nii")
    return rows(*paths)


def hard_linked(data: Path) -> Items:
    paths = [data / f"hard_{number}.nii" for number in range(6)]
    for path in paths:
        os.link(data / "0.nii", path)
    return rows(*paths)


def copied(data: Path) -> Items:
    return rows(*(shutil.copy(data / "0.nii", data / f"copy_{n}.nii") for n in range(6)))


def by_a_linked_folder(data: Path) -> Items:
    for number in range(6):
        (data / f"folder_{number}").symlink_to(data)
    return rows(*(data / f"folder_{number}" / "0.nii" for number in range(6)))


def copied_series(data: Path) -> Items:
    folders = [data / f"series_{number}" for number in range(6)]
    for folder in folders:
        shutil.copytree(data / "series", folder)
        (folder / "0.dcm").rename(folder / "9.dcm")
    return rows(*folders)


def of_one(key: str, value: object = "p1") -> Lists:
    return lambda data: [{**row, key: value} for row in six(data)]


def six(data: Path) -> Items:
    return rows(*(data / f"{number}.nii" for number in range(6)))


ONE: dict[str, Lists] = {
    "the same row": lambda data: rows(data / "0.nii") * 6,
    "other labels": lambda data: [
        {"image": str(data / "0.nii"), "label": str(data / f"{n}.nii")} for n in range(6)
    ],
    "other spellings": lambda data: [
        {"image": f"{data}/{'./' * n}series/../0.nii"} for n in range(6)
    ],
    "symbolic links": linked,
    "hard links": hard_linked,
    "copies": copied,
    "a linked folder": by_a_linked_folder,
    "copies of a series": copied_series,
    "a patient id": of_one("patient_id"),
    "a patient id by DICOM": of_one("PatientID"),
    "a subject": of_one("subject"),
    "a subject with a hyphen": of_one("Subject-ID"),
    "a number as a patient": of_one("patient", 7),
    "a pseudonym": of_one("pseudonym"),
    "letters of two sizes": lambda data: [
        {**row, "patient": name}
        for row, name in zip(six(data), ["Ab", "aB ", "AB"] * 2, strict=True)
    ],
    "channels that are shared": lambda data: [
        {"image": [str(data / "0.nii"), str(data / f"{n}.nii")]} for n in range(6)
    ],
    "a chain of channels": lambda data: [
        {"image": [str(data / f"{n}.nii"), str(data / f"{n + 1}.nii")]} for n in range(5)
    ],
}


@pytest.mark.parametrize("name", ONE)
def test_one_person_stays_one(data: Path, name: str) -> None:
    assert count_persons(ONE[name](data)) == 1


SIX: dict[str, Lists] = {
    "six images": six,
    "a patient for each": lambda data: [
        {**row, "patient_id": n} for n, row in enumerate(six(data))
    ],
    "a key without a value": of_one("patient", None),
    "another key": of_one("center"),
    "labels that are alike": lambda data: [
        {**row, "label": str(data / "0.nii")} for row in six(data)
    ],
    "several channels": lambda data: [{"image": [row["image"], row["image"]]} for row in six(data)],
}


@pytest.mark.parametrize("name", SIX)
def test_six_persons_are_six(data: Path, name: str) -> None:
    assert count_persons(SIX[name](data)) == 6


def test_files_that_are_alike_at_both_ends_are_read_whole(tmp_path: Path) -> None:
    ends, paths = bytes(END_BYTES), [tmp_path / f"{n}.nii" for n in range(4)]
    for path, middle in zip(paths, (b"a", b"b", b"c", b"c"), strict=True):
        path.write_bytes(ends + middle + ends)

    assert count_persons(rows(*paths)) == 3


def test_a_series_is_the_same_by_whatever_names(tmp_path: Path) -> None:
    slices = {"first": ("1", "2"), "again": ("2", "1"), "other": ("1", "3")}
    for series, contents in slices.items():
        (tmp_path / series).mkdir()
        for name, content in zip("ab", contents, strict=True):
            (tmp_path / series / name).write_text(content)

    def persons(*series: str) -> int:
        return count_persons([{"image": str(tmp_path / one)} for one in series])

    assert persons("first", "again") == 1
    assert persons("first", "other") == 2


def test_an_image_and_a_key_may_join_three_rows(data: Path) -> None:
    items = [
        {"image": str(data / "0.nii"), "patient": "a"},
        {"image": str(data / "1.nii"), "patient": "a"},
        {"image": str(data / "1.nii"), "patient": "b"},
    ]

    assert count_persons(items) == 1


def test_a_site_can_name_the_key(data: Path) -> None:
    items = [{**row, "code": n % 2} for n, row in enumerate(six(data))]

    assert count_persons(items) == 6
    assert count_persons(items, "code") == 2
    assert count_persons(items, "missing") == 1
    codes = ("a0", " A0 ", "a1", "A1", "a2", "a2 ")  # each in two ways
    written = [{**row, "mrn": code} for row, code in zip(six(data), codes, strict=True)]
    assert count_persons(written, "mrn") == 3


def test_an_image_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        count_persons(rows(tmp_path / "none.nii"))
