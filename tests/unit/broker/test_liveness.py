"""The revocation feed: read once a second, evaluated by key, and silent for a bounded time only."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.liveness import DEAD_S, STALE_S, Liveness
from chalicelib.domain.errors import GrantRevoked, StoreUnavailable
from chalicelib.domain.revocation import Revocation
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemoryRevocations, MemoryStores

KEYS = frozenset({"session:a", "txn:t"})


class Counting:
    """Counts what is asked of the revocations."""

    def __init__(self, inner: MemoryRevocations) -> None:
        self._inner = inner
        self.calls: list[str] = []
        self.holes = False

    def revoke(self, key: str, *, by: str, why: str, at: object) -> Revocation:
        raise AssertionError("a broker revokes nothing")

    def any_of(self, keys: frozenset[str]) -> Revocation | None:
        return self._inner.any_of(keys)

    def epoch(self) -> int:
        self.calls.append("epoch")
        return self._inner.epoch()

    def since(self, number: int) -> Sequence[Revocation]:
        self.calls.append("since")
        return [] if self.holes else self._inner.since(number)


class Feed:
    def __init__(self) -> None:
        self.stores = MemoryStores()
        self.clock = FakeClock()
        self.counting = Counting(self.stores.revocations)
        self.liveness = Liveness(revocations=self.counting, clock=self.clock)

    def revoke(self, key: str) -> None:
        self.stores.revocations.revoke(key, by="sec", why="test", at=self.clock.now())


def test_before_the_first_read_nothing_is_forwarded() -> None:
    """A broker that has not heard of revocations yet must not act as if there were none."""
    with pytest.raises(StoreUnavailable):
        Feed().liveness.check(KEYS)


def test_the_feed_is_read_only_when_the_epoch_moved() -> None:
    """One small read a second, whatever the number of connections and of past revocations."""
    feed = Feed()
    feed.revoke("session:old")
    for _ in range(3):
        feed.liveness.step()
    assert feed.counting.calls == ["epoch", "epoch", "epoch"]
    feed.revoke("session:a")
    feed.liveness.step()
    assert feed.counting.calls[-2:] == ["epoch", "since"]


def test_a_revoked_key_is_revoked_from_the_next_read_on() -> None:
    """Revoking ends live sessions in seconds; another session's revocation does not."""
    feed = Feed()
    feed.liveness.step()
    feed.revoke("session:b")
    feed.liveness.step()
    feed.liveness.check(KEYS)
    feed.revoke("txn:t")
    feed.liveness.step()
    with pytest.raises(GrantRevoked):
        feed.liveness.check(KEYS)
    assert isinstance(feed.liveness.ending(KEYS), GrantRevoked)


def test_a_feed_with_a_hole_counts_as_unread() -> None:
    """An epoch that moved without its entries must not pass for "nothing of ours was revoked"."""
    feed = Feed()
    feed.liveness.step()
    feed.revoke("txn:t")
    feed.counting.holes = True
    feed.clock.advance(STALE_S + 1)
    with pytest.raises(StoreUnavailable):
        feed.liveness.step()
    with pytest.raises(StoreUnavailable):
        feed.liveness.check(KEYS)
    feed.counting.holes = False
    feed.liveness.step()
    with pytest.raises(GrantRevoked):
        feed.liveness.check(KEYS)


def test_an_epoch_that_went_back_counts_as_unread() -> None:
    """A restored table knows less than we do: what it says is not news."""
    feed = Feed()
    feed.revoke("session:x")
    feed.liveness.step()
    feed.stores.revocations.rows.clear()
    with pytest.raises(StoreUnavailable):
        feed.liveness.step()


def test_staleness_and_death_are_counted_from_the_question() -> None:
    """5 s: nothing is forwarded; 30 s: connections end; a read in between starts both again."""
    feed = Feed()
    feed.liveness.step()
    feed.clock.advance(STALE_S)
    feed.liveness.check(KEYS)
    feed.clock.advance(0.1)
    with pytest.raises(StoreUnavailable):
        feed.liveness.check(KEYS)
    feed.clock.advance(DEAD_S - STALE_S)
    assert isinstance(feed.liveness.ending(KEYS), StoreUnavailable)
    feed.liveness.step()
    feed.liveness.check(KEYS)
    assert feed.liveness.ending(KEYS) is None


def test_watchers_hear_of_every_look_even_of_a_failed_one() -> None:
    """A connection finds out that the feed is stale by being looked at."""
    feed = Feed()
    heard: list[int] = []

    def watcher() -> None:
        heard.append(1)

    feed.liveness.watch(watcher)
    feed.liveness.step()
    feed.stores.fail("revocations")
    with pytest.raises(StoreUnavailable):
        feed.liveness.step()
    assert heard == [1, 1]
    feed.liveness.unwatch(watcher)
    feed.stores.heal("revocations")
    feed.liveness.step()
    assert heard == [1, 1]
