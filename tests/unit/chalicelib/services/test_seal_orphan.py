"""Sealing for a dead broker: the fence first, then what is known and what is not; any number of times, by anybody."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from broker.connection import Connection
from broker.recorder import Recording
from broker.recorder.recording import Failure
from chalicelib.domain.errors import ProofInvalid, StoreUnavailable
from chalicelib.domain.recording import BROKER_LOST, SWEEPER, TAIL_GAP, UPLOADS_AT_ONCE, Gap, segment_key
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import manifest_purpose, verify_manifest
from chalicelib.services.seal_orphan import Sealed
from chalicelib.services.stored_segments import Foreign, Stored, Tombstone, found_in
from tests.fakes.aftermath import RESTART, findings, manifest, recorded_texts, review, row, sealer, told
from tests.fakes.broker import WaitingPool, World, operation


def dead(*texts: str) -> World:
    """A broker that stored each of ``texts`` and died."""
    world = World()
    connection = world.connect()
    for text in texts:
        connection.submit(operation(text=text), in_transaction=False)
        connection.flush()
    return world


def opened_slowly(world: World, pool: WaitingPool) -> Connection:
    """Open a connection over a bucket that takes its time: segment 0 has to be there before anything is minted."""

    def make_durable(recording: Recording) -> None:
        recording.flush()
        pool.run_all()

    world.recorder.make_durable = make_durable  # type: ignore[method-assign]
    return world.connect()


def unsealed(world: World) -> None:
    """Make the row what it was before it was sealed."""
    found = row(world)
    before = replace(found, sealed_at=None, exit="", manifest_key="", manifest_sha256="")
    world.stores.connections.rows[found.session_id, found.id] = before


def keys(world: World) -> list[str]:
    return [key for key in sorted(world.stores.objects.rows) if key.startswith("rec/")]


def test_what_the_bucket_holds_is_sealed_and_the_rest_is_named() -> None:
    """P6: nothing stored is lost, and what may be missing is said: never called whole."""
    world = dead("SELECT 1", "SELECT 2")
    assert sealer(world)(row(world)) is Sealed.BY_US
    sealed = manifest(world)
    assert (row(world).exit, sealed.exit, sealed.sealed_by) == (BROKER_LOST, BROKER_LOST, SWEEPER)
    assert sealed.gaps == (Gap(first=5, last=None, why=TAIL_GAP),)
    assert sealed.policy_digest == world.policy.digest
    assert told(world) == [
        ("lost", "may lack frames from 5 on: its broker died, and sweeper sealed it (tail_gap)"),
    ]
    assert recorded_texts(world) == {"SELECT 1", "SELECT 2"}
    assert review(world).sessions[0].recordings[0].sealed_by == SWEEPER


def test_the_sweepers_manifest_is_signed_by_the_sweepers_key_alone() -> None:
    """A thief of the sweeper's key can seal nothing in a broker's name, and a broker's nothing in the sweeper's."""
    world = dead("SELECT 1")
    sealer(world)(row(world))
    sealed = manifest(world)
    assert manifest_purpose(sealed) is KeyPurpose.SWEEP
    verify_manifest(sealed, world.stores.keys)
    other = dead("SELECT 1")
    thief = sealer(other, "broker:boot1")
    thief._signer = other.stores.signer("sweep")
    thief(row(other))
    assert ("other_key", row(other).manifest_key) in [(found.kind.value, found.key) for found in findings(other)]


def test_a_record_with_its_close_frame_has_no_gap() -> None:
    """The broker had stored all of it and died before its manifest: that is whole, and says so."""
    world = World()
    connection = world.connect()
    connection.submit(operation(text="SELECT 1"), in_transaction=False)
    world.stores.fail("connections")
    connection.close("client_left")
    world.stores.heal("connections")
    del world.stores.objects.rows[next(key for key in world.stores.objects.rows if key.startswith("manifests/"))]
    assert sealer(world)(row(world)) is Sealed.BY_US
    assert (manifest(world).gaps, row(world).exit) == ((), "client_left")
    assert told(world) == []


def test_every_key_that_the_broker_could_still_write_is_taken() -> None:
    """Eight may be on their way: a tombstone on the next one alone would let the seventh land in a sealed recording."""
    world = dead("SELECT 1")
    before = len(keys(world))
    sealer(world)(row(world))
    assert len(keys(world)) == before + UPLOADS_AT_ONCE
    found = [
        found_in(row(world).session_id, row(world).id, number, world.stores.objects.rows[key])
        for number, key in enumerate(keys(world))
    ]
    assert [type(one) for one in found] == [Stored] * before + [Tombstone] * UPLOADS_AT_ONCE
    assert {one.by for one in found if isinstance(one, Tombstone)} == {SWEEPER}


def test_a_live_broker_is_fenced_wherever_it_was() -> None:
    """security.md: the sweeper seals a live connection. It stops both sides, and puts no second manifest."""
    world = World(pool=WaitingPool())
    assert isinstance(world.pool, WaitingPool)
    connection = opened_slowly(world, world.pool)
    for text in ("SELECT 1", "SELECT 2", "SELECT 3"):
        connection.submit(operation(text=text), in_transaction=False)
        connection.flush()
    world.pool.run(1)  # the second of three uploads has landed; the first is a hole, the third on its way
    assert sealer(world)(row(world)) is Sealed.BY_US
    world.pool.run_all()
    assert connection.recording.failure is Failure.FENCED
    assert connection.ending() is not None
    connection.close("fenced")
    sealed = manifest(world)
    assert sealed.sealed_by == SWEEPER
    assert [segment.number for segment in sealed.segments] == [0, 2]
    assert [(gap.first, gap.last) for gap in sealed.gaps] == [(2, 3), (5, None)]
    kinds = [found.kind.value for found in findings(world)]
    assert kinds == ["lost", "lost"], told(world)


def test_sealing_again_changes_nothing() -> None:
    """A sweeper that runs every two minutes meets what it did."""
    world = dead("SELECT 1")
    sealer(world)(row(world))
    before = dict(world.stores.objects.rows)
    assert sealer(world)(row(world)) is Sealed.BY_OTHERS
    assert world.stores.objects.rows == before


@pytest.mark.parametrize("calls", range(1, 22))
def test_a_sweeper_that_dies_anywhere_is_followed_by_another(calls: int) -> None:
    """Whatever its last call was, the next one comes to the same end."""
    world = dead("SELECT 1")
    dying = _DiesAfter(world.stores.objects, calls)
    seal = sealer(world, objects=dying)
    try:
        seal(row(world))
    except StoreUnavailable:
        assert row(world).sealed_at is None
    world.clock.advance(120)
    sealer(world)(row(world))
    assert [kind for kind, _ in told(world)] == ["lost"]
    assert len([key for key in world.stores.objects.rows if key.startswith("manifests/")]) == 1


def test_a_manifest_whose_writer_died_before_the_row_is_adopted() -> None:
    """Two manifests of one recording would be two truths."""
    world = World()
    connection = world.connect()
    world.stores.fail("connections")
    connection.close("client_left")
    world.stores.heal("connections")
    assert row(world).sealed_at is None
    assert sealer(world)(row(world)) is Sealed.BY_OTHERS
    assert (row(world).exit, manifest(world).sealed_by) == ("client_left", "broker:boot1")
    assert told(world) == []


def test_a_manifest_that_nobody_of_ours_signed_is_not_adopted() -> None:
    """Whoever can put an object could otherwise choose what a dead broker's recording says."""
    world = dead("SELECT 1")
    sealer(world)(row(world))
    sealed = row(world)
    document = json.loads(world.stores.objects.rows[sealed.manifest_key])
    document["exit"] = "nothing_happened"
    world.stores.objects.rows[sealed.manifest_key] = json.dumps(
        document, sort_keys=True, separators=(",", ":")
    ).encode()
    unsealed(world)
    with pytest.raises(ProofInvalid):
        sealer(world)(row(world))
    assert row(world).sealed_at is None


