"""Legal holds: put one, lift one, list them. They are facts in the locked bucket; ``retain`` carries them out.

Rules: a rule must permit ``evidence:hold`` or ``evidence:lift`` (``context.what``: session, chain or target), which no
group of actions contains. Whoever acted in a session or chain, or is behind its run, does not lift a hold on it: the
evidence is of them. What is not allowed is audited as what is. Nothing here touches an object that is held: this
function's role could not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import (
    AccessError,
    AlreadyExists,
    BadRequest,
    Limited,
    NotFound,
    NotPermitted,
    ProofInvalid,
)
from chalicelib.domain.identifiers import LEGAL_HOLD_ID, LegalHoldId, SessionId, Txn, new_legal_hold_id
from chalicelib.domain.legal_hold import (
    HOLDS,
    MAX_REASON,
    HeldKind,
    LegalHold,
    Lift,
    first_day,
    hold_key,
    kind_of,
    lift_key,
    read_stored,
)
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.store import Chains, Objects, Sessions
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits

HOLD: Final = "evidence:hold"
LIFT: Final = "evidence:lift"
MAX_HOLDS: Final = 1000  # that are active at once; more of them are one hold on their target
_MOST_READ: Final = 20_000  # holds and lifts of all years: each is read by every run and review
_JSON: Final = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Holds:
    """All holds, oldest first. ``unreadable`` are keys under ``holds/v1`` at which something else stands."""

    all: tuple[LegalHold, ...]
    lifts: Mapping[LegalHoldId, Lift]
    unreadable: tuple[str, ...]

    @property
    def active(self) -> tuple[LegalHold, ...]:
        return tuple(hold for hold in self.all if hold.id not in self.lifts)


def read_holds(objects: ReadObjects) -> Holds:
    """Return every hold of a bucket or a copy. Raises StoreUnavailable, and Limited past ``_MOST_READ``."""
    found: dict[LegalHoldId, LegalHold] = {}
    lifts: dict[LegalHoldId, Lift] = {}
    unreadable: list[str] = []
    keys = objects.keys(f"{HOLDS}/")
    if len(keys) > _MOST_READ:
        raise Limited(f"there are more than {_MOST_READ} holds and lifts")
    for key in keys:
        try:
            fact = read_stored(objects.get(key))
        except (ProofInvalid, NotFound):
            unreadable.append(key)
            continue
        if key != (hold_key(fact) if isinstance(fact, LegalHold) else lift_key(fact)):
            unreadable.append(key)  # a copy under another name: it must not come back after a lift, nor be one
        elif isinstance(fact, LegalHold):
            found[fact.id] = fact
        else:
            lifts[fact.id] = fact
    return Holds(all=tuple(found[one] for one in sorted(found)), lifts=lifts, unreadable=tuple(unreadable))


class LegalHolds:
    """What the ``hold`` function does. Not idempotent: put twice is two holds, and each is lifted by itself."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        chains: Chains,
        sessions: Sessions,
        objects: Objects,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._chains = chains
        self._sessions = sessions
        self._objects = objects
        self._clock = clock
        self._audit = audit

    def place(self, caller: Caller, subject: str, reason: str, since: date | None) -> LegalHold:
        """Put a hold and return it. Raises BadRequest, NotPermitted, NotFound, Limited, StoreUnavailable,
        ConfigurationInvalid."""
        kind = kind_of(subject)
        day = first_day(kind, subject, since)
        _check_reason(reason)
        try:
            bundle = self._require(caller, HOLD, kind)
            self._require_there(bundle, kind, subject)
            if len(read_holds(self._objects).active) >= MAX_HOLDS:
                raise Limited(f"there are {MAX_HOLDS} holds already", hint="Lift what is over, or hold a target.")
            hold = LegalHold(
                id=new_legal_hold_id(self._clock.now()),
                kind=kind,
                subject=subject,
                since=day,
                reason=reason,
                by=caller.actor.key,
                hop=caller.chain.leaf.id,
                at=self._clock.now(),
            )
            self._objects.put_new(hold_key(hold), hold.stored(), content_type=_JSON)
        except AccessError as error:
            self._record(AuditName.HOLD_REFUSED, caller, kind, subject, reason, code=error.code)
            raise
        self._record(AuditName.EVIDENCE_HELD, caller, kind, subject, reason, hold=hold.id)
        return hold

    def lift(self, caller: Caller, hold_id: str, reason: str) -> Lift:
        """Lift a hold. Raises as ``place``; Conflict kinds: AlreadyExists where it was lifted already."""
        if not LEGAL_HOLD_ID.match(hold_id):
            raise BadRequest("this is no hold's id")
        _check_reason(reason)
        holds = read_holds(self._objects)
        hold = next((one for one in holds.all if one.id == hold_id), None)
        kind = hold.kind if hold is not None else HeldKind.TARGET
        subject = hold.subject if hold is not None else ""
        try:
            # Before it is said that there is none: who may not lift does not learn which there are.
            bundle = self._require(caller, LIFT, kind)
            if hold is None:
                raise NotFound("there is no such hold", key=hold_id)
            if hold.id in holds.lifts:
                raise AlreadyExists("this hold is lifted already", key=hold_id)
            self._require_outside(bundle, caller, hold)
            now = self._clock.now()
            lift = Lift(id=hold.id, reason=reason, by=caller.actor.key, hop=caller.chain.leaf.id, at=now)
            self._objects.put_new(lift_key(lift), lift.stored(), content_type=_JSON)
        except AccessError as error:
            self._record(AuditName.HOLD_REFUSED, caller, kind, subject, reason, hold=hold_id, code=error.code)
            raise
        self._record(AuditName.EVIDENCE_LIFTED, caller, kind, subject, reason, hold=hold.id)
        return lift

    def listed(self, caller: Caller) -> Holds:
        """Return all holds, for whom a rule permits to put one on a target. Raises NotPermitted, StoreUnavailable."""
        self._require(caller, HOLD, HeldKind.TARGET)
        return read_holds(self._objects)

    def _require(self, caller: Caller, action: str, kind: HeldKind) -> Bundle:
        bundle = self._bundles.current()
        if permits(bundle, caller, action, kind.value, self._clock.now()) is None:
            raise NotPermitted(f"no rule permits this caller {action} on a {kind.value}")
        return bundle

    def _require_there(self, bundle: Bundle, kind: HeldKind, subject: str) -> None:
        match kind:
            case HeldKind.SESSION:
                self._sessions.get(SessionId(subject))
            case HeldKind.CHAIN:
                if not self._chains.hops(Txn(subject)):
                    raise NotFound("there is no such chain", key=subject)
            case HeldKind.TARGET:
                if subject not in bundle.targets:
                    raise NotFound("there is no such target", hint="Of one that is gone, hold its sessions or chains.")

    def _require_outside(self, bundle: Bundle, caller: Caller, hold: LegalHold) -> None:
        if hold.kind is HeldKind.TARGET:
            return
        txn = Txn(hold.subject) if hold.kind is HeldKind.CHAIN else self._sessions.get(SessionId(hold.subject)).txn
        hops = self._chains.hops(txn).values()
        involved = {hop.actor.key for hop in hops} | {alias for hop in hops for alias in hop.accountable}
        own = {caller.actor.key, *caller.chain.involved}
        theirs, mine = ({person.id for person in bundle.people_behind(tuple(sorted(keys)))} for keys in (involved, own))
        if involved & own or theirs & mine:
            raise NotPermitted(
                "who has a part in what is held does not lift the hold", hint="Ask somebody who has none."
            )

    def _record(
        self,
        name: AuditName,
        caller: Caller,
        kind: HeldKind,
        subject: str,
        reason: str,
        *,
        hold: str = "",
        code: str = "",
    ) -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                subject=hold or f"{kind.value}:{subject}",
                code=code,
                txn=subject if kind is HeldKind.CHAIN else "",
                session_id=subject if kind is HeldKind.SESSION else "",
                target=subject if kind is HeldKind.TARGET else "",
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                why=reason,
            )
        )


def _check_reason(reason: str) -> None:
    if not 1 <= len(reason.strip()) <= len(reason) <= MAX_REASON or not reason.isprintable():
        raise BadRequest(f"reason is one line of at most {MAX_REASON} characters")
