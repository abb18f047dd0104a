"""Expressions: what names and calls in a statement read.

``Expressions`` resolves column references, relations, calls and subqueries, and returns for each expression its taint.

Rules: every node is visited, also those that this file does not know by name: an unknown one has the taint of all that
is in it. A function that is not known may read anything. A scalar subquery taints what it is used in with everything
that it reads, conditions included. What would be more than a simple proof is not proved, and is masked.

What it does not do: no types, no overload resolution, no casts or operators that call user code (operators that call
*volatile* user functions are listed in the catalogue). The database role is the boundary; this is the guard rail.

Source: PostgreSQL 15 `src/include/nodes/parsenodes.h` for the fields of each node.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from broker.engines.postgres.origins import EMPTY, NOT_PROVED, STATISTICS, Catalogue, Relation
from broker.engines.postgres.statement_facts import PRIVILEGE, WRITE, Facts, ViewFacts, call_classes
from broker.engines.postgres.statement_lists import SECRET_RELATIONS
from broker.engines.postgres.statement_scope import (
    OutputColumn,
    Scope,
    Shape,
    Source,
    Taint,
    aliased,
    opaque_source,
    shape_taint,
    source_of,
    union,
)
from broker.engines.postgres.statement_tree import Fields, NotUnderstood, strings

SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})
_ANY: Final[Taint] = frozenset({NOT_PROVED})
_MAX_NODES: Final = (
    400_000  # what 1 MiB of constants has; recursive CTEs inside each other would double it at each level
)


class Expressions(ABC):
    """Reads the expressions of one statement. Every method may raise NotUnderstood or RecursionError (fail closed)."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.facts = Facts()
        self.cte_uses: set[str] = set()
        self._masks = bool(catalogue.masked.columns)
        self._budget = _MAX_NODES

    @abstractmethod
    def query(self, node: Fields, parent: Scope | None) -> Shape:
        """Read a query, which may modify data; return its output's shape."""

    @abstractmethod
    def view(self, relation: Relation) -> ViewFacts:
        """Return what reading a view means."""

    def spend(self, nodes: int) -> None:
        """Count work; raises NotUnderstood past the budget."""
        self._budget -= nodes
        if self._budget < 0:
            raise NotUnderstood("the statement is too large to be judged")

    # Expressions

    def expression(self, node: Any, scope: Scope | None) -> Taint:
        """Read any node or list of nodes that is used other than as a plain output column; return its taint."""
        if node is None:
            return EMPTY
        self.spend(1)
        taint = EMPTY
        if type(node) is list:
            for item in node:
                if type(item) is dict and item and "A_Const" not in item:
                    taint = taint | self.expression(item, scope)
            return taint
        for key, value in node.items():
            kind = type(value)
            if kind is dict:
                special = _SPECIAL.get(key)
                if special is not None:
                    taint = taint | special(self, value, scope)
                elif "relname" in value:
                    self.relation(value, scope)
                elif key != "A_Const":
                    taint = taint | self.expression(value, scope)
            elif kind is list:
                taint = taint | self.expression(value, scope)
        return taint

    def _column_reference(self, fields: Fields, scope: Scope | None) -> Taint:
        parts = fields.get("fields", [])
        if "A_Star" in parts[-1]:
            taint = shape_taint(self.star(strings(parts[:-1]), scope or Scope()))
        else:
            names = strings(parts)
            if self.is_whole_row(names, scope):
                taint = union(source.whole() for source in self._qualified(names, scope))
                self.see(taint)
                self.name_tainted(taint)
            else:
                taint = self.column(names, scope or Scope())
        self.use_outside(taint)
        return taint

    def is_whole_row(self, names: tuple[str, ...], scope: Scope | None) -> bool:
        """Whether ``names`` is a FROM item used as a value, as in ``to_json(c)``. A known column of that name wins,
        as in PostgreSQL; one that is only possible does not: the whole row has at least its taint."""
        if scope is None or len(names) != 1:
            return False
        level = next((level for level in scope.levels() if any(s.alias == names[0] for s in level)), None)
        return level is not None and not any(names[0] in source.named for source in level)

    def _qualified(self, names: tuple[str, ...], scope: Scope | None) -> list[Source]:
        """Return the sources that ``alias``, ``schema.table`` or ``catalog.schema.table`` means, of the nearest
        level."""
        if scope is None or not names:
            return []
        for level in scope.levels():
            found = [s for s in level if s.alias == names[-1] and (len(names) == 1 or s.schema in ("", names[-2]))]
            if found:
                return found
        return []

    def column(self, names: tuple[str, ...], scope: Scope) -> Taint:
        name = names[-1]
        if len(names) > 1:
            sources = self._qualified(names[:-1], scope)
            if not sources:  # (composite column).field, or a relation that is not there
                taint = self._unqualified(names[0], scope) | self._unqualified(name, scope)
                self.facts.columns.add(f"?.{name}")
            else:
                taint = union(source.field(name) for source in sources)
                table = sources[0].table
                self.facts.columns.add(f"{table}.{name}" if table else f"?.{name}")
        else:
            taint = self._unqualified(name, scope)
            self.facts.columns.add(f"{self._owner(name, scope) or '?'}.{name}")
        if taint:
            self.see(taint)
            self.name_tainted(taint)
        return taint

    def _unqualified(self, name: str, scope: Scope) -> Taint:
        taint = EMPTY
        for level in scope.levels():
            taint = taint | union(source.column(name) for source in level)
            if any(source.complete and name in source.named for source in level):
                return taint  # found for sure: an outer query's column of that name is hidden
        return taint

    def _owner(self, name: str, scope: Scope) -> str:
        """Return the base relation that an unqualified column belongs to, where only one can have it."""
        able = [source for level in scope.levels() for source in level if source.may_have(name)]
        if not able:
            return ""
        nearest = able[0]
        return nearest.table if len(able) == 1 or (nearest.complete and len(scope.sources) == 1) else ""

    def _call(self, fields: Fields, scope: Scope | None) -> Taint:
        names = strings(fields["funcname"])
        name, schema = names[-1], names[-2] if len(names) > 1 else ""
        self.facts.functions.add(".".join(names[-2:]))
        rest = {key: value for key, value in fields.items() if key != "funcname"}
        taint = self.expression(rest, scope)
        added = call_classes(self.catalogue, schema, name, fields.get("args", []))
        self.facts.classes |= added
        if taint and added:
            self.facts.stores_masked = True  # handed to what may keep it: pg_notify, set_config, lo_from_bytea, ...
        if self._masks and not self.catalogue.reads_nothing(schema, name):
            taint = taint | _ANY
        return taint

    def _subquery(self, fields: Fields, scope: Scope | None) -> Taint:
        taint = self.expression(fields.get("testexpr"), scope)
        before, self.facts.seen = self.facts.seen, set()
        select = fields["subselect"]
        if fields.get("subLinkType") == "EXISTS_SUBLINK" and "SelectStmt" in select:
            # What an EXISTS lists is never looked at: `EXISTS (SELECT * ...)` reads its conditions only.
            inner = {key: value for key, value in select["SelectStmt"].items() if key != "targetList"}
            listed = [t for t in select["SelectStmt"].get("targetList", ()) if not _is_idle(t)]
            select = {"SelectStmt": {**inner, "targetList": listed}}
        shape = self.query(select, scope)
        inside = frozenset(self.facts.seen) | shape_taint(shape)
        self.facts.seen |= before
        self.use_outside(inside)
        return taint | inside

    def _nested_select(self, fields: Fields, scope: Scope | None) -> Taint:
        taint = shape_taint(self.query({"SelectStmt": fields}, scope))
        self.use_outside(taint)
        return taint

    def _operator(self, fields: Fields, scope: Scope | None) -> Taint:
        volatile = self.catalogue.volatile_operators
        if volatile and not volatile.isdisjoint(strings(fields.get("name", []))[-1:]):
            self.facts.classes.add(WRITE)
        return self.expression(fields.get("lexpr"), scope) | self.expression(fields.get("rexpr"), scope)

    # Relations

    def relation(self, fields: Fields, scope: Scope | None) -> Source:
        """Return what the table, view or CTE of a RangeVar gives, and note that the statement names it."""
        name, schema = fields["relname"], fields.get("schemaname", "")
        alias = fields.get("alias", {})
        cte = scope.cte(name) if scope is not None and not schema else None
        if cte is not None:
            self.cte_uses.add(name)
            return aliased(cte.renamed(name), alias or None)
        source = self._relation_source(schema, name)
        if alias:
            source = aliased(source.renamed(alias["aliasname"]), alias)
        return source

    def _relation_source(self, schema: str, name: str) -> Source:
        catalogue = self.catalogue
        full_name = catalogue.full_name(schema, name)
        self.facts.tables.add(full_name)
        relation = catalogue.resolve(schema, name)
        written = full_name.partition(".")[0]
        if relation is None:
            return opaque_source(name, self.unknown(), full_name, written)
        if relation.schema in SYSTEM_SCHEMAS:
            if relation.name in SECRET_RELATIONS:
                self.facts.classes.add(PRIVILEGE)
            taint = _ANY if self._masks and relation.name in STATISTICS else EMPTY
            return opaque_source(name, taint, full_name, relation.schema)
        if relation.kind in ("v", "m"):
            return self._view_source(relation)
        return table_source(catalogue, relation)

    def _view_source(self, relation: Relation) -> Source:
        found = self.view(relation)
        self.facts.tables |= found.tables
        self.facts.classes |= found.classes
        source = source_of(found.shape, relation.name)
        called = self.catalogue.masked_names.get(relation.oid, {})
        named = {name: taint | called.get(name, EMPTY) for name, taint in source.named.items()}
        return Source(
            alias=relation.name,
            schema=relation.schema,
            table=relation.full_name,
            named=named,
            rest=union((source.rest, *(called.values() if not source.complete else ()))),
            complete=source.complete,
        )

    def star(self, qualifier: tuple[str, ...], scope: Scope) -> Shape:
        sources = self._qualified(qualifier, scope) if qualifier else scope.sources
        shape: list[OutputColumn] = []
        for source in sources:
            if source.table:
                self.facts.columns.add(f"{source.table}.*")
            columns = source.star()
            self.spend(len(columns))
            for column in columns:
                if column.taint:
                    self.see(column.taint)
                    self.name_tainted(column.taint)
            shape.extend(columns)
        return tuple(shape) if sources else (OutputColumn(name="", taint=self.unknown(), plain=True, star=True),)

    # Notes

    def store(self, taint: Taint) -> None:
        """Note that a value with ``taint`` is kept somewhere."""
        if taint and self._masks:
            self.facts.stores_masked = True

    def see(self, taint: Taint) -> None:
        if taint and self._masks:
            self.facts.seen |= taint

    def use_outside(self, taint: Taint) -> None:
        if taint and self._masks:
            self.facts.seen |= taint
            self.facts.outside = True

    def name_tainted(self, taint: Taint) -> None:
        """A rule that names a masked column must meet it also where the statement reached it without its name."""
        self.facts.columns |= {f"{c.schema}.{c.table}.{c.column}" for c in taint if c is not NOT_PROVED}

    def unknown(self) -> Taint:
        return _ANY if self._masks else EMPTY


_SPECIAL: Final = {
    "ColumnRef": Expressions._column_reference,
    "FuncCall": Expressions._call,
    "SubLink": Expressions._subquery,
    "A_Expr": Expressions._operator,
    "SelectStmt": Expressions._nested_select,
}


def _is_idle(target: Fields) -> bool:
    value = target["ResTarget"].get("val", {})
    return "A_Const" in value or ("ColumnRef" in value and "A_Star" in value["ColumnRef"]["fields"][-1])


def table_source(catalogue: Catalogue, relation: Relation) -> Source:
    """Return what a base table gives. Only tables that rules touch are known by column; the others are clear."""
    attributes = catalogue.attributes.get(relation.oid)
    if attributes is None:
        return opaque_source(relation.name, EMPTY, relation.full_name, relation.schema)
    called = catalogue.masked_names[relation.oid]
    return Source(
        alias=relation.name,
        schema=relation.schema,
        table=relation.full_name,
        named={name: called.get(name, EMPTY) for _, name in sorted(attributes.items())},
        rest=EMPTY,
        complete=True,
    )
