"""Who the broker is in a local stack: a certificate by an authority made at start, and an SSH host key.

Rules: keys lie in the state folder, readable by the owner alone; the authority may sign nothing but what it signed
here (path length 0), and everything ends after ``LIFETIME``. Clients get the authority's certificate in ``connect``;
it is put into no trust store.
Sources: RFC 5280 sections 4.2.1.6 (names) and 4.2.1.9 (basic constraints); sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chalicelib.domain.clock import Clock
from dev.ssh_keys import make_key

LIFETIME: Final = timedelta(days=30)  # a stack runs for hours; a forgotten one does not stay trusted for long
_SKEW: Final = timedelta(minutes=5)  # a client's clock may be behind


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerIdentity:
    """PEM files: what the listener presents, its key, and what a client verifies it with; and the SSH host key, its
    public half as ``TYPE BASE64``."""

    certificate: Path
    key: Path
    authority: Path
    ssh_key: Path
    ssh_public: str

    def authority_pem(self) -> str:
        return self.authority.read_text()

    def write_known_hosts(self, host: str, port: int) -> Path:
        """Write what an ssh client verifies the broker at ``host`` and ``port`` with; return the file."""
        path = self.authority.with_name("known_hosts")
        return _write(path, f"[{host}]:{port} {self.ssh_public}\n".encode(), 0o644)


def make_server_identity(folder: Path, clock: Clock) -> ServerIdentity:
    """Make an authority, a certificate for ``localhost`` and 127.0.0.1 and a host key in ``folder``. Replaces
    earlier ones; the authority's key is forgotten at once, since nothing else is to be signed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    begins, ends = clock.now() - _SKEW, clock.now() + LIFETIME
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("Countersign local stack")
    base = x509.CertificateBuilder().not_valid_before(begins).not_valid_after(ends).issuer_name(authority_name)
    authority = (
        base.subject_name(authority_name)
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        base.subject_name(_name("localhost"))
        .public_key(server_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key_pem = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem, ssh = serialization.Encoding.PEM, make_key()
    return ServerIdentity(
        certificate=_write(folder / "broker.crt", server.public_bytes(pem), 0o644),
        key=_write(folder / "broker.key", key_pem, 0o600),
        authority=_write(folder / "ca.crt", authority.public_bytes(pem), 0o644),
        ssh_key=_write(folder / "ssh_host_key", ssh.private.encode(), 0o600),
        ssh_public=ssh.public,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, mode: int) -> Path:
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_bytes(content)
    return path
