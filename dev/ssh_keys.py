"""SSH keys of the local stack: made at start, in OpenSSH's own forms. It signs nothing.

Source: PROTOCOL.key of OpenSSH; RFC 4253 section 6.6, RFC 8709 (Ed25519).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPair:
    """An Ed25519 key: the private half as PEM, the public one as ``TYPE BASE64``."""

    private: str = field(repr=False)
    public: str


def make_key() -> KeyPair:
    """Make a key pair."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return KeyPair(private=private.decode(), public=_line(key.public_key()))


def public_line(der: bytes) -> str:
    """Return ``TYPE BASE64`` of a public key that KMS returned (DER). Raises ValueError for any but elliptic curves."""
    key = serialization.load_der_public_key(der)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the key is not one of an elliptic curve")  # noqa: TRY004 - a wrong value, not a wrong type
    return _line(key)


def _line(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
