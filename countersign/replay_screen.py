"""A recording played in a terminal: what becomes of each frame, and when.

Rules: recorded bytes are hostile: terminal output passes ``terminal_text``, every other text ``printable``. What a
client typed into a terminal is not shown: what was echoed is in the output, and what was not is a password. Pauses are
those of the recording, divided by the speed, and never longer than asked: a clock that jumped must not hold an auditor.
Time, and what is pressed meanwhile, come from passed-in ``Keys``. What it does not do: read or verify recordings
(``chalicelib.services.recordings``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from countersign.printable import counted, padded, safe_line, width
from countersign.replay_keys import HELP, Key, Keys
from countersign.replay_moments import Moment, Stream, clock_time, left_out, listed, row_of, text_of
from countersign.review_steps import how_it_ended
from countersign.terminal_text import plain_text

if TYPE_CHECKING:
    from countersign.output import Output

MOST_ROWS: Final = 20  # of one answer: a screen's worth; --json has all
_MOST_CELL: Final = 40
_COLOURS: Final = {"forward": "green", "mask": "green", "hold": "yellow", "block": "red"}
_SPEEDS: Final = (0.1, 1000.0)  # as `--speed` has them; a key doubles or halves
_HOURS_S: Final = 3600.0  # of a pause: a wait has to end at some time, and then begins again
_CLEAR: Final = "\x1b[0m\x1b[2J\x1b[H"  # before a terminal's screen is made anew
_WORDS: Final = {"forward": "forwarded", "mask": "masked", "hold": "held", "block": "blocked"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast, with which longest pause, and from where: ``begin_s`` into the recording, or an operation's id."""

    speed: float
    most_pause_s: float
    begin_s: float = 0.0
    begin_op: str = ""


class Quit(Exception):
    """The auditor ended the replay."""


class Player:
    """Plays one recording after another, as fast and from where ``pace`` says, until a key says otherwise."""

    def __init__(self, *, output: Output, keys: Keys, pace: Pace) -> None:
        self._output = output
        self._keys = keys
        self._pace = pace
        self._speed = pace.speed

    def play(self, played: Sequence[Moment]) -> int:
        """Play them, and return how many escape sequences were left out. What is before the beginning is not shown,
        but for a terminal's output, which makes the screen that the rest goes on from. Raises Quit."""
        begin_s = self._begin_s(played)
        place = next((at for at, moment in enumerate(played) if moment.at_s >= begin_s), len(played))
        latest_s = begin_s
        dropped = 0
        show = self._show(played, place, again=False)
        while place < len(played):
            moment = played[place]
            to = self._wait(moment.at_s - latest_s, played, place)
            if to is not None:
                dropped += show.finish()
                place, latest_s = to, played[to].at_s
                show = self._show(played, place, again=True)
                continue
            show.moment(moment, quiet=False)
            latest_s, place = moment.at_s, place + 1
        return dropped + show.finish()

    def _show(self, played: Sequence[Moment], place: int, *, again: bool) -> _Show:
        """Return the screen as it is at ``place``. ``again``: after a jump."""
        terminals = frozenset(one.op for one in played if one.kind == "terminal")
        show = _Show(self._output, terminals=terminals)
        if again and terminals:
            self._output.part(_CLEAR)
        elif again:
            self._output.line(self._output.paint(f"── {clock_time(played[place].at_s)} ──", "dim"))
        for moment in played[:place]:
            show.moment(moment, quiet=True)
        return show

    def _begin_s(self, played: Sequence[Moment]) -> float:
        if not self._pace.begin_op:
            return self._pace.begin_s
        return next((one.at_s for one in played if one.op == self._pace.begin_op), 0.0)

    def _wait(self, recorded_s: float, played: Sequence[Moment], place: int) -> int | None:
        """Wait out a pause of the recording. Return where a key leads instead, None where on. Raises Quit."""
        paused = told = False
        while True:
            pause_s = _HOURS_S if paused else min(recorded_s / self._speed, self._pace.most_pause_s)
            key = self._keys.wait(pause_s)
            paused = paused is not (key is Key.PAUSE)
            if not paused and key in (None, Key.PAUSE):
                return self._on(played, place) if told else None
            to = self._jump(key, played, place)
            if to is not None:
                self._output.settle()
                return to
            told = True
            at = "paused at " if paused else ""
            state = f"{at}{clock_time(played[place].at_s)}, {self._speed:g}x"
            self._output.rewrite(f"{state}: {HELP}")

    def _on(self, played: Sequence[Moment], place: int) -> int | None:
        """Go on after a line of ours was shown: it stood where a terminal's screen is, which is then made anew."""
        if not self._output.live:
            return None
        self._output.settle()
        return place if any(moment.kind == "terminal" for moment in played[:place]) else None

    def _jump(self, key: Key | None, played: Sequence[Moment], place: int) -> int | None:
        match key:
            case Key.QUIT:
                raise Quit
            case Key.FASTER:
                self._speed = min(self._speed * 2, _SPEEDS[1])
            case Key.SLOWER:
                self._speed = max(self._speed / 2, _SPEEDS[0])
            case Key.NEXT | Key.NEXT_TOLD:
                return _operation(played, place, 1, told=key is Key.NEXT_TOLD)
            case Key.PREVIOUS | Key.PREVIOUS_TOLD:
                return _operation(played, place, -1, told=key is Key.PREVIOUS_TOLD)
            case Key.SEARCH:
                self._output.rewrite("search for (enter): ")
                found = matches(played, self._keys.words())
                after = [at for at in found if at > place] or found
                return after[0] if after else None
        return None


