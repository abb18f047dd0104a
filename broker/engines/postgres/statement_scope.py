"""Shapes and scopes: what a name in a statement may read, followed no further than can be proved.

A *taint* is the set of masked columns that a value may hold or depend on; ``NOT_PROVED`` in it means "any of them". A
*source* is what a FROM item gives: named columns with their taints, and ``rest`` for names that are not known.

Rules: where a name may mean two things, the taints of both count; a source that does not know all its columns answers
every other name with ``rest``. So a mistake here masks too much, never too little.

Source: PostgreSQL 15 manual, 4.2 Value Expressions (column references, whole-row), 7.2 Table Expressions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from broker.engines.postgres.origins import EMPTY
from broker.engines.postgres.statement_tree import Fields, strings
from chalicelib.domain.masking import ColumnName

Taint: TypeAlias = "frozenset[ColumnName]"

SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputColumn:
    """One column that a query gives. ``name`` empty: not known. ``plain``: a bare column, so that RowDescription names
    its origin or the query above may. ``star``: stands for any number of columns."""

    name: str
    taint: Taint
    plain: bool
    star: bool = False
    expanded: bool = False


Shape: TypeAlias = "tuple[OutputColumn, ...]"


def union(taints: Iterable[Taint]) -> Taint:
    """Return everything in ``taints``. Nearly always nothing, which costs no set."""
    found = EMPTY
    for taint in taints:
        if taint:
            found = found | taint
    return found


def shape_taint(shape: Shape) -> Taint:
    return union(column.taint for column in shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What one FROM item gives. ``table`` is ``schema.table`` of a base relation, else empty. ``schema`` and ``name``
    are as written, for references that are qualified so. ``complete``: ``named`` holds every column there is."""

    alias: str
    schema: str
    table: str
    named: Mapping[str, Taint]
    rest: Taint
    complete: bool

    def whole(self) -> Taint:
        """Return the taint of a whole row."""
        return union((self.rest, *self.named.values()))

    def column(self, name: str) -> Taint:
        """Return the taint of an unqualified ``name``, which may be a column of this source or not."""
        return self.named.get(name, self.rest)

    def field(self, name: str) -> Taint:
        """Return the taint of ``alias.name``: a column, or a function of the whole row (``c.to_json``)."""
        found = self.named.get(name)
        if found is not None:
            return found
        return EMPTY if name in SYSTEM_COLUMNS else self.whole()

    def may_have(self, name: str) -> bool:
        """Whether an unqualified ``name`` may be a column of this source."""
        return name in self.named or not self.complete

    def star(self) -> Shape:
        """Return the columns of ``alias.*``; plain, since PostgreSQL expands it to bare columns."""
        named = tuple(
            OutputColumn(name=name, taint=taint, plain=True, expanded=True) for name, taint in self.named.items()
        )
        if self.complete:
            return named
        return (OutputColumn(name="", taint=self.whole(), plain=True, star=True),)

    def renamed(self, alias: str, schema: str = "") -> Source:
        return Source(
            alias=alias, schema=schema, table=self.table, named=self.named, rest=self.rest, complete=self.complete
        )


def source_of(shape: Shape, alias: str) -> Source:
    """Return what a subquery, CTE or view with ``shape`` gives. Columns whose name is not known go to ``rest``."""
    named: dict[str, Taint] = {}
    rest = EMPTY
    complete = True
    for column in shape:
        if column.star or not column.name:
            rest = rest | column.taint
            complete = False
        else:
            complete = complete and column.name not in named  # of two columns with one name a star has both
            named[column.name] = named.get(column.name, EMPTY) | column.taint
    return Source(alias=alias, schema="", table="", named=named, rest=rest, complete=complete)


def opaque_source(alias: str, taint: Taint, table: str = "", schema: str = "") -> Source:
    """Return a source of which only this is known: whatever it gives may hold ``taint``."""
    return Source(alias=alias, schema=schema, table=table, named={}, rest=taint, complete=False)


def with_column_aliases(source: Source, aliases: Sequence[str]) -> Source:
    """Return ``source`` after ``AS alias(a, b, ...)``: the names move by position, which only a subquery's shape tells.

    Where anything in it is tainted every name may be the tainted one.
    """
    if not aliases:
        return source
    return opaque_source(source.alias, source.whole(), source.table, source.schema)


def aliased(source: Source, alias: Fields | None, *, keep_columns: bool = False) -> Source:
    """Return ``source`` under an Alias of the grammar, if there is one. ``keep_columns``: nothing is known by
    position."""
    if not alias:
        return source
    renamed = source.renamed(alias["aliasname"])
    return renamed if keep_columns else with_column_aliases(renamed, strings(alias.get("colnames", [])))


@dataclass(slots=True)
class Scope:
    """The sources that a name may refer to, nearest first, and the CTEs that a table name may mean."""

    parent: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    ctes: dict[str, Source] = field(default_factory=dict)

    def cte(self, name: str) -> Source | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.ctes:
                return scope.ctes[name]
            scope = scope.parent
        return None

    def levels(self) -> Iterator[list[Source]]:
        """Yield the sources of each level, nearest first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope.sources
            scope = scope.parent
