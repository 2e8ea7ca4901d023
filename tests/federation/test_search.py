"""The search for planted texts finds them where a plain one would not; else nothing is proved."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.federation.search import files_with

TEXT = "DOE_JOHN_1961"


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/file", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.encode(),
        lambda text: b"\0\1" + text.encode() + b"\xff",
        lambda text: text.encode("utf-16"),
        lambda text: text.encode().hex().encode(),
        *(
            lambda text, n=n: base64.b64encode(b"x" * n + text.encode() + b"y" * 5)
            for n in range(3)
        ),
        lambda text: gzip.compress(text.encode()),
        lambda text: zipped(text.encode()),
        lambda text: zipped(b"x" + zipped(gzip.compress(text.encode()))),
    ],
)
def test_a_text_is_found_in_every_writing(tmp_path: Path, write: Callable[[str], bytes]) -> None:
    (tmp_path / "held").write_bytes(write(TEXT))
    (tmp_path / "other").write_bytes(write("ROE_JANE_1958"))

    assert files_with(tmp_path, [TEXT]) == {"held": [TEXT]}


def test_a_name_of_a_file_and_the_target_of_a_link_count_as_well(tmp_path: Path) -> None:
    (tmp_path / f"{TEXT}.nii").touch()
    (tmp_path / "link").symlink_to(f"/data/{TEXT}")

    assert sorted(files_with(tmp_path, [TEXT])) == [f"{TEXT}.nii", "link"]


def test_a_member_of_an_archive_counts_by_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipped(b"").decode("latin-1")[:3] + TEXT, b"")

    assert files_with(tmp_path, [TEXT]) == {"a.zip": [TEXT]}
