"""How the bucket keeps its objects: their locks, legal holds, and the mark that what is over bears.

Rules: it never shortens a lock and never deletes; the mark is a tag that the bucket's lifecycle (infra/bucket) deletes
by, and a held object loses it. It speaks of the newest version of a key: keys are put once, and the bucket policy
denies every delete marker. Sources: S3 API reference, HeadObject, PutObjectLegalHold, PutObjectTagging; S3 user guide,
"Object Lock considerations" (lifecycle places delete markers on locked and held objects too, so age alone may never
be what it deletes by).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from chalicelib.domain.errors import NotFound
from chalicelib.domain.store import LockFacts
from chalicelib.settings import StoreSettings
from chalicelib.store.clients import Clients, calling

MARK: Final = "countersign-over"  # the tag's key and value: infra/bucket/lifecycle.json names both
_OVER: Final = "yes"
_NOT_OVER: Final = "no"  # written over it: no role of ours has a right whose name begins with Delete
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed", "405"})


class S3Locks:
    """Implements ``domain.store.Locks``. Thread-safe."""

    def __init__(self, clients: Clients, settings: StoreSettings) -> None:
        self._clients = clients
        self._bucket = settings.bucket

    def default_days(self) -> int:
        with calling("s3"):
            answer = self._clients.objects().get_object_lock_configuration(Bucket=self._bucket)
        default = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
        return int(default.get("Days", 0)) + 365 * int(default.get("Years", 0))

    def facts(self, key: str) -> LockFacts:
        with _reaching(key):
            there = self._clients.objects().head_object(Bucket=self._bucket, Key=key)
        until = there.get("ObjectLockRetainUntilDate")
        days = 0 if until is None else round((until - there["LastModified"]) / timedelta(days=1))
        return LockFacts(
            kept_until=until,
            kept_days=max(0, days),
            held=there.get("ObjectLockLegalHoldStatus") == "ON",
            marked=self._tags(key).get(MARK) == _OVER,
        )

    def hold(self, key: str) -> None:
        there = self.facts(key)  # first: it costs a tenth of a put, and most of a day is held already when it is read
        if not there.held:
            self._legal_hold(key, "ON")
        if there.marked:
            self._tag(key, _NOT_OVER)

    def lift(self, key: str) -> None:
        if self.facts(key).held:
            self._legal_hold(key, "OFF")

    def mark(self, key: str) -> None:
        self._tag(key, _OVER)

    def _legal_hold(self, key: str, status: str) -> None:
        with _reaching(key):
            self._clients.objects().put_object_legal_hold(Bucket=self._bucket, Key=key, LegalHold={"Status": status})

    def _tag(self, key: str, value: str) -> None:
        tags = {"TagSet": [{"Key": MARK, "Value": value}]}
        with _reaching(key):
            self._clients.objects().put_object_tagging(Bucket=self._bucket, Key=key, Tagging=tags)

    def _tags(self, key: str) -> dict[str, str]:
        with _reaching(key):
            answer = self._clients.objects().get_object_tagging(Bucket=self._bucket, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}


@contextmanager
def _reaching(key: str) -> Iterator[None]:
    with calling("s3", lambda code: NotFound("there is no such object", key=key) if code in _ABSENT else None):
        yield
