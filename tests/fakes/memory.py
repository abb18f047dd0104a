"""Every store of ``chalicelib/domain/store.py`` in memory. ``tests/conformance`` holds them to the same contract.

``MemoryStores.fail("uses")`` makes a store raise StoreUnavailable until ``heal``: how tests look at an outage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.domain.activation import Activation
from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import Beat, ConnectionRow
from chalicelib.domain.errors import (
    AccessError,
    AlreadyDecided,
    AlreadyExists,
    AlreadyUsed,
    Conflict,
    NotFound,
    ProofInvalid,
    StoreUnavailable,
    refusal,
    refused,
)
from chalicelib.domain.identifiers import AskId, ConnectionId, HopId, PersonId, SessionId, Txn
from chalicelib.domain.kept_proof import SealedData
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import Grant, Session, SessionStatus
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from chalicelib.domain.verifier import Verifier
from chalicelib.store.vault import opened_with, sealed_with
from tests.fakes.locks import MemoryLocks
from tests.fakes.signer import MemoryKeys, MemorySigner
from tests.fakes.tables import MemoryTables

Function: TypeAlias = Callable[[Mapping[str, Json]], Mapping[str, Json]]


class Gate:
    """One lock over all stores, the names of those that are out of reach, and how often any was called."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.RLock()
        self._down: set[str] = set()

    def fail(self, name: str) -> None:
        with self._lock:
            self._down.add(name)

    def heal(self, name: str) -> None:
        with self._lock:
            self._down.discard(name)

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        with self._lock:
            self.calls += 1
            if name in self._down:
                raise StoreUnavailable("a store could not be reached", store=name)
            yield


class MemoryChains:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[tuple[Txn, int, HopId], Hop] = {}

    def put(self, hop: Hop) -> None:
        with self._gate.enter("chains"):
            key = (hop.txn, hop.depth, hop.id)
            if key in self.rows:
                raise AlreadyExists("this hop is written already", hop=hop.id)
            self.rows[key] = hop

    def hops(self, txn: Txn) -> Mapping[HopId, Hop]:
        with self._gate.enter("chains"):
            return {hop.id: hop for hop in self.rows.values() if hop.txn == txn}


class MemorySessions:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[SessionId, Session] = {}

    def create(self, session: Session) -> None:
        with self._gate.enter("sessions"):
            if session.id in self.rows:
                raise AlreadyExists("this session exists already", session=session.id)
            self.rows[session.id] = session

    def get(self, session_id: SessionId) -> Session:
        with self._gate.enter("sessions"):
            if session_id not in self.rows:
                raise NotFound("there is no such session", session=session_id)
            return self.rows[session_id]

    def grant(self, session_id: SessionId, grant: Grant) -> Session:
        with self._gate.enter("sessions"):
            session = self.get(session_id)
            if session.status is not SessionStatus.PENDING:
                raise Conflict("the session is not pending any more", session=session_id)
            self.rows[session_id] = dataclasses.replace(session, status=SessionStatus.GRANTED, grant=grant)
            return self.rows[session_id]

    def rekey(self, session_id: SessionId, verifier: Verifier, *, only_first: bool) -> None:
        with self._gate.enter("sessions"):
            session = self.get(session_id)
            if session.status is not SessionStatus.GRANTED or (only_first and session.verifier is not None):
                raise Conflict("the session takes no new secret", session=session_id)
            self.rows[session_id] = dataclasses.replace(session, verifier=verifier)

    def close(self, session_id: SessionId, reason: str, at: datetime) -> Session:
        with self._gate.enter("sessions"):
            session = self.get(session_id)
            if session.status is not SessionStatus.CLOSED:
                session = dataclasses.replace(session, status=SessionStatus.CLOSED, closed_at=at, close_reason=reason)
                self.rows[session_id] = session
            return session

    def of_txn(self, txn: Txn) -> Sequence[Session]:
        with self._gate.enter("sessions"):
            return [self.rows[key] for key in sorted(self.rows) if self.rows[key].txn == txn]

    def created_on(self, day: date) -> Sequence[SessionId]:
        with self._gate.enter("sessions"):
            return [key for key in sorted(self.rows) if self.rows[key].created_at.astimezone(UTC).date() == day]

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        with self._gate.enter("sessions"):
            return [self.rows[key] for key in dict.fromkeys(session_ids) if key in self.rows]


