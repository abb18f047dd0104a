"""A recording as a page has it: what belongs to which operation, terminals as asciicasts, everything within bounds."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign import replay_parts
from countersign.replay_moments import moments
from countersign.replay_parts import PlayedOperation, Printed, Room, Table, Terminal, Told, played
from tests.fakes.clock import START

P = TypeVar("P", Table, Printed, Terminal)
HOSTILE = "\x1b]0;pwned\x07\x1b[6n\x1b[8mhidden\x1b[0m\x1b[8;9999;9999t\x1b[99999b\u202e"


def frame(at_s: float, kind: str, text: str = "", way: str = "ctl", **meta: Any) -> dict[str, Any]:
    moment = (START + timedelta(seconds=at_s)).isoformat().replace("+00:00", "Z")
    return {"t": moment, "kind": kind, "dir": way, "text": text, "meta": json.dumps(meta)}


def out(at_s: float, text: str, op: str = "op_1", **meta: Any) -> dict[str, Any]:
    return frame(at_s, "data", text, "s2c", **{"op": op, "encoding": "utf-8", "stream": "stdout", **meta})


def read(*frames: dict[str, Any], room: int = 1_000_000) -> tuple[PlayedOperation, ...]:
    return played(moments(frames, START), Room(left=room))


def one(operation: PlayedOperation, kind: type[P]) -> P:
    (found,) = [part for part in operation.parts if isinstance(part, kind)]
    return found


SHELL = [
    frame(1, "operation", "", "c2s", op="op_1", verdict="forward", rules=["shell"]),
    frame(2, "terminal", op="op_1", term="xterm", cols=80, rows=24),
    out(3, "$ "),
    frame(3.5, "data", "hunter2\r", "c2s", op="op_1", encoding="utf-8", stream="stdin"),
    out(4, "\x1b[1mls\x1b[0m\r\nfile\r\n"),
    frame(5, "terminal", op="op_1", term="xterm", cols=120, rows=40),
    out(6, "$ "),
    frame(7, "outcome", op="op_1", status="ok", tag="exit 0"),
]


def test_a_terminal_becomes_an_asciicast() -> None:
    """Version 2: a header with the size and the idle limit, output, resizes and a marker for each verdict inside."""
    (shell,) = read(*SHELL)
    terminal = one(shell, Terminal)
    header, *events = terminal.cast("shell", [(4.5, "blocked: rm"), (0.5, "before"), (60, "after")])
    assert header == {"version": 2, "width": 80, "height": 24, "idle_time_limit": 2.0, "title": "shell"}
    assert events == [
        [1.0, "o", "$ "],
        [2.0, "o", "\x1b[1mls\x1b[0m\r\nfile\r\n"],
        [2.5, "m", "blocked: rm"],
        [3.0, "r", "120x40"],
        [4.0, "o", "$ "],
    ]


def test_a_replay_page_shows_no_password_that_was_typed() -> None:
    """Attack: what was typed without an echo is read off the page. It is in no event, in no text."""
    (shell,) = read(*SHELL)
    assert "hunter2" not in repr(shell)
    assert [part.text for part in shell.parts if isinstance(part, Printed)] == ["$ ls\nfile\n$"]


def test_recorded_escapes_do_nothing_in_the_player() -> None:
    """Attack: a title, a question that is answered, concealed text, a screen of a million cells, a character repeated
    a hundred thousand times. None is in the cast; what was concealed is shown; what was left out is counted."""
    frames = [SHELL[0], SHELL[1], out(3, HOSTILE[:20]), out(3, HOSTILE[20:])]
    (shell,) = read(*frames)
    terminal = one(shell, Terminal)
    printed = one(shell, Printed)
    assert "".join(text for _, _, text in terminal.events) == "hidden\x1b[0m"
    assert (printed.text, printed.dropped) == ("hidden", 6)


@given(st.lists(st.text(max_size=40), max_size=8), st.booleans())
def test_no_event_holds_more_than_cells_colours_and_layout(texts: list[str], cut: bool) -> None:
    """Whatever was printed, wherever it was cut."""
    pieces = [piece for text in texts for piece in ((text[:3], text[3:]) if cut else (text,))]
    (shell,) = read(SHELL[0], SHELL[1], *(out(3, piece) for piece in pieces))
    terminal = one(shell, Terminal)
    said = "".join(text for _, _, text in terminal.events)
    assert not set(said) & set(map(chr, [*range(8), 7, 0x0B, 0x0C, *range(0x10, 0x1B), *range(0x80, 0xA0)]))
    assert not any(bad in said for bad in ("\x1b]", "\x1bP", "\x1b[8m", "\x1bc"))


@pytest.mark.parametrize(
    ("cols", "rows", "size"),
    [(0, -1, (80, 24)), (10**9, 10**9, (500, 200)), ("wide", None, (80, 24)), (True, 1.5, (1, 24))],
)
def test_a_screen_has_a_size_that_a_page_can_draw(cols: Any, rows: Any, size: tuple[int, int]) -> None:
    """Attack: a terminal of a thousand million columns exhausts the reader."""
    (shell,) = read(SHELL[0], frame(2, "terminal", op="op_1", term="x", cols=cols, rows=rows))
    terminal = one(shell, Terminal)
    assert terminal.size == size


def test_each_operation_has_its_own_in_order() -> None:
    """Two operations at once, a notice of nobody's, a result in two frames, what approvers said."""
    every = read(
        frame(0, "notice", "hello", op="", severity="NOTICE"),
        frame(1, "operation", "SELECT 1", "c2s", op="op_1", verdict="mask", rules=["r"], binds=["7"]),
        frame(1, "operation", " AS a", "c2s", op="op_1", part=1),
        frame(2, "operation", "DELETE", "c2s", op="op_2", verdict="hold"),
        frame(3, "rows", '["1",null]\n["2","b"]', "s2c", op="op_1", columns=["id", "x"]),
        frame(3, "held", op="op_2", ask="ask_1"),
        frame(4, "rows", '["3","c"]\nrubbish', "s2c", op="op_1", columns=["id", "x"]),
        frame(5, "answered", op="op_2", state="approved", people=["alice"]),
        frame(6, "outcome", op="op_1", status="ok", left_out={"rows": 9, "bytes": 99, "why": "record:statements"}),
    )
    assert [found.id for found in every] == ["", "op_1", "op_2"]
    one, two = every[1:]
    assert (one.text, one.binds, one.verdict, one.at_s) == ("SELECT 1 AS a", ("7",), "mask", 1.0)
    assert isinstance(one.parts[0], Table)
    assert one.parts[0].rows == [("1", None), ("2", "b"), ("3", "c"), ("rubbish",)]
    assert one.parts[1] == Told(text="left out of the record: 9 rows, 99 bytes (record:statements)", look="amber")
    assert [part.text for part in two.parts if isinstance(part, Told)] == [
        "held: it waits for approval",
        "approved by alice",
    ]


