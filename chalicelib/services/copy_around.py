"""Copies what stands around the evidence of a session or chain: what shows that its rows are all, and under what they
were decided.

That is: the hourly digests that counted its rows, with an inclusion for each row; the ends of the brokers' boots; the
configuration that was active, with its bundle; the events that tell of it. Rules: of others'
evidence nothing is copied: of digests they have ids and hashes, of events the lines of this subject alone. What is not
there is left out, for the copy's own verification to say. Reads with an auditor's rights; verifies nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from chalicelib.domain.activation import bundle_key
from chalicelib.domain.archived_item import Rows
from chalicelib.domain.ask import Ask
from chalicelib.domain.canonical import canonical, timestamp
from chalicelib.domain.connection import BOOTS, ConnectionRow
from chalicelib.domain.digest import HOUR, hour_of
from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.event_columns import EVENTS
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.session import Session
from chalicelib.services.copied_rows import Row
from chalicelib.services.digest_cover import hours_of, inclusions_of
from chalicelib.services.event_numbers import MAX_OBJECT
from chalicelib.services.operations import json_object
from chalicelib.services.reviewed import AccessReview

INCLUSIONS: Final = "inclusions.ndjson"
TOLD: Final = "events.ndjson"
# Events are written within seconds, or minutes where a log line or a dead broker's operation comes late.
_TOLD_WITHIN: Final = timedelta(hours=2)
_MOST_EVENTS: Final = 500_000  # of one chain: 1 GB at their usual size; more is asked for by session


class AroundOut(Protocol):
    """Where it goes: the copy that the rows went into."""

    @property
    def rows(self) -> Sequence[Row]: ...
    def recorded(self, key: str, body: bytes) -> None: ...
    def file(self, path: str, body: bytes) -> None: ...


def copy_around(objects: ReadObjects, rows: Rows, review: AccessReview, out: AroundOut, now: datetime) -> None:
    """Copy what stands around ``review``, whose rows ``out`` has. Raises StoreUnavailable."""
    inclusions, digests = inclusions_of(objects, out.rows, now)
    out.file(INCLUSIONS, b"".join(sorted(inclusion.text() for inclusion in inclusions)))
    prefixes = {f"{BOOTS}{day}/" for day in _days(out.rows, now)}
    boots = {row.boot for row in out.rows if isinstance(row, ConnectionRow)}
    ends = [key for prefix in sorted(prefixes) for key in objects.keys(prefix) if _stem(key) in boots]
    for key in (*digests, *ends):
        _copy(objects, key, out)
    for serial in sorted(serials_of(out.rows, review)):
        _configuration(objects, rows, serial, out)
    out.file(TOLD, b"".join(_events(objects, review, out.rows, now)))


def serials_of(rows: Iterable[Row], review: AccessReview) -> frozenset[int]:
    """Return the serial of every configuration that something was decided under. Pure."""
    found = {row.grant.configuration_serial for row in rows if isinstance(row, Session) and row.grant is not None}
    found |= {row.question.configuration_serial for row in rows if isinstance(row, Ask)}
    found |= {operation.configuration_serial for session in review.sessions for operation in session.operations}
    return frozenset(found - {0})


def _stem(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _days(rows: Sequence[Row], now: datetime) -> Iterator[str]:
    """Give the days on which a boot of these rows may have ended: a broker lives for days, and is replaced by then."""
    hours = hours_of(rows)
    if hours is None:
        return
    for day in range(_BOOT_DAYS):
        moment = hours[0] + timedelta(days=day)
        if moment.date() <= now.date():
            yield timestamp(moment)[:10]


_BOOT_DAYS: Final = 31  # a task that runs for longer than a month runs without a month of patches


def _copy(objects: ReadObjects, key: str, out: AroundOut) -> None:
    try:
        out.recorded(key, objects.get(key))
    except NotFound:
        return


def _configuration(objects: ReadObjects, rows: Rows, serial: int, out: AroundOut) -> None:
    key = canonical({"line": "activation", "serial": serial}).decode()
    state = rows.states("activations", [key]).get(key)
    if state is None:
        return
    out.file(f"activations/{serial:08d}.json", state.item.encode())
    _copy(objects, bundle_key(str(state.document().get("bundle_digest", ""))), out)


def _events(objects: ReadObjects, review: AccessReview, rows: Sequence[Row], now: datetime) -> list[bytes]:
    """Return the lines that tell of this subject, by time; each fact once, as its first teller told it."""
    hours = hours_of(rows)
    if hours is None:
        return []
    sessions = {session.id for session in review.sessions}
    hops = {hop.id for hop in review.hops}
    found: dict[str, tuple[str, bytes]] = {}
    hour = hours[0]
    while hour <= min(hours[1] + _TOLD_WITHIN, hour_of(now)):
        moment = timestamp(hour)
        for key in objects.keys(f"{EVENTS}date={moment[:10]}/hour={moment[11:13]}/"):
            for told in _lines(objects, key):
                if _is_of(told, review.txn, sessions, hops):
                    found.setdefault(str(told.get("uid", "")), (str(told.get("at", "")), _line(told)))
        if len(found) > _MOST_EVENTS:
            raise StoreUnavailable("a chain has more events than a copy takes", hint="Copy its sessions one by one.")
        hour += HOUR
    return [line for _, line in sorted(found.values())]


def _lines(objects: ReadObjects, key: str) -> Iterator[dict[str, Any]]:
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        raw = unpacking.decompress(objects.get(key), MAX_OBJECT)
    except (NotFound, zlib.error):
        return
    for line in raw.splitlines():
        told = json_object(line)
        if told is not None:
            yield told


def _is_of(told: Mapping[str, Any], txn: str, sessions: set[str], hops: set[str]) -> bool:
    if told.get("txn") != txn:
        return False
    session, hop = told.get("session_id"), told.get("hop")
    return (session is None or session in sessions) and (session is not None or hop is None or hop in hops)


def _line(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(errors="replace") + b"\n"
