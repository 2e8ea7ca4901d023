"""Whether a kit reaches its server: the steps of NVFlare's own connection, one after the other.

NVFlare connects by gRPC over mutual TLS, and says no more than that it cannot. Here each step is
made by itself, so that a name that nobody knows, a firewall, a proxy that opens TLS, another
federation's server and a certificate that the server does not take are told apart. The last step is
NVFlare's own call, ``grpc.secure_channel`` with the kit's files.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from fl_admin.kits.setup.certificates import (
    UNREADABLE,
    is_issued_by,
    load_certificate,
    names_of,
    own_name,
)
from fl_admin.kits.setup.finding import Finding, fault, ok
from fl_admin.kits.setup.kit import Kit

CHECK = "server"
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The environment variables by which gRPC finds a proxy, the first that is set."""

NO_PROXIES = ("no_grpc_proxy", "no_proxy")
ALPN = "h2"

RUNS = "is the server started? If so, its own firewall turns this machine away"
OPEN = "have the firewall let outgoing TCP to {address} pass"
INTERCEPTED = (
    "a firewall that opens TLS has to let {address} pass untouched; if there is none, the kit is "
    "of another federation than the server"
)


class _Failed(Exception):
    """A step did not work."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message, self.advice = message, advice


def check_connection(kit: Kit, seconds: float) -> Finding:
    """Check whether the server takes this kit's connection.

    Args:
        kit: of a site or an admin.
        seconds: the most that each step may take.
    """
    try:
        proxy = proxy_for(kit.host, os.environ)
        if proxy is not None:
            # The server's name need not be known here, and nothing else reaches it.
            _call(kit, seconds, via=f" through the proxy {proxy}")
            return ok(CHECK, f"{kit.address} takes this kit's connection, by the proxy {proxy}")
        with (
            closing(_connect(kit, seconds)) as connection,
            _secured(kit, connection, seconds) as secured,
        ):
            _judge(kit, secured)
            _await_answer(kit, secured)
        _call(kit, seconds)
    except _Failed as failed:
        return fault(CHECK, failed.message, failed.advice)
    except UNREADABLE as error:
        message = f"{kit.address} cannot be asked without this kit's certificate: {error}"
        return fault(CHECK, message, "see the check of the certificate")
    return ok(CHECK, f"{kit.address} takes this kit's connection")


def proxy_for(host: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy that gRPC goes through to a host, without a password; None for none."""
    value = next((proxy for name in PROXIES if (proxy := environment.get(name))), None)
    if value is None:
        return None
    direct = next((hosts for name in NO_PROXIES if (hosts := environment.get(name))), "")
    if any(host.endswith(suffix.strip()) for suffix in direct.split(",") if suffix.strip()):
        return None
    return urlsplit(value).netloc.rpartition("@")[2] or value


def presented_certificate(host: str, port: int, seconds: float) -> x509.Certificate | None:
    """Return the certificate of whatever listens at an address; None if that speaks no TLS.

    Raises:
        OSError: nothing listens there.
    """
    with closing(socket.create_connection((host, port), seconds)) as connection:
        try:
            with _context().wrap_socket(connection, server_hostname=host) as secured:
                return _certificate_of(secured)
        except (OSError, ValueError):
            return None


# --- The steps -----------------------------------------------------------------------------------


def _connect(kit: Kit, seconds: float) -> socket.socket:
    """Return a connection to the first address of the server that takes one."""
    address, error = kit.address, OSError("no address")
    for family, _, _, _, place in _addresses(kit, seconds):
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        try:
            connection.connect(place)
        except OSError as one:
            connection.close()
            error = one
            continue
        return connection
    if isinstance(error, ConnectionRefusedError):
        raise _Failed(f"{address} refuses connections: nothing listens there", RUNS)
    advice = OPEN.format(address=address)
    if isinstance(error, TimeoutError):
        raise _Failed(f"{address} does not answer within {seconds:.0f} s", advice)
    raise _Failed(f"{address} cannot be reached: {error.strerror or error}", advice)


def _addresses(kit: Kit, seconds: float) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    addresses: list[tuple[int, int, int, str, tuple[object, ...]]] = []
    raised: list[OSError] = []

    def resolve() -> None:
        try:
            addresses.extend(socket.getaddrinfo(kit.host, kit.port, type=socket.SOCK_STREAM))
        except OSError as error:
            raised.append(error)

    # The system's own search for a name has no time limit of ours.
    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(seconds)
    if addresses:
        return addresses
    why = f": {raised[0].strerror}" if raised else f" within {seconds:.0f} s"
    advice = "ask for an entry in the DNS, or write one into /etc/hosts; a kit names one host"
    raise _Failed(f"no address is known for {kit.host}{why}", advice)


