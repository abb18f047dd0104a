"""A downloaded bucket as objects: the files that ``aws s3 sync`` wrote, read under their own keys.

Rules: the folder is somebody else's, so nothing in it is believed: no link is followed, a name that no key of ours has
is left out (and counted), every read is bounded. A copy has one version of each object, and a manifest that names
another finds that its hash does not fit. Thread-safe: the listing is made once.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import NotFound, StoreUnavailable

MAX_OBJECT: Final = 64 * 1024 * 1024  # what the bucket's own reader takes into memory at most
MAX_OBJECTS: Final = 20_000_000  # their names together are some gigabytes; a deployment's year is a tenth of it
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,199}\Z")
_MOST_DEEP: Final = 8


class BucketFolder:
    """Implements ``domain.reading.ReadObjects``."""

    def __init__(self, folder: Path) -> None:
        """Raises NotFound where there is no such folder, StoreUnavailable where it cannot be read."""
        if not folder.is_dir():
            raise NotFound("there is no such folder", folder=str(folder))
        self._folder = folder
        self.left_out = 0
        try:
            self._keys = sorted(self._listed(folder, "", 0))
        except OSError as error:
            raise StoreUnavailable("the downloaded bucket cannot be read", folder=str(folder)) from error

    def get(self, key: str, version_id: str | None = None) -> bytes:  # noqa: ARG002 a copy has one
        if not self._has(key):
            raise NotFound("there is no such object", key=key)
        try:
            descriptor = os.open(self._folder / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                body = file.read(MAX_OBJECT + 1)
        except OSError as error:
            raise StoreUnavailable("a file of the downloaded bucket cannot be read", key=key) from error
        if len(body) > MAX_OBJECT:
            raise StoreUnavailable("an object is larger than any of ours", key=key)
        return body

    def keys(self, prefix: str) -> Sequence[str]:
        found: list[str] = []
        at = bisect_left(self._keys, prefix)
        while at < len(self._keys) and self._keys[at].startswith(prefix):
            found.append(self._keys[at])
            at += 1
        return found

    def _has(self, key: str) -> bool:
        at = bisect_left(self._keys, key)
        return at < len(self._keys) and self._keys[at] == key

    def _listed(self, folder: Path, under: str, depth: int) -> Iterator[str]:
        number = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if not _NAME.match(entry.name) or depth > _MOST_DEEP:
                    self.left_out += 1
                elif stat.S_ISDIR(status.st_mode):
                    yield from self._listed(Path(entry.path), f"{under}{entry.name}/", depth + 1)
                elif stat.S_ISREG(status.st_mode):
                    yield f"{under}{entry.name}"
                else:
                    self.left_out += 1
                number += 1
                if number > MAX_OBJECTS:
                    raise StoreUnavailable("a folder holds more than can be read", folder=str(folder))
