"""The start of a connection, in the server's role: encryption negotiation, cancel requests, the StartupMessage.

Rules:
- SSLRequest and GSSENCRequest at most once each; anything buffered behind either ends the connection without a word
  (CVE-2021-23214: a man in the middle plants bytes before the TLS handshake, and they are read as if encrypted).
- A StartupMessage in plaintext is refused unless the peer is on loopback.
- At most 10,000 bytes (PostgreSQL's MAX_STARTUP_PACKET_LENGTH), length between 8 and that.
- Protocol 3.0 and 3.2; any other minor, 3.9999 included, and any unknown ``_pq_.`` option is answered with
  NegotiateProtocolVersion, never refused (libpq greases the minor). Another major is refused.
- Parameters by allow-list: a setting that nobody considered could change what a statement means.
What it does not do: authenticate, read the clock, know a session.

Source: PostgreSQL 15 and 18, chapters 55.2.1 and 55.7; standards.md 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from struct import Struct
from typing import Final, TypeAlias

from broker.wire.postgres.framing import frame
from broker.wire.violation import RemoteViolation

MAX_STARTUP_BYTES: Final = 10_000
MAX_CANCEL_KEY_BYTES: Final = 256
_HEAD: Final = Struct("!iI")
_UINT32: Final = Struct("!I")

CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104
VERSION_3_0: Final = 0x30000
VERSION_3_2: Final = 0x30002

# Parameters a client may set; each only changes how values are written or how long the client waits. Everything else,
# ``options`` and ``replication`` first, is refused by name.
ALLOWED_PARAMETERS: Final = frozenset(
    {
        "user",
        "database",
        "application_name",
        "client_encoding",
        "datestyle",
        "intervalstyle",
        "timezone",
        "extra_float_digits",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    }
)


@dataclass(frozen=True, slots=True)
class EncryptionWanted:
    """Answer ``S`` and begin TLS, then :meth:`StartupMachine.encrypted`."""


@dataclass(frozen=True, slots=True)
class GssRefused:
    """Answer ``N``; the machine goes on."""


@dataclass(frozen=True, slots=True)
class CancelWanted:
    process: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class StartupWanted:
    """What the client asks for. ``negotiate`` is a NegotiateProtocolVersion message to send first, or empty;
    ``parameters`` are lower-cased names to values, without ``user``."""

    user: str
    parameters: Mapping[str, str]
    version: int
    negotiate: bytes


@dataclass(frozen=True, slots=True)
class StartupRefused:
    """Say so with FATAL and close."""

    sqlstate: str
    message: str
    hint: str


Asked: TypeAlias = EncryptionWanted | GssRefused | CancelWanted | StartupWanted | StartupRefused


class _State(Enum):
    OPEN = auto()
    HANDSHAKE = auto()  # S was answered and TLS is being set up: not one byte may arrive in the clear
    DONE = auto()


class StartupMachine:
    """Bytes in, what the client asks for out, until the StartupMessage."""

    def __init__(self, *, encrypted: bool, loopback: bool) -> None:
        """``encrypted``: TLS is up already (direct TLS). ``loopback``: the peer may speak plaintext."""
        self._encrypted = encrypted
        self._direct = encrypted
        self._loopback = loopback
        self._buffer = bytearray()
        self._state = _State.OPEN
        self._asked: set[int] = set()

    def encrypted(self) -> None:
        """TLS is up."""
        self._encrypted = True
        self._state = _State.OPEN

    def receive(self, data: bytes) -> Asked | None:
        """Return what was asked, or None while it is not whole. Raises RemoteViolation."""
        if self._state is not _State.OPEN:
            raise RemoteViolation("bytes where none may come")
        self._buffer += data
        if len(self._buffer) < _HEAD.size:
            return None
        length, code = _HEAD.unpack_from(self._buffer)
        if not _HEAD.size <= length <= MAX_STARTUP_BYTES:
            raise RemoteViolation("a startup packet of impossible length")
        if len(self._buffer) > length:
            raise RemoteViolation("bytes behind a startup packet, before its answer")
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[_HEAD.size :])
        self._buffer.clear()
        return self._judge(code, body)

    def _judge(self, code: int, body: bytes) -> Asked:
        if code in (SSL_REQUEST, GSSENC_REQUEST):
            if body or code in self._asked or self._encrypted:
                raise RemoteViolation("an encryption request out of place")
            self._asked.add(code)
            if code == GSSENC_REQUEST:
                return GssRefused()
            self._state = _State.HANDSHAKE
            return EncryptionWanted()
        self._state = _State.DONE
        if code == CANCEL_REQUEST:
            if not 8 <= len(body) <= 4 + MAX_CANCEL_KEY_BYTES:
                raise RemoteViolation("a cancel request of impossible length")
            return CancelWanted(_UINT32.unpack_from(body)[0], body[4:])
        if code >> 16 != 3:
            return StartupRefused("0A000", "unsupported frontend protocol", "Use a client that speaks protocol 3.")
        if not self._encrypted and not self._loopback:
            return StartupRefused("28000", "this listener wants TLS", "Connect with sslmode=verify-full.")
        return _startup(code, _parameters(body))


def _parameters(body: bytes) -> list[tuple[str, str]]:
    if not body.endswith(b"\0\0") and body != b"\0":
        raise RemoteViolation("startup parameters without their end")
    pieces = body[:-1].split(b"\0")[:-1]
    if len(pieces) % 2 or b"" in pieces[::2]:
        raise RemoteViolation("a startup parameter without a value or a name")
    try:
        texts = [piece.decode() for piece in pieces]
    except UnicodeDecodeError:
        raise RemoteViolation("text that is not UTF-8") from None
    return list(zip(texts[::2], texts[1::2], strict=True))


def _startup(version: int, pairs: list[tuple[str, str]]) -> StartupWanted | StartupRefused:
    unknown = [name for name, _ in pairs if name.startswith("_pq_.")]
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name in unknown:
            continue
        if name.lower() in parameters:
            raise RemoteViolation("a startup parameter twice")
        parameters[name.lower()] = value
    refused = sorted(set(parameters) - ALLOWED_PARAMETERS)
    if refused and refused != ["replication"]:
        shown = "".join(c for c in refused[0][:63] if c.isascii() and c.isprintable())
        return StartupRefused("42501", f'startup parameter "{shown}" is not allowed', "Leave it out.")
    if parameters.pop("replication", "false").lower() not in ("false", "off", "no", "0"):
        return StartupRefused("42501", "replication is not allowed through the broker", "Connect without replication.")
    user = parameters.pop("user", "")
    if not user:
        return StartupRefused("28000", "no user name in the startup packet", "Use the session id as the user name.")
    known = version in (VERSION_3_0, VERSION_3_2)
    return StartupWanted(
        user=user,
        parameters=parameters,
        version=version if known else VERSION_3_2 if version > VERSION_3_2 else VERSION_3_0,
        negotiate=b"" if known and not unknown else negotiate_version(VERSION_3_2 & 0xFFFF, unknown),
    )


def negotiate_version(minor: int, unknown: list[str]) -> bytes:
    """Return a NegotiateProtocolVersion: the newest minor we speak and the options that we do not know."""
    names = b"".join(name.encode() + b"\0" for name in unknown)
    return frame(b"v", _UINT32.pack(0x30000 | minor) + _UINT32.pack(len(unknown)) + names)


def encode_startup(parameters: Mapping[str, str], version: int = VERSION_3_0) -> bytes:
    """Return a StartupMessage, in the client's role."""
    body = b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in parameters.items()) + b"\0"
    return _HEAD.pack(len(body) + _HEAD.size, version) + body


def encode_request(code: int, body: bytes = b"") -> bytes:
    """Return an SSLRequest, GSSENCRequest or CancelRequest."""
    return _HEAD.pack(len(body) + _HEAD.size, code) + body


def encode_cancel(process: int, secret: bytes) -> bytes:
    return encode_request(CANCEL_REQUEST, _UINT32.pack(process) + secret)
