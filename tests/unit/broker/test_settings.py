"""The broker's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.settings import read_settings
from chalicelib.domain.errors import ConfigurationInvalid

NEEDED = {
    "COUNTERSIGN_PREFIX": "test",
    "AWS_REGION": "eu-central-1",
    "COUNTERSIGN_BUCKET": "bucket",
    "COUNTERSIGN_FUNCTION_PREFIX": "test-",
    "COUNTERSIGN_TLS_CERTIFICATE": "/tls.pem",
    "COUNTERSIGN_TLS_KEY": "/tls.key",
}


@pytest.mark.parametrize("more", [{}, {"COUNTERSIGN_LISTEN_SSH_PORT": "0"}])
def test_a_broker_without_a_port_for_ssh_serves_none(more: dict[str, str]) -> None:
    """A deployment for PostgreSQL alone needs no host key."""
    assert read_settings(NEEDED | more).ssh_host_key is None


def test_a_broker_that_serves_ssh_needs_its_host_key() -> None:
    """A key made at start would be another after each deployment, and clients would be right to refuse it."""
    port = {"COUNTERSIGN_LISTEN_SSH_PORT": "2222"}
    with pytest.raises(ConfigurationInvalid, match="COUNTERSIGN_SSH_HOST_KEY"):
        read_settings(NEEDED | port)
    told = read_settings(NEEDED | port | {"COUNTERSIGN_SSH_HOST_KEY": "/key"})
    assert (told.ssh_port, told.ssh_host_key) == (2222, Path("/key"))
