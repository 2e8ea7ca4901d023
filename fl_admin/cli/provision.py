"""``mmar provision``: start-up kits for a server, its sites and its admins.

NVFlare's own provisioning, over gRPC with mutual TLS, with what our sites need in each kit's local
folder: the exact list of classes, the judgement on jobs, rights, the last gate, and a policy to
tighten.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmar_runtime.cli.common import add_output_arguments, print_json

HELP = "make start-up kits for a federation"
EXAMPLES = """examples:
  mmar provision provisioning/project.yml --out kits
  mmar provision project.yml --out kits       (again, after a site was added to the file)

Each kit goes to whom it is named after, by a way that nobody else can read: it holds a private key.
The folder itself holds the authority's key, so it stays with whoever provisions.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("project", type=Path, metavar="PROJECT", help="project file, YAML")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="kits go below it")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Make the kits and say where they are."""
    from fl_admin.provision import provision

    kits = provision(options.project, options.out)
    if options.json:
        print_json({"folder": str(kits.folder), "participants": list(kits.participants)})
        return 0
    print(f"{len(kits.participants)} kits in {kits.folder}")
    for name in kits.participants:
        print(f"  {kits.folder / name}")
    return 0
