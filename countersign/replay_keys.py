"""What an auditor presses while a recording plays: this terminal's own keys, a few of them, with a bounded wait.

Rules: keys are read only where both ends are a terminal; the terminal is put back as it was however the replay ends;
what is typed is never echoed raw. Ctrl-C stays Ctrl-C. Source: termios(3), cbreak mode.
"""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from countersign.printable import safe_line

if TYPE_CHECKING:
    from countersign.api import Clock

HELP: Final = "space, + -, n p operation, N P stopped or answered, / search, q"  # one line of a narrow terminal
_MOST_WORDS: Final = 100  # characters of a search


class Key(Enum):
    PAUSE = "pause"
    FASTER = "faster"
    SLOWER = "slower"
    NEXT = "next"
    PREVIOUS = "previous"
    NEXT_TOLD = "next told"
    PREVIOUS_TOLD = "previous told"
    SEARCH = "search"
    QUIT = "quit"


_KEYS: Final = {
    b" ": Key.PAUSE,
    b"+": Key.FASTER,
    b"=": Key.FASTER,
    b"-": Key.SLOWER,
    b"n": Key.NEXT,
    b"\x1b[C": Key.NEXT,
    b"p": Key.PREVIOUS,
    b"\x1b[D": Key.PREVIOUS,
    b"N": Key.NEXT_TOLD,
    b"P": Key.PREVIOUS_TOLD,
    b"/": Key.SEARCH,
    b"q": Key.QUIT,
}


class Keys(Protocol):
    """Waits, and says what was pressed meanwhile."""

    def wait(self, seconds: float) -> Key | None:
        """Return the key that was pressed within ``seconds``, as soon as it is; None where none was."""
        ...

    def words(self) -> str:
        """Return a line that is typed now; empty where it was given up."""
        ...


class NoKeys:
    """For what is no terminal: waits, and nobody presses anything."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def wait(self, seconds: float) -> Key | None:
        if seconds > 0:
            self._clock.sleep(seconds)
        return None

    def words(self) -> str:
        return ""


class TerminalKeys:
    """The keys of the terminal ``descriptor``, in cbreak mode. ``clock`` measures: a key that means nothing must not
    cut a pause short."""

    def __init__(self, descriptor: int, clock: Clock) -> None:
        self._descriptor = descriptor
        self._clock = clock

    def wait(self, seconds: float) -> Key | None:
        until = self._clock.monotonic_s() + max(seconds, 0.0)
        while True:
            left = until - self._clock.monotonic_s()
            pressed = self._read(max(left, 0.0))
            if pressed in _KEYS:
                return _KEYS[pressed]
            if left <= 0:
                return None

    def words(self) -> str:
        """Read to the end of the line; escape gives it up. The caller shows nothing of it before it is whole."""
        typed = bytearray()
        while (pressed := self._read(None)) not in (b"\r", b"\n", b""):
            if pressed.startswith(b"\x1b"):
                return ""
            if pressed in (b"\x7f", b"\x08"):
                del typed[-1:]
            elif len(typed) < _MOST_WORDS:
                typed += pressed
        return safe_line(typed.decode("utf-8", "replace")).strip()

    def _read(self, seconds: float | None) -> bytes:
        """Return the bytes of one key, nothing where none came. An arrow's three bytes come at once."""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return b""
        first = os.read(self._descriptor, 1)
        if first != b"\x1b" or not select.select([self._descriptor], [], [], 0.02)[0]:
            return first
        return first + os.read(self._descriptor, 2)


@contextmanager
def keys_of(stdin: TextIO, clock: Clock, *, wanted: bool) -> Iterator[Keys]:
    """Give the keys of the terminal ``stdin`` while the block runs; nobody's where it is none, or none are
    ``wanted``."""
    if not wanted or not stdin.isatty():
        yield NoKeys(clock)
        return
    descriptor = stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield TerminalKeys(descriptor, clock)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
