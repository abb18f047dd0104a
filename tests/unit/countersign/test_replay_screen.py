"""The replay: at the recorded pace, with nothing hostile in it taking effect, on a clock that a test moves."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from countersign.output import Output
from countersign.replay_keys import Key, NoKeys
from countersign.replay_moments import moments
from countersign.replay_screen import MOST_ROWS, Pace, Player, Quit, matches, said_in
from tests.fakes.clock import START
from tests.fakes.waiting_clock import WaitingClock

HOSTILE = "\x1b]0;pwned\x07\x1b[6n\u202e"


def frame(at_s: float, kind: str, text: str = "", way: str = "ctl", **meta: Any) -> dict[str, Any]:
    moment = (START + timedelta(seconds=at_s)).isoformat().replace("+00:00", "Z")
    return {"t": moment, "kind": kind, "dir": way, "text": text, "meta": json.dumps(meta)}


def output_of(at_s: float, text: str, op: str = "op_1", **meta: Any) -> dict[str, Any]:
    return frame(at_s, "data", text, "s2c", **{"op": op, "encoding": "utf-8", "stream": "stdout", **meta})


class Played:
    """A recording that was played: what was shown, how long it took, what was left out."""

    def __init__(self, frames: Sequence[dict[str, Any]], **pace: Any) -> None:
        out, clock = io.StringIO(), WaitingClock()
        before = clock.monotonic_s()
        player = Player(
            output=Output(as_json=False, colour=False, out=out, err=io.StringIO()),
            keys=NoKeys(clock),
            pace=Pace(**{"speed": 1.0, "most_pause_s": 60.0, **pace}),
        )
        self.dropped = player.play(moments(frames, START))
        self.took_s = clock.monotonic_s() - before
        self.text = out.getvalue()


RECORDED = [
    frame(1, "operation", "uptime", "c2s", op="op_1", verdict="mask", rules=["works"]),
    output_of(2, "up 3 days\n"),
    frame(3, "outcome", op="op_1", status="ok", tag="exit 0"),
    frame(10, "operation", "false", "c2s", op="op_2", verdict="forward", rules=["works"]),
    frame(11, "outcome", op="op_2", status="error", tag="exit 1"),
]


@pytest.mark.parametrize(
    ("pace", "took_s"),
    [
        ({}, 11.0),
        ({"speed": 10.0}, 1.1),
        ({"most_pause_s": 2.0}, 1 + 1 + 1 + 2 + 1),
        ({"begin_s": 9.5}, 1.5),
        ({"begin_op": "op_2"}, 1.0),
        ({"begin_op": "op_none"}, 11.0),
    ],
)
def test_the_pace_is_the_recordings(pace: dict[str, Any], took_s: float) -> None:
    """Divided by the speed; a long silence is cut; beginning later waits for nothing that was before."""
    assert Played(RECORDED, **pace).took_s == pytest.approx(took_s)


def test_a_clock_that_jumped_does_not_hold_the_auditor() -> None:
    """Recorded times are of whoever recorded: one years ahead, behind, or none at all, is a pause at most."""
    frames = [
        frame(1, "operation", "a", op="op_1", verdict="forward"),
        frame(10**8, "operation", "b", op="op_2", verdict="forward"),
        frame(-5, "operation", "c", op="op_3", verdict="forward"),
        {"t": "yesterday", "kind": "close", "dir": "ctl", "text": "", "meta": "{}"},
        {"t": "2026-11-02T09:30:00", "kind": "close", "meta": 7},
    ]
    assert Played(frames, most_pause_s=2.0).took_s == pytest.approx(3.0)


def test_ssh_is_played_with_verdict_and_exit_status() -> None:
    """A command, what came back, how it ended."""
    text = Played(RECORDED).text
    assert "00:01.000  masked  op_1  works\n  uptime\nup 3 days\n  exit 0\n" in text
    assert "  false\n  error exit 1\n" in text


def test_a_database_is_played_with_its_rows_as_a_table() -> None:
    """What the client saw: masked values, NULL told from text, a longer answer counted."""
    rows = "\n".join(json.dumps([str(n), None if n % 2 else "#MASKED:email#"]) for n in range(MOST_ROWS + 5))
    text = Played(
        [
            frame(1, "operation", "SELECT id,\n email", "c2s", op="op_1", verdict="mask", rules=["pii"], binds=["7"]),
            frame(2, "rows", rows[: rows.index("\n")], "s2c", op="op_1", columns=["id", "email"]),
            frame(2, "rows", rows[rows.index("\n") + 1 :], "s2c", op="op_1", columns=["id", "email"]),
            frame(3, "outcome", op="op_1", status="ok", tag="SELECT 25"),
        ]
    ).text
    assert "  SELECT id,\n   email\n  with 7\n  id │ email\n" in text
    assert "\n  0  │ #MASKED:email#\n" in text
    assert "\n  1 " in text
    assert "null" in text
    assert f"and 5 more rows; --json has them\n  SELECT {MOST_ROWS + 5}\n" in text
    assert text.count("id │ email") == 1


def test_a_held_statement_is_told_in_its_steps() -> None:
    """That it waited, who answered, what became of it."""
    text = Played(
        [
            frame(1, "operation", "DELETE", "c2s", op="op_1", verdict="hold", rules=["prod-write"]),
            frame(2, "held", op="op_1", ask="ask_1"),
            frame(3, "answered", op="op_1", state="approved", people=["alice"]),
            frame(4, "verdict", op="op_1", verdict="forward", rules=["prod-write"]),
        ]
    ).text
    for part in ("held  op_1  prod-write", "it waits for approval", "approved by alice", "forwarded on prod-write"):
        assert part in text


def test_what_was_typed_into_a_terminal_is_not_shown() -> None:
    """Attack: the replay shows a password that was typed where nothing was echoed."""
    text = Played(
        [
            frame(1, "operation", "", "c2s", op="op_1", verdict="forward", rules=["shell"]),
            frame(1, "terminal", op="op_1", term="xterm", cols=80, rows=24),
            output_of(2, "Password: "),
            frame(3, "data", "hunter2\r", "c2s", op="op_1", encoding="utf-8", stream="stdin"),
            output_of(4, "\r\nok\r\n"),
        ]
    ).text
    assert "hunter" not in text
    assert "(an interactive shell)" in text
    assert "a terminal of 80x24 (xterm)" in text
    assert "Password: \r\nok" in text


def test_input_of_a_command_is_counted_and_not_shown() -> None:
    """What a program was fed may be megabytes of anything; that there was some is a fact."""
    text = Played([frame(1, "data", "abc", "c2s", op="op_1", encoding="utf-8")]).text
    assert text.strip() == "the client sent 3 characters"


def test_recorded_escapes_run_in_the_auditors_terminal_while_it_plays() -> None:
    """Attack: every text that a recording holds, in every kind of frame, is hostile."""
    names = ["op", "verdict", "status", "tag", "state", "severity", "term", "cols", "exit", "sqlstate", "stream"]
    kinds = ["operation", "rows", "outcome", "held", "answered", "verdict", "notice", "terminal", "data", "close"]
    meta = dict.fromkeys(names, HOSTILE)
    lists = {"rules": [HOSTILE], "binds": [HOSTILE], "columns": [HOSTILE], "people": [HOSTILE]}
    rows = json.dumps([HOSTILE]) + "\n" + HOSTILE
    frames = [frame(n, kind, rows, way, **meta, **lists) for n, kind in enumerate(kinds) for way in ("s2c", "c2s")]
    played = Played(frames)
    assert not set(played.text) & set("\x1b\x07\u202e")
    assert played.dropped > 0


def test_a_sequence_that_frames_cut_in_two_is_one() -> None:
    """Frames end where the network ended them: colours must survive it, and a hostile sequence must not."""
    played = Played([output_of(1, "\x1b[3"), output_of(2, "1mred"), output_of(3, "\x1b]52;c;"), output_of(4, "x\x07.")])
    assert "\x1b[31mred." in played.text
    assert "52;c" not in played.text
    assert played.text.endswith("\x1b[0m\n\n"), "and our own lines are not red"


def test_bytes_that_are_no_text_are_played_too() -> None:
    """A character that is cut over two frames is one; what is no UTF-8 is shown as replaced."""
    whole = "é".encode()
    frames = [
        output_of(n, base64.b64encode(part).decode(), encoding="base64")
        for n, part in enumerate((whole[:1], whole[1:], b"\xff", b"!\n"))
    ]
    assert "é\ufffd!" in Played([*frames, output_of(9, "no base64", encoding="base64")]).text


def test_beginning_later_keeps_the_screen_that_was_there() -> None:
    """A terminal's screen is made of all that came before; of a plain command nothing before is shown."""
    shell = [
        frame(0, "terminal", op="op_1", term="xterm", cols=80, rows=24),
        output_of(1, "before", "op_1"),
        output_of(1, "plain", "op_2"),
        output_of(5, "after", "op_1"),
    ]
    played = Played(shell, begin_s=4.0)
    assert ("before" in played.text, "plain" in played.text, "after" in played.text) == (True, False, True)
    assert played.took_s == pytest.approx(1.0)


