"""A certificate with which a client enters a granted ssh session on a key of its own. Runs in the ``sign`` function.

It replaces the session's secret: what a thief reads from the caller's environment opens nothing without the key. Rules:
the caller is verified again, since being invoked is no authority; the session is the caller's own, granted, alive, not
revoked and to an ssh target; a certificate names one session, lives for five minutes and never longer than the grant,
and allows a terminal and nothing else. It is no permission: the broker's admission reads and decides everything again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chalicelib.config.bundle import Bundles
from chalicelib.domain.audit import NOBODY, Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, BadRequest, Conflict, GrantExpired, GrantRevoked, ProofInvalid
from chalicelib.domain.identifiers import SESSION_ID
from chalicelib.domain.session import Grant, Session, SessionStatus
from chalicelib.domain.store import Revocations, Sessions, Signer
from chalicelib.domain.target import Protocol
from chalicelib.identity.ssh_certificates import (
    CertificateWanted,
    key_fingerprint,
    public_key_line,
    sign_certificate,
)
from chalicelib.services.identify import Caller, Identify, Presented
from chalicelib.services.standing import closed, no_access, owned

CERTIFICATE_LIFETIME: Final = timedelta(minutes=5)  # it is checked when a connection opens, and that may be retried
BACKDATED: Final = timedelta(seconds=30)  # between our clocks: past this difference both planes refuse to work
SESSIONS_PATH: Final = "/v1/sessions"
SERIAL_BITS: Final = 63  # a positive number wherever it is read


@dataclass(frozen=True, kw_only=True, slots=True)
class Certified:
    """One OpenSSH line, and until when it opens connections."""

    certificate: str
    expires_at: datetime


class Certify:
    """Signs certificates for callers' own sessions. ``signer`` is the ssh-user key's. Writes nothing but its audit."""

    def __init__(
        self,
        *,
        identify: Identify,
        bundles: Bundles,
        sessions: Sessions,
        revocations: Revocations,
        signer: Signer,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._identify = identify
        self._bundles = bundles
        self._sessions = sessions
        self._revocations = revocations
        self._signer = signer
        self._clock = clock
        self._audit = audit

    def __call__(self, presented: Presented, session_id: str, public_key: str) -> Certified:
        """Return a certificate over ``public_key`` (an OpenSSH line) for the caller's session. Each call makes another.

        ``presented``'s proof was counted by the function that the request came to. Raises TokenInvalid, TokenExpired,
        KeyProofInvalid, ProofInvalid, BadRequest, NotFound, Conflict, PolicyDenied, GrantExpired, GrantRevoked, what
        closed the session, ConfigurationInvalid, StoreUnavailable.
        """
        caller: Caller | None = None
        try:
            presented.require_for("POST", SESSIONS_PATH, f"{SESSIONS_PATH}/{session_id}/certificate")
            caller = self._identify(presented, count_once=False)
            session = owned(self._sessions, caller, session_id)
            grant = self._grant(session)
            self._require_usable(caller, session, grant)
            wanted = self._wanted(session, grant, public_key)
            certificate = sign_certificate(self._signer, wanted)
        except AccessError as error:
            self._record(AuditName.CERTIFICATE_REFUSED, caller, session_id, code=error.code)
            raise
        why = f"serial {wanted.serial} key {key_fingerprint(wanted.public_key)}"
        self._record(AuditName.CERTIFICATE_ISSUED, caller, session_id, target=grant.target, why=why)
        return Certified(certificate=certificate, expires_at=wanted.valid_before)

    def _grant(self, session: Session) -> Grant:
        match session.status:
            case SessionStatus.PENDING:
                raise Conflict("the session is not granted yet", hint="Wait until it is granted.", session=session.id)
            case SessionStatus.CLOSED:
                raise closed(session)
            case SessionStatus.GRANTED:
                pass
        if session.grant is None or session.grant.session_id != session.id:
            raise ProofInvalid("the session is granted without a grant", session=session.id)
        if not session.grant.not_before - BACKDATED <= self._clock.now() < session.grant.expires_at:
            raise GrantExpired("the session has expired", session=session.id)
        return session.grant

    def _require_usable(self, caller: Caller, session: Session, grant: Grant) -> None:
        revoked = self._revocations.any_of(caller.chain.liveness_keys() | session.liveness_keys())
        if revoked is not None:
            raise GrantRevoked("the session was revoked", session=session.id, key=revoked.key)
        target = self._bundles.current().targets.get(grant.target)
        if target is None or not caller.may_open(grant.target, grant.principal):
            raise no_access(session=session.id)
        if target.protocol is not Protocol.SSH:
            raise BadRequest(
                f"a session to a {target.protocol.value} target has no certificate",
                hint="Use the session's secret.",
                session=session.id,
            )

    def _wanted(self, session: Session, grant: Grant, public_key: str) -> CertificateWanted:
        now = self._clock.now()
        return CertificateWanted(
            public_key=public_key_line(public_key),
            key_id=f"txn:{session.txn} ses:{session.id} hop:{session.leaf_hop}",
            serial=secrets.randbits(SERIAL_BITS),
            principals=(session.id,),
            valid_after=now - BACKDATED,
            valid_before=min(now + CERTIFICATE_LIFETIME, grant.expires_at),
        )

    def _record(
        self,
        name: AuditName,
        caller: Caller | None,
        session_id: str,
        *,
        target: str = "",
        code: str = "",
        why: str = "",
    ) -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                code=code,
                txn="" if caller is None else caller.chain.txn,
                session_id=session_id if SESSION_ID.match(session_id) else "",  # a caller's own words stay out
                actor="" if caller is None else caller.actor.key,
                acting=NOBODY if caller is None else Acting.of(caller.chain),
                target=target,
                why=why,
            )
        )
