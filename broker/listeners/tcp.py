"""A TCP listener: accepts, bounds what strangers may cost, and hands each transport to its engine.

Rules: the accept loop does nothing but accept; every transport gets a task of its own, a place among the strangers and
a deadline; one that sends nothing is dropped at the deadline, or sooner where its place is wanted; the first byte is
looked at without being taken, since a TLS handshake begins with 0x16 and no PostgreSQL startup packet does. Where the
server speaks first (ssh: a client may wait for our version line) the listener says it, so that one who never answers
costs its engine nothing. Each transport ends in exactly one log line, but for a balancer's health checks, which end
without one. Stopping closes the listening socket first.

Where a balancer stands before it (``proxied``), each transport begins with a PROXY header, and one without is dropped;
the client's address is the header's from there on, for the limits too. Nobody is on loopback then, whatever a header
says: plaintext is for clients of this machine alone. Where none stands before it a header is no protocol that an
engine knows, so nobody gives itself an address. Who may reach the port is the network's to say (a security group).

Source: RFC 8446 section 5.1 (content type 22); PostgreSQL 17, 55.2.10 (direct TLS); RFC 4253 section 4.2;
``broker.wire.proxy``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from typing import Final

from broker.engines.accepted import Accepted, Engine
from broker.listeners.limits import Place, Strangers
from broker.tasks import Tasks
from broker.wire.proxy import ProxyHeader
from broker.wire.violation import RemoteViolation

HANDSHAKE_S: Final = 10.0  # TLS, SCRAM and two round trips from anywhere on earth take two
BACKLOG: Final = 512
_TLS_HANDSHAKE: Final = b"\x16"
_TOO_MANY: Final = "too many before authentication"
_AFTER_NO_FILES_S: Final = 0.1  # out of file descriptors: accepting at once again would spin

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class Listener:
    """Accepts for one engine. Belongs to one loop."""

    def __init__(
        self,
        listening: socket.socket,
        engine: Engine,
        *,
        strangers: Strangers,
        tasks: Tasks,
        handshake_s: float = HANDSHAKE_S,
        greeting: bytes = b"",
        proxied: bool = False,
    ) -> None:
        """``tasks`` keeps its transports, and nothing else. ``greeting``: what the server says first, a line that any
        socket takes at once. ``proxied``: a balancer stands before it, and says who each client is."""
        self._listening = listening
        self._engine = engine
        self._strangers = strangers
        self._tasks = tasks
        self._handshake_s = handshake_s
        self._greeting = greeting
        self._proxied = proxied

    @property
    def live(self) -> int:
        """How many transports proved who they are and have not ended."""
        return max(0, len(self._tasks) - len(self._strangers))

    async def emptied(self) -> None:
        """Wait until no transport is left, strangers included."""
        await self._tasks.drained()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: (host, port)."""
        host, port = self._listening.getsockname()[:2]
        return str(host), int(port)

    async def accept(self) -> None:
        """Accept until cancelled; then the listening socket is closed."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    accepted, address = await loop.sock_accept(self._listening)
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    _log.error("accepting failed", extra={"why": errno.errorcode[error.errno]})
                    await asyncio.sleep(_AFTER_NO_FILES_S)
                    continue
                self._enter(accepted, str(address[0]))
        finally:
            self._listening.close()

    def _enter(self, accepted: socket.socket, peer: str) -> None:
        place = self._strangers.enter(None if self._proxied else peer, lambda: _hang_up(accepted))
        if place is None:
            accepted.close()
            _log.warning("connection dropped", extra={"peer": peer, "why": _TOO_MANY})
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tasks.start("serve", self._serve(accepted, peer, place))

    async def _serve(self, accepted: socket.socket, peer: str, place: Place) -> None:
        deadline = asyncio.get_running_loop().time() + self._handshake_s
        try:
            async with asyncio.timeout_at(deadline):
                if self._proxied:
                    client = await _client(accepted)
                    if client is None:
                        return  # a health check: it has seen that we accept
                    peer = client
                    if not self._strangers.name(place, peer):
                        place.dropped = True
                first = b"" if place.dropped else await self._first(accepted)
            place.spoke()
            if place.dropped:
                ended = _TOO_MANY
            elif not first:
                ended = "left without a byte"
            else:
                ended = await self._engine.serve(
                    Accepted(
                        socket=accepted,
                        peer=peer,
                        loopback=not self._proxied and ipaddress.ip_address(peer.partition("%")[0]).is_loopback,
                        direct_tls=first == _TLS_HANDSHAKE,
                        deadline=deadline,
                        authenticated=place,
                    )
                )
        except TimeoutError:
            ended = "silent"
        except RemoteViolation as violation:
            ended = f"violation: {violation.what}"
        except OSError as error:
            ended = type(error).__name__
        finally:
            place()
            accepted.close()
        _log.info("connection ended", extra={"peer": peer, "how": ended})

    async def _first(self, accepted: socket.socket) -> bytes:
        if self._greeting:
            await asyncio.get_running_loop().sock_sendall(accepted, self._greeting)
        return await _peek(accepted)


async def _client(accepted: socket.socket) -> str | None:
    """Return the client's address as the PROXY header has it, having taken that header and no byte more; None where
    there is no client. Raises RemoteViolation where it is no header, or the sender left within it."""
    loop = asyncio.get_running_loop()
    header = ProxyHeader()
    while header.wanted:
        data = await loop.sock_recv(accepted, header.wanted)
        if not data:
            raise RemoteViolation("left without a PROXY header")
        header.take(data)
    return header.client


def _hang_up(accepted: socket.socket) -> None:
    """End a silent transport: whoever waits for its first byte finds none. The socket stays its task's to close."""
    with contextlib.suppress(OSError):  # the peer was quicker
        accepted.shutdown(socket.SHUT_RDWR)


async def _peek(accepted: socket.socket) -> bytes:
    """Return the first byte without taking it, empty where the peer left."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(accepted.fileno(), _readable, readable)
    try:
        await readable
    finally:
        loop.remove_reader(accepted.fileno())
    return accepted.recv(1, socket.MSG_PEEK)


def _readable(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
