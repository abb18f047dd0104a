"""Locks over the memory objects: as the bucket keeps them, with times that a test sets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.store import LockFacts
from tests.fakes.clock import START


class Kept(Protocol):
    """What is used of ``tests.fakes.memory.MemoryObjects``."""

    rows: dict[str, bytes]
    kept: dict[str, int]


class MemoryLocks:
    """Implements ``domain.store.Locks``. ``put_at`` says when a key was put, else it was at ``START``; what is in
    ``refusing`` cannot be held."""

    def __init__(self, objects: Kept, *, days: int = 1) -> None:
        self._objects = objects
        self.days = days
        self.put_at: dict[str, datetime] = {}
        self.held: set[str] = set()
        self.marked: set[str] = set()
        self.refusing: set[str] = set()
        self.refused = 0

    def default_days(self) -> int:
        return self.days

    def facts(self, key: str) -> LockFacts:
        self._require(key)
        days = max(self._objects.kept.get(key, 0), self.days)
        until = self.put_at.get(key, START) + timedelta(days=days) if days else None
        return LockFacts(kept_until=until, kept_days=days, held=key in self.held, marked=key in self.marked)

    def hold(self, key: str) -> None:
        self._require(key)
        if key in self.refusing:
            self.refused += 1
            raise StoreUnavailable("a store could not be reached", store="objects")
        self.held.add(key)
        self.marked.discard(key)

    def lift(self, key: str) -> None:
        self._require(key)
        self.held.discard(key)

    def mark(self, key: str) -> None:
        self._require(key)
        self.marked.add(key)

    def _require(self, key: str) -> None:
        if key not in self._objects.rows:
            raise NotFound("there is no such object", key=key)
