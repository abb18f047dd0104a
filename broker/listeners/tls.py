"""Our TLS towards clients: certificate and key from files or given as text, TLS 1.2 or newer, ALPN for direct TLS.

Rules: no client certificates yet; a key file that others may read is the operator's to notice, its absence ours. A text
never reaches a disk: OpenSSL, which reads files alone, gets one that is memory of this process (Linux). A
certificate whose signature names no single hash (Ed25519) works, and channel binding is then not offered.
Source: RFC 5929 section 4; PostgreSQL 17, 55.2.10 (ALPN ``postgresql``).
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.engines.accepted import ServerTls
from broker.engines.postgres.binding import endpoint_hash
from broker.engines.postgres.frontend import ALPN
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.secret import Secret


def postgres_tls(certificate: Path | Secret, key: Path | Secret) -> ServerTls:
    """Return the TLS of the PostgreSQL listener. Raises ConfigurationInvalid naming the file, where there is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    # PostgreSQL's clients do not resume, and a ticket key that lives as long as the process weakens forward secrecy.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        with _file(certificate) as chain_file, _file(key) as key_file:
            context.load_cert_chain(chain_file, key_file)
            leaf = x509.load_pem_x509_certificates(chain_file.read_bytes())[0]
    except (OSError, ssl.SSLError, ValueError, IndexError) as error:
        which = certificate if isinstance(certificate, Path) else "in COUNTERSIGN_TLS_CERTIFICATE_PEM"
        raise ConfigurationInvalid(f"the broker's certificate {which} or its key cannot be used") from error
    return ServerTls(context=context, binding=endpoint_hash(leaf.public_bytes(Encoding.DER)))


@contextlib.contextmanager
def _file(given: Path | Secret) -> Iterator[Path]:
    """Give a file of what was given; that of a text is gone afterwards. Raises OSError."""
    if isinstance(given, Path):
        yield given
        return
    with open(os.memfd_create("countersign-tls"), "wb") as memory:
        memory.write(given.expose().encode())
        memory.flush()
        yield Path(f"/proc/self/fd/{memory.fileno()}")
