"""What strangers, broken clients and networks do to the listener: bounded, one log line each, others unaffected."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

import psycopg
import pytest

from broker.listeners.limits import Strangers
from broker.wire.postgres import startup
from broker.wire.postgres.framing import frame
from dev.postgres_server import PostgresServer
from tests.e2e.postgres_broker import BrokerThread, running_broker, running_postgres, wait_for
from tests.fakes.flow import LOGIN
from tests.vectors.postgres.replay import pieces

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("postgres-strangers")]

HELLO = startup.encode_startup({"user": LOGIN, "database": "orders"})


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def broker(server: PostgresServer) -> Iterator[BrokerThread]:
    with running_broker(server, handshake_s=1.0, strangers=Strangers(total=8, per_peer=6)) as running:
        yield running


@contextlib.contextmanager
def stranger(broker: BrokerThread) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as raw:
        yield raw


def everything(raw: socket.socket) -> bytes:
    """Read until the broker closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := raw.recv(65536):
            got += data
    return got


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        str(vars(record).get("how", vars(record).get("why", "")))
        for record in caplog.records
        if record.name == "broker.listeners.tcp"
    ]


def assert_serves(broker: BrokerThread) -> None:
    """Others are unaffected."""
    with psycopg.connect(broker.dsn()) as client:
        assert client.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("sent", "how"),
    [
        (b"", "silent"),
        (b"\x00\x00", "too slow"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "violation"),
        (b"\x16\x03\x01\x00\x05hello", "client gone"),
        (b"\x00\x00\x27\x11\x00\x03\x00\x00", "violation"),
        (startup.encode_request(startup.SSL_REQUEST) + HELLO, "violation"),
        (HELLO, "too slow"),
    ],
    ids=["silent", "half a length", "http", "half a handshake", "too long", "bytes behind SSLRequest", "no password"],
)
def test_a_stranger_is_bounded_and_logged_once(
    broker: BrokerThread, caplog: pytest.LogCaptureFixture, sent: bytes, how: str
) -> None:
    """Silent, slow or nonsense: gone after the deadline at the latest."""
    caplog.set_level(logging.INFO)
    with stranger(broker) as raw:
        raw.sendall(sent)
        everything(raw)
    wait_for(lambda: lines(caplog))
    assert len(lines(caplog)) == 1
    assert lines(caplog)[0].startswith(how)
    assert broker.flow.connections == []
    assert_serves(broker)


def test_connect_and_leave(broker: BrokerThread, caplog: pytest.LogCaptureFixture) -> None:
    """What a health check does."""
    caplog.set_level(logging.INFO)
    with stranger(broker):
        pass
    wait_for(lambda: lines(caplog))
    assert lines(caplog) == ["left without a byte"]


def test_a_half_open_stranger(broker: BrokerThread, caplog: pytest.LogCaptureFixture) -> None:
    """It stops sending and goes on reading: nothing waits for it."""
    caplog.set_level(logging.INFO)
    with stranger(broker) as raw:
        raw.sendall(HELLO)
        raw.shutdown(socket.SHUT_WR)
        everything(raw)
    wait_for(lambda: lines(caplog))
    assert_serves(broker)


def test_one_peer_cannot_take_every_place(broker: BrokerThread, caplog: pytest.LogCaptureFixture) -> None:
    """More silent strangers than places: the ones too many are closed without a byte, and at the deadline all are."""
    caplog.set_level(logging.INFO)
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(stranger(broker)) for _ in range(12)]
        for raw in raws:
            assert everything(raw) == b""
    wait_for(lambda: len(lines(caplog)) == 12)
    assert lines(caplog).count("too many before authentication") >= 6
    assert_serves(broker)


def test_more_than_16_kib_before_authentication(broker: BrokerThread, caplog: pytest.LogCaptureFixture) -> None:
    """A password message of any size would be somebody else's memory."""
    caplog.set_level(logging.INFO)
    with stranger(broker) as raw:
        raw.sendall(HELLO)
        raw.recv(4096)
        raw.sendall(frame(b"p", b"x" * 100_000))
        assert b"C08P01" in everything(raw)
    wait_for(lambda: lines(caplog))
    assert_serves(broker)


