"""A bucket that one broker wrote, as a folder: a chain of two, a session with two connections, and one never used."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from broker.connection import Connection
from broker.events import FLUSH_AFTER_S, Events
from chalicelib.domain.audit import Acting, AuditEvent, AuditName
from chalicelib.domain.operation import Act, Operation
from chalicelib.domain.policy import NeedsApproval
from countersign.__main__ import main
from countersign.named_queries import read_query
from tests.fakes.broker import DBA, PERMITTED, REFUSED, World, operation
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemoryStores
from tests.functional.archive import archived, copy_bucket

CHILD = "https://countersign.example#key:child"
HOSTILE = "SELECT '=cmd|calc'\x1b]0;pwned\x07\n"


def _ignored(_: object) -> None:
    """The log lines are another test's."""


@dataclass
class Archive:
    """A bucket that one broker wrote, as a folder; and the command line over it."""

    folder: Path
    world: World
    session: str

    def run(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        given = ["query", *arguments, "--local", str(self.folder)]
        return main(given, {}, out=out, err=err, clock=cast(Any, self.world.clock)), out.getvalue(), err.getvalue()

    def rows(self, name: str, **params: object) -> list[dict[str, Any]]:
        given = [part for key, value in params.items() for part in ("--param", f"{key}={value}")]
        code, out, err = self.run(name, "--json", *given)
        assert code == 0, (out, err)
        told = json.loads(out)
        assert told["columns"] == list(read_query(name).columns)
        assert told["truncated"] is False
        return cast(list[dict[str, Any]], told["rows"])


def _ran(connection: Connection, op: Operation, **outcome: Any) -> None:
    connection.submit(op, in_transaction=False)
    connection.outcome(op.id, status="ok", **outcome)


def _reading(text: str, *tables: str, masked: bool) -> Operation:
    context = (("tables", tables), ("reads_masked", masked))
    return replace(operation(text=text), acts=(Act(action="sql:read", context=context),))


def _approved(world: World, connection: Connection) -> None:
    op = operation("sql:write", "DELETE FROM orders WHERE id = 1")
    verdict = connection.submit(op, in_transaction=False)
    held = connection.hold(op, cast(Any, verdict))
    held.open()
    world.clock.advance(90)
    world.liveness.step()
    world.answer(held.ask, "dora")
    world.poller.step()
    held.settle()
    connection.outcome(op.id, status="ok", rows=1)
    ask = held.ask
    archived(world.stores.objects, "asks", {"id": ask.id}, ask)
    (answer,) = world.stores.answers.of_ask(ask.id)
    archived(world.stores.objects, "answers", {"ask": ask.id, "person": answer.person}, answer)


def _granted(world: World) -> AuditEvent:
    grant = world.session.grant
    assert grant is not None
    return AuditEvent(
        name=AuditName.SESSION_GRANTED,
        at=world.clock.now(),
        txn=world.session.txn,
        session_id=world.session.id,
        actor=world.session.actor.key,
        acting=Acting.of(world.chain),
        target=grant.target,
        principal=grant.principal,
        verdict="forward",
        rules=grant.rules,
    )


def _work(world: World, events: Events) -> None:
    world.policy.outcomes["sql:write"] = NeedsApproval(rules=("prod-delete",), needs=(DBA,))
    world.policy.outcomes["sql:define"] = REFUSED
    connection = world.connect()
    _ran(connection, _reading("SELECT id FROM orders", "public.orders", masked=False), rows=3)
    _ran(connection, _reading("SELECT email FROM customers", "public.customers", masked=True), rows=7)
    connection.submit(operation("sql:define", "DROP TABLE orders"), in_transaction=False)
    world.clock.advance(60)
    world.liveness.step()
    world.activate()
    world.policy.outcomes["sql:define"] = replace(PERMITTED, rules=("break-glass-drop",))
    again = world.connect()
    _ran(again, operation("sql:define", "DROP TABLE orders"))
    _ran(again, operation("sql:opaque", HOSTILE))
    _approved(world, again)
    for one in (connection, again):
        one.close("closed")
    world.clock.advance(FLUSH_AFTER_S)
    events.step()


def worked_archive(place: Path) -> Archive:
    """Write it into ``place``, every object of events twice, as after a lost answer."""
    stores, clock = MemoryStores(), FakeClock()
    events = Events(objects=stores.objects, log=_ignored, clock=clock, writer="boot_1")
    world = World(clock=clock, stores=stores, audit=cast(Any, events))
    world.delegate("orders-prod")
    for hop in world.chain.hops:
        archived(stores.objects, "chains", {"txn": hop.txn, "place": f"{hop.depth:02d}#{hop.id}"}, hop)
    events.record(_granted(world))
    archived(stores.objects, "sessions", {"id": world.session.id}, replace(world.session, verifier=None))
    unused = replace(world.session, id=cast(Any, "ses_01m6dshkc8w586sj5sp0arcw4h"), verifier=None)
    archived(stores.objects, "sessions", {"id": unused.id}, replace(unused, grant=None))
    archived(stores.objects, "sessions", {"id": unused.id}, unused, number=2)
    _work(world, events)
    for key in [key for key in stores.objects.rows if key.startswith("events/")]:  # as after a lost answer
        stores.objects.rows[key.replace("boot_1-", "boot_1_again-")] = stores.objects.rows[key]
    copy_bucket(stores.objects, place)
    return Archive(folder=place, world=world, session=world.session.id)
