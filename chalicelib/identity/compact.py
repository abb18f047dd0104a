"""A compact JWS, taken apart strictly and checked with a key that is chosen by us.

Rules: three base64url segments and nothing else; a header or payload that names a member twice is refused, since
readers differ in which one they take; only asymmetric algorithms exist here, so that no public key can be used as an
HMAC secret (RFC 8725 section 2.1); the key is looked up by ``kid`` among those that we hold, and never comes from the
token. Source: RFC 7515, RFC 8725. It does not read claims: ``issuers`` and ``tokens`` do.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

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
_JWS: Final = PyJWS()


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
    try:
        key = PyJWK(dict(jwk), algorithm=algorithm)
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
            raise Malformed("the key is too short")
        _JWS.decode_complete(unverified.token, key.key, algorithms=[algorithm])
    except (PyJWTError, ValueError, TypeError) as error:
        raise Malformed(f"the signature does not verify: {type(error).__name__}") from None


def verified_payload(token: str, typ: str, known: Mapping[str, Mapping[str, object]]) -> bytes:
    """Return the payload of one of *our* signatures: ES256, the header exactly ``alg``, ``kid`` and ``typ``, under one
    of the keys ``known``. Raises Malformed."""
    unverified = take_apart(token)
    if set(unverified.header) != _OUR_HEADER or unverified.header["typ"] != typ:
        raise Malformed("the header is not that of this kind of signature")
    if unverified.kid not in known:
        raise Malformed("the key is not one of this purpose")
    check(unverified, known[unverified.kid], "ES256")
    return unverified.payload


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


def _text(value: object) -> str:
    """Return ``value`` where it is text of a sensible length, else nothing: a ``kid`` of another type names no key."""
    return value if isinstance(value, str) and len(value) <= 256 else ""
