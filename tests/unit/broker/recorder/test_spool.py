"""The spool on a real disk, and what a restarted broker makes of what a dead one left in it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from broker.recorder.recording import Failure
from broker.recorder.spool import KEPT, Spool, whole_lines
from chalicelib.domain.errors import RecordingUnavailable
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.services.seal_orphan import Sealed
from tests.fakes.aftermath import (
    RESTART,
    findings,
    finishing,
    manifest,
    recorded_texts,
    row,
    sealer,
    sweeper,
    swept,
    told,
)
from tests.fakes.broker import WaitingPool, World, operation

SES, CON = SessionId("ses_1"), ConnectionId("con_1")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.ndjson"))


def died(spool: Spool) -> None:
    """End the process as far as the spool can tell: its lock is let go, and nothing else happens."""
    os.close(spool._held)
    spool._held = -1


def spooling(tmp_path: Path, **world: Any) -> World:
    return World(spool=Spool(tmp_path, "boot_1"), **world)


def say(connection: Any, *texts: str) -> None:
    for text in texts:
        assert connection.submit(operation(text=text), in_transaction=False)


# -- while the process lives -----------------------------------------------------------------------------------------


def test_accepted_lines_are_on_disk_until_the_bucket_has_them(tmp_path: Path) -> None:
    """A process that is killed now leaves them to the next one."""
    world = spooling(tmp_path)
    connection = world.connect()
    assert files(tmp_path) == [], "segment 0 is in the bucket"
    say(connection, "SELECT 1")
    world.recorder.spool()
    (path,) = tmp_path.rglob("*.ndjson")
    assert (path.name, "SELECT 1" in path.read_text()) == ("000001.ndjson", True)
    connection.flush()
    assert files(tmp_path) == []
    assert world.spool is not None
    assert world.spool.bytes == 0


def test_a_spooled_file_is_the_segment_byte_for_byte(tmp_path: Path) -> None:
    """So that a restarted broker's put is the dead one's put, and neither fences the other."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1", "SELECT 2")
    world.recorder.spool()
    say(connection, "SELECT 3")
    world.recorder.spool()
    (path,) = tmp_path.rglob("*.ndjson")
    raw = path.read_bytes()
    connection.flush()
    key = max(key for key in world.stores.objects.rows if key.startswith("rec/"))
    assert gzip.decompress(world.stores.objects.rows[key]) == raw


def test_what_the_bucket_has_already_is_not_written_any_more(tmp_path: Path) -> None:
    """The disk is the slower one: it must not be filled with what nobody will need."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    connection.flush()
    world.recorder.spool()
    assert files(tmp_path) == []


def test_a_sealed_recording_leaves_nothing(tmp_path: Path) -> None:
    """A broker lives for weeks: what is finished must not stay on its disk."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    world.recorder.spool()
    connection.close("client_left")
    assert world.spool is not None
    world.spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_spool_ends_the_recording(tmp_path: Path) -> None:
    """Bounded, and it fails closed: nothing more is forwarded."""
    world = World(spool=Spool(tmp_path, "boot_1", most_bytes=4096))
    connection = world.connect()
    say(connection, *("x" * 500 for _ in range(10)))
    world.recorder.spool()
    assert connection.recording.failure is Failure.DISK
    ending = connection.ending()
    assert ending is not None
    assert ending.code == "recording_unavailable"
    connection.close("recording_unavailable")
    assert [kind for kind, _ in told(world)] == [], "what was accepted before is in the bucket, whole"


def test_a_full_spool_lets_nobody_in(tmp_path: Path) -> None:
    """It is known before anything is minted."""
    world = World(spool=Spool(tmp_path, "boot_1", most_bytes=16))
    with pytest.raises(RecordingUnavailable):
        world.connect()
    assert not any("invoke" in line for line in world.journal)


class _BrokenDisk:
    """A file system that takes nothing, told by the one call that matters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, errno: int) -> None:
        def broken(*_: object) -> int:
            raise OSError(errno, "broken")

        monkeypatch.setattr(os, call, broken)


@pytest.mark.parametrize(("call", "errno"), [("write", 28), ("fdatasync", 5), ("open", 13), ("fsync", 5)])
def test_a_disk_that_cannot_be_written_ends_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, errno: int
) -> None:
    """Full (ENOSPC), failing (EIO) or taken away (EACCES): who asked for a spool counts on it."""
    world = spooling(tmp_path, pool=WaitingPool())
    assert isinstance(world.pool, WaitingPool)
    _BrokenDisk(monkeypatch, call, errno)
    with pytest.raises(RecordingUnavailable):
        world.connect()
    assert not any("invoke" in line for line in world.journal)
    monkeypatch.undo()


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    """A broker that was told to spool and cannot must not serve as if it did."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingUnavailable):
        Spool(tmp_path / "file", "boot_1")


# -- after its death -------------------------------------------------------------------------------------------------


def test_what_a_dead_broker_left_is_finished(tmp_path: Path) -> None:
    """What was accepted and never uploaded is in the record, sealed by who finished it, and the disk is empty."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1", "SELECT 2")
    world.recorder.spool()
    assert world.spool is not None
    died(world.spool)
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert recorded_texts(world) == {"SELECT 1", "SELECT 2"}
    assert (manifest(world).sealed_by, manifest(world).gaps[0].last) == (RESTART, None)
    assert [kind for kind, _ in told(world)] == ["lost"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boot_2"]


def test_the_living_are_left_alone(tmp_path: Path) -> None:
    """Two brokers may share a disk: a lock that is held belongs to somebody."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    world.recorder.spool()
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert row(world).sealed_at is None
    connection.close("client_left")
    assert findings(world) == ()


