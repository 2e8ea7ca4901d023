"""``mmar site privacy``: what a site has spent of its privacy budget, over all jobs."""

from __future__ import annotations

import argparse
from collections import Counter

from fl_admin.cli.commands import add_json_arguments, add_kit_of_site
from mmar_runtime.cli.common import print_json
from mmar_runtime.policy.site_policy import site_policy

HELP = "show what is spent of the privacy budget"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_kit_of_site(parser)
    add_json_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the account; its chain is verified on the way."""
    from fl_admin.kits.site_kit import SiteKit
    from fl_client.privacy.ledger import PrivacyLedger
    from mmar_runtime.audit_keys import LogKey

    kit = SiteKit.open(options.kit)
    most = site_policy(kit.root / "local").privacy.epsilon_max
    ledger = PrivacyLedger(kit.root, LogKey.of_kit(kit.root))
    account = ledger.account()
    left = None if most is None else max(0.0, most - account.spent)
    jobs = account.by("job")
    contributions = Counter(spending.job for spending in account.spendings)
    if options.json:
        print_json(
            {
                "ledger": str(ledger.path),
                "epsilon_max": most,
                "spent": account.spent,
                "left": left,
                "data": account.by("data"),
                "jobs": [
                    {"job": job, "epsilon": spent, "contributions": contributions[job]}
                    for job, spent in jobs.items()
                ],
            }
        )
        return 0
    print(f"spent:  epsilon {account.spent:g} in {len(account.spendings)} contributions")
    print("bound:  none" if most is None else f"bound:  {most:g}, of which {left:g} are left")
    for digest, spent in account.by("data").items():
        print(f"data:   {digest}  {spent:g}")
    for job, spent in jobs.items():
        print(f"job:    {job}  {spent:g} in {contributions[job]}")
    return 0