def test_what_has_no_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that silently lacks the one row that mattered would be worse than none."""
    monkeypatch.setattr(replay_parts, "MOST_ROWS", 2)
    monkeypatch.setattr(replay_parts, "MOST_OUTPUT", 10)
    monkeypatch.setattr(replay_parts, "MOST_EVENTS", 2)
    room = Room(left=1000)
    rows = frame(3, "rows", "\n".join('["x"]' for _ in range(5)), "s2c", op="op_1", columns=["x"])
    frames = [*SHELL[:3], rows, out(4, "a" * 40), out(5, "b" * 2000), out(6, "c" * 50)]
    (shell,) = played(moments(frames, START), room)
    table, printed, terminal = one(shell, Table), one(shell, Printed), one(shell, Terminal)
    assert (len(table.rows), table.left, room.rows) == (2, 3, 3)
    assert printed.text == "$ aaaaaaaa"
    assert printed.left == room.characters > 1000
    assert (len(terminal.events), terminal.left) == (2, 1)
    assert room.left == 0


@pytest.mark.parametrize("meta", ["", "7", "[]", "{", '{"op": 7, "columns": 3, "left_out": 3}'])
@pytest.mark.parametrize("kind", ["operation", "rows", "data", "terminal", "outcome", "held", "verdict", "strange"])
def test_a_frame_of_any_shape_is_read(kind: str, meta: str) -> None:
    """A frame is whatever the bucket holds."""
    assert read({"t": 7, "kind": kind, "dir": "s2c", "text": "x", "meta": meta})
