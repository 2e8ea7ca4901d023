"""``mmar upgrade``: show, or write, the loader's translations of an old MMAR's documents."""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from mmar_runtime.cli.common import add_output_arguments, print_json
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.config.upgrades import Upgrade, upgrade_document
from mmar_runtime.errors import ConfigError, MmarError, Problem
from mmar_runtime.files import write_atomically, write_text_atomically
from mmar_runtime.mmar import ENGINES, Mmar

HELP = "bring an old MMAR's configs to today's names and dialect"
EXAMPLES = """examples:
  mmar upgrade path/to/mmar            (shows the changes, writes nothing)
  mmar upgrade path/to/mmar --write    (keeps each original as NAME.json.orig)

An MMAR runs without this: the loader makes the changes in memory each time.
"""

LINE = 88
"""The longest array of plain values, in characters, that stays on a line."""


@dataclass(frozen=True, slots=True)
class DocumentUpgrade:
    """A document of an MMAR before and after its upgrade."""

    path: Path
    before: Mapping[str, Any]
    upgrade: Upgrade

    @property
    def diff(self) -> str:
        """The change as a unified diff of both in the same layout."""
        name = f"config/{self.path.name}"
        lines = difflib.unified_diff(
            document_text(self.before).splitlines(keepends=True),
            document_text(self.upgrade.document).splitlines(keepends=True),
            fromfile=name,
            tofile=f"{name} (upgraded)",
        )
        return "".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("mmar", type=Path, metavar="DIR", help="the MMAR's folder")
    parser.add_argument("--write", action="store_true", help="write the upgraded documents")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Show or write the changes of every workflow document."""
    changed = [
        document
        for document in document_upgrades(Mmar.open(options.mmar))
        if document.upgrade.notices
    ]
    kept = write_upgrades(changed) if options.write else {}
    if options.json:
        print_json(
            [
                {
                    "file": str(document.path),
                    "original": str(kept[document.path]) if document.path in kept else None,
                    "rules": [notice.rule for notice in document.upgrade.notices],
                    "document": document.upgrade.document,
                }
                for document in changed
            ]
        )
        return 0
    for document in changed:
        if not options.write:
            print(document.diff)
        for notice in document.upgrade.notices:
            print(f"{notice.rule}: {notice}")
    documents = "1 document" if len(changed) == 1 else f"{len(changed)} documents"
    if kept:
        print(f"wrote {documents}; originals: {', '.join(path.name for path in kept.values())}")
    else:
        print(f"{documents} would change; write with --write" if changed else "nothing to upgrade")
    return 0


def document_upgrades(mmar: Mmar) -> list[DocumentUpgrade]:
    """Return each workflow document of an MMAR with its upgrade, in the order of the names.

    Raises:
        ConfigError: documents are not valid JSON, with the faults of all of them.
    """
    upgrades: list[DocumentUpgrade] = []
    problems: list[Problem] = []
    for path in sorted((mmar.root / "config").glob("*.json")):
        try:
            document = read_json(path)
        except ConfigError as error:
            problems += error.problems
            continue
        if isinstance(document, dict) and ENGINES & document.keys():
            upgrades.append(DocumentUpgrade(path, document, upgrade_document(document, path.name)))
    if problems:
        raise ConfigError(problems)
    return upgrades


def write_upgrades(changed: list[DocumentUpgrade]) -> dict[Path, Path]:
    """Put the upgraded documents in their places; return document -> copy of its original.

    Raises:
        ConfigError: some are read-only; none has been written.
        MmarError: the folder cannot be written to.
    """
    problems = [
        Problem(
            Location(document.path.name),
            "is read-only",
            "Make it writable, or leave it: an MMAR runs without being upgraded on disk.",
            "read-only",
        )
        for document in changed
        if not document.path.stat().st_mode & 0o222
    ]
    if problems:
        raise ConfigError(problems)
    kept: dict[Path, Path] = {}
    for document in changed:
        try:
            kept[document.path] = _write(document)
        except OSError as error:
            done = ", ".join(path.name for path in kept) or "nothing"
            raise MmarError(
                f"{document.path} cannot be written: {error.strerror}\n    Written so far: {done}."
            ) from error
    return kept


def _write(document: DocumentUpgrade) -> Path:
    ends = ("" if number == 1 else f".{number}" for number in count(1))
    originals = (document.path.with_name(f"{document.path.name}.orig{end}") for end in ends)
    original = next(path for path in originals if not path.exists())
    content = document.path.read_bytes()
    write_atomically(original, lambda stream: stream.write(content))
    shutil.copymode(document.path, original)
    write_text_atomically(document.path, document_text(document.upgrade.document))
    shutil.copymode(original, document.path)
    return original


def document_text(document: Mapping[str, Any]) -> str:
    """Return a document as JSON, with short arrays on one line as people write them."""
    text = _laid_out(document, "") + "\n"
    # A lone surrogate has no UTF-8; an escape preserves it.
    return text.encode(errors="backslashreplace").decode()


def _laid_out(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, Mapping) and value:
        lines = [f"{_on_one_line(key)}: {_laid_out(item, inner)}" for key, item in value.items()]
        return _block("{", lines, "}", indent)
    if isinstance(value, list) and value:
        line = _on_one_line(value)
        if len(line) <= LINE and not any(isinstance(item, dict | list) for item in value):
            return line
        return _block("[", [_laid_out(item, inner) for item in value], "]", indent)
    return _on_one_line(value)


def _on_one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _block(start: str, lines: list[str], end: str, indent: str) -> str:
    content = ",\n".join(f"{indent}  {line}" for line in lines)
    return f"{start}\n{content}\n{indent}{end}"
