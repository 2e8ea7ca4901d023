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
  mmar provision project.yml --out kits --renew site-1   (before its certificate ends; or: all)

Each kit goes to whom it is named after, by a way that nobody else can read: it holds a private key.
The folder itself holds the authority's key, so it stays with whoever provisions.
"""

NEXT = """next:
  1. Give each kit to whom it is named after, by a way that nobody else can read.
     {state} stays here: it can make more kits.
  2. The server: have {address} reachable, then startup/start.sh.
  3. Each site: 'mmar site setup KIT --data-root DIR --datalist FILE', then startup/start.sh.
  4. Each admin: 'mmar site setup KIT' asks the server; 'mmar submit JOB --kit KIT' runs a job.
  Before a kit ends: this command with --renew NAME; the new startup/ takes the old one's place."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("project", type=Path, metavar="PROJECT", help="project file, YAML")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="kits go below it")
    parser.add_argument(
        "--renew",
        nargs="+",
        default=[],
        metavar="NAME",
        help="give these a new key and certificate; 'all' for everybody",
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Make the kits and say where they are."""
    from fl_admin.kits.provision import provision

    kits = provision(options.project, options.out, renew=options.renew)
    if options.json:
        print_json(
            {
                "folder": str(kits.folder),
                "participants": list(kits.participants),
                "valid_until": {
                    name: kits.valid_until(name).isoformat() for name in kits.participants
                },
                "authority_valid_until": kits.authority_until.isoformat(),
            }
        )
        return 0
    print(f"{len(kits.participants)} kits in {kits.folder}")
    width = max(map(len, kits.participants))
    for name in kits.participants:
        until = kits.valid_until(name)
        print(f"  {name:{width}}  {kits.kit(name).kind:6}  valid until {until:%Y-%m-%d}")
    print(f"  {'the authority':{width}}          valid until {kits.authority_until:%Y-%m-%d}")
    state, server = kits.folder.parent / "state", kits.kit(kits.participants[0])
    print(NEXT.format(state=state, address=server.address))
    return 0
