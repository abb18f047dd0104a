"""What AWS holds of a deployment, and how it is set: tables, buckets, keys. Reads settings alone, and no row or object.

The rights: ``dynamodb:DescribeTable``, ``DescribeTimeToLive`` and ``DescribeContinuousBackups``; the bucket's
``s3:GetBucketVersioning``, ``GetBucketObjectLockConfiguration``, ``GetEncryptionConfiguration``, ``GetBucketPolicy``
and ``GetBucketPublicAccessBlock``; ``kms:DescribeKey`` and ``GetKeyRotationStatus``. Who lacks one is told so.
What each must be is what ``infra/`` makes; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from chalicelib.domain.archived_item import TABLE_KEYS
from chalicelib.domain.errors import NotFound
from chalicelib.domain.signature import KeyPurpose
from chalicelib.settings import StoreSettings
from chalicelib.store.beats import BEATS
from chalicelib.store.clients import calling
from chalicelib.store.once import ONCE, TTL_ATTRIBUTE
from chalicelib.store.opened import Stores
from chalicelib.store.vault import KEPT_KEY
from countersign.doctor.checks import Check, Told, grouped, ok, warn, wrong
from countersign.printable import counted

STREAMED: Final = frozenset(TABLE_KEYS)
TABLES: Final = (*TABLE_KEYS, BEATS)
EXPIRING: Final = frozenset({ONCE, BEATS})
# The statements of infra/bucket/policy.json: each of them denies something to everybody.
DENIES: Final = (
    *("TlsOnly", "NothingIsDeleted", "NothingIsReplaced", "EverythingIsEncrypted", "WithOurKey"),
    *("NoLockBelowTheDefault", "NoLockForEver", "LocksByWhoSeals", "LocksAreNotBypassed"),
    *("HoldsByRetain", "MarksByRetain", "TheBucketStaysAsItIs"),
)
BUCKET_KEY: Final = "bucket"  # the alias of the key that objects are encrypted with, after the prefix
_APPLY: Final = "`terraform apply`: somebody changed it since, or it never ended."
# What S3 and DynamoDB say where nothing is there.
_ABSENT: Final = frozenset(
    (
        *("ResourceNotFoundException", "TableNotFoundException", "NotFoundException", "NoSuchBucket", "404"),
        *("NoSuchBucketPolicy", "ObjectLockConfigurationNotFoundError", "NoSuchPublicAccessBlockConfiguration"),
        "ServerSideEncryptionConfigurationNotFoundError",
    )
)


@contextmanager
def looking(service: str, what: str) -> Iterator[None]:
    """Turn AWS's refusals into ours: NotFound where ``what`` is not there, StoreUnavailable with AWS's code else."""
    with calling(service, lambda code: NotFound(f"{what} is not there") if code in _ABSENT else None):
        yield


class DeploymentChecks:
    """The checks of what ``infra/`` made, in the deployment that ``settings`` name."""

    def __init__(self, stores: Stores, settings: StoreSettings) -> None:
        self._stores = stores
        self._settings = settings

    def checks(self) -> list[Check]:
        found = [
            Check(name="tables", look=self._tables),
            Check(name="bucket", look=self._bucket),
            Check(name="kms keys", look=self._keys),
        ]
        if self._settings.digest_bucket:
            found.append(Check(name="digest bucket", look=self._digest_bucket))
        return found

    def _tables(self) -> Iterator[Told]:
        faults = grouped(((name, told) for name in TABLES for told in self._table(name)), "table")
        yield from faults
        if not faults:
            yield ok(f"{counted(len(TABLES), 'table')}: backups, streams, expiry and protection as they must be")

    def _table(self, name: str) -> Iterator[Told]:
        client, full = self._stores.clients.tables(), f"{self._settings.prefix}-{name}"
        try:
            with looking("dynamodb", f"table {name}"):
                table = client.describe_table(TableName=full)["Table"]
                expiry = client.describe_time_to_live(TableName=full)["TimeToLiveDescription"]
                backups = client.describe_continuous_backups(TableName=full)["ContinuousBackupsDescription"]
        except NotFound:
            yield wrong("not there", "`terraform apply`; is COUNTERSIGN_PREFIX the deployment's?")
            return
        yield from _stream_faults(name, table.get("StreamSpecification", {}))
        point = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
        if point != "ENABLED":
            yield wrong("cannot be restored to a point in time", _APPLY)
        if not table.get("DeletionProtectionEnabled", False):
            yield wrong("one call deletes it", _APPLY)
        if table.get("SSEDescription", {}).get("SSEType") != "KMS":
            yield warn("encrypted by AWS's own key, whose use no policy of yours decides", _APPLY)
        yield from _expiry_faults(name, expiry)

    def _bucket(self) -> Iterator[Told]:
        faults = [*self._held(self._settings.bucket), *self._guarded(self._settings.bucket)]
        yield from faults
        if not any(told.status is not ok("").status for told in faults):
            yield ok("versions, lock, encryption, policy and public access are as they must be")

    def _digest_bucket(self) -> Iterator[Told]:
        """The second bucket is another account's: its versions and lock are all that we may ask for there."""
        faults = list(self._held(self._settings.digest_bucket))
        yield from faults
        if not faults:
            yield ok("versions and lock are as they must be")

    def _held(self, bucket: str) -> Iterator[Told]:
        """Give what would let an object of ``bucket`` be lost."""
        s3 = self._stores.clients.objects()
        with looking("s3", f"the bucket {bucket}"):
            versions = s3.get_bucket_versioning(Bucket=bucket).get("Status")
        if versions != "Enabled":
            yield wrong("versions are off: what is overwritten is gone", _APPLY)
        try:
            with looking("s3", "the lock"):
                lock = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
        except NotFound:
            yield wrong(
                "it has no Object Lock: evidence can be deleted", "A new bucket; see the runbook of a first deploy."
            )
            return
        default = lock.get("Rule", {}).get("DefaultRetention", {})
        days = int(default.get("Days", 0)) + 365 * int(default.get("Years", 0))
        if lock.get("ObjectLockEnabled") != "Enabled" or days < max(self._settings.lock_days, 1):
            what = f"it locks objects for {counted(days, 'day')}, where {self._settings.lock_days} are promised"
            yield wrong(what, _APPLY)
        elif default.get("Mode") != "COMPLIANCE":
            what = f"its lock of {counted(days, 'day')} is GOVERNANCE: who may bypass it can delete evidence"
            yield warn(what, "lock_mode = COMPLIANCE in production; it cannot be undone before the days are over.")

    def _guarded(self, bucket: str) -> Iterator[Told]:
        """Give what would let somebody read, replace or unlock objects of ``bucket``."""
        s3 = self._stores.clients.objects()
        with looking("s3", "the encryption"):
            rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        by = {rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules}
        if by != {"aws:kms"}:
            yield wrong("objects are not encrypted with our key by default", _APPLY)
        try:
            with looking("s3", "the policy"):
                policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
        except NotFound:
            yield wrong("it has no policy: whoever has rights in the account may delete and replace", _APPLY)
        else:
            yield from _policy_faults(policy)
        try:
            with looking("s3", "the block of public access"):
                blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        except NotFound:
            blocked = {}
        if len(blocked) < 4 or not all(blocked.values()):
            yield wrong("public access is not blocked in all four ways", _APPLY)

    def _keys(self) -> Iterator[Told]:
        faults = [told for purpose in KeyPurpose for told in self._signing_key(purpose.value)]
        faults += [told for name in (BUCKET_KEY, KEPT_KEY) for told in self._cipher_key(name)]
        yield from faults
        if not faults:
            yield ok(f"{counted(len(KeyPurpose) + 2, 'key')}, all enabled and of the right kind")

    def _described(self, name: str) -> dict[str, Any] | None:
        try:
            with looking("kms", f"the key {name}"):
                found = self._stores.clients.keys().describe_key(KeyId=f"alias/{self._settings.prefix}-{name}")
        except NotFound:
            return None
        key: dict[str, Any] = found["KeyMetadata"]
        return key

    def _usable(self, name: str, key: dict[str, Any] | None) -> Iterator[Told]:
        if key is None:
            yield wrong(f"there is no key alias/{self._settings.prefix}-{name}", _APPLY)
        elif key.get("KeyState") == "PendingDeletion":
            what = f"the {name} key is going to be deleted: what it protects is lost then"
            yield wrong(what, "`aws kms cancel-key-deletion`, then `enable-key`, now; and ask who did it.")
        elif key.get("KeyState") != "Enabled":
            yield wrong(f"the {name} key is {key.get('KeyState', '?')}", "`aws kms enable-key`; and ask who did it.")

    def _signing_key(self, name: str) -> Iterator[Told]:
        key = self._described(name)
        yield from self._usable(name, key)
        if key is not None and (key.get("KeyUsage"), key.get("KeySpec")) != ("SIGN_VERIFY", "ECC_NIST_P256"):
            yield wrong(f"the {name} key is no P-256 signing key", "Make one, and `countersign keys rotate` to it.")

    def _cipher_key(self, name: str) -> Iterator[Told]:
        key = self._described(name)
        faults = list(self._usable(name, key))
        yield from faults
        if key is None or faults:
            return
        with looking("kms", f"the key {name}"):
            turns = self._stores.clients.keys().get_key_rotation_status(KeyId=key["KeyId"])["KeyRotationEnabled"]
        if not turns:
            yield warn(f"the {name} key is never rotated", _APPLY)


