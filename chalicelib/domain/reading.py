"""The reading half of the stores: all that a review needs, and so all that a copy of evidence has.

Why it is apart from ``domain.store``: what verifies evidence gets nothing that could change it, and a folder on an
auditor's disk implements these without a method that it could only refuse. Each has the contract of its namesake there;
every implementation of ``domain.store.Stores`` is one of ``EvidenceStores`` as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Protocol

from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.identifiers import AskId, HopId, SessionId, Txn
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session
from chalicelib.domain.store import Keys


class ReadChains(Protocol):
    def hops(self, txn: Txn) -> Mapping[HopId, Hop]: ...


class ReadSessions(Protocol):
    def get(self, session_id: SessionId) -> Session: ...
    def of_txn(self, txn: Txn) -> Sequence[Session]: ...
    def created_on(self, day: date) -> Sequence[SessionId]: ...
    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]: ...


class ReadConnections(Protocol):
    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]: ...


class ReadAsks(Protocol):
    def get(self, ask_id: AskId) -> Ask: ...


class ReadAnswers(Protocol):
    def of_ask(self, ask_id: AskId) -> Sequence[Answer]: ...


class ReadUses(Protocol):
    def of_ask(self, ask_id: AskId) -> Sequence[Use]: ...


class ReadRevocations(Protocol):
    def any_of(self, keys: frozenset[str]) -> Revocation | None: ...


class ReadObjects(Protocol):
    def get(self, key: str, version_id: str | None = None) -> bytes: ...
    def keys(self, prefix: str) -> Sequence[str]: ...


class EvidenceStores(Protocol):
    """Every store that evidence is read from, by the names that ``domain.store.Stores`` has."""

    @property
    def chains(self) -> ReadChains: ...
    @property
    def sessions(self) -> ReadSessions: ...
    @property
    def connections(self) -> ReadConnections: ...
    @property
    def asks(self) -> ReadAsks: ...
    @property
    def answers(self) -> ReadAnswers: ...
    @property
    def uses(self) -> ReadUses: ...
    @property
    def revocations(self) -> ReadRevocations: ...
    @property
    def objects(self) -> ReadObjects: ...
    @property
    def keys(self) -> Keys: ...
