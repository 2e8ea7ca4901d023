"""Which versions a federation was provisioned with, and whether this installation has the same.

A kit holds them in ``startup/mmar_versions.json``, package name -> version. They are read from the
metadata of what is installed, so nothing is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem

VERSIONS_FILE = Path("startup") / "mmar_versions.json"
PACKAGES = ("mmar-fl", "torch", "monai", "pytorch-ignite", "nvflare")
"""What decides on the numbers that a site computes, and on how it talks to the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A package of which this installation has another version than the federation.

    Attributes:
        package: its name, as pip knows it.
        here: the version that is installed; None if it is not installed.
        federation: the version that the kit names.
    """

    package: str
    here: str | None
    federation: str

    @property
    def fits(self) -> bool:
        """Whether the two work together: they differ behind the second number only."""
        return self.here is not None and _minor(self.here) == _minor(self.federation)

    def __str__(self) -> str:
        here = f"{self.package} {self.here}" if self.here is not None else f"no {self.package}"
        return f"{here}, the federation {self.federation}"


def installed_versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions that are installed here, without the part behind ``+``.

    That part tells for which accelerator torch was built, which each site chooses for itself.
    """
    versions = {name: _installed(name) for name in packages}
    return {name: version for name, version in versions.items() if version is not None}


def differences(federation: Mapping[str, str]) -> Iterator[Difference]:
    """Yield each package of which another version is installed here, in the order of the kit."""
    for name, wanted in federation.items():
        here = _installed(name)
        if here != wanted:
            yield Difference(package=name, here=here, federation=wanted)


def federation_versions(kit: Path) -> dict[str, str] | None:
    """Return the versions that a kit was provisioned with; None for a kit that does not say.

    Raises:
        ConfigError: the document cannot be read, or is not one of package names and versions.
    """
    path = kit / VERSIONS_FILE
    if not os.path.lexists(path):
        return None
    document = read_json(path)
    if isinstance(document, dict) and all(isinstance(text, str) for text in document.values()):
        return document
    message = "has to map names of packages to versions"
    raise ConfigError([Problem(Location(path.name), message, "", "versions")])


def _installed(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


def _minor(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")[:2])
