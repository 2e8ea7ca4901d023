"""A kit's own certificate: does its key fit, who signed it, and until when is it good?"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from fl_admin.kits.setup.finding import Finding, fault, ok, warning
from fl_admin.kits.setup.kit import Kit

SOON = timedelta(days=30)
RENEW = "ask whoever provisions for 'mmar provision ... --renew {name}' and take the new startup/"
UNREADABLE = (OSError, ValueError, TypeError)
"""What reading and loading a damaged file raises."""


def check_certificate(kit: Kit, now: datetime | None = None) -> Iterator[Finding]:
    """Yield the findings ``key`` and ``certificate`` of a kit."""
    yield _key(kit)
    try:
        own = load_certificate(kit.certificate)
        authority = load_certificate(kit.authority)
        key = load_pem_private_key(kit.key.read_bytes(), password=None).public_key()
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        fits = key.public_bytes(*form) == own.public_key().public_bytes(*form)
    except UNREADABLE as error:
        message = f"cannot be read: {error}"
        yield fault("certificate", message, "take startup/ from the kit as it was sent")
        return
    yield _certificate(kit, own, authority, fits, now or datetime.now(UTC))


def load_certificate(path: Path) -> x509.Certificate:
    """Return the certificate in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds none.
    """
    return x509.load_pem_x509_certificate(path.read_bytes())


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the name that a certificate bears, and the hosts that it is good for."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = [str(name.value) for name in common]
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return tuple(names)
    hosts = others.value.get_values_for_type(x509.DNSName)
    addresses = map(str, others.value.get_values_for_type(x509.IPAddress))
    return (*names, *hosts, *addresses)


def good_until(certificate: x509.Certificate, authority: x509.Certificate) -> datetime:
    """Return when a certificate ends; it is worth nothing without that of its authority."""
    return min(certificate.not_valid_after_utc, authority.not_valid_after_utc)


def _key(kit: Kit) -> Finding:
    path = f"startup/{kit.key.name}"
    try:
        mode = stat.S_IMODE(kit.key.stat().st_mode)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        return fault("key", message, "take startup/ from the kit as it was sent")
    if mode & 0o077:
        message = f"{path} can be read by others on this machine (mode {mode:o})"
        return fault("key", message, f"chmod 600 {kit.key}; if others did read it, have it renewed")
    return ok("key", f"{path} is private")


def _certificate(
    kit: Kit, own: x509.Certificate, authority: x509.Certificate, fits: bool, now: datetime
) -> Finding:
    names, until = names_of(own), good_until(own, authority)
    renew = RENEW.format(name=kit.name)
    mixed = "files of two kits are mixed: take startup/ from the kit as it was sent"
    if not fits:
        return fault("certificate", f"{kit.key.name} is not the key of {own_name(names)}", mixed)
    if not is_issued_by(own, authority):
        message = f"that of {own_name(names)} was not issued by the authority in rootCA.pem"
        return fault("certificate", message, mixed)
    if kit.name not in names:
        return fault("certificate", f"is that of {own_name(names)} and not of {kit.name}", mixed)
    if now < own.not_valid_before_utc:
        message = f"is valid only from {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
        return fault("certificate", message, f"set the clock, which says {now:%Y-%m-%d %H:%M} UTC")
    if until < now:
        return fault("certificate", f"expired on {until:%Y-%m-%d}", renew)
    if until < now + SOON:
        message = f"expires on {until:%Y-%m-%d}, in {(until - now).days} days"
        return warning("certificate", message, renew)
    return ok("certificate", f"{kit.name}, valid until {until:%Y-%m-%d}")


def own_name(names: tuple[str, ...]) -> str:
    """Return the first of a certificate's names, for a message."""
    return names[0] if names else "nobody"
