"""What a recording goes through while it is open: keys that do not sign, tables that throttle, clocks that jump.

After each: nothing that was approved is missing, at most the window of the rest is, the row says so, and ``verify``
tells exactly what happened. Buckets that refuse, are slow or lie, killed processes and full disks are in
``test_recorder_kills``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from broker.connection import Connection
from broker.liveness import DEAD_S, STALE_S
from broker.recorder.spool import Spool
from chalicelib.domain.connection import SILENT_AFTER
from chalicelib.domain.errors import GrantExpired, StoreUnavailable
from chalicelib.domain.operation import Block, Forward, Hold
from chalicelib.services.sweep import Swept
from chalicelib.store.dates import MAX_SKEW_S, ServiceDates
from tests.fakes.aftermath import beat, finishing, manifest, recorded_texts, row, sweeper, swept, told
from tests.fakes.broker import MINT, World, operation
from tests.fakes.clock import START, FakeClock

DELETE = "DELETE FROM orders WHERE id = 7"
ALL = {"SELECT 1", DELETE}


def worked(world: World) -> Connection:
    """Return an open connection on which one statement ran, and one that was held and approved."""
    connection = world.connect()
    assert isinstance(connection.submit(operation(), in_transaction=False), Forward)
    op = operation("sql:write", DELETE)
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Hold)
    held = connection.hold(op, verdict)
    held.open()
    world.answer(held.ask, "dora")
    world.poller.step()
    assert isinstance(held.settle(), Forward)
    connection.outcome(op.id, status="ok", tag="DELETE 1")
    return connection


# KMS


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "deleted"])
def test_kms_is_down_when_a_recording_is_sealed(tmp_path: Path, keep: bool) -> None:
    """Nothing signs the manifest: the row stays open, and whoever comes next seals the whole of it. With its spool it
    is this very broker, else the sweeper."""
    world = World(spool=Spool(tmp_path, "boot_1"))
    connection = worked(world)
    signer = world.recorder._signer
    world.recorder._signer = Down()
    connection.close("client_left")
    assert row(world).sealed_at is None
    assert not world.stores.objects.keys("manifests/")
    assert world.spool is not None
    if keep:
        world.recorder._signer = signer
        finishing(world, world.spool).step()
        assert list(tmp_path.rglob("*.ndjson")) == []
    else:
        assert swept(world) == Swept(sealed=1)
    assert (manifest(world).exit, manifest(world).gaps) == ("client_left", ())
    assert (told(world), recorded_texts(world)) == ([], ALL)


class Down:
    """A key that does not sign."""

    public_jwk: dict[str, str] = {}  # noqa: RUF012 the protocol's own type

    def sign(self, typ: str, payload: bytes) -> str:
        raise StoreUnavailable("kms", typ=typ, bytes=len(payload))

    def sign_bytes(self, message: bytes) -> bytes:
        raise StoreUnavailable("kms", bytes=len(message))


# DynamoDB


class Throttled:
    """Connection rows of a table that throttles one kind of call, ``times`` times: before it, or after it was done."""

    def __init__(self, store: Any, method: str, times: int, *, after: bool) -> None:
        self._store, self._method, self._after = store, method, after
        self.left = times

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._method:
            return found

        def throttled(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                return found(*args, **kwargs)
            self.left -= 1
            if self._after:
                found(*args, **kwargs)
            raise StoreUnavailable("ProvisionedThroughputExceededException")

        return throttled


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer lost"])
def test_the_table_throttles_a_connections_row(after: bool) -> None:
    """No row that we know of, no credential; a row whose answer was lost is found again. Numbers have no hole."""
    world = World()
    world.gateway._rows._connections = Throttled(world.stores.connections, "put", 1, after=after)
    if after:
        world.connect().close("client_left")
    else:
        with pytest.raises(StoreUnavailable):
            world.connect()
        assert not [entry for entry in world.journal if MINT in entry]
        assert not world.stores.connections.rows
    worked(world).close("client_left")
    opened = sorted(world.stores.connections.rows.values(), key=lambda one: one.number)
    assert [one.number for one in opened] == list(range(1, len(opened) + 1))
    assert (told(world), recorded_texts(world)) == ([], ALL)


@pytest.mark.parametrize("after", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "deleted"])
def test_the_table_throttles_the_seal(tmp_path: Path, after: bool, keep: bool) -> None:
    """The manifest is there and the row does not say so: it is adopted as it is, never signed a second time."""
    world = World(spool=Spool(tmp_path, "boot_1"))
    world.recorder._connections = Throttled(world.stores.connections, "seal", 1, after=after)
    worked(world).close("client_left")
    (key,) = world.stores.objects.keys("manifests/")
    before = world.stores.objects.get(key)
    assert world.spool is not None
    if keep:
        finishing(world, world.spool).step()
        assert list(tmp_path.rglob("*.ndjson")) == []
    else:
        assert swept(world) == (Swept() if after else Swept(by_others=1))
    assert (row(world).exit, row(world).manifest_key) == ("client_left", key)
    assert world.stores.objects.get(key) == before
    assert (told(world), recorded_texts(world)) == ([], ALL)


# Clocks


def dated(world: World, true: FakeClock) -> None:
    """Have every store's answer carry the date of ``true``, as AWS's do, checked as the real stores check it."""
    dates = ServiceDates(world.clock)
    enter = world.stores._gate.enter

    @contextmanager
    def answering(name: str) -> Iterator[None]:
        with enter(name):
            yield
        dates.check(format_datetime(true.now().astimezone(UTC), usegmt=True))

    world.stores._gate.enter = answering  # type: ignore[method-assign]


def later(world: World, true: FakeClock, seconds: float) -> None:
    """Let time go by, as the broker's threads see it: the feed is looked at once a second."""
    for _ in range(round(seconds)):
        world.clock.advance(1.0)
        true.advance(1.0)
        try:
            world.liveness.step()
        except StoreUnavailable:
            continue


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, MAX_SKEW_S + 2, -MAX_SKEW_S - 2])
def test_the_brokers_clock_jumps(jump_s: float) -> None:
    """Back by an hour, every grant would live an hour longer; forward, frames would be dated before their time. Either
    way no answer counts: nothing is forwarded once the feed is stale, and the connection ends. What was recorded is
    sealed by whose clock is right."""
    true = FakeClock()
    world = World()
    connection = worked(world)
    dated(world, true)
    later(world, true, 2)
    assert isinstance(connection.submit(operation(), in_transaction=False), Forward), "the control: the clock is right"
    world.clock.jump(jump_s)
    later(world, true, STALE_S + 1)
    refused = connection.submit(operation(text="SELECT 2"), in_transaction=False)
    assert isinstance(refused, Block)
    assert refused.code in {StoreUnavailable.code, GrantExpired.code}
    later(world, true, DEAD_S)
    assert connection.ending() is not None
    connection.close("store_unavailable")
    assert row(world).sealed_at is None, "it could not read back what it put"
    world.clock.jump(-jump_s)
    true.advance((SILENT_AFTER + timedelta(seconds=1)).total_seconds())  # as ``swept`` lets our own time go by
    assert swept(world) == Swept(sealed=1)
    assert recorded_texts(world) == ALL | {"SELECT 2"}, "what was refused is told too"
    assert told(world) == []


