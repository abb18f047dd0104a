"""Sealing: the signed manifest, the row, and what stays for the sweeper."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.recorder import window
from chalicelib.domain.canonical import digest
from chalicelib.domain.recording import MANIFEST_SIGNATURE_TYPE, segment_key
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import verify_sha256
from chalicelib.services.sweep import Swept
from tests.fakes.aftermath import manifest, swept, told
from tests.fakes.broker import WaitingPool, World, operation


def row(world: World) -> Any:
    (found,) = world.stores.connections.rows.values()
    return found


def test_the_manifest_lists_every_segment_and_verifies() -> None:
    """Closing: ordered keys, versions and hashes, signed with the record key; the row names its hash."""
    world = World()
    connection = world.connect()
    connection.submit(operation(), in_transaction=False)
    connection.close("client_left")
    sealed = row(world)
    manifest = json.loads(world.stores.objects.get(sealed.manifest_key))
    signature = manifest.pop("signature")
    verify_sha256(world.stores.keys, KeyPurpose.RECORD, MANIFEST_SIGNATURE_TYPE, signature, digest(manifest))
    assert sealed.manifest_sha256 == digest(manifest)
    assert [segment["key"] for segment in manifest["segments"]] == world.stores.objects.keys("rec/")
    assert manifest["segments"][-1]["last"] == connection.recording.accepted
    assert manifest["leaf_hop_sha256"] == world.stores.chains.hops(sealed.txn)[sealed.target_hop].sha256()


def test_a_bucket_that_is_gone_leaves_the_row_for_the_sweeper() -> None:
    """What ran and cannot be sealed must not say that it is."""
    world = World()
    connection = world.connect()
    world.stores.fail("objects")
    connection.close("client_left")
    assert row(world).sealed_at is None


def test_a_table_that_is_gone_leaves_the_row_too() -> None:
    """Closing never raises to an engine that is leaving."""
    world = World()
    connection = world.connect()
    world.stores.fail("connections")
    connection.close("client_left")
    world.stores.heal("connections")
    assert row(world).sealed_at is None


def test_a_fenced_recording_is_not_sealed_by_its_loser() -> None:
    """Who won the next key seals it: two manifests of one connection would be two truths."""
    world = World()
    connection = world.connect()
    key = segment_key(world.session.id, connection.id, 1)
    world.stores.objects.put_new(key, b"tombstone", content_type="x")
    connection.submit(operation(), in_transaction=False)
    connection.flush()
    connection.close("fenced")
    assert row(world).sealed_at is None
    assert not world.stores.objects.keys("manifests/")


def test_a_connection_that_another_sealed_stays_so() -> None:
    """A seal is put once."""
    world = World()
    connection = world.connect()
    world.stores.connections.seal(
        world.session.id, connection.id, at=world.clock.now(), exit="swept", key="k", sha256="s"
    )
    connection.close("client_left")
    assert row(world).exit == "swept"


def test_the_step_flushes_every_recording_and_survives_one_that_raises() -> None:
    """One thread for all: a bug in one connection's recording must not stop the others' flush."""
    world = World()
    first, second = world.connect(), world.connect()

    def broken() -> None:
        raise ValueError("a bug")

    first.recording.step = broken  # type: ignore[method-assign]
    second.submit(operation(), in_transaction=False)
    world.clock.advance(window.FLUSH_AFTER_S)
    world.recorder.step()
    assert second.durable_upto == second.accepted


def test_a_closed_recording_is_stepped_no_more() -> None:
    """A broker lives for weeks: what ended must not stay in memory."""
    world = World()
    connection = world.connect()
    connection.close("client_left")
    stepped: list[int] = []
    connection.recording.step = lambda: stepped.append(1)  # type: ignore[method-assign]
    world.recorder.step()
    assert stepped == []


@pytest.mark.parametrize("landed", [False, True], ids=["never came", "came late"])
def test_frames_that_a_slow_bucket_did_not_acknowledge_are_looked_for(landed: bool) -> None:
    """P6: at most one stated window is lost, and the recording says so. An upload that lands after its broker gave up
    would else be an object that nothing names, of frames that a signed manifest calls lost."""
    world = World()
    connection = world.connect()
    slow = WaitingPool()
    connection.recording._pool = slow  # the bucket becomes slow after segment 0
    connection.submit(operation(), in_transaction=False)
    connection.close("client_left")
    assert row(world).sealed_at is None
    if landed:
        slow.run_all()
    assert swept(world) == Swept(sealed=1)
    gaps = [] if landed else [{"first": 2, "last": None, "why": "tail_gap"}]
    assert manifest(world).signed()["gaps"] == gaps
    assert [kind for kind, _ in told(world)] == ["lost"] * len(gaps)


def test_a_targets_recordings_are_kept_for_as_long_as_it_says() -> None:
    """Segments, manifest and, where its broker died, the sweeper's tombstones and manifest: a seal that goes before
    what it seals leaves a recording that nobody vouches for."""
    for died in (False, True):
        world = World()
        target = replace(world.bundle.targets["orders-prod"], retention_days=400)
        world.activate(targets={"orders-prod": target})
        connection = world.connect()
        connection.submit(operation(), in_transaction=False)
        connection.flush()
        if died:
            assert swept(world).sealed == 1
        else:
            connection.close("client_left")
        kept = {key: days for key, days in world.stores.objects.kept.items() if key.startswith(("rec/", "manifests/"))}
        assert len(kept) >= 2
        assert any(key.startswith("manifests/") for key in kept)
        assert set(kept.values()) == {400}, kept
