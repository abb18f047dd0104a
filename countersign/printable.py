"""Makes text of others safe to show: what was recorded, what a service said, what a person typed are hostile bytes.

An allow-list: characters that a terminal draws and that stay where they are. Everything else (control characters, so
every escape sequence; format characters, so every change of writing direction; line and paragraph separators, private
use, unassigned, surrogates) is shown by its number. Source: Unicode general categories (UAX 44, table 12);
CVE-2021-42574 for the direction characters.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Letters, marks, numbers, punctuation, symbols, the space: what is drawn.
_DRAWN: Final = frozenset("LMNPS")
# The service writes times in UTC to the millisecond; nobody plans by the millisecond.
_MOMENT: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?Z\Z")
_MARKS_IN_A_ROW: Final = 2  # scripts that stack marks need two; more of them is text that climbs over its neighbours


def safe_line(text: str, limit: int = 0) -> str:
    """Return ``text`` on one line with nothing in it that a terminal obeys; cut to ``limit`` characters if not 0.

    A newline, tab or carriage return becomes one space. Pure.
    """
    out: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category[0] == "M" else 0
        if char in "\n\r\t":
            out.append(" ")
        elif char == " " or (category[0] in _DRAWN and marks <= _MARKS_IN_A_ROW):
            out.append(char)
        else:
            out.append(f"<U+{ord(char):04X}>")
    line = "".join(out)
    return line if not limit or len(line) <= limit else line[: limit - 1] + "…"


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``number`` with its noun: "1 gap", "2 gaps". ``many``: a plural that is not ``one`` with an s. Pure."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def moment(text: str) -> str:
    """Return the RFC 3339 time ``text`` as people read it, "2026-11-23 14:02:08 UTC"; anything else as it is. Pure."""
    found = _MOMENT.match(text)
    return f"{found[1]} {found[2]} UTC" if found else text


def width(text: str) -> int:
    """Return how many columns a terminal gives ``text``: wide and full-width characters take two, marks none. Pure."""
    return sum(
        0 if unicodedata.category(char)[0] == "M" else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def padded(text: str, columns: int) -> str:
    """Return ``text`` with spaces up to ``columns`` columns; a longer one is returned as it is. Pure."""
    return text + " " * max(0, columns - width(text))
