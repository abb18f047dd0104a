"""Real clients through the real listener and engine to a real PostgreSQL; only the one flow is faked.

psql, psycopg and asyncpg must work unmodified, and each of security.md's PostgreSQL rows that the relay stops is tried
with the client that an attacker would use. What ran is read from the target itself.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import LiteralString

import asyncpg
import psycopg
import pytest
from psycopg import errors as pg

from chalicelib.domain.errors import PolicyDenied, TargetUnavailable
from chalicelib.domain.operation import Operation, Verdict
from dev.postgres_server import PostgresServer
from tests.e2e.postgres_broker import BrokerThread, running_broker, running_postgres, wait_for
from tests.fakes.flow import TXN, block, forward, hold

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("postgres-clients")]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


@pytest.fixture
def broker(server: PostgresServer) -> Iterator[BrokerThread]:
    with running_broker(server) as running:
        yield running


@pytest.fixture
def table(server: PostgresServer) -> Iterator[str]:
    """An empty table ``kept(a int)``."""
    server.run("create table public.kept (a int)", database="orders")
    yield "kept"
    server.run("drop table public.kept", database="orders")


def rows_of(server: PostgresServer, table: str) -> list[str]:
    return server.run(f"select a from public.{table} order by a", database="orders").split()


def refuse(*words: str) -> Callable[[Operation], Verdict]:
    """Block every operation whose text has one of ``words``."""

    def verdict(op: Operation) -> Verdict:
        return block("not on this target", hint="ask the dba") if any(w in op.text for w in words) else forward()

    return verdict


def connect(broker: BrokerThread, **settings: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(broker.dsn(**settings), autocommit=True)


def status_of(client: psycopg.Connection[tuple[object, ...]]) -> str:
    return client.info.transaction_status.name


def in_pipeline(
    client: psycopg.Connection[tuple[object, ...]],
    *statements: LiteralString | tuple[LiteralString, tuple[object, ...]],
) -> None:
    """Send all of them before the first answer is read."""
    with client.pipeline():
        for statement in statements:
            text, values = (statement, ()) if isinstance(statement, str) else statement
            client.execute(text, values)


class Background:
    """Runs ``work`` in a thread; leaving answers what is held and waits for the end. ``failures``: what it raised."""

    def __init__(self, broker: BrokerThread, work: Callable[[], object]) -> None:
        self.failures: list[BaseException] = []
        self._broker = broker
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)  # noqa: TID251

    def _run(self) -> None:
        try:
            self._work()
        except psycopg.Error as error:
            self.failures.append(error)

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.soon(self._broker.flow.answered.set)
        self._thread.join(20)


# psql


def test_psql_runs_statements_and_meta_commands(broker: BrokerThread) -> None:
    """The first client that anybody tries."""
    done = broker.psql("select 1", "select count(*) from orders", "\\d customers")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\n10000\n")
    assert "card_number|text" in done.stdout
    assert broker.connection.texts[:2] == ["select 1", "select count(*) from orders"]
    assert broker.ended(broker.connection) == "client_closed"
    assert broker.connection.told("outcome")[0] | {"op": ""} == {
        "op": "",
        "status": "ok",
        "tag": "SELECT 1",
        "rows": 1,
        "sqlstate": "",
    }


def test_the_chain_is_in_the_targets_own_log(broker: BrokerThread, server: PostgresServer) -> None:
    """P2: application_name begins with the txn, whatever the client calls itself."""
    done = broker.psql("select current_setting('application_name')", application_name="x" * 80)
    assert done.stdout.strip() == f"txn:{TXN} {'x' * 63}"[:63]
    assert f"app=txn:{TXN}" in server.log.read_text()


def test_search_path_is_pinned_with_pg_temp_last(broker: BrokerThread) -> None:
    """Run on real components: a temporary table otherwise stood for the real one, and RESET and DISCARD do not help."""
    done = broker.psql(
        "create temporary table customers (id int)",
        "reset all",
        "discard plans",
        "select count(*) from customers",
        "select current_setting('search_path')",
    )
    assert done.stdout.split()[-3:] == ["1000", "public,", "pg_temp"]


@pytest.mark.parametrize("settings", [{"channel_binding": "require"}, {"sslmode": "disable"}])
def test_psql_with_channel_binding_and_in_plaintext_on_loopback(broker: BrokerThread, settings: dict[str, str]) -> None:
    """SCRAM-SHA-256-PLUS against our own certificate; plaintext is for loopback only."""
    assert broker.psql("select 1", **settings).stdout == "1\n"


def test_a_wrong_secret_and_an_unknown_session_hear_the_same(broker: BrokerThread) -> None:
    """A stranger must not learn which sessions exist."""
    wrong = broker.psql("select 1", password="wrong")
    unknown = broker.psql("select 1", user="ses_01k8zq5v9c3f7n2m4p6r8t0wxx", password="wrong")
    garbage = broker.psql("select 1", user="admin", password="wrong")
    texts = {done.stderr.replace(str(broker.port), "") for done in (wrong, unknown, garbage)}
    assert len(texts) == 1
    assert "FATAL:  the session id or its secret is not valid" in texts.pop()
    assert broker.flow.connections == []


def test_a_refused_session_is_fatal_with_code_and_hint(broker: BrokerThread) -> None:
    """The client's own protocol says what to do next, and no more."""
    broker.flow.refusal = PolicyDenied("policy does not open this session any more", detail="inner.host")
    done = broker.psql("select 1")
    assert done.returncode == 2
    assert "FATAL:  policy does not open this session any more" in done.stderr
    assert '"code":"policy_denied"' in done.stderr
    assert "inner.host" not in done.stderr


