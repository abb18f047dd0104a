"""What a segment's key holds: a segment of this connection, a tombstone, or neither. For whoever has nothing but the
bucket: the sweeper, a restarted broker, a verifier.

Rules: an object is read in one version and described by that version; one that is not whole, or is another's, is
*foreign* and never a segment. Links and frame numbers are checked by ``recordings``, not here. Pure but for the bucket.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.domain.recording import (
    NOTHING_LEFT_OUT,
    FrameKind,
    LeftOut,
    Segment,
    left_out_of,
    segment_key,
)
from chalicelib.services.operations import json_object, meta_of

MAX_RAW: Final = 64 * 1024 * 1024  # a segment holds 256 KiB and one long text; more is not one of ours
_LEFT_OUT: Final = rb"\"left_out\""  # as it stands in a line: ``meta`` is JSON in JSON
_GZIP: Final = 16 + zlib.MAX_WBITS
_NUMBER: Final = re.compile(r"/(\d{6})\.ndjson\.gz\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A whole segment, what its first and last lines are, and what its frames say was left out of the record."""

    segment: Segment
    opening: dict[str, Any]
    ending: dict[str, Any]
    left_out: LeftOut


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstone:
    """Somebody took the key, so that the broker cannot."""

    number: int
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """Neither: nobody who keeps the rules put it."""

    number: int


Found: TypeAlias = Stored | Tombstone | Foreign


def found_in(
    session_id: SessionId, connection_id: ConnectionId, number: int, stored: bytes, version_id: str = ""
) -> Found:
    """Return what ``stored``, the object at the key of segment ``number``, is. Pure."""
    raw, whole = unpacked(stored)
    lines = raw.splitlines()
    header = json_object(lines[0]) if lines else None
    if not whole or header is None or (header.get("sid"), header.get("con")) != (session_id, connection_id):
        return Foreign(number=number)
    if header.get("number") != number:
        return Foreign(number=number)
    if header.get("kind") == "tombstone":
        return Tombstone(number=number, by=str(header.get("by", "")))
    opening, ending = (json_object(lines[place]) for place in (1, -1)) if len(lines) > 1 else (None, None)
    if header.get("kind") != "segment" or opening is None or ending is None:
        return Foreign(number=number)
    first, last = opening.get("seq"), ending.get("seq")
    if not isinstance(first, int) or not isinstance(last, int):
        return Foreign(number=number)
    segment = Segment(
        number=number,
        key=segment_key(session_id, connection_id, number),
        version_id=version_id,
        raw_bytes=len(raw),
        sha256_raw=sha256_hex(raw),
        sha256_stored=sha256_hex(stored),
        first=first,
        last=last,
    )
    return Stored(segment=segment, opening=opening, ending=ending, left_out=left_out_in(raw))


def left_out_in(raw: bytes) -> LeftOut:
    """Return what a segment's frames say was left out of the record. Pure."""
    total = NOTHING_LEFT_OUT
    for line in raw.splitlines() if _LEFT_OUT in raw else ():
        frame = json_object(line) if _LEFT_OUT in line else None
        if frame is not None and frame.get("kind") == FrameKind.OUTCOME:
            total += left_out_of(meta_of(frame))
    return total


def number_of(key: str) -> int | None:
    """Return the number in a segment's key; None where it is none. Pure."""
    found = _NUMBER.search(key)
    return int(found[1]) if found else None


def unpacked(stored: bytes) -> tuple[bytes, bool]:
    """Return a segment's lines, and whether its stream has its end. No lines and an end where it is no gzip: it then
    hashes to nothing that anybody wrote. Pure."""
    unpacking = zlib.decompressobj(_GZIP)
    try:
        raw = unpacking.decompress(stored, MAX_RAW)
    except zlib.error:
        return b"", bool(stored)
    return raw, unpacking.eof
