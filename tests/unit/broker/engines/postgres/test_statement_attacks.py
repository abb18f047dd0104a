"""Attacks on the reading of statements: security.md, PostgreSQL, and standards.md 6.4. Each has its control."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker.engines.postgres.origins import NOT_PROVED, Volatility
from broker.engines.postgres.statement_reads import Reader
from broker.engines.postgres.statement_tree import MAX_TEXT, NotUnderstood, parse
from tests.unit.broker.engines.postgres.catalogues import CARD, EMAIL, acts, catalogue, fact, one, read


def _taints(text: str) -> list[set[str]]:
    output = one(text).output
    assert output is not None
    count = len(output.shape)
    return [{column.column for column in output.taint(index, count)} for index in range(count)]


def test_control_what_reads_no_masked_column_is_proved_clear() -> None:
    """Without this every other test here could pass by calling everything masked."""
    for text in (
        "SELECT count(*) FROM customers",
        "SELECT id + 1, upper(name) FROM customers WHERE email = 'x'",
        "SELECT 1, now(), 'x'",
        "SELECT n FROM (SELECT name AS n FROM customers) x",
        "SELECT id FROM v_customers",
        "SELECT name FROM customers UNION SELECT note FROM customers",
        "SELECT sum(amount_cents) OVER (ORDER BY id) FROM orders",
    ):
        assert not any(_taints(text)), text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT lower(email) FROM customers",
        "SELECT email::text FROM customers",
        "SELECT customers::text FROM customers",
        "SELECT customers FROM customers",
        "SELECT to_json(c) FROM customers c",
        "SELECT c.to_json FROM customers c",
        "SELECT (c).email FROM customers c",
        "SELECT ROW(c.*) FROM customers c",
        "SELECT string_agg(email, ',') FROM customers",
        "SELECT array_agg(c) FROM customers c",
        "SELECT ARRAY(SELECT email FROM customers)",
        "SELECT (SELECT email FROM customers LIMIT 1)",
        "SELECT CASE WHEN email LIKE 'a%' THEN 1 END FROM customers",
        "SELECT EXISTS (SELECT 1 FROM customers WHERE email LIKE 'a%')",
        "SELECT count(*) FILTER (WHERE email LIKE 'a%') FROM customers",
        "SELECT x.e FROM (SELECT lower(email) AS e FROM customers) x",
        "SELECT x.lower FROM (SELECT lower(email) FROM customers) x",
        "SELECT lower FROM (SELECT lower(email) FROM customers) x",
        "SELECT b FROM (SELECT id, email FROM customers) x(a, b)",
        "SELECT x FROM (SELECT email FROM customers) x",
        "WITH x AS (SELECT email AS y FROM customers) SELECT y || '' FROM x",
        "WITH x(y) AS (SELECT email FROM customers) SELECT y FROM x UNION ALL SELECT 'a'",
        "WITH RECURSIVE r AS (SELECT name a, email b FROM customers UNION ALL SELECT b, a FROM r) SELECT a FROM r",
        "SELECT note FROM customers UNION ALL SELECT email FROM customers",
        "SELECT z FROM customers, LATERAL (SELECT email AS z) q",
        "SELECT g FROM customers, LATERAL unnest(ARRAY[email]) g",
        "SELECT j.email || '' FROM (customers c JOIN orders o ON true) AS j",
        "SELECT low FROM v_customers",
        "SELECT v FROM v_customers v",
        "SELECT most_common_vals FROM pg_stats",
        "SELECT reads(1)",
        "SELECT made_a_second_ago.x || '' FROM made_a_second_ago",
        "SELECT xmlelement(name x, email) FROM customers",
        "SELECT max(email) OVER () FROM customers",
        "DELETE FROM customers RETURNING lower(email)",
        "WITH d AS (DELETE FROM customers RETURNING email AS e) SELECT e || '' FROM d",
    ],
)
def test_origin_hidden_behind_an_expression_view_union_or_whole_row(text: str) -> None:
    """The server reports no origin for these (or the view's): the parse must say what they may hold."""
    assert all(_taints(text)), text


def test_a_star_beside_an_expression_does_not_shift_the_proof() -> None:
    """RowDescription is matched by position; a star of unknown width must not move a masked expression out of it."""
    output = one("SELECT o.*, lower(c.email), 1 FROM orders o, customers c").output
    assert output is not None
    assert [bool(output.taint(index, 7)) for index in range(7)] == [False] * 5 + [True, False]
    merged = one("SELECT * FROM orders FULL JOIN customers USING (email)").output
    assert merged is not None
    assert merged.taint(0, 9)
    between = one("SELECT c.*, lower(c.email), o.* FROM customers c, orders o").output
    assert between is not None
    assert between.taint(6, 10)  # one more column in customers moves the expression among those of orders
    grown = one("SELECT c.*, lower(c.email) FROM customers c").output
    assert grown is not None
    assert grown.taint(6, 7) == {NOT_PROVED}  # the table has a column more than the snapshot knew
    assert grown.taint(5, 6) == {EMAIL}


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TEMP VIEW v AS SELECT email y FROM customers",
        "CREATE VIEW v AS SELECT * FROM customers",
        "CREATE VIEW v AS SELECT low FROM v_customers",
        "CREATE TABLE t AS SELECT c FROM customers c",
        "CREATE MATERIALIZED VIEW t AS SELECT max(email) FROM customers",
        "SELECT email INTO t FROM customers",
        "INSERT INTO orders (note) SELECT email FROM customers",
        "INSERT INTO orders VALUES (1, (SELECT email FROM customers LIMIT 1))",
        "INSERT INTO orders VALUES (1) ON CONFLICT (id) DO UPDATE SET note = (SELECT max(email) FROM customers)",
        "UPDATE customers SET note = email",
        "UPDATE customers SET email = card_number",
        "UPDATE orders o SET note = c.email FROM customers c",
        "UPDATE orders SET (a, b) = (SELECT email, card_number FROM customers LIMIT 1)",
        "MERGE INTO orders o USING customers c ON o.id = c.id WHEN MATCHED THEN UPDATE SET note = c.email",
        "MERGE INTO orders o USING customers c ON o.id = c.id WHEN NOT MATCHED THEN INSERT VALUES (c.email)",
        "WITH x AS (INSERT INTO orders SELECT email FROM customers RETURNING 1) SELECT * FROM x",
        "PREPARE p AS INSERT INTO orders SELECT email FROM customers",
        "EXPLAIN ANALYZE INSERT INTO orders SELECT email FROM customers",
        "CREATE RULE r AS ON INSERT TO customers DO ALSO INSERT INTO orders VALUES (new.email)",
        "ALTER TABLE customers ALTER COLUMN note TYPE text USING email",
        "ALTER TABLE customers ADD COLUMN copy text GENERATED ALWAYS AS (email) STORED",
        "ALTER TABLE customers RENAME COLUMN email TO not_email",
        "ALTER TABLE customers RENAME TO not_customers",
        "ALTER TABLE customers SET SCHEMA elsewhere",
        "ALTER SCHEMA public RENAME TO elsewhere",
        "SELECT pg_notify('x', email) FROM customers",
        "SELECT set_config('x.y', email, false) FROM customers",
        "SELECT lo_from_bytea(0, email::bytea) FROM customers",
        "SELECT writes(c) FROM customers c",
    ],
)
def test_storing_a_masked_column_elsewhere(text: str) -> None:
    """Out of its column a value is out of its rule: a class of its own, refused unless permitted."""
    assert "derives_masked" in {action for action, _ in acts(text)}


