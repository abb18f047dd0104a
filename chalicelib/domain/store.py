"""The seams to state: one protocol per table, key and service; who may write what is in ``docs/architecture.md``.

Every implementation passes ``tests/conformance``. Common contract: reads of authority are consistent reads by key;
``put`` raises AlreadyExists (or its named kind) and changes nothing where the key is taken; anything that could not be
reached raises StoreUnavailable; nothing is retried for longer than the client's own bounded retries. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from chalicelib.domain.activation import Activation
from chalicelib.domain.archived_item import Rows
from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import Beat, ConnectionRow
from chalicelib.domain.identifiers import AskId, ConnectionId, HopId, SessionId, Txn
from chalicelib.domain.kept_proof import SealedData
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import Grant, Session
from chalicelib.domain.verifier import Verifier


class Chains(Protocol):
    def put(self, hop: Hop) -> None: ...

    def hops(self, txn: Txn) -> Mapping[HopId, Hop]:
        """Return every hop of ``txn``, empty where there is none. Consistent."""
        ...


class Sessions(Protocol):
    def create(self, session: Session) -> None: ...

    def get(self, session_id: SessionId) -> Session:
        """Raises NotFound."""
        ...

    def grant(self, session_id: SessionId, grant: Grant) -> Session:
        """Make a pending session granted and return it. Raises Conflict if it is not pending (any more)."""
        ...

    def rekey(self, session_id: SessionId, verifier: Verifier, *, only_first: bool) -> None:
        """Replace the verifier of a granted session. Raises Conflict if it is not granted, or, with ``only_first``,
        if it has one already."""
        ...

    def close(self, session_id: SessionId, reason: str, at: datetime) -> Session:
        """Close and return it; closing a closed one changes nothing. Raises NotFound."""
        ...

    def of_txn(self, txn: Txn) -> Sequence[Session]:
        """Return the sessions of a chain, oldest first. For reviews: it may lag, and nothing is decided on it."""
        ...

    def created_on(self, day: date) -> Sequence[SessionId]:
        """Return the ids of the sessions created on that day (UTC), oldest first. For reviews: it may lag."""
        ...

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        """Return those that are there, in the order given. Consistent, by key."""
        ...


class Connections(Protocol):
    def put(self, row: ConnectionRow) -> None: ...

    def get(self, session_id: SessionId, connection_id: ConnectionId) -> ConnectionRow:
        """Raises NotFound."""
        ...

    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]: ...

    def seal(
        self, session_id: SessionId, connection_id: ConnectionId, *, at: datetime, exit: str, key: str, sha256: str
    ) -> None:
        """Seal an unsealed row with its manifest's key and hash. Raises Conflict if it is sealed."""
        ...

    def unsealed(self) -> Sequence[ConnectionRow]:
        """Return rows that are not sealed, oldest first, a thousand at most. For the sweeper: the list may lag, the
        rows are read by key."""
        ...

    def of_boot(self, boot: str, after: int, most: int) -> Sequence[ConnectionRow]:
        """Return at most ``most`` rows of a broker's boot with numbers above ``after``, in order. For verification: it
        may lag by a moment."""
        ...


class Beats(Protocol):
    """Which brokers live. Written over and over; no evidence."""

    def put(self, beat: Beat) -> None:
        """Put or replace the beat of its boot."""
        ...

    def last(self, boot: str) -> Beat | None:
        """Return a boot's last beat. Consistent."""
        ...


class Asks(Protocol):
    def put(self, ask: Ask) -> None: ...

    def get(self, ask_id: AskId) -> Ask:
        """Raises NotFound."""
        ...

    def since(self, created_after: datetime) -> Sequence[Ask]:
        """Return those created at ``created_after`` or later, oldest first. It may lag; for the cards' reconciler."""
        ...


class Answers(Protocol):
    def put(self, answer: Answer) -> None:
        """Raises AlreadyDecided where this person has answered this Ask."""
        ...

    def of_ask(self, ask_id: AskId) -> Sequence[Answer]: ...


class Uses(Protocol):
    def put(self, use: Use) -> None:
        """Raises AlreadyUsed where the slot is taken."""
        ...

    def of_ask(self, ask_id: AskId) -> Sequence[Use]: ...


class Revocations(Protocol):
    def revoke(self, key: str, *, by: str, why: str, at: datetime) -> Revocation:
        """Put the row, its place in the feed and the new epoch in one transaction. Revoking twice returns the first."""
        ...

    def any_of(self, keys: frozenset[str]) -> Revocation | None:
        """Return a revocation of any of ``keys``, or None. Consistent."""
        ...

    def epoch(self) -> int:
        """Return the number of revocations so far: 0 where there is none. Consistent."""
        ...

    def since(self, number: int) -> Sequence[Revocation]:
        """Return those numbered above ``number``, in order."""
        ...


class Once(Protocol):
    def claim(self, kind: str, value: str, payload: str, *, expires_at: datetime, now: datetime) -> str | None:
        """Return None where ``kind#value`` was free and is now taken until ``expires_at``; else the payload that the
        first claimer left. An expired row is free: the time is compared here, since tables expire rows late."""
        ...

    def held(self, kind: str, value: str, *, now: datetime) -> str | None:
        """Return the payload of a claim that has not expired, else None. Consistent; writes nothing."""
        ...

    def advance(self, kind: str, value: str, number: int, *, expires_at: datetime, now: datetime) -> bool:
        """Raise the number that ``kind#value`` holds to ``number`` (0 to 2^32 - 1); return False, and change nothing,
        where it holds that one or a higher one already. An expired row holds none. Of several callers with one number
        one at most is told True. A kind is used for claims or for numbers, never for both."""
        ...


