"""Session and Grant: what one caller may open to one target, and the immutable permission inside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chalicelib.domain.canonical import Json
from chalicelib.domain.epoch import epoch_key
from chalicelib.domain.identifiers import AskId, GrantId, HopId, SessionId, Txn
from chalicelib.domain.identity import Identity
from chalicelib.domain.requirement import WEBAUTHN, Approval
from chalicelib.domain.verifier import Verifier


class SessionStatus(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    CLOSED = "closed"


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessRequest:
    """The ask for a session. ``principal`` is empty for the target's default; ``duration_s`` is a wish, capped."""

    target: str
    principal: str
    reason: str
    duration_s: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalNeed:
    """An approval that a rule requires, with the rule that does."""

    rule: str
    approval: Approval
    hint: str

    def told(self) -> list[Json]:
        """Return it as digests and frames have it: rule, group, count; ``webauthn`` where it needs a passkey. Pure."""
        approval = self.approval
        return [self.rule, approval.group, approval.count, *([WEBAUTHN] if approval.webauthn else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """The permission. ``rules`` determined it; ``met`` are the rules that approvals met, each with its Ask."""

    id: GrantId
    session_id: SessionId
    target: str
    principal: str
    not_before: datetime
    expires_at: datetime
    rules: tuple[str, ...]
    met: tuple[str, ...]
    policy_digest: str
    configuration_serial: int
    max_connections: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What one caller may open to one target. Its ``id`` is the login name on the broker.

    ``leaf_hop`` is the asker's hop. ``grant`` and ``verifier`` are None until granted; a re-issued secret replaces
    the verifier and nothing else. ``epoch`` is the store's under which it was asked for (``domain.epoch``).
    """

    id: SessionId
    txn: Txn
    status: SessionStatus
    request: AccessRequest
    actor: Identity
    originator: Identity
    leaf_hop: HopId
    token_id: str
    created_at: datetime
    ask_id: AskId | None
    grant: Grant | None
    verifier: Verifier | None
    closed_at: datetime | None
    close_reason: str
    epoch: str = ""

    def liveness_keys(self) -> frozenset[str]:
        """The keys of which any revocation ends this session, besides its chain's."""
        keys = {f"session:{self.id}", f"token:{self.token_id}", f"target:{self.request.target}", epoch_key(self.epoch)}
        if self.grant is not None:
            keys.add(f"grant:{self.grant.id}")
        return frozenset(keys)