def test_a_clock_that_is_a_little_off_harms_nobody() -> None:
    """Within the bound everything goes on: a slewing NTP is no outage."""
    true = FakeClock()
    world = World()
    dated(world, true)
    world.clock.jump(MAX_SKEW_S - 2)
    later(world, true, 2)
    connection = worked(world)
    later(world, true, STALE_S + 1)
    connection.close("client_left")
    assert (told(world), recorded_texts(world)) == ([], ALL)


@pytest.mark.parametrize("jump_s", [SILENT_AFTER.total_seconds() + 3600, -3600.0])
def test_the_sweepers_clock_jumps(jump_s: float) -> None:
    """Forward by an hour every broker looks dead: a sweeper that believed its clock would fence every connection."""
    true = FakeClock()
    world = World()
    connection = worked(world)
    beat(world)
    dated(world, true)
    objects = world.stores.objects.keys("rec/")
    sweeping = sweeper(world)
    world.clock.jump(jump_s)
    with pytest.raises(StoreUnavailable, match="clock"):
        sweeping()
    world.clock.jump(-jump_s)
    assert world.stores.objects.keys("rec/") == objects, "no tombstone"
    assert sweeping() == Swept(alive=1)
    connection.close("client_left")
    assert (told(world), recorded_texts(world)) == ([], ALL)


def test_time_that_goes_back_within_a_recording_breaks_nothing() -> None:
    """Frames are ordered by their numbers; the window and every wait go by seconds that never go back."""
    world = World()
    connection = worked(world)
    world.clock.jump(-20)
    connection.submit(operation(), in_transaction=False)
    assert not connection.behind
    world.clock.jump(-5)
    connection.close("client_left")
    assert (told(world), recorded_texts(world)) == ([], ALL)
    assert datetime.fromisoformat(manifest(world).signed()["closed_at"]) < START.astimezone(UTC)  # type: ignore[arg-type]
