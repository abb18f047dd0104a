"""A recording's frames as moments: when each was, what it says; and its streams of bytes, decoded and made safe.

Rules: a frame is whatever JSON object the bucket holds, so nothing in it is believed to have its type. What is shown of
it is the business of ``replay_screen`` and ``replay_parts``. Pure, but for the streams, which keep what was cut.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.services.operations import meta_of, moment_of
from countersign.terminal_text import TerminalText


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """One frame, ``at_s`` seconds into its recording. ``op`` is empty where it belongs to no operation."""

    at_s: float
    kind: str
    way: str
    text: str
    op: str
    meta: Mapping[str, Any]


def moments(frames: Iterable[Mapping[str, Any]], opened_at: datetime) -> Sequence[Moment]:
    """Return the frames as moments in their order; a time that goes back, or is none, is the one before. Pure."""
    found: list[Moment] = []
    latest = 0.0
    for frame in frames:
        latest = max(latest, (moment_of(frame.get("t"), opened_at) - opened_at).total_seconds())
        meta = meta_of(frame)
        found.append(
            Moment(
                at_s=latest,
                kind=str(frame.get("kind", "")),
                way=str(frame.get("dir", "")),
                text=str(frame.get("text", "")),
                op=str(meta.get("op", "")),
                meta=meta,
            )
        )
    return found


class Stream:
    """One stream of bytes: text of many frames, decoded and made safe over their borders. ``emulated`` as in
    ``TerminalText``."""

    def __init__(self, *, emulated: bool = False) -> None:
        self.safe = TerminalText(emulated=emulated)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, moment: Moment) -> str:
        if moment.meta.get("encoding") != "base64":
            return self.safe.feed(moment.text)
        return self.safe.feed(self._decoder.decode(bytes_of(moment)))


def bytes_of(moment: Moment) -> bytes:
    """Return the bytes that a ``data`` frame holds; nothing where they cannot be read. Pure."""
    if moment.meta.get("encoding") != "base64":
        return moment.text.encode("utf-8", "replace")
    try:
        return base64.b64decode(moment.text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def text_of(moment: Moment) -> str:
    """Return what a ``data`` frame holds, as text. Pure."""
    return bytes_of(moment).decode("utf-8", "replace")


def texts(value: object) -> tuple[str, ...]:
    """Return the items of a JSON array as texts; nothing where it is none. Pure."""
    return tuple(str(one) for one in listed(value))


def listed(value: object) -> list[Any]:
    """Return a JSON array; nothing where it is none. Pure."""
    return value if isinstance(value, list) else []


def row_of(line: str) -> list[Any]:
    """Return one line of a ``rows`` frame: a JSON array, or a line that is none as a row of its own. Pure."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = [line]
    return listed(found)


def left_out(moment: Moment) -> str:
    """Return what an ``outcome`` frame says was left out of the record by a rule; empty where nothing was. Pure."""
    told = moment.meta.get("left_out")
    if not isinstance(told, Mapping):
        return ""
    return f"left out of the record: {told.get('rows', 0)} rows, {told.get('bytes', 0)} bytes ({told.get('why', '')})"


def clock_time(at_s: float) -> str:
    """Return minutes and seconds into a recording. Pure."""
    minutes, seconds = divmod(at_s, 60)
    return f"{int(minutes):02d}:{seconds:06.3f}"
