"""Why a kit does not reach its server: each reason against a real listener on this machine."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.drivers.grpc.utils import get_grpc_server_credentials

from fl_admin.kits.setup import connection
from fl_admin.kits.setup.connection import check_connection, proxy_for
from fl_admin.kits.setup.finding import Finding, State
from fl_admin.kits.setup.kit import open_kit
from fl_admin.kits.setup.machine import check_port
from tests.fl_admin.kits.setup.conftest import LEAD, SERVER, SITE, Federation

SECONDS = 2.0
DAY = timedelta(days=1)
Copied = Callable[..., Path]


@contextmanager
def server_of(kit: Path, port: int) -> Iterator[None]:
    """A gRPC server with the credentials that NVFlare's driver makes from a kit."""
    startup = kit / "startup"
    parameters = {
        DriverParams.CA_CERT.value: startup / "rootCA.pem",
        DriverParams.SERVER_CERT.value: startup / "server.crt",
        DriverParams.SERVER_KEY.value: startup / "server.key",
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_secure_port(f"127.0.0.1:{port}", get_grpc_server_credentials(parameters))
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


@contextmanager
def answering(port: int, answer: Callable[[socket.socket], object]) -> Iterator[None]:
    """Something that listens and treats each connection in its own way."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                with one:
                    answer(one)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def told(kit: Path) -> Finding:
    return check_connection(open_kit(kit), SECONDS)


@pytest.fixture
def mine(ours: Federation, copied: Copied, free_port: int) -> Path:
    """A site's kit for a server at the free port."""
    return copied(ours.kit(SITE), free_port)


@pytest.mark.parametrize("name", [SITE, LEAD])
def test_a_site_and_an_admin_are_taken(
    ours: Federation, copied: Copied, free_port: int, name: str
) -> None:
    kit = copied(ours.kit(name), free_port)

    with server_of(ours.kit(SERVER), free_port):
        found = told(kit)

    assert found == Finding(
        "server", State.OK, f"localhost:{free_port} takes this kit's connection"
    )


def test_a_name_that_nobody_knows(mine: Path) -> None:
    config = mine / "startup/fed_client.json"
    config.write_text(config.read_text().replace("localhost:", "no-such-host.invalid:"))

    assert told(mine).message.startswith("no address is known for no-such-host.invalid")


def test_a_search_for_a_name_that_does_not_end(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def search(*_: object, **__: object) -> list[object]:
        released.wait(10)
        return []

    monkeypatch.setattr(connection.socket, "getaddrinfo", search)

    found = check_connection(open_kit(mine), 0.2)
    released.set()

    assert found.message.startswith("no address is known for localhost within")


def test_nothing_listens(mine: Path) -> None:
    found = told(mine)

    assert "refuses connections" in found.message
    assert "is the server started?" in found.advice


def test_a_firewall_that_drops(mine: Path, free_port: int) -> None:
    """A listener whose queue is full answers no further connection, as a firewall that drops."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", free_port))

        found = check_connection(open_kit(mine), 0.5)

        for one in waiting:
            one.close()
    assert found.message.startswith(f"localhost:{free_port} does not answer within")
    assert "outgoing TCP" in found.advice


def test_something_that_says_nothing(mine: Path, free_port: int) -> None:
    with answering(free_port, lambda one: one.recv(10_000) and one.recv(1)):
        found = check_connection(open_kit(mine), 0.5)

    assert "takes a connection and says nothing" in found.message


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_that_speaks_no_tls(mine: Path, free_port: int, words: bytes) -> None:
    with answering(free_port, lambda one: (one.recv(10_000), one.sendall(words))):
        found = told(mine)

    assert "speaks no TLS" in found.message


def test_the_server_of_another_federation(mine: Path, others: Federation, free_port: int) -> None:
    with server_of(others.kit(SERVER), free_port):
        found = told(mine)

    assert "that others has issued, and not this federation's authority" in found.message
    assert "firewall that opens TLS" in found.advice


def test_a_server_of_another_name(
    mine: Path, ours: Federation, copied: Copied, free_port: int
) -> None:
    server = copied(ours.kit(SERVER))
    ours.sign(server, start=-DAY, end=DAY, name="fl.example.org")

    with server_of(server, free_port):
        found = told(mine)

    assert "shows the certificate of fl.example.org, and not of localhost" in found.message


@pytest.mark.parametrize(("start", "end"), [(-2 * DAY, -DAY), (DAY, 2 * DAY)])
def test_a_server_whose_certificate_is_not_good_today(
    mine: Path,
    ours: Federation,
    copied: Copied,
    free_port: int,
    start: timedelta,
    end: timedelta,
) -> None:
    server = copied(ours.kit(SERVER))
    ours.sign(server, start=start, end=end)

    with server_of(server, free_port):
        found = told(mine)

    assert "the server's certificate is good from " in found.message
    assert "clock" in found.advice


def test_a_certificate_of_another_federation_is_not_taken(
    mine: Path, ours: Federation, others: Federation, free_port: int
) -> None:
    for name in ("client.crt", "client.key"):
        shutil.copy(others.kit(SITE) / "startup" / name, mine / "startup")

    with server_of(ours.kit(SERVER), free_port):
        found = told(mine)

    assert "does not take this kit's certificate" in found.message


def test_an_expired_certificate_is_not_taken(mine: Path, ours: Federation, free_port: int) -> None:
    ours.sign(mine, start=-2 * DAY, end=-DAY)

    with server_of(ours.kit(SERVER), free_port):
        found = told(mine)

    assert "does not take this kit's certificate" in found.message


def test_tls_of_the_federation_that_is_no_grpc(
    mine: Path, ours: Federation, free_port: int
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    startup = ours.kit(SERVER) / "startup"
    context.load_cert_chain(startup / "server.crt", startup / "server.key")
    context.set_alpn_protocols(["h2"])

    def answer(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as secured:
            secured.sendall(b"220 welcome\r\n")
            secured.recv(1)

    with answering(free_port, answer):
        found = told(mine)

    assert "opens no gRPC channel" in found.message


def test_a_kit_without_its_key_asks_nobody(mine: Path) -> None:
    (mine / "startup/client.key").write_text("nothing")
    assert told(mine).state is State.FAULT


# --- proxies


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://me:secret@proxy:3128"}, "proxy:3128"),
        ({"https_proxy": "http://b:1", "http_proxy": "http://a:1"}, "b:1"),
        ({"http_proxy": "http://a:1", "no_proxy": "other, example.org"}, None),
        ({"http_proxy": "http://a:1", "no_grpc_proxy": "fl.example.org"}, None),
        ({"http_proxy": "http://a:1", "no_proxy": "example.com"}, "a:1"),
    ],
)
def test_the_proxy_that_grpc_takes(environment: dict[str, str], proxy: str | None) -> None:
    assert proxy_for("fl.example.org", environment) == proxy


def test_a_proxy_that_does_not_let_it_pass(
    mine: Path, ours: Federation, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)

    with server_of(ours.kit(SERVER), free_port):
        found = check_connection(open_kit(mine), 0.5)

    assert "through the proxy 127.0.0.1:9" in found.message
    assert "secret" not in found.message
    assert "no_proxy" in found.advice


# --- the server's own side


def test_a_server_sees_whether_its_port_is_free_or_its_own(
    ours: Federation, others: Federation, copied: Copied, free_port: int
) -> None:
    kit = open_kit(copied(ours.kit(SERVER), free_port))

    assert "is free" in check_port(kit, SECONDS).message
    with server_of(ours.kit(SERVER), free_port):
        assert check_port(kit, SECONDS).message == f"this server listens at {free_port}"
    with server_of(others.kit(SERVER), free_port):
        assert check_port(kit, SECONDS).message == f"another program listens at {free_port}"
    with answering(free_port, lambda one: one.close()):
        assert check_port(kit, SECONDS).state is State.FAULT
