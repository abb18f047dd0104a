"""Keys that tests prove, and every liberty that an attacker would take with a proof.

key = Key()
key.proof(clock, "POST", "/v1/token")                        # a good proof
key.proof(clock, "GET", "/v1/targets", token, iat=0)         # ... with a claim changed; None leaves one out
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chalicelib.domain.clock import Clock
from chalicelib.identity.dpop import Key as RealKey
from chalicelib.identity.dpop import new_key, token_hash
from tests.fakes.issuer import segment

PUBLIC_URL = "https://countersign.example.com"


class Key:
    """A workload's own key."""

    def __init__(self, url: str = PUBLIC_URL) -> None:
        """``url`` is the service's own address, without a slash at its end."""
        self.real: RealKey = new_key()
        self._url = url
        loaded = load_pem_private_key(self.real.pem(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._private = loaded

    @property
    def jwk(self) -> dict[str, str]:
        return self.real.jwk

    @property
    def thumbprint(self) -> str:
        return self.real.thumbprint

    def private_jwk(self) -> dict[str, str]:
        """Return the key with its private member, as one that leaks itself would be sent."""
        return {**self.jwk, "d": segment(self._private.private_numbers().private_value.to_bytes(32, "big"))}

    def claims(self, clock: Clock, method: str, path: str, token: str | None = None, **changed: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "jti": secrets.token_hex(8),
            "htm": method,
            "htu": f"{self._url}{path}",
            "iat": int(clock.now().timestamp()),
        }
        if token is not None:
            made["ath"] = token_hash(token)
        return {name: value for name, value in (made | changed).items() if value is not None}

    def proof(self, clock: Clock, method: str, path: str, token: str | None = None, **changed: Any) -> str:
        """Return a proof of this key, its claims changed; None leaves a claim out."""
        return self.signed(self.claims(clock, method, path, token, **changed))

    def signed(self, claims: Mapping[str, Any], **header: Any) -> str:
        """Return ``claims`` signed with this key, its header changed; None leaves a member out."""
        members = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk} | header
        text = json.dumps({name: value for name, value in members.items() if value is not None})
        signing = f"{segment(text.encode())}.{segment(json.dumps(dict(claims)).encode())}"
        r, s = decode_dss_signature(self._private.sign(signing.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signing}.{segment(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
