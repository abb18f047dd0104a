"""Who counts as dead, and that being wrong about it costs a connection and no evidence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.recorder.recording import Failure
from chalicelib.domain.connection import SILENT_AFTER, Beat
from chalicelib.domain.errors import Limited, StoreUnavailable
from chalicelib.domain.recording import BROKER_LOST
from chalicelib.services.sweep import OVER_AFTER, Swept
from tests.fakes.aftermath import beat, row, sweeper, swept, told
from tests.fakes.broker import World, operation


def test_a_dead_brokers_connection_is_sealed_and_told_of() -> None:
    """Its beat stopped: whoever reads the row afterwards sees that it ended, and how."""
    world = World()
    world.connect()
    beat(world)
    assert swept(world) == Swept(sealed=1)
    assert row(world).exit == BROKER_LOST
    event = world.audit.events[-1]
    assert (event.name.value, event.code, event.connection_id) == ("connection.sealed", BROKER_LOST, row(world).id)
    assert event.why == "its broker boot1 is silent"
    assert sweeper(world)() == Swept()


def test_an_idle_connection_of_a_living_broker_is_left_alone() -> None:
    """It stores nothing for an hour, and that says nothing."""
    world = World()
    connection = world.connect()
    world.clock.advance(50 * 60)
    beat(world)
    assert sweeper(world)() == Swept(alive=1)
    connection.submit(operation(), in_transaction=False)
    connection.flush()
    assert connection.recording.failure is None


def test_a_broker_that_misses_some_beats_is_not_dead() -> None:
    """A table that is slow for a minute kills no connection."""
    world = World()
    world.connect()
    beat(world)
    world.clock.advance(SILENT_AFTER.total_seconds())
    assert sweeper(world)() == Swept(alive=1)


def test_a_boot_that_never_beat_is_given_time() -> None:
    """Its first beat may be on its way when its first row is there."""
    world = World()
    world.connect()
    world.clock.advance(60)
    assert sweeper(world)() == Swept(alive=1)


def test_what_a_living_broker_could_not_seal_is_sealed_after_its_grant() -> None:
    """The bucket was away when it closed: nothing else would ever seal it."""
    world = World()
    connection = world.connect()
    world.stores.fail("objects")
    connection.close("client_left")
    world.stores.heal("objects")
    world.clock.advance(timedelta(hours=1).total_seconds() + OVER_AFTER.total_seconds())
    beat(world)
    assert sweeper(world)() == Swept(alive=1)
    world.clock.advance(1)
    beat(world)
    assert sweeper(world)() == Swept(sealed=1)
    assert [kind for kind, _ in told(world)] == ["lost"]


def test_rows_of_a_killed_broker_count_against_the_cap_no_longer() -> None:
    """Else four crashes lock a pipeline out of its own session."""
    world = World()
    for _ in range(4):
        world.connect()
    with pytest.raises(Limited):
        world.admit()
    assert swept(world).sealed == 4
    world.liveness.step()
    world.configuration.step()
    world.gateway.open(world.admit())


def test_a_broker_that_comes_back_is_fenced_and_says_so() -> None:
    """Its machine slept: it must stop both sides before it forwards anything more, and leave the seal as it is."""
    world = World()
    connection = world.connect()
    assert swept(world).sealed == 1
    connection.submit(operation(), in_transaction=False)
    connection.flush()
    assert connection.recording.failure is Failure.FENCED
    ending = connection.ending()
    assert ending is not None
    assert ending.code == "recording_unavailable"
    connection.close("fenced")
    assert row(world).exit == BROKER_LOST


def test_one_row_that_cannot_be_sealed_stops_no_other() -> None:
    """And it is told of, each time, until somebody looks."""
    world = World()
    world.connect()
    world.connect()
    poisoned = min(world.stores.connections.rows.values(), key=lambda found: found.id)
    key = f"manifests/v1/2026-11-02/{poisoned.session_id}/{poisoned.id}.json"
    world.stores.objects.put_new(key, b"{}", content_type="application/json")
    assert swept(world) == Swept(sealed=1, failed=1)
    assert {event.code for event in world.audit.events[-2:]} == {"broker_lost", "proof_invalid"}


class Poisoned:
    """A bucket in which one recording breaks its reader in a way that nobody foresaw."""

    def __init__(self, objects: Any, connection: str) -> None:
        self._objects = objects
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def facts(self, key: str) -> Any:
        if self._connection in key:
            raise ValueError("hostile")
        return self._objects.facts(key)


def test_one_recording_that_breaks_its_reader_stops_no_other() -> None:
    """Attack: a client writes what our own code trips over; each run would end at its row, and seal nobody else's."""
    world = World()
    world.connect()
    world.connect()
    poisoned = min(world.stores.connections.rows.values(), key=lambda found: found.id)
    world.clock.advance(SILENT_AFTER.total_seconds() + 1)
    assert sweeper(world, objects=Poisoned(world.stores.objects, poisoned.id))() == Swept(sealed=1, failed=1)
    assert {(event.connection_id == poisoned.id, event.code) for event in world.audit.events[-2:]} == {
        (True, "internal"),
        (False, BROKER_LOST),
    }


def test_a_run_ends_in_time() -> None:
    """A Lambda that is cut off says nothing: it stops by itself, and the next run goes on."""
    world = World()
    world.connect()
    world.connect()
    run = sweeper(world)
    world.clock.advance(SILENT_AFTER.total_seconds() + 1)
    seal = run._seal

    def slow(found: object) -> object:
        world.clock.advance(300)
        return seal(found)  # type: ignore[arg-type]

    run._seal = slow  # type: ignore[assignment]
    assert run() == Swept(sealed=1, left=1)


def test_rows_that_cannot_be_listed_are_an_error() -> None:
    """A run that saw nothing because the table is away must not look like one that found nothing."""
    world = World()
    world.stores.fail("connections")
    with pytest.raises(StoreUnavailable):
        sweeper(world)()


def test_a_beat_that_cannot_be_read_is_no_death() -> None:
    """Not knowing is not silence."""
    world = World()
    world.connect()
    world.stores.beats.put(Beat(boot="boot1", at=world.clock.now()))
    world.stores.fail("beats")
    assert swept(world) == Swept(failed=1)
    assert row(world).sealed_at is None