def test_what_has_no_type_is_no_crash() -> None:
    """The bucket holds whatever somebody put there."""
    frames: list[dict[str, Any]] = [
        {},
        {"kind": 7, "meta": [], "text": None},
        frame(1, "rows", "7\n{}\n[[]]", op=None, columns=7),
        frame(1, "operation", rules=7, binds=7, verdict=7, op=7),
        frame(1, "outcome", status=None, tag=7),
        frame(1, "answered", people={"a": 1}),
    ]
    assert Played(frames).took_s <= 1.0


def test_moments_are_in_order() -> None:
    """Time never goes back, whatever was recorded."""
    opened: datetime = START
    times = [one.at_s for one in moments([frame(2, "a"), frame(1, "b"), frame(3, "c")], opened)]
    assert times == [2.0, 2.0, 3.0]


class Pressed:
    """Keys that are pressed at once, one after the other, and words that are typed; then nobody is there."""

    def __init__(self, *keys: Key, words: str = "") -> None:
        self.left = list(keys)
        self.waited: list[float] = []
        self._words = words

    def wait(self, seconds: float) -> Key | None:
        self.waited.append(seconds)
        return self.left.pop(0) if self.left else None

    def words(self) -> str:
        return self._words


HELD = [
    *RECORDED,
    frame(12, "operation", "DELETE", "c2s", op="op_3", verdict="hold", rules=["r"]),
    frame(13, "held", op="op_3"),
    frame(14, "operation", "SELECT 9", "c2s", op="op_4", verdict="forward", rules=["r"]),
]


