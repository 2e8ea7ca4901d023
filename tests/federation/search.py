"""Where a text is held: in names and contents of files, in archives inside them, in other writings.

An archive is opened however deep it lies in another one; a text is also looked for in the encodings
in which it would pass unseen by a plain search.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

DEEPEST = 6
"""Archives within archives; a file that goes deeper fails the search."""


def files_with(folder: Path, texts: Iterable[str]) -> dict[str, list[str]]:
    """File -> those of the texts that it holds; files without any are left out."""
    wanted = {text: tuple(writings(text)) for text in texts}
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        contents = [name.encode()]
        if path.is_symlink():
            contents.append(bytes(path.readlink()))
        elif path.is_file():
            contents += unpacked(path.read_bytes())
        held = [
            text
            for text, forms in wanted.items()
            if any(form in content for content in contents for form in forms)
        ]
        if held:
            found[name] = held
    return found


def writings(text: str) -> Iterator[bytes]:
    """A text as it stands in a file: plain, in UTF-16, in hexadecimal digits, in base64."""
    plain = text.encode()
    yield plain
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    yield plain.hex().encode()
    for offset in range(3):
        # The characters that the bytes around it have a part in are left out.
        coded = base64.b64encode(b"\0" * offset + plain)
        yield coded[4 if offset else 0 : -4]
    yield plain[::-1]


def unpacked(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """The content itself, and whatever is packed in it."""
    assert depth <= DEEPEST
    yield content
    for inner in _members(content):
        yield from unpacked(inner, depth + 1)


def _members(content: bytes) -> Iterator[bytes]:
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                yield member.filename.encode()
                yield archive.read(member)
    for start, unpack in (
        (b"\x1f\x8b", gzip.decompress),
        (b"BZh", bz2.decompress),
        (b"\xfd7zXZ", lzma.decompress),
        (b"\x78", zlib.decompress),
    ):
        if content.startswith(start):
            try:
                yield unpack(content)
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
                continue