def matches(played: Sequence[Moment], words: str) -> list[int]:
    """Return the places of the moments that hold all of ``words``, in any case. What a client typed is not looked in.
    Pure."""
    wanted = words.lower().split()
    if not wanted:
        return []
    return [
        place
        for place, moment in enumerate(played)
        if not (moment.kind == "data" and moment.way != "s2c")
        and all(word in said_in(moment).lower() for word in wanted)
    ]


def said_in(moment: Moment) -> str:
    """Return what a moment says, as text that may be shown line by line; of a terminal's output without its moves. A
    word that was cut between two frames is in neither: the page searches whole outputs. Pure."""
    if moment.kind == "data":
        return plain_text(Stream().safe.feed(text_of(moment)))
    return moment.text


def _operation(played: Sequence[Moment], place: int, way: int, *, told: bool) -> int | None:
    """Return where the next operation begins, going ``way``; ``told``: one that a rule stopped or people answered."""
    asked = {one.op for one in played if one.kind == "held" or one.meta.get("verdict") in ("hold", "block")}
    begins = [
        at
        for at, one in enumerate(played)
        if one.kind == "operation" and not one.meta.get("part") and (not told or one.op in asked)
    ]
    if way > 0:
        return next((at for at in begins if at > place), None)
    # What is about to be shown at ``place`` follows the operation that is shown: one before that is meant.
    before = [at for at in begins if at < place - 1]
    return before[-1] if before else begins[0] if begins else None


class _Show:
    """What each kind of frame looks like."""

    def __init__(self, output: Output, terminals: frozenset[str]) -> None:
        self._output = output
        self._terminals = terminals
        self._streams: dict[tuple[str, str], Stream] = {}
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
            stream.safe.finish()
        self._line("")
        return sum(stream.safe.dropped for stream in self._streams.values())

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
                people = ", ".join(str(one) for one in listed(moment.meta.get("people")))
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
                yield self._told(f"the client sent {counted(len(text_of(moment)), 'character')}", "dim")
            case "close":
                yield self._told(f"closed: {moment.meta.get('exit', '')}", "dim")

    def _operation(self, moment: Moment) -> Iterator[str]:
        paint, verdict = self._output.paint, str(moment.meta.get("verdict", ""))
        if moment.meta.get("part"):  # a long text is several frames
            yield from (f"  {paint(safe_line(line), 'bold')}" for line in moment.text.splitlines())
            return
        yield ""
        word = paint(safe_line(_WORDS.get(verdict, verdict), 14), _COLOURS.get(verdict, "red"))
        rules = " + ".join(str(rule) for rule in listed(moment.meta.get("rules"))) or "no rule"
        yield f"{clock_time(moment.at_s)}  {word}  {paint(safe_line(f'{moment.op}  {rules}', 80), 'dim')}"
        for line in moment.text.splitlines() or ["(an interactive shell)"]:
            yield f"  {paint(safe_line(line), 'bold')}"
        binds = ", ".join(str(bind) for bind in listed(moment.meta.get("binds")))
        if binds:
            yield self._told(f"with {binds}", "dim")

    def _table(self, moment: Moment) -> Iterator[str]:
        shown = self._rows.get(moment.op, 0)
        rows = [row_of(line) for line in moment.text.splitlines()]
        self._rows[moment.op] = shown + len(rows)
        rows = rows[: max(0, MOST_ROWS - shown)]
        if not rows:
            return
        names = [str(name) for name in listed(moment.meta.get("columns"))]
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
        if without := left_out(moment):
            yield self._told(without, "yellow")
        status, tag = str(moment.meta.get("status", "")), str(moment.meta.get("tag", ""))
        said = tag if status == "ok" else how_it_ended(status, str(moment.meta.get("sqlstate") or tag))
        yield self._told(said, "green" if status == "ok" else "red")

    def _verdict(self, moment: Moment) -> str:
        verdict = str(moment.meta.get("verdict", ""))
        rules = " + ".join(str(rule) for rule in listed(moment.meta.get("rules"))) or "no rule"
        return self._told(f"{_WORDS.get(verdict, verdict)} on {rules}", _COLOURS.get(verdict, "red"))

    def _bytes(self, moment: Moment, *, quiet: bool) -> None:
        key = moment.op, str(moment.meta.get("stream", ""))
        stream = self._streams.setdefault(key, Stream())
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
