"""An issuer's token becomes a token of ours, and the first hop of a chain. Runs in the ``sign`` function.

Rules: an issuer's token counts once. A run has one root: its first exchange makes ``txn`` and the signed origin hop; a
later one (with a new token of the same run) continues them and gets no more than they have, and is refused where it
names other people behind the run. No token of ours outlives its hop or the token that it came from. There is no client
authentication and no actor token here: delegation has tickets of its own.

Source: RFC 8693 sections 2.1, 2.2 and 3; RFC 8707 section 2. Deviation: RFC 6749 section 3.2 ignores parameters that
are not known; we refuse them, since what a caller believes it asked for and was not read is a mistake worth telling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import (
    AccessError,
    AlreadyExists,
    BadRequest,
    GrantExpired,
    GrantRevoked,
    InvalidTarget,
    OutOfScope,
    TokenExpired,
    TokenInvalid,
    TokenReplayed,
    Unauthenticated,
    UnsupportedGrantType,
)
from chalicelib.domain.identifiers import HopId, Txn, new_hop_id, new_txn, ulid
from chalicelib.domain.identity import VerifiedIdentity
from chalicelib.domain.secret import Secret
from chalicelib.domain.store import Chains, Once, Revocations, Signer
from chalicelib.identity.issuers import LEEWAY_S
from chalicelib.identity.jws import sign_hop
from chalicelib.identity.tokens import TokenIssuer
from chalicelib.services.evidence import Evidence

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"
_SUBJECT_TOKEN_TYPES: Final = frozenset(
    {"urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt"}
)
_REPEATABLE: Final = frozenset({"audience", "resource"})
_KNOWN: Final = _REPEATABLE | {
    "grant_type",
    "subject_token",
    "subject_token_type",
    "requested_token_type",
    "scope",
    "client_id",
}
_CLIENT_AUTHENTICATION: Final = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
_PARAMETER: Final = re.compile(r"[a-z_]{1,64}\Z")  # what is said back to the caller of what it sent
_ACTOR: Final = frozenset({"actor_token", "actor_token_type"})

TOKEN_LIFETIME_S: Final = 300  # long enough to ask for a session, short enough to steal in vain
RUN_LIFETIME: Final = timedelta(hours=8)  # a working day; GitHub's own limit for a hosted job is 6 hours
# A run's root is remembered for longer than any CI lets a run live (GitHub: 35 days), so that it never gets a second.
RUN_MEMORY: Final = timedelta(days=40)
_LEEWAY: Final = timedelta(seconds=LEEWAY_S)  # a token that the verifier still takes must still be remembered
_ANY_TARGET: Final = ("*",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchanged:
    """The answer of RFC 8693 section 2.2.1, with the chain's id."""

    access_token: Secret
    expires_in: int
    scope: str
    txn: Txn


class Exchange:
    """Exchanges an issuer's token. ``verify`` returns what it says by its declaration in the bundle; ``signer`` is the
    token key's; ``audiences`` are the names under which a caller may ask for a token for us."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        once: Once,
        chains: Chains,
        evidence: Evidence,
        revocations: Revocations,
        verify: Callable[[Bundle, str], VerifiedIdentity],
        signer: Signer,
        tokens: TokenIssuer,
        audiences: frozenset[str],
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._once = once
        self._chains = chains
        self._evidence = evidence
        self._revocations = revocations
        self._verify = verify
        self._signer = signer
        self._tokens = tokens
        self._audiences = audiences
        self._clock = clock
        self._audit = audit

    def __call__(self, form: Mapping[str, Sequence[str]]) -> Exchanged:
        """Return the token for a form of RFC 8693 parameters, each with its values.

        Raises BadRequest, UnsupportedGrantType, InvalidTarget, OutOfScope, Unauthenticated and its kinds,
        GrantExpired, GrantRevoked, ConfigurationInvalid, StoreUnavailable. Writes nothing where it raises, but for the
        claim of a token that was good.
        """
        try:
            return self._exchange(subject_token_of(form, self._audiences))
        except AccessError as error:
            self._audit.record(AuditEvent(name=AuditName.TOKEN_REFUSED, at=self._clock.now(), code=error.code))
            raise

    def _exchange(self, subject_token: str) -> Exchanged:
        now = self._clock.now()
        who = self._verify(self._bundles.for_new_sessions(), subject_token)
        self._require_alive(frozenset({f"identity:{who.identity.key}", f"issuer:{who.identity.issuer}"}))
        left = int((who.expires_at - now).total_seconds())
        if left <= 0:
            raise TokenExpired("the token has expired")
        self._claim_token(who, now)
        chain = self._root(who, now)
        self._require_alive(chain.liveness_keys())
        token = self._tokens.mint(chain, f"tok_{ulid(now)}", min(TOKEN_LIFETIME_S, left))
        self._audit.record(AuditEvent(name=AuditName.TOKEN_EXCHANGED, at=now, txn=chain.txn, actor=who.identity.key))
        expires_in = int((token.expires_at - now).total_seconds())
        return Exchanged(
            access_token=token.token, expires_in=expires_in, scope=" ".join(chain.leaf.scope), txn=chain.txn
        )

    def _claim_token(self, who: VerifiedIdentity, now: datetime) -> None:
        value = sha256_hex(canonical([who.identity.issuer, who.evidence.token_id]))
        if self._once.claim("token", value, "", expires_at=who.expires_at + _LEEWAY, now=now) is not None:
            raise TokenReplayed("this token was exchanged before")

    def _root(self, who: VerifiedIdentity, now: datetime) -> Chain:
        """Return the chain of the run's one root, made by whoever claims the run first."""
        txn, hop_id = new_txn(now), new_hop_id(now)
        run = sha256_hex(canonical([who.identity.issuer, who.run]))
        ours = canonical({"txn": txn, "hop": hop_id}).decode()
        held = self._once.claim("run", run, ours, expires_at=now + RUN_MEMORY, now=now)
        if held is not None:
            first = json.loads(held)
            txn, hop_id = Txn(first["txn"]), HopId(first["hop"])
        if hop_id not in self._chains.hops(txn):
            # Ours to make; or the first exchange died between claim and hop, and any of the run's may complete it.
            self._put(_origin(who, txn, hop_id, now))
        chain = self._evidence.chain(txn, hop_id)
        _require_same_run(chain.leaf, who, now)
        return chain

    def _put(self, hop: Hop) -> None:
        try:
            self._chains.put(sign_hop(self._signer, hop))
        except AlreadyExists:
            return  # another exchange of the same run put it a moment ago: that one is the root

    def _require_alive(self, keys: frozenset[str]) -> None:
        revoked = self._revocations.any_of(keys)
        if revoked is not None:
            raise GrantRevoked("this identity or its chain was revoked", key=revoked.key)


