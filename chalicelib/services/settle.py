"""What became of a session: the answers folded, the grant made, the secret handed to who takes it first.

Order (the architecture's steps 5 to 8, for a request): verify each answer, fold; read revocation and expiry; check the
approvers; evaluate policy again under the newest configuration; put the Use; grant. A process that dies after the Use
leaves a session that the next call grants: the Use names the session, so it stays single.

Does not wait (``poll``) and does not make sessions (``request``).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, assert_never

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import (
    Answer,
    Approved,
    Ask,
    Expired,
    Refused,
    Spent,
    Use,
    UseKind,
    Waiting,
    fold_approval,
)
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import (
    AlreadyUsed,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalWithdrawn,
    Conflict,
    Denied,
    GrantExpired,
    GrantRevoked,
    PolicyDenied,
    ProofInvalid,
    TargetUnavailable,
)
from chalicelib.domain.policy import Allow, Decision, NeedsApproval
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import AccessRequest, Session, SessionStatus
from chalicelib.domain.store import Asks, Revocations, Sessions, Uses
from chalicelib.domain.target import Protocol, Target
from chalicelib.domain.verifier import new_session_secret, verifier_of
from chalicelib.services.access import approvers_stand, asks_for, rules_met, session_policy
from chalicelib.services.evidence import Evidence
from chalicelib.services.grant import new_grant, require_served
from chalicelib.services.identify import Caller
from chalicelib.services.standing import Granted, Pending, Standing, closed

USE_SLOT: Final = 1  # the one slot of an approval: its use and its withdrawal exclude each other


class Take(StrEnum):
    """Whether this call hands out the session's secret."""

    NOT = "not"  # a look: nothing is minted
    FIRST = "first"  # only where nobody has taken it yet
    AGAIN = "again"  # replace it: the earlier one stops working for new connections


