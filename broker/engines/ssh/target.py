"""The broker as a client of the target: dial, verify the host key, log in with the minted credential.

Rules: host, port and host keys come from our registry alone; the host key is checked before a byte of authentication is
sent; what logs in is the certificate on the key that the broker made for this connection, or a stored key; nothing is
forwarded to the target that could come back (no agent, no forwarding). Whatever goes wrong is TargetUnavailable,
without the target's address or words in its public text.

Source: RFC 4253 section 8; RFC 4252 section 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Final, Protocol

import paramiko

from broker.engines.ssh.keys import OwnKey, Pinned, pinned, stored_key
from broker.engines.ssh.transport import SshTransport
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import CERTIFICATE, Target

DIAL_S: Final = 10.0  # as long as a client's own handshake may take


class Credential(Protocol):
    """``chalicelib.domain.target.Credential``, as far as it is read here."""

    @property
    def kind(self) -> str: ...
    @property
    def login(self) -> str: ...
    @property
    def secret(self) -> Secret: ...
    @property
    def certificate(self) -> str: ...


class _Told(threading.Event):
    """What paramiko sets in its thread, for who waits on the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()

    def set(self) -> None:
        super().set()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._told.set)

    async def told(self) -> None:
        await self._told.wait()


async def dial(target: Target, *, credential: Credential, key: OwnKey, clock: Clock) -> SshTransport:
    """Return the target logged in, with no channel open yet. Raises TargetUnavailable."""
    pins = pinned(target)
    private = _private_key(credential, key)
    transport: SshTransport | None = None
    try:
        async with asyncio.timeout(DIAL_S):
            sock = await _connect(target)
            transport = SshTransport(sock, clock=clock, on_ended=lambda: None, to_target=True)
            transport.only_host_keys(pins.algorithms)
            await _exchange_keys(transport)
            _check_host_key(transport, pins, target)
            await _log_in(transport, credential.login, private)
            return transport
    except (OSError, TimeoutError, paramiko.SSHException, EOFError) as error:
        _cut(transport)
        # The class alone: the text of paramiko's exceptions quotes the target.
        raise TargetUnavailable(
            "the target could not be reached", why=type(error).__name__, target=target.name
        ) from None
    except BaseException:
        _cut(transport)
        raise


def _private_key(credential: Credential, key: OwnKey) -> paramiko.PKey:
    match credential.kind:
        case _ if credential.kind == CERTIFICATE:
            return key.certified(credential.certificate)
        case "private_key":
            return stored_key(credential.secret)
        case _:
            raise TargetUnavailable("the target's credential cannot be used", why="kind")


async def _connect(target: Target) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    last: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


async def _exchange_keys(transport: SshTransport) -> None:
    told = _Told()
    transport.start_client(event=told)
    await told.told()
    if not transport.active or not transport.initial_kex_done:
        raise paramiko.SSHException


def _check_host_key(transport: SshTransport, pins: Pinned, target: Target) -> None:
    shown = transport.host_key
    if shown is None or not pins.accepts(shown):
        raise TargetUnavailable("the target is not the one that is registered", target=target.name)


async def _log_in(transport: SshTransport, login: str, private: paramiko.PKey) -> None:
    told = _Told()
    transport.auth_publickey(login, private, event=told)
    await told.told()
    if not transport.is_authenticated():
        raise TargetUnavailable("the target did not accept the broker")


def _cut(transport: SshTransport | None) -> None:
    if transport is not None:
        transport.cut()
