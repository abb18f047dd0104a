"""Whether what was admitted may go on: the revocation feed, its age, and this process's clock.

One thread reads the epoch once a second, whatever the number of connections, and the feed only when it moved. A
revocation is evaluated, never propagated: a connection is dead when a key of its frozen liveness set was revoked.
Rules: a feed not read for 5 s forwards nothing, for 30 s ends connections; a clock more than 30 s off refuses.
What was revoked before this process started is not in memory: admission reads it by key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, GrantRevoked, StoreUnavailable
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.store import Revocations

STALE_S: Final = 5.0  # architecture, "Revocation is evaluated": past this nothing is forwarded
DEAD_S: Final = 30.0  # the same row: past this connections end


class Liveness:
    """What :meth:`step` read last, and who wants to hear of it. Thread-safe; every question is answered from memory."""

    def __init__(self, *, revocations: Revocations, clock: Clock) -> None:
        self._revocations = revocations
        self._clock = clock
        self._lock = threading.Lock()
        self._revoked: set[str] = set()
        self._number: int | None = None
        self._read_at_s = clock.monotonic_s()
        self._watchers: set[Callable[[], None]] = set()

    def step(self) -> None:
        """Read the epoch, and the feed where it moved; then tell every watcher. Called once a second.

        Raises what the store raised, after the watchers were told: they go stale by the clock.
        """
        try:
            self._read()
        finally:
            with self._lock:
                watchers = tuple(self._watchers)
            for watcher in watchers:
                watcher()

    def _read(self) -> None:
        started = self._clock.monotonic_s()  # the age counts from before the question: an answer may be old already
        epoch = self._revocations.epoch()
        fresh: tuple[Revocation, ...] = ()
        if self._number is not None and epoch != self._number:
            fresh = tuple(self._revocations.since(self._number))
            if epoch < self._number or max((row.number for row in fresh), default=0) < epoch:
                raise StoreUnavailable("the feed of revocations has a hole", epoch=epoch, number=self._number)
        with self._lock:
            # Grows by one short text for each revocation since this process began, which people make by hand.
            self._revoked.update(row.key for row in fresh)
            self._number = max(epoch, max((row.number for row in fresh), default=0))
            self._read_at_s = started

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` called after every step, in the stepping thread; it must not block or raise."""
        with self._lock:
            self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def check(self, keys: frozenset[str]) -> None:
        """Raise GrantRevoked where one of ``keys`` was revoked, StoreUnavailable where that is not known for now."""
        with self._lock:
            revoked = not keys.isdisjoint(self._revoked)
        if revoked:
            raise GrantRevoked("the session was revoked")
        self.check_fresh()

    def check_fresh(self) -> None:
        """Raise StoreUnavailable where the feed is stale: a clock that is off makes it so, since no answer counts."""
        if self._number is None or self._age_s() > STALE_S:
            raise StoreUnavailable("revocations could not be read", limit_s=STALE_S)

    def ending(self, keys: frozenset[str]) -> AccessError | None:
        """Return why what has ``keys`` must end now, or None: revoked, or the feed unread for too long."""
        with self._lock:
            revoked = not keys.isdisjoint(self._revoked)
        if revoked:
            return GrantRevoked("the session was revoked")
        if self._age_s() > DEAD_S:
            return StoreUnavailable("revocations could not be read for too long", limit_s=DEAD_S)
        return None

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._read_at_s
