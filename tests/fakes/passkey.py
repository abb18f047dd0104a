"""An authenticator and the browser before it, in software: real keys, real structures, signatures as W3C WebAuthn has
them; and everything about an assertion that somebody might do wrong on purpose.

    passkey = SoftPasskey()
    passkey.entry()                                    # the line of approvers.yaml
    passkey.answer(card, approved=True)                # the body of POST /v1/asks/ID/answers
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chalicelib.domain.passkey import Passkey

PRESENT: Final = 0x01
VERIFIED: Final = 0x04
ATTESTED: Final = 0x40
EXTENDED: Final = 0x80


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class SoftPasskey:
    """One credential. ``counter`` is what the next assertion says, and goes up by one; None keeps none (0)."""

    def __init__(self, *, rp: str = "countersign.example.com", counter: int | None = 7, bits: int = 0) -> None:
        """``bits``: an RSA key (RS256) of that size in the place of P-256 (ES256)."""
        self.rp = rp
        self.counter = counter
        self.origin = f"https://{rp}"
        self.id = base64url(secrets.token_bytes(32))
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        self._key = rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        spki = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(spki).decode()

    def registered(self) -> Passkey:
        return Passkey(id=self.id, public_key=self.public_key, rp=self.rp)

    def entry(self) -> str:
        """Return the entry of approvers.yaml, as flow YAML."""
        return json.dumps({"id": self.id, "public_key": self.public_key, "rp": self.rp, "note": "soft"})

    def assertion(
        self,
        challenge: bytes,
        /,
        *,
        flags: int = PRESENT | VERIFIED,
        rp: str | None = None,
        extra: bytes = b"",
        text: str | None = None,
        **client: Any,
    ) -> dict[str, str]:
        """Return an assertion in base64url. ``client`` changes the client data, where None leaves a member out, and
        ``text`` is it whole; ``extra`` follows the authenticator data's 37 bytes."""
        said = {
            "type": "webauthn.get",
            "challenge": base64url(challenge),
            "origin": self.origin,
            "crossOrigin": False,
        } | client
        kept = {name: value for name, value in said.items() if value is not None}
        client_data = (json.dumps(kept) if text is None else text).encode()
        counter = 0 if self.counter is None else self.counter
        self.counter = None if self.counter is None else self.counter + 1
        hashed = hashlib.sha256((self.rp if rp is None else rp).encode()).digest()
        authenticator_data = hashed + struct.pack(">BI", flags, counter) + extra
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        return {
            "client_data": base64url(client_data),
            "authenticator_data": base64url(authenticator_data),
            "signature": base64url(self._sign(signed)),
        }

    def answer(self, card: Mapping[str, Any], *, approved: bool = True, **how: Any) -> dict[str, Any]:
        """Return what the page sends for ``card``, as ``GET /v1/asks/ID/card`` gave it."""
        challenge = card["approve_challenge" if approved else "deny_challenge"]
        raw = base64.urlsafe_b64decode(challenge + "=")
        return {
            "approved": approved,
            "card_sha256": card["card_sha256"],
            "passkey_id": self.id,
            **self.assertion(raw, **how),
        }

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))
