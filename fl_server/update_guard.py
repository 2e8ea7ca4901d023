"""What a site's reply must be before anything is done with it: one function over plain values.

``check_update`` takes numpy arrays and plain metadata and returns what is wrong with them. It calls
nothing that the sender could have made: only exact types of Python and numpy are looked into, and
sizes are judged as declared, before a value is read or converted. Whatever it is given, it returns;
an error of its own is a refusal too.
"""

from __future__ import annotations

from itertools import chain, islice

import numpy as np

from fl_server.guard.metadata import about_faults, metrics_reply_faults
from fl_server.guard.tensors import update_faults
from fl_server.guard.values import MAX_FAULTS, Expected, UpdateFault, UpdateLimits

__all__ = ["Expected", "UpdateFault", "UpdateLimits", "check_update"]


def check_update(
    update: object, metadata: object, expected: Expected, limits: UpdateLimits
) -> tuple[UpdateFault, ...]:
    """Return why a reply must not be used; empty if it may be. Never raises, whatever it is given.

    Args:
        update: tensor name -> array, or metric name -> value where metrics are awaited.
        metadata: what came with it: ``CLAIMS`` and the keys of ``METADATA_KEYS``, plain values.
        expected: what the server awaits.
        limits: the bounds.
    """
    try:
        with np.errstate(all="ignore"):
            about = about_faults(metadata, expected, limits)
            if expected.kind == "METRICS":
                faults = metrics_reply_faults(update, expected, limits)
            else:
                faults = update_faults(update, metadata, expected, limits)
            return tuple(islice(chain(about, faults), MAX_FAULTS))
    except Exception as error:
        return (UpdateFault("unreadable", "update", f"cannot be judged ({type(error).__name__})"),)
