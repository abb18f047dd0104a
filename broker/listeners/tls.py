"""Our TLS towards clients: certificate and key from files, TLS 1.2 or newer, ALPN for direct TLS.

Rules: no client certificates yet; a key file that others may read is the operator's to notice, its absence ours. A
certificate whose signature names no single hash (Ed25519) works, and channel binding is then not offered.
Source: RFC 5929 section 4; PostgreSQL 17, 55.2.10 (ALPN ``postgresql``).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.engines.accepted import ServerTls
from broker.engines.postgres.binding import endpoint_hash
from broker.engines.postgres.frontend import ALPN
from chalicelib.domain.errors import ConfigurationInvalid


def postgres_tls(certificate: Path, key: Path) -> ServerTls:
    """Return the TLS of the PostgreSQL listener. Raises ConfigurationInvalid naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    # PostgreSQL's clients do not resume, and a ticket key that lives as long as the process weakens forward secrecy.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(certificate, key)
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ssl.SSLError, ValueError, IndexError) as error:
        raise ConfigurationInvalid(f"the broker's certificate {certificate} or its key cannot be used") from error
    return ServerTls(context=context, binding=endpoint_hash(leaf.public_bytes(Encoding.DER)))
