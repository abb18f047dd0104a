"""A target's credential, for a connection that can be shown. Runs in the ``mint`` function, which alone can read one.

Being invoked is no authority: the evidence is read again. The connection's row (fresh, unsealed), the session and its
grant, every hop's signature down to the target hop, revocations, the verified answers where the grant rests on
approvals, and policy once more. A row that the API's role could forge is not enough: it can sign no hop and no answer.
One connection gets one credential, once.

Where nothing is stored for a login on an ssh target, the credential is a certificate for this one connection: over a
key that the broker made for it, for that one account, for two minutes, with the chain's ids for sshd's own log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import Approved, UseKind, fold_approval
from chalicelib.domain.audit import NOBODY, Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AccessError, GrantExpired, GrantRevoked, PolicyDenied, ProofInvalid
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.domain.policy import Allow, NeedsApproval
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import ApprovalNeed, Grant, Session, SessionStatus
from chalicelib.domain.store import Asks, Connections, Once, Revocations, Secrets, Sessions, Signer, Uses
from chalicelib.domain.target import CERTIFICATE, Credential, Principal, Protocol, Target
from chalicelib.identity.ssh_certificates import (
    CertificateWanted,
    certificate_serial,
    public_key_line,
    sign_certificate,
)
from chalicelib.services.access import approvers_stand, asks_for, rules_met, session_policy
from chalicelib.services.evidence import Evidence

# The broker asks right after segment 0 is durable; a row that waited longer belongs to a connection that is gone.
MAX_ROW_AGE: Final = timedelta(seconds=60)
CERTIFICATE_LIFETIME: Final = timedelta(minutes=2)  # the broker dials at once, and sshd may take its time to answer
_CLOCK_SKEW: Final = timedelta(seconds=30)  # both planes refuse to work past this difference
_ONE_CREDENTIAL: Final = timedelta(days=1)  # longer than any row is fresh, so that the claim outlives the row's use


@dataclass(frozen=True, kw_only=True, slots=True)
class _Evidenced:
    """What the evidence of a connection shows."""

    session: Session
    grant: Grant
    chain: Chain
    hop: Hop
    target: Target
    principal: Principal


class Mint:
    """Checks the evidence for a connection and returns the target's credential. ``signer`` is the ssh-target key's."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        sessions: Sessions,
        connections: Connections,
        asks: Asks,
        uses: Uses,
        revocations: Revocations,
        once: Once,
        secrets: Secrets,
        signer: Signer,
        evidence: Evidence,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._sessions = sessions
        self._connections = connections
        self._asks = asks
        self._uses = uses
        self._revocations = revocations
        self._once = once
        self._secrets = secrets
        self._signer = signer
        self._evidence = evidence
        self._clock = clock
        self._audit = audit

    def __call__(self, session_id: SessionId, connection_id: ConnectionId, public_key: str = "") -> Credential:
        """Return the credential for one connection, once. ``public_key`` (an OpenSSH line) is the key that the broker
        made for this connection, for logins that take a certificate.

        Raises BadRequest, NotFound, ProofInvalid, GrantExpired, GrantRevoked, PolicyDenied, ConfigurationInvalid,
        StoreUnavailable.
        """
        try:
            shown = self._evidenced(session_id, connection_id)
            if _takes_certificate(shown):
                public_key = public_key_line(public_key)
            self._claim(connection_id)
            credential = self._credential(shown, connection_id, public_key)
        except AccessError as error:
            self._record(AuditName.CREDENTIAL_REFUSED, session_id, connection_id, code=error.code)
            raise
        self._record(AuditName.CREDENTIAL_MINTED, session_id, connection_id, shown=shown)
        return credential

    def _credential(self, shown: _Evidenced, connection_id: ConnectionId, public_key: str) -> Credential:
        login = shown.principal.account
        if _takes_certificate(shown):
            certificate = sign_certificate(self._signer, self._wanted(shown, connection_id, public_key))
            return Credential(kind="certificate", login=login, secret=Secret(""), certificate=certificate)
        kind = "private_key" if shown.target.protocol is Protocol.SSH else "password"
        return Credential(kind=kind, login=login, secret=self._secrets.get(shown.principal.credential))

    def _wanted(self, shown: _Evidenced, connection_id: ConnectionId, public_key: str) -> CertificateWanted:
        now = self._clock.now()
        return CertificateWanted(
            public_key=public_key,
            key_id=f"txn:{shown.session.txn} ses:{shown.session.id} con:{connection_id}",
            serial=certificate_serial(shown.hop.serial),
            principals=(shown.principal.account,),
            valid_after=now - _CLOCK_SKEW,
            valid_before=min(now + CERTIFICATE_LIFETIME, shown.grant.expires_at),
        )

    def _evidenced(self, session_id: SessionId, connection_id: ConnectionId) -> _Evidenced:
        row = self._connections.get(session_id, connection_id)
        session = self._sessions.get(session_id)
        grant = self._grant(session)
        self._require_fresh(row)
        whole = self._evidence.chain(row.txn, row.target_hop)
        _require_consistent(row, session, grant, whole.leaf)
        chain = Chain(hops=whole.hops[:-1])
        revoked = self._revocations.any_of(whole.liveness_keys() | session.liveness_keys())
        if revoked is not None:
            raise GrantRevoked("the session was revoked", session=session.id, key=revoked.key)
        bundle = self._bundles.current()
        target = bundle.targets.get(grant.target)
        principal = None if target is None else target.principal(grant.principal)
        if target is None or principal is None:
            raise PolicyDenied("the target or its login is not configured any more", target=grant.target)
        if not chain.allows(grant.target, grant.principal):
            raise PolicyDenied("the session is outside what was delegated", session=session.id)
        self._require_permitted(bundle, chain, target, session, grant)
        return _Evidenced(session=session, grant=grant, chain=chain, hop=whole.leaf, target=target, principal=principal)

    def _grant(self, session: Session) -> Grant:
        if session.status is not SessionStatus.GRANTED or session.grant is None:
            raise ProofInvalid("the session is not granted", session=session.id)
        if not session.grant.not_before - _CLOCK_SKEW <= self._clock.now() < session.grant.expires_at:
            raise GrantExpired("the session has expired", session=session.id)
        return session.grant

    def _require_fresh(self, row: ConnectionRow) -> None:
        age = self._clock.now() - row.opened_at
        if row.sealed_at is not None or not -_CLOCK_SKEW <= age <= MAX_ROW_AGE:
            raise ProofInvalid("the connection is not being opened now", connection=row.id)

    def _met(
        self, bundle: Bundle, chain: Chain, session: Session, grant: Grant, needs: tuple[ApprovalNeed, ...]
    ) -> frozenset[str]:
        """Return the rules of ``needs`` that the answers to this session's own Ask meet now; none where the grant names
        none."""
        if not grant.met or session.ask_id is None:
            return frozenset()
        ask = self._asks.get(session.ask_id)
        uses = self._uses.of_ask(ask.id)
        state = fold_approval(ask, self._evidence.answers(ask.id), (), self._clock.now())
        sound = (
            ask.question.digest() == ask.digest
            and asks_for(ask.question, session, chain.leaf)
            and [use.kind for use in uses] == [UseKind.RAN]
        )
        if not sound or not isinstance(state, Approved) or not approvers_stand(bundle, chain, ask, state.answers):
            raise ProofInvalid("the approvals of this session do not verify", session=session.id, ask=ask.id)
        return frozenset(grant.met) & rules_met(bundle, chain, needs, ask.question, state.answers)

    def _require_permitted(self, bundle: Bundle, chain: Chain, target: Target, session: Session, grant: Grant) -> None:
        decided = session_policy(
            bundle=bundle,
            chain=chain,
            target=target,
            principal=grant.principal,
            duration_s=session.request.duration_s,
            now=self._clock.now(),
        )
        outcome = decided(frozenset())
        needs = outcome.needs if isinstance(outcome, NeedsApproval) else ()
        # Verified where nothing needs them any more too: approvals that the grant names and nobody gave are a forgery.
        met = self._met(bundle, chain, session, grant, needs)
        outcome = decided(met) if met else outcome
        if not isinstance(outcome, Allow):
            raise PolicyDenied("the rules do not allow this session", session=session.id, rules=outcome.rules)

    def _claim(self, connection_id: ConnectionId) -> None:
        now = self._clock.now()
        if self._once.claim("mint", connection_id, "", expires_at=now + _ONE_CREDENTIAL, now=now) is not None:
            raise ProofInvalid("this connection has had its credential", connection=connection_id)

    def _record(
        self,
        name: AuditName,
        session_id: SessionId,
        connection_id: ConnectionId,
        *,
        shown: _Evidenced | None = None,
        code: str = "",
    ) -> None:
        session = None if shown is None else shown.session
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                code=code,
                txn="" if session is None else session.txn,
                session_id=session_id,
                connection_id=connection_id,
                actor="" if session is None else session.actor.key,
                target="" if session is None else session.request.target,
                acting=NOBODY if shown is None else Acting.of(shown.chain),
                principal="" if shown is None else shown.principal.name,
                protocol="" if shown is None else shown.target.protocol.value,
                rules=() if shown is None else shown.grant.rules,
                policy_digest="" if shown is None else shown.grant.policy_digest,
                configuration_serial=0 if shown is None else shown.grant.configuration_serial,
            )
        )


def _takes_certificate(shown: _Evidenced) -> bool:
    return shown.target.protocol is Protocol.SSH and shown.principal.credential == CERTIFICATE


def _require_consistent(row: ConnectionRow, session: Session, grant: Grant, hop: Hop) -> None:
    same = (
        row.txn == session.txn
        and row.leaf_hop == session.leaf_hop == hop.parent
        and row.target == grant.target == hop.target == session.request.target
        and row.principal == grant.principal == hop.principal == session.request.principal
        and grant.session_id == session.id
        and hop.kind is HopKind.TARGET
        and hop.id == row.target_hop
    )
    if not same:
        raise ProofInvalid("the connection, its session and its target hop do not agree", connection=row.id)
