"""Real ES256 keys in memory, one for each purpose: what KMS does, without KMS."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.signature import KeyPurpose, check_signs_jws, checked_message, compact, signing_input


class MemorySigner:
    """Implements ``Signer`` with a fresh P-256 key."""

    def __init__(self, kid: str, purpose: KeyPurpose = KeyPurpose.TOKEN) -> None:
        self.kid = kid
        self._purpose = purpose
        self._key = ec.generate_private_key(ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        self._jwk = {"kty": "EC", "crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y), "kid": kid}

    def sign(self, typ: str, payload: bytes) -> str:
        check_signs_jws(self._purpose)
        signing = signing_input(typ, self.kid, payload)
        return compact(signing, self._signature(signing))

    def sign_bytes(self, message: bytes) -> bytes:
        return self._signature(checked_message(self._purpose, message))

    @property
    def public_jwk(self) -> Mapping[str, str]:
        return self.jwk()

    def _signature(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def jwk(self) -> Mapping[str, str]:
        """Return the public JWK."""
        return dict(self._jwk)


class MemoryKeys:
    """Implements ``Keys``, and gives the Signer of each purpose, as the composition roots do."""

    def __init__(self) -> None:
        self._signers = {purpose.value: MemorySigner(f"{purpose.value}-key-1", purpose) for purpose in KeyPurpose}

    def signer(self, purpose: str) -> MemorySigner:
        return self._signers[purpose]

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        signer = self._signers[purpose]
        return {signer.kid: signer.jwk()}

    def signers(self) -> tuple[MemorySigner, ...]:
        return tuple(self._signers.values())

    def replace(self, purpose: str, signer: MemorySigner) -> None:
        """Let ``signer`` sign for ``purpose``."""
        self._signers[purpose] = signer

    def rotate(self, purpose: str) -> None:
        """Replace the key of ``purpose``: what the old one signed verifies no more."""
        self._signers[purpose] = MemorySigner(f"{purpose}-key-2", KeyPurpose(purpose))


class MemoryKeyRing:
    """Implements ``services.rotate_key.KeyRing`` over :class:`MemoryKeys`. ``fails_at`` makes that call break off."""

    def __init__(self, keys: MemoryKeys) -> None:
        self._keys = keys
        self._made: dict[str, MemorySigner] = {}
        self.before: dict[str, str] = {}
        self.fails_at = ""

    def make(self, purpose: str, kid: str) -> str:
        """Make a key that signs nothing yet."""
        self._made[kid] = MemorySigner(kid, KeyPurpose(purpose))
        return kid

    def current(self, purpose: str) -> str:
        return self._keys.signer(purpose).kid

    def jwk(self, key_id: str) -> dict[str, str]:
        return dict(self._signer(key_id).jwk())

    def sign(self, key_id: str, typ: str, payload: bytes) -> str:
        return self._signer(key_id).sign(typ, payload)

    def point(self, purpose: str, *, now: str, before: str) -> None:
        if self.fails_at == "point":
            raise StoreUnavailable("a service could not be reached", service="kms")
        signer, self._made[before] = self._signer(now), self._signer(before)
        self.before[purpose] = before
        self._keys.replace(purpose, signer)

    def _signer(self, key_id: str) -> MemorySigner:
        of_now = {signer.kid: signer for signer in self._keys.signers()}
        found = of_now.get(key_id) or self._made.get(key_id)
        if found is None:
            raise NotFound("there is no such key")
        return found


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
