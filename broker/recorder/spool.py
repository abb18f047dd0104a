"""The spool: what was accepted, on this machine's disk until the bucket holds it, for the next process to finish.

Rules: a recording is a folder ``BOOT/SESSION.CONNECTION``, a segment in it a file ``NNNNNN.ndjson`` of the very lines
that it will have, appended and fsynced as they come; a file goes when a read-back agrees that the bucket has its
segment, a folder when its row is sealed. The whole spool is bounded; a disk that is full or cannot be written ends the
recording (fail closed), since whoever asked for a spool counts on it. A boot's folder is locked (flock) by its process:
a lock that can be taken belongs to the dead. Frames are what a client saw, masked; the disk's encryption is the
operator's. No promise rests on this: on Fargate the disk dies with the task.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import RecordingUnavailable
from chalicelib.domain.identifiers import ConnectionId, SessionId

# Every connection may have 16 MiB that is not acknowledged (``window.HARD_BYTES``): this is 64 of them at their worst,
# and hours of a hundred ordinary ones while the bucket is away.
MOST_BYTES: Final = 1024 * 1024 * 1024
KEPT: Final = "kept"  # the folder of what came too late: another had sealed the recording
_LOCK: Final = "lock"
_REMEMBERED: Final = 64  # segments that the bucket had before their lines came here: eight are on their way at most
_FILE: Final = re.compile(r"(\d{6})\.ndjson\Z")
_FOLDER: Final = re.compile(r"(ses_[0-9a-z_]+)\.(con_[0-9a-z_]+)\Z")
_BOOT: Final = re.compile(r"boot_[0-9a-z]+\Z")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What a recording left behind: its files by number."""

    session_id: SessionId
    connection_id: ConnectionId
    folder: Path
    files: Sequence[tuple[int, Path]]


