"""Compares the tables with the archive: a row that is not what was archived of it last was edited past the stream.

Rules: every row that the archive knows is read by its key; with ``listed`` the tables' keys are listed as well, and a
row that was never archived is a finding. A change reaches the archive seconds after it was made, so a row that differs
is looked at again, after what has been archived meanwhile was met; only what still differs is a finding. The ``once``
table is not compared: its claims lapse. Reads only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from chalicelib.domain.archived_item import ONCE, TABLE_KEYS, Rows, RowState, items_of
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import NotFound
from chalicelib.domain.reading import ReadObjects
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.row_fold import RowFold, Step, row_id

_CHUNK: Final = 1_000  # rows held in memory at once
COMPARED: Final = tuple(table for table in TABLE_KEYS if table != ONCE)
Row = tuple[str, str]


def row_findings(
    rows: Rows, objects: ReadObjects, fold: RowFold, *, listed: bool, again: Callable[[], bool]
) -> tuple[int, list[Finding]]:
    """Return how many rows were compared, and a finding for each that is not what the archive has.

    ``again`` waits a moment and lets ``fold`` meet what was archived meanwhile; it returns False where that is no use
    any more. Raises StoreUnavailable.
    """
    wanted: set[Row] = {row for row in fold.last() if row[0] in COMPARED}
    if listed:
        wanted |= {(table, key) for table in COMPARED for key in rows.keys(table)}
    differing = _differing(rows, fold.last(), wanted)
    while differing and again():
        differing = _differing(rows, fold.last(), set(differing))
    last = fold.last()
    found = [
        _finding(row, last.get(row), state, objects) for row, state in sorted(differing.items(), key=lambda d: d[0])
    ]
    return len(wanted), [finding for finding in found if finding is not None]


def _differing(rows: Rows, last: Mapping[Row, Step], wanted: set[Row]) -> dict[Row, RowState | None]:
    """Return the rows that are not what the archive has, with what they are now (None: not there)."""
    found: dict[Row, RowState | None] = {}
    for table in COMPARED:
        keys = sorted(key for of, key in wanted if of == table)
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            states = rows.states(table, chunk)
            found |= {
                (table, key): states.get(key) for key in chunk if _differs(states.get(key), last.get((table, key)))
            }
    return found


def _differs(now: RowState | None, last: Step | None) -> bool:
    if last is None:
        return now is not None
    if now is None:
        return last.change != "remove"
    return now.sha256() != last.sha256


def _finding(row: Row, last: Step | None, now: RowState | None, objects: ReadObjects) -> Finding | None:
    name = row_id(*row)
    if last is None:
        return Finding(key=name, kind=FindingKind.EXTRA, what=f"is in the table {row[0]}, and was never archived")
    if now is None:
        what = f"is missing from the table {row[0]}: it was archived at {timestamp(last.at)}"
        return Finding(key=name, kind=FindingKind.MISSING, what=what)
    if last.change == "remove":
        what = f"is in the table {row[0]} again: its removal was archived at {timestamp(last.at)}"
        return Finding(key=name, kind=FindingKind.EXTRA, what=what)
    fields = ", ".join(_fields(row, last, now, objects)) or "its text"
    what = f"was edited in the table {row[0]}: {fields} is not what was archived at {timestamp(last.at)}"
    return Finding(key=name, kind=FindingKind.ALTERED, what=what)


def _fields(row: Row, last: Step, now: RowState, objects: ReadObjects) -> Iterator[str]:
    """Give the names of what differs, where the archived change can still be read."""
    try:
        changes, _ = items_of(objects.get(last.where))
    except NotFound:
        return
    for change in changes:
        if (change.table, change.key) == row and change.order() == last.order:
            was = {**change.state.rest(), **change.state.document()}
            is_now = {**now.rest(), **now.document()}
            yield from sorted(name for name in {*was, *is_now} if was.get(name) != is_now.get(name))
