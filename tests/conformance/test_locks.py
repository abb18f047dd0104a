"""Locks, legal holds and marks: what each bucket does with them, and what it does to who comes second."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest
from boto3.session import Session
from botocore.exceptions import ClientError

from chalicelib.domain.errors import AlreadyExists, NotFound, StoreUnavailable
from chalicelib.domain.store import Stores
from chalicelib.settings import StoreSettings, SystemClock
from chalicelib.store.locks import MARK
from chalicelib.store.opened import open_stores
from dev.bucket import LIFECYCLE
from dev.provision import BUCKET_KEY, provision
from tests.conformance.backends import REGION, Backend, new_settings
from tests.conformance.racing import RACERS, race

KEY = "rec/v1/s/c/000000.ndjson.gz"
BODY = b"a segment"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """A bucket whose default lock is 30 days, and the administrator's client."""

    settings: StoreSettings
    stores: Stores
    s3: Any


@pytest.fixture
def bucket(backend: Backend) -> Bucket:
    if backend.name == "memory":
        pytest.skip("memory has no bucket")
    settings = new_settings(lock_days=30)
    provision(settings)
    settings = dataclasses.replace(settings, bucket_key=f"alias/{settings.prefix}-{BUCKET_KEY}")
    return Bucket(settings=settings, stores=open_stores(settings), s3=Session().client("s3", region_name=REGION))


@pytest.mark.parametrize(("asked", "kept"), [(0, 30), (7, 30), (30, 30), (31, 31), (400, 400)])
def test_a_put_is_kept_for_what_was_asked_and_never_for_less_than_the_default(
    bucket: Bucket, asked: int, kept: int
) -> None:
    """A target's retention lengthens a lock; a misconfigured one must not shorten it."""
    bucket.stores.objects.put_new(KEY, BODY, content_type="application/gzip", keep_days=asked)
    assert bucket.stores.objects.facts(KEY).kept_days == kept
    told = bucket.s3.head_object(Bucket=bucket.settings.bucket, Key=KEY)
    assert told["ObjectLockMode"] == "GOVERNANCE", "as the bucket's default has it"
    assert abs(told["ObjectLockRetainUntilDate"] - told["LastModified"] - timedelta(days=kept)) < timedelta(minutes=2)


def test_a_bucket_without_a_default_takes_no_evidence(backend: Backend) -> None:
    """Somebody took the default away: what is put then could be deleted at once."""
    if backend.name == "memory":
        pytest.skip("memory has no bucket")
    settings = new_settings(lock_days=0)
    provision(settings)
    stores = open_stores(dataclasses.replace(settings, lock_days=30))
    with pytest.raises(StoreUnavailable, match="does not lock"):
        stores.objects.put_new(KEY, BODY, content_type="application/gzip", keep_days=400)


def test_a_locked_version_goes_for_nobody_and_a_held_one_not_even_by_bypass(bucket: Bucket) -> None:
    """A legal hold stands whatever a lock's mode lets somebody bypass."""
    put = bucket.stores.objects.put_new(KEY, BODY, content_type="application/gzip")

    def delete(**how: Any) -> None:
        bucket.s3.delete_object(Bucket=bucket.settings.bucket, Key=KEY, VersionId=put.version_id, **how)

    with pytest.raises(ClientError, match="AccessDenied"):
        delete()
    bucket.stores.locks.hold(KEY)
    with pytest.raises(ClientError, match="AccessDenied"):
        delete(BypassGovernanceRetention=True)
    assert bucket.stores.objects.get(KEY, put.version_id) == BODY
    assert bucket.stores.locks.facts(KEY).held


