"""Real ES256 keys in memory, one for each purpose: what KMS does, without KMS."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from chalicelib.domain.signature import KeyPurpose, compact, signing_input


class MemorySigner:
    """Implements ``Signer`` with a fresh P-256 key."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, typ: str, payload: bytes) -> str:
        signing = signing_input(typ, self.kid, payload)
        r, s = decode_dss_signature(self._key.sign(signing, ec.ECDSA(hashes.SHA256())))
        return compact(signing, r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def jwk(self) -> Mapping[str, str]:
        """Return the public JWK."""
        numbers = self._key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y), "kid": self.kid}


class MemoryKeys:
    """Implements ``Keys``, and gives the Signer of each purpose, as the composition roots do."""

    def __init__(self) -> None:
        self._signers = {purpose.value: MemorySigner(f"{purpose.value}-key-1") for purpose in KeyPurpose}

    def signer(self, purpose: str) -> MemorySigner:
        return self._signers[purpose]

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        signer = self._signers[purpose]
        return {signer.kid: signer.jwk()}

    def rotate(self, purpose: str) -> None:
        """Replace the key of ``purpose``: what the old one signed verifies no more."""
        self._signers[purpose] = MemorySigner(f"{purpose}-key-2")


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
