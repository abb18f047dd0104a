"""Channel: one side of a relayed connection, the only owner of its socket.

It has two manners. *Pulled*: during a handshake the engine awaits :meth:`receive`. *Pushed*: in the relay each read
calls ``on_bytes`` at once, on the loop, with no task between. Rules: what is read and not taken is bounded, and reading
stops at the bound; what is written and not sent is reported by ``on_full`` and ``on_drained``, and the owner stops the
other side. The receive buffer is shared by every channel of a loop (a buffer each would cost 64 MiB for a thousand idle
sessions): it is filled and emptied within one callback, so two channels never hold it at once.

What it does not do: know a protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, cast

RECEIVE_BYTES: Final = 256 * 1024  # one read: larger reads gained nothing in the prototype (measured.md)
PULL_BYTES: Final = 64 * 1024  # read and not taken yet, while pulled
WRITE_HIGH_BYTES: Final = 512 * 1024  # two reads of the other side: past this the reader is slower than the writer


class ChannelClosed(Exception):
    """The peer is gone. ``why`` is for the log."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ReceiveBuffer:
    """The buffer that the channels of one loop share."""

    def __init__(self, size: int = RECEIVE_BYTES) -> None:
        self.view: Final = memoryview(bytearray(size))


def _ignore() -> None:
    pass


class Channel(asyncio.BufferedProtocol):
    """One transport. Not thread-safe: belongs to its loop."""

    def __init__(self, buffer: ReceiveBuffer) -> None:
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._pulled_bytes = 0
        self._pull_bytes = PULL_BYTES
        self._waiter: asyncio.Future[None] | None = None
        self._gone: str | None = None
        self._lost = asyncio.Event()
        self._reading = True
        self._on_bytes: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self.on_full: Callable[[], None] = _ignore
        self.on_drained: Callable[[], None] = _ignore

    # What the engine calls.

    @property
    def transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise ChannelClosed("not connected yet")
        return self._transport

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS state once TLS is up."""
        found: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        return found

    @property
    def unread(self) -> int:
        """Bytes that were read and not taken."""
        return self._pulled_bytes

    @property
    def closed(self) -> bool:
        return self._gone is not None

    async def receive(self) -> bytes:
        """Return the next bytes. Raises ChannelClosed once the peer is gone and everything was taken."""
        while not self._chunks:
            if self._gone is not None:
                raise ChannelClosed(self._gone)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._chunks.popleft()
        self._pulled_bytes -= len(chunk)
        if not self._reading and self._pulled_bytes <= self._pull_bytes:
            self.resume_reading()
        return chunk

    def push_to(self, on_bytes: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        """From now on call ``on_bytes`` at each read, first with what was read and not taken, and ``on_lost`` once."""
        self._on_bytes, self._on_lost = on_bytes, on_lost
        chunks = list(self._chunks)
        self._chunks.clear()
        self._pulled_bytes = 0
        for chunk in chunks:
            on_bytes(chunk)
        if self._gone is not None:
            on_lost(self._gone)

    def write(self, data: bytes) -> None:
        """Send ``data``; nothing happens once the peer is gone."""
        if self._gone is None and data:
            self.transport.write(data)

    def pause_reading(self) -> None:
        if self._reading and self._gone is None and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and self._gone is None and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        """Put TLS on top. Raises ssl.SSLError, OSError; ``asyncio`` bounds the handshake itself at 60 s, the caller's
        deadline at less."""
        loop = asyncio.get_running_loop()
        upgraded = await loop.start_tls(
            self.transport, self, context, server_side=server_side, server_hostname=server_hostname
        )
        if upgraded is None:
            raise ChannelClosed("gone during the TLS handshake")
        self._take(upgraded)

    def close(self) -> None:
        """Send what is written, then close. Idempotent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the transport is gone."""
        await self._lost.wait()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's stream transport has the methods and not the base class.
        self._take(cast("asyncio.Transport", transport))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 the loop passes it by name or place
        return self._buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer.view[:nbytes])
        if self._on_bytes is not None:
            self._on_bytes(data)
            return
        self._chunks.append(data)
        self._pulled_bytes += nbytes
        if self._pulled_bytes > self._pull_bytes:
            self.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """A half-closed peer is a gone one: no protocol of ours goes on after it, and waiting would keep it."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = "closed" if exc is None else type(exc).__name__
        self._lost.set()
        self._wake()
        if self._on_lost is not None:
            self._on_lost(self._gone)

    def pause_writing(self) -> None:
        self.on_full()

    def resume_writing(self) -> None:
        self.on_drained()

    def _take(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