def subject_token_of(form: Mapping[str, Sequence[str]], audiences: frozenset[str]) -> str:
    """Return the subject token of a form that asks for what is given here, else raise saying what is not. Pure."""
    for name, values in form.items():
        if name in _ACTOR:
            raise BadRequest(f"{name} is not taken here: a child is let in with a delegation ticket")
        if name in _CLIENT_AUTHENTICATION:
            raise Unauthenticated("clients are not authenticated here: the subject token says who asks")
        if name not in _KNOWN:
            shown = name if _PARAMETER.match(name) else "a parameter"
            raise BadRequest(f"{shown} is not one of RFC 8693's parameters that are taken here")
        if len(values) != 1 and name not in _REPEATABLE:
            raise BadRequest(f"{name} is there more than once")
    if _one(form, "grant_type") != GRANT_TYPE:
        raise UnsupportedGrantType("grant_type is not token exchange")
    if _one(form, "subject_token_type") not in _SUBJECT_TOKEN_TYPES:
        raise BadRequest("subject_token_type is not id_token or jwt")
    if form.get("requested_token_type", [ACCESS_TOKEN_TYPE])[0] != ACCESS_TOKEN_TYPE:
        raise BadRequest("requested_token_type is not access_token")
    wanted = (*form.get("audience", ()), *form.get("resource", ()))
    if any(name.rstrip("/") not in audiences for name in wanted):
        raise InvalidTarget("audience or resource names another service")
    if form.get("scope", [_ANY_TARGET[0]])[0] not in _ANY_TARGET:
        raise OutOfScope(
            "a run's token has the run's whole scope, *", hint="Leave scope out; a session is for one target."
        )
    return _one(form, "subject_token")


def _one(form: Mapping[str, Sequence[str]], name: str) -> str:
    value = form.get(name, [""])[0]
    if not value:
        raise BadRequest(f"{name} is missing")
    return value


def _origin(who: VerifiedIdentity, txn: Txn, hop_id: HopId, now: datetime) -> Hop:
    return Hop(
        txn=txn,
        id=hop_id,
        depth=0,
        kind=HopKind.ORIGIN,
        parent=None,
        parent_sha256="",
        originator=who.identity,
        actor=who.identity,
        evidence=who.evidence,
        accountable=who.accountable,
        teams=who.teams,
        scope=_ANY_TARGET,
        key_thumbprint="",
        target="",
        principal="",
        serial="",
        issued_at=now,
        expires_at=now + RUN_LIFETIME,
    )


def _require_same_run(hop: Hop, who: VerifiedIdentity, now: datetime) -> None:
    if now >= hop.expires_at:
        raise GrantExpired("the run has used up its time", hint="Start a new run.", hop=hop.id)
    if hop.actor.key != who.identity.key:
        raise TokenInvalid("this run began as another identity", hop=hop.id)
    if set(who.accountable) != set(hop.accountable):
        # A re-run under the same id: who started it could otherwise approve it, as nobody whom the hop excludes.
        raise TokenInvalid("this run began with other people behind it", hint="Start a new run.", hop=hop.id)
    if set(hop.teams) - set(who.teams):
        raise TokenInvalid("this run began with more than its identity has now", hint="Start a new run.", hop=hop.id)
