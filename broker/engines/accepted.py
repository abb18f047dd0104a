"""What a listener hands to an engine: one accepted transport, before anything was verified."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTls:
    """Our TLS towards clients. ``binding``: our certificate's tls-server-end-point data, None where undefined."""

    context: ssl.SSLContext
    binding: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """One accepted socket, owned by who gets this. ``direct_tls``: the client's first byte begins a TLS handshake.
    Call ``authenticated`` once the client proved who it is: the limits for strangers then let the next one in.
    ``deadline`` is when (loop time) that must have happened."""

    socket: socket.socket
    peer: str
    loopback: bool
    direct_tls: bool
    deadline: float
    authenticated: Callable[[], None]


class Engine(Protocol):
    """Serves one protocol."""

    async def serve(self, accepted: Accepted) -> str:
        """Serve one transport until it ends, and return how it ended, for the log. Raises nothing but cancellation."""
        ...

    async def drain(self) -> None:
        """End every open connection in the client's protocol, sealed. Bounded by the caller."""
        ...


async def connected(protocol: asyncio.BufferedProtocol, accepted: Accepted, tls: ServerTls) -> None:
    """Put ``protocol`` on the accepted socket, inside TLS where the client began with it. Raises OSError, SSLError."""
    loop = asyncio.get_running_loop()
    context = tls.context if accepted.direct_tls else None
    await loop.connect_accepted_socket(lambda: protocol, accepted.socket, ssl=context)
