"""``mmar audit``: is the log of a site or a server as it was written?

Each line of the log carries the digest of the line before, so a line that was changed, added or
taken out is found. Lines that were taken away from the end are found only with --expect, the digest
that an earlier run has printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmar_runtime.cli.common import print_json

HELP = "verify the audit log of a site or a server"
EXAMPLES = """examples:
  mmar audit verify audit/mmar_audit.jsonl
  mmar audit verify audit/mmar_audit.jsonl --expect 9f86d081...  (the digest of an earlier run)

exit code: 0 the log is intact, 3 it is not, 2 it cannot be asked so
"""

BROKEN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    verify = actions.add_parser("verify", help="check every line of a log")
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a log")
    verify.add_argument(
        "--expect", metavar="DIGEST", help="a digest that one of the lines has to have"
    )
    verify.add_argument("--json", action="store_true", help="one JSON document for all files")
    verify.add_argument("--debug", action="store_true", help="show tracebacks")


def run(options: argparse.Namespace) -> int:
    """Verify each file."""
    results = [_verified(path, options.expect) for path in options.files]
    if options.json:
        print_json(results)
    else:
        for one in results:
            intact = f"{one['file']}: intact, lines: {one['lines']}, last: {one['digest']}"
            print(one["fault"] or intact)
    return BROKEN if any(one["fault"] for one in results) else 0


def _verified(path: Path, expected: str | None) -> dict[str, object]:
    from mmar_runtime.audit import AuditError, verify_audit
    from mmar_runtime.config.location import Location
    from mmar_runtime.errors import ConfigError, Problem

    if not path.is_file():
        message = f"there is no file {str(path)!r}"
        raise ConfigError([Problem(Location("FILE"), message, "", "missing-file")])
    try:
        chain = verify_audit(path)
    except AuditError as error:
        return {"file": str(path), "lines": None, "digest": None, "fault": str(error)}
    fault = None
    if expected is not None and not _has_digest(path, expected):
        fault = f"{path}: no line has the digest {expected}; lines at the end are gone"
    return {"file": str(path), "lines": chain.lines, "digest": chain.digest, "fault": fault}


def _has_digest(path: Path, digest: str) -> bool:
    """Whether a line of a verified log has this digest."""
    wanted = f'"digest":"{digest}"'.encode()
    with path.open("rb") as stream:
        return any(wanted in line for line in stream)
