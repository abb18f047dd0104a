"""One verifier for every issuer: what differs between issuers is their declaration, and nothing else.

Rules, in the order in which they are applied: size and shape; ``iss`` equal to a declared one, exactly; the header's
members and ``typ``; an algorithm that the declaration allows; a key from the pinned address; the signature; the times;
one audience, ours; then the claims that must hold, must not hold, and name the subject, the run and the people behind
it. Identity is assembled from immutable claims as the declaration lists them: ``sub`` is never taken apart, since its
form is the tenant's to change. Claims inside others are found as ``identity.claims`` says. Unknown claims are reported,
so that a new one (a re-run's starter) is not missed.

It does not tell whether a token was used before: ``services`` claim each ``token_id`` once. Sources: RFC 7519, RFC
8725, OpenID Connect Core 3.1.3.7.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from chalicelib.domain.canonical import digest, sha256_hex
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ConfigurationInvalid, TokenExpired, TokenInvalid, UnknownIssuer
from chalicelib.domain.identity import Assurance, Evidence, Identity, VerifiedIdentity
from chalicelib.domain.issuer import Issuer
from chalicelib.domain.kept_proof import IssuerProof
from chalicelib.domain.secret import Secret
from chalicelib.identity.claims import claim_at, unknown_claims
from chalicelib.identity.compact import ALGORITHMS, Malformed, Unverified, check, json_object, take_apart
from chalicelib.identity.jwks import Fetched, FetchJwks, IssuerKey, IssuerKeys

LEEWAY_S: Final = 60  # between an issuer's clock and ours; GitHub's tokens are dated up to seconds ahead

# ``x5t`` is a certificate's fingerprint that GitHub and Azure send and nobody needs. Everything else that a header may
# hold either brings a key along (jwk, jku, x5u, x5c) or changes what the signature covers (crit, b64, zip).
_HEADER: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_TYPES: Final = frozenset({"JWT", "JOSE", None})  # RFC 7519 section 5.1; any other type is a token for something else
_REGISTERED: Final = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
MAX_VALUE: Final = 512  # of one claim that is used: the longest, a workflow's ref, is about 200
MAX_ID: Final = 256  # of a jti: it becomes part of a table's key

Report: TypeAlias = Callable[[str, tuple[str, ...]], None]
"""Told the issuer's name in our configuration, and the claims that its declaration does not know."""

_log = logging.getLogger(__name__)


def log_unknown_claims(issuer: str, claims: tuple[str, ...]) -> None:
    """Warn of claims that a declaration neither uses nor ignores. Names only: values may be anything."""
    what = {"issuer": issuer, "claims": claims}
    _log.warning("a token has claims that its issuer's declaration does not know", extra=what)


