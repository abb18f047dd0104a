"""A compact JWS, taken apart strictly and checked with a key that is chosen by us.

Rules: three base64url segments and nothing else; a header or payload that names a member twice is refused, since
readers differ in which one they take; only asymmetric algorithms exist here, so that no public key can be used as an
HMAC secret (RFC 8725 section 2.1); the key is looked up by ``kid`` among those that we hold, and never comes from the
token. *Our* signatures are ES256 alone and are checked with ``cryptography`` alone, so that an auditor verifies them
with the base install; PyJWT knows the issuers' algorithms, and is imported where one is met. Source: RFC 7515, RFC 7518
section 3.4, RFC 8725. It does not read claims: ``issuers`` and ``tokens`` do.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from chalicelib.domain.canonical import canonical

MAX_TOKEN: Final = 16 * 1024  # the largest CI tokens are 3 KB, and API Gateway takes 10 KB of headers
MIN_RSA_BITS: Final = 2048  # RFC 7518 section 3.3
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_KEY_TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
ALGORITHMS: Final = frozenset(_KEY_TYPES)
_OUR_HEADER: Final = frozenset({"alg", "kid", "typ"})
_HALF: Final = 32  # bytes of r, of s and of a coordinate (RFC 7518 sections 3.4 and 6.2.1)
_OURS: Final = re.compile(r"[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{86}\Z")
_ES256: Final = ec.ECDSA(SHA256())


class Malformed(ValueError):
    """It is not what it must be. The text says why, for the log, and quotes nothing of the token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unverified:
    """The parts of a compact JWS before any key was tried: nothing in it may be believed yet."""

    token: str
    header: Mapping[str, Any]
    payload: bytes

    @property
    def algorithm(self) -> str:
        return _text(self.header.get("alg"))

    @property
    def kid(self) -> str:
        return _text(self.header.get("kid"))


def take_apart(token: str) -> Unverified:
    """Return the parts of ``token``. Raises Malformed. Pure."""
    if len(token) > MAX_TOKEN:
        raise Malformed("larger than any token")
    if not _SHAPE.match(token):
        raise Malformed("not a compact JWS")
    header, payload, _ = token.split(".")
    return Unverified(token=token, header=json_object(_decoded(header)), payload=_decoded(payload))


def check(unverified: Unverified, jwk: Mapping[str, object], algorithm: str) -> None:
    """Raise Malformed unless the signature is one of ``jwk`` under ``algorithm``, which the caller has chosen."""
    if algorithm not in ALGORITHMS or unverified.algorithm != algorithm:
        raise Malformed("the algorithm is not the one expected")
    if jwk.get("kty") != _KEY_TYPES[algorithm] or jwk.get("alg", algorithm) != algorithm:
        raise Malformed("the key is not for this algorithm")
    from jwt import PyJWK, PyJWS
    from jwt.exceptions import PyJWTError

    try:
        key = PyJWK(dict(jwk), algorithm=algorithm)
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
            raise Malformed("the key is too short")
        PyJWS().decode_complete(unverified.token, key.key, algorithms=[algorithm])
    except (PyJWTError, ValueError, TypeError) as error:
        raise Malformed(f"the signature does not verify: {type(error).__name__}") from None


def is_as_we_write(token: str, typ: str, payload: bytes, known: Mapping[str, Mapping[str, object]]) -> bool:
    """Return whether ``token`` is one of *our* signatures over ``payload``, in the one spelling that we write, by one
    of the keys ``known``. What :func:`verified_payload` refuses this never accepts; where it says no, that one says
    why.

    A review checks tens of thousands: here nothing is parsed, since header and payload are compared as text.
    """
    if not _OURS.match(token):
        return False
    header, middle, signature = token.split(".")
    if middle != _encoded(payload):
        return False
    for kid, jwk in known.items():
        if header == _our_header(kid, typ) and jwk.get("alg", "ES256") == "ES256":
            try:
                key = _p256(str(jwk.get("kty")), str(jwk.get("crv")), str(jwk.get("x")), str(jwk.get("y")))
                raw = _decoded(signature)
                der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
                key.verify(der, token.rpartition(".")[0].encode(), _ES256)
            except (InvalidSignature, ValueError):
                return False
            return True
    return False


@lru_cache(maxsize=256)  # a few kinds of signature, under a few keys each
def _our_header(kid: str, typ: str) -> str:
    return _encoded(canonical({"alg": "ES256", "kid": kid, "typ": typ}))


@lru_cache(maxsize=64)
def _p256(kty: str, crv: str, x: str, y: str) -> ec.EllipticCurvePublicKey:
    """Return the public key that a JWK holds. Raises ValueError where it is none on P-256."""
    if (kty, crv) != ("EC", "P-256"):
        raise Malformed("the key is not for this algorithm")
    numbers = int.from_bytes(_decoded(x), "big"), int.from_bytes(_decoded(y), "big")
    return ec.EllipticCurvePublicNumbers(numbers[0], numbers[1], ec.SECP256R1()).public_key()


def verified_payload(token: str, typ: str, known: Mapping[str, Mapping[str, object]]) -> bytes:
    """Return the payload of one of *our* signatures: ES256, the header exactly ``alg``, ``kid`` and ``typ``, under one
    of the keys ``known``. Raises Malformed."""
    unverified = take_apart(token)
    if set(unverified.header) != _OUR_HEADER or unverified.header["typ"] != typ:
        raise Malformed("the header is not that of this kind of signature")
    if unverified.kid not in known:
        raise Malformed("the key is not one of this purpose")
    if unverified.algorithm != "ES256":
        raise Malformed("the algorithm is not the one expected")
    _check_ours(unverified, known[unverified.kid])
    return unverified.payload


def _check_ours(unverified: Unverified, jwk: Mapping[str, object]) -> None:
    """Raise Malformed unless the signature is one of the P-256 key ``jwk`` (RFC 7518 section 3.4)."""
    if jwk.get("alg", "ES256") != "ES256":
        raise Malformed("the key is not for this algorithm")
    signed, _, last = unverified.token.rpartition(".")
    raw = _decoded(last)
    if len(raw) != 2 * _HALF:
        raise Malformed("the signature does not verify: it is of another length")
    der = encode_dss_signature(int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big"))
    try:
        key = _p256(str(jwk.get("kty")), str(jwk.get("crv")), str(jwk.get("x")), str(jwk.get("y")))
        key.verify(der, signed.encode(), _ES256)
    except (InvalidSignature, ValueError) as error:
        raise Malformed(f"the signature does not verify: {type(error).__name__}") from None


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``. Raises Malformed on anything else, a member named twice or a NaN. Pure.

    Numbers with a fraction stay text: nothing of ours reads one, and it can be hashed as it was written.
    """
    try:
        found = json.loads(
            data.decode(), object_pairs_hook=_no_name_twice, parse_float=str, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise Malformed("not a JSON object that names each member once") from None
    if not isinstance(found, dict):
        raise Malformed("not a JSON object")
    return found


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _decoded(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise Malformed("a segment is not base64url") from None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(value: object) -> str:
    """Return ``value`` where it is text of a sensible length, else nothing: a ``kid`` of another type names no key."""
    return value if isinstance(value, str) and len(value) <= 256 else ""
