"""The one file that touches what paramiko does not promise: that it is still there, and what it is bounded by."""

from __future__ import annotations

import contextlib
import inspect
import socket
import threading
from collections.abc import Iterator

import paramiko
import pytest
from paramiko.auth_handler import AuthHandler
from paramiko.packet import Packetizer

from broker.engines.ssh import transport as ours
from broker.engines.ssh.keys import make_key
from broker.engines.ssh.transport import MAX_EARLY, MAX_LINE, MAX_PACKET, MAX_STRANGE, VERSION, SshTransport
from broker.wire.ssh import messages
from tests.e2e.postgres_broker import wait_for
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.timeout(60)

# What is overridden or read, and how it must look: another shape in another release would silently not be used.
HOOKS = {
    paramiko.Transport: (
        "_negotiate_keys",
        "_parse_newkeys",
        "_parse_ext_info",
        "_parse_disconnect",
        "_parse_global_request",
        "_parse_request_success",
        "_parse_request_failure",
        "_parse_channel_open",
        "_parse_channel_open_success",
        "_parse_channel_open_failure",
        "_send_user_message",
        "_send_message",
        "preferred_keys",
        "run",
    ),
    AuthHandler: (
        "_send_auth_result",
        "_disconnect_no_more_auth",
        "_generate_key_from_request",
        "_parse_userauth_info_response",
    ),
    Packetizer: ("read_message", "read_all", "readline", "write_all", "start_handshake", "_read_timeout"),
}
ATTRIBUTES = (
    "_channel_handler_table",
    "_kex_info",
    "_preferred_ciphers",
    "_preferred_macs",
    "_preferred_keys",
    "_preferred_pubkeys",
    "_preferred_kex",
    "_preferred_compression",
    "_active_check_timeout",
)


@pytest.mark.parametrize(("owner", "names"), HOOKS.items())
def test_the_hooks_in_paramiko_are_where_they_were(owner: type, names: tuple[str, ...]) -> None:
    """A release that renames one would bring back what it was overridden for, without a word."""
    assert [name for name in names if name not in vars(owner)] == []


def test_the_hooks_take_what_they_took() -> None:
    """The same of their arguments."""
    for name in HOOKS[paramiko.Transport][:-2]:
        theirs, overridden = getattr(paramiko.Transport, name), getattr(SshTransport, name)
        assert len(inspect.signature(theirs).parameters) == len(inspect.signature(overridden).parameters), name
    assert [name for name in ATTRIBUTES if not hasattr(paramiko.Transport, name)] == []
    one, other = socket.socketpair()
    with one, other:
        made = paramiko.Transport(one)
        own = {"_channels", "saved_exception", "clear_to_send", "clear_to_send_lock", "server_extensions", "packetizer"}
        assert own <= set(vars(made))
        assert "_Packetizer__remainder" in vars(made.packetizer)
        assert len(inspect.signature(made._channels.get).parameters) == 1  # type: ignore[attr-defined]


class Heard:
    """An owner that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.over = threading.Event()

    def channel_asked(self, asked: messages.ChannelOpen) -> None:
        self.told.append(asked)

    def global_request(self, request: messages.GlobalRequest) -> None:
        self.told.append(request)

    def writable(self) -> None:
        pass

    def ended(self) -> None:
        self.over.set()


class Everybody(paramiko.ServerInterface):
    """Lets everybody in, and counts nothing."""

    def check_auth_none(self, username: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def proved(self, login: str, method: str) -> None:
        pass

    def exhausted(self) -> bool:
        return False


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, which has the options that a pair of sockets has not."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname(), timeout=10)
        return peer, listening.accept()[0]


class Server:
    """Our transport as a server, and the socket of whoever speaks to it."""

    def __init__(self) -> None:
        self.peer, inner = connected()
        self.over = threading.Event()
        self.transport = SshTransport(inner, clock=FakeClock(), on_ended=self.over.set)
        self.transport.add_server_key(make_key().private)
        self.transport.start_server(event=threading.Event(), server=Everybody())


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.peer.close()
    made.transport.cut()
    assert made.over.wait(10)


def test_a_packet_has_a_bound(server: Server) -> None:
    """Four bytes of a stranger's would reserve 4 GiB, one read at a time."""
    server.peer.sendall(b"SSH-2.0-x\r\n" + (MAX_PACKET * 2 + 4).to_bytes(4, "big") + bytes(64))
    assert server.over.wait(10)
    assert server.transport.violation == "a packet is too long"


def test_a_version_line_has_a_bound(server: Server) -> None:
    """A stranger who never ends the line would be read for ever."""
    server.peer.sendall(b"x" * (MAX_LINE + 200))
    assert server.over.wait(10)


@pytest.mark.parametrize("number", [2, 4, 5, 50], ids=["IGNORE", "DEBUG", "SERVICE_REQUEST", "keyboard-interactive"])
def test_a_stranger_talks_for_ever(server: Server, number: int) -> None:
    """Requests that no gatekeeper is asked about were not counted, and kept a thread busy up to the deadline."""
    client = paramiko.Transport(server.peer)
    client.start_client(timeout=10)
    rest = messages.string("ssh-userauth")
    if number == 50:
        send(client, 5, rest)
        words = ("x", "ssh-connection", "keyboard-interactive", "", "")
        rest = b"".join(messages.string(word) for word in words)
    with contextlib.suppress(OSError, EOFError):
        for _ in range(MAX_STRANGE):
            send(client, number, rest)
    assert server.over.wait(10)
    assert server.transport.violation == "too much was said before authentication"


