"""The broker's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.settings import read_settings
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.secret import Secret

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


def test_a_secret_store_gives_the_keys_themselves_and_none_is_shown() -> None:
    """A task has no file of its own; what ECS puts into the environment must not come out in a log."""
    given = {name: value for name, value in NEEDED.items() if "TLS" not in name}
    given |= {"COUNTERSIGN_TLS_CERTIFICATE_PEM": "chain", "COUNTERSIGN_TLS_KEY_PEM": "hunter2"}
    given |= {"COUNTERSIGN_LISTEN_SSH_PORT": "2222", "COUNTERSIGN_SSH_HOST_KEY_PEM": "hunter3"}
    told = read_settings(given)
    keys = (told.tls_certificate, told.tls_key, told.ssh_host_key)
    assert [key.expose() for key in keys if isinstance(key, Secret)] == ["chain", "hunter2", "hunter3"]
    assert "hunter" not in repr(told)


def test_of_two_keys_none_is_chosen() -> None:
    """The wrong one would be served, and nobody would know which."""
    with pytest.raises(ConfigurationInvalid, match="COUNTERSIGN_TLS_KEY_PEM"):
        read_settings(NEEDED | {"COUNTERSIGN_TLS_KEY_PEM": "x"})


def test_how_a_broker_leaves_and_who_stands_before_it() -> None:
    """By default sessions end at once, nobody stands before it, and no agent is asked."""
    told = read_settings(NEEDED)
    assert (told.drain_s, told.proxied, told.ecs_agent) == (0, False, "")
    told = read_settings(
        NEEDED
        | {"COUNTERSIGN_DRAIN_S": "90", "COUNTERSIGN_PROXY_PROTOCOL": "v2", "ECS_AGENT_URI": "http://169.254.170.2/x"}
    )
    assert (told.drain_s, told.proxied, told.ecs_agent) == (90, True, "http://169.254.170.2/x")


@pytest.mark.parametrize(
    "wrong", [{"COUNTERSIGN_PROXY_PROTOCOL": "v1"}, {"COUNTERSIGN_DRAIN_S": "3601"}, {"COUNTERSIGN_DRAIN_S": "-1"}]
)
def test_a_setting_that_is_not_known_stops_the_start(wrong: dict[str, str]) -> None:
    """Taken for off, a header would be believed by nobody and every client would be the balancer."""
    with pytest.raises(ConfigurationInvalid, match=next(iter(wrong))):
        read_settings(NEEDED | wrong)
