"""Named queries on DuckDB, over a folder that has the bucket's own layout: the same text that runs on Athena.

The tables are views over the objects of the days that are asked for; what Athena calls otherwise is a macro, listed
here. Rules: only regular files whose names are keys of ours are read, no link is followed; a line that is no JSON stops
the query, as in Athena; the database may read these files and nothing else, install nothing, and its settings are
locked before a query runs.
What it does not show: that Trino plans and answers the same (``docs/queries.md``).
Source: DuckDB documentation, "Securing DuckDB", "JSON Loading".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chalicelib.domain.event_columns import EVENT_COLUMNS, Kind
from countersign.failures import Exit, Failure
from countersign.named_queries import NamedQuery, Value
from countersign.query_results import Cell, Results

if TYPE_CHECKING:
    import duckdb

MEMORY: Final = "1GB"
SPILL: Final = "4GB"
MAX_LINE: Final = 32 * 1024 * 1024  # Athena's own bound of a row
_TYPES: Final = {Kind.TEXT: "VARCHAR", Kind.NUMBER: "BIGINT", Kind.TEXTS: "VARCHAR[]", Kind.TRUTH: "BOOLEAN"}
_ITEM: Final = dict.fromkeys(
    ("change", "at", "seq", "key", "item", "sha256", "attributes", "before_sha256", "fault"), "VARCHAR"
) | {"v": "BIGINT"}
_FRAME: Final = {
    **dict.fromkeys(("sid", "con", "t", "proto", "dir", "kind", "text", "meta", "txn", "actor", "sub"), "VARCHAR"),
    **dict.fromkeys(("v", "seq", "number"), "BIGINT"),
    "prev_sha256": "VARCHAR",
}
TABLE_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "events": {column.name: _TYPES[column.kind] for column in EVENT_COLUMNS},
    "sessions": _ITEM,
    "chains": _ITEM,
    "approvals": _ITEM,
    "recordings": _FRAME,
}
# What Trino has under another name than DuckDB, or DuckDB with another result.
_MACROS: Final = (
    "json_extract_scalar(j, p) AS json_extract_string(j, p)",
    "json_format(j) AS CAST(j AS VARCHAR)",
    "from_iso8601_timestamp(t) AS CAST(t AS TIMESTAMPTZ)",
    "cardinality(a) AS coalesce(len(a), 0)",
    "array_join(a, s) AS array_to_string(a, s)",
    "arrays_overlap(a, b) AS list_has_any(a, b)",
    "approx_percentile(x, p) AS CAST(quantile_disc(x, p) AS BIGINT)",
)
_DAY: Final = r"(?P<day>\d{4}-\d{2}-\d{2})"
_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
_KEYS: Final[Mapping[str, re.Pattern[str]]] = {
    "events": re.compile(rf"events/v1/date={_DAY}/hour=(?P<hour>\d\d)/[a-z0-9_]{{1,48}}-{_ULID}\.ndjson\.gz\Z"),
    "sessions": re.compile(rf"items/v1/sessions/{_DAY}/(?P<hour>\d\d)/{_ULID}\.ndjson\.gz\Z"),
    "chains": re.compile(rf"items/v1/chains/{_DAY}/(?P<hour>\d\d)/{_ULID}\.ndjson\.gz\Z"),
    "approvals": re.compile(rf"items/v1/(?P<kind>asks|answers|uses)/{_DAY}/(?P<hour>\d\d)/{_ULID}\.ndjson\.gz\Z"),
    "recordings": re.compile(rf"rec/v1/(?P<session_id>ses_{_ULID})/con_{_ULID}/\d{{6,}}\.ndjson\.gz\Z"),
}
_NAMED: Final = re.compile(r"\b(?:FROM|JOIN)\s+([a-z_]+)\b")


def tables_of(query: NamedQuery) -> Sequence[str]:
    """Return which of our tables a query reads. Pure."""
    return sorted(set(_NAMED.findall(query.text)) & set(TABLE_COLUMNS))


def prefixes(query: NamedQuery, values: Mapping[str, Value], days: Sequence[str]) -> Sequence[str]:
    """Return the key prefixes of all that ``query`` reads with these ``values``. Pure."""
    found: list[str] = []
    for name in tables_of(query):
        match name:
            case "events":
                found += [f"events/v1/date={day}/" for day in days]
            case "recordings":
                found.append(f"rec/v1/{values['session']}/")
            case "approvals":
                found += [f"items/v1/{kind}/{day}/" for kind in ("asks", "answers", "uses") for day in days]
            case _:
                found += [f"items/v1/{name}/{day}/" for day in days]
    return found


def run_local(query: NamedQuery, values: Mapping[str, Value], folder: Path, *, limit: int) -> Results:
    """Return what ``query`` says of the objects in ``folder``. Raises Failure naming what is no object of ours, and
    ModuleNotFoundError without the extra ``query``."""
    import duckdb

    files = {name: files_of(folder, name, values) for name in tables_of(query)}
    with duckdb.connect(":memory:") as connection:
        try:
            prepare(connection, files)
            ran = connection.execute(query.text, list(query.placed(values)))
            columns = tuple(str(column[0]) for column in ran.description or ())
            rows = ran.fetchmany(limit + 1)
        except duckdb.Error as error:
            raise Failure(Exit.INVALID, "an object is not what it should be", hint=short(error)) from error
    told = tuple(tuple(_cell(value) for value in row) for row in rows[:limit])
    read = sum(path.stat().st_size for paths in files.values() for path in paths)
    count = sum(len(paths) for paths in files.values())
    notes = (f"{count} objects were read",)
    return Results(
        columns=columns, rows=told, truncated=len(rows) > limit, ran_on="duckdb", scanned_bytes=read, notes=notes
    )


def files_of(folder: Path, table: str, values: Mapping[str, Value]) -> list[Path]:
    """Return the objects of a table for these values: days, a session."""
    since, until = str(values.get("since", "")), str(values.get("until", "9999-12-31"))
    found: list[Path] = []
    root = folder / _KEYS[table].pattern.split("/", 1)[0]
    for path in sorted(root.rglob("*.ndjson.gz")) if root.is_dir() and not root.is_symlink() else ():
        key = _KEYS[table].match(path.relative_to(folder).as_posix())
        if (
            key is None
            or path.is_symlink()
            or not path.is_file()
            or not path.resolve().is_relative_to(folder.resolve())
        ):
            continue
        parts = key.groupdict()
        if ("day" not in parts or since <= parts["day"] <= until) and (
            "session_id" not in parts or parts["session_id"] == values.get("session")
        ):
            found.append(path)
    return found


def prepare(
    connection: duckdb.DuckDBPyConnection, files: Mapping[str, Sequence[Path]], spill: Path | None = None
) -> None:
    """Make our tables of ``files`` and lock the database in: it reads these and nothing else.

    ``spill``: a folder of the caller's own for what does not fit into memory; without one, that ends the query.
    """
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    if spill is not None:
        connection.execute(f"SET temp_directory = {_quoted(str(spill))}")
        connection.execute(f"SET max_temp_directory_size = '{SPILL}'")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET autoinstall_known_extensions = false")
    for macro in _MACROS:
        connection.execute(f"CREATE MACRO {macro}")
    allowed = ", ".join(_quoted(str(path)) for paths in files.values() for path in paths)
    connection.execute(f"SET allowed_paths = [{allowed}]")
    for name, paths in files.items():
        connection.execute(_view(name, paths))
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _view(name: str, paths: Sequence[Path]) -> str:
    """Return the statement that makes one of our tables. Every word in it is ours but the paths, which are quoted."""
    columns = TABLE_COLUMNS[name]
    parts = [part for part in _KEYS[name].groupindex if part not in columns or part == "kind"]
    listed = [f'"{column}"' for column in columns if column not in parts]
    if not paths:
        empty = [f'NULL::{kind} AS "{column}"' for column, kind in columns.items() if column not in parts]
        empty += [f"NULL::VARCHAR AS {part}" for part in parts]
        return f"CREATE VIEW {name} AS SELECT {', '.join(empty)} WHERE false"
    types = ", ".join(f"'{column}': '{kind}'" for column, kind in columns.items())
    files = ", ".join(_quoted(str(path)) for path in paths)
    taken = [f"regexp_extract(filename, {_quoted(_part(part))}, 1) AS {part}" for part in parts]
    return (
        f"CREATE VIEW {name} AS SELECT {', '.join(listed + taken)} FROM read_json([{files}], "  # noqa: S608
        f"columns = {{{types}}}, format = 'newline_delimited', compression = 'gzip', filename = true, "
        f"maximum_object_size = {MAX_LINE})"
    )


def _part(part: str) -> str:
    """Return a pattern whose one group is a part of the key, as a partition has it."""
    return {
        "day": r"(\d{4}-\d{2}-\d{2})/(?:hour=)?\d\d/[^/]+$",
        "hour": r"/(?:hour=)?(\d\d)/[^/]+$",
        "kind": r"/items/v1/([a-z]+)/",
        "session_id": r"/rec/v1/([^/]+)/",
    }[part]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _cell(value: Any) -> Cell:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return float(value)
        case _:
            return str(value)


def short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
