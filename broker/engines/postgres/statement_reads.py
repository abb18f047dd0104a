"""What one statement reads, calls and changes: a walk over its whole tree.

``Reader`` reads queries and data modifications: it collects the facts that policy sees, and for a query the *shape* of
its output, which says for each column what masked columns it may hold. Views are followed by their definitions.

Rules: as in ``statement_expressions``. A plain output column is not "used": its mask covers it; everything else that
touches a masked column is (WHERE, ORDER BY, GROUP BY, DISTINCT, UNION without ALL, joins, functions, expressions).

Source: PostgreSQL 15 manual, 7 Queries, 6 Data Manipulation; `src/include/nodes/parsenodes.h`.
"""

from __future__ import annotations

from typing import Any, Final

from broker.engines.postgres.origins import EMPTY, NOT_PROVED, Catalogue, Relation
from broker.engines.postgres.statement_expressions import SYSTEM_SCHEMAS, Expressions
from broker.engines.postgres.statement_facts import PRIVILEGE, WRITE, Modification, ViewFacts, restricts
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
    with_column_aliases,
)
from broker.engines.postgres.statement_tree import Fields, NotUnderstood, only, parse, strings

_MAX_VIEW_DEPTH: Final = 32  # views on views; PostgreSQL's own rewriter gives up on cycles only
_QUERY_COST: Final = 40  # nodes: a query takes about 50 us besides its expressions; the budget is half a second
_NOT_PROVED_VIEW: Final = ViewFacts(
    shape=(OutputColumn(name="", taint=frozenset({NOT_PROVED}), plain=False, star=True),),
    tables=frozenset(),
    classes=frozenset({WRITE}),
)


