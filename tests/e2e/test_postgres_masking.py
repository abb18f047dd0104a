"""Masks on the wire, with the real understanding of SQL and a real PostgreSQL; only policy is faked: it permits all but
storing what is masked elsewhere (``sql:derives_masked``), which no rule by name could follow and which needs a permit
of its own.

Each test is a way around masks that worked against a naive design. The witness is the planted value: it must be in
nothing that the client got and in nothing that was recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import asyncpg
import psycopg
import pytest

from broker.engines.postgres.languages import SqlLanguages
from chalicelib.config.bundle import Bundle
from chalicelib.domain.masking import ColumnName, MaskMode, MaskRule
from chalicelib.domain.operation import Forward, Operation, Verdict
from chalicelib.settings import SystemClock
from dev import seed
from dev.postgres_server import PostgresServer
from tests.e2e.postgres_broker import BrokerThread, running_broker, running_postgres
from tests.fakes.flow import block, forward

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("postgres-masking")]

PLANTED = [row.email for row in seed.customers()]
EMAIL = MaskRule(
    name="email",
    mode=MaskMode.REDACT,
    targets=(),
    columns=(ColumnName(schema="public", table="customers", column="email"),),
    detectors=(),
    patterns=(),
)


class OneBundle:
    """A configuration with one mask."""

    def current(self) -> Bundle:
        return Bundle(
            digest="d", serial=1, targets={}, issuers=(), people=(), masks={"email": EMAIL}, policy=cast("Any", None)
        )


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


def permit_all_but_storing(permitted: Forward) -> Callable[[Operation], Verdict]:
    def verdict(op: Operation) -> Verdict:
        return block("no") if any(act.action == "sql:derives_masked" for act in op.acts) else permitted

    return verdict


@pytest.fixture
def broker(server: PostgresServer) -> Iterator[BrokerThread]:
    languages = SqlLanguages(configuration=OneBundle(), clock=SystemClock())
    with running_broker(server, languages=languages) as running:
        running.flow.verdicts = permit_all_but_storing(forward(masks=("email",), full=True))
        yield running


def connect(broker: BrokerThread) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(broker.dsn(), autocommit=True)


def assert_nothing_leaked(broker: BrokerThread, *got: object) -> None:
    recorded = [what for kind, what in broker.connection.frames if kind != "operation"]
    everything = repr(got) + repr(recorded)
    assert not [value for value in PLANTED if value in everything or value.encode().hex() in everything]


ONE_STATEMENT = {
    "plain": "select id, email from customers order by id limit 50",
    "alias": "select c.email as harmless from customers c order by id limit 50",
    "star": "select * from customers order by id limit 50",
    "expression": "select lower(email) || '' from customers order by id limit 50",
    "whole row": "select customers::text from customers order by id limit 50",
    "row as json": "select to_json(c) from customers c order by id limit 50",
    "aggregate": "select string_agg(email, ',') from customers where id <= 50",
    "union": "select note from customers where false union all select email from customers where id <= 50",
    "sub-query": "select (select email from customers where id = 1)",
    "cte": "with x as (select email as y from customers where id <= 50) select y from x",
    "returning": "update customers set note = note where id <= 50 returning email",
    "returning an expression": "update customers set note = note where id <= 50 returning email || '!'",
    "lateral": "select l.v from customers c, lateral (values (c.email)) l(v) where c.id <= 50",
    "statistics": "select most_common_vals::text, histogram_bounds::text from pg_stats where tablename = 'customers'",
    "case": "select case when id > 0 then email else '' end from customers where id <= 50",
}


@pytest.mark.parametrize("text", ONE_STATEMENT.values(), ids=ONE_STATEMENT.keys())
def test_a_masked_column_in_one_statement(broker: BrokerThread, text: str) -> None:
    """By its origin, by what derives from it, and by what is not proved: simple, extended and binary."""
    done = broker.psql(text)
    assert done.returncode == 0, done.stderr
    assert_nothing_leaked(broker, done.stdout, done.stderr)
    assert done.stdout.strip(), "the control: there are rows"
    with connect(broker) as client:
        for binary in (False, True):
            with client.cursor(binary=binary) as cursor:
                cursor.execute(cast("Any", text))
                assert_nothing_leaked(broker, cursor.fetchall())


SEVERAL = {
    "temporary view": ["create temp view v as select email as y from customers", "select y from v limit 50"],
    "table as": ["create temp table t as select email as y from customers", "select y from t limit 50"],
    "a view in a transaction": [
        "begin",
        "create view public.v as select note as y from customers",
        "select y from v limit 1",
        "create or replace view public.v as select email as y from customers",
        "select y || '' from v limit 50",
        "rollback",
    ],
    "cursor": ["begin", "declare c cursor for select email as y from customers", "fetch 50 from c", "commit"],
    "cursor over an expression": ["begin", "declare c cursor for select email || '' from customers", "fetch 50 from c"],
    "prepared by SQL": ["prepare p as select email from customers where id <= $1", "execute p(50)", "execute p(50)"],
    "a renamed column": [
        "begin",
        "alter table customers rename email to e2",
        "select e2 from customers limit 50",
        "select lower(e2) from customers limit 50",
        "rollback",
    ],
    "notice": ["do $$ declare r record; begin select * into r from customers; raise notice 'it is %', r; end $$"],
    "error text": ["do $$ begin raise exception 'it is %', (select email from customers where id = 1); end $$"],
    "cast error": ["select id from customers where id <= 50 and email::int = 1"],
    "unique violation": [
        "insert into customers select id + 5000, name, email, id::text, note from customers where id = 1"
    ],
    "notify": ["listen n", "select pg_notify('n', email) from customers where id = 1", "select 1"],
    "explain analyze": ["explain (analyze, verbose) select * from customers where email > '0' limit 50"],
}


@pytest.mark.parametrize("texts", SEVERAL.values(), ids=SEVERAL.keys())
def test_a_masked_column_by_way_of_another_name(broker: BrokerThread, texts: list[str]) -> None:
    """What was defined, declared, prepared or raised in the session itself."""
    done = broker.psql(*texts)
    assert_nothing_leaked(broker, done.stdout, done.stderr)
    assert (done.stdout + done.stderr).strip()


def test_a_prepared_statement_is_masked_on_every_execution(broker: BrokerThread) -> None:
    """The nearest relay masks the first execution only."""

    async def run() -> list[Any]:
        client = await asyncpg.connect(
            host="127.0.0.1",
            port=broker.port,
            user="ses_01k8zq5v9c3f7n2m4p6r8t0wxz",
            password=broker.flow.secret.expose(),
            database="orders",
            ssl=False,
        )
        statement = await client.prepare("select email, id from customers where id = $1")
        found = [tuple(await statement.fetchrow(number) or ()) for number in (1, 2, 3)]
        async with client.transaction():
            found += [tuple(row) async for row in client.cursor("select email, 1 from customers limit 50", prefetch=7)]
        await client.close()
        return found

    found = asyncio.run(run())
    assert_nothing_leaked(broker, found)
    assert found[0] == ("#MASKED:email#", 1)
    assert len(found) == 53


def test_copy_of_a_masked_column_is_blocked_and_of_others_is_not(broker: BrokerThread, server: PostgresServer) -> None:
    """COPY TO STDOUT passes the nearest relay unmasked."""
    for text in ("copy customers to stdout", "copy (select email from customers) to stdout"):
        done = broker.psql(text)
        assert "COPY would send columns that are masked" in done.stderr
        assert "Use SELECT" in done.stderr
        assert text not in server.log.read_text()
        assert_nothing_leaked(broker, done.stdout)
    assert broker.psql("copy (select id from customers order by id limit 2) to stdout").stdout == "1\n2\n"


def test_what_is_not_masked_passes_as_it_is(broker: BrokerThread) -> None:
    """The control of all of the above."""
    assert broker.psql("select id, name from customers where id = 1").stdout.startswith("1|")
    broker.flow.verdicts = lambda _: forward()
    assert broker.psql("select email from customers where id = 1").stdout.strip() == PLANTED[0]


def test_the_catalogue_is_asked_again_after_a_definition_and_the_client_sees_nothing_of_it(
    broker: BrokerThread, server: PostgresServer
) -> None:
    """A view made in this session is read by its definition: the column that is not masked passes, the other does not,
    and the unnamed statement of the client outlives our questions."""
    broker.flow.verdicts = lambda _: forward(masks=("email",), full=True)  # a view may be permitted: it is followed
    with connect(broker) as client:
        client.execute("create view public.made as select id, name as n, email as e from customers")
        try:
            row = client.execute("select n, e from made where id = 1").fetchone()
            assert row is not None
            assert row[0] != "#MASKED:email#"
            assert row[1] == "#MASKED:email#"
            assert "pg_catalog.pg_class" in server.log.read_text()
            raw = client.pgconn
            raw.prepare(b"", b"select n from made where id = 1")
            assert raw.exec_prepared(b"", []).get_value(0, 0) == str(row[0]).encode()
        finally:
            server.run("drop view public.made", database="orders")


def test_a_parse_that_is_not_understood_is_blocked_with_the_reason(
    broker: BrokerThread, server: PostgresServer
) -> None:
    """What does not parse here is not sent, whatever the target would make of it."""
    done = broker.psql("selec 1", "select 1")
    assert done.stdout == "1\n"
    assert "ERROR" in done.stderr
    assert "statement: selec 1" not in server.log.read_text()


def test_the_error_of_a_statement_that_no_mask_covers_quotes_no_masked_value(broker: BrokerThread) -> None:
    """A policy that masks reads alone: the error of a write quotes the row, and belongs to no result that is masked."""
    broker.flow.verdicts = permit_all_but_storing(forward(full=True))
    cast = "update orders set amount_cents = (select email from customers where id = 2)::int where id = 1"
    taken = "update customers set id = 3 where id = 2"
    missing = "update customers set name = null where id = 2"
    done = broker.psql(cast, taken, missing)
    assert done.stderr.count("ERROR") == 3, done.stderr
    assert_nothing_leaked(broker, done.stdout, done.stderr)


def test_a_mask_written_back_by_copy(broker: BrokerThread) -> None:
    """The rows of COPY FROM STDIN are in no statement's text; here the mask is cut in two messages."""

    def load() -> None:
        with connect(broker) as client, client.cursor().copy("copy customers from stdin") as copy:
            copy.write(b"9001\tx\t#MASK")
            client.pgconn.flush()
            copy.write(b"ED:email#\tc\tn\n")

    with pytest.raises(psycopg.Error, match="carries a masked value"):
        load()
    assert broker.psql("select count(*) from customers where id = 9001").stdout == "0\n"
