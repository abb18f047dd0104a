"""Queries on Athena: parameters as literals, pages, cost, and an end to what reads too much."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.domain.errors import StoreUnavailable
from countersign.failures import Failure
from countersign.named_queries import parse_query, read_query
from countersign.query_athena import PAGE, AthenaPlace, literal, run_athena
from countersign.query_results import Results
from tests.fakes.athena import FakeAthena, Rows
from tests.fakes.clock import FakeClock

QUERY = parse_query(
    "-- x: y\n-- param who text\n-- param n number\nSELECT a FROM t WHERE a = :who AND b < :n AND c = :who"
)
PLACE = AthenaPlace(workgroup="countersign", database="countersign", max_bytes=1_000_000)
COLUMNS = [("name", "varchar"), ("count", "bigint"), ("share", "double"), ("yes", "boolean"), ("dec", "decimal")]


class Waiting(FakeClock):
    """Time goes by when somebody sleeps."""

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)


def run(athena: FakeAthena, *, limit: int = 10, **place: Any) -> Results:
    where = AthenaPlace(**{"workgroup": "countersign", "database": "countersign", "max_bytes": 1_000_000, **place})
    return run_athena(QUERY, {"who": "it's", "n": 3}, athena, where, Waiting(), limit=limit)


def fixed(rows: Rows) -> FakeAthena:
    return FakeAthena(lambda text, parameters: rows)


def test_a_text_is_a_quoted_literal_and_never_part_of_the_query() -> None:
    """Attack: a value that ends its own quotes. Athena takes parameters as literals, in the order of the places."""
    athena = fixed((COLUMNS, []))
    run(athena)
    (one,) = athena.executions.values()
    assert one.parameters == ("'it''s'", "3", "'it''s'")
    assert one.text == "SELECT a FROM t WHERE a = ? AND b < ? AND c = ?"
    assert literal("' OR 1=1 --") == "''' OR 1=1 --'"


def test_values_have_their_types_and_a_null_is_none() -> None:
    """The same output as locally: numbers are numbers, and nothing is an empty text that was none."""
    found = run(fixed((COLUMNS, [["x", "7", "0.5", "true", "20.0"], [None, None, None, "false", None]])))
    assert found.columns == ("name", "count", "share", "yes", "dec")
    assert found.rows == (("x", 7, 0.5, True, 20.0), (None, None, None, False, None))


def test_every_page_is_read_and_the_header_is_no_row() -> None:
    """A header on the second page would be a row; a page that is left out would be rows that are missing."""
    rows = [[str(number), "1", "1", "true", "1"] for number in range(2 * PAGE + 5)]
    found = run(fixed((COLUMNS, rows)), limit=10_000)
    assert [row[0] for row in found.rows] == [row[0] for row in rows]
    assert not found.truncated
    assert run(fixed((COLUMNS, rows)), limit=PAGE).truncated


def test_the_cost_is_said_with_the_least_that_is_billed() -> None:
    """Ten megabytes are billed for a query that read none."""
    found = run(fixed((COLUMNS, [])))
    assert found.scanned_bytes == 4096
    assert "$0.000048" in found.notes[0]
    assert "4096 bytes" in found.notes[0]


def test_a_query_that_reads_too_much_is_stopped() -> None:
    """A year by mistake costs real money: it ends while it runs, and not once it is done."""
    athena = FakeAthena(lambda text, parameters: (COLUMNS, []), scanned=(0, 50, 5000, 5000, 5000, 9000))
    with pytest.raises(Failure, match="read more than 1000 bytes"):
        run(athena, max_bytes=1000)
    (one,) = athena.executions.values()
    assert one.stopped


def test_a_query_that_does_not_end_is_stopped() -> None:
    """Nobody waits for ever, and what nobody waits for costs nothing more."""
    athena = FakeAthena(lambda text, parameters: (COLUMNS, []), scanned=(0,) * 100_000)
    with pytest.raises(Failure, match="too long"):
        run(athena)
    assert next(iter(athena.executions.values())).stopped


def test_ctrl_c_stops_it_too() -> None:
    """The person who asked has left."""

    class Interrupted(Waiting):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    athena = fixed((COLUMNS, []))
    with pytest.raises(KeyboardInterrupt):
        run_athena(QUERY, {"who": "x", "n": 1}, athena, PLACE, Interrupted(), limit=1)
    assert next(iter(athena.executions.values())).stopped


def test_what_athena_refuses_is_said() -> None:
    """An empty answer instead would be taken for none."""

    def broken(text: str, parameters: tuple[str, ...]) -> Rows:
        raise ValueError("SYNTAX_ERROR: line 1")

    with pytest.raises(StoreUnavailable) as caught:
        run(FakeAthena(broken))
    assert "SYNTAX_ERROR" in str(caught.value.detail["why"])
    with pytest.raises(ClientError):
        run(fixed((COLUMNS, [])), workgroup="another")


def test_a_named_query_has_its_columns_from_athena_too() -> None:
    """One text, one set of columns, wherever it runs."""
    query = read_query("opaque_share")
    columns = [(name, "varchar") for name in query.columns]
    athena = FakeAthena(lambda text, parameters: (columns, []))
    found = run_athena(query, {"since": "2026-01-01", "until": "2026-01-02"}, athena, PLACE, Waiting(), limit=5)
    assert found.columns == query.columns
