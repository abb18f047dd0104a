"""How a session stands for the one who asked for it: what ``request`` and ``poll`` answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from chalicelib.domain.ask import Ask
from chalicelib.domain.errors import (
    AccessError,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalWithdrawn,
    GrantExpired,
    GrantRevoked,
    NotFound,
    PolicyDenied,
)
from chalicelib.domain.identifiers import SESSION_ID, SessionId
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import ApprovalNeed, Grant, Session
from chalicelib.domain.store import Sessions
from chalicelib.domain.target import Target
from chalicelib.services.identify import Caller

CLOSED_BY_OWNER = "closed_by_owner"
CLOSED_BY_OWNER_WHY = "closed by its owner"

# One text for both, because an answer that differs would tell a stranger which targets there are.
NO_ACCESS = "you may not open a session to this target, or there is no such target"
NO_ACCESS_HINT = "Check the name with `countersign targets`; then ask the owners of the target for access."


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """``secret`` is there only for who takes it now: the table holds no more than its verifier."""

    session: Session
    grant: Grant
    target: Target
    secret: Secret | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """``missing``: how many more people each need takes."""

    session: Session
    ask: Ask
    missing: tuple[tuple[ApprovalNeed, int], ...]


Standing: TypeAlias = Granted | Pending


def no_access(**detail: object) -> PolicyDenied:
    """Return the one refusal for a target that is forbidden, unknown, or outside the token's scope."""
    return PolicyDenied(NO_ACCESS, hint=NO_ACCESS_HINT, **detail)


def owned(sessions: Sessions, caller: Caller, session_id: str) -> Session:
    """Return the caller's own session. Raises NotFound for any other: whose it is, is nobody else's business.

    Its hop is compared and not its identity alone: one identity may be let in twice under one run, with less the second
    time, and must not take what the first was granted.
    """
    if not SESSION_ID.match(session_id):
        raise NotFound("there is no such session")
    session = sessions.get(SessionId(session_id))
    leaf = caller.chain.leaf
    if (session.actor.key, session.txn, session.leaf_hop) != (leaf.actor.key, leaf.txn, leaf.id):
        raise NotFound("there is no such session", session=session_id)
    return session


def closed(session: Session) -> AccessError:
    """Return the refusal that a closed session answers: its reason is the code with which it was closed."""
    match session.close_reason:
        case ApprovalDenied.code:
            return ApprovalDenied("an approver refused the session", session=session.id)
        case ApprovalExpired.code:
            return ApprovalExpired("the session was not approved in time", session=session.id)
        case ApprovalWithdrawn.code:
            return ApprovalWithdrawn("the request for the session was withdrawn", session=session.id)
        case PolicyDenied.code:
            return PolicyDenied("the rules do not allow the session any more", session=session.id)
        case GrantExpired.code:
            return GrantExpired("the session has expired", session=session.id)
        case reason if reason == CLOSED_BY_OWNER and session.grant is None:
            return ApprovalWithdrawn("the request for the session was withdrawn", session=session.id)
        case _:
            return GrantRevoked("the session is closed", hint="Ask for a new session.", session=session.id)
