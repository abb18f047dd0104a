"""A parent lets a child in below itself, by a ticket that names who may redeem it. Runs in the ``sign`` function.

Rules: a parent hands down no more than its token and its hop have, for no longer and no deeper, by ``narrow``; policy
must permit the action ``chain:delegate``, and no approval can be met here; a ticket for an issuer names every claim of
which that issuer's declaration makes the subject, since fewer might be somebody else's too. What a child may do is not
decided here: its scope limits it, and policy is asked again about each session and operation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import NOBODY, Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.delegation import ByIssuer, ByKey, Redeemer, Ticket
from chalicelib.domain.errors import AccessError, BadRequest, KeyProofInvalid, NotPermitted
from chalicelib.domain.identifiers import new_ticket_id
from chalicelib.domain.scope import MAX_DEPTH, Authority, Wanted, narrow, parse_scope
from chalicelib.domain.secret import Secret
from chalicelib.domain.store import Signer
from chalicelib.identity.issuers import MAX_VALUE
from chalicelib.identity.jws import sign_ticket
from chalicelib.services.access import CHAIN_DELEGATE
from chalicelib.services.identify import Caller, Identify, Presented
from chalicelib.services.permitted import permits
from chalicelib.services.tickets import Tickets

MIN_HOP_S: Final = 60  # less is over before the child has asked for a session
MAX_HOP_S: Final = 28_800  # a run's own 8 hours
MIN_TICKET_S: Final = 10  # a child that is started for it redeems it in less
MAX_TICKET_S: Final = 900  # a container that has to be pulled first; a ticket is no way to keep authority for later
TICKET_S: Final = 60
DELEGATIONS_PATH: Final = "/v1/delegations"
MAX_SCOPE: Final = 1_024  # characters: the child's token carries it, and KMS signs 4,096 bytes
MAX_CLAIMS: Final = 16  # the declarations that we ship have 2 to 4 in a subject
_BEGIN_WITH_A_KEY: Final = (
    "Begin the run with a key: exchange its first token with a DPoP proof, as `countersign` does."
)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_CLAIM: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")
_MEMBERS: Final = frozenset({"redeemer", "name", "scope", "duration_s", "max_depth", "ticket_ttl_s"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DelegationRequest:
    """What a parent asks for. None: as much as it has."""

    redeemer: Redeemer
    name: str
    scope: tuple[str, ...] | None
    duration_s: int | None
    max_depth: int | None
    ticket_ttl_s: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegated:
    """A ticket, and the text to hand over, which is kept nowhere. ``depth`` is that of the child's hop."""

    text: Secret
    ticket: Ticket
    depth: int

    def told(self) -> Mapping[str, Json]:
        """Return the body of the answer. It holds the text."""
        ticket = self.ticket
        return {
            "ticket": self.text.expose(),
            "ticket_id": ticket.id,
            "txn": ticket.txn,
            "parent": ticket.parent,
            "name": ticket.name,
            "scope": " ".join(ticket.scope),
            "depth": self.depth,
            "max_depth": ticket.max_depth,
            "expires_at": timestamp(ticket.expires_at),
            "hop_expires_at": timestamp(ticket.hop_expires_at),
        }


