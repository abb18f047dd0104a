"""Named queries on Athena: started in a workgroup, watched, read page by page, and stopped where they read too much.

Rules: a query's own id and nothing that anybody could guess or hand over is read from; values go as execution
parameters, texts as quoted literals, which is how Athena takes them; what was scanned is asked for while it runs, and
past the limit the query is stopped, whatever the workgroup's own limit is. The first row of the first page is the
header. Cost is the list price, since nobody's contract is known here.
Source: Amazon Athena API reference, StartQueryExecution, GetQueryExecution, GetQueryResults, StopQueryExecution; "Use
parameterized queries" (parameters in WHERE alone; strings in single quotes); Athena pricing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from chalicelib.domain.errors import StoreUnavailable
from countersign.failures import Exit, Failure
from countersign.named_queries import NamedQuery, Value
from countersign.query_results import Cell, Results

POLL_S: Final = 0.5
MAX_WAIT_S: Final = 900.0  # half of Athena's own limit for a query: who waits longer asks for fewer days
PAGE: Final = 1000  # rows: the most that GetQueryResults gives
MIN_BILLED: Final = 10 * 1024 * 1024  # a query is billed as if it had read 10 MB
DOLLARS_PER_TERABYTE: Final = 5.0
_TERABYTE: Final = 1024**4
_WAITING: Final = ("QUEUED", "RUNNING")
_NUMBERS: Final = ("tinyint", "smallint", "integer", "bigint")
_FRACTIONS: Final = ("double", "real", "float", "decimal")


class Athena(Protocol):
    """What is used of boto3's ``athena`` client."""

    def start_query_execution(
        self,
        *,
        QueryString: str,  # noqa: N803 - boto3's names
        ExecutionParameters: Sequence[str],  # noqa: N803
        QueryExecutionContext: Mapping[str, str],  # noqa: N803
        WorkGroup: str,  # noqa: N803
    ) -> Any: ...

    def get_query_execution(self, *, QueryExecutionId: str) -> Any: ...  # noqa: N803

    def get_query_results(self, *, QueryExecutionId: str, MaxResults: int, NextToken: str = ...) -> Any: ...  # noqa: N803

    def stop_query_execution(self, *, QueryExecutionId: str) -> Any: ...  # noqa: N803


class Waiting(Protocol):
    def monotonic_s(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AthenaPlace:
    """Where queries run, and the most that one may read."""

    workgroup: str
    database: str
    max_bytes: int


def run_athena(
    query: NamedQuery,
    values: Mapping[str, Value],
    athena: Athena,
    place: AthenaPlace,
    clock: Waiting,
    *,
    limit: int,
) -> Results:
    """Return what ``query`` says. Raises Failure where it reads too much or takes too long (it is stopped),
    StoreUnavailable where Athena refuses or fails it; and botocore's errors."""
    started = athena.start_query_execution(
        QueryString=query.text,
        QueryExecutionContext={"Database": place.database},
        WorkGroup=place.workgroup,
        **({"ExecutionParameters": [literal(value) for value in query.placed(values)]} if query.order else {}),
    )
    execution = str(started["QueryExecutionId"])
    try:
        scanned = _finished(athena, execution, place, clock)
    except BaseException:  # Ctrl-C above all: what nobody waits for any more must not go on costing
        athena.stop_query_execution(QueryExecutionId=execution)
        raise
    columns, rows, more = _pages(athena, execution, limit)
    billed = max(scanned, MIN_BILLED)
    cost = billed / _TERABYTE * DOLLARS_PER_TERABYTE
    note = f"{scanned} bytes scanned, ${cost:.6f} at ${DOLLARS_PER_TERABYTE:.2f} a terabyte; execution {execution}"
    return Results(columns=columns, rows=rows, truncated=more, ran_on="athena", scanned_bytes=scanned, notes=(note,))


def literal(value: Value) -> str:
    """Return ``value`` as an execution parameter: a number as it is, a text in single quotes, its own doubled."""
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _finished(athena: Athena, execution: str, place: AthenaPlace, clock: Waiting) -> int:
    """Return how many bytes it scanned, once it succeeded."""
    until = clock.monotonic_s() + MAX_WAIT_S
    while True:
        told = athena.get_query_execution(QueryExecutionId=execution)["QueryExecution"]
        state = str(told["Status"]["State"])
        scanned = int(told.get("Statistics", {}).get("DataScannedInBytes", 0))
        if state == "SUCCEEDED":
            return scanned
        if state not in _WAITING:
            why = str(told["Status"].get("StateChangeReason", state))[:300]
            raise StoreUnavailable("Athena did not finish the query", state=state, why=why)
        if scanned > place.max_bytes:
            hint = "Ask for fewer days, or give --max-bytes."
            raise Failure(Exit.DENIED, f"the query read more than {place.max_bytes} bytes and was stopped", hint=hint)
        if clock.monotonic_s() > until:
            raise Failure(Exit.UNREACHABLE, "the query took too long and was stopped", hint="Ask for fewer days.")
        clock.sleep(POLL_S)


def _pages(athena: Athena, execution: str, limit: int) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...], bool]:
    """Return columns, at most ``limit`` rows, and whether there were more."""
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    rows: list[tuple[Cell, ...]] = []
    more: dict[str, str] = {}
    while True:
        page = athena.get_query_results(QueryExecutionId=execution, MaxResults=PAGE, **more)
        found = page["ResultSet"]
        given = found["Rows"]
        if not columns:
            infos = found["ResultSetMetadata"]["ColumnInfo"]
            columns = tuple(str(info["Name"]) for info in infos)
            kinds = tuple(str(info["Type"]) for info in infos)
            given = given[1:]  # the header
        rows += [
            tuple(_cell(cell.get("VarCharValue"), kind) for cell, kind in zip(row["Data"], kinds, strict=True))
            for row in given
        ]
        token = page.get("NextToken")
        if len(rows) > limit or not token:
            return columns, tuple(rows[:limit]), len(rows) > limit
        more = {"NextToken": str(token)}


def _cell(text: str | None, kind: str) -> Cell:
    if text is None:
        return None
    if kind in _NUMBERS:
        return int(text)
    if kind in _FRACTIONS:
        return float(text)
    return text == "true" if kind == "boolean" else text
