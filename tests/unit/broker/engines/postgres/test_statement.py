"""What statements mean: a table of statements with their classes, and the facts that policy reads."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.engines.postgres.origins import Masked
from broker.engines.postgres.statement import (
    CopyKind,
    TransactionKind,
    Understood,
    understand,
)
from broker.engines.postgres.statement_names import NamedKind, NameTracker
from tests.unit.broker.engines.postgres.catalogues import acts, catalogue, fact, one, read, words

READ = [
    ("SELECT 1", "SELECT"),
    ("VALUES (1), (2)", "SELECT"),
    ("TABLE orders", "SELECT"),
    ("SELECT * FROM orders WHERE id = 1", "SELECT"),
    ("WITH x AS (SELECT 1) SELECT * FROM x", "SELECT"),
    ("SELECT count(*), now() FROM orders GROUP BY id", "SELECT"),
    ("EXPLAIN SELECT 1", "EXPLAIN"),
    ("EXPLAIN DELETE FROM orders", "EXPLAIN"),
    ("EXPLAIN (ANALYZE off) DELETE FROM orders", "EXPLAIN"),
    ("COPY orders TO STDOUT", "COPY"),
    ("COPY (SELECT 1) TO STDOUT", "SELECT"),
    ("DECLARE c CURSOR FOR SELECT 1", "SELECT"),
    ("PREPARE p AS SELECT $1::int", "SELECT"),
    ("SELECT pg_sleep(1)", "SELECT"),
    ("SELECT similarity('a', 'b')", "SELECT"),
    ("LOCK TABLE orders IN ACCESS SHARE MODE", "LOCK"),
]
WRITE = [
    ("INSERT INTO orders VALUES (1)", "INSERT"),
    ("INSERT INTO orders SELECT 1 ON CONFLICT DO NOTHING RETURNING id", "INSERT"),
    ("UPDATE orders SET id = 1", "UPDATE"),
    ("DELETE FROM orders", "DELETE"),
    ("MERGE INTO orders USING orders o ON true WHEN MATCHED THEN DELETE", "MERGE"),
    ("TRUNCATE orders", "TRUNCATE"),
    ("WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d", "DELETE"),
    ("WITH a AS (WITH b AS (UPDATE orders SET id = 1 RETURNING id) SELECT * FROM b) TABLE a", "UPDATE"),
    ("SELECT * FROM orders FOR UPDATE", "SELECT FOR UPDATE"),
    ("SELECT * FROM (SELECT * FROM orders FOR SHARE) x", "SELECT FOR UPDATE"),
    ("EXPLAIN ANALYZE DELETE FROM orders", "DELETE"),
    ("EXPLAIN (ANALYZE, VERBOSE) INSERT INTO orders VALUES (1)", "INSERT"),
    ("EXPLAIN (ANALYZE on) DELETE FROM orders", "DELETE"),
    ("PREPARE p AS DELETE FROM orders", "DELETE"),
    ("COPY orders FROM STDIN", "COPY"),
    ("COPY (DELETE FROM orders RETURNING *) TO STDOUT", "DELETE"),
    ("SELECT writes()", "SELECT"),
    ("SELECT public.writes()", "SELECT"),
    ("SELECT never_heard_of()", "SELECT"),
    ("SELECT elsewhere.lower('x')", "SELECT"),
    ("SELECT nextval('s')", "SELECT"),
    ("SELECT 1 WHERE EXISTS (SELECT writes())", "SELECT"),
    ("SELECT sum(id) FILTER (WHERE writes()) OVER (ORDER BY writes()) FROM orders", "SELECT"),
    ("SELECT 1 @@@ 2", "SELECT"),
    ("SELECT * FROM v_count", "SELECT"),
    ("NOTIFY a, 'b'", "NOTIFY"),
    ("LOCK TABLE orders", "LOCK"),
    ("REFRESH MATERIALIZED VIEW m", "REFRESH MATERIALIZED VIEW"),
]
DEFINE = [
    ("CREATE TABLE t (a int)", "CREATE TABLE"),
    ("DROP TABLE t", "DROP TABLE"),
    ("DROP MATERIALIZED VIEW t", "DROP MATERIALIZED VIEW"),
    ("DROP FUNCTION f(int)", "DROP FUNCTION"),
    ("ALTER TABLE t ADD COLUMN b int", "ALTER TABLE"),
    ("ALTER TABLE t RENAME TO u", "ALTER TABLE"),
    ("CREATE INDEX ON t (a)", "CREATE INDEX"),
    ("CREATE VIEW v AS SELECT 1", "CREATE VIEW"),
    ("CREATE TABLE t AS SELECT 1", "CREATE TABLE AS"),
    ("CREATE MATERIALIZED VIEW t AS SELECT 1", "CREATE MATERIALIZED VIEW"),
    ("SELECT 1 INTO t", "SELECT INTO"),
    ("CREATE SEQUENCE s", "CREATE SEQUENCE"),
    ("CREATE TYPE t AS ENUM ('a')", "CREATE TYPE"),
    ("CREATE SCHEMA s", "CREATE SCHEMA"),
    ("CREATE FUNCTION f() RETURNS int RETURN 1", "CREATE FUNCTION"),
    ("CREATE TRIGGER t BEFORE INSERT ON orders EXECUTE FUNCTION f()", "CREATE TRIGGER"),
    ("VACUUM FULL orders", "VACUUM"),
    ("ANALYZE orders", "ANALYZE"),
    ("REINDEX TABLE orders", "REINDEX"),
    ("COMMENT ON TABLE orders IS 'x'", "COMMENT"),
]
SESSION = [
    ("SET statement_timeout = 10", "SET"),
    ("SET LOCAL work_mem = '1MB'", "SET"),
    ("SET TRANSACTION READ ONLY", "SET"),
    ("SET client_encoding = 'UTF8'", "SET"),
    ("SET NAMES 'utf8'", "SET"),
    ("SET standard_conforming_strings = on", "SET"),
    ("RESET statement_timeout", "RESET"),
    ("RESET ALL", "RESET"),
    ("DISCARD ALL", "DISCARD"),
    ("SHOW search_path", "SHOW"),
    ("BEGIN", "BEGIN"),
    ("START TRANSACTION READ ONLY", "START TRANSACTION"),
    ("COMMIT", "COMMIT"),
    ("END", "COMMIT"),
    ("ROLLBACK TO s", "ROLLBACK TO"),
    ("DEALLOCATE ALL", "DEALLOCATE"),
    ("CLOSE ALL", "CLOSE"),
    ("LISTEN a", "LISTEN"),
    ("UNLISTEN *", "UNLISTEN"),
]
PRIVILEGE = [
    ("SET ROLE postgres", "SET ROLE"),
    ("RESET ROLE", "RESET ROLE"),
    ("SET SESSION AUTHORIZATION joe", "SET SESSION AUTHORIZATION"),
    ("SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION"),
    ("SET search_path = pg_temp, public", "SET"),
    ("SET SCHEMA 'x'", "SET"),
    ("SET application_name = 'x'", "SET"),
    ("RESET application_name", "RESET"),
    ("SET client_encoding = 'SJIS'", "SET"),
    ("SET standard_conforming_strings = off", "SET"),
    ("SET session_replication_role = replica", "SET"),
    ("SET log_statement = 'none'", "SET"),
    ("CREATE ROLE r", "CREATE ROLE"),
    ("CREATE USER r PASSWORD 'x'", "CREATE ROLE"),
    ("ALTER ROLE r SUPERUSER", "ALTER ROLE"),
    ("ALTER ROLE r SET search_path = x", "ALTER ROLE"),
    ("ALTER USER r PASSWORD 'x'", "ALTER ROLE"),
    ("DROP ROLE r", "DROP ROLE"),
    ("GRANT SELECT ON orders TO PUBLIC", "GRANT"),
    ("REVOKE SELECT ON orders FROM PUBLIC", "GRANT"),
    ("GRANT a TO b", "GRANT"),
    ("REASSIGN OWNED BY a TO b", "REASSIGN OWNED"),
    ("DROP OWNED BY a", "DROP OWNED"),
    ("ALTER TABLE orders OWNER TO a", "ALTER TABLE"),
    ("ALTER FUNCTION f() OWNER TO a", "ALTER OWNER"),
    ("ALTER TABLE orders DISABLE ROW LEVEL SECURITY", "ALTER TABLE"),
    ("ALTER TABLE orders DISABLE TRIGGER ALL", "ALTER TABLE"),
    ("DROP POLICY p ON orders", "DROP POLICY"),
    ("CREATE POLICY p ON orders", "CREATE POLICY"),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO a", "ALTER DEFAULT PRIVILEGES"),
    ("ALTER SYSTEM SET a = 'b'", "ALTER SYSTEM"),
    ("ALTER DATABASE d SET a = 'b'", "ALTER DATABASE"),
    ("LOAD 'x'", "LOAD"),
    ("CREATE EXTENSION x", "CREATE EXTENSION"),
    ("DROP EXTENSION x", "DROP EXTENSION"),
    ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "CREATE SUBSCRIPTION"),
    ("CREATE PUBLICATION p FOR ALL TABLES", "CREATE PUBLICATION"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER f", "CREATE SERVER"),
    ("CREATE FOREIGN TABLE t (a int) SERVER s", "CREATE FOREIGN TABLE"),
    ("CREATE USER MAPPING FOR a SERVER s", "CREATE USER MAPPING"),
    ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
    ("COMMIT PREPARED 'x'", "END PREPARED"),
    ("CHECKPOINT", "CHECKPOINT"),
    ("CREATE TABLESPACE t LOCATION '/x'", "CREATE TABLESPACE"),
    ("SECURITY LABEL ON TABLE orders IS 'x'", "SECURITY LABEL"),
    ("CREATE SCHEMA AUTHORIZATION joe", "CREATE SCHEMA"),
]
OPAQUE = [
    ("DO 'x'", "DO"),
    ("CALL p(1)", "CALL"),
    ("EXECUTE nobody_knows(1)", "EXECUTE"),
    ("FETCH ALL FROM c", "FETCH"),
]
TABLE = [
    *((text, {("read", word)}) for text, word in READ),
    *((text, {("write", word)}) for text, word in WRITE),
    *((text, {("define", word)}) for text, word in DEFINE),
    *((text, {("session", word)}) for text, word in SESSION),
    *((text, {("privilege", word)}) for text, word in PRIVILEGE),
    *((text, {("opaque", word)}) for text, word in OPAQUE),
    # More than one thing at a time.
    ("WITH d AS (DELETE FROM orders) UPDATE orders SET id = 1", {("write", "DELETE"), ("write", "UPDATE")}),
    ("SELECT pg_read_file('x')", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("SELECT pg_catalog.pg_read_file('x')", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("EXPLAIN SELECT lo_export(1, 'x')", {("read", "EXPLAIN"), ("privilege", "SELECT")}),
    ("SELECT dblink('host=x', 'y')", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("SELECT pg_terminate_backend(1)", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("SELECT query_to_xml('DELETE FROM orders', true, true, '')", {("read", "SELECT"), ("opaque", "SELECT")}),
    ("SELECT crosstab('SELECT 1')", {("read", "SELECT"), ("opaque", "SELECT")}),
    ("SELECT set_config('work_mem', '1MB', false)", {("read", "SELECT"), ("session", "SELECT")}),
    ("SELECT set_config('role', 'postgres', false)", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("SELECT set_config('ro' || 'le', 'postgres', false)", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("SELECT * FROM pg_authid", {("read", "SELECT"), ("privilege", "SELECT")}),
    ("UPDATE pg_settings SET setting = 'x'", {("write", "UPDATE"), ("privilege", "UPDATE")}),
    ("INSERT INTO pg_catalog.pg_class VALUES (1)", {("write", "INSERT"), ("privilege", "INSERT")}),
    ("COPY orders TO PROGRAM 'sh'", {("read", "COPY"), ("privilege", "COPY")}),
    ("COPY orders TO '/tmp/x'", {("read", "COPY"), ("privilege", "COPY")}),
    ("COPY orders FROM '/etc/passwd'", {("write", "COPY"), ("privilege", "COPY")}),
    ("CREATE TABLE t AS EXECUTE p", {("define", "CREATE TABLE AS"), ("opaque", "EXECUTE")}),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        {("define", "CREATE FUNCTION"), ("opaque", "CREATE FUNCTION")},
    ),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1",
        {("define", "CREATE FUNCTION"), ("privilege", "CREATE FUNCTION")},
    ),
    (
        "CREATE PROCEDURE f() BEGIN ATOMIC DELETE FROM orders; END",
        {("define", "CREATE PROCEDURE"), ("write", "DELETE")},
    ),
    ("CREATE SCHEMA s CREATE TABLE t (a int)", {("define", "CREATE SCHEMA"), ("define", "CREATE TABLE")}),
    ("SELECT 1; DROP TABLE t", {("read", "SELECT"), ("define", "DROP TABLE")}),
]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[text for text, _ in TABLE])
def test_every_statement_has_its_class_and_word(text: str, expected: set[tuple[str, str]]) -> None:
    """Policy sees a statement only through these: a wrong class is a hole in every rule on it."""
    assert acts(text) == expected


def test_tables_are_named_with_their_schema() -> None:
    """A rule on `public.customers` must meet it however it is written; CTE names are no tables."""
    assert fact("WITH x AS (SELECT 1) SELECT * FROM customers, x", "tables") == ("public.customers",)
    assert fact("SELECT * FROM other.t JOIN pg_class ON true", "tables") == ("other.t", "pg_catalog.pg_class")
    assert fact("SELECT * FROM not_there", "tables") == ("public.not_there",)
    assert fact("DROP TABLE customers, a.b", "tables") == ("a.b", "public.customers")
    assert fact("SELECT 1 FROM orders WHERE EXISTS (SELECT 1 FROM customers)", "tables") == (
        "public.customers",
        "public.orders",
    )


def test_a_view_counts_as_itself_and_as_what_is_under_it() -> None:
    """A rule on the table must not be passed by through a view on it."""
    assert fact("SELECT id FROM v_customers", "tables") == ("public.customers", "public.v_customers")


def test_columns_are_named_with_their_table_where_that_is_proved() -> None:
    """Where it is not proved the column is `?.name`, and a masked one that it may be is named as well."""
    assert fact("SELECT c.name FROM customers c", "columns") == ("public.customers.name",)
    assert fact("SELECT name FROM customers", "columns") == ("public.customers.name",)
    assert fact("SELECT amount FROM customers, orders", "columns") == ("public.orders.amount",)
    assert fact("SELECT a FROM orders, not_there", "columns") == ("?.a",)
    assert fact("SELECT email FROM customers, orders", "columns") == ("?.email", "public.customers.email")
    assert "public.customers.email" in str(fact("SELECT * FROM customers", "columns"))


def test_functions_are_named_as_written() -> None:
    """Qualified where they are, bare otherwise; keyword syntax has PostgreSQL's own name."""
    assert fact("SELECT lower(upper('x')), public.f(), EXTRACT(year FROM now())", "functions") == (
        "lower",
        "now",
        "pg_catalog.extract",
        "public.f",
        "upper",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DELETE FROM orders WHERE id = 1", True),
        ("DELETE FROM orders", False),
        ("DELETE FROM orders WHERE true", False),
        ("DELETE FROM orders WHERE 1 = 1 AND NOT false", False),
        ("DELETE FROM orders WHERE CURRENT OF c", True),
        ("UPDATE orders SET id = 2 WHERE id = $1", True),
        ("INSERT INTO orders VALUES (1)", False),
    ],
)
def test_has_where_means_that_the_row_decides(text: str, expected: bool) -> None:
    """`WHERE true` was a way past every rule on statements without WHERE."""
    assert fact(text, "has_where") is expected


