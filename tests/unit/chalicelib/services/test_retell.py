"""A killed broker's operations are told again from its recording: the same facts, each once, whatever lies in it."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from broker.connection import Connection
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identifiers import ConnectionId
from chalicelib.domain.operation import Forward
from chalicelib.domain.recording import segment_key
from chalicelib.services import retell as module
from chalicelib.services.event_objects import checked_row
from chalicelib.services.retell import retell
from tests.fakes.aftermath import manifest, row, sealer, sweeper, swept
from tests.fakes.broker import World, operation


def ran(connection: Connection, text: str, *, outcome: str = "ok") -> None:
    """Have an operation run, and end where ``outcome`` is one."""
    found = operation(text=text)
    verdict = connection.submit(found, in_transaction=False)
    assert isinstance(verdict, Forward)
    if outcome:
        connection.outcome(found.id, status=outcome, tag="SELECT 1", rows=1)


def dead() -> World:
    """A broker that ran one operation, had another under way, and died."""
    world = World()
    connection = world.connect()
    ran(connection, "SELECT 1")
    ran(connection, "SELECT 2", outcome="")
    connection.flush()
    return world


def retold(world: World) -> list[dict[str, Any]]:
    lines = [
        json.loads(line)
        for key in world.stores.objects.keys("events/v1/")
        for line in gzip.decompress(world.stores.objects.get(key)).decode().splitlines()
    ]
    # Objects of one millisecond have no order.
    return sorted((one for one in lines if one["writer"].startswith("retold_")), key=lambda one: int(one["number"]))


def told_by_broker(world: World) -> list[dict[str, Json]]:
    return [event.row(writer="boot", number=0) for event in world.audit.operations]


def same(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in ("writer", "number", "segment")}


def test_what_a_killed_broker_had_not_told_is_told_by_the_sweeper() -> None:
    """Its last ten seconds waited in its memory: the events say what the recording does, and who did it."""
    world = dead()
    assert swept(world).sealed == 1
    found = retold(world)
    assert [(one["name"], one["text"], one["outcome"]) for one in found] == [
        ("operation.ran", "SELECT 1", "ok"),
        ("operation.ran", "SELECT 2", "unknown"),
    ]
    assert [one["number"] for one in found] == [0, 1]
    assert {one["writer"] for one in found} == {f"retold_{row(world).id}"}
    assert all(checked_row(one) == one for one in found)
    assert all(one["segment"].startswith("rec/v1/") and one["actor"] and one["chain"] for one in found)
    segment = gzip.decompress(world.stores.objects.get(found[1]["segment"])).decode()
    assert any(json.loads(line).get("seq") == found[1]["frame"] for line in segment.splitlines())


def test_it_is_the_same_fact_in_the_same_words() -> None:
    """What the broker had told already counts once: one uid, and nothing in it differs."""
    world = dead()
    swept(world)
    told = told_by_broker(world)
    assert len(told) == 1
    assert [same(one) for one in retold(world)][:1] == [same(one) for one in told]


def test_telling_again_gives_the_same_rows_and_counts_once() -> None:
    """A sweeper that dies between its puts and the seal comes again."""
    world = dead()
    sealer(world)(row(world))
    first = retold(world)
    assert retell(world.stores.objects, row(world), manifest(world), world.clock) == 2
    assert retold(world) == [one for one in first for _ in range(2)]


def test_a_row_is_not_sealed_before_its_operations_are_told() -> None:
    """A sealed row is looked at no more: what was not told by then would never be."""
    world = dead()

    class NoEvents:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.stores.objects, name)

        def put_new(self, key: str, body: bytes, **how: Any) -> Any:
            if key.startswith("events/"):
                raise StoreUnavailable("no")
            return world.stores.objects.put_new(key, body, **how)

    world.clock.advance(200)
    assert sweeper(world, objects=NoEvents())().failed == 1
    assert row(world).sealed_at is None
    assert sweeper(world)().by_others == 1
    assert row(world).sealed_at is not None
    assert len(retold(world)) == 2


def test_a_broker_that_died_between_manifest_and_row_is_told_for_too() -> None:
    """Its manifest is adopted, and its events may have waited all the same."""
    world = World()
    connection = world.connect()
    ran(connection, "SELECT 1")
    world.stores.fail("connections")
    connection.close("client_left")
    world.stores.heal("connections")
    assert swept(world).by_others == 1
    assert [one["text"] for one in retold(world)] == ["SELECT 1"]


def test_one_that_sealed_itself_is_not_told_again() -> None:
    """A broker that ends in order has told all of it."""
    world = World()
    connection = world.connect()
    ran(connection, "SELECT 1")
    connection.close("client_left")
    swept(world)
    assert retold(world) == []


HOSTILE = [
    b"\xff\xfe",
    b"[]",
    b'{"seq":"x","kind":"operation"}',
    b'{"seq":2,"kind":["operation"],"text":1}',
    b'{"seq":3,"kind":"operation","text":"x","meta":"{\\"op\\":7}"}',
]


@pytest.mark.parametrize("line", HOSTILE)
def test_rubbish_in_a_recording_ends_nothing(line: bytes) -> None:
    """Whoever may put objects under rec/ must not be able to keep a row from being sealed."""
    world = dead()
    key = segment_key(row(world).session_id, row(world).id, 1)
    raw = gzip.decompress(world.stores.objects.rows[key]).splitlines()
    world.stores.objects.rows[key] = gzip.compress(b"\n".join([raw[0], raw[1], line, *raw[2:]]) + b"\n")
    assert swept(world).sealed == 1
    assert len(retold(world)) == 2


def test_a_frame_of_another_connection_tells_nothing() -> None:
    """A segment moved here tells of what was not done here."""
    world = dead()
    sealer(world)(row(world))
    other = replace(row(world), id=ConnectionId("con_other"))
    assert retell(world.stores.objects, other, manifest(world), world.clock) == 0


def test_of_a_long_recording_the_end_is_told_and_who_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweeper has minutes: the broker had told of everything older."""
    monkeypatch.setattr(module, "MOST_SEGMENTS", 3)
    world = World()
    connection = world.connect()
    for number in range(6):
        ran(connection, f"SELECT {number}")
        connection.flush()
    swept(world)
    found = retold(world)
    assert [one["text"] for one in found] == ["SELECT 4", "SELECT 5"]
    assert all(one["originator"] for one in found)


def test_many_operations_are_several_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and a writer's numbers go on without holes."""
    monkeypatch.setattr(module, "_OBJECT_EVENTS", 2)
    world = World()
    connection = world.connect()
    for number in range(5):
        ran(connection, f"SELECT {number}")
    connection.flush()
    swept(world)
    assert [one["number"] for one in retold(world)] == [0, 1, 2, 3, 4]
    assert len(world.stores.objects.keys("events/v1/")) == 3
