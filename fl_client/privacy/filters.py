"""Whether the privacy filters that a site's policy demands stand in its own ``privacy.json``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.site_policy import SitePolicy

PRIVACY_FILE = "privacy.json"
OUTWARDS = ("out", "inout")


def filter_faults(local: Path, policy: SitePolicy) -> Iterator[Problem]:
    """Yield each required filter that a reply could leave the site without.

    A job chooses among the scopes of the file, so every one of them needs the filter.

    Args:
        local: the folder that the site owns.
        policy: names filters in ``required_filters``, by class name or by full path.

    Raises:
        ConfigError: ``privacy.json`` cannot be read.
    """
    if policy.required_filters:
        yield from lacking_filters(names_by_scope(read_privacy(local)), policy)


def lacking_filters(scopes: Collection[Collection[str]], policy: SitePolicy) -> Iterator[Problem]:
    """Yield each required filter that is not in every scope.

    Args:
        scopes: the names of the filters in each scope; see ``names_by_scope``.
        policy: of the site.
    """
    for name in policy.required_filters:
        if not scopes or not all(name in names for names in scopes):
            message = f"{name!r} is required by this site's policy and not set up in each scope"
            yield Problem(Location(PRIVACY_FILE), message, "See required_filters.", "privacy")


def read_privacy(local: Path) -> Mapping[str, Any]:
    """Return a site's ``privacy.json``; empty if the site has none.

    Raises:
        ConfigError: the file cannot be read, or has no array of scopes.
    """
    path = local / PRIVACY_FILE
    document = read_json(path) if os.path.lexists(path) else {}
    scopes = document.get("scopes", []) if isinstance(document, dict) else None
    if not isinstance(scopes, list) or not all(isinstance(scope, dict) for scope in scopes):
        message = "has to be a JSON object with an array 'scopes'"
        raise ConfigError([Problem(Location(PRIVACY_FILE), message, "", "privacy")])
    privacy: Mapping[str, Any] = document
    return privacy


def names_by_scope(privacy: Mapping[str, Any]) -> tuple[frozenset[str], ...]:
    """Return the names of the filters that replies pass on their way out, for each scope."""
    return tuple(
        frozenset(
            name
            for _, entry in outgoing_filters(scope)
            if isinstance(path := entry.get("path", entry.get("name")), str)
            for name in (path, path.rpartition(".")[2])
        )
        for scope in privacy.get("scopes", [])
    )


def outgoing_filters(scope: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the filters that replies pass on their way out, each with its index in the scope."""
    entries = scope.get("task_result_filters", [])
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        runs = isinstance(entry, dict) and entry.get("disabled") is not True
        if runs and is_outwards(entry.get("direction")):
            yield index, entry


def is_outwards(direction: object) -> bool:
    """Return whether replies pass a filter on their way out; NVFlare's default is ``out``."""
    return str(direction or "out").lower() in OUTWARDS
