"""The identity file: who may read it, and what is done when somebody else could."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chalicelib.domain.secret import Secret
from countersign.failures import Exit, Failure
from countersign.identities import Held, IdentityFile, file_named, file_of, forget_old
from countersign.proofs import OwnKey
from countersign.settings import SystemClock
from tests.fakes.api_server import HOP, TXN
from tests.fakes.waiting_clock import WaitingClock

TOKEN = "aaaa.bbbb.cccc"
ENDS = datetime(2026, 11, 2, 10, tzinfo=UTC)


def held() -> Held:
    return Held(
        api="https://countersign.example.com",
        run="r",
        key=OwnKey.new(),
        token=Secret(TOKEN),
        token_ends_at=ENDS,
        txn=TXN,
        hop=HOP,
        hop_ends_at=ENDS + timedelta(hours=8),
    )


def written(folder: Path, value: Held | None = None) -> IdentityFile:
    file = IdentityFile(folder / "state" / "identity.json")
    with file.locked(WaitingClock()):
        file.write(value or held())
    return file


def refusal(file: IdentityFile) -> Failure:
    with pytest.raises(Failure) as caught:
        file.read()
    assert caught.value.exit_code is Exit.USAGE
    assert TOKEN not in caught.value.message + caught.value.hint
    return caught.value


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """A later step is the same hop: key, token, its end, all of it."""
    value = held()
    read = written(tmp_path, value).read()
    assert read is not None
    assert read.key.thumbprint == value.key.thumbprint
    assert read.token is not None
    assert read.token.expose() == TOKEN
    assert replace(read, key=value.key, token=value.token) == value


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """Another user of the runner must not read the key, whatever the job's umask is; nor the folder's names."""
    before = os.umask(0)
    try:
        file = written(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert len(list(file.path.parent.iterdir())) == 2, "the file and its lock: no half-written one stayed"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o620])
def test_a_group_readable_identity_is_refused(tmp_path: Path, mode: int) -> None:
    """Attack: a key that others could have read may be theirs already."""
    file = written(tmp_path)
    file.path.chmod(mode)
    assert "by others" in refusal(file).message


def test_a_symlink_in_its_place_is_refused(tmp_path: Path) -> None:
    """Attack: a link leads to another job's identity, or makes us write over what it points at."""
    file = written(tmp_path)
    real = tmp_path / "real.json"
    file.path.rename(real)
    file.path.symlink_to(real)
    assert "cannot be opened" in refusal(file).message
    with file.locked(WaitingClock()):
        file.write(held())
    assert not file.path.is_symlink(), "a write replaces the link, and does not follow it"


def test_a_second_name_is_refused(tmp_path: Path) -> None:
    """Attack: a hard link made beforehand shows whoever made it what is written later."""
    file = written(tmp_path)
    os.link(file.path, tmp_path / "second")
    assert "second name" in refusal(file).message


def test_a_fifo_in_its_place_does_not_hang_the_job(tmp_path: Path) -> None:
    """Attack: a pipe in the file's place holds every step for ever."""
    file = written(tmp_path)
    file.path.unlink()
    os.mkfifo(file.path, 0o600)
    assert "no plain file" in refusal(file).message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_identity_is_refused(tmp_path: Path) -> None:
    """Attack: another user puts an identity of theirs where ours would be, and we act, on record, as them."""
    file = written(tmp_path)
    os.chown(file.path, 65534, 65534)
    assert "another user" in refusal(file).message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    """Attack: whoever owns the folder can put another file in our file's place."""
    file = written(tmp_path)
    os.chown(file.path.parent, 65534, 65534)
    with pytest.raises(Failure, match="others may change"), file.locked(WaitingClock()):
        pass


@pytest.mark.parametrize(("mode", "accepted"), [(0o777, False), (0o770, False), (0o1777, True), (0o755, True)])
def test_a_folder_that_others_write_to_is_refused(tmp_path: Path, mode: int, accepted: bool) -> None:
    """... as can whoever may write in it, but for a folder like /tmp where nobody renames what is another's."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    file = IdentityFile(folder / "identity.json")
    if accepted:
        with file.locked(WaitingClock()):
            file.write(held())
        assert file.read() is not None
        return
    with pytest.raises(Failure, match="others may change"), file.locked(WaitingClock()):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"v": 2}',
        "[" * 100_000,
        json.dumps({"v": 1, "api": "x", "key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}),
        "x" * 70_000,
    ],
)
def test_what_is_no_identity_is_none(tmp_path: Path, text: str) -> None:
    """A file that somebody broke says so, and what to do, instead of a stack trace with a key in it."""
    file = written(tmp_path)
    file.path.write_text(text)
    assert "no identity file" in refusal(file).message


def test_a_token_without_its_hop_is_none(tmp_path: Path) -> None:
    """Whose token it is must be known before it is used."""
    file = written(tmp_path)
    told = json.loads(file.path.read_text())
    file.path.write_text(json.dumps(told | {"hop": ""}))
    assert "no identity file" in refusal(file).message


def test_two_steps_at_once_change_it_one_after_the_other(tmp_path: Path) -> None:
    """Parallel steps of one job must not begin two chains, or lose one's token under the other's."""
    file = written(tmp_path)
    inside, most = 0, 0
    guard = threading.Lock()
    clock = SystemClock()

    def step(number: int) -> None:
        nonlocal inside, most
        with file.locked(clock):
            with guard:
                inside += 1
                most = max(most, inside)
            file.write(replace(held(), run=str(number)))
            with guard:
                inside -= 1

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(step, range(16)))
    assert most == 1
    assert file.read() is not None


def test_a_lock_that_is_never_given_back_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """Attack: a process of the job holds the lock; the others must end with words, not hang until the CI kills them."""
    file = written(tmp_path)
    with open(f"{file.path}.lock", "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Failure, match="another process has held") as caught, file.locked(WaitingClock()):
            pass
    assert caught.value.exit_code is Exit.UNREACHABLE


def test_keys_of_runs_that_ended_long_ago_are_removed(tmp_path: Path) -> None:
    """A self-hosted runner's disk must not collect keys; a stranger's file in that folder is left alone."""
    clock = WaitingClock()
    old, fresh = (file_of(str(tmp_path), "https://a.example", run) for run in ("1", "2"))
    for file in (old, fresh):
        with file.locked(clock):
            file.write(held())
    notes = tmp_path / "notes.json"
    notes.write_text("mine")
    day_ago = clock.now().timestamp() - 90_000
    for path in (old.path, notes):
        os.utime(path, (day_ago, day_ago))
    os.utime(fresh.path, (clock.now().timestamp(),) * 2)
    forget_old(str(tmp_path), clock)
    assert (old.path.exists(), fresh.path.exists(), notes.exists()) == (False, True, True)


def test_each_service_and_run_has_its_own_file() -> None:
    """Two services or two runs that shared one would overwrite each other's key."""
    names = {file_of("/s", origin, run).path.name for origin in ("https://a", "https://b") for run in ("", "1", "2")}
    assert len(names) == 6


def test_a_path_that_is_none_is_refused() -> None:
    """A relative path would be another file in each folder that a step stands in."""
    for path in ("identity.json", "~/identity.json"):
        with pytest.raises(Failure, match="whole path"):
            file_named(path)


def test_no_way_of_printing_shows_the_key_or_the_token() -> None:
    """Identities end up in tracebacks."""
    value = held()
    shown = f"{value!r} {value} {value.key!r}"
    assert TOKEN not in shown
    assert "PRIVATE" not in shown