def test_control_storing_what_is_not_masked_is_ordinary() -> None:
    """Else nobody could migrate anything."""
    for text in (
        "CREATE VIEW v AS SELECT id, name FROM customers",
        "CREATE VIEW v AS SELECT id FROM customers WHERE email IS NOT NULL",
        "INSERT INTO orders SELECT id FROM customers",
        "UPDATE customers SET email = lower(email)",
        "UPDATE customers SET email = 'x', note = name",
        "ALTER TABLE customers RENAME COLUMN note TO remark",
        "ALTER TABLE customers DROP COLUMN email",
        "CREATE TABLE t AS SELECT * FROM orders",
    ):
        assert "derives_masked" not in {action for action, _ in acts(text)}, text


def test_pg_temp_customers_shadows_the_real_table() -> None:
    """A temporary table of the same name is found last, and is another table when it is named so."""
    assert catalogue().resolve("", "customers") == catalogue().resolve("public", "customers")
    assert fact("SELECT email FROM pg_temp.customers", "tables") == ("pg_temp.customers",)
    assert acts("SET search_path = pg_temp, public") == {("privilege", "SET")}


def test_set_application_name_in_every_form() -> None:
    """It erases the chain from the target's own log."""
    for text in (
        "SET application_name = 'x'",
        "SET LOCAL application_name TO DEFAULT",
        'SET "application_name" = x',
        "SET Application_Name = x",
        "RESET application_name",
        "SELECT set_config('application_name', 'x', true)",
        "SELECT pg_catalog.set_config('APPLICATION_NAME', 'x', true)",
        "SELECT set_config(lower('APPLICATION_NAME'), 'x', true)",
        "UPDATE pg_settings SET setting = 'x' WHERE name = 'application_name'",
        "PREPARE p AS SELECT set_config($1, $2, false)",
        "WITH x AS (SELECT set_config('application_name', 'x', false)) SELECT 1",
        "VALUES (set_config('application_name', 'x', false))",
        "INSERT INTO orders VALUES (set_config('application_name', 'x', false))",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET application_name = 'x' AS 'SELECT 1'",
        "ALTER ROLE CURRENT_USER SET application_name = 'x'",
    ):
        assert "privilege" in {action for action, _ in acts(text)}, text


