"""The review as CSV: a spreadsheet shows it, and runs nothing of it."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from countersign.review_csv import COLUMNS, MOST_CELL, cell, write_csv
from countersign.review_steps import steps_of
from tests.unit.countersign.test_review_page import STORY, hostile
from tests.unit.countersign.test_review_screen import SELECT, SESSION


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|'/c calc'!A1",
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        " =1",
        '"=1',
        "'=1",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1",
        "\uff20x",
        "a;=1",
        'a;"=1',
        "a; =1",
    ],
)
def test_a_cell_that_begins_a_formula(text: str) -> None:
    """Attack: `=cmd` in a statement runs on the auditor's machine, also where `;` separates."""
    shown = cell(text)
    for part in shown.split(";"):
        assert part.lstrip(" \"'\ufeff")[:1] not in "=+-@\uff1d\uff0b\uff0d\uff20" or "'" in part
    assert "'" in shown


@pytest.mark.parametrize("text", ["SELECT 1", "a = b", "x-1", "acme/orders deploy", "", "2026-11-02 09:30:00"])
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    """Else nobody could read it."""
    assert cell(text) == text


def test_no_cell_holds_what_a_terminal_obeys_or_more_than_a_cell_may() -> None:
    """A CSV is also shown by `cat`."""
    assert cell("a\x1b[2J\u202eb\nc") == "a<U+001B>[2J<U+202E>b c"
    assert cell("\ufeff=1") == "<U+FEFF>=1", "a mark that spreadsheets skip is no beginning any more"
    assert len(cell("x" * 99_999)) <= MOST_CELL + 1


def test_a_row_is_a_step_and_reads_back() -> None:
    """As many columns in each, and what allowed it in every row."""
    out = io.StringIO()
    assert write_csv(steps_of(STORY), out) == len(steps_of(STORY))
    names, *rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert tuple(names) == COLUMNS
    assert {len(row) for row in rows} == {len(COLUMNS)}
    told = [dict(zip(names, row, strict=True)) for row in rows]
    assert all(row["allowed"] for row in told)
    (delete,) = [row for row in told if row["id"] == "op_3"]
    assert (delete["verdict"], delete["behind it"]) == ("held, ran", "Dave Dunn (gh:actor_id:1001)")


def test_hostile_texts_keep_to_their_cells() -> None:
    """Attack: quotes, commas and line feeds make another row of a review."""
    review = hostile()
    forged = replace(SELECT, text='x","approved by nobody"\r\n"2026","operation')
    review = replace(review, sessions=(*review.sessions, replace(SESSION, operations=(forged,))))
    out = io.StringIO()
    number = write_csv(steps_of(review), out)
    rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert len(rows) == number + 1
    assert {len(row) for row in rows} == {len(COLUMNS)}
