"""Attacks with real clients on the whole running stack, under the demo's own policy.

Each names what was tried; what ran is read from the target itself, not from what the broker says. The attacks that
worked once have a test that failed then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from dev.local_stack import Stack
from dev.settings import SystemClock
from dev.targets import ORDERS
from tests.e2e.visitor import Row, SlackCard, Visitor, amount, card_with, connect, direct

pytestmark = pytest.mark.e2e

DENIED = "policy forbids this|no rule permits this"
SETTLED_S = 15


@dataclass(frozen=True, kw_only=True)
class Access:
    """An approved session on the demo's target, and the approvers who look on."""

    stack: Stack
    session: Mapping[str, Any]

    def client(self) -> psycopg.Connection[Row]:
        return connect(self.stack, self.session)

    def card(self, mark: str) -> SlackCard:
        return card_with(self.stack, mark)

    def approve(self, mark: str) -> SlackCard:
        card = self.card(mark)
        card.click("UALICE")
        return card

    def admin(self, text: str) -> Row | None:
        with direct(self.stack) as admin:
            return admin.execute(text.encode()).fetchone()


@pytest.fixture(scope="module")
def access(stack: Stack) -> Access:
    return Access(stack=stack, session=Visitor.of(stack).session())


@pytest.fixture
def client(access: Access) -> Iterator[psycopg.Connection[Row]]:
    with access.client() as opened:
        yield opened


class Held:
    """``text`` sent by a client of its own in a thread; the end waits for how it ended."""

    def __init__(self, access: Access, text: str, values: tuple[object, ...] | None = None) -> None:
        self.client = access.client()
        self.failure: psycopg.Error | None = None
        self._thread = threading.Thread(target=self._run, args=(text, values), daemon=True)  # noqa: TID251 it blocks
        self._thread.start()

    def _run(self, text: str, values: tuple[object, ...] | None) -> None:
        try:
            self.client.execute(text.encode(), values)
        except psycopg.Error as error:
            self.failure = error

    def end(self) -> psycopg.Error | None:
        self._thread.join(SETTLED_S)
        assert not self._thread.is_alive()
        self.client.close()
        return self.failure


# Masked values

READS = {
    "a second name": "select e.email as id from customers e limit 3",
    "renamed columns": "select e from customers as c(id, n, e, cn, note) limit 3",
    "a CTE with names of its own": "with x(a, b) as (select id, email from customers) select b from x limit 3",
    "UNION under a harmless first part": "select 'x' union all select email from customers limit 3",
    "LATERAL": "select x.z from customers c, lateral (select c.email as z) x limit 3",
    "an escaped identifier": 'select U&"em\\0061il" from customers limit 3',
    "TABLE": "table customers limit 3",
}


