"""Sweepers, a restarted broker and a broker that lives meet on one connection, in real threads, and come to one end."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from broker.recorder.recording import Failure
from broker.threads import WorkerPool
from chalicelib.domain.errors import RecordingUnavailable, StoreUnavailable
from chalicelib.domain.recording import UPLOADS_AT_ONCE
from chalicelib.domain.store import Signer
from chalicelib.identity.jws import verify_manifest
from chalicelib.services.seal_orphan import Sealed
from tests.fakes.aftermath import RESTART, manifest, recorded_texts, row, sealer, told
from tests.fakes.broker import World, operation
from tests.fakes.directory import DirectoryObjects, Trouble

ROUNDS = 12


def over(folder: Path, trouble: Trouble) -> World:
    world = World()
    world.stores.objects = DirectoryObjects(folder, trouble)  # type: ignore[assignment]
    world.recorder._objects = world.stores.objects
    return world


def at_once(*work: Callable[[], Sealed]) -> list[Sealed]:
    start = Barrier(len(work))

    def run(one: Callable[[], Sealed]) -> Sealed:
        start.wait(10)
        return one()

    with ThreadPoolExecutor(max_workers=len(work)) as pool:
        return list(pool.map(run, work))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_many_sealers_make_one_manifest(tmp_path: Path, seed: int) -> None:
    """Two manifests, or a row that names another than the one that is there, would be two truths."""
    world = over(tmp_path, Trouble(most_s=0.005, seed=seed))
    connection = world.connect()
    for number in range(5):
        connection.submit(operation(text=f"SELECT {number}"), in_transaction=False)
        connection.flush()
    orphan = row(world)
    who = ["sweeper", RESTART, "sweeper", RESTART]
    done = at_once(*(lambda by=by: sealer(world, by)(orphan) for by in who))
    assert done.count(Sealed.BY_US) <= 1
    assert len(world.stores.objects.keys("manifests/")) == 1
    verify_manifest(manifest(world), world.stores.keys)
    assert [kind for kind, _ in told(world)] == ["lost"]
    assert recorded_texts(world) == {f"SELECT {number}" for number in range(5)}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_sweeper_against_a_broker_that_lives(tmp_path: Path, seed: int) -> None:
    """What was durable before the fence is in the sealed record, the broker stops, and nothing lands behind the seal.

    It uploads eight at once, and so is faster than who comes after it.
    """
    world = over(tmp_path, Trouble(most_s=0.01, seed=seed))
    connection = world.connect()
    pool, go = WorkerPool("uploads", threads=8, queue=100), Event()
    connection.recording._pool = pool
    durable: set[str] = set()

    def live() -> None:
        for number in range(10_000):
            try:
                upto = connection.recording.accepted + 1
                connection.submit(operation(text=f"SELECT {number}"), in_transaction=False)
                connection.flush()
                if number % 4 == 0:
                    connection.recording.wait(upto, 5)
                    durable.update(f"SELECT {done}" for done in range(number + 1))
            except RecordingUnavailable:
                return
            if number == 10:
                go.set()

    with ThreadPoolExecutor(max_workers=1) as alone:
        living = alone.submit(live)
        go.wait(10)
        Event().wait(random.Random(seed).uniform(0, 0.1))
        assert sealer(world)(row(world)) is Sealed.BY_US
        living.result(30)
    pool.close()
    assert connection.recording.failure is Failure.FENCED
    connection.close("fenced")
    assert durable <= recorded_texts(world)
    kinds = {kind for kind, _ in told(world)}
    assert kinds == {"lost"}, told(world)
    assert manifest(world).sealed_by == "sweeper"
    stones = len(world.stores.objects.keys("rec/")) - len(manifest(world).segments)
    assert stones < 8 * UPLOADS_AT_ONCE, "a few walls, however fast it was"


def test_a_key_that_does_not_sign_leaves_the_row_for_the_next_run() -> None:
    """KMS is down: the fence stands, nothing is called sealed, and a later run finishes."""
    world = World()
    world.connect()

    class Down:
        def sign(self, typ: str, payload: bytes) -> str:
            raise StoreUnavailable("kms")

        def sign_bytes(self, message: bytes) -> bytes:
            raise StoreUnavailable("kms")

        @property
        def public_jwk(self) -> dict[str, str]:
            return {}

    seal, down = sealer(world), Down()
    signer: Signer = down
    seal._signer = signer
    with pytest.raises(StoreUnavailable):
        seal(row(world))
    assert row(world).sealed_at is None
    assert sealer(world)(row(world)) is Sealed.BY_US
