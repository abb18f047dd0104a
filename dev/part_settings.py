"""What each part of the stack is told by its environment: where AWS is, what the deployment is called, where the broker
listens. The names are those that the parts' own settings read; nothing here is a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from dev.authority import ServerIdentity
from dev.provision import BUCKET_KEY
from dev.slack_standin import CHANNEL, SlackStandin

REGION: Final = "eu-west-1"
PREFIX: Final = "countersign-local"
FUNCTION_PREFIX: Final = f"{PREFIX}-"
BUCKET: Final = f"{PREFIX}-recordings"
DIGEST_BUCKET: Final = f"{PREFIX}-digests"  # at AWS another account's
STAGE: Final = "local"
# The broker's certificate names localhost too, since libpq before 15 matches no address in a certificate.
BROKER_HOST: Final = "localhost"
# Where the secret store keeps what the Slack stand-in and the app share.
BOT_TOKEN: Final = f"{PREFIX}/slack/bot-token"
SIGNING_SECRET: Final = f"{PREFIX}/slack/signing-secret"


@dataclass(frozen=True, kw_only=True, slots=True)
class Doors:
    """The ports on which the broker listens."""

    postgres: int
    ssh: int


def aws_settings(endpoint: str, lambda_url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_LAMBDA": lambda_url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def approval_url(api_url: str) -> str:
    """Return where people open the approval page of a local API: by name, since no browser uses a passkey elsewhere."""
    return f"http://localhost:{urlsplit(api_url).port}"


def plane_settings(api_url: str, doors: Doors, identity: ServerIdentity, slack: SlackStandin) -> dict[str, str]:
    return {
        "COUNTERSIGN_PREFIX": PREFIX,
        "COUNTERSIGN_BUCKET": BUCKET,
        "COUNTERSIGN_DIGEST_BUCKET": DIGEST_BUCKET,
        "COUNTERSIGN_LOCK_DAYS": "1",
        "COUNTERSIGN_BUCKET_KEY": f"alias/{PREFIX}-{BUCKET_KEY}",
        "COUNTERSIGN_STAGE": STAGE,
        "COUNTERSIGN_PUBLIC_URL": api_url,
        "COUNTERSIGN_APPROVAL_URL": approval_url(api_url),
        "COUNTERSIGN_BROKER_HOST": BROKER_HOST,
        "COUNTERSIGN_BROKER_POSTGRES_PORT": str(doors.postgres),
        "COUNTERSIGN_BROKER_SSH_PORT": str(doors.ssh),
        "COUNTERSIGN_BROKER_SSH_HOST_KEY": identity.ssh_public,
        "COUNTERSIGN_BROKER_CA_PEM": identity.authority_pem(),
        "COUNTERSIGN_SLACK_SIGNING_SECRET": SIGNING_SECRET,
        "COUNTERSIGN_SLACK_BOT_TOKEN": BOT_TOKEN,
        "COUNTERSIGN_SLACK_CHANNEL": CHANNEL,
        "COUNTERSIGN_SLACK_API_URL": slack.api_url,
        "COUNTERSIGN_FUNCTION_PREFIX": FUNCTION_PREFIX,
        "COUNTERSIGN_EVENT_BUS": PREFIX,
    }


def listening_settings(doors: Doors, identity: ServerIdentity) -> dict[str, str]:
    return {
        "COUNTERSIGN_LISTEN_HOST": "127.0.0.1",
        "COUNTERSIGN_LISTEN_POSTGRES_PORT": str(doors.postgres),
        "COUNTERSIGN_LISTEN_SSH_PORT": str(doors.ssh),
        "COUNTERSIGN_SSH_HOST_KEY": str(identity.ssh_key),
        "COUNTERSIGN_TLS_CERTIFICATE": str(identity.certificate),
        "COUNTERSIGN_TLS_KEY": str(identity.key),
    }
