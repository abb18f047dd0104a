"""The broker's AuditEvents: a log line at once, and objects of many events in the locked bucket.

Rules: an event waits in memory for ``FLUSH_AFTER_S`` or ``FLUSH_BYTES``, then goes out with all others; only a put that
the bucket acknowledged takes it out of the queue. While the bucket refuses, or the queue is full, no connection is
opened; where it is twice as full nothing more runs on the open ones either, and they end: nothing is audited by being
dropped. What a killed broker had not put yet is not lost for it: connections have their log lines, operations their
recordings, and both tell the same uid.
One periodic thread steps it. Does not: decide, or know a protocol.
Source: architecture, AuditEvent; ADR 0014.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeAlias

import orjson
from isal import igzip

from chalicelib.domain.audit import AuditEvent, AuditLog
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, StoreUnavailable
from chalicelib.domain.operation_events import OperationFold, ToldOperation
from chalicelib.domain.recording import Frame, RecordedAs
from chalicelib.domain.store import Objects
from chalicelib.services.event_objects import MAX_OBJECT_EVENTS, Row, put_lines

Place = Callable[[int], str]  # a frame's number to the key of its segment, empty while it is in none

FLUSH_AFTER_S: Final = 10.0  # six objects a minute and broker; a segment is cut within 1 s, so that its key is known
FLUSH_BYTES: Final = 1024 * 1024  # a thousand operations: about 100 KiB compressed
# As memory that a broker of 1 GiB has to spare; at 1,000 operations a second, 16 s of a bucket that does not answer.
FULL_BYTES: Final = 16 * 1024 * 1024
OVERFULL_BYTES: Final = 2 * FULL_BYTES
RETRY_AFTER_S: Final = 1.0
_IGZIP_LEVEL: Final = 2  # as segments
_ROW_BYTES: Final = 1024  # of a row without its text: identities, ids and rules

_logger = logging.getLogger(__name__)


class EventLog(AuditLog, Protocol):
    """What a connection tells its events to."""

    def operated(self, told: ToldOperation, place: Place) -> None:
        """Take an operation, to be told as its event. Memory; never raises."""

    def require_room(self) -> None:
        """Raise StoreUnavailable where nothing more may run, because what it did could not be told. Memory."""


def packed(rows: Iterable[Row]) -> bytes:
    """Return ``rows`` as an object's bytes: the lines that ``event_lines`` makes of them, in a tenth of the time, with
    one row in memory at a time. A broker has a thousand operations' events where a Lambda has ten."""
    lines = b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])
    return igzip.compress(lines, _IGZIP_LEVEL, mtime=0)


class OperationTeller:
    """Tells the operations of one recording, from its frames. Called under the recording's lock: memory only."""

    def __init__(self, who: RecordedAs, log: EventLog) -> None:
        self._fold = OperationFold(who)
        self._log = log
        self._place: Place = _nowhere

    def found_by(self, place: Place) -> None:
        """Say where frames are found: the recording exists only after whoever tells its operations."""
        self._place = place

    def __call__(self, frame: Frame) -> None:
        for told in self._fold.take(frame):
            self._log.operated(told, self._place)


def _nowhere(_frame: int) -> str:
    return ""


_Told: TypeAlias = AuditEvent | ToldOperation


@dataclass(slots=True)
class _Queued:
    told: _Told
    number: int
    place: Place
    size: int
    since_s: float


class Events:
    """Implements :class:`EventLog`. Thread-safe; only :meth:`step` and :meth:`close` block."""

    def __init__(self, *, objects: Objects, log: Callable[[Row], None], clock: Clock, writer: str) -> None:
        """``writer`` names this process and no other (``[a-z0-9_]``); ``log`` writes a row as a line, and raises where
        it cannot."""
        self._objects = objects
        self._log = log
        self._clock = clock
        self._writer = writer
        self._lock = threading.Lock()
        self._putting = threading.Lock()
        self._queue: deque[_Queued] = deque()
        self._bytes = 0
        self._number = 0
        self._refused: str = ""
        self._retry_at_s = 0.0

    def record(self, event: AuditEvent) -> None:
        """Log it and queue it. Raises StoreUnavailable where it could only be logged, the queue being overfull."""
        with self._lock:
            number = self._next()
        self._log(event.row(writer=self._writer, number=number))
        self.require_room()
        with self._lock:
            self._queued(event, number, _nowhere, _ROW_BYTES)

    def operated(self, told: ToldOperation, place: Place) -> None:
        """Queue it: a line for each operation would cost more than the operation."""
        with self._lock:
            self._queued(told, self._next(), place, _ROW_BYTES + told.size)

    def require_open(self) -> None:
        """Raise StoreUnavailable where no connection may be opened: the bucket refuses events, or the queue is full.
        Memory."""
        with self._lock:
            if self._refused or self._bytes >= FULL_BYTES:
                raise StoreUnavailable("what happens here could not be audited", error=self._refused or "queue full")

    def require_room(self) -> None:
        with self._lock:
            if self._bytes >= OVERFULL_BYTES:
                raise StoreUnavailable("what happens here could not be audited", error="queue full")

    @property
    def waiting(self) -> int:
        """How many events are in no object yet."""
        with self._lock:
            return len(self._queue)

    def step(self) -> None:
        """Put what is due. Called several times a second. Never raises an AccessError."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            oldest = self._queue[0].since_s if self._queue else now_s
            due = self._bytes >= FLUSH_BYTES or now_s - oldest >= FLUSH_AFTER_S or bool(self._refused and self._queue)
            if not due or now_s < self._retry_at_s:
                return
        self._put()

    def close(self) -> bool:
        """Put all that waits; return whether that was done. The broker ends: what was not is in log and recordings."""
        while self.waiting:
            if not self._put():
                _logger.error("events of this broker are in its log and recordings alone")
                return False
        return True

    def _next(self) -> int:
        number, self._number = self._number, self._number + 1
        return number

    def _queued(self, told: _Told, number: int, place: Place, size: int) -> None:
        self._queue.append(_Queued(told, number, place, size, self._clock.monotonic_s()))
        self._bytes += size

    def _put(self) -> bool:
        with self._putting:  # a step and the last put at the end could take the same events
            with self._lock:
                batch = list(islice(self._queue, MAX_OBJECT_EVENTS))
            if not batch:
                return True
            try:
                lines = packed(self._row(one) for one in batch)
                put_lines(self._objects, lines, writer=self._writer, now=self._clock.now())
            except Exception as error:  # noqa: BLE001 - whatever it is, the events are in no object
                self._failed(error)
                return False
            with self._lock:
                for one in batch:
                    self._queue.popleft()
                    self._bytes -= one.size
                self._refused = ""
                self._retry_at_s = 0.0
        return True

    def _row(self, one: _Queued) -> Row:
        """Made here and not when it happened: in this thread, while nobody waits for it."""
        return one.told.row(writer=self._writer, number=one.number, segment=one.place(one.told.frame))

    def _failed(self, error: Exception) -> None:
        code = error.code if isinstance(error, AccessError) else type(error).__name__
        with self._lock:
            known, self._refused = self._refused, code
            self._retry_at_s = self._clock.monotonic_s() + RETRY_AFTER_S
        if known != code:
            _logger.error("events could not be stored: no connection is opened until they are", extra={"code": code})