class Spool:
    """One process's spool. Thread-safe; blocks on the disk."""

    def __init__(self, folder: Path, boot: str, *, most_bytes: int = MOST_BYTES) -> None:
        """Make and lock the folder of ``boot``. Raises RecordingUnavailable where that cannot be done."""
        self._folder = folder
        self._own = folder / boot
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._abandoned: set[Path] = set()
        try:
            self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = os.open(self._own / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._bytes = sum(path.stat().st_size for path in folder.rglob("*.ndjson"))
        except OSError as error:
            raise RecordingUnavailable("the spool cannot be written", error=type(error).__name__) from error

    @property
    def bytes(self) -> int:
        """How much lies in the whole spool."""
        with self._lock:
            return self._bytes

    def begin(self, session_id: SessionId, connection_id: ConnectionId) -> SpooledRecording:
        """Return a recording's place. Touches no disk."""
        return SpooledRecording(self, self._own / f"{session_id}.{connection_id}")

    def take(self, size: int) -> None:
        """Count ``size`` bytes more. Raises RecordingUnavailable past the bound."""
        with self._lock:
            if self._bytes + size > self._most_bytes:
                raise RecordingUnavailable("the spool is full", bytes=self._bytes, most=self._most_bytes)
            self._bytes += size

    def give(self, size: int) -> None:
        with self._lock:
            self._bytes = max(0, self._bytes - size)

    def abandon(self, folder: Path) -> None:
        """Say that this process works on a recording no more, though it could not be sealed: to be finished later."""
        with self._lock:
            self._abandoned.add(folder)

    def left(self) -> Iterator[Left]:
        """Give what dead processes left, and what this one abandoned. A dead boot's folder is locked meanwhile, so that
        two processes never finish the same, and goes when it is empty. Raises OSError."""
        with self._lock:
            own = sorted(self._abandoned)
        yield from (found for folder in own if (found := _left(folder)) is not None)
        for boot in sorted(path for path in self._folder.iterdir() if _BOOT.match(path.name) and path != self._own):
            held = _locked(boot)
            if held is None:
                continue
            try:
                yield from (found for folder in sorted(boot.iterdir()) if (found := _left(folder)) is not None)
                if [path.name for path in boot.iterdir()] == [_LOCK]:
                    shutil.rmtree(boot)
            finally:
                os.close(held)

    def drop(self, left: Left) -> None:
        """Remove a recording that is finished. Raises OSError."""
        self.give(sum(path.stat().st_size for path in left.folder.glob("*.ndjson")))
        shutil.rmtree(left.folder)
        with self._lock:
            self._abandoned.discard(left.folder)

    def keep(self, folder: Path) -> None:
        """Put aside what another's seal left no place for. It counts, until an operator takes it away. Raises
        OSError."""
        with self._lock:
            self._abandoned.discard(folder)
        if not any(folder.glob("*.ndjson")):
            shutil.rmtree(folder, ignore_errors=True)
            return
        kept = self._folder / KEPT
        kept.mkdir(mode=0o700, exist_ok=True)
        folder.rename(kept / folder.name)
        _logger.error("frames of a recording that another sealed are kept in the spool", extra={"kept": folder.name})

    def close(self) -> None:
        """Give the lock up; a folder with nothing in it goes. What is left is the next process's. Idempotent."""
        with self._lock:
            held, self._held = self._held, -1
        if held >= 0:
            if not any(path.name != _LOCK for path in self._own.iterdir()):
                shutil.rmtree(self._own, ignore_errors=True)
            os.close(held)


class SpooledRecording:
    """One recording's folder. Thread-safe; blocks on the disk."""

    def __init__(self, spool: Spool, folder: Path) -> None:
        self._spool = spool
        self._folder = folder
        self._lock = threading.Lock()
        self._number = -1
        self._file = -1
        self._sizes: dict[int, int] = {}
        self._dropped: set[int] = set()

    def append(self, number: int, lines: bytes) -> None:
        """Append to segment ``number`` (never lower than the last one's), and fsync. Nothing, where the bucket has it.

        Raises RecordingUnavailable where the disk or the bound refuses: the recording must end.
        """
        with self._lock:
            if number in self._dropped:
                return
            try:
                if number != self._number:
                    self._open(number)
                self._spool.take(len(lines))
                self._sizes[number] = self._sizes.get(number, 0) + len(lines)
                _write(self._file, lines)
                os.fdatasync(self._file)
            except OSError as error:
                raise RecordingUnavailable("the spool cannot be written", errno=error.errno) from error

    def acknowledged(self, number: int) -> None:
        """Remove a segment that the bucket holds. Never raises: a file too many is found again, and dropped then."""
        with self._lock:
            self._dropped.add(number)
            if len(self._dropped) > _REMEMBERED:
                self._dropped = {dropped for dropped in self._dropped if dropped > number - _REMEMBERED}
            size = self._sizes.pop(number, None)
            if size is None:
                return
            try:
                _path(self._folder, number).unlink(missing_ok=True)
            except OSError as error:
                _logger.warning("a spooled segment could not be removed", extra={"errno": error.errno})
                return
            self._spool.give(size)

    def sealed(self) -> None:
        """Remove the recording: its row is sealed. Never raises."""
        with self._lock:
            self._close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._spool.give(sum(self._sizes.values()))
            self._sizes.clear()

    def fenced(self) -> None:
        """Keep what another's seal has no place for. Never raises."""
        with self._lock:
            self._close()
            try:
                self._spool.keep(self._folder)
            except OSError as error:
                _logger.error("a fenced recording stays in the spool as it is", extra={"errno": error.errno})

    def abandoned(self) -> None:
        """It could not be sealed: somebody must finish it."""
        with self._lock:
            self._close()
        self._spool.abandon(self._folder)

    def _open(self, number: int) -> None:
        self._close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._file = os.open(_path(self._folder, number), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._number = number
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # the file's name too must outlive the machine
        finally:
            os.close(folder)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def whole_lines(path: Path) -> bytes:
    """Return a spooled segment without a last line that was cut off by its writer's death. Raises OSError."""
    raw = path.read_bytes()
    return raw[: raw.rfind(b"\n") + 1]


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.ndjson"


def _left(folder: Path) -> Left | None:
    found = _FOLDER.match(folder.name)
    if found is None or not folder.is_dir():
        return None
    files = sorted((int(named[1]), path) for path in folder.iterdir() if (named := _FILE.match(path.name)))
    return Left(session_id=SessionId(found[1]), connection_id=ConnectionId(found[2]), folder=folder, files=files)


def _locked(boot: Path) -> int | None:
    """Return the lock of a boot's folder, taken; None where its process lives."""
    held = os.open(boot / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held
