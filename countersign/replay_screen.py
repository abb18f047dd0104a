"""A recording played in a terminal: what becomes of each frame, and when.

Rules: recorded bytes are hostile: terminal output passes ``terminal_text``, every other text ``printable``. What a
client typed into a terminal is not shown: what was echoed is in the output, and what was not is a password. Pauses are
those of the recording, divided by the speed, and never longer than asked: a clock that jumped must not hold an auditor.
Time is a passed-in clock. What it does not do: read or verify recordings (``chalicelib.services.recordings``).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from chalicelib.services.operations import meta_of, moment_of
from countersign.printable import counted, padded, safe_line, width
from countersign.review_steps import how_it_ended
from countersign.terminal_text import TerminalText

if TYPE_CHECKING:
    from countersign.api import Clock
    from countersign.output import Output

MOST_ROWS: Final = 20  # of one answer: a screen's worth; --json has all
_MOST_CELL: Final = 40
_COLOURS: Final = {"forward": "green", "mask": "green", "hold": "yellow", "block": "red"}
_WORDS: Final = {"forward": "forwarded", "mask": "masked", "hold": "held", "block": "blocked"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast, with which longest pause, and from where: ``begin_s`` into the recording, or an operation's id."""

    speed: float
    most_pause_s: float
    begin_s: float = 0.0
    begin_op: str = ""


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


class Player:
    """Plays one recording after another."""

    def __init__(self, *, output: Output, clock: Clock, pace: Pace) -> None:
        self._output = output
        self._clock = clock
        self._pace = pace

    def play(self, played: Sequence[Moment]) -> int:
        """Play them, and return how many escape sequences were left out. What is before the beginning is not shown,
        but for a terminal's output, which makes the screen that the rest goes on from."""
        begin_s = self._begin_s(played)
        show = _Show(self._output, terminals=frozenset(one.op for one in played if one.kind == "terminal"))
        latest_s = begin_s
        for moment in played:
            before = moment.at_s < begin_s
            if not before:
                self._wait(moment.at_s - latest_s)
                latest_s = moment.at_s
            show.moment(moment, quiet=before)
        return show.finish()

    def _begin_s(self, played: Sequence[Moment]) -> float:
        if not self._pace.begin_op:
            return self._pace.begin_s
        return next((one.at_s for one in played if one.op == self._pace.begin_op), 0.0)

    def _wait(self, recorded_s: float) -> None:
        pause_s = min(recorded_s / self._pace.speed, self._pace.most_pause_s)
        if pause_s > 0:
            self._clock.sleep(pause_s)


