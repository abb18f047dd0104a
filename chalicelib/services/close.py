"""The owner closes its session: nothing opens under it any more, and what is open ends.

Order: revoke (live connections die by the feed), withdraw the Ask (an approval that comes too late cannot be used),
close. Each step may be repeated, so a call that died half way is completed by the next.
"""

from __future__ import annotations

import contextlib

from chalicelib.domain.ask import Use, UseKind
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AlreadyUsed
from chalicelib.domain.session import Session, SessionStatus
from chalicelib.domain.store import Revocations, Sessions, Uses
from chalicelib.services.identify import Caller
from chalicelib.services.settle import USE_SLOT
from chalicelib.services.standing import CLOSED_BY_OWNER, CLOSED_BY_OWNER_WHY, owned


class CloseSession:
    """Closes the caller's own session. Idempotent."""

    def __init__(
        self, *, sessions: Sessions, uses: Uses, revocations: Revocations, clock: Clock, audit: AuditLog
    ) -> None:
        self._sessions = sessions
        self._uses = uses
        self._revocations = revocations
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, session_id: str) -> Session:
        """Return the session, closed. Raises NotFound for what is not the caller's, StoreUnavailable."""
        session = owned(self._sessions, caller, session_id)
        if session.status is SessionStatus.CLOSED:
            return session
        now = self._clock.now()
        self._revocations.revoke(f"session:{session.id}", by=caller.actor.key, why=CLOSED_BY_OWNER_WHY, at=now)
        if session.ask_id is not None:
            use = Use(
                ask_id=session.ask_id,
                n=USE_SLOT,
                kind=UseKind.WITHDRAWN,
                by=f"session:{session.id}",
                why=CLOSED_BY_OWNER_WHY,
                at=now,
            )
            with contextlib.suppress(AlreadyUsed):  # granted before: the revocation ends it
                self._uses.put(use)
        closed = self._sessions.close(session.id, CLOSED_BY_OWNER, now)
        self._audit.record(
            AuditEvent(
                name=AuditName.SESSION_CLOSED,
                at=now,
                txn=session.txn,
                session_id=session.id,
                ask_id=session.ask_id or "",
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                principal=session.request.principal,
                target=session.request.target,
            )
        )
        return closed
