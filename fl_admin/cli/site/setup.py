"""``mmar site setup``: fill in a site's values, and check everything that its kit needs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_admin.cli.commands import add_json_arguments
from mmar_runtime.cli.common import print_json

if TYPE_CHECKING:
    from fl_admin.kits.setup.kit import Kit

HELP = "fill in a site's values and check its kit"
EXAMPLES = """examples:
  mmar site setup kits/site-1 --data-root /data/spleen --datalist /data/spleen/dataset.json
  mmar site setup kits/site-1 --set NUM_THREADS=8     (further values; the others stay)
  mmar site setup kits/site-1                         (only check; also a server's or an admin's)
  mmar site setup kits/site-1 --no-network --json

exit code: 0 ready, 3 a check found a fault, 2 it cannot be asked so, and nothing was changed
"""

NOT_READY = 3
SIGNS = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  ", "skipped": "-      "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("kit", type=Path, metavar="KIT", help="folder of the kit")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the data")
    parser.add_argument("--datalist", type=Path, metavar="FILE", help="the site's data list, JSON")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        action="extend",
        metavar="NAME=VALUE",
        dest="values",
        help="further values of the site, such as NUM_THREADS=8",
    )
    parser.add_argument(
        "--no-network", action="store_true", help="do not ask whether the server is reachable"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="the most that a step of the connection may take (%(default)s)",
    )
    add_json_arguments(parser)


def _seconds(text: str) -> float:
    """Return a time to wait; argparse reports other words."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


def run(options: argparse.Namespace) -> int:
    """Fill in what was given, then check."""
    from fl_admin.kits.setup.checks import check_kit, is_ready
    from fl_admin.kits.setup.environment import Wishes, fill_in
    from fl_admin.kits.setup.kit import open_kit
    from mmar_runtime.config.overrides import parse_overrides

    kit = open_kit(options.kit)
    wishes = Wishes(
        data_root=options.data_root,
        data_list=options.datalist,
        values=parse_overrides(options.values),
    )
    changed = fill_in(kit, wishes) if wishes.any else {}
    if not options.json:
        _head(kit, changed)
    findings = []
    for finding in check_kit(kit, network=not options.no_network, seconds=options.timeout):
        findings.append(finding)
        if not options.json:
            advice = f"  ->  {finding.advice}" if finding.advice else ""
            text = f"{finding.check:12}{finding.message}{advice}"
            print(f"  {SIGNS[finding.state]}  {text}", flush=True)
    ready = is_ready(findings)
    if options.json:
        print_json(
            {
                "kit": str(kit.folder),
                "kind": kit.kind,
                "name": kit.name,
                "server": kit.address,
                "changed": bool(changed),
                "replaced": {name: old for name, old in changed.items() if old},
                "ready": ready,
                "checks": [finding.as_dict() for finding in findings],
            }
        )
    else:
        faults = sum(finding.state == "fault" for finding in findings)
        print("ready" if ready else f"not ready: {faults} to mend")
    return 0 if ready else NOT_READY


def _head(kit: Kit, changed: Mapping[str, Any]) -> None:
    from fl_admin.kits.setup.environment import ENVIRONMENT
    from fl_admin.kits.setup.kit import OWNERS

    print(f"{kit.name}: kit of {OWNERS[kit.kind]}, for the server {kit.address}")
    if changed:
        print(f"written: {kit.local / ENVIRONMENT}")
    for name, old in changed.items():
        if old:  # as provisioned, DATA_ROOT and DATASET_JSON are empty
            print(f"  {name} was {old!r}")
