"""An archive of evidence: the files of a copy in one file, with one byte form.

The form is POSIX ustar, uncompressed, in order of the paths, with nothing in a header but the path and the size: every
time, owner and mode is the same, so that one copy has one archive, byte for byte, whoever makes it (ADR 0015). Reading
makes each header again and compares it: what is not exactly what is written here (a link, a device, an extension, a
name that leads out, a second file of a name, a size that is not there) is a fault and ends the reading, so there is
nothing that this and another reader could read differently, and nothing to unpack that could be larger than it lies
there. Any ``tar`` opens it. Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from chalicelib.domain.errors import AlreadyExists, NotFound, StoreUnavailable
from chalicelib.store.folder_files import MANIFEST, MAX_FILE, MAX_FILES, STATEMENT, Fault, is_path

BLOCK: Final = 512
_END: Final = bytes(2 * BLOCK)
_READ: Final = 1 << 20


def write_archive(folder: Path, out: Path) -> None:
    """Write the copy in ``folder`` into the new file ``out``, readable to its owner alone. It is there whole or not.

    Raises AlreadyExists where ``out`` is there, StoreUnavailable where it cannot be written.
    """
    part = ""
    try:
        # A name of its own: another run's must not be taken for ours, nor one that a killed run left stand in the way.
        descriptor, part = tempfile.mkstemp(prefix=f"{out.name}.", suffix=".part", dir=out.absolute().parent)
        with os.fdopen(descriptor, "wb") as file:
            for path in _in_order(folder):
                _put(file, folder / path, path)
            file.write(_END)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, out)  # fails where it is there: nothing is replaced, not in a race either
    except FileExistsError as error:
        raise AlreadyExists("the archive is there already", hint="Name a new file.") from error
    except (OSError, ValueError) as error:
        raise StoreUnavailable("the archive could not be written", hint="Name another file.") from error
    finally:
        with suppress(OSError):
            os.unlink(part)


def header_of(path: str, size: int) -> bytes:
    """Return the one header that a file of an archive has. Raises ValueError where ustar has no room. Pure."""
    entry = tarfile.TarInfo(path)
    entry.size = size
    entry.mode = 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


class ArchiveFiles:
    """Implements ``folder_files.Kept``. Opening reads the headers. Thread-safe once it is open."""

    def __init__(self, file: Path) -> None:
        """Raises NotFound where it is no archive, StoreUnavailable where it cannot be read."""
        self.faults: list[Fault] = []
        self._places: dict[str, tuple[int, int]] = {}
        try:
            self._descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound("there is no such archive", file=str(file)) from error
        weakref.finalize(self, os.close, self._descriptor)  # a command reads until its end: nobody knows when to close
        try:
            self._index(os.fstat(self._descriptor).st_size)
        except OSError as error:
            raise StoreUnavailable("the archive could not be read", file=str(file)) from error
        if not self._places:
            raise NotFound("this is no archive of evidence", file=str(file))

    def paths(self) -> frozenset[str]:
        return frozenset(self._places)

    def read(self, path: str) -> bytes:
        place, size = self._places[path]
        try:
            found = os.pread(self._descriptor, size, place)  # several threads read at once, and a seek is the file's
        except OSError as error:
            raise StoreUnavailable("the archive could not be read", path=path) from error
        if len(found) != size:
            raise StoreUnavailable("the archive became shorter while it was read", path=path)
        return found

    def _index(self, end: int) -> None:
        """Take down where each file lies. What is not in the one form ends it: nothing after it can be believed."""
        at, last = 0, ""
        while True:
            header = os.pread(self._descriptor, BLOCK, at)
            if header == _END[:BLOCK]:
                self._close_at(at, end)
                return
            found = _entry(header)
            if found is None:
                what = "is cut, or is not in the one form of an archive" if at else "is no archive of evidence"
                self._fault(f"at byte {at} {what}")
                return
            path, size = found
            data = at + BLOCK
            at = data + -(-size // BLOCK) * BLOCK
            if _order(path) <= _order(last):
                self._fault(f"holds {path!a} a second time, or not in its place")
                return
            if at > end or len(self._places) >= MAX_FILES:
                self._fault(f"is cut in {path!a}" if at > end else "holds more files than any copy")
                return
            if self._padding(data + size, at):
                self._fault(f"holds something between {path!a} and the file after it")
                return
            self._places[path] = (data, size)
            last = path

    def _padding(self, begin: int, end: int) -> bool:
        return any(os.pread(self._descriptor, end - begin, begin))

    def _close_at(self, at: int, end: int) -> None:
        if os.pread(self._descriptor, len(_END), at) != _END or end != at + len(_END):
            self._fault("holds something after its end, or is cut there")

    def _fault(self, what: str) -> None:
        self.faults.append(Fault(key="the archive", kind="altered", what=what))


def _order(path: str) -> tuple[bool, str]:
    """The list and the statement come first: what it is, and who says so, before what may be gigabytes. Pure."""
    return path not in ("", MANIFEST, STATEMENT), path


def _entry(header: bytes) -> tuple[str, int] | None:
    """Return the path and size of a header in the one form; None where it is in another. Pure."""
    name, _, _ = header[:100].partition(b"\0")
    prefix, _, _ = header[345:500].partition(b"\0")
    try:
        path = (prefix + b"/" + name if prefix else name).decode("ascii")
        size = int(header[124:135], 8)
        same = is_path(path) and size <= MAX_FILE and header_of(path, size) == header
    except (ValueError, UnicodeError):
        return None
    return (path, size) if same else None


def _in_order(folder: Path) -> Iterator[str]:
    found = [entry.relative_to(folder).as_posix() for entry in folder.rglob("*") if entry.is_file()]
    return iter(sorted(found, key=_order))


def _put(out: BinaryIO, file: Path, path: str) -> None:
    size = file.stat().st_size
    out.write(header_of(path, size))
    left = size
    with file.open("rb") as content:
        while left and (chunk := content.read(min(left, _READ))):
            out.write(chunk)
            left -= len(chunk)
    if left:
        raise OSError("a file of the copy became shorter")
    out.write(bytes(-size % BLOCK))
