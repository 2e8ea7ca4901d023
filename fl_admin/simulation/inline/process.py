"""The process that simulates: ``python -P -m fl_admin.simulation.inline.process RUN_FOLDER``.

A process of its own, because components print and change what holds for a whole process; whoever
started this one keeps the terminal and can end it. The kernel confines it before it reads the job.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from fl_admin.simulation.inline.plan import ERROR_FILE, InlinePlan
from fl_client.simulation.signals import end_on_sigterm, end_soon
from fl_server.record.values import CANNOT_BEGIN
from mmar_runtime.errors import ConfigError
from mmar_runtime.files import write_text_atomically

logger = logging.getLogger(__name__)


def simulate_confined(plan: InlinePlan) -> bool:
    """Confine this process by the plan's policy, and run the job.

    Returns:
        Whether it ended well.

    Raises:
        ConfinementError: the policy demands more than this kernel gives.
    """
    logger.info("confinement: %s", plan.confine())
    # Only now: a library that starts a thread on import would keep it outside of the wall.
    from fl_admin.simulation.inline.carrier import simulate

    return simulate(plan)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one simulation; returns 0 if it ended well."""
    parser = argparse.ArgumentParser(description="Simulate a planned job in this process.")
    parser.add_argument("plan", type=Path)
    options = parser.parse_args(arguments)
    end_on_sigterm()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return 0 if simulate_confined(InlinePlan.read(options.plan)) else 1
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        reason = f"{CANNOT_BEGIN}: {error}" if isinstance(error, ConfigError) else str(error)
        write_text_atomically(options.plan.with_name(ERROR_FILE), f"{reason}\n\n{text}")
        logging.exception("the simulation failed")
        return 1
    finally:
        end_soon()


if __name__ == "__main__":
    sys.exit(main())
