"""An AccessRequest becomes a session: granted at once, waiting for people, or refused.

Rules: a target that is unknown, forbidden, or outside the token's scope is refused in the same words after the same
work. Nothing is written for what is refused. The Ask is put before its session, so that no session waits for an Ask
that is not there. Under an Idempotency-Key the same request finds the same session, whose secret is made anew: no
answer is ever stored, so no table holds a secret.
"""

from __future__ import annotations

import json
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import Ask, Question, Stage
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import canonical, digest, sha256_hex
from chalicelib.domain.clock import Clock
from chalicelib.domain.epoch import epoch_name
from chalicelib.domain.errors import AccessError, AlreadyExists, BadRequest, IdempotencyConflict, NotFound
from chalicelib.domain.identifiers import AskId, SessionId, new_ask_id, new_session_id
from chalicelib.domain.policy import Allow, Deny, NeedsApproval
from chalicelib.domain.session import AccessRequest, Session, SessionStatus
from chalicelib.domain.store import Asks, Once, Revocations, Sessions
from chalicelib.domain.target import Protocol, Target
from chalicelib.domain.verifier import new_session_secret, verifier_of
from chalicelib.services.access import (
    SESSION_OPEN,
    chain_lines,
    excluded_people,
    needs_of,
    request_commitment,
    session_policy,
    stand_in,
    trigger_known,
)
from chalicelib.services.card import fits_card
from chalicelib.services.grant import new_grant, require_served
from chalicelib.services.identify import Caller
from chalicelib.services.settle import Settle, Take
from chalicelib.services.standing import Granted, Pending, Standing, no_access

DEFAULT_DURATION_S: Final = 900  # a deployment step; who needs longer says so, and the approver sees it
MIN_DURATION_S: Final = 60  # less is over before a person has read the card
MAX_DURATION_S: Final = 43_200  # what targets.yaml allows at most; a target's own cap is never told to a stranger
MAX_REASON: Final = 500  # a field on a card: what does not fit there is not a reason but a document
ASK_LIFETIME: Final = timedelta(
    minutes=15
)  # a person who is there answers in minutes; a card must not lie about all day
_TARGET: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_PRINCIPAL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$.@-]{0,62}\Z")
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """A request under a bundle: ``asked`` as it came, ``request`` with what was left open filled in."""

    bundle: Bundle
    target: Target
    known: bool
    asked: AccessRequest
    request: AccessRequest
    session_id: SessionId
    ask_id: AskId


