"""Recorded terminal output, made safe to play in an auditor's terminal: an allow-list of escape sequences.

Why not ``printable`` alone: without cursor moves and colours a recorded `top` is no picture of what its user saw. What
passes: drawn characters; newline, return, tab, backspace; of the control sequences (ECMA-48 section 5.4) SGR colours
but for *conceal*, moves of the cursor, erasing and moving cells within a line or lines. What does not: everything that
a terminal answers (reports: its answer would be typed into the auditor's shell), obeys beyond its cells (titles,
clipboard, links, files, keyboard and paste modes, character sets, reset), or repeats for long. A dropped sequence is
counted. Strings (OSC, DCS, APC, PM, SOS) are dropped with their text; one without an end hides at most
``MAX_STRING`` characters. Sources: ECMA-48 5th edition; xterm's "Control Sequences"; CVE-2003-0063, CVE-2008-2383 and
CVE-2022-45872 for what reports can do.

``emulated``: for the emulator in a page of ours, which answers nothing and has nothing but its cells, what lays a whole
screen out passes too: the scrolling region, the other screen, a cursor that is not shown, line drawing. Still not what
conceals, repeats, or changes the screen's size.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

MAX_STRING: Final = 4096  # an OSC 8 link or a title is shorter; past it what follows is shown, never hidden
_MAX_SEQUENCE: Final = 64  # SGR with a true colour for text and ground takes 40
_DRAWN: Final = frozenset("LMNPS")
_MARKS_IN_A_ROW: Final = 2  # as in ``printable``: more of them is text that climbs over its neighbours
_PLAIN_CONTROLS: Final = frozenset("\n\r\t\b")
# Final bytes (ECMA-48 section 8.3, xterm): cursor A-H, a, d, e, f, and ` ; erase J, K, X; cells and lines @ P L M;
# save and restore the cursor s, u (without parameters: with them they are other things).
_MOVES: Final = frozenset("ABCDEFGHadef`JKX@PLM")
_BARE: Final = frozenset("su")
# To the end, to the beginning, all of the screen. Not xterm's 3: the lines that have scrolled away are the auditor's,
# with what was said of the recording before it began.
_ERASES: Final = frozenset({"", "0", "1", "2"})
_NUMBERS: Final = re.compile(r"[0-9]{0,4}(?:;[0-9]{0,4})?\Z")  # a larger count of lines or cells is no screen's
_SGR: Final = re.compile(r"[0-9:;]{0,60}\Z")
_CONCEAL: Final = 8
_DIGITS: Final = 4
# 38, 48 and 58 set a colour of text, ground and underline by the groups that follow: 5;N or 2;R;G;B.
_TAKES_MORE: Final = {head: {"5": 2, "2": 4} for head in ("38", "48", "58")}
# For an emulator alone: the scrolling region r, scrolling S and T, tabs I, Z and g. REP (b) repeats, and is not.
_SCREEN_MOVES: Final = frozenset("rSTIZg")
_SCREEN_SINGLE: Final = frozenset("DEH")  # index, next line, tab stop
_SCREEN_MODES: Final = re.compile(r"\?(?:[1-9][0-9]{0,3};)*[1-9][0-9]{0,3}\Z")
# Origin, autowrap, cursor shown, the other screen: of ? modes all that changes no more than what is drawn where.
_KNOWN_MODES: Final = frozenset({"6", "7", "25", "47", "1047", "1048", "1049"})
_SCREEN_SETS: Final = frozenset({"(0", "(B", ")0", ")B"})  # line drawing and ASCII (VT100)
_SHIFTS: Final = frozenset("\x0e\x0f")  # SO and SI choose between the two
_STRINGS: Final = frozenset("]P_^X")  # ESC and one of these begins OSC, DCS, APC, PM, SOS
_SEQUENCE: Final = re.compile(r"\x1b\[[0-9:;?]*[@-~]|\x1b[()][0B]|\x1b[0-9A-Z]|[\x0e\x0f]")  # those that pass
_SINGLE: Final = frozenset("78M")  # save and restore the cursor, one line up: ESC and one of these


@dataclass(kw_only=True, slots=True)
class TerminalText:
    """Makes one stream safe, piece by piece: where a piece is cut makes no difference. ``dropped`` counts what was
    left out. ``emulated``: for an emulator of our own, never for a terminal. Not thread-safe."""

    emulated: bool = False
    dropped: int = 0
    _held: str = field(default="", init=False)  # an escape sequence that has not ended yet
    _string: int = field(default=0, init=False)  # characters of a string that has not ended yet; 0: none is open
    _marks: int = field(default=0, init=False)

    def feed(self, text: str) -> str:
        """Return what of ``text``, after what came before, may be sent to a terminal."""
        return "".join([self._take(char) for char in text])

    def finish(self) -> None:
        """End the stream: what was begun is dropped, so that nothing which follows completes it."""
        self.dropped += bool(self._held) or bool(self._string)
        self._held, self._string = "", 0

    def _take(self, char: str) -> str:
        if self._string:
            return self._in_string(char)
        if self._held:
            return self._in_sequence(char)
        if char == "\x1b":
            self._held = char
            return ""
        return self._plain(char)

    def _plain(self, char: str) -> str:
        category = unicodedata.category(char)
        self._marks = self._marks + 1 if category[0] == "M" else 0
        if self.emulated and char in _SHIFTS:
            return char
        if char == " " or char in _PLAIN_CONTROLS or (category[0] in _DRAWN and self._marks <= _MARKS_IN_A_ROW):
            return char
        self.dropped += 1  # other controls (C1 among them), directions, marks that climb: nothing is shown for them
        return ""

    def _in_string(self, char: str) -> str:
        self._string += 1
        if char in "\x07\x18\x1a\x9c" or (self._held == "\x1b" and char == "\\"):
            self._string, self._held = 0, ""
        elif self._string > MAX_STRING:
            self._string, self._held = 0, ""
            return self._take(char)
        else:
            self._held = "\x1b" if char == "\x1b" else ""
        return ""

    def _in_sequence(self, char: str) -> str:
        if char in "\x18\x1a":  # CAN and SUB end a sequence (ECMA-48 sections 8.3.6, 8.3.148)
            return self._drop()
        if char == "\x1b":
            self._drop()
            self._held = char
            return ""
        if self._held == "\x1b":
            return self._second(char)
        if self._held[1] == "[":
            return self._control(char)
        if "\x20" <= char <= "\x2f" and len(self._held) < _MAX_SEQUENCE:  # an nF sequence: ESC ( B and its kin
            self._held += char
            return ""
        if self.emulated and self._held[1:] + char in _SCREEN_SETS:
            held, self._held = self._held, ""
            return held + char
        return self._drop() if "\x30" <= char <= "\x7e" else self._drop() + self._take(char)

    def _second(self, char: str) -> str:
        if char in _STRINGS:
            self.dropped += 1
            self._held, self._string = "", 1
            return ""
        if char == "[" or "\x20" <= char <= "\x2f":
            self._held += char
            return ""
        if char in _SINGLE or (self.emulated and char in _SCREEN_SINGLE):
            self._held = ""
            return f"\x1b{char}"
        return self._drop() if "\x30" <= char <= "\x7e" else self._drop() + self._take(char)

    def _control(self, char: str) -> str:
        if "\x20" <= char <= "\x3f" and len(self._held) < _MAX_SEQUENCE:
            self._held += char
            return ""
        numbers = self._held[2:]
        if not "\x40" <= char <= "\x7e":  # not a sequence after all
            return self._drop() + self._take(char)
        drawn = (char == "m" and _is_colour(numbers)) or _is_move(char, numbers)
        if drawn or (self.emulated and _is_layout(char, numbers)):
            self._held = ""
            return f"\x1b[{numbers}{char}"
        return self._drop()

    def _drop(self) -> str:
        self._held = ""
        self.dropped += 1
        return ""


def safe_terminal(text: str) -> str:
    """Return ``text`` with nothing in it that a terminal obeys beyond its cells, colours and cursor. Pure.

    ``safe_terminal(safe_terminal(x)) == safe_terminal(x)``.
    """
    return TerminalText().feed(text)


def plain_text(safe: str) -> str:
    """Return what was made safe as lines of text: without colours and moves, and of what was written over within a line
    the last. It is what a reader searches; a screen that a program drew is no text, and only its pieces. Pure."""
    lines = []
    for line in _SEQUENCE.sub("", safe).replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        at = 0
        for char in line:
            if char == "\r":
                at = 0
            elif char == "\b":
                at = max(0, at - 1)
            else:
                cells[at : at + 1] = [char]
                at += 1
        lines.append("".join(cells).rstrip())
    return "\n".join(lines)


def _is_move(char: str, numbers: str) -> bool:
    if char in _BARE:
        return numbers == ""
    if char == "J" and numbers not in _ERASES:
        return False
    return char in _MOVES and _NUMBERS.match(numbers) is not None


def _is_layout(char: str, numbers: str) -> bool:
    """Say whether it lays a screen out, and no more than that."""
    if char in "hl":
        return _SCREEN_MODES.match(numbers) is not None and set(numbers[1:].split(";")) <= _KNOWN_MODES
    return char in _SCREEN_MOVES and _NUMBERS.match(numbers) is not None


def _is_colour(numbers: str) -> bool:
    """Say whether SGR parameters only colour: none of them conceals. A colour's own numbers may be 8."""
    if _SGR.match(numbers) is None:
        return False
    groups = numbers.split(";")
    place = 0
    while place < len(groups):
        head, *own = groups[place].split(":")  # a group with colons holds its own numbers (ITU-T T.416)
        if len(head) > _DIGITS or any(len(number) > _DIGITS for number in own):
            return False
        if head.isdigit() and int(head) == _CONCEAL:
            return False
        if head in _TAKES_MORE and not own:
            more = _TAKES_MORE[head].get("".join(groups[place + 1 : place + 2]))
            if more is None:  # what a terminal makes of it is its own affair: it might read on with conceal
                return False
            place += more
        place += 1
    return True
