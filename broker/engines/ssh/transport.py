"""SshTransport: paramiko's Transport, with channels of our own, sends that never wait for a key exchange, and an end
that is told. The one file that touches what paramiko does not promise; a test fails where those hooks have moved.

What paramiko does: version, key exchange, ciphers, MACs, rekeying, authentication's messages. What it does not do here:

- *Channels.* Its own answer in the reading thread with calls that wait for a key exchange to end, which only that
  thread can end; they queue whatever a window let in; and theirs is one application's end, not a relay's.
- *Sending while keys are exchanged* (RFC 4253 section 7.1 forbids it): its senders wait, up to 30 s. In a relay both
  sides reach their rekeying bound with the same byte, so each reading thread would wait for the other's. Messages are
  kept here instead, in order, and leave with the new keys.
- *Bounds before authentication*: the length of a packet and of the version line, the number of packets and of key
  exchanges, and the counts in EXT_INFO and in INFO_RESPONSE (four bytes that make its parser loop four thousand million
  times) have none there.

Rules: algorithms are a closed list without CBC, SHA-1, NIST curves for key exchange with clients, or compression;
whatever ends the transport ends in ``on_ended``, once; nothing of paramiko's log is written, since it quotes the peer.

Source: RFC 4253 sections 4.2, 6.1, 7.1, 11.1; RFC 4252 sections 5.1, 5.4; RFC 8308; OpenSSH PROTOCOL 1.9 (strict KEX).
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_DISCONNECT, cMSG_USERAUTH_BANNER
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.message import Message
from paramiko.packet import Packetizer

from broker.engines.ssh.endpoint import Endpoint
from broker.engines.ssh.exchanges import Group16, Turns
from broker.wire.ssh import messages
from broker.wire.violation import RemoteViolation
from chalicelib.domain.clock import Clock

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

VERSION: Final = "SSH-2.0-Countersign"  # and no number: whoever asks learns nothing to look up
GREETING: Final = f"{VERSION}\r\n".encode()
MAX_PACKET: Final = 256 * 1024  # OpenSSH's own bound (packet.c, PACKET_MAX_SIZE); a key exchange needs far less
MAX_LINE: Final = 255  # RFC 4253 section 4.2
MAX_KEPT: Final = 4096  # messages kept while keys are exchanged; data waits elsewhere (``open``), so these are short
MAX_STRANGE: Final = 256  # messages before authentication: 64 requests for it, signed and unsigned, and room
MAX_EARLY: Final = 64  # channels and requests of a client whose session is still being opened
# A thread that reads nothing wakes this often: paramiko's own ten times a second is a tenth of a core for 300 sessions.
WAKE_S: Final = 1.0
# A peer that is gone without a word is found by the kernel: 60 s of silence, then four probes 15 s apart; and one that
# does not take what was sent, after 60 s.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 60_000))
_BY_APPLICATION: Final = 11  # SSH_DISCONNECT_BY_APPLICATION
_MAX_EXTENSIONS: Final = 16

_CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
_MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
_KEX: Final = (
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "diffie-hellman-group16-sha512",
)
# Targets are older than clients: what RHEL and appliances offer beside the above, and is not broken.
_KEX_TO_TARGETS: Final = (*_KEX, "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521")
_KEYS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)

_log = logging.getLogger(__name__)
_quiet = logging.getLogger("paramiko")


class Owner(Protocol):
    """Who has a transport's channels. Every call comes in the transport's own thread, and must not raise."""

    def channel_asked(self, asked: messages.ChannelOpen) -> None: ...
    def global_request(self, request: messages.GlobalRequest) -> None: ...
    def writable(self) -> None:
        """What was kept back may be sent again."""
        ...

    def ended(self) -> None: ...


class Gatekeeper(Protocol):
    """Who authenticates: a ``paramiko.ServerInterface`` that also counts."""

    def proved(self, login: str, method: str) -> None: ...
    def exhausted(self) -> bool: ...


class _Channels:
    """Our channels by number. A number is used once, so that a late message finds nobody else's channel."""

    def __init__(self) -> None:
        self._open: dict[int, Endpoint] = {}
        self._next = 0
        self._lock = threading.Lock()

    def add(self, make: Callable[[int], Endpoint]) -> Endpoint:
        with self._lock:
            endpoint = make(self._next)
            self._open[self._next] = endpoint
            self._next += 1
            return endpoint

    def get(self, number: int) -> Endpoint | None:
        """What paramiko asks. A channel that is gone takes its late messages; one that never was ends the transport."""
        with self._lock:
            if number >= self._next:
                raise RemoteViolation("a message for a channel that was never open")
            return self._open.get(number) or Endpoint.nobody()

    def delete(self, number: int) -> None:
        with self._lock:
            self._open.pop(number, None)

    def values(self) -> tuple[Endpoint, ...]:
        """What paramiko unlinks at its end: nothing, since the owner is told."""
        return ()

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)


