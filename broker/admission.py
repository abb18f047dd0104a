"""Admission: proof, inside the broker, that a transport passed. Only :meth:`Admissions.admit` can make one.

A grant is necessary and never sufficient: session, grant, chain, revocations and approvals are read again for every
connection, and the request stage is evaluated again under the newest configuration. Every function here blocks (it
reads stores) and is called off the event loop, after the secret was proved against :meth:`Admissions.verifier`.
Does not: see the secret, put a row, mint, dial.
Source: architecture, "The order of events"; security.md, "Any process of the job reads PGPASSWORD".
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.evidence import NO_APPROVALS, Approvals, Evidence, asked_of_people, still_eligible
from broker.liveness import Liveness
from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import Approved, UseKind, fold_approval
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import (
    AccessError,
    ApproverNotEligible,
    Denied,
    GrantExpired,
    GrantRevoked,
    Limited,
    NotFound,
    PolicyDenied,
    ProofInvalid,
)
from chalicelib.domain.identifiers import SESSION_ID, SessionId
from chalicelib.domain.identity import Assurance
from chalicelib.domain.policy import Allow, NeedsApproval
from chalicelib.domain.session import Grant, Session, SessionStatus
from chalicelib.domain.store import Answers, Asks, Chains, Connections, Revocations, Sessions, Uses
from chalicelib.domain.target import Principal, Target
from chalicelib.domain.verifier import Verifier, stranger_verifier
from chalicelib.services.access import approvers_stand, asks_for, session_policy

# What is read for a login that cannot be a session's, so that garbage costs the same read as a good guess.
_NOBODY: Final = SessionId("ses_00000000000000000000000000")
_TOKEN: Final = object()
_BIND: Final = "Enter with the session's certificate and its key, not with the secret."

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Proof that one transport passed. ``chain`` has no target hop; ``liveness`` is frozen: a revocation of any of its
    keys ends the connection, whose own hop the gateway adds. ``approvals`` are those given for the session; ``peer`` is
    the client's address alone. ``bound``: the transport proved a key that the session's own actor named, and not only
    that it knows a secret; ``assurance`` is then the actor's own, else ``bearer``."""

    session: Session
    grant: Grant
    chain: Chain
    target: Target
    principal: Principal
    peer: str
    liveness: frozenset[str]
    assurance: Assurance
    bound: bool
    configuration_serial: int
    approvals: Approvals
    token: object = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if self.token is not _TOKEN:
            raise TypeError("an Admission is made by Admissions.admit alone")


