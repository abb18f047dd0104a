"""Athena in memory: the contract of the four calls that are used, with DuckDB behind them.

Kept: a query runs only in a workgroup that is there; parameters are literals in the order of ``?``, and a text without
its quotes is a column nobody knows; states go QUEUED, RUNNING, then SUCCEEDED or FAILED, and CANCELLED once stopped;
results come in pages of at most ``MaxResults``, the header as the first row of the first; every value is text, a null
has no ``VarCharValue``; a token belongs to its own execution. Source: Amazon Athena API reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

_LITERAL: Final = re.compile(r"'(?:[^']|'')*'\Z|-?[0-9]+\Z")
Rows = tuple[Sequence[tuple[str, str]], Sequence[Sequence[str | None]]]  # (name, type) of each column; the rows


@dataclass
class _Execution:
    text: str
    parameters: tuple[str, ...]
    polls: int = 0
    stopped: bool = False


@dataclass
class FakeAthena:
    """``answer`` says what a query gives, or raises ValueError with Athena's words; ``scanned`` what it reads at each
    poll while it runs."""

    answer: Callable[[str, tuple[str, ...]], Rows]
    workgroup: str = "countersign"
    database: str = "countersign"
    scanned: tuple[int, ...] = (0, 4096)
    executions: dict[str, _Execution] = field(default_factory=dict)

    def start_query_execution(
        self,
        *,
        QueryString: str,  # noqa: N803 - boto3's names
        QueryExecutionContext: Mapping[str, str],  # noqa: N803
        WorkGroup: str,  # noqa: N803
        ExecutionParameters: Sequence[str] = (),  # noqa: N803
    ) -> Any:
        if WorkGroup != self.workgroup or QueryExecutionContext["Database"] != self.database:
            raise _error("InvalidRequestException", "WorkGroup is not found.", "StartQueryExecution")
        if not ExecutionParameters and "?" in QueryString:
            raise _error("InvalidRequestException", "Incorrect number of parameters", "StartQueryExecution")
        execution = f"00000000-0000-0000-0000-{len(self.executions):012d}"
        self.executions[execution] = _Execution(QueryString, tuple(ExecutionParameters))
        return {"QueryExecutionId": execution}

    def get_query_execution(self, *, QueryExecutionId: str) -> Any:  # noqa: N803
        one = self._one(QueryExecutionId, "GetQueryExecution")
        one.polls += 1
        status: dict[str, str] = {"State": self._state(one)}
        if status["State"] == "FAILED":
            status["StateChangeReason"] = self._failure(one)
        scanned = self.scanned[min(one.polls, len(self.scanned)) - 1]
        return {"QueryExecution": {"Status": status, "Statistics": {"DataScannedInBytes": scanned}}}

    def get_query_results(self, *, QueryExecutionId: str, MaxResults: int, NextToken: str = "") -> Any:  # noqa: N803
        one = self._one(QueryExecutionId, "GetQueryResults")
        if self._state(one) != "SUCCEEDED" or not 1 <= MaxResults <= 1000:
            raise _error("InvalidRequestException", "Query has not yet finished.", "GetQueryResults")
        if NextToken and not NextToken.startswith(f"{QueryExecutionId}:"):
            raise _error("InvalidRequestException", "Invalid token", "GetQueryResults")
        columns, rows = self.answer(one.text, one.parameters)
        every = [[name for name, _ in columns], *rows]
        first = int(NextToken.rpartition(":")[2]) if NextToken else 0
        page = every[first : first + MaxResults]
        more = {"NextToken": f"{QueryExecutionId}:{first + MaxResults}"} if first + MaxResults < len(every) else {}
        return {
            "ResultSet": {
                "Rows": [{"Data": [{} if cell is None else {"VarCharValue": cell} for cell in row]} for row in page],
                "ResultSetMetadata": {"ColumnInfo": [{"Name": name, "Type": kind} for name, kind in columns]},
            },
            **more,
        }

    def stop_query_execution(self, *, QueryExecutionId: str) -> Any:  # noqa: N803
        self._one(QueryExecutionId, "StopQueryExecution").stopped = True
        return {}

    def _one(self, execution: str, call: str) -> _Execution:
        found = self.executions.get(execution)
        if found is None:
            raise _error("InvalidRequestException", f"QueryExecution {execution} was not found", call)
        return found

    def _state(self, one: _Execution) -> str:
        if one.stopped:
            return "CANCELLED"
        if one.polls <= len(self.scanned) - 1:
            return "QUEUED" if one.polls <= 1 else "RUNNING"
        return "FAILED" if self._failure(one) else "SUCCEEDED"

    def _failure(self, one: _Execution) -> str:
        if any(not _LITERAL.match(parameter) for parameter in one.parameters):
            return "COLUMN_NOT_FOUND: Column cannot be resolved"
        if one.text.count("?") != len(one.parameters):
            return "Incorrect number of parameters"
        try:
            self.answer(one.text, one.parameters)
        except ValueError as error:
            return str(error)
        return ""


def _error(code: str, message: str, call: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, call)
