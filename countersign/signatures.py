"""Checks our signatures with ``cryptography`` alone: what ``chain verify`` needs in the base install.

Rules, as ``chalicelib.identity.compact`` has them for the planes: ES256 and nothing else; the header is exactly
``alg``, ``kid`` and ``typ``, each once; the key is one of the purpose that may sign such a thing, found by ``kid``
among those that we were given, never taken from the signature. Source: RFC 7515 section 5.2; RFC 7518 section 3.4;
RFC 7638 section 3; RFC 8725 section 3.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.canonical import canonical
from chalicelib.domain.signature import KeyPurpose, signed_payload
from countersign.proofs import base64url

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{86}\Z")
_HALF: Final = 32  # bytes of each half of an ES256 signature, and of a P-256 coordinate


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicKey:
    """One P-256 key of ours: what it is for, its id and its thumbprint."""

    purpose: str
    kid: str
    thumbprint: str
    x: int
    y: int


def keys_of(told: Mapping[str, object]) -> tuple[PublicKey, ...]:
    """Return the keys that ``{purpose: {"keys": [JWK]}}`` names. Raises ValueError on any that is no P-256 key, and on
    a ``kid`` that one purpose has twice. Purposes that we do not know are left out: nothing is checked by them."""
    found: dict[tuple[str, str], PublicKey] = {}
    for purpose in KeyPurpose:
        keyset = told.get(purpose.value)
        if keyset is None:
            continue
        jwks = keyset.get("keys") if isinstance(keyset, Mapping) else None
        if not isinstance(jwks, list):
            raise ValueError(f"{purpose.value} has no list of keys")  # noqa: TRY004 - what the service said
        for jwk in jwks:
            key = _key(purpose.value, jwk)
            if (key.purpose, key.kid) in found:
                raise ValueError(f"{purpose.value} has a kid twice")
            found[key.purpose, key.kid] = key
    return tuple(found.values())


def signed_by(keys: tuple[PublicKey, ...], purpose: KeyPurpose, typ: str, signature: str, sha256: str) -> PublicKey:
    """Return the key of ``purpose`` that made the compact JWS ``signature`` of type ``typ`` over ``sha256``. Raises
    ValueError, with a sentence, where none did."""
    if not _COMPACT.match(signature):
        raise ValueError("it is no signature of ours")
    header, payload, raw = signature.split(".")
    known = [key for key in keys if key.purpose == purpose.value]
    # Canonical JSON has one spelling: comparing bytes leaves nothing for two readers to read differently.
    named = [key for key in known if header == _header(key.kid, typ)]
    if not named:
        raise ValueError(f"no {purpose.value} key is known by which it could be signed")
    if payload != base64url(signed_payload(sha256)):
        raise ValueError("it is over something else")
    if not _verifies(named[0], f"{header}.{payload}".encode("ascii"), _decoded(raw)):
        raise ValueError("it does not verify")
    return named[0]


def _header(kid: str, typ: str) -> str:
    return base64url(canonical({"alg": "ES256", "kid": kid, "typ": typ}))


def _verifies(key: PublicKey, data: bytes, raw: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    public = ec.EllipticCurvePublicNumbers(key.x, key.y, ec.SECP256R1()).public_key()
    der = utils.encode_dss_signature(int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big"))
    try:
        public.verify(der, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _key(purpose: str, jwk: object) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(jwk, Mapping) or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or "d" in jwk:
        raise ValueError(f"{purpose} has a key that is no public P-256 key")
    kid, x, y = jwk.get("kid"), jwk.get("x"), jwk.get("y")
    if not (isinstance(kid, str) and 0 < len(kid) <= 256 and isinstance(x, str) and isinstance(y, str)):
        raise ValueError(f"{purpose} has a key without its parts")
    coordinates = int.from_bytes(_decoded(x), "big"), int.from_bytes(_decoded(y), "big")
    ec.EllipticCurvePublicNumbers(*coordinates, ec.SECP256R1()).public_key()  # raises ValueError off the curve
    named = {
        "crv": "P-256",
        "kty": "EC",
        **{name: base64url(value.to_bytes(_HALF, "big")) for name, value in zip("xy", coordinates, strict=True)},
    }
    thumbprint = base64url(hashlib.sha256(canonical(named)).digest())
    return PublicKey(purpose=purpose, kid=kid, thumbprint=thumbprint, x=coordinates[0], y=coordinates[1])


def _decoded(segment: str) -> bytes:
    return base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
