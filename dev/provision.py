"""Makes what the stores need in an empty account: tables, buckets, keys, a bus. What ``infra/`` does in AWS, for the
emulators.

Endpoint and credentials come from botocore's own environment. Run once per account and prefix: it is not idempotent,
and fails where something is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from boto3.session import Session

from chalicelib.domain.archived_item import TABLE_KEYS
from chalicelib.domain.signature import KeyPurpose
from chalicelib.settings import StoreSettings
from chalicelib.store.activations import ACTIVATIONS
from chalicelib.store.approvals import ANSWERS, ASKS, BY_TIME, USES
from chalicelib.store.beats import BEATS
from chalicelib.store.chains import CHAINS
from chalicelib.store.connections import CONNECTIONS, OF_BOOT, UNSEALED
from chalicelib.store.once import ONCE, TTL_ATTRIBUTE
from chalicelib.store.revocations import REVOCATIONS
from chalicelib.store.sessions import BY_DAY, OF_TXN, SESSIONS
from chalicelib.store.vault import KEPT_KEY

# Table to its key attributes: the partition's, and the sort key's where there is one; S is text, N a number.
_TABLES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    CHAINS: (("txn", "S"), ("place", "S")),
    SESSIONS: (("id", "S"),),
    CONNECTIONS: (("session", "S"), ("id", "S")),
    BEATS: (("id", "S"),),
    ASKS: (("id", "S"),),
    ANSWERS: (("ask", "S"), ("person", "S")),
    USES: (("ask", "S"), ("n", "N")),
    REVOCATIONS: (("id", "S"),),
    ONCE: (("id", "S"),),
    ACTIVATIONS: (("line", "S"), ("serial", "N")),
}
# Table to the names and key attributes of its indexes, which hold keys only; only what is read by no key needs one.
_INDEXES: Final[Mapping[str, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]]] = {
    SESSIONS: ((OF_TXN, (("txn", "S"), ("id", "S"))), (BY_DAY, (("day", "S"), ("id", "S")))),
    CONNECTIONS: (
        (UNSEALED, (("open", "S"), ("opened", "S"))),
        (OF_BOOT, (("boot", "S"), ("number", "N"))),
    ),
    ASKS: ((BY_TIME, (("line", "S"), ("created", "S"))),),
}
BUCKET_KEY: Final = "bucket"  # the alias of the key that objects are encrypted with, after the prefix
_STREAMED: Final = frozenset(TABLE_KEYS)  # every change of what is evidence is archived; asks and answers have cards


@dataclass(frozen=True, kw_only=True, slots=True)
class Provisioned:
    """ARNs: ``tables`` and ``streams`` by table (without prefix), ``keys`` by purpose, the bucket's, and those of the
    keys that encrypt its objects and kept proofs."""

    tables: Mapping[str, str]
    streams: Mapping[str, str]
    keys: Mapping[str, str]
    bucket: str
    bucket_key: str
    kept_key: str


def provision(settings: StoreSettings) -> Provisioned:
    """Make everything and return its ARNs. Raises botocore's ClientError where something exists already."""
    session = Session(region_name=settings.region)
    tables, streams = _make_tables(session.client("dynamodb"), settings)
    for bucket in filter(None, (settings.bucket, settings.digest_bucket)):
        _make_bucket(session.client("s3"), settings, bucket)
    keys = _make_keys(session.client("kms"), settings)
    session.client("events").create_event_bus(Name=settings.prefix)
    return Provisioned(
        tables=tables,
        streams=streams,
        keys=keys,
        bucket=f"arn:aws:s3:::{settings.bucket}",
        bucket_key=_make_symmetric_key(session.client("kms"), settings, BUCKET_KEY),
        kept_key=_make_symmetric_key(session.client("kms"), settings, KEPT_KEY),
    )


def _make_tables(dynamodb: Any, settings: StoreSettings) -> tuple[dict[str, str], dict[str, str]]:
    arns, streams = dict[str, str](), dict[str, str]()
    for name, attributes in _TABLES.items():
        streamed = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}}
        made = dynamodb.create_table(
            TableName=f"{settings.prefix}-{name}",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_key_schema(attributes),
            **_indexed(attributes, _INDEXES.get(name, ())),
            **(streamed if name in _STREAMED else {}),
        )["TableDescription"]
        arns[name] = made["TableArn"]
        if name in _STREAMED:
            streams[name] = made["LatestStreamArn"]
    for name in _TABLES:
        dynamodb.get_waiter("table_exists").wait(TableName=f"{settings.prefix}-{name}")
    for name in (ONCE, BEATS):
        dynamodb.update_time_to_live(
            TableName=f"{settings.prefix}-{name}",
            TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE},
        )
    return arns, streams


def _indexed(
    attributes: tuple[tuple[str, str], ...], indexes: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
) -> dict[str, Any]:
    """Return the definitions of all key attributes, and the indexes."""
    defined = dict(attributes)
    for _, keys in indexes:
        defined |= dict(keys)
    found: dict[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind in defined.items()]
    }
    if indexes:
        found["GlobalSecondaryIndexes"] = [
            {"IndexName": name, "KeySchema": _key_schema(keys), "Projection": {"ProjectionType": "KEYS_ONLY"}}
            for name, keys in indexes
        ]
    return found


def _key_schema(attributes: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    roles = zip(attributes, ("HASH", "RANGE"), strict=False)
    return [{"AttributeName": key, "KeyType": role} for (key, _), role in roles]


def _make_bucket(s3: Any, settings: StoreSettings, bucket: str) -> None:
    s3.create_bucket(
        Bucket=bucket,
        ObjectLockEnabledForBucket=True,  # turns versioning on as well
        CreateBucketConfiguration={"LocationConstraint": settings.region},
    )
    if settings.lock_days:
        # GOVERNANCE, so that a stack that is thrown away can be; in AWS the mode is infra's parameter.
        retention = {"Mode": "GOVERNANCE", "Days": settings.lock_days}
        s3.put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
        )


def _make_symmetric_key(kms: Any, settings: StoreSettings, alias: str) -> str:
    made = kms.create_key(Description=f"{settings.prefix} {alias}")["KeyMetadata"]  # symmetric, for encryption
    kms.create_alias(AliasName=f"alias/{settings.prefix}-{alias}", TargetKeyId=made["KeyId"])
    return str(made["Arn"])


def _make_keys(kms: Any, settings: StoreSettings) -> dict[str, str]:
    arns: dict[str, str] = {}
    for purpose in KeyPurpose:
        made = kms.create_key(
            KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY", Description=f"{settings.prefix} {purpose}"
        )
        kms.create_alias(AliasName=f"alias/{settings.prefix}-{purpose}", TargetKeyId=made["KeyMetadata"]["KeyId"])
        arns[purpose.value] = made["KeyMetadata"]["Arn"]
    return arns
