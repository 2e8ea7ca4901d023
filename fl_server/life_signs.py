"""Which sites of a run show no sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

SECONDS_OF_SILENCE = 30.0
"""Three heartbeats of a site that has not come; NVFlare's own limit is ten minutes."""


class LifeSigns:
    """Follows when a site was last heard, by this machine's own clock.

    A stamp of another clock only has to change: a clock that is set does not make a site lost.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[float, float]] = {}

    def heard(self, stamps: Mapping[str, float]) -> None:
        """Take the stamp of each site's last heartbeat."""
        now = self._clock()
        for site, stamp in stamps.items():
            last = self._heard.get(site)
            if last is None or last[0] != stamp:
                self._heard[site] = stamp, now

    def lost(self) -> frozenset[str]:
        """Return the sites that were heard once and are silent for too long."""
        now = self._clock()
        return frozenset(
            site for site, (_, at) in self._heard.items() if now - at > SECONDS_OF_SILENCE
        )
