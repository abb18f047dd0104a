"""Objects of many events: what every writer of ``events/v1/`` puts, once each.

``events/v1/date=YYYY-MM-DD/hour=HH/WRITER-ULID.ndjson.gz``, by the hour in which it is written, so that an hour that is
over gets no object any more and can be counted. One gzip member, one JSON object a line, columns of
``domain.event_columns``. Rules: the key is new each time and put once; who wrote an object twice wrote each ``uid``
twice, and readers count a uid once.
Source: reference/standards.md, section 4.4.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.event_columns import EVENT_COLUMNS, EVENTS, Kind
from chalicelib.domain.identifiers import ulid
from chalicelib.domain.store import Objects

CONTENT_TYPE: Final = "application/gzip"
MAX_OBJECT_EVENTS: Final = 10_000  # some megabytes of JSON: a reader takes an object whole
_GZIP_LEVEL: Final = 6  # as segments: zlib's own default
_WRITER: Final = re.compile(r"[a-z0-9_]{1,48}\Z")
_BIGINT: Final = 1 << 63  # a number's column in Athena
_HALF: Final = re.compile("[\ud800-\udfff]")
_COLUMNS: Final = {column.name: column for column in EVENT_COLUMNS}

Row = Mapping[str, Json]


def event_key(writer: str, now: datetime) -> str:
    """Return a new key of ``writer`` (``[a-z0-9_]``, 48 at most). Raises ValueError on another."""
    if not _WRITER.match(writer):
        raise ValueError("a writer's name is part of a key: a-z, 0-9 and _ alone")
    hour = now.astimezone(UTC)
    return f"{EVENTS}date={hour:%Y-%m-%d}/hour={hour:%H}/{writer}-{ulid(now)}.ndjson.gz"


def event_lines(rows: Sequence[Row]) -> bytes:
    """Return the object's bytes. Pure: equal rows have equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    return gzip.compress(text.encode(), _GZIP_LEVEL, mtime=0)


def put_events(objects: Objects, rows: Sequence[Row], *, writer: str, now: datetime) -> Sequence[str]:
    """Put ``rows`` as objects of at most ``MAX_OBJECT_EVENTS``; return their keys. Raises StoreUnavailable, with some
    of them put perhaps: whoever calls again puts those a second time, under the same uids."""
    return [
        put_lines(objects, event_lines(rows[first : first + MAX_OBJECT_EVENTS]), writer=writer, now=now)
        for first in range(0, len(rows), MAX_OBJECT_EVENTS)
    ]


def put_lines(objects: Objects, lines: bytes, *, writer: str, now: datetime) -> str:
    """Put one object of what ``event_lines`` makes; return its key. Raises StoreUnavailable."""
    key = event_key(writer, now)
    objects.put_new(key, lines, content_type=CONTENT_TYPE)
    return key


def checked_row(told: object) -> Row:
    """Return ``told`` where it is an event's row, member by member. Raises BadRequest naming the member that is none:
    one of another type would stop every query that reads its object."""
    if not isinstance(told, Mapping):
        raise BadRequest("an event is an object")
    for name, value in told.items():
        column = _COLUMNS.get(str(name))
        if column is None or not _fits(column.kind, value):
            raise BadRequest("a member is no column of an event", column=str(name)[:64])
    for column in EVENT_COLUMNS:
        if column.always and column.name not in told:
            raise BadRequest("an event lacks a member", column=column.name)
    return told


def _fits(kind: Kind, value: object) -> bool:
    match kind:
        case Kind.TEXT:
            return _is_text(value)
        case Kind.NUMBER:
            return isinstance(value, int) and not isinstance(value, bool) and -_BIGINT <= value < _BIGINT
        case Kind.TRUTH:
            return isinstance(value, bool)
        case Kind.TEXTS:
            return isinstance(value, list) and all(_is_text(item) for item in value)


def _is_text(value: object) -> bool:
    """Half a surrogate pair can be escaped in JSON, and has no UTF-8: it would end every put of its batch."""
    return isinstance(value, str) and not _HALF.search(value)
