"""kill -9 at random moments under load, spool kept and spool deleted, over a bucket that is well, slow, refusing, or
lying.

After each: nothing that had to be durable is missing, what else is missing lies in the stated window, the manifest
names it, and ``verify`` says exactly that. The witness is what the dead process had told its clients.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.connection.gateway import _recorded_as
from broker.recorder import window
from broker.recorder.spool import KEPT, Spool
from chalicelib.domain.identifiers import new_connection_id
from chalicelib.domain.recording import SWEEPER
from chalicelib.services.sweep import Swept
from chalicelib.settings import SystemClock
from dev.settings import ROOT, child_environment
from tests.fakes.aftermath import RESTART, beat, finishing, manifest, review, row, sweeper, swept, told
from tests.fakes.broker import World
from tests.fakes.directory import DirectoryObjects, Trouble

CLOCK: Final = SystemClock()
BUCKETS: Final[Mapping[str, Trouble]] = {
    "well": Trouble(least_s=0.01, most_s=0.05),
    "slow": Trouble(least_s=0.1, most_s=1.0),
    "refusing": Trouble(refused=0.3, unanswered=0.2, most_s=0.05),
    "lying": Trouble(lost=0.3, most_s=0.05),
}
KILLS: Final = 20
SOAK_KILLS: Final = 200


@dataclass(kw_only=True)
class Killed:
    """What the process had told, by word: number to when; and when it died."""

    world: World
    spool: Path
    told: dict[str, dict[int, float]]
    died_s: float


def prepared(tmp_path: Path) -> World:
    """Return a world with a connection's hop and row, as a broker has them before it records."""
    world = World()
    world.stores.objects = DirectoryObjects(tmp_path / "bucket")  # type: ignore[assignment]
    (tmp_path / "bucket").mkdir()
    admission = world.admit()
    gateway = world.new_gateway("boot_1")
    connection_id = new_connection_id(world.clock.now())
    hop = gateway._put_hop(admission, connection_id)
    gateway._rows.put(gateway._row(admission, connection_id, hop))
    return world


def kill(tmp_path: Path, seed: int, trouble: Trouble, *, file_bytes: int = 0, after_s: float = 0.0) -> Killed:
    """Start a recording process, let it work for a random time (or ``after_s``), and kill it."""
    world = prepared(tmp_path)
    who = _recorded_as(world.admit(), row(world))
    order = {
        "who": asdict(who),
        "bucket": str(tmp_path / "bucket"),
        "spool": str(tmp_path / "spool"),
        "boot": "boot_1",
        "seed": seed,
        "trouble": asdict(trouble) | {"seed": seed},
        "file_bytes": file_bytes,
    }
    (tmp_path / "spool").mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.adversity.recorder_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=child_environment({}),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(order) + "\n")
    child.stdin.flush()
    first = child.stdout.readline()
    assert first, child.stderr.read() if child.stderr else ""
    lines = [first]
    reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()), daemon=True)  # noqa: TID251 it reads as it fills
    reader.start()
    reader.join(after_s or random.Random(seed).uniform(0.05, 1.5))
    child.kill()
    died_s = CLOCK.monotonic_s()
    reader.join(10)
    child.communicate(timeout=10)
    told: dict[str, dict[int, float]] = {"accepted": {}, "durable": {}, "spooled": {}, "refused": {}}
    for line in lines:
        parts = line.split()
        if line.endswith("\n") and len(parts) == 3:
            told[parts[0]][int(parts[1])] = float(parts[2])
    return Killed(world=world, spool=tmp_path / "spool", told=told, died_s=died_s)


def recorded(world: World) -> dict[int, int]:
    """Return number to length of the operations in the record."""
    operations = [operation for session in review(world).sessions for operation in session.operations]
    return {int(operation.text.split()[0]): len(operation.text) for operation in operations}


def check(killed: Killed, sealed_by: str) -> None:
    """Compare what the clients had seen with the record, and read what ``verify`` says of it."""
    world = killed.world
    held = recorded(world)
    missing = [number for number in killed.told["durable"] if number not in held]
    assert missing == [], f"durable operations are missing: {missing}"
    lost = {number: at for number, at in killed.told["accepted"].items() if number not in held}
    late = [number for number, at in lost.items() if killed.died_s - at > window.WINDOW_S + 1.0]
    assert late == [], f"lost, and older than the window: {late}"
    sealed = manifest(world)
    assert sealed.sealed_by == sealed_by
    first_missing = sealed.gaps[-1]
    assert (first_missing.last, first_missing.why) == (None, "tail_gap")
    said = told(world)
    assert [kind for kind, _ in said] == ["lost"] * len(sealed.gaps), said
    if not lost:
        return
    last_frame = max((segment.last for segment in sealed.segments), default=0)
    assert first_missing.first == last_frame + 1


def one_kill(tmp_path: Path, seed: int, *, keep: bool) -> None:
    trouble = list(BUCKETS.values())[seed % len(BUCKETS)]
    killed = kill(tmp_path, seed, trouble)
    if keep:
        finishing(killed.world, Spool(killed.spool, "boot_2")).step()
        check(killed, RESTART)
        missing = set(killed.told["spooled"]) - set(recorded(killed.world))
        assert missing == set(), "the disk had them"
        assert not (killed.spool / KEPT).exists()
        assert list(killed.spool.rglob("*.ndjson")) == []
    else:
        shutil.rmtree(killed.spool)
        assert swept(killed.world) == Swept(sealed=1)
        check(killed, SWEEPER)
    beat(killed.world)
    assert sweeper(killed.world)() == Swept(), "and nothing is left to seal"


@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_9_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    """The task dies, with its disk or without it."""
    one_kill(tmp_path, seed, keep=seed % 8 < 4)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(KILLS, KILLS + SOAK_KILLS))
def test_kill_9_at_many_random_moments(tmp_path: Path, seed: int) -> None:
    """The same, until the rare interleavings come."""
    one_kill(tmp_path, seed, keep=seed % 8 < 4)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "deleted"])
def test_a_disk_that_is_full_stops_everything_and_loses_nothing(tmp_path: Path, keep: bool) -> None:
    """The kernel refuses the spool's writes (a limit on the size of files, which needs no rights): nothing more is
    accepted, and what was goes to the bucket. Killed afterwards, nothing of it is missing."""
    slow = Trouble(least_s=0.3, most_s=0.5)
    killed = kill(tmp_path, 7, slow, file_bytes=64 * 1024, after_s=4.0)
    assert len(killed.told["refused"]) == 1
    assert killed.told["accepted"]
    if keep:
        finishing(killed.world, Spool(killed.spool, "boot_2")).step()
        check(killed, RESTART)
    else:
        shutil.rmtree(killed.spool)
        assert swept(killed.world) == Swept(sealed=1)
        check(killed, SWEEPER)
    assert set(killed.told["accepted"]) <= set(recorded(killed.world)), "the bucket was well: all of it is there"
    assert max(recorded(killed.world)) <= max(killed.told["refused"])
