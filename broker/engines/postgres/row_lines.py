"""Rows as the recording has them: one JSON array of strings and nulls a line.

Two ways, and the same text: :func:`exact_lines` takes row by row apart; :class:`RowLines` reads hundreds with one
regular expression, where that proves as much. A value in text format has no NUL and, in UTF-8, no byte 0xFF; so the
pattern takes four bytes for a length and all up to the next NUL for the value. What was read is then put together
again, each value behind its own length: only where that gives the very bytes that came are they what was read. Else the
rows are taken apart one by one, which raises where one is not as described.

What it does not do: mask. Rows come here as the client sees them.
Source: PostgreSQL 15 manual, 55.7 (DataRow); RFC 8259.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import orjson

# Two bytes that no UTF-8 has, before each row: where they are found more often than they were put, the rows are taken
# apart one by one.
_BEFORE: Final = b"\xfe\xfe"
_NULL: Final = "\xff" * 4
# Length fields by length. Longer values are read one by one: what that takes is little against what they are.
_LENGTHS: Final = tuple(struct.pack("!i", length).decode("latin-1") for length in range(2048))
_QUOTED: Final = json.encoder.encode_basestring
# Columns of a pattern: PostgreSQL's own limit for a result is 1664, a pattern of so many groups takes 10 ms to compile.
MAX_COLUMNS: Final = 64

Shown = Callable[[bytes], list[str | None]]


def exact_lines(rows: Sequence[bytes], shown: Shown) -> str:
    """Return the lines of ``rows``, each taken apart by ``shown``. Raises what that raises."""
    return "\n".join(
        f"[{','.join(['null' if value is None else _QUOTED(value) for value in shown(row)])}]" for row in rows
    )


class RowLines:
    """The lines of one result's rows. Thread-safe: it holds nothing of them."""

    def __init__(self, columns: int, *, text: bool, shown: Shown) -> None:
        """``text``: whether every column is in text format; ``shown`` takes one row apart."""
        self._columns = columns
        self._shown = shown
        self._fast = text and 0 < columns <= MAX_COLUMNS
        self._before = (_BEFORE + struct.pack("!H", columns)).decode("latin-1")
        self._patterns: tuple[re.Pattern[str], re.Pattern[str]] | None = None

    def __call__(self, rows: Sequence[bytes]) -> str:
        """Return the lines of ``rows``, the bodies of DataRow messages. Raises ProtocolViolation."""
        return (self._together(rows) if self._fast and len(rows) > 1 else None) or exact_lines(rows, self._shown)

    def _together(self, rows: Sequence[bytes]) -> str | None:
        """Return the lines; None where the pattern does not prove that they are the rows."""
        joined = _BEFORE.join((b"", *rows))
        if joined.count(_BEFORE) != len(rows):
            return None
        # Latin-1: a character a byte, so that lengths can be compared; what it says becomes UTF-8 at the end.
        text = joined.decode("latin-1")
        if self._patterns is None:
            self._patterns = _pattern(self._before, self._columns), _pattern(self._before, self._columns, nulls=True)
        nulls = "\xff" in text
        found = self._patterns[nulls].findall(text)
        if len(found) != len(rows):
            return None
        cells: list[str] = list(chain.from_iterable(found)) if self._columns > 1 else found
        values: Sequence[str | None] = cells
        if nulls:
            values = [None if cell == _NULL else cell[4:] for cell in cells]
            cells = [value or "" for value in values]
        if self._put_together(cells, values) != text:
            return None
        # An empty string between two rows: `],"",[` cannot stand within a string of JSON, whose quotes are escaped.
        spaced: list[object] = [""] * (2 * len(rows) - 1)
        spaced[::2] = zip(*[iter(values)] * self._columns, strict=True)
        lines = orjson.dumps(spaced)[1:-1].replace(b'],"",[', b"]\n[")
        if joined.isascii():
            return lines.decode()
        try:
            return lines.decode().encode("latin-1").decode()
        except UnicodeDecodeError:
            return None

    def _put_together(self, filled: Sequence[str], values: Sequence[str | None]) -> str | None:
        """Return the rows that have just these values, ``filled`` where they are null; None where one is longer than is
        read here."""
        try:
            lengths = list(map(_LENGTHS.__getitem__, map(len, filled)))
        except IndexError:
            return None
        if values is not filled:
            lengths = [_NULL if value is None else length for value, length in zip(values, lengths, strict=True)]
        lengths[:: self._columns] = [self._before + length for length in lengths[:: self._columns]]
        parts = [""] * (2 * len(filled))
        parts[::2], parts[1::2] = lengths, filled
        return "".join(parts)


def _pattern(before: str, columns: int, *, nulls: bool = False) -> re.Pattern[str]:
    """Return what takes rows of ``columns`` values apart. With ``nulls`` a value has its length before it."""
    value = r"(\xff{4}|\0\0..[^\0\xff]*)" if nulls else r"\0\0..([^\0]*)"
    return re.compile(f"(?s){re.escape(before)}{value * columns}(?=\xfe\xfe|\\Z)")
