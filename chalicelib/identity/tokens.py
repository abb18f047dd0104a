"""Our access tokens: ``at+jwt`` (RFC 9068) with the chain as nested ``act`` claims (RFC 8693 section 4.1).

A token names a hop and proves nothing beyond it: who reads one reads the chain again. Rules: ES256 by the token key
alone; ``typ`` ``at+jwt`` exactly, so that no issuer's token and no signature of another kind can stand for one; one
``aud``, compared exactly; ``sub`` is the originator and never changes; every ``act`` node has ``iss`` and ``sub``; a
token never outlives its leaf hop. The prior actors inside ``act`` are information: nothing is decided on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, TypeAlias

from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import TokenExpired, TokenInvalid
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.domain.scope import MAX_DEPTH
from chalicelib.domain.secret import Secret
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Keys, Signer
from chalicelib.identity.compact import Malformed, json_object, verified_payload

TYPE: Final = "at+jwt"
SKEW_S: Final = 30  # between our own clocks, each of which stops working past 30 s from AWS's
MAX_TTL_S: Final = 900  # 15 minutes: as long as the AWS credentials that a token may lead to

JwkSet: TypeAlias = Mapping[str, list[Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Minted:
    """A new token, and when it expires."""

    token: Secret
    token_id: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessToken:
    """What a verified token says. ``originator`` and ``actor`` are identity keys; ``scope`` is as ``domain.scope`` has
    it; ``anc`` the ids of the hops from the root to this one's parent; ``key_thumbprint`` is ``cnf.jkt``, empty where
    there is none."""

    txn: Txn
    hop: HopId
    token_id: str
    originator: str
    actor: str
    scope: tuple[str, ...]
    anc: tuple[HopId, ...]
    key_thumbprint: str
    expires_at: datetime


class TokenIssuer:
    """Mints tokens. Thread-safe where its signer is."""

    def __init__(self, signer: Signer, issuer_url: str, audience: str, clock: Clock) -> None:
        """``audience`` is the one service that takes these tokens; both addresses are without a slash at the end."""
        self._signer = signer
        self._issuer_url = issuer_url
        self._audience = audience
        self._clock = clock

    def mint(self, chain: Chain, token_id: str, ttl_s: int, scope: tuple[str, ...] | None = None) -> Minted:
        """Return a token of ``chain``'s leaf for ``ttl_s`` seconds, or less where the hop ends earlier. ``scope`` is
        the token's own, which the caller has found to be within the leaf's; None is the leaf's.

        Raises TokenInvalid where the chain is too deep for a token, TokenExpired where its leaf has expired,
        StoreUnavailable where the key cannot be reached.
        """
        now = self._clock.now().replace(microsecond=0)
        expires = min(now + timedelta(seconds=min(ttl_s, MAX_TTL_S)), chain.leaf.expires_at)
        if expires <= now:
            raise TokenExpired("the chain of identities has expired", hop=chain.leaf.id)
        if chain.leaf.depth > MAX_DEPTH:
            raise TokenInvalid("the chain of identities is too deep", hop=chain.leaf.id)
        claims = self._claims(chain, token_id, now, expires) | {"scope": " ".join(scope or chain.leaf.scope)}
        try:
            token = self._signer.sign(TYPE, canonical(claims))
        except ValueError as error:  # past what the key signs at once: long names, many targets
            raise TokenInvalid("the chain of identities does not fit a token", why=str(error)) from None
        return Minted(token=Secret(token), token_id=token_id, expires_at=_moment(int(expires.timestamp())))

    def _claims(self, chain: Chain, token_id: str, now: datetime, expires: datetime) -> dict[str, Json]:
        leaf, issued = chain.leaf, int(now.timestamp())
        claims: dict[str, Json] = {
            "iss": self._issuer_url,
            "aud": self._audience,
            "sub": chain.originator.key,
            "client_id": leaf.actor.key,
            "iat": issued,
            "nbf": issued,
            "exp": int(expires.timestamp()),
            "jti": token_id,
            "txn": leaf.txn,
            "hop": leaf.id,
            "act": _act(chain),
            "anc": [hop.id for hop in chain.hops[:-1]],
            "del_depth": leaf.depth,
            "del_max_depth": leaf.max_depth,
        }
        if leaf.parent is not None:
            claims["par_hash"] = leaf.parent_sha256
        if leaf.key_thumbprint:
            claims["cnf"] = {"jkt": leaf.key_thumbprint}
        return claims


def verify_access_token(
    unverified_token: str, *, keys: Keys, issuer_url: str, audience: str, clock: Clock, expired_too: bool = False
) -> AccessToken:
    """Return what one of our tokens says; ``expired_too`` is for whoever renews one, and is told by its hop's end.

    Raises TokenInvalid, TokenExpired, or StoreUnavailable for unread keys.
    """
    known = keys.public_keys(KeyPurpose.TOKEN.value)
    try:
        claims = json_object(verified_payload(unverified_token, TYPE, known))
        said = _access_token(claims, issuer_url, audience)
        not_before, issued = _number(claims, "nbf"), _number(claims, "iat")
    except Malformed as error:
        _refuse(str(error))
    now = clock.now().timestamp()
    if max(not_before, issued) > now + SKEW_S:
        _refuse("the token is of the future")
    if (
        not expired_too and now >= said.expires_at.timestamp()
    ):  # no skew: whoever checks may be behind, never ahead of who ends it
        raise TokenExpired("the access token has expired")
    return said


def jwks(keys: Keys) -> JwkSet:
    """Return the JWK Set (RFC 7517) of the keys that sign tokens. Raises StoreUnavailable."""
    known = keys.public_keys(KeyPurpose.TOKEN.value)
    return {"keys": [{**known[kid], "kid": kid, "use": "sig", "alg": "ES256"} for kid in sorted(known)]}


def _act(chain: Chain) -> Json:
    """Return the chain of actors, the current one outermost."""
    act: dict[str, Json] = {}
    for hop in chain.hops:
        node: dict[str, Json] = {"iss": hop.actor.issuer, "sub": hop.actor.subject}
        act = {**node, "act": act} if act else node
    return act


def _access_token(claims: Mapping[str, Any], issuer_url: str, audience: str) -> AccessToken:
    if claims.get("iss") != issuer_url or claims.get("aud") != audience:
        raise Malformed("it is not of this service or not for it")
    anc = claims.get("anc")
    if not isinstance(anc, list) or not all(isinstance(hop, str) for hop in anc):
        raise Malformed("anc is not a list of hops")
    return AccessToken(
        txn=Txn(_text(claims, "txn")),
        hop=HopId(_text(claims, "hop")),
        token_id=_text(claims, "jti"),
        originator=_text(claims, "sub"),
        actor=_text(claims, "client_id"),
        scope=tuple(str(claims.get("scope", "")).split()),
        anc=tuple(HopId(hop) for hop in anc),
        key_thumbprint=_text(_member(claims, "cnf"), "jkt") if "cnf" in claims else "",
        expires_at=_moment(_number(claims, "exp")),
    )


def _member(claims: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = claims.get(name)
    if not isinstance(value, Mapping):
        raise Malformed(f"{name} is not an object")
    return value


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise Malformed(f"{name} is not text")
    return value


def _number(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise Malformed(f"{name} is not a moment")
    return value


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _refuse(why: str) -> NoReturn:
    raise TokenInvalid("the access token is not valid", why=why) from None