def test_direct_tls_needs_the_protocols_name(broker: BrokerThread, caplog: pytest.LogCaptureFixture) -> None:
    """With ALPN it is served; without, another protocol's client could be made to talk to us."""
    caplog.set_level(logging.INFO)
    context = ssl.create_default_context(cafile=str(broker.ca_file))
    with stranger(broker) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        with contextlib.suppress(OSError):
            tls.sendall(HELLO)
        assert not everything(tls).startswith(b"R")
    context.set_alpn_protocols(["postgresql"])
    with stranger(broker) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
        tls.sendall(HELLO)
        assert tls.recv(1) == b"R"
    wait_for(lambda: len(lines(caplog)) == 2)
    assert lines(caplog)[0] == "violation: direct TLS without the protocol's name"


def test_a_real_session_cut_at_every_few_bytes(broker: BrokerThread, caplog: pytest.LogCaptureFixture) -> None:
    """psql's own bytes, cut off: each connection ends, none takes another with it."""
    caplog.set_level(logging.INFO)
    data = b"".join(piece for direction, piece in pieces("psql") if direction == "c")
    cuts = range(1, len(data), max(1, len(data) // 40))
    for cut in cuts:
        with stranger(broker) as raw:
            raw.sendall(data[:cut])
            raw.shutdown(socket.SHUT_WR)
            everything(raw)
    wait_for(lambda: len(lines(caplog)) == len(cuts))
    assert_serves(broker)


def test_junk_after_login_ends_that_connection_with_08p01(broker: BrokerThread) -> None:
    """Undecodable bytes end the session; there is no path on which they are forwarded."""
    with psycopg.connect(broker.dsn(sslmode="disable")) as client:
        raw = socket.socket(fileno=client.fileno())
        try:
            raw.setblocking(True)
            raw.sendall(b"!\x00\x00\x00\x04")
            raw.settimeout(10)
            assert b"C08P01" in everything(raw)
        finally:
            raw.detach()
    assert broker.ended(broker.connection) == "protocol_violation"
    assert_serves(broker)


def test_an_oversize_message_ends_that_connection_with_08p01(broker: BrokerThread) -> None:
    """Its length is enough: the body is not waited for."""
    with psycopg.connect(broker.dsn(sslmode="disable")) as client:
        raw = socket.socket(fileno=client.fileno())
        try:
            raw.setblocking(True)
            raw.sendall(b"Q\x7f\xff\xff\xff")
            raw.settimeout(10)
            assert b"C08P01" in everything(raw)
        finally:
            raw.detach()
    assert broker.ended(broker.connection) == "protocol_violation"


def test_a_cancel_request_with_a_guessed_key_does_nothing(
    broker: BrokerThread, caplog: pytest.LogCaptureFixture
) -> None:
    """And says nothing: no oracle for keys."""
    caplog.set_level(logging.INFO)
    with stranger(broker) as raw:
        raw.sendall(startup.encode_cancel(1, b"abcd"))
        assert everything(raw) == b""
    wait_for(lambda: lines(caplog))
    assert lines(caplog) == ["cancel for nobody"]


def test_a_client_that_does_not_read_holds_up_nobody_else(broker: BrokerThread) -> None:
    """A large result into a full socket: the target is not read on, memory stays bounded, others go on."""
    with psycopg.connect(broker.dsn(sslmode="disable"), autocommit=True) as client:
        raw = socket.socket(fileno=client.fileno())
        try:
            raw.setblocking(True)
            raw.sendall(frame(b"Q", b"select repeat('x', 1000) from generate_series(1, 200000)\0"))
            for _ in range(3):
                assert_serves(broker)
        finally:
            raw.detach()
    assert broker.ended(broker.flow.connections[0]) in ("client_closed", "client_lost")
