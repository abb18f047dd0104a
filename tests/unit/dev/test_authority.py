"""The stack's certificate authority, as a client's TLS sees it."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.authority import make_server_identity
from dev.processes import background
from tests.fakes.clock import FakeClock


def _handshake(folder: Path, name: str) -> None:
    identity = make_server_identity(folder, FakeClock(datetime.now(UTC)))  # noqa: TID251 - OpenSSL reads the machine's clock
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identity.certificate, identity.key)
    client = ssl.create_default_context(cadata=identity.authority_pem())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:  # the client refused
            theirs.close()

    serving = background("server", serve)
    with ours, client.wrap_socket(ours, server_hostname=name):
        pass
    serving.join(5)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_strict_client_verifies_the_broker_by_name_and_by_address(tmp_path: Path, name: str) -> None:
    """sslmode=verify-full always: both forms that clients are given must match."""
    _handshake(tmp_path, name)


def test_the_certificate_is_for_nobody_else(tmp_path: Path) -> None:
    """A client that is sent elsewhere must notice."""
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path, "db.example")


def test_keys_are_readable_by_their_owner_alone_and_the_authoritys_is_gone(tmp_path: Path) -> None:
    """With the authority's key another local user could stand in for the broker."""
    identity = make_server_identity(tmp_path / "authority", FakeClock())
    assert identity.key.stat().st_mode & 0o777 == identity.ssh_key.stat().st_mode & 0o777 == 0o600
    made = {"broker.crt", "broker.key", "ca.crt", "ssh_host_key"}
    assert {path.name for path in identity.key.parent.iterdir()} == made
