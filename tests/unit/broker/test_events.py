"""The broker's events: batched, put once acknowledged, and nobody let in while they could be lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.__main__ import Entrance
from broker.events import FLUSH_AFTER_S, FLUSH_BYTES, FULL_BYTES, OVERFULL_BYTES, RETRY_AFTER_S, Events, packed
from chalicelib.domain.audit import AuditEvent, AuditName
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.operation import Block, Forward
from chalicelib.domain.operation_events import OperationFold, ToldOperation
from chalicelib.domain.recording import Frame, FrameKind, RecordedAs
from chalicelib.domain.store import ObjectVersion
from chalicelib.services.event_objects import event_lines
from tests.fakes.broker import PEER, World, operation
from tests.fakes.clock import START, FakeClock
from tests.fakes.memory import MemoryObjects, MemoryStores


@dataclass
class Told:
    """Events over a bucket in memory."""

    clock: FakeClock = field(default_factory=FakeClock)
    stores: MemoryStores = field(default_factory=MemoryStores)
    lines: list[Mapping[str, Json]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events = Events(objects=self.stores.objects, log=self.lines.append, clock=self.clock, writer="boot_1")

    def rows(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for key in self.stores.objects.keys("events/v1/")
            for line in gzip.decompress(self.stores.objects.get(key)).decode().splitlines()
        ]


class LosesAnswers:
    """A bucket that takes the first object and does not say so."""

    def __init__(self, objects: MemoryObjects) -> None:
        self._objects = objects
        self._lost = False

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        done = self._objects.put_new(key, body, content_type=content_type, keep_days=keep_days)
        if not self._lost:
            self._lost = True
            raise StoreUnavailable("no answer came")
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


def event(subject: str = "con_1") -> AuditEvent:
    return AuditEvent(name=AuditName.CONNECTION_REFUSED, at=START, subject=subject)


def ran(text: str = "SELECT 1", tag: str = "") -> ToldOperation:
    """An operation that ran, as the fold gives it."""
    who = RecordedAs(
        session_id=SessionId("ses_1"),
        connection_id=ConnectionId("con_1"),
        txn=Txn("txn1"),
        protocol="postgres",
        actor="iss#child",
        originator="iss#root",
        target="orders-prod",
        principal="app",
    )
    fold = OperationFold(who)
    began: tuple[tuple[str, Json], ...] = (("op", "op_1"), ("verdict", "forward"), ("actions", ["sql:read"]))
    fold.take(Frame(seq=1, at=START, dir="c2s", kind=FrameKind.OPERATION, text=text, meta=began))
    ended: tuple[tuple[str, Json], ...] = (("op", "op_1"), ("status", "ok"), ("tag", tag))
    (told,) = fold.take(Frame(seq=2, at=START, dir="ctl", kind=FrameKind.OUTCOME, text="", meta=ended))
    return told


def nowhere(_: int) -> str:
    return ""


def test_events_wait_for_company_and_go_out_in_one_object() -> None:
    """An object an event would cost more than the event, and nobody could query a million of them."""
    told = Told()
    told.events.record(event())
    told.events.operated(ran(), lambda frame: f"rec/v1/{frame}")
    told.events.step()
    assert told.rows() == []
    told.clock.advance(FLUSH_AFTER_S)
    told.events.step()
    assert [(row["number"], row["name"]) for row in told.rows()] == [(0, "connection.refused"), (1, "operation.ran")]
    assert told.rows()[1]["segment"] == "rec/v1/1"
    (key,) = told.stores.objects.keys("events/v1/")
    assert key.startswith(f"events/v1/date={told.clock.now():%Y-%m-%d}/hour={told.clock.now():%H}/boot_1-")
    assert told.events.waiting == 0


@given(st.lists(st.builds(ran, st.text(max_size=300)), min_size=1, max_size=5))
def test_what_a_broker_packs_is_what_everybody_else_would(told: list[ToldOperation]) -> None:
    """One archive, one form: whoever reads an object must not have to know who wrote it."""
    rows = [one.event().row(writer="boot_1", number=number) for number, one in enumerate(told)]
    assert gzip.decompress(packed(rows)) == gzip.decompress(event_lines(rows))
    assert packed(rows) == packed(rows)


def test_many_events_do_not_wait() -> None:
    """Size is the other bound: what waits is what a killed broker has not put."""
    told = Told()
    while told.events.waiting * 1024 < FLUSH_BYTES:
        told.events.operated(ran(), nowhere)
    told.events.step()
    assert told.events.waiting == 0


def test_the_line_is_written_before_anything_else_and_has_the_same_uid() -> None:
    """What a killed broker could not put is in its log, and counts once."""
    told = Told()
    told.events.record(event())
    told.events.close()
    assert [row["uid"] for row in told.rows()] == [told.lines[0]["uid"]]
    assert [(row["writer"], row["number"]) for row in told.rows()] == [("boot_1", 0)]


def test_a_bucket_that_refuses_lets_nobody_in_and_loses_nothing() -> None:
    """Attack: fill or block the bucket, then work unaudited."""
    told = Told()
    told.stores.fail("objects")
    told.events.record(event("a"))
    told.clock.advance(FLUSH_AFTER_S)
    told.events.step()
    with pytest.raises(StoreUnavailable):
        told.events.require_open()
    told.events.record(event("b"))  # what is open goes on, and is told
    told.stores.heal("objects")
    told.clock.advance(RETRY_AFTER_S)
    told.events.step()
    told.events.require_open()
    assert [row["subject"] for row in told.rows()] == ["a", "b"]


def test_a_lost_answer_tells_the_same_facts_twice_and_not_less() -> None:
    """The put was applied and its answer lost: the events are put again, under the same uids."""
    told = Told()
    objects = LosesAnswers(told.stores.objects)
    told.events = Events(objects=cast(Any, objects), log=told.lines.append, clock=told.clock, writer="boot_1")
    told.events.record(event())
    told.clock.advance(FLUSH_AFTER_S)
    told.events.step()
    told.clock.advance(RETRY_AFTER_S)
    told.events.step()
    assert len(told.rows()) == 2
    assert len({row["uid"] for row in told.rows()}) == 1


def test_a_full_queue_lets_nobody_in_and_an_overfull_one_runs_nothing() -> None:
    """Attack: make events faster than they can be put; the queue is bounded and drops nothing."""
    told = Told()
    while told.events.waiting * 1024 * 5 < FULL_BYTES:
        told.events.operated(ran("x" * 4096), nowhere)
    with pytest.raises(StoreUnavailable):
        told.events.require_open()
    told.events.require_room()
    while told.events.waiting * 1024 * 5 < OVERFULL_BYTES:
        told.events.operated(ran("x" * 4096), nowhere)
    with pytest.raises(StoreUnavailable):
        told.events.require_room()
    with pytest.raises(StoreUnavailable):
        told.events.record(event())
    assert told.lines, "the line stays, whatever becomes of the object"


def test_what_a_target_says_counts_too() -> None:
    """Attack: a target answers each statement with a tag of a megabyte, of which an event shows the beginning."""
    told = Told()
    for _ in range(OVERFULL_BYTES // FLUSH_BYTES):
        told.events.operated(ran(tag="x" * FLUSH_BYTES), nowhere)
    with pytest.raises(StoreUnavailable):
        told.events.require_room()


def test_the_end_puts_what_waits() -> None:
    """A broker that is told to stop leaves nothing in memory."""
    told = Told()
    told.events.record(event())
    assert told.events.close()
    assert len(told.rows()) == 1
    told.events.record(event())
    told.stores.fail("objects")
    assert not told.events.close()


def test_nobody_is_admitted_while_events_cannot_be_stored() -> None:
    """It is refused before a grant is read or a credential minted, and the refusal is told."""
    world, told = World(), Told()
    told.stores.fail("objects")
    told.events.record(event())
    told.clock.advance(FLUSH_AFTER_S)
    told.events.step()
    entrance = Entrance(world.admissions, world.gateway, told.events)
    with pytest.raises(StoreUnavailable):
        entrance.open(world.session.id, PEER)
    assert world.audit.names() == ["connection.refused"]
    assert world.stores.connections.of_session(world.session.id) == []


def test_an_open_connection_runs_nothing_that_could_not_be_told() -> None:
    """And it ends: a connection that can do nothing must not hold a place."""
    world = World()
    connection = world.connect()
    assert isinstance(connection.submit(operation(), in_transaction=False), Forward)
    world.audit.full = StoreUnavailable("full")
    assert isinstance(connection.submit(operation(), in_transaction=False), Block)
    assert isinstance(connection.ending(), StoreUnavailable)


def test_an_operation_of_a_connection_becomes_one_event() -> None:
    """From the gateway's own recording: nothing has to remember to tell."""
    world = World()
    connection = world.connect()
    op = operation(text="SELECT 1 FROM orders")
    connection.submit(op, in_transaction=False)
    connection.outcome(op.id, status="ok", rows=1)
    blocked = operation("sql:nothing", "DROP TABLE orders")
    connection.submit(blocked, in_transaction=False)
    told = cast(Any, world.audit).operations
    assert [(one.name.value, one.operation_id) for one in told] == [
        ("operation.ran", op.id),
        ("operation.refused", blocked.id),
    ]
    assert told[0].acting.chain == (world.chain.originator.key,)
    assert told[0].operated.tables == ("public.orders",)
