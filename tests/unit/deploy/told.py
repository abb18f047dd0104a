"""What Terraform would print of a deployment, for the tests of the glue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]
CONFIG: Final = ROOT / ".chalice" / "config.json"
ROLES: Final = {
    path.stem: f"arn:aws:iam::123456789012:role/countersign-prod-{path.stem}"
    for path in (ROOT / ".chalice" / "policies").glob("*.json")
}


def told() -> dict[str, Any]:
    """Return the outputs by name."""
    environment = {
        "COUNTERSIGN_PREFIX": "countersign-prod",
        "COUNTERSIGN_BUCKET": "countersign-prod-recordings",
        "COUNTERSIGN_LOCK_DAYS": "365",
        "COUNTERSIGN_STAGE": "prod",
        "COUNTERSIGN_BROKER_HOST": "broker.example",
        "COUNTERSIGN_BROKER_POSTGRES_PORT": "5432",
        "COUNTERSIGN_BROKER_CA_PEM": "-----BEGIN CERTIFICATE-----",
        "COUNTERSIGN_SLACK_SIGNING_SECRET": "countersign-prod/slack/signing-secret",
        "COUNTERSIGN_SLACK_BOT_TOKEN": "countersign-prod/slack/bot-token",
        "COUNTERSIGN_SLACK_CHANNEL": "C1",
        "COUNTERSIGN_FUNCTION_PREFIX": "countersign-prod-",
    }
    return {
        "name": "countersign-prod",
        "region": "eu-west-1",
        "bucket": "countersign-prod-recordings",
        "digest_bucket": "",
        "lock_mode": "GOVERNANCE",
        "functions": {"roles": dict(ROLES), "environment": environment},
        "public_url": "",
        "approval_url": "",
        "broker": {"host": "broker.example", "postgres_port": 5432, "ssh_port": 22, "ca_pem": ""},
        "secrets": {"slack/bot-token": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:bot"},
    }


def outputs_text(found: dict[str, Any] | None = None) -> str:
    """Return them as ``terraform output -json`` prints them."""
    return json.dumps({name: {"value": value, "sensitive": False} for name, value in (found or told()).items()})