class Admissions:
    """Admits transports. Thread-safe; holds no state of its own: any broker task admits any session."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        chains: Chains,
        connections: Connections,
        revocations: Revocations,
        asks: Asks,
        answers: Answers,
        uses: Uses,
        bundles: Bundles,
        evidence: Evidence,
        liveness: Liveness,
        audit: AuditLog,
        clock: Clock,
        pepper: bytes,
    ) -> None:
        """``pepper``: random bytes of this deployment that make strangers' salts; 32 of them."""
        self._sessions = sessions
        self._chains = chains
        self._connections = connections
        self._revocations = revocations
        self._asks = asks
        self._answers = answers
        self._uses = uses
        self._bundles = bundles
        self._evidence = evidence
        self._liveness = liveness
        self._audit = audit
        self._clock = clock
        self._pepper = pepper

    def verifier(self, login: str) -> Verifier:
        """Return the verifier that ``login``'s secret must match. Blocks for one read, whatever the login.

        A login that is unknown, closed, not granted or over gets one that nothing matches, at the same cost: who
        guesses learns nothing from the exchange. Raises StoreUnavailable.
        """
        stranger = stranger_verifier(login, self._pepper)
        known = SESSION_ID.match(login) is not None
        try:
            session = self._sessions.get(SessionId(login) if known else _NOBODY)
        except NotFound:
            return stranger
        grant = session.grant
        usable = known and session.status is SessionStatus.GRANTED and grant is not None
        if not usable or grant is None or grant.expires_at <= self._clock.now() or session.verifier is None:
            return stranger
        return session.verifier

    def admit(self, login: str, peer: str, *, bound: bool = False) -> Admission:
        """Return the Admission of a transport from ``peer`` that proved ``login``'s secret, or, ``bound``, the key of a
        certificate of ours for ``login``. Blocks.

        Raises AccessError: GrantRevoked, GrantExpired, PolicyDenied, Denied (another source address), Limited (too
        many connections), ProofInvalid, StoreUnavailable, ConfigurationInvalid. A refusal is audited.
        """
        try:
            return self._admit(login, peer, bound=bound)
        except AccessError as error:
            self.refused(login, peer, error)
            raise

    def refused(self, login: str, peer: str, error: AccessError) -> None:
        """Audit a refused transport. Blocks. A log that cannot be written changes nothing: it stays refused."""
        event = AuditEvent(
            name=AuditName.CONNECTION_REFUSED,
            at=self._clock.now(),
            subject=login if SESSION_ID.match(login) else "",  # what a stranger typed may be a password
            code=error.code,
            peer=peer,
            why=error.public,
        )
        try:
            self._audit.record(event)
        except Exception:
            _logger.exception("a refusal could not be audited", extra={"code": error.code})

    def _admit(self, login: str, peer: str, *, bound: bool) -> Admission:
        self._liveness.check_fresh()
        session, grant = self._granted(login)
        chain = self._evidence.chain(session.txn, self._chains.hops(session.txn), session.leaf_hop)
        if chain.leaf.actor != session.actor or chain.originator != session.originator:
            raise ProofInvalid("the session is not its chain's", session=session.id)
        if not chain.allows(grant.target, grant.principal):
            raise PolicyDenied("the target or login is outside the scope of the chain", session=session.id)
        liveness = session.liveness_keys() | chain.liveness_keys()
        if self._revocations.any_of(liveness) is not None:
            raise GrantRevoked("the session was revoked", session=session.id)
        now = self._clock.now()
        if not grant.not_before <= now < min(grant.expires_at, chain.leaf.expires_at):
            raise GrantExpired("the session is over", session=session.id)
        bundle = self._bundles.for_new_sessions()
        if bundle.serial < grant.configuration_serial:
            raise PolicyDenied("this broker does not have the session's configuration yet", hint="Try again shortly.")
        target, principal = _resolved(bundle, grant)
        approvals = self._approvals(bundle, chain, session, grant, now)
        permitted = _permitted(bundle, session, grant, chain, target, approvals, now)
        if permitted.bound and not bound:
            raise PolicyDenied(
                "a rule requires a session that is bound to a key of yours", hint=_BIND, rules=permitted.rules
            )
        check_room(self._connections.of_session(session.id), peer, grant.max_connections - 1)
        return Admission(
            session=session,
            grant=grant,
            chain=chain,
            target=target,
            principal=principal,
            peer=peer,
            liveness=liveness,
            # A secret proves only that somebody knows it.
            assurance=chain.leaf.evidence.assurance if bound else Assurance.BEARER,
            bound=bound,
            configuration_serial=bundle.serial,
            approvals=approvals,
            token=_TOKEN,
        )

    def _granted(self, login: str) -> tuple[Session, Grant]:
        if SESSION_ID.match(login) is None:
            raise NotFound("there is no such session")
        session = self._sessions.get(SessionId(login))
        if session.status is SessionStatus.CLOSED:
            raise GrantRevoked("the session is closed", session=login)
        if session.status is not SessionStatus.GRANTED or session.grant is None:
            raise Denied("the session is not granted", session=login)
        grant = session.grant
        asked = (session.request.target, session.request.principal)
        if grant.session_id != session.id or (grant.target, grant.principal) != asked:
            raise ProofInvalid("the grant is not this session's", session=login)
        return session, grant

    def _approvals(self, bundle: Bundle, chain: Chain, session: Session, grant: Grant, now: datetime) -> Approvals:
        """Return what people said to the session's own ask, where it stands: every signature and digest checked,
        and that who approved still may."""
        if session.ask_id is None:
            return NO_APPROVALS
        ask = self._asks.get(session.ask_id)
        question = ask.question
        if question.digest() != ask.digest or not asks_for(question, session, chain.leaf):
            raise ProofInvalid("the session's approval is for something else", ask=ask.id)
        if any(use.kind is UseKind.WITHDRAWN for use in self._uses.of_ask(ask.id)):
            raise GrantRevoked("the session's approval was withdrawn", ask=ask.id)
        answers = self._evidence.answers(self._answers.of_ask(ask.id))
        # Its use is what granted the session, so the fold is asked what the answers alone say.
        state = fold_approval(ask, answers, (), now)
        if not isinstance(state, Approved):
            raise PolicyDenied("the session's approval does not stand any more", ask=ask.id)
        if not approvers_stand(bundle, chain, ask, state.answers):
            raise ApproverNotEligible("who approved the session may not approve it any more", ask=ask.id)
        asked = frozenset(need.rule for need in question.needs)
        # Only what still stands: policy may want a passkey now where the question was content with a click.
        standing = still_eligible(bundle, state.answers, ask.excluded)
        return Approvals(rules=asked & frozenset(grant.met), answers=standing)


def _resolved(bundle: Bundle, grant: Grant) -> tuple[Target, Principal]:
    target = bundle.targets.get(grant.target)
    principal = target.principal(grant.principal) if target is not None else None
    if target is None or principal is None:
        raise PolicyDenied("the session's target or login is not configured any more", target=grant.target)
    return target, principal


def _permitted(
    bundle: Bundle,
    session: Session,
    grant: Grant,
    chain: Chain,
    target: Target,
    approvals: Approvals,
    now: datetime,
) -> Allow:
    """Return how ``bundle`` still opens this session with the approvals that it has. Raises PolicyDenied."""
    asked = session_policy(
        bundle=bundle,
        chain=chain,
        target=target,
        principal=grant.principal,
        duration_s=session.request.duration_s,
        now=now,
    )
    outcome = asked(frozenset())
    if isinstance(outcome, NeedsApproval):
        met = approvals.met(asked_of_people(bundle, chain, outcome.needs))
        outcome = asked(met) if met else outcome
    if not isinstance(outcome, Allow):
        raise PolicyDenied("policy does not open this session any more", rules=outcome.rules)
    return outcome


def check_room(rows: Sequence[ConnectionRow], peer: str, others: int) -> None:
    """Raise Denied where another address used the session, Limited where more than ``others`` connections are open.

    ``rows`` are the session's, from every broker: an address counts for as long as the session lives, because who
    copied the secret may come after its owner has gone. Pure.
    """
    if any(row.peer != peer for row in rows):
        raise Denied(
            "the session is used from another address",
            hint="Connect from the address that used the session first, or ask for a new session.",
            reason="source_address",
        )
    if sum(row.sealed_at is None for row in rows) > others:
        raise Limited("the session has as many connections open as it may", hint="Close one and try again.")