class MemoryConnections:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[tuple[SessionId, ConnectionId], ConnectionRow] = {}

    def put(self, row: ConnectionRow) -> None:
        with self._gate.enter("connections"):
            if (row.session_id, row.id) in self.rows:
                raise AlreadyExists("this connection has a row already", connection=row.id)
            self.rows[row.session_id, row.id] = row

    def get(self, session_id: SessionId, connection_id: ConnectionId) -> ConnectionRow:
        with self._gate.enter("connections"):
            row = self.rows.get((session_id, connection_id))
            if row is None:
                raise NotFound("there is no such connection", connection=connection_id)
            return row

    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]:
        with self._gate.enter("connections"):
            return [self.rows[key] for key in sorted(self.rows) if key[0] == session_id]

    def seal(
        self,
        session_id: SessionId,
        connection_id: ConnectionId,
        *,
        at: datetime,
        exit: str,
        key: str,
        sha256: str,
    ) -> None:
        with self._gate.enter("connections"):
            row = self.get(session_id, connection_id)
            if row.sealed_at is not None:
                raise Conflict("the connection is sealed already", connection=connection_id)
            self.rows[session_id, connection_id] = dataclasses.replace(
                row, sealed_at=at, exit=exit, manifest_key=key, manifest_sha256=sha256
            )

    def unsealed(self) -> Sequence[ConnectionRow]:
        with self._gate.enter("connections"):
            return sorted((row for row in self.rows.values() if row.sealed_at is None), key=lambda row: row.opened_at)

    def of_boot(self, boot: str, after: int, most: int) -> Sequence[ConnectionRow]:
        with self._gate.enter("connections"):
            found = [row for row in self.rows.values() if row.boot == boot and row.number > after]
            return sorted(found, key=lambda row: row.number)[:most]


class MemoryBeats:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[str, Beat] = {}

    def put(self, beat: Beat) -> None:
        with self._gate.enter("beats"):
            self.rows[beat.boot] = beat

    def last(self, boot: str) -> Beat | None:
        with self._gate.enter("beats"):
            return self.rows.get(boot)


class MemoryAsks:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[AskId, Ask] = {}

    def put(self, ask: Ask) -> None:
        with self._gate.enter("asks"):
            if ask.id in self.rows:
                raise AlreadyExists("this ask exists already", ask=ask.id)
            self.rows[ask.id] = ask

    def get(self, ask_id: AskId) -> Ask:
        with self._gate.enter("asks"):
            if ask_id not in self.rows:
                raise NotFound("there is no such ask", ask=ask_id)
            return self.rows[ask_id]

    def since(self, created_after: datetime) -> Sequence[Ask]:
        with self._gate.enter("asks"):
            found = [ask for ask in self.rows.values() if ask.created_at >= created_after]
            return sorted(found, key=lambda ask: (ask.created_at, ask.id))


class MemoryAnswers:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[tuple[AskId, PersonId], Answer] = {}

    def put(self, answer: Answer) -> None:
        with self._gate.enter("answers"):
            if (answer.ask_id, answer.person) in self.rows:
                raise AlreadyDecided("this person has answered already", ask=answer.ask_id)
            self.rows[answer.ask_id, answer.person] = answer

    def of_ask(self, ask_id: AskId) -> Sequence[Answer]:
        with self._gate.enter("answers"):
            return [self.rows[key] for key in sorted(self.rows) if key[0] == ask_id]


class MemoryUses:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[tuple[AskId, int], Use] = {}

    def put(self, use: Use) -> None:
        with self._gate.enter("uses"):
            if (use.ask_id, use.n) in self.rows:
                raise AlreadyUsed("the approval is used or withdrawn already", ask=use.ask_id)
            self.rows[use.ask_id, use.n] = use

    def of_ask(self, ask_id: AskId) -> Sequence[Use]:
        with self._gate.enter("uses"):
            return [self.rows[key] for key in sorted(self.rows) if key[0] == ask_id]


class MemoryRevocations:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[str, Revocation] = {}

    def revoke(self, key: str, *, by: str, why: str, at: datetime) -> Revocation:
        with self._gate.enter("revocations"):
            if key not in self.rows:
                self.rows[key] = Revocation(key=key, number=len(self.rows) + 1, by=by, why=why, at=at)
            return self.rows[key]

    def any_of(self, keys: frozenset[str]) -> Revocation | None:
        with self._gate.enter("revocations"):
            return next((self.rows[key] for key in sorted(keys) if key in self.rows), None)

    def epoch(self) -> int:
        with self._gate.enter("revocations"):
            return len(self.rows)

    def since(self, number: int) -> Sequence[Revocation]:
        with self._gate.enter("revocations"):
            return sorted((row for row in self.rows.values() if row.number > number), key=lambda row: row.number)


class MemoryOnce:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[str, tuple[str, int]] = {}

    def claim(self, kind: str, value: str, payload: str, *, expires_at: datetime, now: datetime) -> str | None:
        with self._gate.enter("once"):
            key = f"{kind}#{value}"
            found = self.rows.get(key)
            if found is not None and found[1] > now.timestamp():
                return found[0]
            self.rows[key] = (payload, math.ceil(expires_at.timestamp()))
            return None

    def advance(self, kind: str, value: str, number: int, *, expires_at: datetime, now: datetime) -> bool:
        with self._gate.enter("once"):
            key, held = f"{kind}#{value}", f"{number:010d}"
            found = self.rows.get(key)
            if found is not None and found[1] > now.timestamp() and found[0] >= held:
                return False
            self.rows[key] = (held, math.ceil(expires_at.timestamp()))
            return True

    def held(self, kind: str, value: str, *, now: datetime) -> str | None:
        with self._gate.enter("once"):
            found = self.rows.get(f"{kind}#{value}")
            return found[0] if found is not None and found[1] > now.timestamp() else None


