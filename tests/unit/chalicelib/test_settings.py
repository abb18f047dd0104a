"""The Lambdas' settings: what is optional, and what would reach every client's machine."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.settings import read_settings

NEEDED = {
    "COUNTERSIGN_PREFIX": "cs",
    "AWS_REGION": "eu-west-1",
    "COUNTERSIGN_BUCKET": "cs-evidence",
    "COUNTERSIGN_STAGE": "dev",
    "COUNTERSIGN_PUBLIC_URL": "https://countersign.example.com/",
    "COUNTERSIGN_BROKER_HOST": "broker.example.com",
    "COUNTERSIGN_BROKER_POSTGRES_PORT": "5432",
    "COUNTERSIGN_BROKER_CA_PEM": "-----BEGIN\\n-----END",
    "COUNTERSIGN_SLACK_SIGNING_SECRET": "slack/signing-secret",
    "COUNTERSIGN_SLACK_BOT_TOKEN": "slack/bot-token",
    "COUNTERSIGN_SLACK_CHANNEL": "C0",
    "COUNTERSIGN_FUNCTION_PREFIX": "cs-",
}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd4sx/GVwBqsoZrDIqGeRwmdbxmhsLRYrK7NclAM1qB"


def test_a_broker_without_ssh_needs_no_word_of_it() -> None:
    """A deployment of PostgreSQL alone goes on as it was."""
    told = read_settings(NEEDED)
    assert (told.broker_ssh_port, told.broker_ssh_host_key) == (0, "")
    assert told.public_url == "https://countersign.example.com"


def test_the_brokers_ssh_is_read() -> None:
    """Port and host key, as they go into every client's known_hosts."""
    told = read_settings({**NEEDED, "COUNTERSIGN_BROKER_SSH_PORT": "2222", "COUNTERSIGN_BROKER_SSH_HOST_KEY": HOST_KEY})
    assert (told.broker_ssh_port, told.broker_ssh_host_key) == (2222, HOST_KEY)


@pytest.mark.parametrize(
    "line",
    [
        f"{HOST_KEY}\n* ssh-rsa AAAA",
        f"@cert-authority * {HOST_KEY}",
        f"{HOST_KEY} comment",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f"* {HOST_KEY}",
    ],
    ids=["two lines", "an authority", "a comment", "a private key", "a pattern"],
)
def test_a_host_key_that_would_say_more_to_clients_is_refused(line: str) -> None:
    """A second line, or a marker, would be believed by every client of the deployment."""
    with pytest.raises(ConfigurationInvalid, match="COUNTERSIGN_BROKER_SSH_HOST_KEY"):
        read_settings({**NEEDED, "COUNTERSIGN_BROKER_SSH_HOST_KEY": line})


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_missing_is_named(name: str) -> None:
    """Whoever deploys reads which variable it is, and nothing starts without it."""
    with pytest.raises(ConfigurationInvalid, match=name):
        read_settings({other: value for other, value in NEEDED.items() if other != name})
