"""A target's credential, for a connection that can be shown. Runs in the ``mint`` function, which alone can read one.

Being invoked is no authority: the evidence is read again. The connection's row (fresh, unsealed), the session and its
grant, every hop's signature down to the target hop, revocations, the verified answers where the grant rests on
approvals, and policy once more. A row that the API's role could forge is not enough: it can sign no hop and no answer.
One connection gets one credential, once.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import Approved, UseKind, fold_approval
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AccessError, GrantExpired, GrantRevoked, PolicyDenied, ProofInvalid
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.domain.policy import Allow
from chalicelib.domain.session import Grant, Session, SessionStatus
from chalicelib.domain.store import Asks, Connections, Once, Revocations, Secrets, Sessions, Uses
from chalicelib.domain.target import Credential, Principal, Target
from chalicelib.services.access import approvers_stand, session_question
from chalicelib.services.evidence import Evidence
from chalicelib.services.settle import request_commitment

# The broker asks right after segment 0 is durable; a row that waited longer belongs to a connection that is gone.
MAX_ROW_AGE: Final = timedelta(seconds=60)
_CLOCK_SKEW: Final = timedelta(seconds=30)  # both planes refuse to work past this difference
_ONE_CREDENTIAL: Final = timedelta(days=1)  # longer than any row is fresh, so that the claim outlives the row's use


class Mint:
    """Checks the evidence for a connection and returns the target's credential."""

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
        self._evidence = evidence
        self._clock = clock
        self._audit = audit

    def __call__(self, session_id: SessionId, connection_id: ConnectionId) -> Credential:
        """Return the credential for one connection, once.

        Raises NotFound, ProofInvalid, GrantExpired, GrantRevoked, PolicyDenied, ConfigurationInvalid, StoreUnavailable.
        """
        try:
            session, principal = self._evidenced(session_id, connection_id)
            self._claim(connection_id)
            secret = self._secrets.get(principal.credential)
        except AccessError as error:
            self._record(AuditName.CREDENTIAL_REFUSED, session_id, connection_id, code=error.code)
            raise
        self._record(AuditName.CREDENTIAL_MINTED, session_id, connection_id, session=session)
        return Credential(kind="password", login=principal.name, secret=secret)

    def _evidenced(self, session_id: SessionId, connection_id: ConnectionId) -> tuple[Session, Principal]:
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
        met = self._met(bundle, chain, session, grant)
        self._require_permitted(bundle, chain, target, session, grant, met)
        return session, principal

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

    def _met(self, bundle: Bundle, chain: Chain, session: Session, grant: Grant) -> frozenset[str]:
        """Return the rules whose approvals verify now, for this session's own Ask; none where the grant names none."""
        if not grant.met or session.ask_id is None:
            return frozenset()
        ask = self._asks.get(session.ask_id)
        uses = self._uses.of_ask(ask.id)
        state = fold_approval(ask, self._evidence.answers(ask.id), (), self._clock.now())
        sound = (
            ask.question.digest() == ask.digest
            and ask.question.session_id == session.id
            and ask.question.commitment == request_commitment(session.request)
            and [use.kind for use in uses] == [UseKind.RAN]
        )
        if not sound or not isinstance(state, Approved) or not approvers_stand(bundle, chain, ask, state.answers):
            raise ProofInvalid("the approvals of this session do not verify", session=session.id, ask=ask.id)
        return frozenset(grant.met) & {need.rule for need in ask.question.needs}

    def _require_permitted(
        self, bundle: Bundle, chain: Chain, target: Target, session: Session, grant: Grant, met: frozenset[str]
    ) -> None:
        outcome = bundle.policy.decide(
            session_question(
                bundle=bundle,
                chain=chain,
                target=target,
                principal=grant.principal,
                duration_s=session.request.duration_s,
                now=self._clock.now(),
                met=met,
            )
        )
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
        session: Session | None = None,
        code: str = "",
    ) -> None:
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
            )
        )


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
