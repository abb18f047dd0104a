"""A recording as a page shows it: each operation with its tables, output and terminal, in order and within bounds.

Rules: recorded bytes are hostile: output passes ``terminal_text``, and a terminal becomes an asciicast whose events
hold nothing that conceals, repeats or changes the screen's size by itself. What a client typed into a terminal is not
in it: what was echoed is in the output, and what was not is a password. Everything is bounded, by its own bound and by
what is left of the page's ``Room``; what is left out is counted where it would have stood, and over the whole page.
Pure.

Source: asciicast v2 (header ``version``, ``width``, ``height``, ``idle_time_limit``; events ``[time, code, data]`` with
the codes ``o`` output, ``r`` resize, ``m`` marker).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from countersign.replay_moments import Moment, Stream, bytes_of, left_out, row_of, texts
from countersign.terminal_text import plain_text

IDLE_S: Final = 2.0  # the longest pause that a page plays, as the terminal's own `--max-pause`
MOST_ROWS: Final = 500  # of one result: what somebody looks through; --json has all
MOST_COLUMNS: Final = 100  # of a row, as rows of their own table
MOST_CELL: Final = 500  # characters
MOST_OUTPUT: Final = 100_000  # characters of one operation's output as text
MOST_EVENTS: Final = 50_000  # of one cast
_SCREEN: Final = ((1, 500), (1, 200))  # columns and rows that a page draws; a larger screen is nobody's

Event: TypeAlias = tuple[float, str, str]


@dataclass(kw_only=True, slots=True)
class Room:
    """What is left of a page, in characters, and what did not get in."""

    left: int
    rows: int = 0
    characters: int = 0

    def take(self, wanted: int) -> int:
        """Return how much of ``wanted`` there is room for, and take it."""
        taken = min(wanted, self.left)
        self.left -= taken
        return taken


@dataclass(kw_only=True, slots=True)
class Table:
    """Rows as the client saw them. ``left``: how many more there were."""

    columns: tuple[str, ...] = ()
    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    left: int = 0


@dataclass(kw_only=True, slots=True)
class Printed:
    """What was printed on one stream, as text. ``left``: how many characters more there were."""

    stream: str
    text: str
    left: int = 0
    dropped: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A line of ours about what happened. ``look`` is a class of the page's style, or empty."""

    text: str
    look: str = ""


@dataclass(kw_only=True, slots=True)
class Terminal:
    """A terminal as an asciicast. ``begin_s`` is when it began, in the recording's time; ``left`` is how many events
    more there were."""

    size: tuple[int, int]
    begin_s: float
    term: str
    events: list[Event] = field(default_factory=list)
    left: int = 0

    def cast(self, title: str, markers: Iterable[tuple[float, str]]) -> list[object]:
        """Return the lines of the asciicast (v2): its header, then its events, ``markers`` (time in the recording,
        label) among them."""
        until = max((at for at, _, _ in self.events), default=0.0)
        marks = [(round(at - self.begin_s, 3), "m", label) for at, label in markers]
        inside = [mark for mark in marks if 0 <= mark[0] <= until]
        events = sorted([*self.events, *inside], key=lambda event: event[0])
        width, height = self.size
        header = {"version": 2, "width": width, "height": height, "idle_time_limit": IDLE_S, "title": title}
        return [header, *([*event] for event in events)]


Part: TypeAlias = Table | Printed | Told | Terminal


@dataclass(kw_only=True, slots=True)
class PlayedOperation:
    """What was recorded of one operation; of the empty id: of none."""

    id: str
    at_s: float
    text: str = ""
    binds: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    verdict: str = ""
    parts: list[Part] = field(default_factory=list)


def played(moments: Sequence[Moment], room: Room) -> tuple[PlayedOperation, ...]:
    """Return the operations in the order in which they began; what belongs to none is under the empty id."""
    return _Reader(room).read(moments)


