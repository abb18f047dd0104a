"""The bucket: objects put once, under a lock that the writer cannot shorten.

Rules: a put carries a SHA-256 checksum that S3 verifies, and ``If-None-Match: *``, so that a key is taken once. What
keeps an object is the *bucket's* default retention: a header is the writer's own choice, so one is sent only where a
target asks for longer than the default, never for less. Where ``lock_days`` says so, the first put of a process looks
that the bucket has that default, and refuses to write evidence into one that has not; whoever asks for an object's
facts is refused where it is kept for less. With a ``bucket_key`` every put names it (SSE-KMS), so that no object lies
there under another. Sources: S3 API reference, PutObject and HeadObject; S3 user guide, "Conditional writes" and
"Object Lock".
"""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AlreadyExists, NotFound, StoreUnavailable
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from chalicelib.settings import StoreSettings, SystemClock
from chalicelib.store.clients import Clients, calling, error_code

# S3 answers 409 where two conditional puts of a key met, and asks to repeat; 500 and 503 are load. Three tries with a
# pause ride those out within the recorder's 2 s window; more would only make its queue longer.
_MAX_TRIES: Final = 3
_MAX_PAUSE_S: Final = 0.2
_CONFLICT: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_AGAIN: Final = _CONFLICT | {"SlowDown", "RequestTimeout"}  # and every 5xx
_TAKEN: Final = frozenset({"PreconditionFailed", "412"})
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_KMS: Final = "aws:kms"
_ROUNDED: Final = timedelta(minutes=1)  # the two dates are whole seconds, and not of the same moment
_MAX_OBJECT: Final = 64 * 1024 * 1024  # a segment is at most 8 MiB; a reader never takes more into memory than this
_MAX_KEYS: Final = 100_000  # a day's segments of a busy connection; a listing past it is asked for by a narrower prefix


@dataclass(frozen=True, kw_only=True, slots=True)
class _Default:
    """The bucket's default retention. ``mode`` is GOVERNANCE or COMPLIANCE, empty where the bucket has none."""

    mode: str
    days: int