def test_a_connection_that_never_had_a_segment_is_sealed_without_a_manifest() -> None:
    """No first segment, no credential: nothing ran, as when its broker had lived to say so."""
    world = World()
    world.stores.fail("objects")
    with pytest.raises(Exception, match="record"):
        world.connect()
    world.stores.heal("objects")
    unsealed(world)
    assert sealer(world)(row(world)) is Sealed.UNUSED
    assert (row(world).exit, row(world).manifest_key) == (BROKER_LOST, "")
    assert ("unsealed", "has no manifest: nothing was forwarded on it (broker_lost)") in told(world)


def test_a_restarted_broker_signs_as_a_broker() -> None:
    """It is one: its manifest says ``restart``, and the record key signs it."""
    world = dead("SELECT 1")
    sealer(world, RESTART)(row(world))
    assert manifest_purpose(manifest(world)) is KeyPurpose.RECORD
    assert [what for _, what in told(world)] == [
        f"may lack frames from 4 on: its broker died, and {RESTART} sealed it (tail_gap)"
    ]


def test_an_object_that_is_neither_is_in_no_manifest() -> None:
    """Somebody put a thing at a segment's key: it is no tombstone that hides, and no segment that counts."""
    world = dead("SELECT 1")
    key = segment_key(row(world).session_id, row(world).id, 2)
    world.stores.objects.put_new(key, gzip.compress(b"{}\n"), content_type="x")
    sealer(world)(row(world))
    assert isinstance(found_in(row(world).session_id, row(world).id, 2, world.stores.objects.rows[key]), Foreign)
    assert ("extra", key) in [(found.kind.value, found.key) for found in findings(world)]


def test_a_tombstone_of_another_connection_is_not_one_here() -> None:
    """Copied from where it belongs, it would excuse a hole that nobody made."""
    world, other = dead("SELECT 1"), dead("SELECT 1")
    sealer(other)(row(other))
    stone = next(
        body
        for number, body in enumerate(other.stores.objects.rows[key] for key in keys(other))
        if isinstance(found_in(row(other).session_id, row(other).id, number, body), Tombstone)
    )
    assert isinstance(found_in(row(world).session_id, row(world).id, 3, stone), Foreign)


class _DiesAfter:
    """A bucket that is gone after so many calls: whoever uses it is as good as dead."""

    def __init__(self, objects: object, calls: int) -> None:
        self._objects = objects
        self._calls = calls

    def __getattr__(self, name: str) -> object:
        found = getattr(self._objects, name)

        def call(*args: object, **kwargs: object) -> object:
            self._calls -= 1
            if self._calls < 0:
                raise StoreUnavailable("gone")
            return found(*args, **kwargs)

        return call
