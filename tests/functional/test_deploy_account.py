"""What the deployment asks AWS, asked of the emulator: what a bucket still holds, which secrets are empty."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from boto3.session import Session

from dev.emulator import ROOT_KEY, Emulator, start_ministack
from dev.settings import SystemClock
from infra.deploy.account import Account
from infra.deploy.tools import StepFailed

REGION = "eu-west-1"
BUCKET = "recordings"
pytestmark = pytest.mark.emulator


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    running = start_ministack(tmp_path_factory.mktemp("account"))
    yield running
    running.stop()


@pytest.fixture
def account(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The operator's credentials are in the environment, as a pipeline has them."""
    for name, value in emulator.environment(REGION).items():
        monkeypatch.setenv(name, value)
    return Account(REGION)


def client(emulator: Emulator, service: str) -> Any:
    return Session(ROOT_KEY, ROOT_KEY, region_name=REGION).client(service, endpoint_url=emulator.endpoint)


def test_a_bucket_that_is_not_there_or_empty_holds_nothing(account: Account) -> None:
    """A deployment that failed at its first step must be taken down as well."""
    assert account.kept("never-made").objects == 0


def test_what_is_locked_and_held_is_seen(account: Account, emulator: Emulator) -> None:
    """Older versions count: a delete marker hides them and they are still there."""
    s3, until = client(emulator, "s3"), SystemClock().now().replace(microsecond=0) + timedelta(days=3)
    place = {"LocationConstraint": REGION}
    s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=place)
    s3.put_object(Bucket=BUCKET, Key="rec/1", Body=b"1", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
    s3.put_object(Bucket=BUCKET, Key="rec/2", Body=b"2")
    s3.put_object_legal_hold(Bucket=BUCKET, Key="rec/2", LegalHold={"Status": "ON"})
    s3.delete_object(Bucket=BUCKET, Key="rec/1")
    kept = account.kept(BUCKET)
    assert (kept.objects, kept.more, kept.mode, kept.locked_until, kept.held) == (2, False, "COMPLIANCE", until, True)


def test_a_filled_secret_is_not_asked_for_and_a_missing_one_stops(account: Account, emulator: Emulator) -> None:
    """A deployment must not stop for what is there. (This emulator gives an empty secret a version; AWS gives none.)"""
    secrets = client(emulator, "secretsmanager")
    filled = secrets.create_secret(Name="filled", SecretString="x")["ARN"]
    assert account.without_value([filled]) == []
    with pytest.raises(StepFailed, match="secretsmanager"):
        account.without_value([f"{filled}-gone"])


def test_nothing_deployed_has_no_api(account: Account) -> None:
    """The first deployment asks as well."""
    assert account.api_of("countersign-prod") is None
    assert not account.has_api("abcd1234")
