"""The caller's key, and the proofs of it that go with each request (DPoP, RFC 9449).

A token of ours is bound to the key that its chain's hop began with: whoever steals the token alone has nothing. So each
request carries a new proof, a JWT signed by that key over the method, the address without its query, the time and the
token's hash, and each counts once: a retry makes another. Thumbprints are RFC 7638's, SHA-256.

What it does not do: keep the key (``identities``), or send anything (``api``). ``cryptography`` is imported where a key
is made or used: a command that needs none starts without it.
Source: RFC 9449 sections 4.2 and 7.1; RFC 7638 section 3; RFC 7518 section 3.4 (the signature's form).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from countersign.api import Clock

_COORDINATE: Final = 32  # bytes of a P-256 coordinate, and of each half of its signature


class OwnKey:
    """A P-256 key. Every way of printing it shows its thumbprint alone."""

    __slots__ = ("_private", "jwk", "thumbprint")

    def __init__(self, private: EllipticCurvePrivateKey) -> None:
        numbers = private.public_key().public_numbers()
        self._private = private
        self.jwk: Mapping[str, Json] = {
            "crv": "P-256",
            "kty": "EC",
            "x": base64url(numbers.x.to_bytes(_COORDINATE, "big")),
            "y": base64url(numbers.y.to_bytes(_COORDINATE, "big")),
        }
        self.thumbprint = base64url(hashlib.sha256(canonical(self.jwk)).digest())

    @classmethod
    def new(cls) -> OwnKey:
        """Return a fresh key, whose thumbprint no command line takes for an option (`delegate --key -x`)."""
        from cryptography.hazmat.primitives.asymmetric import ec

        key = cls(ec.generate_private_key(ec.SECP256R1()))
        while key.thumbprint.startswith("-"):
            key = cls(ec.generate_private_key(ec.SECP256R1()))
        return key

    @classmethod
    def from_pem(cls, text: str) -> OwnKey:
        """Return the key that ``text`` (PKCS 8 PEM) holds. Raises ValueError on anything but a P-256 key."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(text.encode(), None)
        except (TypeError, UnsupportedAlgorithm) as error:
            raise ValueError("no key that we use") from error
        if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
            return cls(private)
        raise ValueError("not a P-256 key")

    def pem(self) -> Secret:
        """Return the key as PKCS 8 PEM, for the file that keeps it."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return Secret(self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def proof(self, method: str, url: str, *, issued_at: int, token: Secret | None) -> str:
        """Return a new proof for one request. ``issued_at`` is seconds of the epoch; ``token`` is the access token that
        goes with it, None at the token endpoint."""
        claims: dict[str, Json] = {
            "jti": secrets.token_urlsafe(24),
            "htm": method,
            "htu": _without_query(url),
            "iat": issued_at,
        }
        if token is not None:
            claims["ath"] = base64url(hashlib.sha256(token.expose().encode("ascii")).digest())
        header: Json = {"alg": "ES256", "jwk": self.jwk, "typ": "dpop+jwt"}
        signing = f"{base64url(canonical(header))}.{base64url(canonical(claims))}"
        return f"{signing}.{base64url(self._signed(signing.encode()))}"

    def _signed(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        from cryptography.hazmat.primitives.hashes import SHA256

        r, s = utils.decode_dss_signature(self._private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")

    def __repr__(self) -> str:
        return f"OwnKey({self.thumbprint})"


class BoundToken:
    """What a request presents of a token that is bound to ``key``."""

    def __init__(self, token: Secret, key: OwnKey, clock: Clock) -> None:
        self._token = token
        self._key = key
        self._clock = clock

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        """Return the headers for one sending of one request; never twice the same."""
        issued_at = int(self._clock.now().timestamp())
        proof = self._key.proof(method, url, issued_at=issued_at, token=self._token)
        return {"Authorization": f"DPoP {self._token.expose()}", "DPoP": proof}


class KeyAlone:
    """What a request to the token endpoint presents: the key, and no token yet."""

    def __init__(self, key: OwnKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        """Return the header for one sending of one request; never twice the same."""
        issued_at = int(self._clock.now().timestamp())
        return {"DPoP": self._key.proof(method, url, issued_at=issued_at, token=None)}


def base64url(data: bytes) -> str:
    """Return ``data`` as base64url without padding (RFC 7515 section 2). Pure."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
