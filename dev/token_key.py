"""What every issuer of the stack has: a key made at start and never written down, its public half, and a discovery
document.

Rules: keys and discovery document are where OpenID Connect Discovery 1.0 (section 4) puts them. What is asked for is
signed as it is: a test may want a token with exactly one thing wrong.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

RS256: Final = "RS256"
ES256: Final = "ES256"


class TokenKey:
    """One signing key. ``algorithm`` is ``RS256`` or ``ES256``."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._kid = secrets.token_hex(8)
        self._key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if algorithm == RS256
            else ec.generate_private_key(ec.SECP256R1())
        )

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token of ``claims``; one whose value is None is left out."""
        given = {name: value for name, value in claims.items() if value is not None}
        # PyJWT refuses an issuer that is no text, and a test may want exactly such a token: so the bytes are signed as
        # they are.
        text = json.dumps(given, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {"kid": self._kid, "typ": "JWT"}
        return jwt.api_jws.encode(text, self._key, algorithm=self.algorithm, headers=headers)

    def jwks(self) -> dict[str, Any]:
        """Return the key set that verifies."""
        found = (
            RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
            if isinstance(self._key, rsa.RSAPrivateKey)
            else ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        )
        return {"keys": [{**found, "kid": self._kid, "alg": self.algorithm, "use": "sig"}]}

    def discovery(self, url: str, **more: object) -> dict[str, object]:
        """Return the discovery document of the issuer at ``url``, whose keys are at ``/jwks``."""
        return {
            "issuer": url,
            "jwks_uri": f"{url}/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            **more,
        }