def test_masked_columns_are_facts() -> None:
    """P5: a rule can refuse them outside a plain output list, so it must be told of both."""
    for text, reads, outside in [
        ("SELECT id FROM customers", False, False),
        ("SELECT email FROM customers", True, False),
        ("SELECT * FROM customers", True, False),
        ("SELECT e FROM (SELECT email AS e FROM customers) x", True, False),
        ("SELECT email FROM customers UNION ALL SELECT 'x'", True, False),
        ("SELECT email FROM customers UNION SELECT 'x'", True, True),
        ("SELECT DISTINCT email FROM customers", True, True),
        ("SELECT id FROM customers WHERE email = 'x'", True, True),
        ("SELECT id FROM customers ORDER BY email", True, True),
        ("SELECT id, email FROM customers ORDER BY 2", True, True),
        ("SELECT id, email FROM customers ORDER BY 1", True, False),
        ("SELECT email AS e FROM customers ORDER BY e", True, True),
        ("SELECT count(*) FROM customers GROUP BY email", True, True),
        ("SELECT id FROM customers GROUP BY id HAVING max(email) > 'x'", True, True),
        ("SELECT o.id FROM orders o JOIN customers c ON c.email = o.note", True, True),
        ("SELECT o.id FROM orders o JOIN customers c USING (email)", True, True),
        ("SELECT o.id FROM orders o NATURAL JOIN customers c", True, True),
        ("SELECT lower(email) FROM customers", True, True),
        ("SELECT email || '' FROM customers", True, True),
        ("SELECT c FROM customers c", True, True),
        ("SELECT c.row_to_json FROM customers c", True, True),
        ("SELECT (SELECT email FROM customers LIMIT 1)", True, True),
        ("SELECT EXISTS (SELECT * FROM customers WHERE id = 1)", False, False),
        ("SELECT EXISTS (SELECT 1 FROM customers WHERE email = 'x')", True, True),
        ("SELECT id FROM orders LIMIT (SELECT length(email) FROM customers LIMIT 1)", True, True),
        ("DELETE FROM customers WHERE email = 'x'", True, True),
        ("DELETE FROM customers RETURNING email", True, False),
        ("SELECT * FROM pg_stats", True, False),
    ]:
        assert (fact(text, "reads_masked"), fact(text, "masked_outside_output")) == (reads, outside), text


