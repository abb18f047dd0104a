"""Proofs of possession: a JWT, signed with the key that it carries, over one request (RFC 9449), and the key's name.

Rules: ``typ`` and ``alg`` exactly, since another type is a token for something else and another algorithm might make a
public key an HMAC secret; the key is a public P-256 point in its one spelling, so that one key has one thumbprint
(RFC 7638); a private member in it is refused, as a key that was sent about is nobody's; method, address and time are
compared with our own, never taken from the request; ``ath`` ties a proof to one token. The key is the only one that
ever comes out of a token here: it proves nothing but that whoever sends it has it.

Does not count ``jti``: ``services.proofs`` does. :class:`Key` is the other side, for our own command line and tests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chalicelib.domain.canonical import canonical, digest
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import KeyProofInvalid
from chalicelib.identity.compact import Malformed, Unverified, check, json_object, take_apart

TYPE: Final = "dpop+jwt"
WINDOW: Final = timedelta(seconds=60)  # either way: clocks differ by up to 30 s, and a call takes a few
MAX_PROOF: Final = 4096  # ours are 400 characters; API Gateway takes 10 KB of headers altogether
MAX_JTI: Final = 128
_HEADER: Final = frozenset({"alg", "jwk", "typ"})
_NEEDED: Final = frozenset({"crv", "kty", "x", "y"})
_LABELS: Final = frozenset({"alg", "kid", "use"})  # what libraries add to a public key, and nobody here reads
_COORDINATE: Final = 32  # bytes, RFC 7518 section 6.2.1.2 for P-256


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """A proof that held. ``thumbprint`` names the key, ``jti`` the proof; ``claims_sha256`` is over its claims."""

    thumbprint: str
    jti: str
    issued_at: datetime
    claims_sha256: str


def thumbprint(jwk: Mapping[str, object]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a P-256 key, 43 base64url characters. Raises KeyProofInvalid where
    ``jwk`` is no such key, or not a public one alone. Pure."""
    try:
        return _thumbprint(_public(jwk))
    except Malformed as error:
        _refuse(str(error))


def verify_proof(proof: str, *, method: str, url: str, token: str | None, clock: Clock) -> Proof:
    """Return what ``proof`` proves for a request of ``method`` to ``url`` (our own address and path, no query) with
    the access token ``token``; None where none goes with it, at the token endpoint. Raises KeyProofInvalid."""
    try:
        unverified = take_apart(proof)
        jwk = _key_of(unverified)
        check(unverified, {name: jwk[name] for name in _NEEDED}, "ES256")
        claims = json_object(unverified.payload)
        issued_at = _check_claims(claims, method=method, url=url, now=clock.now())
        if token is not None:
            _check_token(claims, token)
        return Proof(thumbprint=_thumbprint(jwk), jti=_jti(claims), issued_at=issued_at, claims_sha256=digest(claims))
    except Malformed as error:
        _refuse(str(error))


def token_hash(token: str) -> str:
    """Return ``ath`` of an access token (RFC 9449 section 4.2). Pure."""
    return _base64url(hashlib.sha256(token.encode()).digest())


class Key:
    """A private P-256 key with which somebody of ours proves who they are."""

    def __init__(self, pem: bytes) -> None:
        """``pem``: PKCS #8, without a passphrase. Raises ValueError where it is no P-256 key."""
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a P-256 key")  # noqa: TRY004 - of the file that holds it, the value is wrong
        self._key = key

    @property
    def jwk(self) -> dict[str, str]:
        """The public key, in exactly the members of RFC 7638."""
        numbers = self._key.public_key().public_numbers()
        x, y = (_base64url(value.to_bytes(_COORDINATE, "big")) for value in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    @property
    def thumbprint(self) -> str:
        return _thumbprint(self.jwk)

    def pem(self) -> bytes:
        """Return the private key as it is kept: the caller keeps it readable to nobody else."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def proof(self, method: str, url: str, *, token: str | None = None, now: datetime) -> str:
        """Return a new proof, good for one request within ``WINDOW`` of ``now``."""
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(now.timestamp()),
        }
        if token is not None:
            claims["ath"] = token_hash(token)
        import jwt  # here alone: `verify --trust` asks for thumbprints in the base install, which does not have it

        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": TYPE, "jwk": self.jwk})


def new_key() -> Key:
    """Return a fresh key."""
    made = ec.generate_private_key(ec.SECP256R1())
    return Key(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _key_of(unverified: Unverified) -> Mapping[str, str]:
    if len(unverified.token) > MAX_PROOF:
        raise Malformed("larger than any proof")
    if set(unverified.header) != _HEADER or unverified.header["typ"] != TYPE:
        raise Malformed("the header is not that of a proof")
    jwk = unverified.header["jwk"]
    if not isinstance(jwk, Mapping):
        raise Malformed("the header holds no key")
    return _public(jwk)


def _public(jwk: Mapping[str, object]) -> Mapping[str, str]:
    if not _NEEDED <= set(jwk) <= _NEEDED | _LABELS:
        raise Malformed("the key is not a public one alone")
    if jwk["kty"] != "EC" or jwk["crv"] != "P-256":
        raise Malformed("the key is not of P-256")
    if not all(_is_coordinate(jwk[name]) for name in ("x", "y")):
        raise Malformed("the key is not written as RFC 7518 has it")
    return cast(Mapping[str, str], jwk)


def _is_coordinate(value: object) -> bool:
    """Say whether it is 32 bytes in their one base64url spelling: another would be another thumbprint for the key."""
    if not isinstance(value, str):
        return False
    try:
        found = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except ValueError:
        return False
    return len(found) == _COORDINATE and _base64url(found) == value


def _thumbprint(jwk: Mapping[str, str]) -> str:
    return _base64url(hashlib.sha256(canonical({name: jwk[name] for name in sorted(_NEEDED)})).digest())


def _check_claims(claims: Mapping[str, Any], *, method: str, url: str, now: datetime) -> datetime:
    if claims.get("htm") != method or claims.get("htu") != url:
        raise Malformed("it is for another request")
    issued = claims.get("iat")
    if not isinstance(issued, int) or isinstance(issued, bool) or not 0 <= issued < 1 << 40:
        raise Malformed("iat is not a moment")
    if abs(now.timestamp() - issued) > WINDOW.total_seconds():
        raise Malformed("it was not made just now")
    return datetime.fromtimestamp(issued, UTC)


def _check_token(claims: Mapping[str, Any], token: str) -> None:
    if not hmac.compare_digest(_text(claims, "ath").encode(), token_hash(token).encode()):
        raise Malformed("it is not over this token")


def _jti(claims: Mapping[str, Any]) -> str:
    jti = _text(claims, "jti")
    if len(jti) > MAX_JTI or not jti.isascii() or not jti.isprintable():
        raise Malformed("jti is not an id")
    return jti


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise Malformed(f"{name} is not text")
    return value


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refuse(why: str) -> NoReturn:
    raise KeyProofInvalid("the DPoP proof is not valid for this request", why=why) from None
