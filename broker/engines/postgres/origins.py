"""Catalogue: what the target says its names mean, as far as masks and statement classes need it.

A frozen snapshot, loaded on the target connection itself (so with its pinned ``search_path`` and rights) and shareable
between connections of one target and login for 30 s: relations, the columns of relations that mask rules name (and of
their partitions, children and parents: the same rows are read through each), definitions of views, the volatility of
functions, user operators that call volatile functions, and the effective search path.

Rules: a relation that the snapshot does not hold is not proved, so what comes from it is masked on a target with
column rules. A view beyond the bounds has no definition and is not proved either. Nothing of the snapshot may fail
silently: whatever is malformed, missing or too large refuses the connection.

What it does not do: it runs nothing (the engine does), and it does not know what a view's columns derive from
(``statement_reads`` does, from the definition).

Source: PostgreSQL 15 manual, 53 System Catalogs (pg_class, pg_attribute, pg_inherits, pg_proc, pg_operator), 9.26
(``current_schemas``, ``pg_get_viewdef``), 55.7 RowDescription (table OID and attribute number).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.masking import ColumnName, MaskRule

Row: TypeAlias = "Sequence[str | None]"

MAX_CATALOGUE_ROWS: Final = (
    50_000  # relations of a large schema with partitions; above it memory per broker is at stake
)

EMPTY: Final[frozenset[ColumnName]] = frozenset()
NOT_PROVED: Final = ColumnName(schema="?", table="?", column="?")  # "may hold any masked column"

# Planner statistics hold the most common values of every column, masked ones too, under the reader's own rights.
STATISTICS: Final = frozenset(
    {"pg_stats", "pg_stats_ext", "pg_stats_ext_exprs", "pg_statistic", "pg_statistic_ext_data"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Masked:
    """Every column of one target that any mask rule of the bundle names, active or not."""

    columns: frozenset[ColumnName]

    @staticmethod
    def of(rules: Iterable[MaskRule], target: str) -> Masked:
        """Return what ``rules`` name on ``target`` (a rule without targets is for every target). Pure."""
        chosen = (rule for rule in rules if not rule.targets or target in rule.targets)
        return Masked(columns=frozenset(column for rule in chosen for column in rule.columns))


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """A table, view, sequence, ... ``kind`` is pg_class.relkind; the session's own temporary schema is ``pg_temp``."""

    oid: int
    schema: str
    name: str
    kind: str

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


