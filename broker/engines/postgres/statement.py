"""Understanding: what one text of a client means, before any of it is sent.

``understand`` turns the text of a simple Query or of a Parse into one ``Statement`` for each statement in it, each
with the Acts that policy decides on. Rules: classified recursively, through CTEs, EXPLAIN ANALYZE, PREPARE,
EXECUTE, DECLARE, COPY queries, views; what cannot be read whole is not understood (``refused``) and is blocked. It
holds no policy: it never says what is allowed.

An Act's context has, for every class: ``tables``, ``columns``, ``functions`` (of the whole statement, sorted
tuples), ``statement`` (its word), ``has_where`` (literal: a WHERE that depends on the row; INSERT, MERGE and DDL
have none), ``reads_masked`` and ``masked_outside_output``. A view counts as itself and as the tables under it. One
statement gives one Act for what it does, one for each data modification inside another statement, and one more for
each further class that it reaches (``privilege``, ``opaque``, ``session`` by function; ``derives_masked``). SELECT
... FOR UPDATE takes locks and needs UPDATE rights: it is ``write``. RESET ALL and DISCARD ALL are ``session``: what
the broker pins is in the startup packet, and that is what they return to; connection pools send them all the time.

Source: PostgreSQL 15 manual, SQL Commands; `../../../docs/adr` for the choice of parser.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from broker.engines.postgres.origins import EMPTY, NOT_PROVED, Catalogue
from broker.engines.postgres.statement_facts import OPAQUE, PRIVILEGE, READ, SESSION, WRITE, Facts, restricts
from broker.engines.postgres.statement_kinds import (
    DEFINE,
    FIXED,
    by_object,
    dropped,
    is_definer,
)
from broker.engines.postgres.statement_lists import is_guarded_setting
from broker.engines.postgres.statement_names import NO_NAMES, Named, NamedKind, Names, NameTracker
from broker.engines.postgres.statement_reads import Reader
from broker.engines.postgres.statement_scope import OutputColumn, Scope, Shape, Taint, shape_taint
from broker.engines.postgres.statement_tree import Fields, NotUnderstood, only, parse, strings
from broker.masking import CLIENT_TEXT
from chalicelib.domain.errors import Limited
from chalicelib.domain.operation import Act, Literal

DERIVES_MASKED: Final = "sql:derives_masked"
_CACHE_ENTRIES: Final = 4096  # an application has hundreds of texts; an entry is about 2 KiB
_CACHE_TEXT: Final = 8 * 1024  # longer texts are loads and reports, seldom sent twice


class CopyKind(StrEnum):
    """COPY through the connection: the client sends rows, or gets them."""

    IN = "in"
    OUT = "out"


class TransactionKind(StrEnum):
    """What a statement does to the transaction."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback_to"