def test_holds_and_marks_are_told_as_they_are(empty: Stores) -> None:
    """What decides whether an object may go reads these."""
    empty.objects.put_new(KEY, BODY, content_type="application/gzip")
    assert (empty.locks.facts(KEY).held, empty.locks.facts(KEY).marked) == (False, False)
    for _ in range(2):
        empty.locks.mark(KEY)
        assert empty.locks.facts(KEY).marked
    for _ in range(2):
        empty.locks.hold(KEY)
        assert (empty.locks.facts(KEY).held, empty.locks.facts(KEY).marked) == (True, False)
    for _ in range(2):
        empty.locks.lift(KEY)
        assert not empty.locks.facts(KEY).held
    facts = empty.locks.facts(KEY)
    assert facts.kept_until is not None
    assert (facts.kept_days, empty.locks.default_days()) == (1, 1)


@pytest.mark.parametrize("what", ["facts", "hold", "lift", "mark"])
def test_what_is_not_there_is_not_found(empty: Stores, what: str) -> None:
    """A hold on nothing must not look like one on something."""
    with pytest.raises(NotFound):
        getattr(empty.locks, what)("rec/v1/nothing")


def test_what_is_hidden_by_a_delete_marker_is_not_found(bucket: Bucket) -> None:
    """Somebody with all rights hid it: a hold on the marker would hold nothing."""
    bucket.stores.objects.put_new(KEY, BODY, content_type="application/gzip")
    bucket.s3.delete_object(Bucket=bucket.settings.bucket, Key=KEY)
    with pytest.raises(NotFound):
        bucket.stores.locks.facts(KEY)
    with pytest.raises(NotFound):
        bucket.stores.locks.hold(KEY)


def test_a_key_that_was_deleted_is_free_and_the_version_stays(bucket: Bucket) -> None:
    """Known of S3: If-None-Match sees a delete marker as nothing. So the bucket's policy denies DeleteObject to all,
    and a manifest names versions."""
    first = bucket.stores.objects.put_new(KEY, BODY, content_type="application/gzip")
    bucket.s3.delete_object(Bucket=bucket.settings.bucket, Key=KEY)
    second = bucket.stores.objects.put_new(KEY, b"another", content_type="application/gzip")
    assert second.version_id != first.version_id
    assert bucket.stores.objects.get(KEY, first.version_id) == BODY


def test_one_of_many_puts_of_a_key_wins(bucket: Bucket) -> None:
    """412 for who comes later and 409 for who comes at once are one answer: the key is taken."""
    results = race(
        lambda number: bucket.stores.objects.put_new(KEY, str(number).encode(), content_type="text/plain", keep_days=99)
    )
    won = [number for number, result in enumerate(results) if not isinstance(result, Exception)]
    assert len(won) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == RACERS - 1
    assert bucket.stores.objects.get(KEY) == str(won[0]).encode()


def test_the_lifecycle_of_the_file_is_taken_as_it_is(bucket: Bucket) -> None:
    """A rule that S3 refuses is found at deployment; one that it reads otherwise is found here."""
    told = json.loads(LIFECYCLE.read_text())
    bucket.s3.put_bucket_lifecycle_configuration(Bucket=bucket.settings.bucket, LifecycleConfiguration=told)
    rules = bucket.s3.get_bucket_lifecycle_configuration(Bucket=bucket.settings.bucket)["Rules"]
    assert {rule["ID"] for rule in rules} == {rule["ID"] for rule in told["Rules"]}
    (over,) = [rule for rule in rules if rule["ID"] == "what-is-over"]
    assert over["Filter"] == {"Tag": {"Key": MARK, "Value": "yes"}}
    assert over["Expiration"]["Days"] == 1


def test_our_lock_and_theirs_are_of_one_clock(bucket: Bucket) -> None:
    """A lock is an absolute time that we compute: with a wrong clock it would end too early."""
    before = SystemClock().now()
    bucket.stores.objects.put_new(KEY, BODY, content_type="application/gzip", keep_days=400)
    until = bucket.stores.locks.facts(KEY).kept_until
    assert until is not None
    assert abs(until - before - timedelta(days=400)) < timedelta(minutes=2)