class _Show:
    """What each kind of frame looks like."""

    def __init__(self, output: Output, terminals: frozenset[str]) -> None:
        self._output = output
        self._terminals = terminals
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._rows: dict[str, int] = {}
        self._open_line = False
        self._coloured = False

    def moment(self, moment: Moment, *, quiet: bool) -> None:
        """Show one. ``quiet``: only what a terminal's screen is made of."""
        if moment.kind == "data" and moment.way == "s2c":
            self._bytes(moment, quiet=quiet and moment.op not in self._terminals)
        elif not quiet:
            for line in self._lines(moment):
                self._line(line)

    def finish(self) -> int:
        for stream in self._streams.values():
            stream.text.finish()
        self._line("")
        return sum(stream.text.dropped for stream in self._streams.values())

    def _lines(self, moment: Moment) -> Iterator[str]:
        match moment.kind:
            case "operation":
                yield from self._operation(moment)
            case "rows":
                yield from self._table(moment)
            case "outcome":
                yield from self._outcome(moment)
            case "held":
                yield self._told("held: it waits for approval", "yellow")
            case "answered":
                people = ", ".join(str(one) for one in _listed(moment.meta.get("people")))
                state = str(moment.meta.get("state", ""))
                yield self._told(f"{state} by {people}" if people else state, "yellow")
            case "verdict":
                yield self._verdict(moment)
            case "notice":
                yield self._told(f"{moment.meta.get('severity', 'NOTICE')}: {moment.text}", "dim")
            case "terminal":
                size = f"{moment.meta.get('cols')}x{moment.meta.get('rows')}"
                yield self._told(f"a terminal of {size} ({moment.meta.get('term')})", "dim")
            case "data" if moment.op not in self._terminals and moment.text:
                yield self._told(f"the client sent {counted(len(_text(moment)), 'character')}", "dim")
            case "close":
                yield self._told(f"closed: {moment.meta.get('exit', '')}", "dim")

    def _operation(self, moment: Moment) -> Iterator[str]:
        paint, verdict = self._output.paint, str(moment.meta.get("verdict", ""))
        if moment.meta.get("part"):  # a long text is several frames
            yield from (f"  {paint(safe_line(line), 'bold')}" for line in moment.text.splitlines())
            return
        yield ""
        word = paint(safe_line(_WORDS.get(verdict, verdict), 14), _COLOURS.get(verdict, "red"))
        rules = " + ".join(str(rule) for rule in _listed(moment.meta.get("rules"))) or "no rule"
        yield f"{_clock_time(moment.at_s)}  {word}  {paint(safe_line(f'{moment.op}  {rules}', 80), 'dim')}"
        for line in moment.text.splitlines() or ["(an interactive shell)"]:
            yield f"  {paint(safe_line(line), 'bold')}"
        binds = ", ".join(str(bind) for bind in _listed(moment.meta.get("binds")))
        if binds:
            yield self._told(f"with {binds}", "dim")

    def _table(self, moment: Moment) -> Iterator[str]:
        shown = self._rows.get(moment.op, 0)
        rows = [_listed(row) for row in (_json(line) for line in moment.text.splitlines())]
        self._rows[moment.op] = shown + len(rows)
        rows = rows[: max(0, MOST_ROWS - shown)]
        if not rows:
            return
        names = [str(name) for name in _listed(moment.meta.get("columns"))]
        cells = [["null" if cell is None else str(cell) for cell in row] for row in rows]
        table = [[safe_line(cell, _MOST_CELL) for cell in row] for row in ([names, *cells] if shown == 0 else cells)]
        columns = max(len(row) for row in table)
        widths = [max((width(row[at]) for row in table if at < len(row)), default=0) for at in range(columns)]
        room = self._output.columns - 2
        for number, row in enumerate(table):
            line = " │ ".join(padded(cell, wide) for cell, wide in zip(row, widths, strict=False))
            yield f"  {safe_line(line, room)}".rstrip()
            if number == 0 and shown == 0:
                yield f"  {'─┼─'.join('─' * wide for wide in widths)[:room]}"

    def _outcome(self, moment: Moment) -> Iterator[str]:
        left = self._rows.pop(moment.op, 0) - MOST_ROWS
        if left > 0:
            yield self._told(f"and {left} more rows; --json has them", "dim")
        status, tag = str(moment.meta.get("status", "")), str(moment.meta.get("tag", ""))
        said = tag if status == "ok" else how_it_ended(status, str(moment.meta.get("sqlstate") or tag))
        yield self._told(said, "green" if status == "ok" else "red")

    def _verdict(self, moment: Moment) -> str:
        verdict = str(moment.meta.get("verdict", ""))
        rules = " + ".join(str(rule) for rule in _listed(moment.meta.get("rules"))) or "no rule"
        return self._told(f"{_WORDS.get(verdict, verdict)} on {rules}", _COLOURS.get(verdict, "red"))

    def _bytes(self, moment: Moment, *, quiet: bool) -> None:
        key = moment.op, str(moment.meta.get("stream", ""))
        stream = self._streams.setdefault(key, _Stream())
        safe = stream.feed(moment)
        if not quiet:
            self._write(safe)

    def _told(self, text: str, *styles: str) -> str:
        return "  " + self._output.paint(safe_line(text, self._output.columns - 2), *styles)

    def _line(self, text: str) -> None:
        if self._coloured:  # colours of the recording are not those of our lines
            self._output.part("\x1b[0m")
        if self._open_line:  # output that did not end its line: ours begins on one of its own
            self._output.part("\n")
        self._open_line = self._coloured = False
        self._output.part(f"{text}\n")

    def _write(self, text: str) -> None:
        if text:
            self._output.part(text)
            self._open_line = not text.endswith("\n")
            self._coloured = self._coloured or "\x1b" in text


class _Stream:
    """One stream of bytes: text of many frames, decoded and made safe over their borders."""

    def __init__(self) -> None:
        self.text = TerminalText()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, moment: Moment) -> str:
        raw = _raw(moment)
        return self.text.feed(moment.text if raw is None else self._decoder.decode(raw))


def _raw(moment: Moment) -> bytes | None:
    """Return the bytes of a frame that holds no text; None where it does."""
    if moment.meta.get("encoding") != "base64":
        return None
    try:
        return base64.b64decode(moment.text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _text(moment: Moment) -> str:
    raw = _raw(moment)
    return moment.text if raw is None else raw.decode("utf-8", "replace")


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return [line]


def _clock_time(at_s: float) -> str:
    minutes, seconds = divmod(at_s, 60)
    return f"{int(minutes):02d}:{seconds:06.3f}"
