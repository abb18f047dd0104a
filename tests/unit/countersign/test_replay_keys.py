"""The keys of a replay, on a real pseudo-terminal: what each means, that a pause is not cut short, and that the
terminal is put back as it was."""

from __future__ import annotations

import io
import os
import pty
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

import pytest

from countersign.replay_keys import Key, NoKeys, keys_of
from countersign.settings import SystemClock
from tests.fakes.waiting_clock import WaitingClock


@dataclass
class Terminal:
    """Both ends: what a test writes to ``master`` is what somebody typed."""

    master: int
    stdin: TextIO

    def type(self, typed: bytes) -> None:
        os.write(self.master, typed)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as stdin:
        yield Terminal(master=master, stdin=stdin)
    os.close(master)


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (b" ", Key.PAUSE),
        (b"+", Key.FASTER),
        (b"-", Key.SLOWER),
        (b"n", Key.NEXT),
        (b"\x1b[C", Key.NEXT),
        (b"p", Key.PREVIOUS),
        (b"\x1b[D", Key.PREVIOUS),
        (b"N", Key.NEXT_TOLD),
        (b"P", Key.PREVIOUS_TOLD),
        (b"/", Key.SEARCH),
        (b"xyq", Key.QUIT),
    ],
)
def test_what_is_pressed_is_told_at_once(terminal: Terminal, typed: bytes, key: Key) -> None:
    """Without a line's end, and what means nothing is passed over."""
    with keys_of(terminal.stdin, SystemClock(), wanted=True) as keys:
        terminal.type(typed)
        assert keys.wait(60) is key


def test_a_pause_ends_by_itself(terminal: Terminal) -> None:
    """A key that means nothing neither cuts it short nor holds it up."""
    clock = SystemClock()
    with keys_of(terminal.stdin, clock, wanted=True) as keys:
        terminal.type(b"x")
        began = clock.monotonic_s()
        assert keys.wait(0.2) is None
        assert clock.monotonic_s() - began >= 0.2


@pytest.mark.parametrize(
    ("typed", "words"),
    [(b"drop table\n", "drop table"), (b"dropx\x7f\r", "drop"), (b"drop\x1b", ""), (b"a\x07b\n", "a<U+0007>b")],
)
def test_a_line_is_typed_for_a_search(terminal: Terminal, typed: bytes, words: str) -> None:
    """With a way back, and nothing in it that would run in the terminal where it is shown again."""
    with keys_of(terminal.stdin, SystemClock(), wanted=True) as keys:
        terminal.type(typed)
        assert keys.words() == words


def test_the_terminal_is_put_back(terminal: Terminal) -> None:
    """However the replay ends: else the auditor's shell echoes nothing any more."""
    before = termios.tcgetattr(terminal.stdin)
    seen = []

    def interrupted() -> None:
        with keys_of(terminal.stdin, SystemClock(), wanted=True):
            seen.append(termios.tcgetattr(terminal.stdin))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen != [before]
    assert termios.tcgetattr(terminal.stdin) == before


def test_off_a_terminal_nobody_presses_anything() -> None:
    """In a pipeline stdin is somebody's data."""
    clock = WaitingClock()
    before = clock.monotonic_s()
    with keys_of(io.StringIO("q"), clock, wanted=True) as keys:
        assert isinstance(keys, NoKeys)
        assert (keys.wait(3), keys.wait(-1), keys.words()) == (None, None, "")
    assert clock.monotonic_s() - before == 3