class S3Objects:
    """Implements ``domain.store.Objects``."""

    def __init__(self, clients: Clients, settings: StoreSettings, clock: Clock | None = None) -> None:
        self._clients = clients
        self._clock = clock if clock is not None else SystemClock()
        self._bucket = settings.bucket
        self._lock_days = settings.lock_days
        # With the key named on the put, a default that somebody changed meanwhile changes nothing (and S3 takes its own
        # key where a header names none). The bucket key keeps KMS's calls few: one for many objects.
        self._encryption: dict[str, Any] = {}
        if settings.bucket_key:
            self._encryption = {
                "ServerSideEncryption": _KMS,
                "SSEKMSKeyId": settings.bucket_key,
                "BucketKeyEnabled": True,
            }
        self._default: _Default | None = None
        self._pause = threading.Event()

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        kept = self._kept(keep_days)
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        uncertain = False  # an earlier try of this very call may have been applied
        for attempt in range(_MAX_TRIES):
            if attempt:
                self._pause.wait(random.uniform(0, _MAX_PAUSE_S))  # noqa: S311 - spreads writers, protects nothing
            try:
                answer = self._clients.objects().put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=body,
                    ContentType=content_type,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=checksum,
                    IfNoneMatch="*",
                    **kept,
                    **self._encryption,
                )
            except ClientError as error:
                code = error_code(error)
                if code in _TAKEN:
                    return self._ours(key, checksum, uncertain=uncertain)
                if code not in _AGAIN and not _is_theirs(error):
                    raise StoreUnavailable("a service could not be reached", service="s3", error=code) from error
                uncertain = uncertain or code not in _CONFLICT
            except (BotoCoreError, ResponseParserError):  # no answer: it may have been applied
                uncertain = True
            else:
                return ObjectVersion(key=key, version_id=str(answer.get("VersionId", "")))
        raise StoreUnavailable("a service could not be reached", service="s3", error="no answer")

    def get(self, key: str, version_id: str | None = None) -> bytes:
        which = {"VersionId": version_id} if version_id is not None else {}
        with calling("s3", lambda code: NotFound("there is no such object", key=key) if code in _ABSENT else None):
            answer = self._clients.objects().get_object(Bucket=self._bucket, Key=key, **which)
            if int(answer["ContentLength"]) > _MAX_OBJECT:
                raise StoreUnavailable("an object is larger than any of ours", key=key)
            body: bytes = answer["Body"].read()
        return body

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        which = {"VersionId": version_id} if version_id else {}
        with calling("s3", lambda code: NotFound("there is no such object", key=key) if code in _ABSENT else None):
            there = self._clients.objects().head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED", **which)
        self._check_kept(key, there)
        return ObjectFacts(
            key=key,
            version_id=str(there.get("VersionId", "")),
            size=int(there["ContentLength"]),
            sha256=_hex(str(there.get("ChecksumSHA256", ""))),
            kept_days=_kept_days(there),
        )

    def keys(self, prefix: str) -> Sequence[str]:
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            with calling("s3"):
                page = self._clients.objects().list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)
            found += [item["Key"] for item in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return found
            if len(found) > _MAX_KEYS:
                raise StoreUnavailable("a store holds more than can be read", store="objects", prefix=prefix)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _ours(self, key: str, checksum: str, *, uncertain: bool) -> ObjectVersion:
        """Return the version that this call put before its answer was lost. Raises AlreadyExists where another did."""
        if uncertain:
            there = self.facts(key)
            if there.sha256 == _hex(checksum):
                return ObjectVersion(key=key, version_id=there.version_id)
        raise AlreadyExists("this object exists already", key=key)

    def _check_kept(self, key: str, there: Mapping[str, Any]) -> None:
        """Raise StoreUnavailable where an object is kept for less than ``lock_days``, or is not encrypted as all are.
        S3 tells of the lock whoever has ``s3:GetObjectRetention``."""
        until = there.get("ObjectLockRetainUntilDate")
        if (
            self._lock_days
            and until is not None
            and until - there["LastModified"] < timedelta(days=self._lock_days) - _ROUNDED
        ):
            raise StoreUnavailable("an object is kept for less than the default", key=key)
        if self._encryption and there.get("ServerSideEncryption") != _KMS:
            raise StoreUnavailable("an object is not encrypted with our key", key=key)

    def _kept(self, days: int) -> dict[str, Any]:
        """Return the headers that lock an object for ``days``; none where the bucket's default is as long."""
        default = self._bucket_default()
        if days <= default.days or not default.mode:
            return {}
        until = self._clock.now() + timedelta(days=days)
        return {"ObjectLockMode": default.mode, "ObjectLockRetainUntilDate": until}

    def _bucket_default(self) -> _Default:
        """Return the bucket's default. Raises StoreUnavailable where it is shorter than ``lock_days``. Looks once a
        process: bucket policy denies changing it."""
        if self._lock_days == 0:
            return _Default(mode="", days=0)
        if self._default is not None:
            return self._default
        with calling("s3"):
            answer = self._clients.objects().get_object_lock_configuration(Bucket=self._bucket)
        default = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
        days = int(default.get("Days", 0)) + 365 * int(default.get("Years", 0))
        if days < self._lock_days:
            raise StoreUnavailable("the bucket does not lock what is recorded", days=days, wanted=self._lock_days)
        self._default = _Default(mode=str(default.get("Mode", "")), days=days)
        return self._default


def _kept_days(there: Mapping[str, Any]) -> int:
    until = there.get("ObjectLockRetainUntilDate")
    return 0 if until is None else max(0, round((until - there["LastModified"]) / timedelta(days=1)))


def _hex(checksum: str) -> str:
    """Return S3's base64 of a SHA-256 as hexadecimal digits; empty where it is none (of parts, or not there). Pure."""
    try:
        found = base64.b64decode(checksum, validate=True)
    except ValueError:
        return ""
    return found.hex() if len(found) == hashlib.sha256().digest_size else ""


def _is_theirs(error: ClientError) -> bool:
    """Say whether S3 failed rather than refused: then nobody knows whether the put was applied."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
