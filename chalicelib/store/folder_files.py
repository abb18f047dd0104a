"""The files of a copy of evidence, in a folder or an archive: their names, their manifest, and what is wrong with them.

Layout: ``docs/data_schema.md``, "Evidence folder". Rules: the copy is somebody else's, so nothing in it is believed:
no link is followed, no name leads out of it, every read is bounded. ``MANIFEST.json`` names every file with its size
and SHA-256, and names its own hash: so no byte of a copy changes unseen by whoever kept that one hash. An archive has
``STATEMENT.json`` beside it, in which this service signed that hash; that the contents are ours, their own signatures
say.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from chalicelib.domain.canonical import Json, canonical, digest, sha256_hex, timestamp
from chalicelib.domain.errors import NotFound, StoreUnavailable

FOLDER_VERSION: Final = 1
WHOLE_VERSION: Final = 2  # a copy that also holds what shows that its rows are all: digests, proofs, configuration
_VERSIONS: Final = (FOLDER_VERSION, WHOLE_VERSION)
MANIFEST: Final = "MANIFEST.json"
STATEMENT: Final = "STATEMENT.json"
OBJECTS: Final = "objects"
MAX_FILES: Final = 100_000  # as many as the bucket's own listing gives for one recording
MAX_FILE: Final = 64 * 1024 * 1024  # what the bucket's reader takes into memory at most
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){0,7}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A file and what is wrong with it. ``key`` is an object's key, else the file's path in the folder; ``kind`` is
    ``altered``, ``missing`` or ``extra``."""

    key: str
    kind: str
    what: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file as the manifest lists it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderManifest:
    """What ``MANIFEST.json`` says. ``sha256`` is over all the rest of it, and so over the whole copy."""

    subject: str
    made_at: str
    files: tuple[FileEntry, ...]
    sha256: str
    version: int


class Kept(Protocol):
    """Where the files of a copy lie."""

    faults: list[Fault]

    def paths(self) -> frozenset[str]:
        """Return the paths of the files that a copy may have; what else there is, is a fault."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes, at most ``MAX_FILE`` and one. Raises StoreUnavailable."""
        ...


def manifest_bytes(
    subject: str, made_at: datetime, files: Sequence[FileEntry], version: int = FOLDER_VERSION
) -> tuple[bytes, str]:
    """Return the bytes of ``MANIFEST.json`` and the copy's hash. Pure."""
    said: dict[str, Json] = {
        "v": version,
        "subject": subject,
        "made_at": timestamp(made_at),
        "files": [
            {"path": file.path, "bytes": file.bytes, "sha256": file.sha256}
            for file in sorted(files, key=lambda file: file.path)
        ],
    }
    sha256 = digest(said)
    return canonical({**said, "sha256": sha256}), sha256


class DirectoryFiles:
    """Implements ``Kept`` with the regular files of a folder; no link is followed."""

    def __init__(self, folder: Path) -> None:
        """Raises NotFound where there is no such folder, StoreUnavailable where it cannot be read."""
        self._folder = folder
        self._entries = 0
        self.faults: list[Fault] = []
        if not folder.is_dir():
            raise NotFound("there is no such folder", folder=str(folder))
        self._paths = frozenset(self._regular(folder, ""))

    def paths(self) -> frozenset[str]:
        return self._paths

    def read(self, path: str) -> bytes:
        try:
            with (self._folder / path).open("rb") as file:
                return file.read(MAX_FILE + 1)
        except OSError as error:
            raise StoreUnavailable("a file could not be read", path=path) from error

    def _regular(self, folder: Path, under: str) -> Iterator[str]:
        for entry in sorted(folder.iterdir()):
            path = f"{under}{entry.name}"
            status = entry.lstat()
            if not is_path(path):
                self.faults.append(Fault(key=ascii(path), kind="extra", what="has a name that no copy writes"))
            elif stat.S_ISDIR(status.st_mode):
                yield from self._regular(entry, f"{path}/")
            elif not stat.S_ISREG(status.st_mode):
                self.faults.append(Fault(key=path, kind="extra", what="is a link or a device: it is not followed"))
            elif status.st_size > MAX_FILE:
                self.faults.append(Fault(key=path, kind="altered", what="is larger than any file of a copy"))
            else:
                yield path
            self._entries += 1
            if self._entries > MAX_FILES:
                raise StoreUnavailable("a folder holds more than can be read", folder=str(folder))


def is_path(path: str) -> bool:
    """Say whether a copy may have a file, or a folder, of this name. Pure."""
    return _PATH.match(path) is not None


class FolderFiles:
    """The files of a copy, by path; reading is bounded. Opening looks at every byte once."""

    def __init__(self, kept: Kept) -> None:
        """Raises NotFound where it is no copy of evidence, StoreUnavailable where it cannot be read."""
        self._kept = kept
        self._paths = kept.paths()
        self.faults: list[Fault] = []
        for fault in kept.faults:
            self.fault(fault.key, fault.kind, fault.what)
        if MANIFEST not in self._paths:
            raise NotFound("this is no folder of evidence: it has no MANIFEST.json")
        self.manifest = self._manifest()
        self._compare()

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raises NotFound where it is not there, or is no regular file of a sensible size."""
        if path not in self._paths:
            raise NotFound("there is no such file", path=path)
        return self._kept.read(path)

    def under(self, prefix: str) -> list[str]:
        """Return the paths that begin with ``prefix``, sorted."""
        return sorted(path for path in self._paths if path.startswith(prefix))

    def fault(self, path: str, kind: str, what: str) -> None:
        """Take down what is wrong with a file, unless something is known to be wrong with it already."""
        key = path.removeprefix(f"{OBJECTS}/")
        if all(fault.key != key for fault in self.faults):
            self.faults.append(Fault(key=key, kind=kind, what=what))

    def _manifest(self) -> FolderManifest:
        stored = self.read(MANIFEST)
        try:
            document = json.loads(stored)
            said = {name: value for name, value in document.items() if name != "sha256"}
            if canonical(document) != stored or digest(said) != document["sha256"]:
                self.fault(MANIFEST, "altered", "was changed: it is not what it hashes to")
            if type(document["v"]) is not int or document["v"] not in _VERSIONS:
                self.fault(MANIFEST, "altered", "is of a version that is not known: was it made by a later release?")
            return _read_manifest(document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.fault(MANIFEST, "altered", "was changed: it is no list of files")
            return FolderManifest(subject="", made_at="", files=(), sha256="", version=FOLDER_VERSION)

    def _compare(self) -> None:
        listed = {file.path for file in self.manifest.files}
        for file in self.manifest.files:
            if file.path not in self._paths:
                self.fault(file.path, "missing", "is missing from the copy")
                continue
            stored = self.read(file.path)
            if (len(stored), sha256_hex(stored)) != (file.bytes, file.sha256):
                self.fault(file.path, "altered", "was changed: it is not the file that was copied")
        for path in sorted(self._paths - listed - {MANIFEST, STATEMENT}):
            self.fault(path, "extra", "is not a part of the copy: its manifest does not list it")


def _read_manifest(document: Mapping[str, Any]) -> FolderManifest:
    files = tuple(
        FileEntry(path=str(file["path"]), bytes=int(file["bytes"]), sha256=str(file["sha256"]))
        for file in document["files"]
    )
    return FolderManifest(
        subject=str(document["subject"]),
        made_at=str(document["made_at"]),
        files=files,
        sha256=str(document["sha256"]),
        version=int(document["v"]),
    )