def _stream_faults(name: str, stream: dict[str, Any]) -> Iterator[Told]:
    told = (stream.get("StreamEnabled", False), stream.get("StreamViewType"))
    if name in STREAMED and told != (True, "NEW_AND_OLD_IMAGES"):
        yield wrong("changes reach no stream: they are not archived, and no card is posted", _APPLY)


def _expiry_faults(name: str, expiry: dict[str, Any]) -> Iterator[Told]:
    on = expiry.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}
    if name in EXPIRING and not (on and expiry.get("AttributeName") == TTL_ATTRIBUTE):
        yield wrong("rows never end: it grows for ever", _APPLY)
    elif name not in EXPIRING and on:
        yield wrong("rows end by themselves: evidence is lost", _APPLY)


def _policy_faults(policy: dict[str, Any]) -> Iterator[Told]:
    denied = {one.get("Sid") for one in policy.get("Statement", []) if _denies_everybody(one)}
    missing = [sid for sid in DENIES if sid not in denied]
    if missing:
        yield wrong(f"its policy does not deny: {', '.join(missing)}", _APPLY)
    if any(one.get("Effect") == "Allow" and one.get("Principal") in ("*", {"AWS": "*"}) for one in policy["Statement"]):
        yield wrong("its policy allows something to everybody", "Take that statement away; read the data events since.")


def _denies_everybody(statement: dict[str, Any]) -> bool:
    return statement.get("Effect") == "Deny" and statement.get("Principal") in ("*", {"AWS": "*"})