def test_a_dead_target_is_fatal_and_the_connection_is_closed(server: PostgresServer) -> None:
    """08006 and nothing about where the target is."""
    with running_broker(server) as broker:
        broker.flow.credential = type(broker.flow.credential)("nobody", broker.flow.credential.secret)
        done = broker.psql("select 1")
        assert "FATAL:  the target refused the broker's login" in done.stderr
        assert TargetUnavailable.hint in done.stderr
        assert str(server.port) not in done.stderr
        assert broker.ended(broker.connection) == "target_unavailable"


def test_another_database_is_refused(broker: BrokerThread) -> None:
    """Target and database come from the session, never from the client."""
    done = broker.psql("select 1", dbname="postgres")
    assert "the session is for another database" in done.stderr


def test_psql_copies_in_and_out(broker: BrokerThread, server: PostgresServer, table: str) -> None:
    """COPY's sub-protocols, and what crossed is recorded."""
    done = broker.psql("copy kept from stdin", stdin="1\n2\n3\n\\.\n")
    assert done.returncode == 0, done.stderr
    assert rows_of(server, table) == ["1", "2", "3"]
    assert ("c2s", "1\n") in [(direction, text[:2]) for direction, text in broker.connection.told("data")]
    broker.flow.verdicts = lambda _: forward(full=True)
    assert broker.psql("copy (select 7) to stdout").stdout == "7\n"
    assert broker.connection.told("data") == [("s2c", "7\n")]


def test_rows_are_recorded_where_the_rule_says_so(broker: BrokerThread) -> None:
    """``record: full``: the recording holds what the client saw."""
    broker.flow.verdicts = lambda _: forward(full=True)
    assert broker.psql("select 1 as one, null as none union all select 2, 'x'").stdout == "1|\n2|x\n"
    assert broker.connection.told("rows") == [(("one", "none"), [["1", None], ["2", "x"]])]


# Block


def test_a_blocked_statement_leaves_the_session_alive(broker: BrokerThread, server: PostgresServer) -> None:
    """The nearest relay kills the connection on a denial. And the target never saw the text."""
    broker.flow.verdicts = refuse("DROP")
    done = broker.psql("select 1", "DROP TABLE customers", "select 2")
    assert done.stdout == "1\n2\n"
    assert "ERROR:  not on this target" in done.stderr
    assert "HINT:  ask the dba" in done.stderr
    assert '"rules":["test-rule"]' in done.stderr
    assert "DROP TABLE customers" not in server.log.read_text()
    assert [what["status"] for what in broker.connection.told("outcome")] == ["ok", "refused", "ok"]