def pressed(*keys: Key, words: str = "", frames: Sequence[dict[str, Any]] = HELD) -> tuple[str, Pressed]:
    out, given = io.StringIO(), Pressed(*keys, words=words)
    output = Output(as_json=False, colour=False, out=out, err=io.StringIO())
    Player(output=output, keys=given, pace=Pace(speed=1.0, most_pause_s=60.0)).play(moments(frames, START))
    return out.getvalue(), given


@pytest.mark.parametrize(
    ("keys", "words", "lacks", "begins"),
    [
        ([Key.NEXT], "", "uptime", "false"),
        ([Key.NEXT, Key.NEXT], "", "false", "DELETE"),
        ([Key.NEXT_TOLD], "", "false", "DELETE"),
        ([Key.SEARCH], "select", "DELETE", "SELECT 9"),
        ([Key.SEARCH], "days up", "false\n\n", "up 3 days"),
    ],
)
def test_a_key_goes_to_an_operation(keys: list[Key], words: str, lacks: str, begins: str) -> None:
    """The next one, the next that somebody stopped or answered, the next that holds the words."""
    text, _ = pressed(*keys, words=words)
    assert begins in text
    assert lacks not in text.partition(begins)[0]


def test_back_again() -> None:
    """One operation back is shown, under its time; before the first there is nothing to go to."""
    text, _ = pressed(Key.NEXT_TOLD, Key.PREVIOUS)
    assert text.index("── 00:12.000 ──") < text.index("── 00:10.000 ──") < text.index("false") < text.index("DELETE")
    text, _ = pressed(Key.PREVIOUS)
    assert text.count("uptime") == 1


def test_a_pause_waits_until_it_is_ended() -> None:
    """And the speed is doubled and halved."""
    text, given = pressed(Key.PAUSE, Key.PAUSE, Key.FASTER, Key.FASTER, Key.SLOWER)
    assert given.waited[:2] == [1.0, 3600.0]
    assert "SELECT 9" in text
    assert given.waited[2:6] == [1.0, 0.5, 0.25, 0.5]


def test_q_ends_it() -> None:
    """Whoever has seen enough leaves, and not by a stack trace."""
    with pytest.raises(Quit):
        pressed(Key.QUIT)


def test_a_terminals_screen_is_made_anew_after_a_jump() -> None:
    """Else what is drawn after it stands in what was there before."""
    frames = [
        frame(0, "operation", "", "c2s", op="op_1", verdict="forward"),
        frame(0, "terminal", op="op_1", term="x", cols=80, rows=24),
        output_of(1, "first"),
        frame(2, "operation", "id", "c2s", op="op_2", verdict="block"),
        output_of(3, "second"),
    ]
    text, _ = pressed(Key.NEXT_TOLD, frames=frames)
    assert "\x1b[2J" in text
    assert text.index("first") < text.index("second")


def test_words_are_found_in_what_was_shown_and_not_in_what_was_typed() -> None:
    """Attack: a search finds the password that no replay shows."""
    frames = moments(
        [
            frame(1, "data", "hunter2", "c2s", op="op_1", encoding="utf-8"),
            output_of(2, "\x1b[31mhunter\x1b[0m2 is red"),
            frame(3, "rows", '["Hunter2"]', "s2c", op="op_1", columns=["x"]),
        ],
        START,
    )
    assert matches(frames, "HUNTER2") == [1, 2]
    assert matches(frames, "hunter2 red") == [1]
    assert matches(frames, "  ") == []
    assert said_in(frames[1]) == "hunter2 is red"
