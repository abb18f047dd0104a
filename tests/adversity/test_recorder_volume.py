"""A long recording whole, within bounded memory and disk: 1 GiB in every run of the tests, 10 GiB in the soak."""

from __future__ import annotations

import gzip
import hashlib
import json
import resource
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

from broker.recorder import Recorder
from broker.recorder.spool import Spool
from broker.threads import Periodic, WorkerPool
from chalicelib.domain.errors import AlreadyExists, NotFound
from chalicelib.domain.recording import MAX_TEXT, FrameKind, merkle_root
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from chalicelib.settings import SystemClock
from tests.fakes.aftermath import row
from tests.fakes.broker import World

MIB = 1024 * 1024
# The window's 8 MiB as text, its copies on the way to disk and bucket, and gzip's own: four times over, and no more
# however long the recording is. Segments' descriptions are counted apart.
WITHIN = 4 * 16 * MIB
A_SEGMENT = 2048  # bytes of memory that one stored segment may go on taking


class HashingObjects:
    """A bucket that keeps what it was told of an object and not the object; it checks each segment as it comes."""

    def __init__(self) -> None:
        self.facts_of: dict[str, ObjectFacts] = {}
        self.raw_sha256: dict[int, str] = {}
        self.previous: dict[int, str] = {}
        self.spans: dict[int, tuple[int, int]] = {}
        self.raw_bytes = 0
        self.manifests: list[bytes] = []

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        if key in self.facts_of:
            raise AlreadyExists("taken")
        if key.startswith("rec/"):
            raw = gzip.decompress(body)
            header, *lines = raw.splitlines()
            said = json.loads(header)
            self.previous[said["number"]] = said["prev_sha256"]
            self.raw_sha256[said["number"]] = hashlib.sha256(raw).hexdigest()
            self.spans[said["number"]] = json.loads(lines[0])["seq"], json.loads(lines[-1])["seq"]
            self.raw_bytes += len(raw)
        else:
            self.manifests.append(body)
        sha256 = hashlib.sha256(body).hexdigest()
        self.facts_of[key] = ObjectFacts(key=key, version_id=sha256[:8], size=len(body), sha256=sha256)
        return ObjectVersion(key=key, version_id=sha256[:8])

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        if key not in self.facts_of:
            raise NotFound("not there")
        return self.facts_of[key]

    def get(self, key: str, version_id: str | None = None) -> bytes:
        raise NotFound("not kept")

    def keys(self, prefix: str) -> Sequence[str]:
        return sorted(key for key in self.facts_of if key.startswith(prefix))


def record(size: int, spool: Spool | None) -> tuple[HashingObjects, int, int]:
    """Record ``size`` bytes over real threads, paced as a driver is; return the bucket, the frames and the peak."""
    world, objects, clock = World(), HashingObjects(), SystemClock()
    pool = WorkerPool("uploads", threads=4, queue=4096)
    recorder = Recorder(
        objects=objects,
        connections=world.stores.connections,
        signer=world.stores.signer("record"),
        pool=pool,
        clock=clock,
        build="test",
        sealed_by="broker:boot1",
        spool=spool,
    )
    world.recorder = recorder
    world.gateway = world.new_gateway("boot1")
    stepping = [Periodic("recorder", recorder.step, every_s=0.1), Periodic("spool", recorder.spool, every_s=0.05)]
    for each in stepping:
        each.start()
    connection = world.connect()
    texts = [hashlib.sha256(str(number).encode()).hexdigest() * (MAX_TEXT // 64) for number in range(16)]
    pause = Event()
    tracemalloc.start()
    try:
        for number in range(size // MAX_TEXT):
            while connection.behind:
                pause.wait(0.002)
            connection.recording.accept(FrameKind.DATA, "s2c", texts[number % 16], (("op", "op_1"),))
        connection.close("client_left")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        for each in stepping:
            each.stop()
        pool.close()
    assert row(world).sealed_at is not None
    return objects, connection.recording.accepted, peak


def check(size: int, tmp_path: Path, *, spooled: bool) -> None:
    spool = Spool(tmp_path, "boot_1") if spooled else None
    objects, frames, peak = record(size, spool)
    numbers = sorted(objects.raw_sha256)
    assert numbers == list(range(len(numbers)))
    assert objects.raw_bytes > size
    assert [objects.previous[number] for number in numbers[1:]] == [objects.raw_sha256[n] for n in numbers[:-1]]
    expected = 1
    for number in numbers:
        assert objects.spans[number][0] == expected
        expected = objects.spans[number][1] + 1
    assert expected == frames + 1
    (manifest,) = [json.loads(body) for body in objects.manifests]
    leaves = [bytes.fromhex(objects.raw_sha256[number]) for number in numbers]
    assert (manifest["gaps"], manifest["merkle_root"]) == ([], merkle_root(leaves).hex())
    assert peak < WITHIN + len(numbers) * A_SEGMENT, f"{peak / MIB:.0f} MiB"
    if spool is not None:
        assert (spool.bytes, list(tmp_path.rglob("*.ndjson"))) == (0, [])


@pytest.mark.timeout(600)  # some 20 s where nothing else runs
@pytest.mark.parametrize(("mib", "spooled"), [(128, False), (1024, True)], ids=["memory", "spool"])
def test_a_long_recording_is_whole_within_bounded_memory(tmp_path: Path, mib: int, spooled: bool) -> None:
    """One peer stops at 110 MiB: memory, disk and what is stored per segment stay bounded, and nothing is left out."""
    check(mib * MIB, tmp_path, spooled=spooled)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_connection_of_ten_gib_is_recorded_whole(tmp_path: Path) -> None:
    """As the founding issue asks: the process's own size says the same as what it counts."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(10 * 1024 * MIB, tmp_path, spooled=True)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300
