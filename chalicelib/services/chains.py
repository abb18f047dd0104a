"""Look at a chain, and review it: who acted, by whose word, and what is dead.

Rules: an actor of the chain may look at it; anybody else, and everybody for a review, needs a rule that permits
``chain:review``. What is not allowed and what is not there are one answer. A look shows the hops as they are stored,
with what their signatures cover, and vouches for none: who asks can verify them without us. Looks by somebody outside
the chain, and reviews, are audited: somebody reads what others did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.chain import Hop
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import Limited, NotFound
from chalicelib.domain.identifiers import SESSION_ID, TXN, HopId, Txn
from chalicelib.domain.store import Chains, Revocations
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits

REVIEW: Final = "chain:review"
MAX_HOPS: Final = 1000  # each is 2 KB of answer, and a chain has one for every connection; a review shows any number
MAX_REVIEW: Final = 5_000_000  # bytes; Lambda answers at most 6 MB (6,291,556 bytes), headers and escapes included


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenHop:
    """A stored hop. ``revoked``: a revocation ends what runs under it."""

    hop: Hop
    revoked: bool


class ReadChain:
    """Reads one chain for a caller. Writes nothing but the audit."""

    def __init__(
        self, *, bundles: Bundles, chains: Chains, revocations: Revocations, clock: Clock, audit: AuditLog
    ) -> None:
        self._bundles = bundles
        self._chains = chains
        self._revocations = revocations
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, txn: str) -> tuple[SeenHop, ...]:
        """Return the chain's hops, by depth and then by id; never empty.

        Raises NotFound for what is not there and what the caller may not see, Limited past ``MAX_HOPS``,
        StoreUnavailable, ConfigurationInvalid.
        """
        if txn != caller.chain.txn:
            _require_review(self._bundles.current(), self._audit, caller, txn, "chain", self._clock)
        hops = self._chains.hops(Txn(txn)) if TXN.match(txn) else {}
        if not hops:
            raise _nothing(txn)
        if len(hops) > MAX_HOPS:
            raise Limited(
                f"the chain has more than {MAX_HOPS} hops",
                hint=f"Read it with the rights of an auditor: countersign review {txn}",
                txn=txn,
            )
        revoked = self._revoked(hops)
        if txn != caller.chain.txn:
            _record(self._audit, caller, txn, self._clock)
        ordered = sorted(hops.values(), key=lambda hop: (hop.depth, hop.id))
        return tuple(SeenHop(hop=hop, revoked=_ends(hop, hops, revoked)) for hop in ordered)

    def _revoked(self, hops: Mapping[HopId, Hop]) -> frozenset[str]:
        """Return every key of these hops that is revoked: one read more than there are such keys."""
        left = {key for hop in hops.values() for key in _keys(hop)}
        found: set[str] = set()
        while left and (revocation := self._revocations.any_of(frozenset(left))) is not None:
            found.add(revocation.key)
            left.discard(revocation.key)
        return frozenset(found)


class ReviewChain:
    """Reviews a session or a chain for a caller: what ``countersign review`` shows, with the rights of an auditor.

    ``review`` returns the review as JSON, given the bundle for people's names; it raises NotFound.
    """

    def __init__(
        self, *, bundles: Bundles, review: Callable[[Bundle, str], Mapping[str, Json]], clock: Clock, audit: AuditLog
    ) -> None:
        self._bundles = bundles
        self._review = review
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, subject: str) -> Mapping[str, Json]:
        """Return the review of a session (``ses_...``) or a chain.

        Raises NotFound for what is not there and what the caller may not see, Limited past ``MAX_REVIEW`` bytes,
        StoreUnavailable, ConfigurationInvalid.
        """
        bundle = self._bundles.current()
        what = "session" if SESSION_ID.match(subject) else "chain"
        _require_review(bundle, self._audit, caller, subject, what, self._clock)
        if not (SESSION_ID.match(subject) or TXN.match(subject)):
            raise _nothing(subject)
        try:
            reviewed = self._review(bundle, subject)
        except NotFound:
            raise _nothing(subject) from None
        _record(self._audit, caller, subject, self._clock)
        if len(canonical(reviewed)) > MAX_REVIEW:
            raise Limited(
                f"the review is larger than {MAX_REVIEW // 1_000_000} MB",
                hint=f"Make it with the rights of an auditor: countersign review {subject} --json",
            )
        return reviewed


def _require_review(bundle: Bundle, audit: AuditLog, caller: Caller, subject: str, what: str, clock: Clock) -> None:
    if permits(bundle, caller, REVIEW, what, clock.now()) is None:
        _record(audit, caller, subject, clock, code=NotFound.code)
        raise _nothing(subject)


def _record(audit: AuditLog, caller: Caller, subject: str, clock: Clock, *, code: str = "") -> None:
    audit.record(
        AuditEvent(
            name=AuditName.CHAIN_REVIEWED,
            at=clock.now(),
            subject=subject if SESSION_ID.match(subject) or TXN.match(subject) else "",
            code=code,
            txn=subject if TXN.match(subject) else "",
            session_id=subject if SESSION_ID.match(subject) else "",
            actor=caller.actor.key,
            acting=Acting.of(caller.chain),
            why=f"by a caller of {caller.chain.txn}",
        )
    )


def _keys(hop: Hop) -> frozenset[str]:
    keys = {f"txn:{hop.txn}", f"hop:{hop.id}", f"identity:{hop.actor.key}", f"issuer:{hop.actor.issuer}"}
    return frozenset(keys | {f"target:{hop.target}"} if hop.target else keys)


def _ends(hop: Hop, hops: Mapping[HopId, Hop], revoked: frozenset[str]) -> bool:
    """Return whether a revoked key is on the way from ``hop`` to its root."""
    here: Hop | None = hop
    for _ in range(len(hops)):
        if here is None:
            return False
        if _keys(here) & revoked:
            return True
        here = hops.get(here.parent) if here.parent is not None else None
    return False


def _nothing(subject: str) -> NotFound:
    # One text for both, because an answer that differs would tell a stranger what there is.
    known = subject if TXN.match(subject) or SESSION_ID.match(subject) else "no id of ours"  # it goes into the log
    return NotFound("there is no such chain or session, or you may not see it", hint="Check the id.", key=known)
