"""What a query gave, wherever it ran, and how it is shown: a table, JSON, CSV.

Every cell may hold what a stranger wrote. Rules: on a terminal it is one line of drawn characters; in CSV it is never a
formula. Pure.
Source: OWASP, "CSV Injection"; RFC 4180.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from countersign.printable import padded, safe_line, width

Cell: TypeAlias = str | int | float | bool | None
MAX_SHOWN: Final = 48  # characters of a cell on a terminal: whole cells are in --json and --csv
# A spreadsheet takes a cell that begins so for a formula, a tab or a line's end before it or not.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """``truncated``: there were more rows than were asked for. ``cost`` says what it read, for people."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    truncated: bool
    ran_on: str
    scanned_bytes: int | None = None
    notes: tuple[str, ...] = field(default=())


def table(results: Results) -> Iterator[str]:
    """Give the lines of a table for a terminal."""
    cells = [[_drawn(cell) for cell in row] for row in results.rows]
    widths = [
        max([len(name), *(width(row[place]) for row in cells)], default=0) for place, name in enumerate(results.columns)
    ]
    for line in ([*results.columns], ["-" * columns for columns in widths], *cells):
        yield "  ".join(padded(text, columns) for text, columns in zip(line, widths, strict=True)).rstrip()


def csv_text(results: Results) -> str:
    """Return RFC 4180 text in which no cell is a formula and none holds what a terminal obeys."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(results.columns)
    writer.writerows([csv_cell(cell) for cell in row] for row in results.rows)
    return out.getvalue()


def csv_cell(cell: Cell) -> str:
    """Return a cell as text that a spreadsheet shows and does not run: a text that could be a formula gets an
    apostrophe before it. A number stays one."""
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return _text(cell)
    safe = safe_line(cell)
    return f"'{safe}" if cell.startswith(_FORMULA) or safe.lstrip().startswith(_FORMULA) else safe


def _drawn(cell: Cell) -> str:
    return safe_line(_text(cell), MAX_SHOWN)


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case _:
            return str(cell)


def as_rows(results: Results) -> Sequence[dict[str, Cell]]:
    """Return each row as an object, for ``--json``."""
    return [dict(zip(results.columns, row, strict=True)) for row in results.rows]