class RequestSession:
    """Opens a session for a caller, or asks people, or refuses."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        sessions: Sessions,
        asks: Asks,
        once: Once,
        revocations: Revocations,
        settle: Settle,
        served: frozenset[Protocol],
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._sessions = sessions
        self._asks = asks
        self._once = once
        self._revocations = revocations
        self._settle = settle
        self._served = served
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, asked: AccessRequest, idempotency_key: str | None = None) -> Standing:
        """Return the caller's session, granted with its secret or pending.

        Raises BadRequest, PolicyDenied, IdempotencyConflict, TargetUnavailable, StoreUnavailable,
        ConfigurationInvalid. Idempotent under ``idempotency_key`` (1 to 128 visible ASCII characters).
        """
        check_request(asked)
        if idempotency_key is not None and not _IDEMPOTENCY_KEY.match(idempotency_key):
            raise BadRequest("Idempotency-Key is 1 to 128 visible ASCII characters")
        now = self._clock.now()
        wanted = self._wanted(asked, now)
        try:
            outcome = self._decide(caller, wanted, now)
        except AccessError as error:
            self._record(AuditName.SESSION_REFUSED, caller, wanted, rules=_rules(error), code=error.code)
            raise
        if idempotency_key is not None:
            wanted = self._claimed(caller, wanted, idempotency_key, now)
            # No session: the first call died before it made one, and this one makes it, under the ids that it chose.
            with suppress(NotFound):
                return self._settle(caller, self._sessions.get(wanted.session_id), Take.AGAIN)
        if isinstance(outcome, Allow):
            return self._open(caller, wanted, outcome, now)
        return self._ask(caller, wanted, outcome, now)

    def _wanted(self, asked: AccessRequest, now: datetime) -> _Wanted:
        bundle = self._bundles.for_new_sessions()
        found = bundle.targets.get(asked.target)
        target = found if found is not None else stand_in(asked.target)
        principal = asked.principal or target.default_principal
        return _Wanted(
            bundle=bundle,
            target=target,
            known=found is not None and found.principal(principal) is not None,
            asked=asked,
            request=replace(asked, principal=principal, duration_s=min(asked.duration_s, target.max_session_s)),
            session_id=new_session_id(now),
            ask_id=new_ask_id(now),
        )

    def _decide(self, caller: Caller, wanted: _Wanted, now: datetime) -> Allow | NeedsApproval:
        revoked = self._revocations.any_of(frozenset({f"target:{wanted.target.name}"}))
        decided = session_policy(
            bundle=wanted.bundle,
            chain=caller.chain,
            target=wanted.target,
            principal=wanted.request.principal,
            duration_s=wanted.request.duration_s,
            now=now,
        )
        outcome = decided(frozenset())
        in_scope = caller.may_open(wanted.target.name, wanted.request.principal)
        if isinstance(outcome, Deny) or revoked is not None or not wanted.known or not in_scope:
            raise no_access(rules=outcome.rules, known=wanted.known, in_scope=in_scope)
        if isinstance(outcome, Allow):
            require_served(wanted.target, outcome, self._served)
        elif not fits_card(self._question(caller, wanted, outcome)):
            raise BadRequest("the request is too long to show to an approver: shorten the reason")
        return outcome

    def _claimed(self, caller: Caller, wanted: _Wanted, key: str, now: datetime) -> _Wanted:
        """Return ``wanted`` under the ids of the first request with this key. Raises IdempotencyConflict.

        The key is the caller's own: its hop is in it, so that two runs that use the same word do not meet.
        """
        said = digest({"request": request_commitment(wanted.asked)})
        ours = canonical({"said": said, "session": wanted.session_id, "ask": wanted.ask_id}).decode()
        value = sha256_hex(f"{caller.chain.leaf.id}#{caller.actor.key}#{key}".encode())
        held = self._once.claim("idem", value, ours, expires_at=caller.chain.leaf.expires_at, now=now)
        if held is None:
            return wanted
        first = json.loads(held)
        if first["said"] != said:
            raise IdempotencyConflict("this Idempotency-Key was used with a different request")
        return replace(wanted, session_id=SessionId(first["session"]), ask_id=AskId(first["ask"]))

    def _open(self, caller: Caller, wanted: _Wanted, permitted: Allow, now: datetime) -> Granted:
        grant = new_grant(
            session_id=wanted.session_id,
            bundle=wanted.bundle,
            chain=caller.chain,
            target=wanted.target,
            principal=wanted.request.principal,
            duration_s=wanted.request.duration_s,
            permitted=permitted,
            met=(),
            now=now,
        )
        secret = new_session_secret()
        session = replace(
            _session(caller, wanted, now), status=SessionStatus.GRANTED, grant=grant, verifier=verifier_of(secret)
        )
        try:
            self._sessions.create(session)
        except AlreadyExists:
            standing = self._settle(caller, self._sessions.get(session.id), Take.AGAIN)
            if isinstance(standing, Granted):
                return standing
            raise
        self._record(AuditName.SESSION_GRANTED, caller, wanted, rules=grant.rules)
        return Granted(session=session, grant=grant, target=wanted.target, secret=secret)

    def _ask(self, caller: Caller, wanted: _Wanted, outcome: NeedsApproval, now: datetime) -> Standing:
        question = self._question(caller, wanted, outcome)
        ask = Ask(
            id=wanted.ask_id,
            question=question,
            digest=question.digest(),
            excluded=excluded_people(wanted.bundle, caller.chain),
            created_at=now,
            expires_at=min(now + ASK_LIFETIME, caller.chain.leaf.expires_at),
        )
        try:
            self._asks.put(ask)
        except AlreadyExists:
            ask = self._asks.get(ask.id)
        session = replace(_session(caller, wanted, now), ask_id=ask.id)
        try:
            self._sessions.create(session)
        except AlreadyExists:
            return self._settle(caller, self._sessions.get(session.id), Take.AGAIN)
        self._record(AuditName.SESSION_REQUESTED, caller, wanted, rules=question.rules, ask_id=ask.id)
        missing = tuple((need, need.approval.count) for need in ask.question.needs)
        return Pending(session=session, ask=ask, missing=missing)

    def _question(self, caller: Caller, wanted: _Wanted, outcome: NeedsApproval) -> Question:
        request, target, known = wanted.request, wanted.target, trigger_known(wanted.bundle, caller.chain)
        return Question(
            stage=Stage.REQUEST,
            session_id=wanted.session_id,
            connection_id="",
            operation_id="",
            txn=caller.chain.txn,
            chain=chain_lines(wanted.bundle, caller.chain),
            leaf_hop_sha256=caller.chain.leaf.sha256(),
            target=target.name,
            principal=request.principal,
            action=SESSION_OPEN,
            text=f"open a {target.protocol.value} session to {target.name} as {request.principal}",
            binds=(),
            literals=(),
            state=(("environment", target.environment), ("database", target.database)),
            commitment=request_commitment(request),
            reason=request.reason,
            duration_s=request.duration_s,
            rules=outcome.rules,
            needs=needs_of(outcome.needs, trigger_known=known),
            trigger_known=known,
            configuration_serial=wanted.bundle.serial,
            policy_digest=wanted.bundle.policy.digest,
        )

    def _record(
        self,
        name: AuditName,
        caller: Caller,
        wanted: _Wanted,
        *,
        rules: tuple[str, ...],
        ask_id: str = "",
        code: str = "",
    ) -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                code=code,
                txn=caller.chain.txn,
                session_id="" if code else wanted.session_id,
                ask_id=ask_id,
                actor=caller.actor.key,
                target=wanted.asked.target,
                acting=Acting.of(caller.chain),
                principal=wanted.request.principal,
                protocol=wanted.target.protocol.value if wanted.known else "",
                verdict=_VERDICTS.get(name, ""),
                rules=rules,
                policy_digest=wanted.bundle.policy.digest,
                configuration_serial=wanted.bundle.serial,
            )
        )


_VERDICTS: Final = {
    AuditName.SESSION_GRANTED: "forward",
    AuditName.SESSION_REQUESTED: "hold",
    AuditName.SESSION_REFUSED: "block",
}


def _rules(error: AccessError) -> tuple[str, ...]:
    found = error.detail.get("rules", ())
    return tuple(str(rule) for rule in found) if isinstance(found, list | tuple) else ()


def check_request(request: AccessRequest) -> None:
    """Raise BadRequest naming the field whose value cannot be one. Pure."""
    if not _TARGET.match(request.target):
        raise BadRequest("target is 1 to 63 characters of a-z, 0-9, _ and -, and begins with a letter or digit")
    if request.principal and not _PRINCIPAL.match(request.principal):
        raise BadRequest("principal is a login name of 1 to 63 characters")
    if not 1 <= len(request.reason) <= MAX_REASON or not request.reason.strip():
        raise BadRequest(f"reason is 1 to {MAX_REASON} characters that say why")
    if any(unicodedata.category(char)[0] == "C" for char in request.reason):
        raise BadRequest("reason holds a control character")
    if not MIN_DURATION_S <= request.duration_s <= MAX_DURATION_S:
        raise BadRequest(f"duration_s is a whole number from {MIN_DURATION_S} to {MAX_DURATION_S}")


def _session(caller: Caller, wanted: _Wanted, now: datetime) -> Session:
    return Session(
        id=wanted.session_id,
        txn=caller.chain.txn,
        status=SessionStatus.PENDING,
        request=wanted.request,
        actor=caller.actor,
        originator=caller.chain.originator,
        leaf_hop=caller.chain.leaf.id,
        token_id=caller.token_id,
        created_at=now,
        ask_id=None,
        grant=None,
        verifier=None,
        closed_at=None,
        close_reason="",
        epoch=epoch_name(wanted.bundle.epoch_at),
    )
