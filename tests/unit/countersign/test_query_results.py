"""How rows are shown: hostile cells on a terminal and in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.query_results import Cell, Results, csv_cell, csv_text, table

_ODD = st.text(alphabet=st.sampled_from("=+-@\t\r\n ,\"';|\x1b\x07\u202eａ＝a1"), max_size=12)


def results(*cells: Cell) -> Results:
    return Results(columns=tuple(f"c{n}" for n in range(len(cells))), rows=(cells,), truncated=False, ran_on="duckdb")


@given(_ODD)
def test_no_cell_of_text_is_a_formula(text: str) -> None:
    """Attack: a statement such as =HYPERLINK(...) runs in the spreadsheet of whoever audits it."""
    (_, row) = list(csv.reader(io.StringIO(csv_text(results(text, "x")), newline="")))
    assert len(row) == 2
    assert not row[0].lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n"))
    assert not any(ord(char) < 32 or char == "\u202e" for char in row[0])


@given(_ODD, _ODD)
def test_a_row_is_one_line_on_a_terminal(one: str, other: str) -> None:
    """Attack: a statement with a line feed or an escape forges a row."""
    lines = list(table(results(one, other)))
    assert len(lines) == 3
    assert all(char.isprintable() for line in lines for char in line)


@pytest.mark.parametrize(("cell", "shown"), [(None, ""), (-5, "-5"), (True, "true"), (1.5, "1.5"), ("plain", "plain")])
def test_numbers_stay_numbers(cell: Cell, shown: str) -> None:
    """A negative number is no formula, and a spreadsheet must still add it up."""
    assert csv_cell(cell) == shown