class IssuerVerifier:
    """Verifies the tokens of declared issuers. Thread-safe. It caches keys: keep one while its declarations hold."""

    def __init__(
        self,
        declarations: Iterable[Issuer],
        fetch_jwks: FetchJwks,
        clock: Clock,
        leeway_s: int = LEEWAY_S,
        report: Report = log_unknown_claims,
    ) -> None:
        """Raises ConfigurationInvalid on a declaration that would let strangers in."""
        self._declarations = {declaration.url: _sound(declaration) for declaration in declarations}
        self._keys = IssuerKeys(fetch_jwks, clock)
        self._clock = clock
        self._leeway_s = leeway_s
        self._report = report

    def verify(self, unverified_token: str) -> VerifiedIdentity:
        """Return who the token is about. Raises UnknownIssuer, TokenInvalid, TokenExpired, and StoreUnavailable where
        the issuer's keys cannot be read."""
        try:
            unverified = take_apart(unverified_token)
            claims = json_object(unverified.payload)
            declaration = self._declaration(claims.get("iss"))
            key = self._check_signature(unverified, declaration)
            expires_at = self._check_times(claims, declaration)
            _check_claims(claims, declaration)
            verified = _identity(unverified, claims, declaration, expires_at, key.fetched)
        except Malformed as error:
            raise TokenInvalid("the issuer's token is not valid", why=str(error)) from None
        unknown = unknown_claims(claims, _known(declaration))
        if unknown:
            self._report(declaration.name, tuple(name[:MAX_VALUE] for name in unknown))
        return verified

    def _declaration(self, issuer: object) -> Issuer:
        found = self._declarations.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise UnknownIssuer("the token's issuer is not one that is known here")
        return found

    def _check_signature(self, unverified: Unverified, declaration: Issuer) -> IssuerKey:
        if not set(unverified.header) <= _HEADER:
            raise Malformed("the header has members that no token needs")
        if unverified.header.get("typ") not in _TYPES:
            raise Malformed("the token is of a type for something else")
        if unverified.algorithm not in declaration.algorithms:
            raise Malformed("the algorithm is not one of this issuer's")
        if not unverified.kid:
            raise Malformed("the header names no key")
        key = self._keys.key(declaration.jwks_uri, unverified.kid)
        if key is None:
            raise Malformed("the issuer has no such key")
        check(unverified, key.jwk, unverified.algorithm)
        return key

    def _check_times(self, claims: Mapping[str, Any], declaration: Issuer) -> datetime:
        expires, issued = _moment(claims, "exp"), _moment(claims, "iat")
        not_before = _moment(claims, "nbf") if "nbf" in claims else issued
        if expires - issued > declaration.max_lifetime_s:
            raise Malformed("the token lives longer than this issuer's may")
        if declaration.max_age_s:
            expires = min(expires, issued + declaration.max_age_s)
        now = self._clock.now().timestamp()
        if max(issued, not_before) > now + self._leeway_s:
            raise Malformed("the token is of the future")
        if now > expires + self._leeway_s:
            raise TokenExpired("the issuer's token has expired")
        return datetime.fromtimestamp(expires, UTC)


def _sound(declaration: Issuer) -> Issuer:
    """Return ``declaration`` where it can be relied on. The bundle's loader says the same with file and line; this
    holds for whoever makes a declaration otherwise."""
    required = {claim for claim, _ in declaration.require}
    if declaration.many_tenants and not required & set(declaration.tenant_claims):
        raise ConfigurationInvalid(f"issuer {declaration.name} serves many tenants and no claim says which is ours")
    if not declaration.algorithms or not ALGORITHMS.issuperset(declaration.algorithms):
        raise ConfigurationInvalid(f"issuer {declaration.name} allows an algorithm that proves nothing")
    if not declaration.subject or not declaration.run:
        raise ConfigurationInvalid(f"issuer {declaration.name} does not say which claims name the subject and the run")
    return declaration


def _check_claims(claims: Mapping[str, Any], declaration: Issuer) -> None:
    audience = claims.get("aud")
    if audience not in (declaration.audience, [declaration.audience]):  # a list of one is how Kubernetes writes one
        raise Malformed("the token is for another audience, or for several")
    for name, values in declaration.require:
        if not set(_texts(claim_at(claims, name))) & set(values) or isinstance(claim_at(claims, name), list):
            raise Malformed(f"the claim {name} does not have a required value")
    for name, values in declaration.forbid:
        if set(_texts(claim_at(claims, name))) & set(values):
            raise Malformed(f"the claim {name} has a forbidden value")


def _identity(
    unverified: Unverified, claims: Mapping[str, Any], declaration: Issuer, expires_at: datetime, keys: Fetched
) -> VerifiedIdentity:
    subject = _joined(claims, declaration.subject)
    shown = [text for name in declaration.display for text in _texts(claim_at(claims, name)) if _printable(text)]
    return VerifiedIdentity(
        identity=Identity(issuer=declaration.url, subject=subject, name=" ".join(shown)[:MAX_VALUE] or subject),
        evidence=Evidence(
            kind=f"oidc:{declaration.name}",
            token_id=_token_id(unverified, claims),
            claims_sha256=digest(claims),
            assurance=Assurance.ATTESTED,
            attributes=_attributes(claims, declaration.keep),
        ),
        run=_joined(claims, declaration.run),
        accountable=_accountable(claims, declaration),
        teams=tuple(
            dict.fromkeys(
                rule.team
                for rule in declaration.teams
                if all(value in _texts(claim_at(claims, name)) for name, value in rule.when)
            )
        ),
        expires_at=expires_at,
        proof=IssuerProof(
            token=Secret(unverified.token), jwks_uri=declaration.jwks_uri, jwks=keys.jwks, fetched_at=keys.at
        ),
        claims=_told(claims, _known(declaration) - _REGISTERED),
    )


