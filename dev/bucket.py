"""The bucket's own policy and lifecycle, from the very files that a deployment uses (``infra/bucket``).

Rules: the policy is a template with ``${NAME}`` places; it denies, whatever a role allows. The emulator gets it without
the statements whose condition it cannot judge (:data:`UNJUDGED`); those are tested apart, with the values that S3 gives
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import Any, Final

from chalicelib.domain.errors import ConfigurationInvalid
from dev.settings import ROOT

POLICY: Final = ROOT / "infra" / "bucket" / "policy.json"
LIFECYCLE: Final = ROOT / "infra" / "bucket" / "lifecycle.json"
# What ministack 1.5 has no value for: a Null or a negated condition on one of them would then deny every request.
UNJUDGED: Final = frozenset(
    {
        "aws:SecureTransport",  # it is spoken to without TLS, on 127.0.0.1
        "s3:if-none-match",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "s3:object-lock-remaining-retention-days",
    }
)


def bucket_policy(places: Mapping[str, str]) -> dict[str, Any]:
    """Return the policy with every place filled. Raises ConfigurationInvalid where one is not."""
    try:
        policy: dict[str, Any] = json.loads(Template(POLICY.read_text()).substitute(places))
    except (KeyError, ValueError) as error:
        raise ConfigurationInvalid(f"{POLICY}: not a policy template: {error}") from error
    return policy


def as_judged(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``policy`` without the statements that the emulator cannot judge. Pure."""
    kept = [one for one in policy["Statement"] if not UNJUDGED & condition_keys(one)]
    return {**policy, "Statement": kept}


def condition_keys(statement: Mapping[str, Any]) -> set[str]:
    """Return the condition keys that a statement names. Pure."""
    return {key for block in statement.get("Condition", {}).values() for key in block}


def guard(s3: Any, bucket: str, places: Mapping[str, str]) -> None:
    """Give the bucket its policy and lifecycle. ``s3`` is boto3's client with all rights. Idempotent."""
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=json.loads(LIFECYCLE.read_text()))
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(as_judged(bucket_policy(places))))


def places_of(*, account: str, function_prefix: str, bucket: str, bucket_key: str, lock_days: int) -> dict[str, str]:
    """Return the places of a stack whose roles are IAM users (``dev.roles``). Pure."""
    users = f"arn:aws:iam::{account}:user/"
    return {
        "BUCKET": bucket,
        "BUCKET_KEY": bucket_key,
        "LOCK_DAYS": str(lock_days),
        "PRINCIPALS": users,
        "FUNCTION_PREFIX": function_prefix,
        "BROKER": f"{users}{function_prefix}broker",
        "BREAK_GLASS": f"{users}{function_prefix}break-glass",
    }
