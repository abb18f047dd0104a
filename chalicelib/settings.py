"""The settings of the Lambdas: read from the environment once per process, here and nowhere else in ``chalicelib``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chalicelib.domain.errors import ConfigurationInvalid

_HOST_KEY: Final = re.compile(r"[a-z0-9-]{1,64} [A-Za-z0-9+/]{1,2048}={0,2}\Z")


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSettings:
    """Where state lives. ``prefix`` begins every table's and key alias's name; AWS endpoints come from botocore's own
    variables (``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT_URL_LAMBDA``), so that no code of ours knows of an emulator.
    ``digest_bucket`` is a bucket of another account that gets a copy of every hourly digest, empty where none does.
    ``bucket_key`` is the KMS key (ARN or alias) that every object is encrypted with, empty where the bucket's own
    default decides."""

    prefix: str
    region: str
    bucket: str
    lock_days: int
    digest_bucket: str = ""
    bucket_key: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the control plane is told. ``slack_signing_secret`` and ``slack_bot_token`` are references into the secret
    store (names or ARNs), never values; a function's name is ``function_prefix`` and its own. ``public_url`` is the
    API's own origin: issuer and audience of its tokens. ``waiters`` is how many callers may wait for people at once,
    over all processes: a share of the API function's concurrency (10 of the 50 that a small deployment reserves).
    ``broker_ssh_port`` is 0 where the broker serves no ssh; ``broker_ssh_host_key`` is its public line. ``event_bus``
    is the EventBridge bus that is told of events, empty where none is; ``broker_cluster`` the ECS cluster whose images
    the hourly digests name, empty where the brokers run elsewhere. ``approval_url`` is where people reach the
    approval page, empty where that is ``public_url``: passkeys are registered for its host, which must be a name."""

    store: StoreSettings
    stage: str
    public_url: str
    broker_audience: str
    broker_host: str
    broker_postgres_port: int
    broker_ca_pem: str
    slack_signing_secret: str
    slack_bot_token: str
    slack_channel: str
    slack_api_url: str
    function_prefix: str
    waiters: int = 10
    broker_ssh_port: int = 0
    broker_ssh_host_key: str = ""
    event_bus: str = ""
    broker_cluster: str = ""
    approval_url: str = ""


def read_store_settings(environment: Mapping[str, str] | None = None) -> StoreSettings:
    """Raises ConfigurationInvalid naming the variable that is missing or wrong."""
    env = os.environ if environment is None else environment
    return StoreSettings(
        prefix=_need(env, "COUNTERSIGN_PREFIX"),
        region=_need(env, "AWS_DEFAULT_REGION") if "AWS_DEFAULT_REGION" in env else _need(env, "AWS_REGION"),
        bucket=_need(env, "COUNTERSIGN_BUCKET"),
        lock_days=_number(env, "COUNTERSIGN_LOCK_DAYS", default="1"),
        digest_bucket=env.get("COUNTERSIGN_DIGEST_BUCKET", ""),
        bucket_key=env.get("COUNTERSIGN_BUCKET_KEY", ""),
    )


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that ``environment``, else the process's own, holds. Raises ConfigurationInvalid."""
    env = os.environ if environment is None else environment
    public_url = _need(env, "COUNTERSIGN_PUBLIC_URL").rstrip("/")
    return Settings(
        store=read_store_settings(env),
        stage=_need(env, "COUNTERSIGN_STAGE"),
        public_url=public_url,
        broker_audience=env.get("COUNTERSIGN_BROKER_AUDIENCE", f"{public_url}/v1"),
        broker_host=_need(env, "COUNTERSIGN_BROKER_HOST"),
        broker_postgres_port=_number(env, "COUNTERSIGN_BROKER_POSTGRES_PORT"),
        broker_ca_pem=_need(env, "COUNTERSIGN_BROKER_CA_PEM").replace("\\n", "\n"),
        slack_signing_secret=_need(env, "COUNTERSIGN_SLACK_SIGNING_SECRET"),
        slack_bot_token=_need(env, "COUNTERSIGN_SLACK_BOT_TOKEN"),
        slack_channel=_need(env, "COUNTERSIGN_SLACK_CHANNEL"),
        slack_api_url=env.get("COUNTERSIGN_SLACK_API_URL", "https://slack.com/api/"),
        function_prefix=_need(env, "COUNTERSIGN_FUNCTION_PREFIX"),
        waiters=_number(env, "COUNTERSIGN_WAITERS", default="10"),
        broker_ssh_port=_number(env, "COUNTERSIGN_BROKER_SSH_PORT", default="0"),
        event_bus=env.get("COUNTERSIGN_EVENT_BUS", ""),
        broker_cluster=env.get("COUNTERSIGN_BROKER_CLUSTER", ""),
        approval_url=_approval_url(env.get("COUNTERSIGN_APPROVAL_URL", "")),
        broker_ssh_host_key=_host_key(env.get("COUNTERSIGN_BROKER_SSH_HOST_KEY", "")),
    )


def _approval_url(url: str) -> str:
    # Browsers use passkeys in a secure context alone: https, or the local machine by its name.
    if url and not url.startswith(("https://", "http://localhost:")):
        raise ConfigurationInvalid("the environment variable COUNTERSIGN_APPROVAL_URL is not an https address")
    return url.rstrip("/")


def _host_key(line: str) -> str:
    # It becomes a line of every client's known_hosts: a second line, or a marker, would be believed as well.
    if line and not _HOST_KEY.match(line):
        raise ConfigurationInvalid("the environment variable COUNTERSIGN_BROKER_SSH_HOST_KEY is no public host key")
    return line


def _need(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise ConfigurationInvalid(f"the environment variable {name} is not set")
    return value


def _number(env: Mapping[str, str], name: str, default: str = "") -> int:
    text = env.get(name, default)
    if not text.isascii() or not text.isdigit():
        raise ConfigurationInvalid(f"the environment variable {name} is not a whole number")
    return int(text)