def _secured(kit: Kit, connection: socket.socket, seconds: float) -> ssl.SSLSocket:
    """TLS with whoever answers; what its certificate is worth is judged afterwards."""
    try:
        return _context(kit).wrap_socket(connection, server_hostname=kit.host)
    except TimeoutError:
        message = f"{kit.address} takes a connection and says nothing for {seconds:.0f} s"
        raise _Failed(message, OPEN.format(address=kit.address)) from None
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            raise _refused(kit, error) from None
        raise _no_tls(kit) from None
    except ConnectionError:
        raise _no_tls(kit) from None


def _no_tls(kit: Kit) -> _Failed:
    message = f"{kit.address} speaks no TLS, so it is not the federation's server"
    return _Failed(message, "ask whoever runs the server; another program or a proxy answers there")


def _judge(kit: Kit, secured: ssl.SSLSocket) -> None:
    """Judge whether that is the certificate of this federation's server, and good today."""
    presented = _certificate_of(secured)
    names, now = names_of(presented), datetime.now(UTC)
    if not is_issued_by(presented, load_certificate(kit.authority)):
        issuer = presented.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        by = str(issuer[0].value) if issuer else "an unknown authority"
        message = (
            f"{kit.address} shows a certificate of {own_name(names)} that {by} has issued, and not "
            "this federation's authority"
        )
        raise _Failed(message, INTERCEPTED.format(address=kit.address))
    if kit.host not in names or kit.server_name not in names:
        message = (
            f"{kit.address} shows the certificate of {', '.join(dict.fromkeys(names))}, and not of "
            f"{kit.server_name}"
        )
        advice = "ask whoever provisions: the kit names another host than the server's certificate"
        raise _Failed(message, advice)
    if not presented.not_valid_before_utc <= now <= presented.not_valid_after_utc:
        start, end = presented.not_valid_before_utc, presented.not_valid_after_utc
        message = f"the server's certificate is good from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        advice = f"the clock here says {now:%Y-%m-%d}; if it is right, the server needs a new kit"
        raise _Failed(message, advice)


def _await_answer(kit: Kit, secured: ssl.SSLSocket) -> None:
    """Wait for the server's first words; it has looked at this kit's certificate before."""
    try:
        answered = bool(secured.recv(1))
    except TimeoutError:
        return  # the channel that follows says more
    except (ssl.SSLError, ConnectionError) as error:
        raise _refused(kit, error) from None
    if not answered:
        raise _refused(kit, None)


def _refused(kit: Kit, error: OSError | None) -> _Failed:
    reason = getattr(error, "reason", None) or ""
    said = f" ({reason.lower().replace('_', ' ')})" if "ALERT" in reason else ""
    message = f"{kit.address} does not take this kit's certificate{said}"
    advice = (
        "see the check of the certificate; if that is well, the server's kit is of another "
        "provisioning, and one of the two has to be replaced"
    )
    return _Failed(message, advice)


def _call(kit: Kit, seconds: float, via: str = "") -> None:
    """Open a channel as NVFlare does."""
    import grpc

    credentials = grpc.ssl_channel_credentials(
        certificate_chain=kit.certificate.read_bytes(),
        private_key=kit.key.read_bytes(),
        root_certificates=kit.authority.read_bytes(),
    )
    channel = grpc.secure_channel(kit.address, credentials)
    try:
        grpc.channel_ready_future(channel).result(timeout=seconds)
    except grpc.FutureTimeoutError:
        message = f"{kit.address} opens no gRPC channel within {seconds:.0f} s{via}"
        advice = (
            "the proxy has to let CONNECT to it pass; to go without it, add the host to no_proxy"
            if via
            else "ask whoever runs the server whether that port is NVFlare's"
        )
        raise _Failed(message, advice) from None
    finally:
        channel.close()


def _certificate_of(secured: ssl.SSLSocket) -> x509.Certificate:
    return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")


def _context(kit: Kit | None = None) -> ssl.SSLContext:
    """TLS that takes any certificate, to look at it; with the kit's own, if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    if kit is not None:
        context.load_cert_chain(kit.certificate, kit.key)
    return context