def test_without_masks_nothing_is_masked() -> None:
    """A target without column rules pays nothing and loses nothing."""
    understood = understand("SELECT email, lower(email) FROM customers", catalogue(Masked(columns=frozenset())))
    assert dict(understood.acts[0].context)["reads_masked"] is False


def test_the_engine_is_told_what_it_must_do() -> None:
    """COPY, transactions, names and DDL need more than a verdict."""
    assert one("COPY orders FROM STDIN").copy is CopyKind.IN
    assert one("COPY orders TO STDOUT").copy is CopyKind.OUT
    assert one("COPY orders TO '/x'").copy is None
    assert one("COMMIT AND CHAIN").transaction is TransactionKind.COMMIT
    assert one("ABORT").transaction is TransactionKind.ROLLBACK
    assert one("CREATE TABLE t (a int)").changes_names
    assert not one("SELECT 1").changes_names
    assert one("SELECT 1").returns_rows
    assert one("DELETE FROM orders RETURNING 1").returns_rows
    assert not one("DELETE FROM orders").returns_rows
    named = one("PREPARE p AS SELECT 1").named
    assert named is not None
    assert (named.kind, named.name) == (NamedKind.PREPARE, "p")


def test_empty_is_said_and_is_not_refused() -> None:
    """A driver's ping may be an empty query; it is forwarded without policy, so nothing else may look empty."""
    for text in ("", "  ", ";", "-- DROP TABLE x", "/* ; */ ;;"):
        assert read(text).empty
        assert read(text).refused == ""
    assert not read("SELECT 1").empty
    assert not read("SELEC 1").empty


