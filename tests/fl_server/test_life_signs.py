"""Which sites show no sign of life."""

from __future__ import annotations

from fl_server.life_signs import SECONDS_OF_SILENCE, LifeSigns


def test_a_site_is_lost_once_its_stamp_has_not_changed_for_some_heartbeats() -> None:
    now = 0.0
    signs = LifeSigns(clock=lambda: now)
    signs.heard({"site-1": 1000.0, "site-2": 1000.0})

    now = SECONDS_OF_SILENCE + 1
    signs.heard({"site-1": 1010.0, "site-2": 1000.0})
    assert signs.lost() == {"site-2"}

    signs.heard({"site-2": 1031.0})
    assert signs.lost() == frozenset()


def test_a_clock_that_is_set_makes_no_site_lost() -> None:
    now = 0.0
    signs = LifeSigns(clock=lambda: now)
    signs.heard({"site-1": 1000.0})

    now = 10.0
    signs.heard({"site-1": 1000.0 - 86400})

    assert signs.lost() == frozenset()


def test_a_site_that_was_never_heard_is_not_known_to_be_lost() -> None:
    assert LifeSigns().lost() == frozenset()
