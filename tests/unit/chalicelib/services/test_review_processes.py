"""A review in processes: what one process says, and no chain left out where one of them ends."""

from __future__ import annotations

import os
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.signoff import Selection
from chalicelib.services.anchors import known_keys
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.services.period_review import PeriodReview, ReviewedPeriod
from chalicelib.services.population import ReadPopulation
from chalicelib.services.review import Review
from chalicelib.services.review_processes import LEAST_SESSIONS, Opening, ReviewProcesses, processes_for
from chalicelib.store.folder import open_copy
from chalicelib.store.folder_copy import FolderCopy
from tests.fakes.archive import PEOPLE, Archive, ArchiveIn
from tests.fakes.clock import START
from tests.unit.chalicelib.services.test_period_review import HOUR, reviewed


class Still:
    """A clock that can be sent to another process."""

    def now(self) -> datetime:
        return START

    def monotonic_s(self) -> float:
        return 0.0


def copied(folder: Path) -> EvidenceStores:
    return open_copy(folder)[0]


def unreachable() -> EvidenceStores:
    raise StoreUnavailable("a store could not be reached", store="chains")


def gone() -> EvidenceStores:
    os._exit(9)  # as the kernel ends what takes too much memory: without a word


class Opened:
    """Fails at the first read, as a store does."""

    def __init__(self) -> None:
        self.chains = self.objects = self.connections = self.sessions = self.asks = self

    def __getattr__(self, name: str) -> object:
        return self.refuse

    def refuse(self, *_asked: object) -> object:
        raise StoreUnavailable("a store could not be reached", store="chains")


def refusing() -> EvidenceStores:
    return Opened()  # type: ignore[return-value]  # every call of it raises


def apart(archive: Archive, opened: partial[EvidenceStores]) -> ReviewedPeriod:
    opening = Opening(open_stores=opened, people=PEOPLE, keys=known_keys(archive.stores.keys), clock=Still())
    review = Review(stores=archive.stores, people=PEOPLE, clock=archive.clock)
    reviewing = PeriodReview(
        stores=archive.stores, review=review, people=PEOPLE, apart=ReviewProcesses(opening, processes=2)
    )
    return reviewing(ReadPopulation(archive.stores)(HOUR, Selection()), archive.clock.now())


def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    """Whoever reviews a month must not get another answer than who reviews a day: of what is altered, and of the chain
    that one process has and another has not."""
    archive = Archive()
    other = ArchiveIn(archive.stores)
    copy_evidence(archive.stores, archive.txn, FolderCopy(tmp_path / "copy"), archive.clock)
    alone = reviewed(archive)
    found = apart(archive, partial(copied, tmp_path / "copy"))
    (one,) = found.chains
    (same,) = [chain for chain in alone.chains if chain.txn == archive.txn]
    assert one.sessions == same.sessions
    assert one.hops == same.hops
    assert [finding.key for finding in found.findings] == [other.txn], "it is in no copy, and must not be left out"
    (stored,) = (tmp_path / "copy").rglob(archive.db.segments[0])
    stored.write_bytes(b"x")
    altered = apart(archive, partial(copied, tmp_path / "copy"))
    assert archive.db.segments[0] in {finding.key for finding in altered.findings}


@pytest.mark.parametrize("opened", [refusing, gone], ids=["a store refuses", "a process is killed"])
def test_what_ends_in_a_process_ends_the_review(opened: partial[EvidenceStores]) -> None:
    """A review that goes on without some of its chains would say VERIFIED of all."""
    with pytest.raises(StoreUnavailable):
        apart(Archive(), partial(opened))


def test_keys_that_are_not_there_verify_nothing() -> None:
    """A purpose without a key is no reason to stop, and none to believe."""

    class Some:
        def public_keys(self, purpose: str) -> dict[str, dict[str, str]]:
            if purpose == "record":
                raise NotFound("there is no such key")
            return {"k": {"kid": "k"}}

    keys = known_keys(Some())
    assert keys.public_keys("record") == {}
    assert keys.public_keys("token") == {"k": {"kid": "k"}}


def test_few_sessions_start_no_process() -> None:
    """A review of ten sessions would wait longer for a second interpreter than for its own."""
    assert processes_for(LEAST_SESSIONS - 1, 8) == 1
    assert [processes_for(LEAST_SESSIONS, cores) for cores in (1, 2, 96)] == [1, 2, 8]