class Volatility(StrEnum):
    """What a call may do: as pg_proc.provolatile says, the worst of all functions that the name may mean."""

    VOLATILE = "volatile"
    CALM = "calm"  # immutable or stable
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The snapshot. Immutable but for ``memo``, where readers keep what they derived from it; thread-safe by the GIL:
    entries are pure functions of their key, so two writers write the same.

    ``version`` is a digest of the content: equal snapshots share what was cached under it.
    """

    version: str
    masked: Masked
    path: tuple[str, ...]
    relations: Mapping[int, Relation]
    by_name: Mapping[tuple[str, str], Relation]
    attributes: Mapping[int, Mapping[int, str]]  # of relations that rules touch: attnum -> name, dropped ones left out
    masked_names: Mapping[int, Mapping[str, frozenset[ColumnName]]]  # oid -> column name -> what rules call it
    definitions: Mapping[int, str]
    functions: Mapping[tuple[str, str], Volatility]
    compiled: frozenset[tuple[str, str]]  # functions of which every overload is in C
    volatile_operators: frozenset[str]
    memo: dict[tuple[str, int], object] = field(default_factory=dict, compare=False, repr=False)

    def covers(self, masked: Masked) -> bool:
        """Whether this snapshot was loaded for exactly these columns; if not, load it again before the next use."""
        return masked == self.masked

    def resolve(self, schema: str, name: str) -> Relation | None:
        """Return the relation that a statement means by ``schema.name``, or by ``name`` along the search path."""
        if schema:
            return self.by_name.get((schema, name))
        for place in self.path:
            found = self.by_name.get((place, name))
            if found is not None:
                return found
        return None

    def full_name(self, schema: str, name: str) -> str:
        """Return ``schema.name``. A name found nowhere gets the first schema of the path that can hold it, where
        PostgreSQL would create it, or ``public``: a rule that names ``public.x`` must not be passed by because the
        snapshot is seconds old."""
        if schema:
            return f"{schema}.{name}"
        found = self.resolve("", name)
        if found is not None:
            return found.full_name
        return f"{next((s for s in self.path if s not in ('pg_catalog', 'pg_temp')), 'public')}.{name}"

    def masked_column(self, table_oid: int, attnum: int) -> frozenset[ColumnName]:
        """Return what the rules call this column of a relation that they name (empty: not masked by itself).

        System columns (negative) are never masked; attribute 0 is a whole row, so all of them.
        """
        names = self.masked_names.get(table_oid)
        if names is None or attnum < 0:
            return EMPTY
        if attnum == 0:
            return frozenset().union(*names.values())
        name = self.attributes[table_oid].get(attnum)
        return frozenset({NOT_PROVED}) if name is None else names.get(name, EMPTY)

    def volatility(self, schema: str, name: str) -> Volatility:
        """Return the worst that a call of ``schema.name``, or of ``name`` along the path, may be.

        Overloads are chosen by argument types along the whole path, not by the first schema that has the name: a
        ``public.lower(x)`` may be what ``lower(...)`` calls. So every schema of the path counts.
        """
        places = (schema,) if schema else self.path
        found = {self.functions[place, name] for place in places if (place, name) in self.functions}
        if not found:
            return Volatility.UNKNOWN
        return Volatility.VOLATILE if Volatility.VOLATILE in found else Volatility.CALM

    def reads_nothing(self, schema: str, name: str) -> bool:
        """Whether a call can read no table: it can only mean functions that are compiled (PostgreSQL's own, or of an
        extension that a superuser installed). The compiled ones that do read tables are listed as opaque."""
        places = (schema,) if schema else self.path
        found = [(place, name) for place in places if (place, name) in self.functions]
        return bool(found) and all(place[0] in _SYSTEM or place in self.compiled for place in found)

    def is_builtin(self, schema: str, name: str) -> bool:
        """Whether a call can only mean a function of PostgreSQL itself."""
        if schema:
            return schema in _SYSTEM and (schema, name) in self.functions
        places = [place for place in self.path if (place, name) in self.functions]
        return bool(places) and all(place in _SYSTEM for place in places)


_SYSTEM: Final = frozenset({"pg_catalog", "information_schema"})

# The limits in these texts are MAX_CATALOGUE_ROWS + 1, and for views 2,000 of at most 64 KiB: pg_get_viewdef takes
# about 0.1 ms each, 0.2 s of the dial; a longer definition is cut, then does not parse, then is not proved.
_RELATIONS: Final = """
SELECT c.oid, CASE WHEN n.oid = pg_catalog.pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END, c.relname, c.relkind
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'pg_toast'
  AND (n.nspname NOT LIKE 'pg\\_temp\\_%' OR n.oid = pg_catalog.pg_my_temp_schema())
LIMIT 50001"""

# Descendants and ancestors of a named relation hold, or show, the same rows.
_ATTRIBUTES: Final = """
WITH RECURSIVE named AS (
  SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE (n.nspname, c.relname) IN (VALUES %s)
), down AS (
  SELECT oid, oid AS root FROM named
  UNION SELECT i.inhrelid, d.root FROM pg_catalog.pg_inherits i JOIN down d ON i.inhparent = d.oid
), up AS (
  SELECT oid, oid AS root FROM named
  UNION SELECT i.inhparent, u.root FROM pg_catalog.pg_inherits i JOIN up u ON i.inhrelid = u.oid
)
SELECT a.attrelid, named.nspname, named.relname, a.attnum, a.attname
FROM (SELECT * FROM down UNION SELECT * FROM up) kin JOIN named ON named.oid = kin.root
JOIN pg_catalog.pg_attribute a ON a.attrelid = kin.oid AND a.attnum > 0 AND NOT a.attisdropped
LIMIT 50001"""

_VIEWS: Final = """
SELECT c.oid, pg_catalog.left(pg_catalog.pg_get_viewdef(c.oid), 65536)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY c.oid LIMIT 2000"""

_FUNCTIONS: Final = """
SELECT n.nspname, p.proname, pg_catalog.bool_or(p.provolatile = 'v')::pg_catalog.text,
  pg_catalog.bool_and(l.lanname IN ('internal', 'c'))::pg_catalog.text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