@pytest.mark.parametrize("text", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_a_masked_column_under_another_name(
    access: Access, client: psycopg.Connection[Row], text: str, binary: bool
) -> None:
    """Names, set operations and formats are the first things to hide an origin behind."""
    found = str(client.cursor(binary=binary).execute(text.encode()).fetchall())
    planted = access.stack.ready["targets"][ORDERS]["planted"]
    assert "#MASKED:" in found
    assert not [value for value in planted if value in found]


ORACLES = {
    "LIKE": "select id from customers where email like 'a%'",
    "the row as text": "select id from customers where customers::text like '%a%'",
    "ORDER BY": "select id from customers order by email",
    "division by zero": "select 1 / (case when email like 'x%' then 0 else 1 end) from customers where id = 1",
    "a cast that fails": "select card_number::int from customers where id = 1",
    "a row comparison": "select id from customers where (id, email) > (1, 'm')",
    "a function of the row": "select c.to_json from customers c",
    "how many rows come": "select * from generate_series(1, (select ascii(email) from customers where id = 1))",
    "statistics": "select most_common_vals from pg_stats where false or tablename = 'customers' order by 1",
    "a file of XML": "select query_to_xml('select email from customers', true, true, '')",
    "a setting": "select set_config('my.x', (select email from customers where id = 1), false)",
    "a notification": "select pg_notify('x', (select email from customers where id = 1))",
    "a notice": "do $$begin raise notice '%', (select email from customers limit 1); end$$",
    "a plan that ran": "explain analyze select id from customers where email = 'x'",
}


@pytest.mark.parametrize("text", ORACLES.values(), ids=ORACLES.keys())
def test_a_question_that_computes_on_a_masked_column(client: psycopg.Connection[Row], text: str) -> None:
    """A mask that may be asked about is read one bit at a time."""
    with pytest.raises(pg.InsufficientPrivilege, match=DENIED):
        client.execute(text.encode())


# What the login is, and what names mean

IDENTITY = {
    "SET": "set application_name = 'x'",
    "SET LOCAL, quoted": "begin; set local \"application_name\" = 'x'; commit",
    "RESET": "reset application_name",
    "set_config by name": "select set_config(new_value => 'x', setting_name => 'application_name', is_local => false)",
    "set_config, escaped": "select set_config(E'appl\\x69cation_name', 'x', false)",
    "set_config, joined": "select set_config('appli' || 'cation_name', 'x', false)",
    "set_config, variadic": "select set_config(variadic array['application_name', 'x', 'f'])",
    "pg_settings": "update pg_settings set setting = 'x' where name = 'application_name'",
    "the role's default": "alter role orders_app set application_name = 'x'",
    "SET ROLE": "set role postgres",
    "SESSION AUTHORIZATION": "set session authorization postgres",
    "search_path": "select set_config('search_path', 'pg_temp', false)",
    "SET SCHEMA": "set schema 'pg_temp'",
    "a table that shadows": "create temp table customers (id int)",
    "client_encoding": "set names 'SJIS'",
    "strings": "set standard_conforming_strings = off",
    "triggers": "set session_replication_role = replica",
}


@pytest.mark.parametrize("text", IDENTITY.values(), ids=IDENTITY.keys())
def test_a_statement_that_changes_who_we_are_or_what_names_mean(
    access: Access, client: psycopg.Connection[Row], text: str
) -> None:
    """The chain in the target's log, and what was approved, rest on these."""
    with pytest.raises(pg.InsufficientPrivilege, match=DENIED):
        client.execute(text.encode())
    with access.client() as other:
        assert other.execute("show application_name").fetchone() != ("x",)


# Approvals


def test_a_second_statement_behind_a_harmless_one(access: Access) -> None:
    """A batch is one operation: its card shows all of it, and nothing of it runs before."""
    before = amount(access.stack, 31)
    held = Held(access, "select 1; /* only a read */ update orders set amount_cents = 3 where id = 31")
    access.card("amount_cents = 3 where id = 31")
    held.client.cancel()
    assert isinstance(held.end(), pg.InsufficientPrivilege)
    assert amount(access.stack, 31) == before


def test_approve_one_bind_and_run_another(access: Access) -> None:
    """Approve X, run Y: the second execution with other values is held again, and does not run."""
    text = "update orders set amount_cents = %s where id = 32"
    first = Held(access, text, (320099,))
    access.approve("320099")
    assert first.end() is None
    second = Held(access, text, (320100,))
    access.card("320100")
    second.client.cancel()
    assert isinstance(second.end(), pg.InsufficientPrivilege)
    assert amount(access.stack, 32) == 320099


def test_two_held_at_once_and_one_approved(access: Access) -> None:
    """An approval belongs to one question, not to a session."""
    one = Held(access, "update orders set amount_cents = 33 where id = 33")
    other = Held(access, "update orders set amount_cents = 34 where id = 34")
    access.approve("where id = 34")
    assert other.end() is None
    one.client.cancel()
    assert isinstance(one.end(), pg.InsufficientPrivilege)
    assert (amount(access.stack, 33) == 33, amount(access.stack, 34)) == (False, 34)


def test_what_is_pipelined_behind_a_run_that_has_not_ended_is_held_too(access: Access) -> None:
    """It was refused because "a transaction is open", which nobody knew yet and which was not so."""
    with closing(access.client()) as opened:
        raw = opened.pgconn
        raw.enter_pipeline_mode()
        for text in (b"select pg_sleep(0.5)", b"update orders set amount_cents = 36 where id = 36"):
            raw.send_query_params(text, [])
            raw.pipeline_sync()
        access.card("where id = 36")
        opened.cancel()
    assert amount(access.stack, 36) != 36


MASKS = {
    "escaped": "update customers set note = E'#MASK\\x45D:email#' where id = 1",
    "Unicode escapes": "update customers set note = U&'#MASK\\0045D:email#' where id = 1",
    "two constants": "update customers set note = '#MASK'\n'ED:email#' where id = 1",
    "hexadecimal": "update customers set note = convert_from('\\x234D41534b45443a23'::bytea, 'utf8') where id = 1",
    "dollars": "update customers set note = $$#MASKED:email#$$ where id = 1",
}


@pytest.mark.parametrize("text", MASKS.values(), ids=MASKS.keys())
def test_a_mask_written_back_in_disguise(client: psycopg.Connection[Row], text: str) -> None:
    """Drivers escape and fold constants: the mask is then not in the text, but it is what the server stores."""
    with pytest.raises(pg.InsufficientPrivilege, match="carries a masked value"):
        client.execute(text.encode())


def test_copy_from_stdin_is_not_approved_blind(access: Access) -> None:
    """Its rows come after the statement and are on no card: an approval of it would be one of any rows (P4)."""
    with access.client() as opened, pytest.raises(pg.InsufficientPrivilege, match="rows cannot be shown") as refused:
        opened.execute("copy customers from stdin")
    assert "INSERT" in str(refused.value.diag.message_hint)
    assert access.admin("select count(*) from customers where id = 9001") == (0,)


# Others on the same broker


def test_a_flood_behind_a_held_statement_stops_nobody_else(access: Access) -> None:
    """1 MiB of small messages, let go in one turn of the loop, kept every other connection waiting for 7 s."""
    clock = SystemClock()
    with closing(access.client()) as flooding, access.client() as other:
        raw = flooding.pgconn
        raw.enter_pipeline_mode()
        for text in (b"update orders set amount_cents = 35 where id = 35", *[b"select 1"] * 12_000):
            raw.send_query_params(text, [])
            raw.pipeline_sync()
        access.card("where id = 35")
        flooding.cancel()
        slowest, ends = 0.0, clock.monotonic_s() + 3
        while (began := clock.monotonic_s()) < ends:
            other.execute("select 1")
            slowest = max(slowest, clock.monotonic_s() - began)
    assert slowest < 1
    assert amount(access.stack, 35) != 35
