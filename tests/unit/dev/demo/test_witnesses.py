"""The demo's witnesses: what is read out of PostgreSQL's log, psql's tables and the recording's frames."""

from __future__ import annotations

import json
from pathlib import Path

from dev.demo.witnesses import leaks, logged_statements, recorded_rows, table_cells

LOG = """\
2026-11-23 12:00:00.100 UTC [7] 127.0.0.1 app=[unknown] LOG:  connection authorized: user=orders_app database=orders
2026-11-23 12:00:00.200 UTC [7] 127.0.0.1 app=01abc:psql LOG:  statement: SELECT 1
2026-11-23 12:00:00.250 UTC [8] 127.0.0.1 app=[unknown] LOG:  connection authorized: user=postgres database=orders
2026-11-23 12:00:00.300 UTC [8] 127.0.0.1 app=psql LOG:  statement: DROP TABLE orders
2026-11-23 12:00:00.400 UTC [7] 127.0.0.1 app=01abc:psql LOG:  execute <unnamed>: DELETE FROM orders
\twhere id = 1
2026-11-23 12:00:00.500 UTC [7] 127.0.0.1 app=01abc:psql ERROR:  relation "x" does not exist
2026-11-23 12:00:00.600 UTC [9] 127.0.0.1 app=01abc:psql LOG:  statement: SELECT 'of a process that nobody let in'
"""


def test_statements_are_read_with_who_when_and_under_which_name(tmp_path: Path) -> None:
    """Simple and extended protocol log differently; another role's statement is not the pipeline's."""
    log = tmp_path / "log"
    log.write_text(LOG)
    found = logged_statements(log, "orders_app")
    assert [(one.application, one.sql) for one in found] == [
        ("01abc:psql", "SELECT 1"),
        ("01abc:psql", "DELETE FROM orders"),
    ]
    assert found[0].at.microsecond == 200_000


def test_cells_of_psqls_table_are_read_between_rule_and_count() -> None:
    """A header or a footer taken for a row would make the comparison with the recording meaningless."""
    lines = [
        " id | name | email ",
        "----+------+-------",
        "  1 | Ada  | #MASKED:email#",
        "  2 | Bo   | ",
        "(2 rows)",
        "",
    ]
    assert table_cells(lines) == [["1", "Ada", "#MASKED:email#"], ["2", "Bo", ""]]
    assert table_cells(["ERROR:  x"]) == []


def test_recorded_rows_are_compared_as_psql_prints_them() -> None:
    """psql prints a null as nothing."""
    frames = [
        {"kind": "operation", "text": "SELECT 1"},
        {"kind": "rows", "text": f"{json.dumps(['1', None])}\n{json.dumps(['2', 'x'])}\n"},
        {"kind": "rows", "text": json.dumps(["3", "y"])},
    ]
    assert recorded_rows(frames) == [["1", ""], ["2", "x"], ["3", "y"]]


def test_a_leak_is_found_wherever_it_stands() -> None:
    """The demo says that 2,000 values are nowhere: the search itself must be able to find one."""
    planted = ["a.1@mail.example", "4000000000000002"]
    texts = [("table x", '{"doc": "card 4000000000000002."}'), ("s3://b/k", "a.1@mail_example")]
    assert leaks(texts, planted) == [("table x", "4000000000000002")]