class Activations(Protocol):
    def put(self, activation: Activation) -> None:
        """Raises Conflict unless the serial is the last plus one and it names the last's bundle as the previous."""
        ...

    def latest(self) -> Activation:
        """Raises NotFound where nothing was ever activated. Consistent."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectVersion:
    key: str
    version_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFacts:
    """What the bucket itself says of an object: its size in bytes and the SHA-256 that it computed, hexadecimal (empty
    where it was put without). ``kept_days`` is how many days from its put its lock keeps it, rounded; 0 where it has
    none or the reader may not know."""

    key: str
    version_id: str
    size: int
    sha256: str
    kept_days: int = 0


class Objects(Protocol):
    """The bucket: objects are put once and never replaced."""

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        """Put with a SHA-256 checksum and ``If-None-Match: *``, locked for the bucket's default, or for ``keep_days``
        where that is longer. Raises AlreadyExists where the key is taken."""
        ...

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """Raises NotFound."""
        ...

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        """Ask the bucket what it holds (HEAD). Raises NotFound."""
        ...

    def keys(self, prefix: str) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LockFacts:
    """How an object is kept: until when its lock holds (None: it has none), for how many days from its put, whether a
    legal hold is on it, whether it is marked as over (the bucket's lifecycle deletes what is)."""

    kept_until: datetime | None
    kept_days: int
    held: bool
    marked: bool


class Locks(Protocol):
    """How long the bucket's objects are kept. Nothing here shortens a lock, and nothing deletes."""

    def default_days(self) -> int:
        """Return how many days the bucket locks what is put; 0 where it does not."""
        ...

    def facts(self, key: str) -> LockFacts:
        """Raises NotFound."""
        ...

    def hold(self, key: str) -> None:
        """Put a legal hold on an object, and take the mark off it. Idempotent. Raises NotFound."""
        ...

    def lift(self, key: str) -> None:
        """Take the legal hold off. Idempotent. Raises NotFound."""
        ...

    def mark(self, key: str) -> None:
        """Mark an object as over. Idempotent. Raises NotFound."""
        ...


class Bus(Protocol):
    """Tells CloudEvents to whoever subscribed: at least once, and never evidence."""

    def put(self, events: Sequence[Mapping[str, Json]]) -> None:
        """Raises StoreUnavailable, with some of them told perhaps."""
        ...


class Secrets(Protocol):
    def get(self, reference: str) -> Secret:
        """Raises NotFound, StoreUnavailable."""
        ...


class Vault(Protocol):
    """Envelope encryption of what is kept and not yet to be read. ``context`` is not secret, and bound: what was sealed
    under one opens under no other. Who may seal need not be able to open."""

    def seal(self, plain: bytes, context: Mapping[str, str]) -> SealedData:
        """Return it under a data key of its own. Raises StoreUnavailable."""
        ...

    def open(self, data: SealedData, context: Mapping[str, str]) -> bytes:
        """Raises ProofInvalid where it was not sealed as this under this context, StoreUnavailable."""
        ...


class Functions(Protocol):
    """Lambda functions with roles of their own."""

    def invoke(self, name: str, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        """Invoke and return its answer. A refusal that the function answered is raised as the AccessError it was
        (same class and code); a crash, timeout or unknown answer is StoreUnavailable."""
        ...


class RunningCode(Protocol):
    """What code runs, as AWS says it and not the code itself."""

    def now(self) -> Mapping[str, str]:
        """Return the hash of each function's package and of each running container's image, in hexadecimal, by name.
        What does not exist is left out. Raises StoreUnavailable."""
        ...


class Signer(Protocol):
    """Signs with one key of one purpose."""

    def sign(self, typ: str, payload: bytes) -> str:
        """Return a compact JWS (ES256) with header ``typ``, ``alg`` and ``kid`` over ``payload`` (4,000 bytes at
        most: KMS signs 4,096 bytes of signing input as they are)."""
        ...

    def sign_bytes(self, message: bytes) -> bytes:
        """Return ``r || s`` (64 bytes, ES256) over ``message`` as it is, 4,096 bytes at most. For the SSH purposes
        only: those keys sign nothing else, so that no certificate can stand for a JWS or the other way round. Raises
        ValueError for another purpose or a longer message."""
        ...

    @property
    def public_jwk(self) -> Mapping[str, str]:
        """The key's public JWK, as :class:`Keys` gives it for the signer's purpose."""
        ...


class Keys(Protocol):
    """Public keys, by purpose: what a verifier may trust for what."""

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        """Return ``kid`` to public JWK for ``purpose`` (the values of ``domain.signature.KeyPurpose``)."""
        ...


class Stores(Protocol):
    """Every store, by the names under which composition roots, services and tests know them."""

    @property
    def chains(self) -> Chains: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def beats(self) -> Beats: ...
    @property
    def asks(self) -> Asks: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def uses(self) -> Uses: ...
    @property
    def revocations(self) -> Revocations: ...
    @property
    def once(self) -> Once: ...
    @property
    def activations(self) -> Activations: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def locks(self) -> Locks: ...
    @property
    def digest_copies(self) -> Objects | None:
        """The bucket of another account that gets a copy of every digest; None where there is none."""
        ...

    @property
    def rows(self) -> Rows: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def functions(self) -> Functions: ...
    @property
    def keys(self) -> Keys: ...
    def signer(self, purpose: str) -> Signer: ...
