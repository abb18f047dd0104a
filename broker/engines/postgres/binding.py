"""Channel binding data of type tls-server-end-point: a hash of the server's certificate.

Source: RFC 5929 section 4.1: the hash of the certificate's signature algorithm, SHA-256 in place of MD5 and SHA-1.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

_WEAK: Final = frozenset({"md5", "sha1"})


def endpoint_hash(der: bytes) -> bytes | None:
    """Return the binding data of a certificate (DER), or None where its signature names no single hash (Ed25519): RFC
    5929 leaves that undefined, so binding is not offered. Raises ValueError on what is no certificate."""
    try:
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    name = "sha256" if algorithm.name in _WEAK else algorithm.name
    return hashlib.new(name, der).digest()