class MemoryActivations:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: list[Activation] = []

    def put(self, activation: Activation) -> None:
        with self._gate.enter("activations"):
            last = self.rows[-1].bundle_digest if self.rows else ""
            if activation.serial != len(self.rows) + 1 or activation.previous_digest != last:
                raise Conflict("another configuration was activated meanwhile", serial=activation.serial)
            self.rows.append(activation)

    def latest(self) -> Activation:
        with self._gate.enter("activations"):
            if not self.rows:
                raise NotFound("no configuration was ever activated")
            return self.rows[-1]


class MemoryObjects:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[str, bytes] = {}
        self.kept: dict[str, int] = {}

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        with self._gate.enter("objects"):
            if key in self.rows:
                raise AlreadyExists("this object exists already", key=key)
            self.rows[key] = bytes(body)
            self.kept[key] = keep_days
            return ObjectVersion(key=key, version_id=self._version(key))

    def get(self, key: str, version_id: str | None = None) -> bytes:
        with self._gate.enter("objects"):
            if key not in self.rows or version_id not in (None, self._version(key)):
                raise NotFound("there is no such object", key=key)
            return self.rows[key]

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        with self._gate.enter("objects"):
            body = self.get(key, version_id)
            sha256 = hashlib.sha256(body).hexdigest()
            return ObjectFacts(
                key=key,
                version_id=self._version(key),
                size=len(body),
                sha256=sha256,
                kept_days=self.kept.get(key, 0),
            )

    def keys(self, prefix: str) -> Sequence[str]:
        with self._gate.enter("objects"):
            return sorted(key for key in self.rows if key.startswith(prefix))

    def _version(self, key: str) -> str:
        return hashlib.sha256(key.encode() + self.rows[key]).hexdigest()[:32]


class MemorySecrets:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.rows: dict[str, str] = {}

    def get(self, reference: str) -> Secret:
        with self._gate.enter("secrets"):
            if reference not in self.rows:
                raise NotFound("there is no such secret", reference=reference)
            return Secret(self.rows[reference])


class MemoryVault:
    """Real encryption, each data key under a key in memory instead of KMS's."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._key = secrets.token_bytes(32)

    def seal(self, plain: bytes, context: Mapping[str, str]) -> SealedData:
        with self._gate.enter("vault"):
            key, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
            wrapped = nonce + AESGCM(self._key).encrypt(nonce, key, canonical(context))
            return sealed_with(key, wrapped, plain, context)

    def open(self, data: SealedData, context: Mapping[str, str]) -> bytes:
        with self._gate.enter("vault"):
            try:
                key = AESGCM(self._key).decrypt(data.data_key[:12], data.data_key[12:], canonical(context))
            except (InvalidTag, ValueError):
                raise ProofInvalid("what was sealed does not open as this") from None
            return opened_with(key, data, context)


class MemoryFunctions:
    """Dispatches to Python callables as Lambda would: JSON in, JSON out, a refusal told and raised again, and a crash
    that says nothing of itself."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._functions: dict[str, Function] = {}

    def register(self, name: str, function: Function) -> None:
        self._functions[name] = function

    def invoke(self, name: str, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        with self._gate.enter("functions"):
            function = self._functions.get(name)
        canonical(payload)  # Lambda takes JSON only
        if function is None:
            raise StoreUnavailable("a function could not be reached", function=name)
        try:
            return function(payload)
        except AccessError as error:
            told = refusal(error)
        except Exception as error:
            raise StoreUnavailable("a function failed", function=name) from error
        raise refused(told)


class MemoryStores:
    """All of them, under the names that ``chalicelib.store.opened.Stores`` has."""

    def __init__(self) -> None:
        self._gate = Gate()
        self.chains = MemoryChains(self._gate)
        self.sessions = MemorySessions(self._gate)
        self.connections = MemoryConnections(self._gate)
        self.beats = MemoryBeats(self._gate)
        self.asks = MemoryAsks(self._gate)
        self.answers = MemoryAnswers(self._gate)
        self.uses = MemoryUses(self._gate)
        self.revocations = MemoryRevocations(self._gate)
        self.once = MemoryOnce(self._gate)
        self.activations = MemoryActivations(self._gate)
        self.objects = MemoryObjects(self._gate)
        self.locks = MemoryLocks(self.objects)
        self.digest_copies = MemoryObjects(self._gate)
        self.rows = MemoryTables(self)
        self.secrets = MemorySecrets(self._gate)
        self.vault = MemoryVault(self._gate)
        self.functions = MemoryFunctions(self._gate)
        self.keys = MemoryKeys()

    def signer(self, purpose: str) -> MemorySigner:
        return self.keys.signer(purpose)

    @property
    def calls(self) -> int:
        """How many calls any store took so far; each is one request in AWS."""
        return self._gate.calls

    def fail(self, *names: str) -> None:
        """Make the stores of these names raise StoreUnavailable."""
        for name in names:
            self._gate.fail(name)

    def heal(self, *names: str) -> None:
        for name in names:
            self._gate.heal(name)
