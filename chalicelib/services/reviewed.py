"""The access review as a value: what a renderer shows and an auditor checks. Frozen, no I/O, nothing decided.

Every text in it may have been written by whoever is reviewed: a renderer neutralises it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from chalicelib.domain.identity import Identity
from chalicelib.domain.recording import Gap


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedHop:
    """One hop. ``verified``: its signature and links hold. ``attributes`` are what its issuer's declaration keeps."""

    id: str
    depth: int
    kind: str
    identity: Identity
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
    for people. ``status`` is empty where no outcome was recorded. ``recorded``: its frames are in verified segments."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedRecording:
    """The record of one connection. ``verified``: the manifest's signature and every hash in it hold; ``gaps`` are
    frames that were accepted and lost."""

    connection_id: str
    peer: str
    opened_at: datetime
    sealed_at: datetime | None
    exit: str
    manifest_key: str
    segments: int
    frames: int
    gaps: tuple[Gap, ...]
    verified: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedSession:
    """One session. ``granted_at`` and ``expires_at`` are None where it never was granted; ``rules`` determined it."""

    id: str
    target: str
    principal: str
    reason: str
    status: str
    close_reason: str
    requested_at: datetime
    granted_at: datetime | None
    expires_at: datetime | None
    rules: tuple[str, ...]
    actor: Identity
    approvals: tuple[ReviewedApproval, ...]
    operations: tuple[ReviewedOperation, ...]
    recordings: tuple[ReviewedRecording, ...]


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
    findings: tuple[str, ...]
    reviewed_at: datetime

    @property
    def verified(self) -> bool:
        return not self.findings