class Reader(Expressions):
    """Reads one statement. Not reusable. Every method may raise NotUnderstood or RecursionError (fail closed)."""

    def __init__(self, catalogue: Catalogue, *, view_depth: int = 0) -> None:
        super().__init__(catalogue)
        self._view_depth = view_depth

    def view(self, relation: Relation) -> ViewFacts:
        return view_facts(self.catalogue, relation, self._view_depth)

    # Queries

    def query(self, node: Fields, parent: Scope | None) -> Shape:
        """Read any statement that may stand in a CTE, a cursor, an EXPLAIN, ...: returns its output's shape."""
        kind, fields = only(node)
        match kind:
            case "SelectStmt":
                return self.select(fields, parent)
            case "InsertStmt":
                return self.insert(fields, parent)
            case "UpdateStmt":
                return self.update(fields, parent)
            case "DeleteStmt":
                return self.delete(fields, parent)
            case "MergeStmt":
                return self.merge(fields, parent)
            case _:
                raise NotUnderstood(f"a statement of kind {kind} where a query is expected")

    def select(self, fields: Fields, parent: Scope | None) -> Shape:
        """Read one SELECT, VALUES or set operation."""
        self.spend(_QUERY_COST)
        scope = Scope(parent=parent)
        self._with(fields, scope)
        if fields.get("op", "SETOP_NONE") != "SETOP_NONE":
            return self._set_operation(fields, scope)
        if "valuesLists" in fields:
            shape = self._values(fields, scope)
            self._sort_and_limit(fields, scope, shape)
            return shape
        for item in fields.get("fromClause", ()):
            self.from_item(item, scope)
        shape = self.targets(fields.get("targetList", ()), scope)
        self.expression(fields.get("whereClause"), scope)
        for item in fields.get("groupClause", ()):
            self._position_or_expression(item, scope, shape)
        self.expression(fields.get("havingClause"), scope)
        self.expression(fields.get("windowClause"), scope)
        if "distinctClause" in fields:
            self.expression(fields["distinctClause"], scope)
            self.use_outside(shape_taint(shape))
        self._sort_and_limit(fields, scope, shape)
        if "lockingClause" in fields:
            self.facts.locks_rows = True
        if "intoClause" in fields:
            self.facts.selects_into = True
            self._created(fields["intoClause"])
            self.store(shape_taint(shape))
        return shape

    def _set_operation(self, fields: Fields, scope: Scope) -> Shape:
        left = self.select(fields["larg"], scope)
        right = self.select(fields["rarg"], scope)
        if any(column.star for column in (*left, *right)) or len(left) != len(right):
            taint = shape_taint(left) | shape_taint(right)
            shape: Shape = (OutputColumn(name="", taint=taint, plain=False, star=True),)
        else:
            shape = tuple(
                OutputColumn(name=a.name, taint=a.taint | b.taint, plain=a.plain and b.plain)
                for a, b in zip(left, right, strict=True)
            )
        if not fields.get("all"):  # removing duplicates compares values
            self.use_outside(shape_taint(shape))
        self._sort_and_limit(fields, scope, shape)
        return shape

    def _values(self, fields: Fields, scope: Scope) -> Shape:
        rows = [row["List"].get("items", []) for row in fields["valuesLists"]]
        columns: list[Taint] = []
        for row in rows:
            for index, value in enumerate(row):
                taint = EMPTY if "A_Const" in value else self.expression(value, scope)
                if index == len(columns):
                    columns.append(taint)
                elif taint:
                    columns[index] = columns[index] | taint
        return tuple(
            OutputColumn(name=f"column{index + 1}", taint=taint, plain=False) for index, taint in enumerate(columns)
        )

    def _sort_and_limit(self, fields: Fields, scope: Scope, shape: Shape) -> None:
        for item in fields.get("sortClause", ()):
            self._position_or_expression(item["SortBy"]["node"], scope, shape)
        self.expression(fields.get("limitCount"), scope)
        self.expression(fields.get("limitOffset"), scope)

    def _position_or_expression(self, node: Fields, scope: Scope, shape: Shape) -> None:
        """ORDER BY and GROUP BY name an output column by its number, by its alias, or are an expression."""
        if "A_Const" in node:
            at = node["A_Const"].get("ival", {}).get("ival", 0)
            exact = 0 < at <= len(shape) and not any(column.star for column in shape)
            self.use_outside(shape[at - 1].taint if exact else shape_taint(shape))
            return
        if "ColumnRef" in node:
            fields = node["ColumnRef"].get("fields", [])
            name = strings(fields)[0] if len(fields) == 1 else ""
            named = [column for column in shape if name and column.name == name]
            if named:
                self.use_outside(union(column.taint for column in named))
                return
        self.expression(node, scope)

    def _with(self, fields: Fields, scope: Scope) -> None:
        clause = fields.get("withClause")
        if clause is None:
            return
        for item in clause.get("ctes", ()):
            cte = item["CommonTableExpr"]
            name = cte["ctename"]
            aliases = strings(cte.get("aliascolnames", []))
            if not clause.get("recursive"):
                scope.ctes[name] = with_column_aliases(source_of(self.query(cte["ctequery"], scope), name), aliases)
                continue
            scope.ctes[name] = opaque_source(name, EMPTY)
            self.cte_uses.discard(name)
            shape = self.query(cte["ctequery"], scope)
            if name in self.cte_uses and shape_taint(shape):
                # What a round can carry on is a mix, by position, of what the first one found: so all of it everywhere.
                scope.ctes[name] = opaque_source(name, shape_taint(shape))
                self.query(cte["ctequery"], scope)
            else:
                scope.ctes[name] = with_column_aliases(source_of(shape, name), aliases)

    def targets(self, items: Any, scope: Scope) -> Shape:
        """Read an output list."""
        shape: list[OutputColumn] = []
        for item in items:
            target = item["ResTarget"]
            value = target.get("val")
            if value is not None and "ColumnRef" in value:
                shape.extend(self._plain(value["ColumnRef"], target.get("name", ""), scope))
            else:
                shape.append(
                    OutputColumn(name=target.get("name", ""), taint=self.expression(value, scope), plain=False)
                )
        return tuple(shape)

    def _plain(self, reference: Fields, alias: str, scope: Scope) -> Shape:
        fields = reference.get("fields", [])
        if "A_Star" in fields[-1]:
            return self.star(strings(fields[:-1]), scope)
        names = strings(fields)
        if self.is_whole_row(names, scope):
            taint = self.expression({"ColumnRef": reference}, scope)
            return (OutputColumn(name=alias or names[-1], taint=taint, plain=False),)
        if len(names) > 1 and any(not source.may_have(names[-1]) for source in self._qualified(names[:-1], scope)):
            self.use_outside(self.column(names, scope))  # c.to_json is to_json(c): no plain column
        taint = self.column(names, scope)
        return (OutputColumn(name=alias or names[-1], taint=taint, plain=True),)

    # FROM

    def from_item(self, node: Fields, scope: Scope) -> None:
        """Add what a FROM item gives to ``scope``."""
        kind, fields = only(node)
        match kind:
            case "RangeVar":
                scope.sources.append(self.relation(fields, scope))
            case "RangeSubselect":
                inner = scope if fields.get("lateral") else scope.parent
                # CTEs of this very query are visible to its subqueries, its other FROM items are not unless LATERAL.
                visible = Scope(parent=inner, ctes=scope.ctes)
                source = source_of(self.query(fields["subquery"], visible), "")
                scope.sources.append(aliased(source, fields.get("alias")))
            case "JoinExpr":
                self._join(fields, scope)
            case "RangeTableSample":
                self.from_item(fields["relation"], scope)
                self.expression(fields.get("args"), scope)
                self.expression(fields.get("repeatable"), scope)
            case "RangeFunction":
                self._function_source(fields, scope)
            case _:  # XMLTABLE, JSON_TABLE and what later versions add: as tainted as all that is in it
                taint = self.expression(node, scope)
                scope.sources.append(aliased(opaque_source("", taint), fields.get("alias")))

    def _join(self, fields: Fields, scope: Scope) -> None:
        before = len(scope.sources)
        self.from_item(fields["larg"], scope)
        self.from_item(fields["rarg"], scope)
        joined = scope.sources[before:]
        self.expression(fields.get("quals"), scope)
        for name in strings(fields.get("usingClause", [])):
            self.use_outside(union(source.column(name) for source in joined))
        if fields.get("isNatural"):  # by every name that both have
            self.use_outside(union(source.whole() for source in joined))
        alias = fields.get("alias") or fields.get("join_using_alias")
        if alias:
            named = {name: union(s.column(name) for s in joined) for s in joined for name in s.named}
            source = Source(
                alias="",
                schema="",
                table="",
                named=named,
                rest=union(source.rest for source in joined),
                complete=all(source.complete for source in joined),
            )
            # The join's own columns are there already, under the sources' names: only the new name is added.
            scope.sources.append(aliased(source, alias))

    def _function_source(self, fields: Fields, scope: Scope) -> None:
        taint = EMPTY
        name = ""
        for item in fields.get("functions", ()):
            call = item["List"]["items"][0]
            taint = taint | self.expression(call, scope)
            if "FuncCall" in call:
                name = strings(call["FuncCall"]["funcname"])[-1]
        source = opaque_source(name, taint)
        scope.sources.append(aliased(source, fields.get("alias"), keep_columns=True))

    # Data modification

    def insert(self, fields: Fields, parent: Scope | None) -> Shape:
        scope = Scope(parent=parent)
        self._with(fields, scope)
        target = self._target(fields["relation"])
        shape = self.query(fields["selectStmt"], scope) if "selectStmt" in fields else ()
        given = shape_taint(shape)
        self.store(given)
        if target.table and fields.get("cols"):
            self.facts.columns |= {f"{target.table}.{c['ResTarget'].get('name', '')}" for c in fields["cols"]}
        scope.sources.append(target)
        conflict = fields.get("onConflictClause")
        if conflict is not None:
            with_excluded = Scope(parent=scope, sources=[opaque_source("excluded", given)])
            self._assignments(conflict.get("targetList", ()), with_excluded, target)
            self.expression(conflict.get("infer"), with_excluded)
            self.expression(conflict.get("whereClause"), with_excluded)
        self.facts.modifications.append(Modification(word="INSERT", has_where=False))
        return self._returning(fields, scope)

    def update(self, fields: Fields, parent: Scope | None) -> Shape:
        scope = Scope(parent=parent)
        self._with(fields, scope)
        target = self._target(fields["relation"])
        scope.sources.append(target)
        for item in fields.get("fromClause", ()):
            self.from_item(item, scope)
        self._assignments(fields.get("targetList", ()), scope, target)
        self.expression(fields.get("whereClause"), scope)
        self.facts.modifications.append(Modification(word="UPDATE", has_where=restricts(fields.get("whereClause"))))
        return self._returning(fields, scope)

    def delete(self, fields: Fields, parent: Scope | None) -> Shape:
        scope = Scope(parent=parent)
        self._with(fields, scope)
        scope.sources.append(self._target(fields["relation"]))
        for item in fields.get("usingClause", ()):
            self.from_item(item, scope)
        self.expression(fields.get("whereClause"), scope)
        self.facts.modifications.append(Modification(word="DELETE", has_where=restricts(fields.get("whereClause"))))
        return self._returning(fields, scope)

    def merge(self, fields: Fields, parent: Scope | None) -> Shape:
        scope = Scope(parent=parent)
        self._with(fields, scope)
        target = self._target(fields["relation"])
        scope.sources.append(target)
        self.from_item(fields["sourceRelation"], scope)
        self.expression(fields.get("joinCondition"), scope)
        for item in fields.get("mergeWhenClauses", ()):
            when = item["MergeWhenClause"]
            self.expression(when.get("condition"), scope)
            self._assignments(when.get("targetList", ()), scope, target)
            for value in when.get("values", ()):
                self.store(self.expression(value, scope))
        self.facts.modifications.append(Modification(word="MERGE", has_where=False))
        return self._returning(fields, scope)

    def _target(self, fields: Fields) -> Source:
        target = self.relation(fields, None)
        self.guard_target(target)
        return target

    def guard_target(self, target: Source) -> None:
        """Note that ``target`` is written to: UPDATE pg_settings is SET, the other catalogues are the server's own."""
        if target.table.partition(".")[0] in SYSTEM_SCHEMAS:
            self.facts.classes.add(PRIVILEGE)

    def _assignments(self, items: Any, scope: Scope, target: Source) -> None:
        for item in items:
            assigned = item["ResTarget"]
            name = assigned.get("name", "")
            taint = self.expression(assigned.get("val"), scope) | self.expression(assigned.get("indirection"), scope)
            if target.table:
                self.facts.columns.add(f"{target.table}.{name}")
            if taint != target.named.get(name):  # a masked column set from itself is masked afterwards as before
                self.store(taint)

    def _returning(self, fields: Fields, scope: Scope) -> Shape:
        clause = fields.get("returningClause")
        return self.targets(clause.get("exprs", ()), scope) if clause else ()

    def _created(self, into: Fields) -> None:
        relation = into.get("rel", {})
        if "relname" in relation:
            self.facts.tables.add(self.catalogue.full_name(relation.get("schemaname", ""), relation["relname"]))


def view_facts(catalogue: Catalogue, relation: Relation, depth: int = 0) -> ViewFacts:
    """Return what reading a view means, from its definition; not proved, and writing, where that cannot be read."""
    found = catalogue.memo.get(("view", relation.oid))
    if isinstance(found, ViewFacts):
        return found
    definition = catalogue.definitions.get(relation.oid)
    if definition is None or depth >= _MAX_VIEW_DEPTH:
        return _NOT_PROVED_VIEW
    reader = Reader(catalogue, view_depth=depth + 1)
    try:
        statements = parse(definition)
        shape = reader.query(statements[0]["stmt"], None) if len(statements) == 1 else _NOT_PROVED_VIEW.shape
    except (NotUnderstood, RecursionError, KeyError, IndexError, TypeError, AttributeError):
        return _NOT_PROVED_VIEW
    facts = ViewFacts(shape=shape, tables=frozenset(reader.facts.tables), classes=frozenset(reader.facts.classes))
    catalogue.memo["view", relation.oid] = facts
    return facts
