"""Our TLS towards clients."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.listeners.tls import postgres_tls
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.secret import Secret
from tests.e2e.postgres_broker import make_certificate


def test_the_binding_is_of_the_certificate_that_clients_see(tmp_path: Path) -> None:
    """Another hash would refuse every client with channel binding."""
    certificate, key = make_certificate(tmp_path)
    tls = postgres_tls(certificate, key)
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    assert tls.binding == hashlib.sha256(der).digest()
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("broken", ["missing", "empty", "swapped"])
def test_a_certificate_that_cannot_be_used_names_its_file(tmp_path: Path, broken: str) -> None:
    """The operator must find it from the one log line."""
    certificate, key = make_certificate(tmp_path)
    if broken == "missing":
        certificate.unlink()
    elif broken == "empty":
        certificate.write_text("")
    else:
        certificate, key = key, certificate
    with pytest.raises(ConfigurationInvalid, match=str(certificate)):
        postgres_tls(certificate, key)


def test_a_certificate_and_key_as_text_never_reach_a_disk(tmp_path: Path) -> None:
    """A task's root file system is read-only, and a key on a disk is a key in its snapshot."""
    certificate, key = make_certificate(tmp_path)
    given = Secret(certificate.read_text()), Secret(key.read_text())
    of_files = postgres_tls(certificate, key).binding
    certificate.unlink()
    key.unlink()
    assert postgres_tls(*given).binding == of_files
    assert list(tmp_path.rglob("*.key")) == []


def test_a_key_as_text_that_is_none_is_not_told(tmp_path: Path) -> None:
    """The secret must not come out in an error."""
    certificate, _ = make_certificate(tmp_path)
    with pytest.raises(ConfigurationInvalid, match="COUNTERSIGN_TLS_CERTIFICATE_PEM") as refused:
        postgres_tls(Secret(certificate.read_text()), Secret("hunter2"))
    assert "hunter2" not in str(refused.value)
