"""The access review as a value: what a renderer shows and an auditor checks. Frozen, no I/O, nothing decided.

Every text in it may have been written by whoever is reviewed: a renderer neutralises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum

from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import RowUnreadable
from chalicelib.domain.identity import Identity
from chalicelib.domain.recording import Gap


class FindingKind(StrEnum):
    """What is wrong with a piece of evidence. Permanent words: auditors' programs compare them."""

    ALTERED = "altered"  # it is not what was signed, hashed or copied
    MISSING = "missing"
    TRUNCATED = "truncated"  # it ends before its end
    ORDER = "out_of_order"  # it stands at another's place in the same recording
    SWAPPED = "swapped"  # it belongs to another session or connection
    OTHER_KEY = "other_key"  # no key that is trusted for this signed it
    REPLACED = "replaced"  # it is a whole one, and not the one that the row names
    EXTRA = "extra"  # nothing that is signed names it
    WIDER = "wider"  # a hop that is not a part of its parent: in links, scope, time or depth
    UNAPPROVED = "unapproved"  # it ran, or was granted, without the approvals that it needed
    UNSEALED = "unsealed"  # a recording that no manifest vouches for
    LOST = "lost"  # frames that the manifest itself names as a gap
    UNANCHORED = "unanchored"  # nothing outside the evidence vouches for the keys


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """``key`` names the one thing (a hop's, ask's, session's or connection's id, an object's key, a file of a copy),
    ``what`` says in words what is wrong with it."""

    key: str
    kind: FindingKind
    what: str

    def __str__(self) -> str:
        return f"{self.key} {self.what}"


def unreadable(subject: str, error: RowUnreadable) -> Finding:
    """Return the finding for a session or chain of which a row cannot be read: nothing else of it is shown then."""
    kind = error.detail.get("kind", "row")
    return Finding(key=subject, kind=FindingKind.ALTERED, what=f"has a {kind} row that is nothing that we wrote")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedRevocation:
    """What ended a hop or a session. ``key`` may be an ancestor's: what is below a revoked hop ended with it."""

    key: str
    by: str
    why: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedHop:
    """One hop. ``verified``: its signature and links hold, and it has no more than its parent. ``attributes`` are what
    its issuer's declaration keeps; ``ticket`` let it in and ``rules`` allowed that; ``sessions`` are the ids of
    those that it opened."""

    id: str
    parent: str
    depth: int
    max_depth: int
    kind: str
    identity: Identity
    scope: tuple[str, ...]
    teams: tuple[str, ...]
    key_thumbprint: str
    ticket: str
    rules: tuple[str, ...]
    revoked: ReviewedRevocation | None
    sessions: tuple[str, ...]
    assurance: str
    attributes: tuple[tuple[str, str], ...]
    target: str
    principal: str
    issued_at: datetime
    expires_at: datetime
    verified: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedApproval:
    """One person's answer. ``name`` is the person's id where the bundle no longer knows them."""

    ask_id: str
    person: str
    name: str
    approved: bool
    at: datetime
    groups: tuple[str, ...]
    rules: tuple[str, ...]
    via: str
    verified: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedOperation:
    """One operation. ``verdict`` is the last word (forward, mask or block; hold where none came); ``held``: it waited
    for people. ``status`` is empty where no outcome was recorded. ``recorded``: its frames are in verified segments.
    ``left_rows`` and ``left_bytes`` were sent to the client and, as policy permits, left out of the record.
    ``configuration_serial`` is that of the bundle under which its last verdict was given."""

    id: str
    connection_id: str
    at: datetime
    text: str
    actions: tuple[str, ...]
    binds: tuple[str, ...]
    held: bool
    verdict: str
    code: str
    rules: tuple[str, ...]
    ask_id: str
    approvals: tuple[ReviewedApproval, ...]
    status: str
    tag: str
    rows: int
    sqlstate: str
    duration_ms: int
    recorded: bool
    left_rows: int = 0
    left_bytes: int = 0
    configuration_serial: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedRecording:
    """The record of one connection. ``verified``: the manifest's signature and every hash in it hold; ``gaps`` are
    frames that were accepted and lost; ``sealed_by`` is as the manifest says: ``broker:...``, or, where that broker
    died, ``restart:...`` or ``sweeper``."""

    connection_id: str
    target_hop: str
    peer: str
    opened_at: datetime
    sealed_at: datetime | None
    exit: str
    manifest_key: str
    segments: int
    frames: int
    gaps: tuple[Gap, ...]
    verified: bool
    sealed_by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedSession:
    """One session. ``leaf_hop`` opened it. ``granted_at`` and ``expires_at`` are None where it never was granted;
    ``rules`` determined it. ``revoked`` is what ended it, but for its owner's closing: that is ``closed_at``."""

    id: str
    leaf_hop: str
    target: str
    principal: str
    reason: str
    status: str
    close_reason: str
    closed_at: datetime | None
    requested_at: datetime
    granted_at: datetime | None
    expires_at: datetime | None
    rules: tuple[str, ...]
    actor: Identity
    approvals: tuple[ReviewedApproval, ...]
    operations: tuple[ReviewedOperation, ...]
    recordings: tuple[ReviewedRecording, ...]
    revoked: ReviewedRevocation | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedHold:
    """A legal hold that is on something of this review, and not lifted. ``kind`` is session, chain or target."""

    id: str
    kind: str
    subject: str
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessReview:
    """The answer to an auditor's three questions. ``accountable`` are the people behind the run: the aliases that the
    issuer gave, with a name where the bundle knows one; empty where the trigger is unknown. ``verified``: there is no
    finding."""

    txn: str
    initiator: Identity
    initiator_assurance: str
    initiator_attributes: tuple[tuple[str, str], ...]
    accountable: tuple[tuple[str, str], ...]
    hops: tuple[ReviewedHop, ...]
    sessions: tuple[ReviewedSession, ...]
    findings: tuple[Finding, ...]
    reviewed_at: datetime
    holds: tuple[ReviewedHold, ...] = ()

    @property
    def verified(self) -> bool:
        return not self.findings


def review_json(review: AccessReview) -> Mapping[str, Json]:
    """Return the review as JSON values; times are RFC 3339. The texts are as they were recorded: who prints them lets
    JSON escape them. Pure."""
    told = _plain(review)
    if not isinstance(told, Mapping):
        raise TypeError("a review is an object")
    return {"verified": review.verified, **told}


def _plain(value: object) -> Json:
    match value:
        case None | bool() | int() | str():
            return value
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return timestamp(value)
        case _ if is_dataclass(value):
            return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON")
