"""Tells a dead broker's operations again, from its recording: what it had not put yet into an object of events.

A broker puts its events every ten seconds, and dies with what waits. Each operation's event is a fold over the
recording's frames (``domain.operation_events``), so whoever seals for it makes them all again: under the same uids, so
that what the broker had told counts once. Rules: the first frame says who and where; an operation without an outcome is
told as ``unknown``; nothing in a frame is believed to have its type. The writer is the connection's own
(``retold_...``), and the recording is final: so a second time gives the same numbers.
At most ``MOST_SEGMENTS`` of a recording's end are read, and always its first: the broker had told of everything older,
but for what was still running then.
Not thread-safe. Source: ADR 0014.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound
from chalicelib.domain.operation_events import OperationFold
from chalicelib.domain.recording import Frame, FrameKind, Manifest, RecordedAs, Segment
from chalicelib.domain.store import Objects
from chalicelib.services.at_once import at_once
from chalicelib.services.event_objects import Row, put_events
from chalicelib.services.operations import json_object, meta_of, moment_of
from chalicelib.services.stored_segments import unpacked

# 1 GiB: some 20 s of a sweeper's run of 240. It is an hour of the busiest connection, and a broker's events wait for
# ten seconds; while its bucket refuses them, nothing runs.
MOST_SEGMENTS: Final = 4096
_READERS: Final = 16  # as the sweeper's own: a segment is read in some 20 ms
_OBJECT_EVENTS: Final = 2_000  # an event has at most some 20 KB: the memory of a small function
_KINDS: Final = {kind.value: kind for kind in FrameKind}
# Frames that tell nothing of an operation, by how they stand in a line: in a text a quotation mark is escaped.
_OTHERS: Final = tuple(
    f',"kind":"{kind.value}"'.encode() for kind in (FrameKind.ROWS, FrameKind.DATA, FrameKind.NOTICE)
)


def retell(objects: Objects, row: ConnectionRow, manifest: Manifest, clock: Clock) -> int:
    """Put the events of the operations in a recording that ``manifest`` describes; return how many.

    Idempotent: readers count a uid once. Raises StoreUnavailable, with some of them put perhaps.
    """
    writer = f"retold_{row.id}"
    waiting: list[Row] = []
    number = 0
    for event, key in _events(objects, row, manifest):
        waiting.append(event.row(writer=writer, number=number, segment=key))
        number += 1
        if len(waiting) >= _OBJECT_EVENTS:
            put_events(objects, waiting, writer=writer, now=clock.now())
            waiting = []
    put_events(objects, waiting, writer=writer, now=clock.now())
    return number


def _events(objects: Objects, row: ConnectionRow, manifest: Manifest) -> Iterator[tuple[AuditEvent, str]]:
    """Give each event, and the key of the segment with the frame that it names."""
    fold: OperationFold | None = None
    places: dict[int, str] = {}  # of the frames that began an operation: an event comes with its last
    last = 0
    for segment, line in _lines(objects, manifest.segments):
        frame = _frame(line, row)
        if frame is None:
            continue
        if fold is None:
            fold = OperationFold(_who(row, line))
        if frame.kind is FrameKind.OPERATION:
            places[frame.seq] = segment.key
        last = frame.seq
        for told in fold.take(frame):
            yield told.event(), places.pop(told.frame, "")
    if fold is not None:  # nobody lived to see how the rest ended
        for told in fold.take(Frame(seq=last + 1, at=manifest.closed_at, dir="ctl", kind=FrameKind.CLOSE, text="")):
            yield told.event(), places.pop(told.frame, "")


def _lines(objects: Objects, segments: Sequence[Segment]) -> Iterator[tuple[Segment, Mapping[str, Any]]]:
    some = [*segments[:1], *segments[1:][-(MOST_SEGMENTS - 1) :]]

    def read(segment: Segment) -> bytes:
        try:
            raw, _ = unpacked(objects.get(segment.key, segment.version_id or None))
        except NotFound:  # that it is missing is for ``verify`` to say; the others' operations are told
            return b""
        return raw

    for first in range(0, len(some), _READERS):
        batch = some[first : first + _READERS]
        for segment, raw in zip(batch, at_once(read, batch, _READERS), strict=True):
            for line in raw.splitlines()[1:]:
                if not any(kind in line for kind in _OTHERS) and (found := json_object(line)) is not None:
                    yield segment, found


def _frame(line: Mapping[str, Any], row: ConnectionRow) -> Frame | None:
    """Return the frame of a line; None where it is none of this connection's, or of a kind that is not known."""
    number, kind, text = line.get("seq"), _KINDS.get(str(line.get("kind"))), line.get("text")
    if (line.get("sid"), line.get("con")) != (row.session_id, row.id) or not isinstance(number, int):
        return None
    if kind is None or not isinstance(text, str):
        return None
    meta = tuple(meta_of(line).items())
    at = moment_of(line.get("t"), row.opened_at)
    return Frame(seq=number, at=at, dir=str(line.get("dir", "")), kind=kind, text=text, meta=meta)


def _who(row: ConnectionRow, line: Mapping[str, Any]) -> RecordedAs:
    return RecordedAs(
        session_id=row.session_id,
        connection_id=row.id,
        txn=row.txn,
        protocol=str(line.get("proto", "")),
        actor=str(line.get("actor", "")),
        originator=str(line.get("sub", "")),
        target=row.target,
        principal=row.principal,
    )