class _Reader:
    def __init__(self, room: Room) -> None:
        self._room = room
        self._found: dict[str, PlayedOperation] = {}
        self._terminals: dict[str, Terminal] = {}
        self._streams: dict[tuple[str, str], _Printing] = {}

    def read(self, moments: Sequence[Moment]) -> tuple[PlayedOperation, ...]:
        for moment in moments:
            operation = self._found.get(moment.op)
            if operation is None:
                operation = self._found[moment.op] = PlayedOperation(id=moment.op, at_s=moment.at_s)
            self._take(operation, moment)
        for (op, name), stream in self._streams.items():
            self._end(self._found[op], name, stream)
        return tuple(self._found.values())

    def _take(self, operation: PlayedOperation, moment: Moment) -> None:
        match moment.kind:
            case "operation":
                self._operation(operation, moment)
            case "rows":
                self._rows(operation, moment)
            case "data" if moment.way == "s2c":
                self._data(moment)
            case "data":
                if moment.op not in self._terminals and moment.text:
                    operation.parts.append(Told(text=f"the client sent {len(bytes_of(moment))} bytes"))
            case "terminal":
                self._terminal(operation, moment)
            case _:
                operation.parts += _told(moment)

    def _operation(self, operation: PlayedOperation, moment: Moment) -> None:
        kept = self._room.take(len(moment.text))
        self._room.characters += len(moment.text) - kept
        operation.text += moment.text[:kept]
        if moment.meta.get("part"):  # a long text is several frames
            return
        operation.at_s = moment.at_s
        operation.verdict = str(moment.meta.get("verdict", ""))
        operation.rules = texts(moment.meta.get("rules"))
        operation.binds = texts(moment.meta.get("binds"))

    def _rows(self, operation: PlayedOperation, moment: Moment) -> None:
        last = operation.parts[-1] if operation.parts else None
        columns = texts(moment.meta.get("columns"))[:MOST_COLUMNS]
        if not isinstance(last, Table) or (columns and last.columns and columns != last.columns):
            last = Table(columns=columns)
            operation.parts.append(last)
        for line in moment.text.splitlines():
            if len(last.rows) >= MOST_ROWS or self._room.left <= 0:
                last.left += 1
                self._room.rows += 1
                continue
            row = tuple(None if cell is None else _cut(str(cell)) for cell in row_of(line)[:MOST_COLUMNS])
            self._room.take(sum(len(cell or "") + 8 for cell in row))
            last.rows.append(row)

    def _data(self, moment: Moment) -> None:
        name = str(moment.meta.get("stream", ""))
        stream = self._streams.get((moment.op, name))
        if stream is None:
            stream = self._streams[moment.op, name] = _Printing(emulated=moment.op in self._terminals)
        if stream.full:
            stream.left += len(moment.text)
            return
        safe = stream.stream.feed(moment)
        kept = self._room.take(len(safe))
        stream.full = kept < len(safe)
        stream.left += len(safe) - kept
        stream.text += safe[:kept]
        terminal = self._terminals.get(moment.op)
        if terminal is not None and kept:
            _add(terminal, (round(moment.at_s - terminal.begin_s, 3), "o", safe[:kept]))

    def _terminal(self, operation: PlayedOperation, moment: Moment) -> None:
        size = (_number(moment.meta.get("cols"), 80, _SCREEN[0]), _number(moment.meta.get("rows"), 24, _SCREEN[1]))
        terminal = self._terminals.get(moment.op)
        if terminal is None:
            term = str(moment.meta.get("term", ""))
            terminal = self._terminals[moment.op] = Terminal(size=size, begin_s=moment.at_s, term=term)
            operation.parts.append(terminal)
        else:
            _add(terminal, (round(moment.at_s - terminal.begin_s, 3), "r", f"{size[0]}x{size[1]}"))

    def _end(self, operation: PlayedOperation, name: str, stream: _Printing) -> None:
        """Put what a stream printed, as text, where its operation ends; its last line of ours stays the last."""
        stream.stream.safe.finish()
        text = plain_text(stream.text)
        left = stream.left + max(0, len(text) - MOST_OUTPUT)
        self._room.characters += left
        printed = Printed(stream=name, text=text[:MOST_OUTPUT], left=left, dropped=stream.stream.safe.dropped)
        place = len(operation.parts)
        while place and isinstance(operation.parts[place - 1], Told):
            place -= 1
        operation.parts.insert(place, printed)


class _Printing:
    """One stream as it is printed, with what there was no room for."""

    def __init__(self, *, emulated: bool) -> None:
        self.stream = Stream(emulated=emulated)
        self.text = ""
        self.left = 0
        self.full = False


def _told(moment: Moment) -> Iterator[Told]:
    match moment.kind:
        case "held":
            yield Told(text="held: it waits for approval", look="amber")
        case "answered":
            people = ", ".join(texts(moment.meta.get("people")))
            state = str(moment.meta.get("state", ""))
            yield Told(text=f"{state} by {people}" if people else state, look="amber")
        case "verdict":
            rules = " + ".join(texts(moment.meta.get("rules"))) or "no rule"
            yield Told(text=f"the last word: {moment.meta.get('verdict', '')} on {rules}")
        case "notice":
            yield Told(text=f"{moment.meta.get('severity', 'NOTICE')}: {moment.text}", look="dim")
        case "outcome":
            if left := left_out(moment):
                yield Told(text=left, look="amber")


def _add(terminal: Terminal, event: Event) -> None:
    if len(terminal.events) >= MOST_EVENTS:
        terminal.left += 1
    else:
        terminal.events.append(event)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CELL else f"{text[:MOST_CELL]}… and {len(text) - MOST_CELL} characters more"


def _number(value: object, otherwise: int, limits: tuple[int, int]) -> int:
    number = value if isinstance(value, int) and value > 0 else otherwise
    return min(max(number, limits[0]), limits[1])
