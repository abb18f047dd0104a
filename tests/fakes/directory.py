"""A bucket in a folder: what outlives a process that is killed. Same contract as ``domain.store.Objects``.

``Trouble`` makes it slow, refusing or lying, by a seed, so that a run can be repeated.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chalicelib.domain.errors import AlreadyExists, NotFound, StoreUnavailable
from chalicelib.domain.store import ObjectFacts, ObjectVersion


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Of the puts this share is refused, lost after a 200, or applied with its answer lost; each takes this long."""

    refused: float = 0.0
    lost: float = 0.0
    unanswered: float = 0.0
    least_s: float = 0.0
    most_s: float = 0.0
    seed: int = 0


class DirectoryObjects:
    def __init__(self, folder: Path, trouble: Trouble | None = None) -> None:
        self._folder = folder
        self._trouble = trouble or Trouble()
        self._random = random.Random(self._trouble.seed)
        self._pause = threading.Event()

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        told = self._trouble
        self._pause.wait(self._random.uniform(told.least_s, told.most_s))
        fate = self._random.random()
        if fate < told.refused:
            raise StoreUnavailable("refused")
        path = self._folder / key
        if fate < told.refused + told.lost:
            if path.exists():
                raise AlreadyExists("this object exists already", key=key)
            return ObjectVersion(key=key, version_id="lost")
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.parent / f".{secrets.token_hex(8)}"
        written.write_bytes(body)
        try:
            os.link(written, path)  # whole or not at all, and once
        except FileExistsError:
            raise AlreadyExists("this object exists already", key=key) from None
        finally:
            written.unlink()
        if fate < told.refused + told.lost + told.unanswered:
            raise StoreUnavailable("the answer was lost")
        return ObjectVersion(key=key, version_id=_version(body))

    def get(self, key: str, version_id: str | None = None) -> bytes:
        try:
            body = (self._folder / key).read_bytes()
        except FileNotFoundError:
            raise NotFound("there is no such object", key=key) from None
        if version_id not in (None, _version(body)):
            raise NotFound("there is no such object", key=key)
        return body

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        body = self.get(key, version_id)
        sha256 = hashlib.sha256(body).hexdigest()
        return ObjectFacts(key=key, version_id=_version(body), size=len(body), sha256=sha256)

    def keys(self, prefix: str) -> Sequence[str]:
        found = (path for path in self._folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(key for path in found if (key := str(path.relative_to(self._folder))).startswith(prefix))


def _version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