def test_a_line_that_was_being_written_is_cut_off(tmp_path: Path) -> None:
    """Half a frame is none; the frames before it are whole."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1", "SELECT 2")
    world.recorder.spool()
    (path,) = tmp_path.rglob("*.ndjson")
    path.write_bytes(path.read_bytes()[:-20])
    assert whole_lines(path).endswith(b"\n")
    assert world.spool is not None
    died(world.spool)
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert recorded_texts(world) == {"SELECT 1"}
    assert [kind for kind, _ in told(world)] == ["lost"]


def test_an_upload_that_landed_with_more_than_the_disk_has_is_the_record(tmp_path: Path) -> None:
    """The disk was behind: the bucket's segment has all the frames, and is no stranger's."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    world.recorder.spool()
    (path,) = tmp_path.rglob("*.ndjson")
    raw = path.read_bytes()
    say(connection, "SELECT 2")
    connection.flush()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw)
    assert world.spool is not None
    died(world.spool)
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert recorded_texts(world) == {"SELECT 1", "SELECT 2"}
    assert [kind for kind, _ in told(world)] == ["lost"]
    assert files(tmp_path) == []


def test_a_fenced_key_is_left_and_what_has_no_place_is_kept(tmp_path: Path) -> None:
    """The sweeper was first: its manifest stands, and the frames that it calls missing are on the disk for a person."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    world.recorder.spool()
    assert world.spool is not None
    died(world.spool)
    assert swept(world).sealed == 1
    before = dict(world.stores.objects.rows)
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert world.stores.objects.rows == before
    assert manifest(world).sealed_by == "sweeper"
    assert [path.parent.parent.name for path in tmp_path.rglob("*.ndjson")] == [KEPT]


def test_a_sweeper_that_has_only_fenced_is_followed(tmp_path: Path) -> None:
    """Its tombstones are there and its manifest is not: the restarted broker leaves them, the next sweep seals."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    world.recorder.spool()
    assert world.spool is not None
    died(world.spool)
    sealer(world)._fence(row(world), 0)
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert row(world).sealed_at is None
    assert [kind for kind, _ in told(world)] == ["unsealed"]
    assert swept(world).sealed == 1


def test_a_live_broker_that_is_fenced_keeps_what_has_no_place(tmp_path: Path) -> None:
    """A machine that slept: its last frames are no part of the sealed record, and are not thrown away."""
    world = spooling(tmp_path)
    connection = world.connect()
    assert swept(world).sealed == 1
    say(connection, "SELECT 1")
    world.recorder.spool()
    connection.flush()
    connection.close("fenced")
    assert [path.parent.parent.name for path in tmp_path.rglob("*.ndjson")] == [KEPT]


def test_a_bucket_that_was_away_at_the_end_is_made_up_for(tmp_path: Path) -> None:
    """The same process finishes it, as soon as it can: with a spool no outage becomes a gap."""
    world = spooling(tmp_path)
    connection = world.connect()
    say(connection, "SELECT 1")
    world.stores.fail("objects")
    connection.close("recording_unavailable")
    assert row(world).sealed_at is None
    assert world.spool is not None
    finish = finishing(world, world.spool)
    finish.step()
    assert row(world).sealed_at is None
    world.stores.heal("objects")
    finish.step()
    assert row(world).exit == "recording_unavailable"
    assert recorded_texts(world) == {"SELECT 1"}
    assert told(world) == []
    assert files(tmp_path) == []
    finish.step()


def test_the_sweeper_and_a_restarted_broker_come_to_one_end(tmp_path: Path) -> None:
    """Whoever is first; the second finds it done."""
    world = spooling(tmp_path)
    say(world.connect(), "SELECT 1")
    world.recorder.spool()
    assert world.spool is not None
    died(world.spool)
    finishing(world, Spool(tmp_path, "boot_2")).step()
    world.clock.advance(121)
    assert sweeper(world)().sealed == 0
    assert sealer(world)(row(world)) is Sealed.BY_OTHERS
    assert len([key for key in world.stores.objects.rows if key.startswith("manifests/")]) == 1


def test_a_spool_that_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    """A folder that an operator pointed at may hold anything."""
    (tmp_path / "boot_0").mkdir()
    (tmp_path / "boot_0" / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    world = World()
    finishing(world, Spool(tmp_path, "boot_2")).step()
    assert (tmp_path / "boot_0" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "other").is_dir()


def test_what_the_bucket_did_not_take_at_the_end_is_no_gap(tmp_path: Path) -> None:
    """It takes the manifest and was too slow for a segment: sealed now, the disk's frames would be called lost."""
    world = spooling(tmp_path)
    connection = world.connect()
    slow = WaitingPool()
    connection.recording._pool = slow
    say(connection, "SELECT 1")
    connection.close("client_left")
    assert row(world).sealed_at is None
    assert world.spool is not None
    finishing(world, world.spool).step()
    assert told(world) == []
    assert recorded_texts(world) == {"SELECT 1"}
    slow.run_all()
    assert told(world) == [], "an upload that comes after all meets its own bytes"
