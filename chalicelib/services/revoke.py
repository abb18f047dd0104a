"""Revoke: what has one of a revocation's keys in its liveness set is dead, at every plane, within seconds.

Rules: a caller may always end what is its own: its hop, a hop below it, a session opened at or below it, and, from the
root, its whole chain. Everything else needs a rule that permits ``chain:revoke``. Whoever is not allowed gets one
answer, the same as for what is not there: which sessions and hops exist is nobody's business. The audit says who tried.

What it does not do: find what lives under the key. Revocation is evaluated, not propagated: brokers read the feed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, assert_never

from chalicelib.config.bundle import Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.chain import Hop
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, BadRequest, NotFound
from chalicelib.domain.identifiers import SESSION_ID, TXN, HopId, SessionId, Txn
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.store import Chains, Revocations, Sessions
from chalicelib.services.access import CHAIN_REVOKE
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits

MAX_ID: Final = 1024  # an identity is an issuer's address and a subject, of which OpenID Connect allows 255 characters
MAX_WHY: Final = 200  # a sentence on a line of the record
_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"


class Revocable(StrEnum):
    """What may be revoked: the kinds of key that a liveness set has."""

    HOP = "hop"
    SESSION = "session"
    TXN = "txn"
    GRANT = "grant"
    IDENTITY = "identity"
    ISSUER = "issuer"
    TARGET = "target"
    TOKEN = "token"


# Words that another version gives an id would be a key that nothing has: a revocation that ends nothing, unseen.
_FORMS: Final[Mapping[Revocable, re.Pattern[str]]] = {
    Revocable.HOP: re.compile(rf"hop_{_ULID}\Z"),
    Revocable.SESSION: SESSION_ID,
    Revocable.TXN: TXN,
    Revocable.GRANT: re.compile(rf"grt_{_ULID}\Z"),
    Revocable.IDENTITY: re.compile(r"https?://[\x21-\x22\x24-\x7e]+#[^\x00-\x1f\x7f]+\Z"),
    Revocable.ISSUER: re.compile(r"https?://[\x21-\x7e]+\Z"),
    Revocable.TARGET: re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z"),
    Revocable.TOKEN: re.compile(rf"tok_{_ULID}\Z"),  # its id: a token that was pasted here must not be kept anywhere
}


class Revoke:
    """Revokes for a caller. Idempotent: what is revoked already is answered as it was."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        chains: Chains,
        sessions: Sessions,
        revocations: Revocations,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._chains = chains
        self._sessions = sessions
        self._revocations = revocations
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, kind: str, id_: str, why: str) -> Revocation:
        """Return the revocation of ``kind:id``.

        Raises BadRequest, StoreUnavailable, ConfigurationInvalid, and NotFound for what is not there and for what the
        caller may not revoke.
        """
        what, key = _key(kind, id_)
        _check_why(why)
        try:
            if not self._is_own(caller, what, id_):
                self._require_permitted(caller, what, key)
        except AccessError as error:
            self._record(AuditName.REVOCATION_REFUSED, caller, key, why, code=error.code)
            raise
        revocation = self._revocations.revoke(key, by=caller.actor.key, why=why, at=self._clock.now())
        self._record(AuditName.CHAIN_REVOKED, caller, key, why)
        return revocation

    def _is_own(self, caller: Caller, what: Revocable, id_: str) -> bool:
        leaf = caller.chain.leaf
        match what:
            case Revocable.HOP:
                return _at_or_below(self._chains.hops(caller.chain.txn), HopId(id_), leaf.id)
            case Revocable.SESSION:
                try:
                    session = self._sessions.get(SessionId(id_))
                except NotFound:
                    return False
                return _at_or_below(self._chains.hops(caller.chain.txn), session.leaf_hop, leaf.id)
            case Revocable.TXN:
                return id_ == caller.chain.txn and leaf.depth == 0
            case Revocable.GRANT | Revocable.IDENTITY | Revocable.ISSUER | Revocable.TARGET | Revocable.TOKEN:
                return False
            case _:
                assert_never(what)

    def _require_permitted(self, caller: Caller, what: Revocable, key: str) -> None:
        bundle = self._bundles.current()
        if permits(bundle, caller, CHAIN_REVOKE, what.value, self._clock.now()) is None:
            raise _nothing(key)
        match what:
            case Revocable.SESSION:
                self._sessions.get(SessionId(key.removeprefix("session:")))
            case Revocable.TXN:
                if not self._chains.hops(Txn(key.removeprefix("txn:"))):
                    raise _nothing(key)
            case Revocable.TARGET:
                if key.removeprefix("target:") not in bundle.targets:
                    raise _nothing(key)
            case Revocable.HOP | Revocable.GRANT | Revocable.IDENTITY | Revocable.ISSUER | Revocable.TOKEN:
                pass  # no table has them by key alone, and who has left is revoked before anybody sees them again
            case _:
                assert_never(what)

    def _record(self, name: AuditName, caller: Caller, key: str, why: str, *, code: str = "") -> None:
        kind, _, id_ = key.partition(":")
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                subject=key,
                code=code,
                txn=caller.chain.txn,
                session_id=id_ if kind == Revocable.SESSION else "",
                target=id_ if kind == Revocable.TARGET else "",
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                why=why,
            )
        )


def _key(kind: str, id_: str) -> tuple[Revocable, str]:
    try:
        what = Revocable(kind)
    except ValueError:
        raise BadRequest(f"kind is one of {', '.join(Revocable)}") from None
    # No identity that a verifier lets in holds what hides or is not drawn, and a refused id goes into the record too.
    if len(id_) > MAX_ID or not _FORMS[what].match(id_) or not id_.isprintable():
        raise BadRequest(f"id is no {what.value}'s")
    return what, f"{what.value}:{id_}"


def _check_why(why: str) -> None:
    if not 1 <= len(why) <= MAX_WHY or not why.strip():
        raise BadRequest(f"why is 1 to {MAX_WHY} characters")
    if not why.isprintable():  # nor a line of its own in the record: U+2028 is no control character
        raise BadRequest("why holds a character that is not drawn")


def _at_or_below(hops: Mapping[HopId, Hop], hop_id: HopId, ancestor: HopId) -> bool:
    """Return whether ``ancestor`` is on the way from the hop to its root. Bounded by the number of hops.

    The rows are taken as they are: a hop that somebody changed in the table must not keep its parent from ending it.
    """
    here: HopId | None = hop_id
    for _ in range(len(hops)):
        if here is None or here not in hops:
            return False
        if here == ancestor:
            return True
        here = hops[here].parent
    return False


def _nothing(key: str) -> NotFound:
    # One text for both, because an answer that differs would tell a stranger what there is.
    return NotFound("there is nothing of that name that you may revoke", hint="Check the id.", key=key)