def test_what_does_not_parse_is_refused() -> None:
    """Never forwarded: another parser, or another version, may read it as something else."""
    for text in ("SELEC 1", "SELECT 'open", "SELECT 1 /*", "SELECT \0", "SELECT '\ud800'", "SELECT 1;;SELEC"):
        understood = read(text)
        assert understood.refused
        assert understood.acts == ()


def test_an_execute_is_what_was_prepared() -> None:
    """SQL's EXECUTE runs what its name stands for: judged as that, by the server's word that it exists."""
    target = catalogue()
    tracker = NameTracker()
    (prepared,) = understand("PREPARE p AS DELETE FROM orders WHERE id = $1", target).statements
    assert acts("EXECUTE p(1)") == {("opaque", "EXECUTE")}
    tracker.ran(prepared)
    (found,) = understand("EXECUTE p(1)", target, tracker.view()).statements
    assert [act.action for act in found.acts] == ["sql:write"]
    (inner,) = understand("EXPLAIN ANALYZE EXECUTE p(1)", target, tracker.view()).statements
    assert [act.action for act in inner.acts] == ["sql:write"]
    (deallocated,) = understand("DEALLOCATE p", target).statements
    tracker.ran(deallocated)
    assert understand("EXECUTE p(1)", target, tracker.view()).acts[0].action == "sql:opaque"