def test_a_function_of_a_user_shadows_a_calm_builtin() -> None:
    """Overloads are chosen along the whole path: a volatile public.length may be what length() calls."""
    assert catalogue().volatility("", "length") is Volatility.VOLATILE
    assert catalogue().volatility("pg_catalog", "length") is Volatility.CALM
    assert acts("SELECT length(name) FROM customers") == {("write", "SELECT")}
    assert acts("SELECT pg_catalog.length(name) FROM customers") == {("read", "SELECT")}


def test_comments_quotes_and_escapes_hide_nothing() -> None:
    """The real lexer reads nested comments, dollar quotes, U& names and E strings."""
    assert acts("/* /* */ SELECT 1; */ DELETE FROM orders") == {("write", "DELETE")}
    assert acts("SELECT $a$; DELETE FROM orders;$a$") == {("read", "SELECT")}
    assert acts("SELECT 'it''s; DROP TABLE x'") == {("read", "SELECT")}
    assert acts("SELECT E'\\'; DROP TABLE x; --'") == {("read", "SELECT")}
    assert fact('SELECT * FROM U&"\\0063ustomers"', "tables") == ("public.customers",)
    assert acts("SELECT 1 --\n; DROP TABLE x") == {("read", "SELECT"), ("define", "DROP TABLE")}


def test_deep_nesting_does_not_end_the_process() -> None:
    """libpg_query writes its tree recursively: chains past 30,000 levels overflowed its stack and took the broker down.

    Run in a process of its own, since what it guards against is a crash.
    """
    program = """
import threading, time
from tests.unit.broker.engines.postgres.catalogues import read
bombs = {
    "parentheses": "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    "operators": "SELECT 1" + "+1" * 60_000,
    "calls": "SELECT 1" + "+f(1,2)" * 20_000,
    "cases": "SELECT 1" + "+CASE WHEN true THEN 1 END" * 18_000,
    "casts": "SELECT 1" + "::int" * 60_000,
    "between": "SELECT a" + " ISNULL BETWEEN 1 AND 2" * 25_000,
    "unions": "SELECT 1,2" + " UNION SELECT 1,2" * 28_000,
    "joins": "SELECT * FROM a" + " JOIN a USING (x, y)" * 16_000,
    "subqueries": "SELECT " + "(SELECT " * 10_000 + "1" + ")" * 10_000,
    "not": "SELECT " + "NOT " * 10_000 + "true",
    "explain": "EXPLAIN " * 10_000 + "SELECT 1",
    "ctes": "WITH x AS (" * 2_000 + "SELECT 1" + ") SELECT 1" * 2_000,
    "doubled": "WITH a0 AS (TABLE customers)" + "".join(
        f", a{n} AS (SELECT x.* FROM a{n - 1} x, a{n - 1} y)" for n in range(1, 3_000)
    ) + " SELECT email || '' FROM a2999",
    "recursive": "WITH RECURSIVE x AS (" * 60 + "SELECT email FROM customers, x" + ") SELECT * FROM x" * 60,
    "within the uncounted size": "SELECT 1" + "+1" * 8_000,
}
def explode():
    for name, bomb in bombs.items():
        started = time.perf_counter()
        assert read(bomb).refused or name == "doubled", name
        assert time.perf_counter() - started < 10, name  # seconds; each is done in one here
    assert not read("SELECT " + "(" * 50 + "1" + ")" * 50 + " || 'x'" * 100).refused
    print("alive")
threading.stack_size(2 * 1024 * 1024)  # a quarter of what Linux gives
thread = threading.Thread(target=explode)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-2000:])


def test_a_text_past_its_bound_is_refused() -> None:
    """Memory for one statement is bounded: by bytes, by words, and by nodes read."""
    assert "longer" in read("SELECT '" + "x" * MAX_TEXT + "'").refused
    assert "words" in read("SELECT " + ",".join("1" * 90_000)).refused
    rows = ",".join("(1,'abcdefghijklmnopqrstuvwxyz')" for _ in range(15_000))
    assert acts(f"INSERT INTO orders VALUES {rows}") == {("write", "INSERT")}


def test_views_that_are_not_known_are_not_proved() -> None:
    """A definition that is missing, or views on themselves, must not read as harmless."""
    assert acts("SELECT x FROM v_lost") == {("write", "SELECT")}
    assert all(_taints("SELECT x FROM v_lost"))


def test_every_statement_of_the_grammar_is_known_or_refused() -> None:
    """A later grammar may add kinds: what is not listed must not pass as something else."""
    reader = Reader(catalogue())
    with pytest.raises(NotUnderstood):
        reader.query({"BrandNewStmt": {}}, None)
    assert parse("SELECT 1")[0]["stmt"]
    assert CARD in catalogue().masked.columns