_TRANSACTION: Final = {
    "TRANS_STMT_BEGIN": (TransactionKind.BEGIN, "BEGIN"),
    "TRANS_STMT_START": (TransactionKind.BEGIN, "START TRANSACTION"),
    "TRANS_STMT_COMMIT": (TransactionKind.COMMIT, "COMMIT"),
    "TRANS_STMT_ROLLBACK": (TransactionKind.ROLLBACK, "ROLLBACK"),
    "TRANS_STMT_SAVEPOINT": (TransactionKind.SAVEPOINT, "SAVEPOINT"),
    "TRANS_STMT_RELEASE": (TransactionKind.RELEASE, "RELEASE"),
    "TRANS_STMT_ROLLBACK_TO": (TransactionKind.ROLLBACK_TO, "ROLLBACK TO"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What is proved of a result's columns. A star whose width is not known ends what can be counted from one side."""

    shape: Shape

    def taint(self, index: int, count: int) -> Taint:
        """Return what column ``index`` of ``count`` may hold; NOT_PROVED where the parse does not tell."""
        stars = [at for at, column in enumerate(self.shape) if column.star]
        if not stars:
            return self.shape[index].taint if count == len(self.shape) else frozenset({NOT_PROVED})
        # What the snapshot counted for a star may have grown since: then there is no side to count from.
        if any(column.expanded for column in self.shape):
            return shape_taint(self.shape)
        if index < stars[0]:
            return self.shape[index].taint
        from_end = count - index
        if from_end < len(self.shape) - stars[-1]:
            return self.shape[-from_end].taint
        return shape_taint(self.shape[stars[0] : stars[-1] + 1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One statement, understood. ``output`` None: it gives no rows of its own, or what they are is not known."""

    acts: tuple[Act, ...]
    word: str
    returns_rows: bool = False
    output: Output | None = None
    copy: CopyKind | None = None
    transaction: TransactionKind | None = None
    named: Named | None = None
    changes_names: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Understood:
    """One text. ``refused`` is empty, or the sentence that says why it is not understood: then there are no acts, it is
    a Block, and nothing of it may be sent. ``empty``: there is no statement in it; it may be forwarded as it is."""

    statements: tuple[Statement, ...]
    refused: str
    empty: bool
    shown_text: str
    literals: tuple[Literal, ...]

    @property
    def acts(self) -> tuple[Act, ...]:
        """Return the Acts of all statements, without repetitions."""
        return tuple(dict.fromkeys(act for statement in self.statements for act in statement.acts))


class _Cache:
    """Texts understood lately. Thread-safe; least recently used goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[object, Understood] = OrderedDict()

    def get(self, key: object) -> Understood | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: object, value: Understood) -> None:
        with self._lock:
            self._entries[key] = value
            if len(self._entries) > _CACHE_ENTRIES:
                self._entries.popitem(last=False)


_cache: Final = _Cache()


def understand(text: str, catalogue: Catalogue, names: Names = NO_NAMES) -> Understood:
    """Return what ``text`` means on the target that ``catalogue`` is of. Never raises; any failure is ``refused``.

    ``names``: what EXECUTE and FETCH may stand for; a name that is not there is ``opaque``. Pure but for a cache by
    exact text and catalogue version; a text that uses names is not cached.
    """
    # The version alone is not enough for catalogues that were derived from one by leaving things out.
    key = (text, catalogue.version, catalogue.masked, catalogue.path, catalogue.volatile_operators)
    found = _cache.get(key)
    if found is not None:
        return found
    shown, literals = CLIENT_TEXT.literals(text)
    refused = ""
    statements: tuple[Statement, ...] = ()
    uses_names = False
    try:
        statements, uses_names = _read_all(text, catalogue, names)
    except (NotUnderstood, Limited) as why:
        refused = CLIENT_TEXT.mask(str(why))
    except RecursionError:
        refused = "the statement is nested too deeply"
    except Exception:  # noqa: BLE001  # a tree that is not as the grammar says: whatever goes wrong is a refusal
        refused = "the statement could not be understood"
    understood = Understood(
        statements=statements,
        refused=refused,
        empty=not (statements or refused),
        shown_text=shown,
        literals=literals,
    )
    if not (uses_names or refused) and len(text) <= _CACHE_TEXT:
        _cache.put(key, understood)
    return understood


def _read_all(text: str, catalogue: Catalogue, names: Names) -> tuple[tuple[Statement, ...], bool]:
    statements: list[Statement] = []
    tracker: NameTracker | None = None
    uses_names = False
    for raw in parse(text):
        known = tracker.view() if tracker is not None else names
        statement = _Understanding(catalogue, known).statement(raw["stmt"])
        if statement.named is not None:
            uses_names = uses_names or _looks_up(statement.named)
            tracker = tracker or NameTracker(names)
            tracker.ran(statement)  # a batch stops at its first error, so what follows sees this name
        statements.append(statement)
    return tuple(statements), uses_names


def _looks_up(named: Named) -> bool:
    return named.kind in (NamedKind.EXECUTE, NamedKind.FETCH) or (
        named.inner is not None and named.inner.named is not None and _looks_up(named.inner.named)
    )


class _Understanding:
    """One statement. Raises NotUnderstood, RecursionError, and what a malformed tree makes."""

    def __init__(self, catalogue: Catalogue, names: Names) -> None:
        self._catalogue = catalogue
        self._names = names
        self._reader = Reader(catalogue)

    def statement(self, node: Fields) -> Statement:
        kind, fields = only(node)
        match kind:
            case "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt":
                return self._query(kind, node, fields)
            case "ExplainStmt":
                return self._explain(fields)
            case "PrepareStmt":
                inner = self._inner(fields["query"])
                named = Named(kind=NamedKind.PREPARE, name=fields["name"], inner=inner)
                return Statement(acts=inner.acts, word="PREPARE", named=named)
            case "ExecuteStmt":
                return self._execute(fields)
            case "DeclareCursorStmt":
                inner = self._inner(fields["query"])
                named = Named(kind=NamedKind.DECLARE, name=fields["portalname"], inner=inner)
                return Statement(acts=inner.acts, word="DECLARE", named=named)
            case "FetchStmt":
                return self._fetch(fields)
            case "DeallocateStmt" | "ClosePortalStmt" | "DiscardStmt":
                return self._forget(kind, fields)
            case "TransactionStmt":
                return self._transaction(fields)
            case "VariableSetStmt":
                return self._set(fields)
            case "VariableShowStmt":
                return self._simple(SESSION, "SHOW", rows=True)
            case "CopyStmt":
                return self._copy(fields)
            case "LockStmt":
                self._reader.expression(fields, None)  # ACCESS SHARE (mode 1) is what any SELECT takes
                return self._simple(READ if fields.get("mode") == 1 else WRITE, "LOCK")
            case "VacuumStmt":
                self._reader.expression(fields, None)
                return self._simple(DEFINE, "VACUUM" if fields.get("is_vacuumcmd") else "ANALYZE")
            case "CallStmt":
                self._reader.expression({"FuncCall": fields["funccall"]}, None)
                return replace(self._simple(OPAQUE, "CALL", rows=True), changes_names=True)  # it may define anything
            case _:
                return self._definition(kind, fields)

    # Queries and what wraps them

    def _query(self, kind: str, node: Fields, fields: Fields) -> Statement:
        shape = self._reader.query(node, None)
        facts = self._reader.facts
        base: list[tuple[str, str, bool]] = [(WRITE, m.word, m.has_where) for m in facts.modifications]
        where = restricts(fields.get("whereClause"))
        if facts.selects_into:
            base.append((DEFINE, "SELECT INTO", where))
        if not base:
            base.append((WRITE, "SELECT FOR UPDATE", where) if facts.locks_rows else (READ, "SELECT", where))
        word = kind.removesuffix("Stmt").upper()
        rows = (kind == "SelectStmt" and not facts.selects_into) or "returningClause" in fields
        return Statement(
            acts=self._acts(base),
            word=word,
            returns_rows=rows,
            output=Output(shape=shape) if rows else None,
            changes_names=facts.selects_into,
        )

    def _inner(self, node: Fields) -> Statement:
        return _Understanding(self._catalogue, self._names).statement(node)

    def _explain(self, fields: Fields) -> Statement:
        inner = self._inner(fields["query"])
        runs = any(_is_on(o["DefElem"]) for o in fields.get("options", ()) if o["DefElem"]["defname"] == "analyze")
        acts = inner.acts
        if not runs:  # planned only: estimates tell of the data, and stable functions of constants run to make them
            acts = tuple(dict.fromkeys(_planned(act) for act in inner.acts))
        plan = Output(shape=(OutputColumn(name="QUERY PLAN", taint=EMPTY, plain=False),))
        return Statement(
            acts=acts,
            word="EXPLAIN",
            returns_rows=True,
            output=plan,
            named=_executed(inner),
            changes_names=runs and inner.changes_names,
        )

    def _execute(self, fields: Fields) -> Statement:
        name = fields["name"]
        self._reader.expression(fields.get("params"), None)
        inner = self._names.prepared.get(name)
        named = Named(kind=NamedKind.EXECUTE, name=name, inner=inner)
        if inner is None:
            return replace(self._simple(OPAQUE, "EXECUTE", rows=True), named=named, changes_names=True)
        facts = self._reader.facts
        given = self._acts([(READ, "EXECUTE", False)]) if facts.functions or facts.seen or facts.classes else ()
        return replace(inner, acts=tuple(dict.fromkeys((*inner.acts, *given))), named=named)

    def _fetch(self, fields: Fields) -> Statement:
        name = fields.get("portalname", "")
        inner = self._names.cursors.get(name)
        named = Named(kind=NamedKind.FETCH, name=name, inner=inner)
        rows = not fields.get("ismove", False)
        if inner is None:
            return replace(self._simple(OPAQUE, "FETCH" if rows else "MOVE", rows=rows), named=named)
        return Statement(
            acts=inner.acts,
            word="FETCH" if rows else "MOVE",
            returns_rows=rows,
            output=inner.output if rows else None,
            named=named,
        )

    def _copy(self, fields: Fields) -> Statement:
        reader, incoming = self._reader, bool(fields.get("is_from"))
        scope = Scope()
        shape: Shape = ()
        if "query" in fields:
            inner = self._inner(fields["query"])
            acts, shape = list(inner.acts), inner.output.shape if inner.output else ()
        else:
            scope.sources.append(reader.relation(fields["relation"], None))
            listed = strings(fields.get("attlist", []))
            columns = [{"fields": [{"String": {"sval": name}}]} for name in listed] or [{"fields": [{"A_Star": {}}]}]
            if incoming:  # names columns to fill, reads none
                reader.facts.columns |= {f"{scope.sources[0].table}.{name}" for name in listed or ("*",)}
                reader.guard_target(scope.sources[0])
            else:
                shape = reader.targets([{"ResTarget": {"val": {"ColumnRef": column}}} for column in columns], scope)
            reader.expression(fields.get("whereClause"), scope)
            acts = list(self._acts([(WRITE if incoming else READ, "COPY", restricts(fields.get("whereClause")))]))
        if fields.get("is_program") or fields.get("filename"):  # a command or a file of the server
            acts += self._acts([(PRIVILEGE, "COPY", False)])
            return Statement(acts=tuple(dict.fromkeys(acts)), word="COPY")
        kind = CopyKind.IN if incoming else CopyKind.OUT
        output = None if incoming else Output(shape=shape)
        return Statement(acts=tuple(dict.fromkeys(acts)), word="COPY", copy=kind, output=output)

    # Session

    def _simple(self, action: str, word: str, *, rows: bool = False) -> Statement:
        """A statement of one class. SHOW's column holds no column of a table; other rows are not proved."""
        output = Output(shape=(OutputColumn(name=word, taint=EMPTY, plain=False),)) if word == "SHOW" else None
        return Statement(acts=self._acts([(action, word, False)]), word=word, returns_rows=rows, output=output)

    def _transaction(self, fields: Fields) -> Statement:
        kind = fields.get("kind", "TRANS_STMT_BEGIN")
        if kind not in _TRANSACTION:  # two-phase: PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED
            return self._simple(PRIVILEGE, "PREPARE TRANSACTION" if kind == "TRANS_STMT_PREPARE" else "END PREPARED")
        transaction, word = _TRANSACTION[kind]
        return replace(self._simple(SESSION, word), transaction=transaction)

    def _set(self, fields: Fields) -> Statement:
        kind, name = fields.get("kind", ""), fields.get("name", "")
        word = "RESET" if kind in ("VAR_RESET", "VAR_RESET_ALL") else "SET"
        self._reader.expression(fields.get("args"), None)
        if kind == "VAR_RESET_ALL" or kind == "VAR_SET_MULTI":  # the latter: TRANSACTION, SESSION CHARACTERISTICS
            return self._simple(SESSION, word)
        values = None
        if kind == "VAR_SET_VALUE":
            constants = [arg.get("A_Const", {}) for arg in fields.get("args", [])]
            values = tuple(_constant(constant) for constant in constants)
        guarded = is_guarded_setting(name, values)
        role = name in ("role", "session_authorization")
        full_word = f"{word} {name.upper().replace('_', ' ')}" if role else word
        return self._simple(PRIVILEGE if guarded else SESSION, full_word)

    def _forget(self, kind: str, fields: Fields) -> Statement:
        named: Named | None = None
        match kind:
            case "DeallocateStmt":
                every = fields.get("isall", False) or "name" not in fields
                kind_of = NamedKind.DEALLOCATE_ALL if every else NamedKind.DEALLOCATE
                named, word = Named(kind=kind_of, name=fields.get("name", "")), "DEALLOCATE"
            case "ClosePortalStmt":
                kind_of = NamedKind.CLOSE if "portalname" in fields else NamedKind.CLOSE_ALL
                named, word = Named(kind=kind_of, name=fields.get("portalname", "")), "CLOSE"
            case _:
                word = "DISCARD"
                if fields.get("target", "DISCARD_ALL") == "DISCARD_ALL":
                    named = Named(kind=NamedKind.DISCARD_ALL, name="")
        return replace(self._simple(SESSION, word), named=named)

    # Definitions

    def _definition(self, kind: str, fields: Fields) -> Statement:
        reader = self._reader
        match kind:
            case "ViewStmt" | "CreateTableAsStmt":
                return self._stored_query(kind, fields)
            case "CreateSchemaStmt":
                return self._schema(fields)
            case "CreateFunctionStmt" | "AlterFunctionStmt":
                return self._function(kind, fields)
            case "RuleStmt":
                self._rule(fields)
            case "DropStmt":
                self._dropped(fields)
            case "AlterTableStmt" | "CreateStmt" | "RenameStmt" | "AlterObjectSchemaStmt":
                self._table_change(kind, fields)
            case "CreateTrigStmt":
                reader.facts.functions.add(".".join(strings(fields["funcname"])[-2:]))
                target = reader.relation(fields["relation"], None)
                rows = [target.renamed("old"), target.renamed("new")]
                reader.expression(fields.get("whenClause"), Scope(sources=rows))
            case "IndexStmt" | "CreateStatsStmt":
                relations = (
                    [fields["relation"]] if "relation" in fields else [r["RangeVar"] for r in fields["relations"]]
                )
                scope = Scope(sources=[reader.relation(relation, None) for relation in relations])
                reader.expression({k: v for k, v in fields.items() if k not in ("relation", "relations")}, scope)
            case "DoStmt":
                pass  # its body is text
            case _ if kind in FIXED:
                reader.expression(fields, None)
            case _ if by_object(kind, fields) is not None:
                reader.expression(fields, None)
            case _:
                raise NotUnderstood(f"statements of kind {kind} are not known here")
        action, word = by_object(kind, fields) or FIXED[kind]
        statement = self._simple(action, word)
        return replace(statement, changes_names=action not in (SESSION, WRITE))

    def _stored_query(self, kind: str, fields: Fields) -> Statement:
        """CREATE VIEW, CREATE TABLE AS, CREATE MATERIALIZED VIEW: a query under a name."""
        created = fields["view"] if kind == "ViewStmt" else fields["into"]["rel"]
        full_name = self._catalogue.full_name(created.get("schemaname", ""), created["relname"])
        words = {"OBJECT_MATVIEW": "CREATE MATERIALIZED VIEW", "OBJECT_TABLE": "CREATE TABLE AS"}
        word = "CREATE VIEW" if kind == "ViewStmt" else words.get(fields.get("objtype", ""), "CREATE TABLE AS")
        query = fields["query"]
        given: tuple[Act, ...] = ()
        named: Named | None = None
        if "ExecuteStmt" in query:  # CREATE TABLE AS EXECUTE
            inner = self._inner(query)
            given, named = inner.acts, _executed(inner)
            self._reader.store(shape_taint(inner.output.shape) if inner.output else EMPTY)
        else:
            self._reader.store(shape_taint(self._reader.query(query, None)))
        self._reader.facts.tables.add(full_name)
        facts = self._reader.facts
        base = [(WRITE, m.word, m.has_where) for m in facts.modifications]
        acts = self._acts([(DEFINE, word, False), *base])
        acts = tuple(dict.fromkeys((*acts, *given)))
        return Statement(acts=acts, word=word, named=named, changes_names=True)

    def _schema(self, fields: Fields) -> Statement:
        inner = [self._inner(element) for element in fields.get("schemaElts", ())]
        # AUTHORIZATION makes another role its owner.
        action = PRIVILEGE if "authrole" in fields else DEFINE
        acts = (*self._acts([(action, "CREATE SCHEMA", False)]), *(act for s in inner for act in s.acts))
        return Statement(acts=tuple(dict.fromkeys(acts)), word="CREATE SCHEMA", changes_names=True)

    def _function(self, kind: str, fields: Fields) -> Statement:
        """A body that is text was not read, and a later call may claim to be immutable: such a definition is opaque."""
        named = fields.get("funcname") or fields.get("func", {}).get("objname", [])
        self._reader.facts.functions.add(".".join(strings(named)[-2:]))
        procedure = fields.get("is_procedure") or fields.get("objtype") == "OBJECT_PROCEDURE"
        verb = "CREATE" if kind == "CreateFunctionStmt" else "ALTER"
        word = f"{verb} {'PROCEDURE' if procedure else 'FUNCTION'}"
        base = [(DEFINE, word, False)]
        if any(option["DefElem"].get("defname") == "as" for option in fields.get("options", ())):
            base.append((OPAQUE, word, False))
        if is_definer(fields):
            base.append((PRIVILEGE, word, False))
        self._body(fields.get("sql_body"))
        base += [(WRITE, m.word, m.has_where) for m in self._reader.facts.modifications]
        return Statement(acts=self._acts(base), word=word, changes_names=True)

    def _body(self, node: Any) -> None:
        if not node:
            return
        kind, fields = only(node)
        if kind == "List":
            for item in fields.get("items", ()):
                self._body(item)
        elif kind == "ReturnStmt":
            self._reader.expression(fields, None)
        else:
            self._reader.query(node, None)

    def _rule(self, fields: Fields) -> None:
        target = self._reader.relation(fields["relation"], None)
        scope = Scope(sources=[target.renamed("old"), target.renamed("new")])
        self._reader.expression(fields.get("whereClause"), scope)
        for action in fields.get("actions", ()):
            if "NotifyStmt" not in action:
                self._reader.query(action, scope)

    def _dropped(self, fields: Fields) -> None:
        sort = fields.get("removeType", "").removeprefix("OBJECT_")
        for names in dropped(fields):
            if sort in ("TRIGGER", "RULE", "POLICY"):
                names = names[:-1]  # the table comes first
            if sort in ("FUNCTION", "PROCEDURE", "ROUTINE", "AGGREGATE"):
                self._reader.facts.functions.add(".".join(names[-2:]))
            elif (
                sort in ("TABLE", "VIEW", "MATVIEW", "FOREIGN_TABLE", "SEQUENCE", "TRIGGER", "RULE", "POLICY") and names
            ):
                schema = names[-2] if len(names) > 1 else ""
                self._reader.facts.tables.add(self._catalogue.full_name(schema, names[-1]))

    def _table_change(self, kind: str, fields: Fields) -> None:
        """CREATE and ALTER TABLE: a default, a generated column or a USING clause may keep a masked column elsewhere,
        and a new name takes a masked column out of its rule's sight."""
        reader = self._reader
        if "relation" not in fields:
            renames = fields.get("renameType") == "OBJECT_SCHEMA" and any(
                column.schema == fields.get("subname") for column in self._catalogue.masked.columns
            )
            reader.facts.stores_masked |= renames
            return
        source = reader.relation(fields["relation"], None)
        taint = reader.expression({k: v for k, v in fields.items() if k != "relation"}, Scope(sources=[source]))
        if kind in ("AlterTableStmt", "CreateStmt"):
            reader.store(taint)
        elif fields.get("renameType") in ("OBJECT_COLUMN", "OBJECT_ATTRIBUTE"):
            reader.store(source.column(fields.get("subname", "")))
        elif source.complete or any(f"{c.schema}.{c.table}" == source.table for c in self._catalogue.masked.columns):
            reader.store(source.whole())

    # Acts

    def _acts(self, base: Iterable[tuple[str, str, bool]]) -> tuple[Act, ...]:
        """Return the Acts of ``base`` (class, word, has_where) and of what the walk added to them."""
        facts = self._reader.facts
        listed = [(WRITE if action == READ and WRITE in facts.classes else action, *rest) for action, *rest in base]
        word, where = listed[0][1], listed[0][2]
        present = {entry[0] for entry in listed}
        added = sorted((facts.classes & {PRIVILEGE, OPAQUE, SESSION}) - present)
        if facts.stores_masked and self._catalogue.masked.columns:
            added.append(DERIVES_MASKED)
        entries = [*((entry[0], entry[1], entry[2]) for entry in listed), *((action, word, where) for action in added)]
        shared = _shared_context(facts)
        return tuple(
            dict.fromkeys(
                Act(action=str(action), context=(*shared, ("statement", str(said)), ("has_where", bool(restricted))))
                for action, said, restricted in entries
            )
        )


def _shared_context(facts: Facts) -> tuple[tuple[str, Any], ...]:
    return (
        ("tables", tuple(sorted(facts.tables))),
        ("columns", tuple(sorted(facts.columns))),
        ("functions", tuple(sorted(facts.functions))),
        ("reads_masked", bool(facts.seen)),
        ("masked_outside_output", facts.outside),
    )


def _executed(inner: Statement) -> Named | None:
    """Return the EXECUTE inside another statement, which therefore means what its name does. What DECLARE or PREPARE
    would name is not named by explaining them."""
    return inner.named if inner.named is not None and inner.named.kind is NamedKind.EXECUTE else None


def _planned(act: Act) -> Act:
    """Return what planning a statement is, without running it."""
    if act.action in (PRIVILEGE, OPAQUE):
        return act
    context = tuple((name, "EXPLAIN" if name == "statement" else value) for name, value in act.context)
    return Act(action=READ, context=context)


def _is_on(option: Fields) -> bool:
    """Whether an EXPLAIN option is on, as PostgreSQL's defGetBoolean reads it; what is not plainly off is on."""
    argument = option.get("arg")
    if argument is None:
        return True
    text = argument.get("String", {}).get("sval", "").lower()
    return not (text in ("false", "off") or ("Integer" in argument and not argument["Integer"].get("ival")))


def _constant(constant: Fields) -> str:
    for key in ("sval", "ival", "fval", "boolval"):
        if key in constant:
            return str(constant[key].get(key, ""))
    return ""
