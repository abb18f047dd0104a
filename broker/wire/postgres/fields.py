"""ErrorResponse and NoticeResponse: a list of fields, each a letter and a text.

A NOTICE's text need not be UTF-8 when a server's data is not; such bytes are kept as they are.
Source: PostgreSQL 15, chapter 55.8, "Error and Notice Message Fields".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broker.wire.postgres.framing import frame
from broker.wire.violation import RemoteViolation

# Letter to name, as asyncpg's and libpq's field tables have them; unknown letters are passed on (the protocol says so).
FIELDS: Final[Mapping[str, str]] = {
    "S": "severity_shown",
    "V": "severity",
    "C": "sqlstate",
    "M": "message",
    "D": "detail",
    "H": "hint",
    "P": "position",
    "p": "internal_position",
    "q": "internal_query",
    "W": "context",
    "s": "schema",
    "t": "table",
    "c": "column",
    "d": "data_type",
    "n": "constraint",
    "F": "file",
    "L": "line",
    "R": "routine",
}

Fields = dict[str, bytes]


def parse_fields(body: bytes) -> Fields:
    """Return letter to text of an ErrorResponse or NoticeResponse, in their order. Raises RemoteViolation."""
    if not body.endswith(b"\0"):
        raise RemoteViolation("a list of fields without its end")
    fields: Fields = {}
    place, last = 0, len(body) - 1
    while place < last:
        end = body.find(b"\0", place + 1)
        letter = body[place : place + 1]
        if end < 0 or end >= last + 1 or not letter.isalpha():
            raise RemoteViolation("a field without a letter or an end")
        fields[letter.decode()] = body[place + 1 : end]
        place = end + 1
    if place != last:
        raise RemoteViolation("a list of fields without its end")
    return fields


def encode_error(fields: Mapping[str, bytes]) -> bytes:
    return frame(b"E", encode_fields(fields))


def encode_notice(fields: Mapping[str, bytes]) -> bytes:
    return frame(b"N", encode_fields(fields))


def encode_fields(fields: Mapping[str, bytes]) -> bytes:
    return b"".join(letter.encode() + _clean(text) + b"\0" for letter, text in fields.items()) + b"\0"


def error(severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = "") -> bytes:
    """Return an ErrorResponse of our own. ``severity``: ERROR or FATAL."""
    return encode_error(_ours(severity, sqlstate, message, detail, hint))


def notice(message: str, *, detail: str = "", hint: str = "", sqlstate: str = "00000") -> bytes:
    """Return a NoticeResponse of our own."""
    return encode_notice(_ours("NOTICE", sqlstate, message, detail, hint))


def _ours(severity: str, sqlstate: str, message: str, detail: str, hint: str) -> Fields:
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message}
    if detail:
        fields["D"] = detail
    if hint:
        fields["H"] = hint
    return {letter: text.encode() for letter, text in fields.items()}


def _clean(text: bytes) -> bytes:
    """A NUL inside a field would end it and let the rest pose as further fields."""
    return text.replace(b"\0", b"")