class _Packets(Packetizer):
    """paramiko's packets, with bounds."""

    greeting = b""  # what was sent before this began
    strange: int | None = None  # how many messages of a stranger's are still read; None: it is no stranger

    def read_message(self) -> tuple[int, Message]:
        if self.strange is not None:
            if self.strange == 0:
                raise RemoteViolation("too much was said before authentication")
            self.strange -= 1
        found: tuple[int, Message] = super().read_message()
        return found

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > MAX_PACKET:
            raise RemoteViolation("a packet is too long")
        return super().read_all(n, check_rekey)

    def readline(self, timeout: float) -> str:
        """Read one line before the first packet, bounded."""
        read = cast(Any, self)
        line: bytes = read._Packetizer__remainder
        while b"\n" not in line:
            if len(line) > MAX_LINE:
                raise RemoteViolation("the version line is too long")
            line += read._read_timeout(timeout)
        found, _, read._Packetizer__remainder = line.partition(b"\n")
        return found.rstrip(b"\r").decode("ascii", "replace")

    def write_all(self, out: Buffer) -> None:
        if self.greeting and bytes(out) == self.greeting:  # the listener sent it, before a thread was spent on this
            self.greeting = b""
            return
        super().write_all(out)

    def start_handshake(self, timeout: float) -> None:
        """The engine's deadline bounds the handshake; paramiko's would cost a second thread."""


class _ServerAuth(AuthHandler):
    """paramiko's server side of authentication: who may try again is the gatekeeper's to say."""

    transport: Any

    def _send_auth_result(self, username: str, method: str, result: int) -> None:
        gatekeeper: Gatekeeper = self.transport.server_object
        super()._send_auth_result(username, method, result)  # type: ignore[misc]
        self.auth_fail_count = 0
        if self.authenticated:
            cast(_Packets, self.transport.packetizer).strange = None
            gatekeeper.proved(username, method)
        elif gatekeeper.exhausted():
            self._disconnect_no_more_auth()  # type: ignore[attr-defined]

    def _generate_key_from_request(self, algorithm: str, keyblob: bytes) -> object:
        """A key of a kind that is not taken is refused like any other: a client may have a better one."""
        try:
            return super()._generate_key_from_request(algorithm, keyblob) or object()  # type: ignore[misc]
        except Exception:  # noqa: BLE001 whatever is wrong with a stranger's key, it is no key of ours
            return object()

    def _parse_userauth_info_response(self, m: Message) -> None:  # noqa: ARG002 it is not read
        raise RemoteViolation("an answer to a question that nobody asked")


