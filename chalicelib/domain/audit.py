"""AuditEvent: a fact for auditors, in the past tense; and the row that every writer makes of it.

Rules: names are permanent; a row has the columns of ``event_columns`` and no other, so that a secret has no member to
travel in; every text is bounded, whoever chose it. ``uid`` is a hash of what makes it the same fact, so that a fact
that is told twice (a redelivered log line, a stream's record handled again, a recording read again after a broker was
killed) has one uid, and readers count it once. ``writer`` and ``number`` say which process told it first and as its how
manieth, without holes, so that one that never arrived shows.
Source: OCSF 1.8 (class, activity and type ids); reference/standards.md, sections 4.3 and 11.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

from chalicelib.domain.canonical import Json, digest, sha256_hex, timestamp
from chalicelib.domain.chain import Chain

EVENT_VERSION: Final = 1
MAX_SHOWN: Final = 4096  # characters of an operation's text: its frame has 64 KiB, and an event says where that is
MAX_FIELD: Final = 512  # characters of any other text: an identity is an issuer's URL and a subject
_QUOTED: Final = json.encoder.encode_basestring  # a text as canonical JSON has it
MAX_LISTED: Final = 32  # of a list: a chain of the deepest delegation that is allowed has fewer


class AuditName(StrEnum):
    TOKEN_EXCHANGED = "token.exchanged"
    TOKEN_REFUSED = "token.refused"
    SESSION_REQUESTED = "session.requested"
    SESSION_GRANTED = "session.granted"
    SESSION_REFUSED = "session.refused"
    SESSION_CLOSED = "session.closed"
    CARD_POSTED = "card.posted"
    CARD_FAILED = "card.failed"
    ANSWER_GIVEN = "answer.given"
    ANSWER_REFUSED = "answer.refused"
    CREDENTIAL_MINTED = "credential.minted"
    CREDENTIAL_REFUSED = "credential.refused"
    CONNECTION_OPENED = "connection.opened"
    CONNECTION_REFUSED = "connection.refused"
    CONNECTION_SEALED = "connection.sealed"
    CONNECTION_REVOKED = "connection.revoked"
    TICKET_ISSUED = "ticket.issued"
    TICKET_REFUSED = "ticket.refused"
    CHAIN_EXTENDED = "chain.extended"
    CHAIN_REVOKED = "chain.revoked"
    REVOCATION_REFUSED = "revocation.refused"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_REFUSED = "certificate.refused"
    CHAIN_REVIEWED = "chain.reviewed"
    TARGET_LOGIN_REFUSED = "target.login_refused"
    ROW_TAMPERED = "row.tampered"
    DIGEST_MADE = "digest.made"
    REVIEW_SIGNED = "review.signed"
    SIGNOFF_REFUSED = "review.sign_refused"
    EVIDENCE_COPIED = "evidence.copied"
    COPY_REFUSED = "evidence.copy_refused"
    RECORDING_REPLAYED = "recording.replayed"
    REPLAY_REFUSED = "recording.replay_refused"
    PROOF_OPENED = "proof.opened"
    PROOF_REFUSED = "proof.refused"
    RECORDING_READ = "recording.read"
    ARCHIVE_QUERIED = "archive.queried"
    CODE_CHANGED = "code.changed"
    KEY_CHANGED = "key.changed"
    BUCKET_CHANGED = "bucket.changed"
    TABLE_CHANGED = "table.changed"
    ROLE_CHANGED = "role.changed"
    TRAIL_CHANGED = "trail.changed"
    ACTIVATION_PUT = "activation.put"
    EVIDENCE_HELD = "evidence.held"
    EVIDENCE_LIFTED = "evidence.lifted"
    HOLD_REFUSED = "evidence.hold_refused"
    HOLD_APPLIED = "evidence.hold_applied"
    HOLD_FAILED = "evidence.hold_failed"
    OPERATION_RAN = "operation.ran"
    OPERATION_REFUSED = "operation.refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Acting:
    """For whom a fact happened, as the signed chain has it: identity keys, originator first; ``hop`` is the leaf's."""

    originator: str = ""
    chain: tuple[str, ...] = ()
    hop: str = ""
    assurance: str = ""

    @classmethod
    def of(cls, chain: Chain) -> Acting:
        return cls(
            originator=chain.originator.key,
            chain=tuple(identity.key for identity in chain.identities),
            hop=chain.leaf.id,
            assurance=chain.leaf.evidence.assurance.value,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Operated:
    """What an operation was and what came of it, as its recording has it. ``text`` holds no secret that a detector
    knows. ``outcome`` is ok, error, refused, or unknown where nobody lived to see it."""

    actions: tuple[str, ...]
    text: str
    masks: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    reads_masked: bool = False
    outcome: str = ""
    tag: str = ""
    sqlstate: str = ""
    row_count: int = 0
    byte_count: int = 0
    duration_ms: int = 0


NOBODY: Final = Acting()


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvent:
    """``code`` is the refusal's code or empty; ``subject`` what it is about; the rest is empty where unknown.

    ``people`` answered (an approver), ``rules`` determined ``verdict``. ``frame`` is the number of the frame that tells
    it in the connection's recording, and ``segment`` the key of the object that holds this frame.
    """

    name: AuditName
    at: datetime
    subject: str = ""
    code: str = ""
    txn: str = ""
    session_id: str = ""
    connection_id: str = ""
    operation_id: str = ""
    ask_id: str = ""
    actor: str = ""
    target: str = ""
    peer: str = ""
    why: str = ""
    acting: Acting = NOBODY
    principal: str = ""
    protocol: str = ""
    verdict: str = ""
    rules: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    policy_digest: str = ""
    configuration_serial: int = 0
    operated: Operated | None = None
    frame: int = 0

    def uid(self) -> str:
        """Return the hash of what makes it the same fact, 64 hexadecimal digits. Pure."""
        same = _SAME_FACT.get(self.name)
        if same is not None:
            head, fields = same
            known = [getattr(self, field) for field in fields]
            if all(known):
                return fact_uid(head, *known)
        said: Mapping[str, Json] = {"at": self.at.isoformat(), **self._said(), **self._operated()}
        return digest({"v": EVENT_VERSION, "name": self.name.value, "said": said})

    def row(self, *, writer: str, number: int, segment: str = "") -> dict[str, Json]:
        """Return the event as it is written: the columns that hold something, each bounded. Pure."""
        said = {**self._said(), **self._operated(), "frame": self.frame, "segment": segment}
        return row_of(self.name, self.at, self.uid(), ocsf(self), said, writer=writer, number=number)

    def _said(self) -> dict[str, Json]:
        return {
            "subject": bounded(self.subject),
            "code": bounded(self.code),
            **said_of_connection(
                self.txn,
                self.acting,
                self.actor,
                self.session_id,
                self.connection_id,
                self.target,
                self.principal,
                self.protocol,
                self.peer,
            ),
            "operation_id": bounded(self.operation_id),
            "ask_ids": listed((self.ask_id,) if self.ask_id else ()),
            "people": listed(self.people),
            "verdict": bounded(self.verdict),
            "rules": listed(self.rules),
            "policy_digest": bounded(self.policy_digest),
            "configuration_serial": self.configuration_serial,
            "why": bounded(self.why),
        }

    def _operated(self) -> dict[str, Json]:
        done = self.operated
        if done is None:
            return {}
        return {
            "actions": listed(done.actions),
            "text": bounded(done.text, MAX_SHOWN),
            "masks": listed(done.masks),
            "tables": listed(done.tables),
            "reads_masked": done.reads_masked,
            "outcome": bounded(done.outcome),
            "tag": bounded(done.tag),
            "sqlstate": bounded(done.sqlstate),
            "row_count": done.row_count,
            "byte_count": done.byte_count,
            "duration_ms": done.duration_ms,
        }


def fact_uid(head: str, *known: str) -> str:
    """Return ``digest({"v": EVENT_VERSION, "fact": [head, *known]})``, for a third of what that costs. Pure."""
    told = ",".join([_QUOTED(head), *map(_QUOTED, known)])
    return sha256_hex(f'{{"fact":[{told}],"v":{EVENT_VERSION}}}'.encode())


def row_of(
    name: AuditName,
    at: datetime,
    uid: str,
    classified: tuple[int, int],
    said: Mapping[str, Json],
    *,
    writer: str,
    number: int,
) -> dict[str, Json]:
    """Return the row of an event of which ``said`` has all columns but those that every event has. Pure."""
    class_uid, activity = classified
    ids: dict[str, Json] = {
        "v": EVENT_VERSION,
        "uid": uid,
        "name": name.value,
        "at": timestamp(at),
        "time_ms": int(at.timestamp() * 1000),
        "writer": writer,
        "number": number,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        "severity_id": _LOW if said["code"] else _INFORMATIONAL,
        "status_id": _FAILURE if said["code"] else _SUCCESS,
    }
    return ids | {name: value for name, value in said.items() if value}  # "", 0, [] and False say no more than none


# An open connection's events differ in what was done: this half of their rows is made once. An entry is 20 KiB at the
# most (each of its texts is bounded), and some 500 bytes as a rule.
@lru_cache(maxsize=256)
def said_of_connection(
    txn: str,
    acting: Acting,
    actor: str,
    session_id: str,
    connection_id: str,
    target: str,
    principal: str,
    protocol: str,
    peer: str,
) -> Mapping[str, Json]:
    """Return the members of a row that are the same in all events of one connection. Pure."""
    return {
        "txn": bounded(txn),
        "originator": bounded(acting.originator),
        "chain": listed(acting.chain),
        "hop": bounded(acting.hop),
        "assurance": bounded(acting.assurance),
        "actor": bounded(actor),
        "session_id": bounded(session_id),
        "connection_id": bounded(connection_id),
        "target": bounded(target),
        "principal": bounded(principal),
        "protocol": bounded(protocol),
        "peer": bounded(peer),
    }


class AuditLog(Protocol):
    """Takes events. An implementation that cannot write raises: nothing is audited by being dropped."""

    def record(self, event: AuditEvent) -> None: ...


def bounded(text: str, limit: int = MAX_FIELD) -> str:
    """Return ``text`` as JSON in UTF-8 can hold it, cut with a mark where it is longer than ``limit`` characters."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def listed(texts: Sequence[str]) -> list[Json]:
    if not texts:
        return []
    more = len(texts) - MAX_LISTED
    kept = [bounded(text) for text in texts[:MAX_LISTED]]
    return [*kept, f"… and {more} more"] if more > 0 else list(kept)


# What is told of again is the same fact where these are the same; every other event is the same where all of it is.
_SAME_FACT: Final[Mapping[AuditName, tuple[str, tuple[str, ...]]]] = {
    AuditName.OPERATION_RAN: ("operation", ("connection_id", "operation_id")),
    AuditName.OPERATION_REFUSED: ("operation", ("connection_id", "operation_id")),
    AuditName.CONNECTION_OPENED: ("opened", ("connection_id",)),
    AuditName.CONNECTION_SEALED: ("ended", ("connection_id",)),
    AuditName.CONNECTION_REVOKED: ("ended", ("connection_id",)),
    AuditName.SESSION_GRANTED: ("granted", ("session_id",)),
    AuditName.CARD_POSTED: ("posted", ("ask_id",)),
    AuditName.ANSWER_GIVEN: ("answered", ("ask_id", "actor")),
    AuditName.TICKET_ISSUED: ("ticket", ("subject",)),
    AuditName.DIGEST_MADE: ("digest", ("subject",)),
    AuditName.HOLD_APPLIED: ("reached", ("subject",)),
    AuditName.ACTIVATION_PUT: ("activation", ("subject", "why")),
    # What AWS says happened around us: by CloudTrail's own id of the call.
    AuditName.RECORDING_READ: ("cloud", ("operation_id",)),
    AuditName.ARCHIVE_QUERIED: ("cloud", ("operation_id",)),
    AuditName.CODE_CHANGED: ("cloud", ("operation_id",)),
    AuditName.KEY_CHANGED: ("cloud", ("operation_id",)),
    AuditName.BUCKET_CHANGED: ("cloud", ("operation_id",)),
    AuditName.TABLE_CHANGED: ("cloud", ("operation_id",)),
    AuditName.ROLE_CHANGED: ("cloud", ("operation_id",)),
    AuditName.TRAIL_CHANGED: ("cloud", ("operation_id",)),
}

_INFORMATIONAL: Final = 1
_LOW: Final = 2
_SUCCESS: Final = 1
_FAILURE: Final = 2
_BASE: Final = (0, 0)  # OCSF's Base Event: it has no class for this
_SSH: Final = 4007  # Open 1, Close 2, Refuse 5, Traffic 6
_DATASTORE: Final = 6005  # Read 1, Connect 3, Query 4, Write 5, Other 99
_API: Final = 6003  # Create 1, Read 2, Update 3, Delete 4
_AUTHENTICATION: Final = 3002  # Logon 1, Account Switch 7
_AUTHORIZE: Final = 3003  # Assign Privileges 1
_CONTROL: Final[Mapping[AuditName, tuple[int, int]]] = {
    AuditName.TOKEN_EXCHANGED: (_AUTHENTICATION, 1),
    AuditName.TOKEN_REFUSED: (_AUTHENTICATION, 1),
    AuditName.TARGET_LOGIN_REFUSED: (_AUTHENTICATION, 1),
    AuditName.CHAIN_EXTENDED: (_AUTHENTICATION, 7),
    AuditName.SESSION_REQUESTED: (_API, 1),
    AuditName.SESSION_GRANTED: (_AUTHORIZE, 1),
    AuditName.SESSION_REFUSED: (_AUTHORIZE, 1),
    AuditName.SESSION_CLOSED: (_API, 4),
    AuditName.TICKET_ISSUED: (_AUTHORIZE, 1),
    AuditName.TICKET_REFUSED: (_AUTHORIZE, 1),
    AuditName.CARD_POSTED: (_API, 1),
    AuditName.CARD_FAILED: (_API, 1),
    AuditName.ANSWER_GIVEN: (_API, 1),
    AuditName.ANSWER_REFUSED: (_API, 1),
    AuditName.CREDENTIAL_MINTED: (_API, 1),
    AuditName.CREDENTIAL_REFUSED: (_API, 1),
    AuditName.CERTIFICATE_ISSUED: (_API, 1),
    AuditName.CERTIFICATE_REFUSED: (_API, 1),
    AuditName.CHAIN_REVOKED: (_API, 4),
    AuditName.REVOCATION_REFUSED: (_API, 4),
    AuditName.CHAIN_REVIEWED: (_API, 2),
    AuditName.REVIEW_SIGNED: (_API, 1),
    AuditName.ROW_TAMPERED: (_API, 3),
    AuditName.DIGEST_MADE: (_API, 1),
    AuditName.PROOF_OPENED: (_API, 2),
    AuditName.PROOF_REFUSED: (_API, 2),
    AuditName.SIGNOFF_REFUSED: (_API, 1),
    AuditName.EVIDENCE_HELD: (_API, 1),
    AuditName.EVIDENCE_LIFTED: (_API, 4),
    AuditName.HOLD_REFUSED: (_API, 1),
    AuditName.HOLD_APPLIED: (_API, 3),
    AuditName.HOLD_FAILED: (_API, 3),
    AuditName.EVIDENCE_COPIED: (_API, 2),
    AuditName.COPY_REFUSED: (_API, 2),
    AuditName.RECORDING_READ: (_API, 2),
    AuditName.ARCHIVE_QUERIED: (_API, 2),
    AuditName.CODE_CHANGED: (_API, 3),
    AuditName.KEY_CHANGED: (_API, 3),
    AuditName.BUCKET_CHANGED: (_API, 3),
    AuditName.TABLE_CHANGED: (_API, 3),
    AuditName.ROLE_CHANGED: (_API, 3),
    AuditName.TRAIL_CHANGED: (_API, 3),
    AuditName.ACTIVATION_PUT: (_API, 1),
    AuditName.RECORDING_REPLAYED: (_API, 2),
    AuditName.REPLAY_REFUSED: (_API, 2),
}
_OF_CONNECTION: Final[Mapping[AuditName, tuple[int, int]]] = {  # activity for ssh, for a datastore
    AuditName.CONNECTION_OPENED: (1, 3),
    AuditName.CONNECTION_REFUSED: (5, 3),
    AuditName.CONNECTION_SEALED: (2, 99),
    AuditName.CONNECTION_REVOKED: (2, 99),
    AuditName.OPERATION_RAN: (6, 4),
    AuditName.OPERATION_REFUSED: (5, 4),
}


def ocsf(event: AuditEvent) -> tuple[int, int]:
    """Return OCSF's class and activity: ``(0, 0)``, its Base Event, where no class fits. Pure."""
    return classify(event.name, event.protocol, event.operated.actions if event.operated else ())


def classify(name: AuditName, protocol: str, actions: Sequence[str]) -> tuple[int, int]:
    """As :func:`ocsf`, of an event's members that it reads. Pure."""
    fixed = _CONTROL.get(name)
    if fixed is not None:
        return fixed
    activities = _OF_CONNECTION.get(name)
    if activities is None or protocol not in ("ssh", "postgres"):
        return (_AUTHENTICATION, 1) if name is AuditName.CONNECTION_REFUSED else _BASE
    if protocol == "ssh":
        return _SSH, activities[0]
    if actions and set(actions) <= {"sql:read", "sql:write"}:
        return _DATASTORE, 5 if "sql:write" in actions else 1
    return _DATASTORE, activities[1]