def _told(claims: Mapping[str, Any], names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the declared claims that are one text each, by name: what a ticket's redeemer is compared with."""
    texts = ((name, _scalar(claim_at(claims, name))) for name in sorted(names))
    return tuple((name, text) for name, text in texts if text is not None and _printable(text))


def _accountable(claims: Mapping[str, Any], declaration: Issuer) -> tuple[str, ...]:
    """Return the people behind the run; none where the trigger is unknown, which asks for more approvers. A declared
    claim that is missing makes it unknown too: somebody would be missing from those who may not approve."""
    for name, values in declaration.unknown_trigger:
        if set(_texts(claim_at(claims, name))) & set(values):
            return ()
    people: list[str] = []
    for alias, name in declaration.accountable:
        if claim_at(claims, name) is None:
            return ()
        people.append(f"{alias}:{_needed(claims, name)}")
    return tuple(people)


def _attributes(claims: Mapping[str, Any], keep: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the kept claims that the token has; a list or an object as JSON text."""
    found: list[tuple[str, str]] = []
    for name in keep:
        value = claim_at(claims, name)
        if value is None:
            continue
        text = _scalar(value)
        text = json.dumps(value, separators=(",", ":"), sort_keys=True) if text is None else text
        if not _printable(text):
            raise Malformed(f"the claim {name} is too long or not printable")
        found.append((name, text))
    return tuple(found)


def _joined(claims: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the values joined with ``:``. The mark is escaped inside a value: ``a:b`` and ``c`` are not ``a`` and
    ``b:c``, or one tenant could name itself as another."""
    return ":".join(_needed(claims, name).replace("%", "%25").replace(":", "%3A") for name in names)


def _needed(claims: Mapping[str, Any], name: str) -> str:
    text = _scalar(claim_at(claims, name))
    if not text or not _printable(text):
        raise Malformed(f"the claim {name} is missing, too long or not printable")
    return text


def _token_id(unverified: Unverified, claims: Mapping[str, Any]) -> str:
    """Return the issuer's id of the token, else its hash: each is accepted once, by this.

    The hash leaves the signature out: an ECDSA signature, and base64 itself, have more than one spelling, and each
    would be a token that was never seen.
    """
    jti = claims.get("jti")
    if isinstance(jti, str) and 0 < len(jti) <= MAX_ID and jti.isascii() and jti.isprintable():
        return jti
    return sha256_hex(unverified.token.rpartition(".")[0].encode())


def _known(declaration: Issuer) -> frozenset[str]:
    pairs = (*declaration.require, *declaration.forbid, *declaration.unknown_trigger)
    return _REGISTERED.union(
        (name for name, _ in pairs),
        (name for _, name in declaration.accountable),
        (name for rule in declaration.teams for name, _ in rule.when),
        *(declaration.subject, declaration.run, declaration.display, declaration.keep, declaration.ignore),
        declaration.tenant_claims,
    )


def _texts(value: object) -> list[str]:
    """Return the texts of a claim: one for a scalar, one for each scalar of a list, else none."""
    values = value if isinstance(value, list) else [value]
    return [text for text in map(_scalar, values) if text is not None]


def _scalar(value: object) -> str | None:
    """Return the text that a declaration writes a value as: claims are compared as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _printable(text: str) -> bool:
    """Say whether it may go into records and onto cards: bounded, and nothing that a terminal would obey."""
    return len(text) <= MAX_VALUE and text.isprintable()


def _moment(claims: Mapping[str, Any], name: str) -> int:
    value = claim_at(claims, name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise Malformed(f"{name} is not a moment")
    return value