class SshTransport(paramiko.Transport):
    """One transport. ``start`` its side, then ``attach`` an owner; :meth:`post` is for any thread."""

    _active_check_timeout = WAKE_S
    _CLIENT_ID = VERSION.removeprefix("SSH-2.0-")
    _preferred_ciphers = _CIPHERS
    _preferred_macs = _MACS
    _preferred_keys: ClassVar[tuple[str, ...]] = _KEYS
    _preferred_pubkeys = _KEYS
    _preferred_compression = ("none",)
    _kex_info: ClassVar[Any] = {
        **paramiko.Transport._kex_info,  # type: ignore[attr-defined]
        "curve25519-sha256": KexCurve25519,
        Group16.name: Group16,
    }
    _channel_handler_table: ClassVar[Any] = {
        messages.DATA: lambda endpoint, m: endpoint.take_data(m.get_remainder()),
        messages.EXTENDED_DATA: lambda endpoint, m: endpoint.take_extended(m.get_remainder()),
        messages.WINDOW_ADJUST: lambda endpoint, m: endpoint.take_adjust(m.get_remainder()),
        messages.REQUEST: lambda endpoint, m: endpoint.take_request(m.get_remainder()),
        messages.SUCCESS: lambda endpoint, _: endpoint.owner.replied(True),
        messages.FAILURE: lambda endpoint, _: endpoint.owner.replied(False),
        messages.EOF: lambda endpoint, _: endpoint.owner.ended_input(),
        messages.CLOSE: lambda endpoint, _: endpoint.take_close(),
    }

    def __init__(
        self,
        sock: socket.socket,
        *,
        clock: Clock,
        on_ended: Callable[[], None],
        to_target: bool = False,
        turns: Turns | None = None,
    ) -> None:
        """``on_ended`` is called once, in the transport's thread, however it ends. ``turns``: shared by all strangers,
        for the key exchanges that are dear; a transport's own without."""
        _quiet.setLevel(logging.CRITICAL + 1)
        _watch(sock)
        self._preferred_kex = _KEX_TO_TARGETS if to_target else _KEX
        super().__init__(sock, packetizer_class=_Packets)
        if not to_target:
            cast(_Packets, self.packetizer).strange = MAX_STRANGE
        self.turns = turns if turns is not None else Turns(clock)
        self._clock = clock
        self._on_ended = on_ended
        self._channels = _Channels()
        self._host_key_algorithms: tuple[str, ...] = _KEYS
        self._kept: deque[Message] = deque()
        self._owner: Owner | None = None
        self._owner_lock = threading.Lock()
        self._early: list[Callable[[Owner], None]] = []
        self._writing_since_s: float | None = None
        self.finished = False
        self.said_goodbye = False
        self.violation = ""

    # What the engine calls.

    def greet(self) -> None:
        """Say that the version line was sent already."""
        cast(_Packets, self.packetizer).greeting = GREETING

    def only_host_keys(self, algorithms: tuple[str, ...]) -> None:
        """Ask the server for one of these alone."""
        self._host_key_algorithms = algorithms

    def attach(self, owner: Owner) -> None:
        """Give the transport its owner, and tell it what was asked before. Any thread; once."""
        with self._owner_lock:
            early, self._early = self._early, []
            for tell in early:
                tell(owner)
            self._owner = owner
        if self.finished:
            owner.ended()

    def add_endpoint(self, make: Callable[[int], Endpoint]) -> Endpoint:
        return self._channels.add(make)

    def forget(self, number: int) -> None:
        """The channel ``number`` was closed by both."""
        self._channels.delete(number)

    @property
    def open(self) -> bool:
        """Whether a message would leave now: not while keys are exchanged."""
        return self.active and self.clear_to_send.is_set() and not self._kept

    def post(self, payload: bytes) -> None:
        """Send a message; while keys are exchanged, afterwards. Waits for the peer's TCP alone, and does nothing once
        the transport is gone."""
        self._send_user_message(Message(payload))

    def stalled_s(self) -> float:
        """For how long one write has been waiting for the peer to take it."""
        since_s = self._writing_since_s
        return 0.0 if since_s is None else self._clock.monotonic_s() - since_s

    def banner(self, text: str) -> None:
        """Show ``text`` to a client that is authenticating."""
        self.post(cMSG_USERAUTH_BANNER + messages.string(text) + messages.string("en"))

    def disconnect(self, text: str) -> None:
        """Say why the transport ends; :meth:`cut` ends it."""
        self.post(cMSG_DISCONNECT + _BY_APPLICATION.to_bytes(4, "big") + messages.string(text) + messages.string("en"))

    def cut(self) -> None:
        """End it now. Any thread; idempotent. Its own thread closes the socket, so that no other reads a number that
        the kernel gave to somebody else."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is gone already
            return

    # What paramiko calls, in its thread.

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """No host certificates: they are not verified yet, so they are not asked for."""
        return self._host_key_algorithms

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 a thread's last word: its owner must hear that it is over
            _log.error("a transport failed", extra={"why": type(error).__name__})
        finally:
            self.active = False
            self.finished = True
            if isinstance(self.saved_exception, RemoteViolation):
                self.violation = self.saved_exception.what
            with self._owner_lock:
                owner = self._owner
            if owner is not None:
                owner.ended()
            self._on_ended()

    def _send_user_message(self, data: Message) -> None:
        with self.clear_to_send_lock:
            if not self.active:
                return
            if self._kept or not self.clear_to_send.is_set():
                self._kept.append(data)
                if len(self._kept) > MAX_KEPT:  # a peer that never ends its key exchange
                    self._kept.clear()
                    self.cut()
                return
            self._write(data)

    def _write(self, data: Message) -> None:
        self._writing_since_s = self._clock.monotonic_s()
        try:
            cast(Any, self)._send_message(data)
        except (EOFError, OSError, paramiko.SSHException):
            self.cut()  # its own thread says so to the owner; whose thread this is may be another transport's
        finally:
            self._writing_since_s = None

    def _negotiate_keys(self, m: Message) -> None:
        if self.server_mode and self.initial_kex_done and not self.is_authenticated():
            raise RemoteViolation("keys were exchanged again before authentication")
        super()._negotiate_keys(m)  # type: ignore[misc]

    def _parse_newkeys(self, m: Message) -> None:
        if self.server_mode and self.auth_handler is None:
            self.auth_handler = _ServerAuth(self)
        super()._parse_newkeys(m)  # type: ignore[misc]
        with self.clear_to_send_lock:
            while self._kept and self.clear_to_send.is_set():
                self._write(self._kept.popleft())
        with self._owner_lock:
            owner = self._owner
        if owner is not None:
            owner.writable()

    def _parse_ext_info(self, msg: Message) -> None:
        if self.server_mode:
            return  # nothing that a client may say there is used
        fields = messages.Fields(msg.get_remainder())
        count = fields.uint32()
        if count > _MAX_EXTENSIONS:
            raise RemoteViolation("too many extensions")
        self.server_extensions = {fields.text(): fields.string() for _ in range(count)}

    def _parse_disconnect(self, m: Message) -> None:  # noqa: ARG002 its text is the peer's
        self.said_goodbye = True

    def _parse_global_request(self, m: Message) -> None:
        request = messages.parse_global_request(m.get_remainder())
        self._tell(lambda owner: owner.global_request(request))

    def _parse_request_success(self, m: Message) -> None:
        pass  # none of ours wants a reply

    _parse_request_failure = _parse_request_success

    def _parse_channel_open(self, m: Message) -> None:
        asked = messages.parse_open(m.get_remainder())
        self._tell(lambda owner: owner.channel_asked(asked))

    def _parse_channel_open_success(self, m: Message) -> None:
        found = messages.parse_confirmation(m.get_remainder())
        self._asked_for(found.recipient).take_confirmation(found)

    def _parse_channel_open_failure(self, m: Message) -> None:
        endpoint = self._asked_for(messages.parse_open_failure(m.get_remainder()))
        self.forget(endpoint.number)
        endpoint.owner.refused()

    def _asked_for(self, number: int) -> Endpoint:
        endpoint = self._channels.get(number)
        if endpoint is None or endpoint.confirmed:
            raise RemoteViolation("an answer for a channel that was not asked for")
        return endpoint

    def _tell(self, tell: Callable[[Owner], None]) -> None:
        with self._owner_lock:
            owner = self._owner
            if owner is None:
                if len(self._early) >= MAX_EARLY:
                    raise RemoteViolation("too much was asked for before the session was open")
                self._early.append(tell)
                return
        tell(owner)


def _watch(sock: socket.socket) -> None:
    """Have the kernel find a peer that is gone. What a system does not know it is not asked for."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