def test_a_batch_is_decided_whole_before_any_of_it_is_sent(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """``INSERT; DROP`` in one simple query: the INSERT must not run first."""
    broker.flow.verdicts = refuse("DROP")
    done = broker.psql("insert into kept values (1); DROP TABLE customers; insert into kept values (2)")
    assert "not on this target" in done.stderr
    assert rows_of(server, table) == []


def test_a_block_aborts_the_transaction_as_any_error_does(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """The transaction's state is the server's own: COMMIT after a refused statement rolls back."""
    broker.flow.verdicts = refuse("DROP")
    with connect(broker) as client:
        client.execute("begin")
        client.execute("insert into kept values (1)")
        with pytest.raises(pg.InsufficientPrivilege):
            client.execute("DROP TABLE customers")
        assert status_of(client) == "INERROR"
        with pytest.raises(pg.InFailedSqlTransaction):
            client.execute("select 1")
        client.execute("commit")
        assert status_of(client) == "IDLE"
    assert rows_of(server, table) == []


def test_a_statement_blocked_inside_a_pipeline_keeps_nothing_before_it(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """security.md, PostgreSQL, first row (run: swallowing it committed the INSERT before it)."""
    broker.flow.verdicts = refuse("DROP")
    with connect(broker) as client, pytest.raises(pg.InsufficientPrivilege) as caught:
        in_pipeline(client, "insert into kept values (1)", "DROP TABLE customers", "insert into kept values (2)")
    assert caught.value.diag.message_hint == "ask the dba"
    assert rows_of(server, table) == []
    assert "DROP TABLE customers" not in server.log.read_text()


def test_a_statement_blocked_by_its_binds_keeps_nothing_before_it(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """The text is harmless, the values are not: refused at Execute, with the server's own abort."""

    def verdict(op: Operation) -> Verdict:
        return block("not this value") if b"13" in op.binds else forward()

    broker.flow.verdicts = verdict
    with connect(broker) as client:
        text = "insert into kept values (%t::int)"
        with pytest.raises(pg.InsufficientPrivilege):
            in_pipeline(client, (text, ("12",)), (text, ("13",)))
        client.execute("insert into kept values (%t::int)", ("14",))
    assert rows_of(server, table) == ["14"]


def test_the_fast_path_function_call_is_refused(broker: BrokerThread) -> None:
    """It calls any function by number, and nothing of it can be read."""
    with connect(broker, sslmode="disable") as client:
        raw = socket.socket(fileno=client.fileno())
        try:
            body = (1598).to_bytes(4, "big") + b"\0\0\0\0\0\0"  # random()
            raw.sendall(b"F" + (len(body) + 4).to_bytes(4, "big") + body)
            raw.settimeout(10)
            raw.setblocking(True)
            answer = b""
            while not answer.endswith(b"Z\0\0\0\x05I"):
                answer += raw.recv(4096)
        finally:
            raw.detach()
    assert b"C42501" in answer
    assert broker.connection.texts[-1] == "function call by object id"


# Hold


def test_a_held_statement_waits_and_then_runs(broker: BrokerThread, server: PostgresServer, table: str) -> None:
    """The client sees a notice at once, and its answer when people have given theirs."""
    broker.flow.verdicts = lambda op: hold() if "insert" in op.text else forward()
    notices: list[str] = []
    with connect(broker) as client:
        client.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
        with Background(broker, lambda: client.execute("insert into kept values (1)")):
            assert broker.flow.held.wait(10)
            assert rows_of(server, table) == []
        assert rows_of(server, table) == ["1"]
    assert notices == ["waiting for approval by 1 of dba; ask_1"]


def test_a_held_statement_that_is_refused_is_an_error_and_the_session_lives(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """An approver says no: 42501, nothing ran."""
    broker.flow.verdicts = lambda op: hold() if "insert" in op.text else forward()
    broker.flow.answers = lambda _: block("an approver refused", code="approval_denied")
    broker.soon(broker.flow.answered.set)
    with connect(broker) as client:
        with pytest.raises(pg.InsufficientPrivilege, match="an approver refused"):
            client.execute("insert into kept values (%s)", (1,))
        assert client.execute("select 1").fetchone() == (1,)
    assert rows_of(server, table) == []


def test_ctrl_c_withdraws_what_is_held(broker: BrokerThread, server: PostgresServer, table: str) -> None:
    """A CancelRequest with our key, on its own connection: it never reaches the target, which runs nothing."""
    broker.flow.verdicts = lambda op: hold() if "insert" in op.text else forward()
    with connect(broker) as client:
        with Background(broker, lambda: client.execute("insert into kept values (1)")) as running:
            assert broker.flow.held.wait(10)
            client.cancel_safe(timeout=10)
            wait_for(lambda: running.failures)
        assert "the client cancelled it" in str(running.failures[0])
        assert client.execute("select 1").fetchone() == (1,)
    assert rows_of(server, table) == []


def test_a_client_that_leaves_while_it_is_held_withdraws(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """Nobody waits for it any more, so nobody may approve it."""
    broker.flow.verdicts = lambda op: hold() if "insert" in op.text else forward()
    process = subprocess.Popen(
        ["psql", "-X", broker.dsn(), "-c", "insert into kept values (1)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert broker.flow.held.wait(10)
    process.kill()
    process.communicate()
    assert broker.ended(broker.connection) in ("client_closed", "client_lost")
    broker.soon(broker.flow.answered.set)
    assert rows_of(server, table) == []


def test_while_held_nothing_behind_it_runs(broker: BrokerThread, server: PostgresServer, table: str) -> None:
    """A pipeline behind a held statement waits with it, and a table is not locked by its Parse meanwhile."""
    broker.flow.verdicts = lambda op: hold() if "(1)" in op.text else forward()
    with connect(broker) as client:

        def run() -> None:
            in_pipeline(client, "insert into kept values (1)", "insert into kept values (2)")

        with Background(broker, run):
            assert broker.flow.held.wait(10)
            server.run("begin; lock table public.kept in access exclusive mode nowait; rollback", database="orders")
            assert rows_of(server, table) == []
    assert rows_of(server, table) == ["1", "2"]


def test_a_hold_inside_an_open_transaction_is_refused(broker: BrokerThread, server: PostgresServer, table: str) -> None:
    """It would freeze what the transaction has locked."""
    broker.flow.verdicts = lambda op: hold() if "insert" in op.text else forward()
    with connect(broker) as client:
        client.execute("begin")
        with pytest.raises(pg.InsufficientPrivilege, match="held in a transaction"):
            client.execute("insert into kept values (1)")
    assert not broker.flow.held.is_set()


# The end of a connection


def test_a_revoked_session_ends_at_once(broker: BrokerThread) -> None:
    """57P01: pools know it and connect again."""
    with connect(broker) as client:
        assert client.execute("select 1").fetchone() == (1,)
        broker.connection.revoke()
        with pytest.raises(psycopg.OperationalError) as caught:
            client.execute("select 1")
        assert "the session was revoked" in str(caught.value)
    assert broker.ended(broker.connection) == "grant_revoked"


def test_a_revoked_session_ends_while_its_statement_runs(broker: BrokerThread, server: PostgresServer) -> None:
    """Not only at the next statement, and on the target too."""
    with connect(broker) as client:
        with Background(broker, lambda: client.execute("select pg_sleep(20)")) as running:
            busy = "select 1 from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active'"
            wait_for(lambda: server.run(busy))
            broker.connection.revoke()
            wait_for(lambda: not server.run(busy))
        assert "the session was revoked" in str(running.failures[0])
    assert broker.ended(broker.connection) == "grant_revoked"
    assert broker.connection.told("outcome")[-1]["status"] == "unknown"


def test_a_drained_broker_tells_its_clients(server: PostgresServer) -> None:
    """SIGTERM: 57P01 with the reason, and every record is sealed."""
    with running_broker(server) as broker:
        client = connect(broker)
        assert client.execute("select 1").fetchone() == (1,)
        connection = broker.connection
        broker.stop()
        with pytest.raises(psycopg.OperationalError, match="shutting down"):
            client.execute("select 1")
        assert connection.closed == "drained"


def test_a_change_of_login_on_the_target_ends_the_connection(broker: BrokerThread) -> None:
    """SET SESSION AUTHORIZATION passed policy here; the server's own report of it is the second line."""
    with connect(broker) as client, pytest.raises(psycopg.OperationalError, match="the login on the target"):
        client.execute("set session authorization orders_app")
    assert broker.ended(broker.connection) == "denied"


def test_cancel_reaches_the_target(broker: BrokerThread, server: PostgresServer) -> None:
    """Our key on the outside, the target's own on the inside."""
    with connect(broker) as client:
        with Background(broker, lambda: client.execute("select pg_sleep(30)")) as running:
            # One that comes before the statement began cancels nothing, and a second one the next statement.
            busy = "select 1 from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'"
            wait_for(lambda: server.run(busy))
            client.cancel_safe(timeout=10)
            wait_for(lambda: running.failures)
        assert isinstance(running.failures[0], pg.QueryCanceled)
        assert client.execute("select 1").fetchone() == (1,)


# psycopg and asyncpg


def test_psycopg_pipelines_server_cursors_copy_and_binary(broker: BrokerThread, table: str) -> None:
    """What a Python application does."""
    with connect(broker) as client:
        with client.pipeline():
            results = [client.execute("select %s::int", (n,)) for n in range(50)]
            assert [result.fetchone() for result in results] == [(n,) for n in range(50)]
        with client.transaction(), client.cursor("named") as cursor:
            cursor.execute("select g from generate_series(1, 500) g")
            assert len(cursor.fetchmany(100)) == 100
            assert len(cursor.fetchall()) == 400
        with client.cursor() as plain, plain.copy("copy kept from stdin") as copy:
            for n in range(1000):
                copy.write_row((n,))
        with client.cursor(binary=True) as plain:
            plain.execute("select count(*), sum(a) from kept where a > %b", (10,))
            assert plain.fetchone() == (989, 499445)
        with client.cursor() as plain, plain.copy("copy (select a from kept order by a limit 3) to stdout") as copy:
            assert b"".join(bytes(data) for data in copy) == b"0\n1\n2\n"


def test_the_lines_of_a_copy_are_recorded_whole_and_together(broker: BrokerThread) -> None:
    """A driver sends a message a line: a frame for each would make the record of a load ten times the load."""
    lines = [b"%d\n" % n for n in range(5000)]
    with connect(broker) as client:
        client.execute("create temporary table loaded (a int)")
        with client.cursor() as plain, plain.copy("copy loaded from stdin"):
            for line in lines:
                client.pgconn.put_copy_data(line)
        assert client.execute("select count(*) from loaded").fetchone() == (5000,)
        told = [text for direction, text in broker.connection.told("data") if direction == "c2s"]
    assert "".join(told).encode() == b"".join(lines)
    assert len(told) < 100


def test_psycopg_pipeline_goes_on_after_an_error(broker: BrokerThread) -> None:
    """The server's own discarding up to the Sync, seen through us."""
    with connect(broker) as client:
        with pytest.raises(pg.DivisionByZero):
            in_pipeline(client, ("select 1/%s::int", (0,)), "select 1")
        assert client.execute("select 2").fetchone() == (2,)


def test_asyncpg_prepared_cursors_and_binary(broker: BrokerThread) -> None:
    """Prepared statements that are used again, portals with row limits, everything binary."""

    async def run() -> None:
        client = await asyncpg.connect(
            host="127.0.0.1", port=broker.port, **_asyncpg_settings(broker), server_settings={"application_name": "a"}
        )
        for n in range(5):
            assert await client.fetchval("select $1::int + 1", n) == n + 1
        assert await client.fetchval("select count(*) from customers where id = any($1::int[])", [1, 2, 3]) == 3
        async with client.transaction():
            seen = [row[0] async for row in client.cursor("select generate_series(1, 200)", prefetch=50)]
        assert seen == list(range(1, 201))
        await client.executemany("select $1::int", [(1,), (2,)])
        await client.execute("select 1; select 2")
        await client.close()

    asyncio.run(run())


def test_asyncpg_a_blocked_statement_and_then_another(broker: BrokerThread) -> None:
    """A driver with a statement cache: the refused Parse must leave nothing behind."""
    broker.flow.verdicts = refuse("DROP")

    async def run() -> None:
        client = await asyncpg.connect(host="127.0.0.1", port=broker.port, **_asyncpg_settings(broker))
        for _ in range(2):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await client.fetch("DROP TABLE customers")
            assert await client.fetchval("select 1") == 1
        await client.close()

    asyncio.run(run())


def _asyncpg_settings(broker: BrokerThread) -> dict[str, object]:
    return {
        "user": "ses_01k8zq5v9c3f7n2m4p6r8t0wxz",
        "password": broker.flow.secret.expose(),
        "database": "orders",
        "ssl": False,
    }


def test_a_statement_renamed_by_sql_is_not_run_under_its_old_text(
    broker: BrokerThread, server: PostgresServer, table: str
) -> None:
    """Prepare a harmless ``a``, then DEALLOCATE and PREPARE another ``a`` by SQL: a Bind of ``a`` must not run that
    under the judgement of the first."""
    with connect(broker) as client:
        raw = client.pgconn
        assert raw.prepare(b"a", b"select 1").status == psycopg.pq.ExecStatus.COMMAND_OK
        assert raw.exec_prepared(b"a", []).status == psycopg.pq.ExecStatus.TUPLES_OK
        client.execute("deallocate a")
        client.execute("prepare a as insert into kept values (1)")
        result = raw.exec_prepared(b"a", [])
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000"
    assert rows_of(server, table) == []


def test_short_lines_of_a_copy_share_their_frames(broker: BrokerThread) -> None:
    """A frame for each line of 20 bytes is ten times the line; together they are what psql got, before the outcome."""
    broker.flow.verdicts = lambda _: forward(full=True)
    done = broker.psql("copy (select n, 'ü\\' from generate_series(1, 20000) n) to stdout")
    told = [told for kind, told in broker.connection.frames if kind == "data"]
    assert "".join(text for _, text in told) == done.stdout
    assert len(told) < 200
    assert broker.connection.frames[-1][0] == "outcome"


# What is recorded less


def left_out(broker: BrokerThread) -> list[dict[str, object]]:
    return [told["left_out"] for kind, told in broker.connection.frames if kind == "outcome" and "left_out" in told]


@pytest.mark.parametrize("copies", [False, True], ids=["select", "copy"])
def test_results_are_left_out_of_the_record_where_policy_permits_it(broker: BrokerThread, copies: bool) -> None:
    """psql gets every row; the outcome says how many rows and bytes the record lacks, and why."""
    broker.flow.verdicts = lambda _: forward(full=False)
    text = "select n, 'x' from generate_series(1, 1000) n"
    done = broker.psql(f"copy ({text}) to stdout" if copies else text)
    assert len(done.stdout.splitlines()) == 1000
    frames = broker.connection.frames
    assert [kind for kind, _ in frames if kind in ("rows", "data")] == []
    # A DataRow has two bytes for the number of columns, and four before each value.
    digits = sum(len(str(n)) for n in range(1, 1001))
    size = digits + 1000 * 3 if copies else digits + 1000 * (2 + 4 + 4 + 1)
    assert left_out(broker) == [{"rows": 1000, "bytes": size, "why": "record:statements"}]


def test_each_part_of_a_cursor_tells_what_it_left_out(broker: BrokerThread) -> None:
    """A portal that is run in parts has an outcome for each: together they are all of it, and nothing twice."""

    async def fetch() -> None:
        client = await asyncpg.connect(host="127.0.0.1", port=broker.port, **_asyncpg_settings(broker))
        async with client.transaction():
            cursor = await client.cursor("select n from generate_series(1, 25) n")
            for _ in range(3):
                await cursor.fetch(10)
        await client.close()

    broker.flow.verdicts = lambda _: forward(full=False)
    asyncio.run(fetch())
    assert [told["rows"] for told in left_out(broker)] == [10, 10, 5]
