"""The review of 10,000 sessions on this machine: the list that is made from the tables, and the whole review.

The sessions are the founding story's, two a chain, each really signed and recorded (``tests.fakes.archive``), in
stores that answer at once: what is measured is ours, and not a network. Both have a limit. The whole review reads
every recording back and verifies every signature, as many at once as the command does; how much of it is signatures is
said beside it, for one session on one core.
"""

from __future__ import annotations

import bisect
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench.harness import Row, bounded, compare
from chalicelib.domain.ask import Answer, Use
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identifiers import AskId, HopId, SessionId, Txn
from chalicelib.domain.session import Session
from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.anchors import known_keys
from chalicelib.services.period_review import PeriodReview
from chalicelib.services.population import Population, ReadPopulation
from chalicelib.services.review import Review
from chalicelib.services.review_processes import Opening, ReviewProcesses, processes_for
from countersign.register_screen import listed_screen, period_screen
from tests.fakes.archive import PEOPLE, ArchiveIn
from tests.fakes.clock import START, FakeClock
from tests.fakes.memory import MemoryStores
from tests.fakes.signer import MemoryKeys

SESSIONS = 10_000
LIMIT_S = 3.0  # what somebody who reviews a month waits for
WHOLE_SESSIONS = 1000  # for what one of them costs: it is the same work for each
VERIFICATIONS = 9 / 2  # a session: of each chain's five hops, two manifests and two answers, each once
WHOLE_RATIO = 4.0  # rows, canonical bytes, gzip, JSON and hashes besides the signatures


class Listed:
    """A store's rows by what they are looked up by. Each class below is one store's reading half."""

    def __init__(self) -> None:
        self.by: dict[Any, list[Any]] = defaultdict(list)


class _Chains(Listed):
    def hops(self, txn: Txn) -> Mapping[HopId, Hop]:
        return {hop.id: replace(hop) for hop in self.by[txn]}  # read anew: one that was read before knows its hash


class _Sessions(Listed):
    def get(self, session_id: SessionId) -> Session:
        return next(iter(self.get_many([session_id])))

    def of_txn(self, txn: Txn) -> Sequence[Session]:
        return [session for session in self.by["all"] if session.txn == txn]

    def created_on(self, day: date) -> Sequence[SessionId]:
        return [session.id for session in self.by[day]]

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        return [session for session_id in session_ids for session in self.by[session_id]]


class _Connections(Listed):
    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]:
        return [replace(row) for row in self.by[session_id]]


class _Answers(Listed):
    def of_ask(self, ask_id: AskId) -> Sequence[Answer]:
        return self.by[ask_id]


class _Uses(Listed):
    def of_ask(self, ask_id: AskId) -> Sequence[Use]:
        return self.by[ask_id]


class _Asks(Listed):
    def get(self, ask_id: AskId) -> Any:
        return self.by[ask_id][0]


class _Objects:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.names: list[str] = []

    def get(self, key: str, version_id: str | None = None) -> bytes:  # noqa: ARG002 one version each
        if key not in self.rows:
            raise NotFound("there is no such object", key=key)
        return self.rows[key]

    def keys(self, prefix: str) -> Sequence[str]:
        found = bisect.bisect_left(self.names, prefix)
        until = bisect.bisect_left(self.names, f"{prefix}\U0010ffff")
        return self.names[found:until]


class Stores:
    """Implements ``domain.reading.EvidenceStores`` over many chains."""

    def __init__(self) -> None:
        self.keys = MemoryKeys()
        self.chains, self.sessions, self.connections = _Chains(), _Sessions(), _Connections()
        self.asks, self.answers, self.uses = _Asks(), _Answers(), _Uses()
        self.objects = _Objects()
        self.revocations = MemoryStores().revocations

    def take(self, stores: MemoryStores) -> None:
        """Take one chain over."""
        for hop in stores.chains.rows.values():
            self.chains.by[hop.txn].append(hop)
        for session in stores.sessions.rows.values():
            for place in (session.id, session.created_at.date(), "all"):
                self.sessions.by[place].append(session)
        for row in stores.connections.rows.values():
            self.connections.by[row.session_id].append(row)
        for ask in stores.asks.rows.values():
            self.asks.by[ask.id].append(ask)
        for answer in stores.answers.rows.values():
            self.answers.by[answer.ask_id].append(answer)
        for use in stores.uses.rows.values():
            self.uses.by[use.ask_id].append(use)
        self.objects.rows |= stores.objects.rows

    def finish(self) -> None:
        self.objects.names = sorted(self.objects.rows)


