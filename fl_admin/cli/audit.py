"""``mmar audit``: are the logs of a site or a server as they were written?

Each line carries the digest of the line before and an authentication code by the kit's key. So a
line that was changed, added or taken out is found. The key is that of the kit in which the log is.
A log that lies elsewhere needs --key, and mmar_logs.secret next to it; without a key nobody can say
who wrote its lines.

Lines that were taken away from the end are found with a head: the number and the digest of a line
that is known from elsewhere. An earlier run has printed one. A server gets the heads of a site's
logs with each contribution and keeps them in the run record.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmar_runtime.cli.common import print_json

HELP = "verify the audit log or the privacy ledger of a site or a server"
EXAMPLES = """examples:
  mmar audit verify audit/mmar_audit.jsonl audit/mmar_privacy.jsonl
  mmar audit verify audit/mmar_audit.jsonl --head 12:9f86d081...  (the head of an earlier run)
  mmar audit verify audit/mmar_audit.jsonl --record run_record.json --site site-1
  mmar audit verify copy/mmar_audit.jsonl --key kit/startup/client.key

exit code: 0 the logs are intact; 3 a log is not, or nobody can say; 2 the command line has a fault
"""

NOT_INTACT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    verify = actions.add_parser(
        "verify",
        help="check every line of a log",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a log")
    verify.add_argument(
        "--key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="private key of the kit that wrote the log, former ones too",
    )
    verify.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="LINE:DIGEST",
        help="a line that the log has to have",
    )
    verify.add_argument(
        "--record", type=Path, metavar="FILE", help="run record with heads of this site's logs"
    )
    verify.add_argument("--site", metavar="NAME", help="name of the site in the record")
    verify.add_argument("--json", action="store_true", help="one JSON document for all files")
    verify.add_argument("--debug", action="store_true", help="show tracebacks")


def run(options: argparse.Namespace) -> int:
    """Verify each file."""
    from mmar_runtime.audit import EMPTY, LEDGER_FILE

    known = _known_heads(options)
    results = [
        _verified(path, options.key, [*options.head, *known.get(path.name, ())])
        for path in options.files
    ]
    if options.json:
        print_json(results)
    for result in () if options.json else results:
        for finding in result["findings"]:
            print(finding["text"])
        what = f"{result['file']}: {result['status']}"
        if result["status"] == "not authenticated":
            what += " (no key of its kit is here), but each line follows the line before"
        print(f"{what}, lines: {result['lines']}, head: {result['head'] or 'none'}")
    is_well = all(
        result["status"] == "intact"
        # A ledger is empty before its first spending.
        or (result["status"] == EMPTY and Path(result["file"]).name == LEDGER_FILE.name)
        for result in results
    )
    return 0 if is_well else NOT_INTACT


def _verified(path: Path, keys: list[Path], heads: list[str]) -> dict[str, Any]:
    """Return what is found; a log that is not there is a finding where a head of it is known."""
    from mmar_runtime.audit import AUDIT_FILE, LEDGER_FILE, ledger_heads, verify_audit
    from mmar_runtime.audit_keys import SECRET, LogKey

    folder = path.resolve().parent
    if keys and not (folder / SECRET).is_file():
        raise _fault("--key", f"needs the file {SECRET!r} of the kit's logs next to {str(path)!r}")
    key = LogKey.of_files(keys, folder) if keys else LogKey.of_kit(folder.parent)
    audit = path.with_name(AUDIT_FILE.name)
    if key is not None and path.name == LEDGER_FILE.name and audit.is_file():
        heads = [*heads, *ledger_heads(audit, key)]
    if not path.is_file() and not heads:
        raise _fault("FILE", f"{str(path)!r} is not a file")
    report = verify_audit(path, key, heads)
    return {
        "file": str(path),
        "status": report.status,
        "lines": report.lines,
        "head": report.head,
        "findings": [{"line": finding.line, "text": str(finding)} for finding in report.findings],
    }


def _known_heads(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the heads in the run record by the names of the logs."""
    from mmar_runtime.audit import HEAD_FORM

    odd = [head for head in options.head if not HEAD_FORM.fullmatch(head)]
    if odd:
        raise _fault("--head", f"{odd[0]!r} is not a head, such as 12:9f86d081...")
    if options.head and len(options.files) > 1:
        raise _fault("--head", "belongs to one log, and there are several")
    if (options.record is None) != (options.site is None):
        raise _fault("--record", "and --site NAME go together")
    if options.record is None:
        return {}
    from fl_server.record.files import read_run_record
    from mmar_runtime.errors import FederationError

    try:
        heads = read_run_record(options.record).log_heads(options.site)
    except FederationError as error:
        raise _fault("--record", str(error)) from error
    if not heads:
        raise _fault("--site", f"the record holds no head of a log of {options.site!r}")
    return heads


def _fault(place: str, message: str) -> Exception:
    from mmar_runtime.config.location import Location
    from mmar_runtime.errors import ConfigError, Problem

    return ConfigError([Problem(Location(place), message, "", "usage")])
