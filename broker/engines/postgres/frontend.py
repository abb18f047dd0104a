"""The broker as a server, until the client has proved its session's secret.

Rules: at most 16 KiB before that; TLS as ``startup`` says; SCRAM-SHA-256 and, inside TLS, -PLUS bound to our own
certificate; a wrong secret, an unknown session and an expired one cost the same and get the same words.
"""

from __future__ import annotations

import base64
import secrets
from typing import Final

from broker.engines.accepted import ServerTls
from broker.engines.channel import Channel
from broker.wire.postgres import messages, scram, startup
from broker.wire.postgres.framing import FrameReader, frame
from broker.wire.violation import RemoteViolation
from chalicelib.domain.verifier import Verifier

BEFORE_AUTHENTICATION_BYTES: Final = 16 * 1024  # a startup packet of 10,000 bytes and SCRAM's two messages fit
_PASSWORD_BYTES: Final = 4096  # SCRAM messages are some hundred bytes
ALPN: Final = "postgresql"


class Frontend:
    """One client during its handshake."""

    def __init__(self, channel: Channel, *, tls: ServerTls, direct_tls: bool, loopback: bool) -> None:
        self.channel = channel
        self._tls = tls
        self._direct = direct_tls
        self._loopback = loopback
        self._left = BEFORE_AUTHENTICATION_BYTES
        self._frames: list[bytes] = []
        self._reader = FrameReader(types=frozenset(b"p"), max_bytes=_PASSWORD_BYTES)

    async def greet(self) -> startup.StartupWanted | startup.CancelWanted | startup.StartupRefused:
        """Negotiate TLS and return what the client asks for. Raises RemoteViolation, ChannelClosed, OSError."""
        if self._direct:
            # Direct TLS without ALPN is how another protocol's client is made to talk to us (ALPACA).
            tls = self.channel.tls
            if tls is None or tls.selected_alpn_protocol() != ALPN:
                raise RemoteViolation("direct TLS without the protocol's name")
        machine = startup.StartupMachine(encrypted=self._direct, loopback=self._loopback)
        while True:
            match machine.receive(await self._receive()):
                case None:
                    continue
                case startup.GssRefused():
                    self.channel.write(b"N")
                case startup.EncryptionWanted():
                    await self._encrypt()
                    machine.encrypted()
                case startup.StartupWanted() as wanted:
                    self.channel.write(wanted.negotiate)
                    return wanted
                case other:
                    return other

    async def authenticate(self, verifier: Verifier) -> None:
        """Let the client prove the secret. Raises scram.ProofRefused, RemoteViolation, ChannelClosed."""
        encrypted = self.channel.tls is not None
        server = scram.ScramServer(
            scram_keys(verifier),
            nonce=secrets.token_urlsafe(18),
            binding=self._tls.binding if encrypted else None,
        )
        offered = b"".join(name.encode() + b"\0" for name in server.mechanisms) + b"\0"
        self._send(10, offered)
        reader = messages.Body(await self._password())
        mechanism = reader.text().decode()
        size = reader.int32()
        first = reader.take(size) if size >= 0 else b""
        reader.end()
        self._send(11, server.first(mechanism, first))
        self._send(12, server.final(await self._password()))
        if self._frames or self._reader.buffered or self.channel.unread:
            raise RemoteViolation("bytes before the connection is ready")

    def _send(self, method: int, rest: bytes) -> None:
        self.channel.write(frame(b"R", method.to_bytes(4, "big") + rest))

    async def _encrypt(self) -> None:
        self.channel.pause_reading()
        if self.channel.unread:
            raise RemoteViolation("bytes behind an encryption request")
        self.channel.write(b"S")
        self.channel.resume_reading()
        await self.channel.start_tls(self._tls.context, server_side=True)

    async def _password(self) -> bytes:
        while not self._frames:
            frames = self._reader.feed(await self._receive())
            self._frames = [frames.data[start + 5 : end] for _, start, end in frames.spans]
        return self._frames.pop(0)

    async def _receive(self) -> bytes:
        data = await self.channel.receive()
        self._left -= len(data)
        if self._left < 0:
            raise RemoteViolation("more bytes before authentication than are allowed")
        return data


def scram_keys(verifier: Verifier) -> scram.ScramKeys:
    """Return the verifier as raw bytes. Pure."""
    return scram.ScramKeys(
        salt=base64.b64decode(verifier.salt),
        iterations=verifier.iterations,
        stored_key=base64.b64decode(verifier.stored_key),
        server_key=base64.b64decode(verifier.server_key),
    )