def test_who_is_let_in_may_talk_for_ever(server: Server) -> None:
    """The bound is a stranger's."""
    client = logged_in(server)
    for _ in range(MAX_STRANGE + 1):
        send(client, 2, messages.string("x"))
    client.renegotiate_keys()
    assert client.is_active()


def test_a_stranger_exchanges_keys_again_and_again(server: Server) -> None:
    """Each costs us more than them; there is no reason for a second before authentication."""
    client = paramiko.Transport(server.peer)
    client.start_client(timeout=10)
    with pytest.raises((EOFError, paramiko.SSHException, OSError)):
        client.renegotiate_keys()
    assert server.over.wait(10)
    assert server.transport.violation == "keys were exchanged again before authentication"


def logged_in(server: Server) -> paramiko.Transport:
    client = paramiko.Transport(server.peer)
    client.start_client(timeout=10)
    client.auth_none("x")
    return client


def send(client: paramiko.Transport, number: int, rest: bytes) -> None:
    client._send_user_message(paramiko.Message(bytes((number,)) + rest))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("number", "rest"),
    [
        (7, (2**32 - 1).to_bytes(4, "big")),
        (61, (2**32 - 1).to_bytes(4, "big")),
    ],
    ids=["EXT_INFO", "USERAUTH_INFO_RESPONSE"],
)
def test_a_count_of_four_thousand_million_costs_nothing(server: Server, number: int, rest: bytes) -> None:
    """paramiko loops over it, and one stranger holds the interpreter for hours."""
    client = paramiko.Transport(server.peer)
    client.start_client(timeout=10)
    send(client, number, rest)
    if number == 7:
        client.auth_none("x")
        assert client.is_authenticated()
    else:
        assert server.over.wait(10)


def test_what_is_asked_before_the_session_is_open_is_kept_in_order(server: Server) -> None:
    """Clients ask at once; the session is still being opened."""
    client = logged_in(server)
    opens = [messages.string("session") + number.to_bytes(4, "big") + bytes(8) for number in range(2)]
    send(client, messages.OPEN, opens[0])
    send(client, messages.GLOBAL_REQUEST, messages.string("keepalive@openssh.com") + b"\x00")
    send(client, messages.OPEN, opens[1])
    heard = Heard()
    wait_for(lambda: len(server.transport._early) == 3)
    server.transport.attach(heard)
    assert [type(told).__name__ for told in heard.told] == ["ChannelOpen", "GlobalRequest", "ChannelOpen"]


def test_what_is_asked_before_the_session_is_open_has_a_bound(server: Server) -> None:
    """An opening takes seconds, and a client could ask for millions meanwhile."""
    client = logged_in(server)
    for _ in range(MAX_EARLY + 1):
        send(client, messages.GLOBAL_REQUEST, messages.string("x") + b"\x00")
    assert server.over.wait(10)
    assert server.transport.violation == "too much was asked for before the session was open"


def test_a_message_for_no_channel_ends_the_transport(server: Server) -> None:
    """Numbers are given out here: one that never was is no accident."""
    client = logged_in(server)
    send(client, messages.DATA, (77).to_bytes(4, "big") + messages.string(b"x"))
    assert server.over.wait(10)
    assert server.transport.violation == "a message for a channel that was never open"


def test_the_owner_hears_of_an_end_before_it_was_there(server: Server) -> None:
    """A client that leaves while its session is being opened must not leave it open."""
    server.peer.close()
    assert server.over.wait(10)
    heard = Heard()
    server.transport.attach(heard)
    assert heard.over.is_set()


def test_messages_wait_for_the_new_keys_and_nobody_waits_for_them(server: Server) -> None:
    """RFC 4253 section 7.1. Whoever posts may be the other side's reading thread."""
    client = logged_in(server)
    heard = Heard()
    server.transport.attach(heard)
    server.transport.clear_to_send.clear()
    server.transport.post(bytes((messages.GLOBAL_REQUEST,)) + messages.string("kept") + b"\x00")
    assert not server.transport.open
    assert len(server.transport._kept) == 1
    client.renegotiate_keys()
    wait_for(lambda: server.transport.open)
    assert len(server.transport._kept) == 0
    assert client.is_active()


def test_the_greeting_that_was_sent_is_not_sent_again() -> None:
    """The listener says it, before a thread is spent; twice would be garbage where packets begin."""
    peer, inner = connected()
    over = threading.Event()
    transport = SshTransport(inner, clock=FakeClock(), on_ended=over.set)
    transport.greet()
    transport.start_server(event=threading.Event(), server=Everybody())
    with peer:
        peer.sendall(b"SSH-2.0-x\r\n")
        assert not peer.recv(4).startswith(b"SSH")
    assert over.wait(10)
    assert transport.local_version == VERSION
    assert VERSION.encode() + b"\r\n" == ours.GREETING