def test_arguments_of_an_execute_are_read_too() -> None:
    """`EXECUTE p(pg_read_file(...))` reads the file whatever p is."""
    text = "PREPARE p AS SELECT $1::text; EXECUTE p(pg_read_file('/etc/passwd'))"
    assert ("privilege", "EXECUTE") in acts(text)


def test_names_of_one_text_follow_its_order() -> None:
    """In a batch the second PREPARE of a name counts only after its DEALLOCATE, as on the server."""
    text = "PREPARE p AS SELECT 1; DEALLOCATE p; PREPARE p AS DELETE FROM orders; EXECUTE p"
    assert [statement.acts[0].action for statement in read(text).statements][-1] == "sql:write"
    text = "DECLARE c CURSOR FOR SELECT email FROM customers; FETCH c"
    fetched = read(text).statements[1]
    assert fetched.output is not None
    assert fetched.output.taint(0, 1)


def test_a_statement_that_uses_names_is_not_cached() -> None:
    """The same text means something else once the name does."""
    target = catalogue()
    tracker = NameTracker()
    tracker.ran(understand("PREPARE q AS SELECT 1", target).statements[0])
    assert understand("EXECUTE q", target, tracker.view()).acts[0].action == "sql:read"
    assert understand("EXECUTE q", target).acts[0].action == "sql:opaque"
    for text in ("EXPLAIN ANALYZE EXECUTE q", "CREATE TABLE t AS EXECUTE q"):
        assert "sql:opaque" not in {act.action for act in understand(text, target, tracker.view()).acts}
        assert "sql:opaque" in {act.action for act in understand(text, target).acts}
        named = understand(text, target).statements[0].named
        assert named is not None  # the engine waits for earlier answers before it judges this
        assert named.kind is NamedKind.EXECUTE


