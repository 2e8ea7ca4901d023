"""Whether the privacy filters that a site's policy demands stand in its own ``privacy.json``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.site_policy import SitePolicy

PRIVACY_FILE = "privacy.json"
OUTWARDS = ("out", "inout")


def filter_faults(local: Path, policy: SitePolicy) -> Iterator[Problem]:
    """Each required filter that a reply could leave the site without.

    A job chooses among the scopes of the file, so every one of them needs the filter.

    Args:
        local: the folder that the site owns.
        policy: names filters in ``required_filters``, by class name or by full path.

    Raises:
        ConfigError: ``privacy.json`` cannot be read.
    """
    if not policy.required_filters:
        return
    scopes = list(_scopes(local))
    for name in policy.required_filters:
        if not scopes or not all(name in names for names in scopes):
            message = f"{name!r} is required by this site's policy and not set up in each scope"
            yield Problem(Location(PRIVACY_FILE), message, "See required_filters.", "privacy")


def is_disabled(entry: Mapping[str, Any]) -> bool:
    """Whether NVFlare passes an entry over."""
    return entry.get("disabled") is True


def _scopes(local: Path) -> Iterator[frozenset[str]]:
    """The names of the filters that replies pass on their way out, for each scope."""
    path = local / PRIVACY_FILE
    document = read_json(path) if os.path.lexists(path) else {}
    scopes = document.get("scopes", []) if isinstance(document, dict) else None
    if not isinstance(scopes, list) or not all(isinstance(one, dict) for one in scopes):
        message = "has to be a JSON object with an array 'scopes'"
        raise ConfigError([Problem(Location(PRIVACY_FILE), message, "", "privacy")])
    for scope in scopes:
        filters = scope.get("task_result_filters", [])
        yield frozenset(name for one in filters for name in _names(one))


def _names(entry: Any) -> Iterator[str]:
    """The names of a filter that stands in the way out; NVFlare's default there is ``out``."""
    if not isinstance(entry, dict) or is_disabled(entry):
        return
    if str(entry.get("direction") or "out").lower() not in OUTWARDS:
        return
    path = entry.get("path", entry.get("name"))
    if isinstance(path, str):
        yield path
        yield path.rpartition(".")[2]