def archive(sessions: int) -> Stores:
    """Return that many sessions, two a chain, all of one hour."""
    made = Stores()
    for _ in range(sessions // 2):
        stores = MemoryStores()
        stores.keys = made.keys
        ArchiveIn(stores)
        made.take(stores)
    made.finish()
    return made


def _plain(text: str, *_styles: str) -> str:
    return text


def _listed_s(stores: Stores, population: Callable[[], Population]) -> float:
    started = time.perf_counter()
    found = population()
    clock = FakeClock()
    listing = PeriodReview(
        stores=stores, review=Review(stores=stores, people=PEOPLE, clock=clock), people=PEOPLE
    ).listed(found)
    lines = list(listed_screen(found, listing, _plain, 120, every=True))
    if found.findings or len(lines) < SESSIONS:
        raise RuntimeError("the list is not of all sessions")
    return time.perf_counter() - started


def _whole_s(stores: Stores) -> float:
    """The command's own way, from the population to the last line of its screen."""
    started = time.perf_counter()
    clock = FakeClock(START + timedelta(hours=1))
    period = Period(since=START - timedelta(hours=1), until=START + timedelta(hours=1))
    population = ReadPopulation(stores)(period, Selection())
    review = Review(stores=stores, people=PEOPLE, clock=clock)
    keys = known_keys(stores.keys)
    opening = Opening(open_stores=lambda: stores, people=PEOPLE, keys=keys, clock=clock)
    # Forked, since these stores are in memory and have no lock: the command starts them anew, which takes half a second
    # of each core, and opens stores of its own.
    apart = ReviewProcesses(opening, processes_for(SESSIONS, os.cpu_count() or 1), start="fork")
    found = PeriodReview(stores=stores, review=review, people=PEOPLE, apart=apart)(population, clock.now())
    list(period_screen(found, _plain, 120, every=False))
    if not found.verified or found.sessions != SESSIONS:
        raise RuntimeError("the review does not hold")
    return time.perf_counter() - started


def _whole_ms(stores: Stores, population: Population) -> float:
    started = time.perf_counter()
    clock = FakeClock(START + timedelta(hours=1))
    review = Review(stores=stores, people=PEOPLE, clock=clock)
    found = PeriodReview(stores=stores, review=review, people=PEOPLE)(population, clock.now())
    list(period_screen(found, _plain, 120, every=True))
    if not found.verified or found.sessions != len(population.members):
        raise RuntimeError("the review does not hold")
    return (time.perf_counter() - started) * 1000 / found.sessions


def _bare_ms() -> float:
    key = ec.generate_private_key(ec.SECP256R1())
    public, signature = key.public_key(), key.sign(b"x" * 200, ec.ECDSA(hashes.SHA256()))
    number = 500
    started = time.perf_counter()
    for _ in range(number):
        public.verify(signature, b"x" * 200, ec.ECDSA(hashes.SHA256()))
    return (time.perf_counter() - started) * 1000 / number * VERIFICATIONS


def rows() -> list[Row]:
    """Return the rows of the list and of the whole review."""
    period = Period(since=START - timedelta(hours=1), until=START + timedelta(hours=1))
    many, some = archive(SESSIONS), archive(WHOLE_SESSIONS)
    whole = min(_whole_s(many) for _ in range(2))
    listed = min(_listed_s(many, lambda: ReadPopulation(many)(period, Selection())) for _ in range(3))
    population = ReadPopulation(some)(period, Selection())
    return [
        bounded("review of 10,000 sessions from the tables", "s", listed, "limit", LIMIT_S),
        bounded("whole review of 10,000 sessions, everything verified", "s", whole, "limit", LIMIT_S),
        compare(
            "a whole review, for each session",
            "ms",
            lambda: _whole_ms(some, population),
            "its ES256 verifications alone",
            _bare_ms,
            f"at most {WHOLE_RATIO:g} x the verifications",
            WHOLE_RATIO,
        ),
    ]