def test_secrets_in_client_text_are_named_and_not_shown() -> None:
    """What an approver reads and S3 keeps for years must not hold the client's secrets."""
    understood = read("UPDATE customers SET note = 'ann@example.org' WHERE card_number = '4111 1111 1111 1111'")
    assert "ann@example.org" not in understood.shown_text
    assert "4111" not in understood.shown_text
    assert [(literal.kind, literal.length) for literal in understood.literals] == [("email", 15), ("card_number", 19)]
    assert "hunter2" not in read("ALTER ROLE r PASSWORD 'hunter2'").shown_text
    refused = read("SELECT 'ann@example.org' FORM 'bob@example.org'")
    assert "example.org" not in refused.shown_text + refused.refused


def test_acts_of_one_shape_are_equal() -> None:
    """Decisions are cached by facts: a literal in them would make every statement a new one."""
    assert read("SELECT * FROM orders WHERE id = 1").acts == read("SELECT * FROM orders WHERE id = 2").acts
    assert len({hash(act) for act in read("SELECT * FROM orders WHERE id = 3").acts}) == 1


_WORDS = st.sampled_from(
    words(
        """
        SELECT FROM WHERE customers orders email ( ) , * ; WITH x AS DELETE INSERT INTO VALUES UPDATE SET =
        'a' 1 UNION ALL RECURSIVE JOIN USING ON CASE WHEN THEN END EXISTS IN NOT EXPLAIN ANALYZE PREPARE
        EXECUTE COPY TO STDOUT DECLARE CURSOR FOR FETCH ARRAY [ ] ROW . :: text lower count OVER FILTER
        LATERAL TABLE GROUP BY ORDER LIMIT
        """
    )
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=25).map(" ".join)))
@example("SELECT (SELECT * FROM customers).x")
@example("SELECT * FROM customers AS c(a, b)")
def test_junk_is_refused_or_understood_and_never_raises(text: str) -> None:
    """An exception in the parser must not end up anywhere but in a refusal."""
    understood = understand(text, catalogue())
    assert isinstance(understood, Understood)
    assert understood.empty or bool(understood.acts) != bool(understood.refused)
