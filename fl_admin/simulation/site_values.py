"""The values of simulated sites: where their data are, and their share of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fl_client.site import PROCESSES_VARIABLE
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import THREADS_VARIABLE
from mmar_runtime.config.sources import read_json, read_site_values
from mmar_runtime.errors import ConfigError, Problem

Values = Mapping[str, Scalar]


def data_of_sites(
    folder: Path, sites: Sequence[str], location: Location
) -> dict[str, dict[str, Scalar]]:
    """Return the values of sites whose data are in ``folder/<site>``.

    Args:
        folder: of all data.
        sites: their names.
        location: where the folder was named.

    Raises:
        ConfigError: a site has no ``dataset.json`` there.
    """
    root = folder.expanduser().resolve()
    missing = [site for site in sites if not (root / site / "dataset.json").is_file()]
    if missing:
        message = f"there is no dataset.json for {', '.join(missing)} in {str(root)!r}"
        advice = f"{location} names a folder with site-1/dataset.json, site-2/dataset.json, ..."
        raise ConfigError([Problem(location, message, advice, "data-list")])
    return {
        site: {"DATA_ROOT": str(root / site), "DATASET_JSON": str(root / site / "dataset.json")}
        for site in sites
    }


def sites_with_data(folder: Path) -> list[str]:
    """Return the names of the folders that hold a ``dataset.json``."""
    root = folder.expanduser()
    return sorted(file.parent.name for file in root.glob("*/dataset.json"))


def environment_values(environment: Path, site: str) -> dict[str, Scalar]:
    """Return a site's values in an ``environment.json`` for all sites.

    Raises:
        ConfigError: the file cannot be read, or has another name.
    """
    path = environment.expanduser().resolve()
    read_json(path)
    if path.name != "environment.json":
        message = f"has to be called environment.json, found {path.name!r}"
        raise ConfigError([Problem(Location(path.name), message, "", "environment")])
    return read_site_values(path.parent, site)


def with_threads(sites: Mapping[str, Values]) -> dict[str, dict[str, Scalar]]:
    """Return the sites' values with a share of this machine's threads for each of their processes.

    A site that sets ``NUM_THREADS`` itself keeps its own number.
    """
    shared: dict[str, dict[str, Scalar]] = {}
    for name, values in sites.items():
        count = values.get(PROCESSES_VARIABLE, 1)
        # The site reports a count that is not a positive whole number.
        processes = count if type(count) is int and count > 0 else 1
        share = max(1, (os.cpu_count() or 1) // (len(sites) * processes))
        shared[name] = {THREADS_VARIABLE: share, **values}
    return shared


def threads_of(values: Values) -> int:
    """Return how many threads a site computes with.

    Raises:
        ConfigError: the value is not a positive whole number.
    """
    threads = values[THREADS_VARIABLE]
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        message = f"has to be a positive whole number, found {threads!r}"
        raise ConfigError([Problem(Location(THREADS_VARIABLE), message, "", "type")])
    return threads


def common_values(sites: Mapping[str, Values]) -> dict[str, Scalar]:
    """Return the values that all sites share; those are the server's too."""
    first, *others = sites.values()
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
