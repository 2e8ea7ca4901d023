"""``mmar upgrade``: show, or write down, what the loader translates in an old MMAR's documents."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.cli.common import add_output_arguments, print_json
from mmar_runtime.config.sources import read_json
from mmar_runtime.config.upgrades import Upgrade, upgrade_document
from mmar_runtime.files import write_text_atomically
from mmar_runtime.mmar import Mmar

HELP = "bring an old MMAR's configs to today's names and dialect"
EXAMPLES = """examples:
  mmar upgrade path/to/mmar            (shows the changes, writes nothing)
  mmar upgrade path/to/mmar --write    (keeps each original as NAME.json.orig)

An MMAR runs without this: the same changes are made in memory whenever it is loaded.
"""

ENGINES = ("train", "trainer", "evaluator", "validate")
"""What tells a workflow from the other documents in ``config``."""


@dataclass(frozen=True, slots=True)
class DocumentUpgrade:
    """One document of an MMAR before and after."""

    path: Path
    before: Mapping[str, Any]
    upgrade: Upgrade

    @property
    def diff(self) -> str:
        """The change as a unified diff of both in the same layout."""
        name = f"config/{self.path.name}"
        lines = difflib.unified_diff(
            _text(self.before).splitlines(keepends=True),
            _text(self.upgrade.document).splitlines(keepends=True),
            fromfile=name,
            tofile=f"{name} (upgraded)",
        )
        return "".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("mmar", type=Path, metavar="DIR", help="the MMAR's folder")
    parser.add_argument("--write", action="store_true", help="write the upgraded documents")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Show or write the changes of every workflow document."""
    changed = [one for one in document_upgrades(Mmar.open(options.mmar)) if one.upgrade.notices]
    kept = [write_upgrade(one) for one in changed] if options.write else []
    if options.json:
        print_json(
            [
                {
                    "file": str(one.path),
                    "rules": [notice.rule for notice in one.upgrade.notices],
                    "document": one.upgrade.document,
                }
                for one in changed
            ]
        )
        return 0
    for one in changed:
        if not options.write:
            print(one.diff)
        for notice in one.upgrade.notices:
            print(f"{notice.rule}: {notice}")
    if not changed:
        print("nothing to upgrade")
    elif options.write:
        print(f"wrote {len(changed)} documents; originals: {', '.join(map(str, kept))}")
    else:
        print(f"{len(changed)} documents would change; write them with --write")
    return 0


def document_upgrades(mmar: Mmar) -> Iterator[DocumentUpgrade]:
    """Each workflow document of an MMAR with its upgrade, in the order of the names.

    Raises:
        ConfigError: a document is no valid JSON.
    """
    for path in sorted((mmar.root / "config").glob("*.json")):
        document = read_json(path)
        if isinstance(document, dict) and any(key in document for key in ENGINES):
            yield DocumentUpgrade(path, document, upgrade_document(document, path.name))


def write_upgrade(one: DocumentUpgrade) -> Path:
    """Put the upgraded document in its place; returns where the original is kept."""
    original = _free_name(one.path)
    write_text_atomically(original, one.path.read_text(encoding="utf-8"))
    write_text_atomically(one.path, _text(one.upgrade.document))
    return original


def _free_name(path: Path) -> Path:
    candidate, number = path.with_name(f"{path.name}.orig"), 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.orig.{number}")
    return candidate


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
