"""The record of one connection: frames are accepted into bounded memory, and become durable segment by segment.

Rules: accepting never blocks and does no I/O; sequence numbers have no holes; a segment names the hash of the one
before, so segments are cut in order, while up to eight upload at once; ``durable_upto`` moves over a gapless prefix. A
segment counts as stored when the bucket, asked again (HEAD), names its size and SHA-256: one that said 200 and lost the
object is asked to take it again. An object is put once: a key that is taken by other bytes means that somebody sealed
this recording, and it is *fenced*: nothing more is accepted. An upload that fails is tried again for a bounded time;
then the recording has *failed*. With a spool, accepted lines go to disk as well, and a disk that refuses ends it.
Who accepts is a relay's loop: what large texts need (JSON, links, gzip) is made in the pool's threads, in order, when
their segment is cut or spooled. The window counts a text as it is before JSON's escapes, which can make it six times as
long where it is nothing but control characters; that long it is in one segment of each upload at most.
Does not decide what is recorded or masked.
Source: architecture, "Accepted and durable", "Closing"; standards.md section 4; ADR 0025.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from isal import igzip

from broker.recorder import window
from broker.recorder.lines import LINE_BYTES, MAX_ROWS_BYTES, Line, LineWriter, RowsText
from broker.recorder.spool import SpooledRecording
from broker.threads import Pool
from chalicelib.domain.canonical import Json, sha256_hex
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, AlreadyExists, Limited, NotFound, RecordingUnavailable
from chalicelib.domain.recording import (
    MAX_TEXT,
    NOTHING_LEFT_OUT,
    Frame,
    FrameKind,
    Gap,
    LeftOut,
    RecordedAs,
    Segment,
    left_out_of,
    segment_header,
    segment_key,
)
from chalicelib.domain.store import ObjectFacts, Objects

_CONTENT_TYPE: Final = "application/gzip"
_GZIP_LEVEL: Final = 2  # of igzip: smaller than zlib's 6 on recorded rows, in a tenth of the time
# Characters of a stream's text whose line is left to another thread: orjson writes so many in 2 us. Of other frames the
# line is made at once: what cannot be written (half a surrogate pair among its binds) must be refused, not lost.
_LATER: Final = 2048
_BUSY: Final = 3  # segments on their way at once: 40 ms a PUT and 256 KiB make that 20 MiB/s

_logger = logging.getLogger(__name__)


class Failure(StrEnum):
    """Why a recording takes no more frames."""

    STORE = "store"  # uploads failed for too long
    FENCED = "fenced"  # somebody else holds the next key
    FULL = "full"  # more was offered than memory may hold
    DISK = "disk"  # the spool is full or cannot be written
    UNREADABLE = "unreadable"  # rows that are not as they were described: they are kept in base64
    CLOSED = "closed"


@dataclass(kw_only=True, slots=True)
class _Pending:
    """A cut segment until it is acknowledged. ``lines`` are dropped once they are joined, ``raw`` once compressed;
    ``size`` is what the window counts."""

    number: int
    lines: list[bytes | Line]
    size: int
    first: int
    last: int
    since_s: float
    raw: bytes = b""
    raw_bytes: int = 0
    sha256_raw: str = ""
    tries: int = 0
    retry_at_s: float | None = None
    stored: bytes = b""
    sha256_stored: str = ""
    is_put: bool = False  # the bucket said so; it counts when it says so again


class Recording:
    """One connection's frames. Thread-safe; only :meth:`wait` blocks."""

    def __init__(
        self,
        *,
        who: RecordedAs,
        objects: Objects,
        pool: Pool,
        clock: Clock,
        spooled: SpooledRecording | None = None,
        seen: Callable[[Frame], None] | None = None,
        keep_days: int = 0,
    ) -> None:
        """``seen`` is called with each accepted frame, in order, under the lock: memory only, and it never raises. Not
        with those of :meth:`accept_rows`, which have no text yet.
        ``keep_days``: how long its target's recordings are kept, where that is longer than the bucket's default."""
        self.who = who
        self.keep_days = keep_days
        self._spooled = spooled
        self._seen = seen
        self._spooling = threading.Lock()
        self._unspooled: dict[int, list[bytes | Line]] = {}
        self._headed = -1  # the last segment whose header was given to the disk
        # Lines are made one segment after the other, since each names the hash of the one before. Taken before
        # ``_changed``, never while that is held.
        self._making = threading.Lock()
        self._hashes: list[str] = []  # of segments' raw bytes, by number
        self._writer = LineWriter(who, unreadable=self._unreadable)
        self._firsts: list[int] = []  # of segment N the first frame's number
        self._objects = objects
        self._pool = pool
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._listeners: list[Callable[[], None]] = []
        self._seq = 0
        self._lines: list[bytes | Line] = []
        self._line_bytes = 0
        self._first_line = 1
        self._since_s = 0.0
        self._next_number = 0
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._segments: dict[int, Segment] = {}
        self._durable_upto = 0
        self._cut_upto = 0
        self._flush_upto = 0
        self._left_out = NOTHING_LEFT_OUT
        self._failure: Failure | None = None
        self._news = False

    # -- what was accepted -----------------------------------------------------------------------------------------

    def accept(self, kind: FrameKind, way: str, text: str = "", meta: tuple[tuple[str, Json], ...] = ()) -> int:
        """Take a frame into memory and return its sequence number (the last one, where a long text takes several).
        ``way`` is the frame's ``dir``.

        Never blocks. Raises RecordingUnavailable where nothing more can be recorded: the caller forwards nothing.
        """
        with self._changed:
            self._check()
            if not text.isascii():
                # Half a surrogate pair is legal in a str and has no UTF-8: shown escaped, it must not stop the record.
                text = text.encode("utf-8", "backslashreplace").decode()
            at = self._clock.now()
            if len(text) <= MAX_TEXT:
                self._append(Frame(seq=self._seq + 1, at=at, dir=way, kind=kind, text=text, meta=meta))
            else:
                parts = _parts(text)
                for part, piece in enumerate(parts):
                    more = (*meta, ("part", part), ("parts", len(parts)))
                    self._append(Frame(seq=self._seq + 1, at=at, dir=way, kind=kind, text=piece, meta=more))
            return self._accepted()

    def accept_rows(self, rows: Sequence[bytes], text: RowsText, meta: tuple[tuple[str, Json], ...]) -> int:
        """Take rows whose text is made later, as one frame from the target, and return its number. ``text`` is called
        with ``rows``, once, in any thread; what it raises ends the recording, with ``rows`` in it in base64.

        Otherwise as :meth:`accept`, with the text made at once where it might need two frames.
        """
        size = sum(map(len, rows))
        if size > MAX_ROWS_BYTES:
            return self.accept(FrameKind.ROWS, "s2c", text(rows), meta)
        with self._changed:
            self._check()
            at = self._clock.now()
            frame = Frame(seq=self._seq + 1, at=at, dir="s2c", kind=FrameKind.ROWS, text="", meta=meta)
            self._take(frame, Line(frame=frame, size=size + LINE_BYTES, rows=rows, text=text))
            return self._accepted()

    @property
    def accepted(self) -> int:
        """The last accepted frame's number; 0 before the first."""
        with self._changed:
            return self._seq

    @property
    def durable_upto(self) -> int:
        """The last frame of the gapless prefix that the bucket acknowledged."""
        with self._changed:
            return self._durable_upto

    @property
    def failure(self) -> Failure | None:
        """Why nothing more is accepted, or None."""
        with self._changed:
            return self._failure

    def check(self) -> None:
        """Raise RecordingUnavailable where nothing more is accepted."""
        with self._changed:
            self._check()

    @property
    def behind(self) -> bool:
        """Whether the connection ran as far ahead of its record as it may: its driver must stop reading."""
        with self._changed:
            if self._unacknowledged() > window.WINDOW_BYTES:
                return True
            oldest = self._oldest_s()
            return oldest is not None and self._clock.monotonic_s() - oldest > window.WINDOW_S

    def place(self, seq: int) -> str:
        """Return the key of the segment that holds frame ``seq``; empty while it is in none yet."""
        with self._changed:
            if not 0 < seq <= self._cut_upto:
                return ""
            number = bisect_right(self._firsts, seq) - 1
        return segment_key(self.who.session_id, self.who.connection_id, number)

    def on_progress(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called, in any thread, whenever more is durable or the recording failed."""
        with self._changed:
            self._listeners.append(listener)

    def off_progress(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` no more. Idempotent."""
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)

    # -- what becomes durable --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Ask for everything accepted so far to be put now, in one segment. Never blocks."""
        with self._changed:
            self._flush_upto = self._seq
            self._cut_where_due()

    def wait(self, upto: int, within_s: float) -> None:
        """Block until frames to ``upto`` are durable. Raises RecordingUnavailable where they are not ``within_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._durable_upto >= upto or self._broken(), within_s)
            if self._durable_upto < upto:
                raise RecordingUnavailable("the record of this could not be stored", failure=self._failure)

    def spool(self) -> None:
        """Write what was accepted since to the spool, where there is one. Blocks on the disk. Never raises: a disk that
        refuses has ended the recording."""
        if self._spooled is None:
            return
        with self._spooling:  # one at a time: lines go to disk in their order
            with self._changed:
                waiting, self._unspooled = self._unspooled, {}
            try:
                for number, lines in waiting.items():
                    self._spooled.append(number, self._made_for_disk(number, lines))
            except RecordingUnavailable:
                with self._changed:
                    self._fail(Failure.DISK)
        self._tell()

    def step(self) -> None:
        """Cut what is due, try again what failed, and give up what failed for too long. Called ten times a second."""
        with self._changed:
            now_s = self._clock.monotonic_s()
            self._cut_where_due()
            for pending in list(self._pending.values()):
                if self._broken() or pending.retry_at_s is None or now_s < pending.retry_at_s:
                    continue
                if now_s - pending.since_s > window.RETRY_FOR_S:
                    self._fail(Failure.STORE)
                    break
                pending.retry_at_s = None
                self._send(pending)
        self._tell()

    def stop(self) -> None:
        """Accept nothing more; what was accepted goes on becoming durable. Idempotent."""
        with self._changed:
            self._failure = self._failure or Failure.CLOSED
            self._flush_upto = self._seq
            self._cut_where_due()
            for pending in list(self._pending.values()):
                if pending.retry_at_s is not None and not self._broken():
                    pending.retry_at_s = None  # at once: who closes waits for it
                    self._send(pending)

    def settled(self) -> tuple[tuple[Segment, ...], tuple[Gap, ...]]:
        """Return the acknowledged segments in order, and the accepted frames that are in none of them."""
        with self._changed:
            segments = tuple(self._segments[number] for number in sorted(self._segments))
            # Closed is no reason to be missing: those frames were asked to be put, and nobody acknowledged them.
            why = (Failure.STORE if self._failure in {None, Failure.CLOSED} else self._failure or Failure.STORE).value
            gaps: list[Gap] = []
            expected = 1
            for segment in segments:
                if segment.first > expected:
                    gaps.append(Gap(first=expected, last=segment.first - 1, why=why))
                expected = segment.last + 1
            if expected <= self._seq:
                gaps.append(Gap(first=expected, last=self._seq, why=why))
            return segments, tuple(gaps)

    @property
    def left_out(self) -> LeftOut:
        """What accepted frames say was left out of this record."""
        with self._changed:
            return self._left_out

    # -- inside, under the lock ------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            raise RecordingUnavailable("this connection is not recorded any more", failure=self._failure)

    def _append(self, frame: Frame) -> None:
        size = len(frame.text)
        if size > _LATER and frame.kind is FrameKind.DATA:
            if not frame.text.isascii():
                size = len(frame.text.encode())
            self._take(frame, Line(frame=frame, size=size + LINE_BYTES))
        else:
            self._take(frame, self._writer.line(frame))
        if frame.kind is FrameKind.OUTCOME:
            self._left_out += left_out_of(dict(frame.meta))
        if self._seen is not None:
            self._seen(frame)

    def _take(self, frame: Frame, line: bytes | Line) -> None:
        if not self._lines:
            self._first_line = frame.seq
            self._since_s = self._clock.monotonic_s()
        if self._spooled is not None:
            self._unspooled.setdefault(self._next_number, []).append(line)
        self._lines.append(line)
        self._line_bytes += line.size if isinstance(line, Line) else len(line)
        self._seq = frame.seq

    def _accepted(self) -> int:
        seq = self._seq
        if self._unacknowledged() > window.HARD_BYTES:
            self._fail(Failure.FULL)  # who offered it hears of it here, and the rest at the next step
            self._check()
        if self._full():
            self._cut()
        return seq

    def _broken(self) -> bool:
        """Nothing more will become durable; after FULL, DISK and CLOSED what was accepted still does."""
        return self._failure in {Failure.FENCED, Failure.STORE}

    def _unacknowledged(self) -> int:
        return self._line_bytes + self._pending_bytes

    def _oldest_s(self) -> float | None:
        times = [pending.since_s for pending in self._pending.values()]
        if self._lines:
            times.append(self._since_s)
        return min(times, default=None)

    def _full(self) -> bool:
        most = window.SEGMENT_BYTES if len(self._pending) < _BUSY else window.BUSY_SEGMENT_BYTES
        return self._line_bytes >= most

    def _cut_where_due(self) -> None:
        if not self._lines:
            return
        old = self._clock.monotonic_s() - self._since_s >= window.FLUSH_AFTER_S
        if old or self._full() or self._flush_upto >= self._first_line:
            self._cut()

    def _cut(self) -> None:
        # With eight on their way the lines wait for a place, and then go in one object: whatever waits shares its PUT.
        if not self._lines or len(self._pending) >= window.UPLOADS_AT_ONCE or self._broken():
            return
        pending = _Pending(
            number=self._next_number,
            lines=self._lines,
            size=self._line_bytes,
            first=self._first_line,
            last=self._seq,
            since_s=self._since_s,
        )
        self._lines = []
        self._line_bytes = 0
        self._next_number += 1
        self._cut_upto = self._seq
        self._firsts.append(self._first_line)
        self._pending[pending.number] = pending
        self._pending_bytes += pending.size
        self._send(pending)

    def _send(self, pending: _Pending) -> None:
        pending.tries += 1
        try:
            self._pool.submit(self._run_upload, pending)
        except Limited:
            self._again(pending)

    def _again(self, pending: _Pending) -> None:
        wait_s = min(window.RETRY_MOST_S, window.RETRY_FIRST_S * 2 ** min(pending.tries, 8))
        pending.retry_at_s = self._clock.monotonic_s() + wait_s

    def _fail(self, failure: Failure) -> None:
        if not self._broken():
            self._failure = failure
            self._news = True
            _logger.error(
                "a recording failed", extra={"connection_id": self.who.connection_id, "failure": failure.value}
            )

    # -- inside, in the pool's threads and the disk's ----------------------------------------------------------------

    def _make_upto(self, number: int) -> None:
        """Make the bytes and the hash of every cut segment up to ``number``."""
        with self._making:
            while len(self._hashes) <= number:
                with self._changed:
                    pending = self._pending[len(self._hashes)]
                raw = b"".join((self._header(pending.number), *map(self._made, pending.lines)))
                pending.lines = []
                pending.raw, pending.raw_bytes, pending.sha256_raw = raw, len(raw), sha256_hex(raw)
                self._hashes.append(pending.sha256_raw)

    def _made_for_disk(self, number: int, lines: list[bytes | Line]) -> bytes:
        self._make_upto(number - 1)  # its header names their last one's hash
        with self._making:
            head = [self._header(number)] if number > self._headed else []
            self._headed = number
            return b"".join((*head, *map(self._made, lines)))

    def _header(self, number: int) -> bytes:
        return segment_header(self.who, number, self._hashes[number - 1] if number else "")

    def _made(self, line: bytes | Line) -> bytes:
        if isinstance(line, bytes):
            return line
        if not line.made:
            line.made = self._writer.made(line)
        return line.made

    def _unreadable(self) -> None:
        with self._changed:
            self._fail(Failure.UNREADABLE)

    def _run_upload(self, pending: _Pending) -> None:
        try:
            self._upload(pending)
        except Exception:  # ours is wrong: nobody will try this segment again, so that the recording is over
            _logger.exception("an upload raised", extra={"connection_id": self.who.connection_id})
            with self._changed:
                self._fail(Failure.STORE)
        self._tell()

    def _upload(self, pending: _Pending) -> None:
        key = segment_key(self.who.session_id, self.who.connection_id, pending.number)
        if not pending.stored:
            # Kept for every retry: other bytes under our own key would look like another's (mtime=0: no clock).
            self._make_upto(pending.number)
            pending.stored = igzip.compress(pending.raw, _GZIP_LEVEL, mtime=0)
            pending.sha256_stored = sha256_hex(pending.stored)
            pending.raw = b""
        try:
            if not pending.is_put:
                self._objects.put_new(key, pending.stored, content_type=_CONTENT_TYPE, keep_days=self.keep_days)
                pending.is_put = True
            self._read_back(pending, self._objects.facts(key))
        except AlreadyExists:
            pending.is_put = True  # by whom, the read-back says: an acknowledgement of ours may have been lost
            self._look(pending, key)
        except NotFound:
            self._lost(pending, key)
        except Exception as error:
            if not isinstance(error, AccessError):
                _logger.exception("an upload failed in a way that is not known", extra={"key": key})
            with self._changed:
                self._again(pending)

    def _look(self, pending: _Pending, key: str) -> None:
        """Look who has the key that was refused to us."""
        try:
            self._read_back(pending, self._objects.facts(key))
        except NotFound:
            self._lost(pending, key)
        except AccessError:
            with self._changed:
                self._again(pending)

    def _read_back(self, pending: _Pending, there: ObjectFacts) -> None:
        if (there.size, there.sha256) == (len(pending.stored), pending.sha256_stored):
            self._acknowledged(pending, there)
            return
        with self._changed:
            self._fail(Failure.FENCED)

    def _lost(self, pending: _Pending, key: str) -> None:
        """The bucket took it and has it not: the same bytes are put again, for as long as any upload is tried."""
        _logger.error("the bucket lost an object that it had acknowledged", extra={"key": key})
        pending.is_put = False
        with self._changed:
            self._again(pending)

    def _acknowledged(self, pending: _Pending, there: ObjectFacts) -> None:
        if self._spooled is not None:
            self._spooled.acknowledged(pending.number)
        with self._changed:
            self._unspooled.pop(pending.number, None)
            if self._pending.pop(pending.number, None) is not None:
                self._pending_bytes -= pending.size
            self._segments[pending.number] = Segment(
                number=pending.number,
                key=there.key,
                version_id=there.version_id,
                raw_bytes=pending.raw_bytes,
                sha256_raw=pending.sha256_raw,
                sha256_stored=pending.sha256_stored,
                first=pending.first,
                last=pending.last,
            )
            first_open = min(self._pending, default=self._next_number)
            if first_open > 0:
                self._durable_upto = self._segments[first_open - 1].last
            self._news = True  # room was made, even where an earlier segment is still on its way
            self._cut_where_due()

    def _tell(self) -> None:
        """Wake who waits and call who listens, where there is news. Never under the lock when in a pool's thread."""
        with self._changed:
            if not self._news:
                return
            self._news = False
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()


def _parts(text: str) -> tuple[str, ...]:
    """Return ``text`` in pieces that a frame holds whole. Pure."""
    return tuple(text[start : start + MAX_TEXT] for start in range(0, len(text), MAX_TEXT))
