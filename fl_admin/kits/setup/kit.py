"""A start-up kit on disk: whose it is, and which server it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem

Kind = Literal["site", "server", "admin"]

CONFIGS: dict[Kind, str] = {
    "site": "fed_client.json",
    "server": "fed_server.json",
    "admin": "fed_admin.json",
}
"""The document in ``startup/`` that only a kit of that kind has."""

OWNERS: dict[Kind, str] = {"site": "a site", "server": "a server", "admin": "an admin"}
PLACE = Location("KIT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A kit of ``mmar provision``.

    Attributes:
        folder: absolute.
        kind: whose it is.
        name: of the site or the admin; of a server, the host that it is reached by.
        host: the server's host as the kit names it.
        port: the server's port.
        server_name: the name that the server's certificate has to bear.
    """

    folder: Path
    kind: Kind
    name: str
    host: str
    port: int
    server_name: str

    @property
    def startup(self) -> Path:
        """What was provisioned."""
        return self.folder / "startup"

    @property
    def local(self) -> Path:
        """What belongs to whoever runs the kit."""
        return self.folder / "local"

    @property
    def certificate(self) -> Path:
        """The kit's own certificate."""
        return self.startup / ("server.crt" if self.kind == "server" else "client.crt")

    @property
    def key(self) -> Path:
        """The private key of that certificate."""
        return self.certificate.with_suffix(".key")

    @property
    def authority(self) -> Path:
        """The certificate of the federation's authority."""
        return self.startup / "rootCA.pem"

    @property
    def address(self) -> str:
        """Host and port of the server."""
        return f"{self.host}:{self.port}"


def open_kit(folder: Path) -> Kit:
    """Return the kit in a folder.

    Raises:
        ConfigError: the folder is not a kit, or a document in it is not as it was provisioned.
    """
    root = folder.expanduser().resolve()
    kinds = [kind for kind, file in CONFIGS.items() if (root / "startup" / file).is_file()]
    if len(kinds) != 1:
        raise ConfigError([_no_kit(root)])
    [kind] = kinds
    file = root / "startup" / CONFIGS[kind]
    try:
        document: Any = read_json(file)
        if kind == "admin":
            admin = document["admin"]
            name, host, port = _text(admin["username"]), _text(admin["host"]), int(admin["port"])
            server_name = _text(admin["server_identity"])
        else:
            server = document["servers"][0]
            host, _, digits = _text(server["service"]["target"]).rpartition(":")
            name = server_name = _text(host)
            port = int(digits)
            if kind == "site":
                name, server_name = _text(document["client"]["fqsn"]), _text(server["identity"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        message = f"is not as it was provisioned: {type(error).__name__} at {error}"
        advice = "Take the file from the kit as it was sent."
        raise ConfigError([Problem(Location(file.name), message, advice, "kit")]) from None
    return Kit(folder=root, kind=kind, name=name, host=host, port=port, server_name=server_name)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r}")
    return value


def _no_kit(root: Path) -> Problem:
    """Return what a folder is instead of a kit, as far as that can be seen."""
    if not root.is_dir():
        advice = "Name the folder of a kit; 'mmar provision' makes kits."
        return Problem(PLACE, f"there is no folder {str(root)!r}", advice, "kit")
    message = f"{str(root)!r} is not a kit"
    if root.name in ("startup", "local") and (root.parent / "startup").is_dir():
        return Problem(PLACE, f"{message}, but a part of one", f"Name {str(root.parent)!r}.", "kit")
    inside = sorted(file.parent.parent.name for file in root.glob("*/startup/fed_*.json"))
    if inside:
        message = f"{message}; it holds the kits {', '.join(inside)}"
        return Problem(PLACE, message, "Name one of them.", "kit")
    advice = "A kit holds startup/ and local/, as 'mmar provision' makes it."
    return Problem(PLACE, message, advice, "kit")