class Settle:
    """Finds out how a session of the caller's stands, and moves it on where it can be."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        sessions: Sessions,
        asks: Asks,
        uses: Uses,
        revocations: Revocations,
        evidence: Evidence,
        served: frozenset[Protocol],
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._sessions = sessions
        self._asks = asks
        self._uses = uses
        self._revocations = revocations
        self._evidence = evidence
        self._served = served
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, session: Session, take: Take) -> Standing:
        """Return how ``session``, the caller's own, stands now.

        Raises the Denied kind that ended it (the session is closed then), ProofInvalid, StoreUnavailable. Idempotent,
        but for the secret: FIRST gives it to one call, AGAIN to each.
        """
        match session.status:
            case SessionStatus.CLOSED:
                raise closed(session)
            case SessionStatus.GRANTED:
                return self._granted(caller, session, take)
            case SessionStatus.PENDING:
                try:
                    standing = self._pending(caller, session)
                except Denied as error:
                    self._end(caller, session, error)
                    raise
                if isinstance(standing, Pending):
                    return standing
                return self(caller, standing, take)
            case _:
                assert_never(session.status)

    def _pending(self, caller: Caller, session: Session) -> Pending | Session:
        ask = self._ask_of(caller, session)
        answers = self._evidence.answers(ask.id)
        now = self._clock.now()
        state = fold_approval(ask, answers, self._uses.of_ask(ask.id), now)
        if isinstance(state, Spent) and _ours(state.use, session):
            # We died between Use and grant: the approval is this session's already, so what was counted then counts.
            state = fold_approval(ask, answers, (), now)
        match state:
            case Waiting():
                self._require_alive(caller, session)  # nobody waits for people to approve what is dead
                return Pending(session=session, ask=ask, missing=state.missing)
            case Approved():
                return self._grant(caller, session, ask, state.answers)
            case Refused():
                raise ApprovalDenied("an approver refused the session", ask=ask.id, by=state.by)
            case Expired():
                raise ApprovalExpired("the session was not approved in time", ask=ask.id)
            case Spent():
                raise ApprovalWithdrawn("the request for the session was withdrawn", ask=ask.id)
            case _:
                assert_never(state)

    def _ask_of(self, caller: Caller, session: Session) -> Ask:
        """Return the session's Ask, checked: for this session and actor, for what it asks, and unchanged since."""
        if session.ask_id is None:
            raise ProofInvalid("the session waits for an approval that nobody was asked for", session=session.id)
        ask = self._asks.get(session.ask_id)
        if ask.question.digest() != ask.digest or not asks_for(ask.question, session, caller.chain.leaf):
            raise ProofInvalid("the approval that was asked for is not this session's", session=session.id, ask=ask.id)
        return ask

    def _grant(self, caller: Caller, session: Session, ask: Ask, answers: tuple[Answer, ...]) -> Session:
        now = self._clock.now()
        bundle = self._bundles.for_new_sessions()
        self._require_alive(caller, session)
        target = _target(bundle, session.request)
        if not approvers_stand(bundle, caller.chain, ask, answers):
            raise PolicyDenied("who approved may not approve this any more", ask=ask.id)
        outcome, met = self._decided(bundle, caller, session, target, ask, answers, now)
        if not isinstance(outcome, Allow):
            raise PolicyDenied("the rules changed since the session was asked for", rules=outcome.rules)
        require_served(target, outcome, self._served)
        self._use(session, ask)
        grant = new_grant(
            session_id=session.id,
            bundle=bundle,
            chain=caller.chain,
            target=target,
            principal=session.request.principal,
            duration_s=session.request.duration_s,
            permitted=outcome,
            met=met,
            now=now,
        )
        try:
            granted = self._sessions.grant(session.id, grant)
        except Conflict:
            return self._sessions.get(session.id)  # another call of ours was first: its grant, or its refusal, stands
        people = tuple(answer.person for answer in answers)
        self._record(AuditName.SESSION_GRANTED, caller, granted, ask_id=ask.id, people=people)
        return granted

    def _decided(
        self,
        bundle: Bundle,
        caller: Caller,
        session: Session,
        target: Target,
        ask: Ask,
        answers: tuple[Answer, ...],
        now: datetime,
    ) -> tuple[Decision, tuple[str, ...]]:
        """Return what policy says now with the answers, and the rules that they meet."""
        decided = session_policy(
            bundle=bundle,
            chain=caller.chain,
            target=target,
            principal=session.request.principal,
            duration_s=session.request.duration_s,
            now=now,
        )
        outcome = decided(frozenset())
        needs = outcome.needs if isinstance(outcome, NeedsApproval) else ()
        met = rules_met(bundle, caller.chain, needs, ask.question, answers)
        return (decided(met) if met else outcome), tuple(sorted(met))

    def _use(self, session: Session, ask: Ask) -> None:
        use = Use(
            ask_id=ask.id,
            n=USE_SLOT,
            kind=UseKind.RAN,
            by=f"session:{session.id}",
            why="granted",
            at=self._clock.now(),
        )
        try:
            self._uses.put(use)
        except AlreadyUsed:
            if not all(_ours(found, session) for found in self._uses.of_ask(ask.id)):
                raise ApprovalWithdrawn("the request for the session was withdrawn", ask=ask.id) from None

    def _granted(self, caller: Caller, session: Session, take: Take) -> Granted:
        if session.grant is None:
            raise ProofInvalid("the session is granted without a grant", session=session.id)
        if self._clock.now() >= session.grant.expires_at:
            raise GrantExpired("the session has expired", session=session.id)
        self._require_alive(caller, session)
        target = self._bundles.current().targets.get(session.grant.target)
        if target is None:
            raise TargetUnavailable("the target of this session is not configured any more", session=session.id)
        secret = self._secret(session, take)
        return Granted(session=session, grant=session.grant, target=target, secret=secret)

    def _secret(self, session: Session, take: Take) -> Secret | None:
        if take is Take.NOT or (take is Take.FIRST and session.verifier is not None):
            return None
        secret = new_session_secret()
        try:
            self._sessions.rekey(session.id, verifier_of(secret), only_first=take is Take.FIRST)
        except Conflict:
            if take is Take.AGAIN:
                raise
            return None  # another call took it a moment ago, and it is shown once
        return secret

    def _require_alive(self, caller: Caller, session: Session) -> None:
        revoked = self._revocations.any_of(caller.chain.liveness_keys() | session.liveness_keys())
        if revoked is not None:
            raise GrantRevoked("the session was revoked", session=session.id, key=revoked.key)

    def _end(self, caller: Caller, session: Session, error: Denied) -> None:
        self._sessions.close(session.id, error.code, self._clock.now())
        self._record(AuditName.SESSION_REFUSED, caller, session, ask_id=session.ask_id or "", code=error.code)

    def _record(
        self,
        name: AuditName,
        caller: Caller,
        session: Session,
        *,
        ask_id: str,
        people: tuple[str, ...] = (),
        code: str = "",
    ) -> None:
        grant = session.grant
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                code=code,
                txn=session.txn,
                session_id=session.id,
                ask_id=ask_id,
                actor=session.actor.key,
                target=session.request.target,
                acting=Acting.of(caller.chain),
                principal=session.request.principal,
                verdict="block" if grant is None else "forward",
                rules=() if grant is None else grant.rules,
                people=people,
                policy_digest="" if grant is None else grant.policy_digest,
                configuration_serial=0 if grant is None else grant.configuration_serial,
            )
        )


def _ours(use: Use, session: Session) -> bool:
    return use.kind is UseKind.RAN and use.by == f"session:{session.id}"


def _target(bundle: Bundle, request: AccessRequest) -> Target:
    target = bundle.targets.get(request.target)
    if target is None or target.principal(request.principal) is None:
        raise PolicyDenied("the target or its login is not configured any more", target=request.target)
    return target