class Delegate:
    """Issues tickets; ``signer`` is the token key's."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        identify: Identify,
        tickets: Tickets,
        signer: Signer,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._identify = identify
        self._tickets = tickets
        self._signer = signer
        self._clock = clock
        self._audit = audit

    def __call__(self, presented: Presented, body: Mapping[str, Json]) -> Delegated:
        """Return a ticket for the child that ``body`` describes, under the hop of whoever ``presented`` shows.

        Raises BadRequest, what ``Identify`` raises, NotPermitted, OutOfScope, ConfigurationInvalid, StoreUnavailable.
        Not idempotent: each call is another ticket. Audits either way.
        """
        caller = None
        try:
            presented.require_for("POST", DELEGATIONS_PATH)
            caller = self._identify(presented)
            return self._delegate(caller, request_of(body))
        except AccessError as error:
            self._refused(caller, error)
            raise

    def _delegate(self, caller: Caller, asked: DelegationRequest) -> Delegated:
        if not caller.key_thumbprint:
            # Five minutes of a stolen token would become hours of a child whose key the thief chose.
            raise KeyProofInvalid("a token that is bound to no key lets nobody in", hint=_BEGIN_WITH_A_KEY)
        now = self._clock.now()
        bundle = self._bundles.for_new_sessions()
        _check_redeemer(bundle, asked.redeemer)
        authority = _authority(caller, asked, now)
        what = "key" if isinstance(asked.redeemer, ByKey) else "issuer"
        permitted = permits(bundle, caller, CHAIN_DELEGATE, what, now)
        if permitted is None:
            raise NotPermitted("no rule permits you to let a child in")
        parent = caller.chain.leaf
        ticket = sign_ticket(
            self._signer,
            Ticket(
                id=new_ticket_id(now),
                txn=parent.txn,
                parent=parent.id,
                parent_sha256=parent.sha256(),
                redeemer=asked.redeemer,
                name=asked.name,
                scope=authority.scope,
                max_depth=authority.max_depth,
                hop_expires_at=authority.expires_at,
                rules=permitted.rules,
                issued_at=now,
                expires_at=min(now + timedelta(seconds=asked.ticket_ttl_s), authority.expires_at),
            ),
        )
        text = self._tickets.put(ticket, now)
        self._audit.record(
            AuditEvent(
                name=AuditName.TICKET_ISSUED,
                at=now,
                subject=ticket.id,
                txn=ticket.txn,
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                rules=ticket.rules,
                why=f"{ticket.name} under {ticket.parent}; rules: {' '.join(ticket.rules)}",
            )
        )
        return Delegated(text=Secret(text), ticket=ticket, depth=authority.depth)

    def _refused(self, caller: Caller | None, error: AccessError) -> None:
        self._audit.record(
            AuditEvent(
                name=AuditName.TICKET_REFUSED,
                at=self._clock.now(),
                code=error.code,
                txn=caller.chain.txn if caller is not None else "",
                actor=caller.actor.key if caller is not None else "",
                acting=Acting.of(caller.chain) if caller is not None else NOBODY,
                why="asked for",
            )
        )


def request_of(body: Mapping[str, Json]) -> DelegationRequest:
    """Return what the body asks for. Raises BadRequest naming the member that cannot be one. Pure."""
    unknown = set(body) - _MEMBERS
    if unknown:
        raise BadRequest("the body has members that are not known here")
    name, scope = body.get("name"), body.get("scope")
    if not isinstance(name, str) or not _NAME.match(name):
        raise BadRequest("name is 1 to 63 characters of a-z, 0-9, ., _ and -, and begins with a letter or digit")
    if scope is not None and (not isinstance(scope, str) or len(scope) > MAX_SCOPE):
        raise BadRequest(f"scope is text of at most {MAX_SCOPE} characters")
    return DelegationRequest(
        redeemer=_redeemer(body.get("redeemer")),
        name=name,
        scope=parse_scope(scope) if scope is not None else None,
        duration_s=_number(body, "duration_s", MIN_HOP_S, MAX_HOP_S),
        max_depth=_number(body, "max_depth", 0, MAX_DEPTH),
        ticket_ttl_s=_number(body, "ticket_ttl_s", MIN_TICKET_S, MAX_TICKET_S) or TICKET_S,
    )


def _redeemer(value: Json) -> Redeemer:
    match value:
        case {"key": str(key), **rest} if not rest and _THUMBPRINT.match(key):
            return ByKey(thumbprint=key)
        case {"issuer": str(issuer), "claims": Mapping() as claims, **rest} if not rest:
            return ByIssuer(issuer=issuer, claims=_claims(claims))
        case _:
            raise BadRequest("redeemer is a key (its RFC 7638 thumbprint), or an issuer and claims")


def _claims(claims: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    if not 1 <= len(claims) <= MAX_CLAIMS or not all(_CLAIM.match(name) for name in claims):
        raise BadRequest(f"redeemer.claims is 1 to {MAX_CLAIMS} names of claims and their values")
    found = []
    for name, value in sorted(claims.items()):
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_VALUE or not value.isprintable():
            raise BadRequest(f"redeemer.claims.{name} is text of 1 to {MAX_VALUE} characters")
        found.append((name, value))
    return tuple(found)


def _number(body: Mapping[str, Json], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"{name} is a whole number from {least} to {most}")
    return value


def _check_redeemer(bundle: Bundle, redeemer: Redeemer) -> None:
    """Raise BadRequest where a ticket would name nobody, or more than one."""
    if isinstance(redeemer, ByKey):
        return
    declared = next((issuer for issuer in bundle.issuers if issuer.url == redeemer.issuer), None)
    if declared is None:
        raise BadRequest("redeemer.issuer is not an issuer that is known here")
    missing = sorted(set(declared.subject) - {name for name, _ in redeemer.claims})
    if missing:
        raise BadRequest(f"redeemer.claims must name {', '.join(missing)}: together they are who redeems")


def _authority(caller: Caller, asked: DelegationRequest, now: datetime) -> Authority:
    """Return what the child gets, under what the parent's token and hop have. Raises OutOfScope."""
    parent = replace(caller.chain.leaf.authority, scope=caller.scope)
    expires_at = now + timedelta(seconds=asked.duration_s) if asked.duration_s is not None else None
    return narrow(parent, Wanted(scope=asked.scope, expires_at=expires_at, max_depth=asked.max_depth))
