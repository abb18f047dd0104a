"""Makes what the stores need in an empty account: tables, buckets, keys, a bus. What ``infra/`` does in AWS, for the
emulators.

Endpoint and credentials come from botocore's own environment. Run once per account and prefix: it is not idempotent,
and fails where something is there already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from boto3.session import Session

from chalicelib.domain.signature import KeyPurpose
from chalicelib.settings import StoreSettings
from chalicelib.store.once import TTL_ATTRIBUTE
from chalicelib.store.vault import KEPT_KEY
from dev.settings import ROOT

_DECLARED: Final = ROOT / "infra" / "tables.json"  # what Terraform makes its tables of, too
BUCKET_KEY: Final = "bucket"  # the alias of the key that objects are encrypted with, after the prefix


Attributes = tuple[tuple[str, str], ...]  # a key's: the partition's, and the sort key's; S is text, N a number


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredTable:
    """A table as ``infra/tables.json`` has it: its key, its indexes (which hold keys only; only what is read by no key
    needs one), whether every change is streamed, and whether rows with a past ``expires`` are deleted."""

    key: Attributes
    indexes: Mapping[str, Attributes]
    streamed: bool
    expires: bool


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


def declared_tables() -> dict[str, DeclaredTable]:
    """Return the tables that a deployment has, by their names without prefix."""
    return {
        name: DeclaredTable(
            key=_attributes(told["key"]),
            indexes={index: _attributes(keys) for index, keys in told.get("indexes", {}).items()},
            streamed=told.get("stream", False),
            expires=told.get("expires", False),
        )
        for name, told in json.loads(_DECLARED.read_text()).items()
    }


def _attributes(told: list[list[str]]) -> Attributes:
    return tuple((name, kind) for name, kind in told)


def _make_tables(dynamodb: Any, settings: StoreSettings) -> tuple[dict[str, str], dict[str, str]]:
    arns, streams = dict[str, str](), dict[str, str]()
    tables = declared_tables()
    for name, table in tables.items():
        streamed = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}}
        made = dynamodb.create_table(
            TableName=f"{settings.prefix}-{name}",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_key_schema(table.key),
            **_indexed(table),
            **(streamed if table.streamed else {}),
        )["TableDescription"]
        arns[name] = made["TableArn"]
        if table.streamed:
            streams[name] = made["LatestStreamArn"]
    for name in tables:
        dynamodb.get_waiter("table_exists").wait(TableName=f"{settings.prefix}-{name}")
    for name in (name for name, table in tables.items() if table.expires):
        dynamodb.update_time_to_live(
            TableName=f"{settings.prefix}-{name}",
            TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE},
        )
    return arns, streams


def _indexed(table: DeclaredTable) -> dict[str, Any]:
    """Return the definitions of all key attributes, and the indexes."""
    defined = dict(table.key)
    for keys in table.indexes.values():
        defined |= dict(keys)
    found: dict[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind in defined.items()]
    }
    if table.indexes:
        found["GlobalSecondaryIndexes"] = [
            {"IndexName": name, "KeySchema": _key_schema(keys), "Projection": {"ProjectionType": "KEYS_ONLY"}}
            for name, keys in table.indexes.items()
        ]
    return found


def _key_schema(attributes: Attributes) -> list[dict[str, str]]:
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
