"""Frames of protocol 3: one type byte, a length that counts itself, a body.

Rules: any split of the bytes gives the same frames; a type that the direction does not have, and a length that is too
small or over its cap, is a violation as soon as the header is there, before its body is waited for; what is buffered is
never more than the largest frame allowed. What this does not do: look into a body (``messages``), know which frame may
come now (``conversation``).

Source: PostgreSQL 15, chapter 55.2 and 55.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from broker.wire.violation import RemoteViolation

HEADER_BYTES: Final = 5
_HEADER: Final = Struct("!Bi")
_LENGTH: Final = Struct("!i")

# A client message is buffered whole before it is judged, and a thousand clients may send at once. 16 MiB holds the
# largest migration and bulk INSERT that people write; bulk data belongs in COPY, whose messages are small.
CLIENT_MESSAGE_BYTES: Final = 16 * 1024 * 1024
# One row that a detector must see whole: 64 MiB is what standards.md 6.4 names; PostgreSQL's own limit is 1 GiB, and a
# proxy that buffers that for every client can be felled by one query.
SERVER_MESSAGE_BYTES: Final = 64 * 1024 * 1024
# Messages with a fixed, small body; a larger one is an attempt to be expensive (names are at most 63 bytes, but a
# client may send a longer one and have the server cut it).
SMALL_MESSAGE_BYTES: Final = 64 * 1024

CLIENT_TYPES: Final = frozenset(b"QPBDECHSFdcfX")
CLIENT_CAPS: Final[Mapping[int, int]] = dict.fromkeys(b"DECHScfX", SMALL_MESSAGE_BYTES)
SERVER_TYPES: Final = frozenset(b"RKSZTDCIENAtn123sGHWdcvV")


@dataclass(frozen=True, slots=True)
class Frames:
    """Whole frames within ``data``: each span is (type, start, end), where ``start`` is the type byte's place."""

    data: bytes
    spans: tuple[tuple[int, int, int], ...]


_NONE: Final = Frames(b"", ())


class FrameReader:
    """Cuts the bytes of one direction into frames."""

    def __init__(self, *, types: frozenset[int], max_bytes: int, caps: Mapping[int, int] | None = None) -> None:
        """``types`` are those the direction has; a frame's length is at most ``caps[type]``, else ``max_bytes``."""
        self._types = types
        self._max_bytes = max_bytes
        self._caps = caps or {}
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEADER_BYTES

    @property
    def buffered(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return self._have

    def feed(self, data: bytes) -> Frames:
        """Take ``data`` and return every frame that is whole now. Raises RemoteViolation; then the reader is done."""
        if self._have:
            # Parts are joined once the frame is whole, not at each read: joining at each read is quadratic in the
            # size of a large row.
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return _NONE
            data = b"".join(self._parts)
            self._parts.clear()
        spans: list[tuple[int, int, int]] = []
        place, size = 0, len(data)
        unpack, types, caps, default = _HEADER.unpack_from, self._types, self._caps, self._max_bytes
        need = HEADER_BYTES
        while size - place >= HEADER_BYTES:
            kind, length = unpack(data, place)
            if kind not in types:
                raise RemoteViolation("a message of unknown type")
            if length < 4:
                raise RemoteViolation("a message shorter than its own length field")
            if length > default or length > caps.get(kind, default):
                raise RemoteViolation("a message longer than is allowed")
            end = place + 1 + length
            if end > size:
                need = length + 1
                break
            spans.append((kind, place, end))
            place = end
        self._need = need
        self._have = size - place
        if self._have:
            self._parts.append(data[place:])
        return Frames(data, tuple(spans))


def client_reader() -> FrameReader:
    """Return the reader of what an authenticated client sends."""
    return FrameReader(types=CLIENT_TYPES, max_bytes=CLIENT_MESSAGE_BYTES, caps=CLIENT_CAPS)


def server_reader() -> FrameReader:
    """Return the reader of what a target sends."""
    return FrameReader(types=SERVER_TYPES, max_bytes=SERVER_MESSAGE_BYTES)


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """Return one frame of type ``kind`` (one byte)."""
    return kind + _LENGTH.pack(len(body) + 4) + body
