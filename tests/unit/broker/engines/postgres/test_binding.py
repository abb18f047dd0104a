"""tls-server-end-point, RFC 5929 section 4.1."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.engines.postgres.binding import endpoint_hash
from tests.fakes.clock import FakeClock


def der(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, algorithm: hashes.HashAlgorithm | None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = FakeClock().now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("algorithm", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")]
)
def test_the_hash_of_the_certificates_own_signature(algorithm: hashes.HashAlgorithm, name: str) -> None:
    """Both sides must choose the same hash, or every login fails."""
    certificate = der(ec.generate_private_key(ec.SECP256R1()), algorithm)
    assert endpoint_hash(certificate) == hashlib.new(name, certificate).digest()


def test_ed25519_is_not_bound() -> None:
    """It names no hash: the RFC leaves it undefined, and PostgreSQL fails on it."""
    assert endpoint_hash(der(ed25519.Ed25519PrivateKey.generate(), None)) is None


def test_what_is_no_certificate_is_refused() -> None:
    """Never a hash of something else."""
    with pytest.raises(ValueError, match="parsing"):
        endpoint_hash(b"nothing")
