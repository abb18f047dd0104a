"""The one door to the terminal: results on stdout, what happens meanwhile on stderr, ``--json`` as one object.

Rules: no colour and no moving line off a terminal; every text of others passes ``printable`` first; with ``--json``
stdout carries exactly one JSON object, except that ``exec`` leaves stdout to the command that it starts and then puts
the object last on stderr.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Mapping
from typing import Final, TextIO

from countersign.failures import Failure
from countersign.printable import safe_line

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_MAX_COLUMNS: Final = 120  # wider lines are hard to read, and a screenshot of one is harder


class Output:
    """Writes for one command. ``as_json`` silences what is for people on stdout."""

    def __init__(self, *, as_json: bool, colour: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self._colour = colour
        self._live = False

    @property
    def live(self) -> bool:
        """Whether a line on stderr may be rewritten: it is a terminal, and not asked to be read by a program."""
        return self._err.isatty() and not self.as_json

    @property
    def columns(self) -> int:
        return min(shutil.get_terminal_size((100, 24)).columns, _MAX_COLUMNS)

    def paint(self, text: str, *styles: str) -> str:
        """Return ``text`` in ``styles`` where stdout is a terminal that takes them; else as it is."""
        if not styles or not self._colour or not self._out.isatty():
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Print one line of the result, for people. ``text`` must be safe already (it may hold our own colours)."""
        if not self.as_json:
            print(text, file=self._out)

    def part(self, text: str) -> None:
        """Print what is no line of its own, at once: a recording that is played. ``text`` must be safe already."""
        if not self.as_json:
            print(text, end="", file=self._out, flush=True)

    def raw(self, text: str) -> None:
        """Print what a shell or a file will read, whether or not ``--json``."""
        print(text, file=self._out)

    def result(self, value: Mapping[str, object], *, on_stderr: bool = False) -> None:
        """Print the JSON object, if asked for. ASCII only: no byte of a recording reaches the terminal raw."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=True), file=self._err if on_stderr else self._out, flush=True)

    def say(self, text: str) -> None:
        """Print a line about what is going on, on stderr, with ``--json`` too; a live line goes. Made safe here."""
        self._end_live()
        print(f"countersign: {safe_line(text)}", file=self._err, flush=True)

    def command(self, text: str) -> None:
        """Print a command to the CI's runner, on stderr: stdout is the started command's, or one JSON object. The
        caller made it one line."""
        self._end_live()
        print(text, file=self._err, flush=True)

    @property
    def kept_in_file(self) -> bool:
        """Whether stderr is a file, in which what is printed stays: no place for a secret."""
        try:
            return stat.S_ISREG(os.fstat(self._err.fileno()).st_mode)
        except (OSError, ValueError):  # a stream in memory, or closed
            return False

    def rewrite(self, text: str) -> None:
        """Show ``text`` as the live line. Nothing happens off a terminal."""
        if self.live:
            print(f"\r\x1b[2K{safe_line(text, self.columns - 1)}", end="", file=self._err, flush=True)
            self._live = True

    def settle(self) -> None:
        """Take the live line away, before something else is shown where it stood."""
        self._end_live()

    def fail(self, failure: Failure) -> None:
        """Print how the command ended, once."""
        self._end_live()
        if self.as_json:
            told = {"code": failure.code, "message": failure.message, "hint": failure.hint}
            told |= {"request_id": failure.request_id, "session_id": failure.session_id}
            kept = {name: value for name, value in told.items() if value}
            print(json.dumps({"error": kept, "exit": int(failure.exit_code)}, ensure_ascii=True), file=self._out)
            return
        code = f" [{failure.code}]" if failure.code else ""
        print(f"countersign: {safe_line(failure.message)}{safe_line(code)}", file=self._err)
        if failure.hint:
            print(f"  {safe_line(failure.hint)}", file=self._err)
        if failure.request_id:
            print(f"  request id: {safe_line(failure.request_id)}", file=self._err)
        self._err.flush()

    def _end_live(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=self._err, flush=True)
            self._live = False
