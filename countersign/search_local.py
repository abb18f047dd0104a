"""Operations in the archive by words and fields, newest first, on DuckDB over files: what `search` finds.

Rules: an event counts once however many objects have it, and the copy that counts is the one that the named queries
take (``infra/athena/queries``); what makes a page is bounded in memory, and what does not fit goes to a folder of our
own; every value is bound. Objects are those of the days asked for and of two days after them, since an event may come
late (``docs/data_schema.md``, "Hourly digest"), and an event's own time decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from countersign.failures import Exit, Failure
from countersign.query_local import files_of, prepare, short
from countersign.search_terms import Terms

if TYPE_CHECKING:
    import duckdb

    from chalicelib.domain.signoff import Period

LATE: Final = timedelta(days=2)
_COLUMNS: Final = (
    "uid", "time_ms", "at", "originator", "actor", "target", "principal", "actions", "verdict", "ask_ids", "outcome",
    "code", "rules", "people", "session_id", "connection_id", "operation_id", "frame", "segment", "txn",
)  # fmt: skip
_WITHIN: Final = "name IN ('operation.ran', 'operation.refused') AND time_ms >= ? AND time_ms < ?"
_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: the next one has what is older, or as old with a lesser uid."""

    time_ms: int
    uid: str

    def __str__(self) -> str:
        return f"{self.time_ms}.{self.uid}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One operation. ``text`` is the piece in which a word was found, else the operation's; ``where`` says which of
    its texts that is; ``frame`` the number of that frame."""

    uid: str
    time_ms: int
    at: str
    originator: str
    actor: str
    target: str
    principal: str
    actions: tuple[str, ...]
    verdict: str
    held: bool
    outcome: str
    code: str
    rules: tuple[str, ...]
    people: tuple[str, ...]
    session_id: str
    connection_id: str
    operation_id: str
    frame: int
    segment: str
    txn: str
    text: str = ""
    where: str = "statement"

    @property
    def place(self) -> Place:
        return Place(self.time_ms, self.uid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A page. ``after`` is where the next one begins; None: there is no more."""

    hits: tuple[Hit, ...]
    after: Place | None
    objects: int
    read_bytes: int


def object_days(period: Period) -> list[str]:
    """Return the days whose objects may have an event of the period. Pure."""
    days = list(period.days())
    return [day.isoformat() for day in (*days, *(days[-1] + timedelta(days=1 + more) for more in range(LATE.days)))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """The events of a period in a folder. Make one with :func:`open_events`."""

    connection: duckdb.DuckDBPyConnection
    period: Period
    objects: int
    read_bytes: int

    def page(self, terms: Terms, limit: int, after: Place | None) -> Found:
        """Return the newest ``limit`` operations that ``terms`` hold, below ``after``. Raises Failure."""
        sql, values = self._once(terms, (*_COLUMNS, "text"), words=True)
        below = "time_ms < ? OR (time_ms = ? AND uid < ?)" if after else "true"
        values += [after.time_ms, after.time_ms, after.uid] if after else []
        rows = self._run(f"{sql} AND ({below}) ORDER BY time_ms DESC, uid DESC LIMIT {limit + 1}", values).fetchall()
        hits = tuple(_hit(row[:-1], text=str(row[-1] or "")) for row in rows)
        more = hits[limit - 1].place if len(hits) > limit else None
        return Found(hits=hits[:limit], after=more, objects=self.objects, read_bytes=self.read_bytes)

    def by_session(self, terms: Terms, after: Place | None) -> Iterator[tuple[str, Sequence[Hit]]]:
        """Give each session with its operations for which the *fields* of ``terms`` hold; words are for its recordings.
        Raises Failure."""
        sql, values = self._once(terms, _COLUMNS, words=False)
        below = "time_ms < ? OR (time_ms = ? AND uid < ?)" if after else "true"
        values += [after.time_ms, after.time_ms, after.uid] if after else []
        rows = self._run(f"{sql} AND ({below}) ORDER BY session_id, time_ms, uid", values)
        session, hits = "", list[Hit]()
        while chunk := rows.fetchmany(_CHUNK):
            for hit in map(_hit, chunk):
                if hit.session_id != session and hits:
                    yield session, hits
                    hits = []
                session = hit.session_id
                hits.append(hit)
        if hits:
            yield session, hits

    def _once(self, terms: Terms, columns: Sequence[str], *, words: bool) -> tuple[str, list[Any]]:
        """Return a statement that gives each fact once, and its values.

        What copies say may differ (their outcome), so the conditions are asked of the copy that counts; asked of all
        of them first, they keep small what is sorted.
        """
        condition, values = terms.condition(words=words)
        selected = ", ".join(f'"{column}"' for column in columns)
        span: list[Any] = [int(moment.timestamp() * 1000) for moment in (self.period.since, self.period.until)]
        sql = (
            f"WITH told AS (SELECT *, row_number() OVER (PARTITION BY uid ORDER BY "  # noqa: S608 - words of ours
            f"CASE WHEN outcome = 'unknown' THEN 1 ELSE 0 END, CASE WHEN segment IS NULL THEN 1 ELSE 0 END, number"
            f") AS copy FROM events WHERE uid IN (SELECT uid FROM events WHERE {_WITHIN} AND {condition})) "
            f"SELECT {selected} FROM told WHERE copy = 1 AND {_WITHIN} AND {condition}"
        )
        return sql, [*span, *values, *span, *values]

    def _run(self, sql: str, values: Sequence[Any]) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            return self.connection.execute(sql, list(values))
        except duckdb.OutOfMemoryException as error:
            raise Failure(Exit.DENIED, "there is more than fits", hint="Fewer days, or more words.") from error
        except duckdb.Error as error:
            raise Failure(Exit.INVALID, "an object is not what it should be", hint=short(error)) from error


@contextmanager
def open_events(folder: Path, period: Period, spill: Path) -> Iterator[Events]:
    """Open the events of ``period`` in ``folder``, which has the bucket's own layout. ``spill`` is a folder of the
    caller's own. Raises ModuleNotFoundError without the extra ``query``."""
    import duckdb

    days = object_days(period)
    files = files_of(folder, "events", {"since": days[0], "until": days[-1]})
    with duckdb.connect(":memory:") as connection:
        prepare(connection, {"events": files}, spill)
        read = sum(path.stat().st_size for path in files)
        yield Events(connection=connection, period=period, objects=len(files), read_bytes=read)


def _hit(row: Sequence[Any], *, text: str = "") -> Hit:
    told: Mapping[str, Any] = dict(zip(_COLUMNS, row, strict=True))

    def word(name: str) -> str:
        return str(told[name] or "")

    def words(name: str) -> tuple[str, ...]:
        return tuple(str(item) for item in told[name] or ())

    return Hit(
        uid=word("uid"),
        time_ms=int(told["time_ms"] or 0),
        at=word("at"),
        originator=word("originator"),
        actor=word("actor"),
        target=word("target"),
        principal=word("principal"),
        actions=words("actions"),
        verdict=word("verdict"),
        held=bool(told["ask_ids"]),
        outcome=word("outcome"),
        code=word("code"),
        rules=words("rules"),
        people=words("people"),
        session_id=word("session_id"),
        connection_id=word("connection_id"),
        operation_id=word("operation_id"),
        frame=int(told["frame"] or 0),
        segment=word("segment"),
        txn=word("txn"),
        text=text,
    )
