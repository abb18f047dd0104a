"""A frame's line, made fast: the very bytes of ``Frame.line``, by orjson; and lines that are made later.

Rules: what orjson refuses and the standard library writes (an integer beyond 64 bits) the standard library writes. A
:class:`Line` is made once, by whoever holds the recording's lock for making, off the relay's thread: it can neither be
longer than its writer said nor get lost. Rows whose text cannot be made are kept as they came, in base64, and the
recording is told, so that the connection ends.
What it does not do: number frames, cut segments.
Source: docs/data_schema.md, Recording; ADR 0025.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import orjson

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.recording import MAX_TEXT, Frame, FrameKind, RecordedAs, line_parts

RowsText: TypeAlias = Callable[[Sequence[bytes]], str]

# orjson also writes dataclasses and datetimes, which the standard library refuses: neither may get into a record.
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
# Rows of so many bytes are no more than ``MAX_TEXT`` as text: a control character becomes six, and what is around a
# value is shorter than its length field times that.
MAX_ROWS_BYTES: Final = MAX_TEXT // 6
LINE_BYTES: Final = 512  # of a line besides its text: identities, ids, a time. What the window counts before it is made

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Line:
    """A line to be made of ``frame``, or of ``rows`` by ``text``. ``size`` is what the window counts for it; ``made``
    is kept, since the disk and the bucket have the same."""

    frame: Frame
    size: int
    rows: Sequence[bytes] = ()
    text: RowsText | None = None
    made: bytes = b""


class LineWriter:
    """Writes the lines of one connection."""

    def __init__(self, who: RecordedAs, *, unreadable: Callable[[], None]) -> None:
        """``unreadable`` is called when rows could not be made text: what they are is recorded, and nothing more must
        be."""
        self._who = who
        self._unreadable = unreadable
        self._begin, self._protocol, self._end = (part.encode() for part in line_parts(who))

    def line(self, frame: Frame) -> bytes:
        """Return ``frame.line(who)``. Raises what that raises."""
        try:
            meta = orjson.dumps(orjson.dumps(dict(frame.meta), option=_STRICT).decode())
            text = orjson.dumps(frame.text if len(frame.text) <= MAX_TEXT else frame.text[:MAX_TEXT])
            way = orjson.dumps(frame.dir)
        except TypeError:  # JSONEncodeError is one: half a surrogate pair, a large integer, what is no JSON
            return frame.line(self._who)
        return b'%b,"seq":%d,"t":"%b",%b,"dir":%b,"kind":"%b","text":%b,"meta":%b,%b\n' % (
            self._begin,
            frame.seq,
            timestamp(frame.at).encode(),
            self._protocol,
            way,
            frame.kind.value.encode(),
            text,
            meta,
            self._end,
        )

    def made(self, line: Line) -> bytes:
        """Return the bytes of a line that was left for later. Never raises for what its rows hold."""
        if line.text is None:
            return self.line(line.frame)
        try:
            text: str | None = line.text(line.rows)
        except Exception:
            _logger.exception("rows could not be read", extra={"connection_id": self._who.connection_id})
            text = None
        if text is None or len(text) > MAX_TEXT:  # longer than its bytes allow: cut off, it would be lost
            self._unreadable()
            raw = base64.b64encode(b"".join(line.rows)).decode()
            meta = tuple((name, value) for name, value in line.frame.meta if name == "op")
            kept = replace(line.frame, kind=FrameKind.DATA, text=raw, meta=(*meta, ("encoding", "base64")))
            return self.line(kept)
        return self.line(replace(line.frame, text=text))
