"""``mmar site``: for a site itself: set up its kit, approve jobs, validate and decrypt models.

Each action has a ``--help`` of its own.
"""

from __future__ import annotations

import argparse

from fl_admin.cli.commands import add_commands
from fl_admin.cli.site import approve, decrypt, privacy, setup, validate

HELP = "at a site: set it up, approve jobs, validate or decrypt a model, show the privacy budget"
EXAMPLES = """examples:
  mmar site setup path/to/kit --data-root DIR --datalist FILE
  mmar site approve path/to/job          (or an MMAR, or the folder custom itself)
  mmar site approve path/to/job --yes    (without the question, for code that was read elsewhere)
  mmar site approve --list
  mmar site approve --revoke 9f86d081...
  mmar site validate --model FL_global_model.pt
  mmar site privacy --kit KIT --json
  mmar site decrypt --kit . --model FL_global_model.encrypted.safetensors --out global.pt

Run it in the folder of the site's kit, or name the policy in there by --policy.
A server builds the network too: its administrator approves code in the server's kit likewise.

exit code: 0 done, approved or ready; 3 not approved or not ready; 2 it cannot be asked so
"""

ACTIONS = {
    "approve": approve,
    "setup": setup,
    "validate": validate,
    "privacy": privacy,
    "decrypt": decrypt,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its own arguments."""
    add_commands(parser, ACTIONS, title="actions", examples=EXAMPLES)
