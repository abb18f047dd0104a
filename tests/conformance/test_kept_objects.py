"""What the bucket itself says of an object: its size, its hash, how long it is kept, and that it is encrypted."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from boto3.session import Session

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.recording import SWEEPER
from chalicelib.domain.store import Stores
from chalicelib.services.seal_orphan import Sealed, SealOrphan
from chalicelib.settings import SystemClock
from chalicelib.store.opened import open_stores
from dev.provision import BUCKET_KEY, provision
from tests.conformance.backends import REGION, Backend, new_settings
from tests.fakes.archive import ArchiveIn

BODY = b"a segment"


def test_the_facts_of_an_object_are_those_that_were_put(empty: Stores) -> None:
    """The recorder believes these and no acknowledgement."""
    put = empty.objects.put_new("rec/v1/a/1", BODY, content_type="application/gzip")
    found = empty.objects.facts("rec/v1/a/1")
    assert (found.size, found.sha256, found.version_id) == (len(BODY), sha256_hex(BODY), put.version_id)
    assert empty.objects.facts("rec/v1/a/1", put.version_id) == found
    with pytest.raises(NotFound):
        empty.objects.facts("rec/v1/a/2")


def test_every_put_is_kept_and_encrypted(backend: Backend) -> None:
    """Retention is the bucket's default, never a writer's choice; the key is named on each put."""
    if backend.name == "memory":
        pytest.skip("memory keeps nothing")
    settings = dataclasses.replace(new_settings(), bucket_key="")
    provision(settings)
    settings = dataclasses.replace(settings, bucket_key=f"alias/{settings.prefix}-{BUCKET_KEY}")
    stores = open_stores(settings)
    for key in ("rec/v1/s/c/000000.ndjson.gz", "manifests/v1/2026-11-02/s/c.json", "boots/v1/2026-11-02/b.json"):
        stores.objects.put_new(key, BODY, content_type="application/gzip")
        told = Session().client("s3", region_name=REGION).head_object(Bucket=settings.bucket, Key=key)
        assert (told["ObjectLockMode"], told["ServerSideEncryption"]) == ("GOVERNANCE", "aws:kms")
        assert told["ObjectLockRetainUntilDate"] - told["LastModified"] >= timedelta(
            days=settings.lock_days, seconds=-60
        )
        assert stores.objects.facts(key).size == len(BODY)


def test_an_object_that_is_kept_for_less_is_refused(backend: Backend) -> None:
    """Somebody put it with a date of their own: evidence that may go tomorrow is none."""
    if backend.name == "memory":
        pytest.skip("memory keeps nothing")
    settings = dataclasses.replace(new_settings(), lock_days=30)
    provision(settings)
    s3 = Session().client("s3", region_name=REGION)
    until = SystemClock().now() + timedelta(days=2)
    s3.put_object(
        Bucket=settings.bucket,
        Key="rec/v1/a/1",
        Body=BODY,
        ChecksumAlgorithm="SHA256",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=until,
    )
    with pytest.raises(StoreUnavailable, match="kept for less"):
        open_stores(settings).objects.facts("rec/v1/a/1")


def test_a_dead_brokers_recording_is_sealed_on_every_backend(empty: Stores) -> None:
    """Tombstones, adoption and the seal rest on what each store really does with a key that is taken."""
    archive = ArchiveIn(empty)
    row = archive.connect(
        archive.grant(archive.root, "orders-prod", "app", "again", rules=("r",)), archive.root, "postgres"
    ).row
    seal = SealOrphan(
        objects=empty.objects,
        connections=empty.connections,
        chains=empty.chains,
        keys=empty.keys,
        signer=empty.signer("sweep"),
        clock=archive.clock,
        sealed_by=SWEEPER,
        build="test",
    )
    assert row.id in {found.id for found in empty.connections.unsealed()}
    assert seal(row) is Sealed.UNUSED
    assert seal(empty.connections.get(row.session_id, row.id)) is Sealed.BY_OTHERS
    assert row.id not in {found.id for found in empty.connections.unsealed()}
    prefix = f"rec/v1/{row.session_id}/{row.id}/"
    assert len(empty.objects.keys(prefix)) == 8
