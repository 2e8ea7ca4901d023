"""``mmar site decrypt``: make a checkpoint of an encrypted model, with the keys of a site."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_admin.cli.commands import add_json_arguments, add_kit_of_site
from mmar_runtime.cli.common import print_json

HELP = "make a checkpoint of an encrypted model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_kit_of_site(parser)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="the model")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="becomes the checkpoint, .pt"
    )
    add_json_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Write the checkpoint."""
    from fl_admin.kits.encryption_keys import decrypt_model
    from fl_admin.kits.site_kit import SiteKit

    count = decrypt_model(SiteKit.open(options.kit).root, options.model, options.out)
    if options.json:
        print_json({"out": str(options.out), "tensors": count})
    else:
        print(f"{count} tensors in {options.out}")
    return 0
