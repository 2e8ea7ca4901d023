"""Kits of two federations for a server on this machine, and certificates of their authorities."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from nvflare.lighter.utils import Identity, generate_cert, serialize_cert

from fl_admin.kits.provision import provision

TEMPLATE = Path(__file__).resolve().parents[4] / "provisioning" / "project.yml"
SERVER, SITE, LEAD = "localhost", "site-1", "lead@example.org"
PORT = 20_001 + hash(__file__) % 10_000
"""What the kits name; tests that listen write their own port into a copy."""


@dataclass(frozen=True)
class Federation:
    """Provisioned kits, and the authority that signed them."""

    kits: Path

    def kit(self, name: str) -> Path:
        return self.kits / name

    def sign(self, kit: Path, *, start: timedelta, end: timedelta, name: str | None = None) -> None:
        """Give a copy of a kit a certificate for its own key, valid from then to then."""
        state = json.loads((self.kits.parent / "state" / "cert.json").read_text())
        authority = load_pem_private_key(state["root_pri_key"].encode(), None)
        issuer = x509.load_pem_x509_certificate(state["root_cert"].encode())
        file = next(kit.glob("startup/*.key"))
        own = load_pem_private_key(file.read_bytes(), None)
        subject = name or kit.name
        certificate = generate_cert(
            Identity(subject, "org", None),
            Identity(issuer.subject.rfc4514_string().removeprefix("CN=")),
            authority,
            own.public_key(),
            server_default_host=subject if file.name == "server.key" else None,
            not_valid_before=datetime.now(UTC) + start,
            not_valid_after=datetime.now(UTC) + end,
        )
        file.with_suffix(".crt").write_bytes(serialize_cert(certificate))


def provisioned(folder: Path, name: str) -> Federation:
    text = TEMPLATE.read_text().replace("fl.example.org", SERVER).replace("8002", str(PORT))
    file = folder / f"{name}.yml"
    file.write_text(text.replace("mmar_federation", name))
    return Federation(provision(file, folder / "kits").folder)


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """The federation; leave its kits as they are."""
    return provisioned(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Another federation, whose server has the same name."""
    return provisioned(tmp_path_factory.mktemp("others"), "others")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """``copied(kit)``: a copy that a test may spoil."""

    def copy(kit: Path, port: int | None = None) -> Path:
        folder = shutil.copytree(kit, tmp_path / "copies" / kit.name)
        for file in folder.glob("startup/fed_*.json"):
            file.write_text(file.read_text().replace(str(PORT), str(port or PORT)))
        return folder

    return copy


@pytest.fixture
def site(ours: Federation, copied: Callable[[Path], Path]) -> Path:
    """A site's kit to spoil."""
    return copied(ours.kit(SITE))


@pytest.fixture
def data(tmp_path: Path, demo_data: Path) -> Path:
    """A site's data: files of 3 training, 2 validation and 1 test case, and their list."""
    return shutil.copytree(demo_data / SITE, tmp_path / "data")