GROUP BY 1, 2 LIMIT 50001"""

# Object ids below 16384 are PostgreSQL's own (access/transam.h, FirstNormalObjectId).
_OPERATORS: Final = """
SELECT DISTINCT o.oprname FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE p.provolatile = 'v' AND o.oid >= 16384 LIMIT 50001"""

_PATH: Final = """
SELECT CASE WHEN n.oid = pg_catalog.pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END
FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS place(name, at)
JOIN pg_catalog.pg_namespace n ON n.nspname = place.name ORDER BY place.at"""


def catalogue_queries(masked: Masked) -> tuple[str, ...]:
    """Return the statements whose answers :func:`read_catalogue` takes, in order; each returns text rows. Pure.

    They read the system catalogues only, with every name qualified, so nothing of a user runs.
    """
    tables = sorted({(column.schema, column.table) for column in masked.columns})
    named = ", ".join(f"({_quoted(schema)}, {_quoted(table)})" for schema, table in tables) or "(NULL, NULL)"
    return (_RELATIONS, _ATTRIBUTES % named, _VIEWS, _FUNCTIONS, _OPERATORS, _PATH)


def read_catalogue(results: Sequence[Sequence[Row]], masked: Masked) -> Catalogue:
    """Return the snapshot that the answers to :func:`catalogue_queries` make.

    Raises TargetUnavailable when an answer is missing, malformed or past its bound, or when ``pg_temp`` is not last on
    the search path (then a temporary table could stand for a real one).
    """
    try:
        relations, attributes, views, functions, operators, path = results
        return _snapshot(relations, attributes, views, functions, operators, path, masked)
    except (ValueError, TypeError, IndexError) as error:
        raise TargetUnavailable("the target's catalogue could not be read", why=repr(error)) from error


def _snapshot(
    relations: Sequence[Row],
    attributes: Sequence[Row],
    views: Sequence[Row],
    functions: Sequence[Row],
    operators: Sequence[Row],
    path: Sequence[Row],
    masked: Masked,
) -> Catalogue:
    for rows in (relations, attributes, functions, operators):
        if len(rows) > MAX_CATALOGUE_ROWS:
            raise TargetUnavailable("the target's catalogue is larger than this broker reads")
    places = tuple(_text(row[0]) for row in path)
    if "pg_temp" in places[:-1]:
        raise TargetUnavailable("the target's search_path is not pinned")
    known = {
        relation.oid: relation
        for relation in (
            Relation(oid=int(_text(row[0])), schema=_text(row[1]), name=_text(row[2]), kind=_text(row[3]))
            for row in relations
        )
    }
    columns: dict[int, dict[int, str]] = {}
    names: dict[int, dict[str, frozenset[ColumnName]]] = {}
    for row in attributes:
        oid, schema, table, attnum, name = int(_text(row[0])), _text(row[1]), _text(row[2]), int(_text(row[3])), row[4]
        columns.setdefault(oid, {})[attnum] = _text(name)
        called = ColumnName(schema=schema, table=table, column=_text(name))
        of_relation = names.setdefault(oid, {})
        if called in masked.columns:
            of_relation[called.column] = of_relation.get(called.column, EMPTY) | {called}
    return Catalogue(
        version=_digest(relations, attributes, views, functions, operators, path, masked),
        masked=masked,
        path=places,
        relations=known,
        by_name={(relation.schema, relation.name): relation for relation in known.values()},
        attributes=columns,
        masked_names=names,
        definitions={int(_text(row[0])): row[1] for row in views if row[1] is not None},
        functions={(_text(row[0]), _text(row[1])): _volatility(_text(row[2])) for row in functions},
        compiled=frozenset((_text(row[0]), _text(row[1])) for row in functions if _text(row[3]) == "true"),
        volatile_operators=frozenset(_text(row[0]) for row in operators),
    )


def _volatility(volatile: str) -> Volatility:
    return Volatility.VOLATILE if volatile != "false" else Volatility.CALM


def _digest(*parts: object) -> str:
    *results, masked = parts
    hasher = hashlib.sha256(repr(sorted(masked.columns, key=repr) if isinstance(masked, Masked) else masked).encode())
    for rows in results:
        hasher.update(repr(rows).encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def _text(value: str | None) -> str:
    if value is None:
        raise ValueError("a NULL where the catalogue has none")
    return value


def _quoted(text: str) -> str:
    """Return ``text`` as a literal. Names come from our own bundle; the doubling is for names with a quote in them."""
    return "'" + text.replace("'", "''") + "'"
