"""What happens around us, on the running stack: told by the deployed function under its own role into the bucket, and
reconciled by an auditor with the auditor's own rights. CloudTrail is made up, in the form that AWS documents: no
emulator writes any."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.identifiers import made_at
from dev.demo.waiting import wait_for
from dev.local_stack import Stack
from dev.part_settings import BUCKET, PREFIX
from dev.settings import SystemClock
from dev.targets import ORDERS
from tests.e2e.test_review_stack import command, work
from tests.fakes.cloud import ADMIN, MINT, delivered, record

pytestmark = pytest.mark.e2e
WITHIN_S = 60.0  # the functions' events come through a log's pump and a function that starts


def stored_events(stack: Stack) -> list[dict[str, Any]]:
    aws = stack.ready["aws"]
    session = Session(
        aws["auditor"]["AWS_ACCESS_KEY_ID"], aws["auditor"]["AWS_SECRET_ACCESS_KEY"], region_name=aws["region"]
    )
    s3 = session.client("s3", endpoint_url=aws["endpoint"])
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="events/v1/").get("Contents", [])]
    bodies = (gzip.decompress(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys)
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def test_who_read_a_recording_past_us_stands_in_the_bucket(stack: Stack) -> None:
    """From EventBridge's event to the locked object, under the deployed policies; a poison one stops nothing."""
    clock = SystemClock()
    call = record("s3", "GetObject", {"bucketName": BUCKET, "key": "rec/v1/x/y/0.ndjson.gz"}, at=clock.now(), data=True)
    assert stack.cloud({"detail": "poison"}).payload == {"told": 0, "refused": 1}
    assert stack.cloud(delivered(call)).payload == {"told": 1, "refused": 0}

    def told() -> list[dict[str, Any]] | None:
        return [one for one in stored_events(stack) if one.get("operation_id") == call["eventID"]] or None

    (found,) = wait_for("the event", told, clock, WITHIN_S)
    assert (found["name"], found["actor"], found["type_uid"]) == ("recording.read", ADMIN["arn"], 600302)


def test_a_configuration_that_was_made_active_stands_in_the_bucket(stack: Stack) -> None:
    """By our own stream, whoever put it."""

    def told() -> list[dict[str, Any]] | None:
        return [one for one in stored_events(stack) if one["name"] == "activation.put"] or None

    found = wait_for("the event", told, SystemClock(), WITHIN_S)
    assert found[0]["configuration_serial"] == 1


def test_a_credential_that_was_made_beside_us_is_named(stack: Stack, tmp_path: Path) -> None:
    """The auditor reads keys, bundles and rows with their own rights, and the trail from a folder."""
    clock = SystemClock()
    since = clock.now() - timedelta(seconds=1)
    session_id = work(stack)
    secret = {"secretId": f"{PREFIX}/targets/{ORDERS}/orders_app"}
    ours = record("secretsmanager", "GetSecretValue", secret, at=made_at(session_id), who=MINT, read_only=True)
    theirs = record("secretsmanager", "GetSecretValue", secret, at=clock.now() + timedelta(minutes=8), who=ADMIN)
    (tmp_path / "trail.json.gz").write_bytes(gzip.compress(json.dumps({"Records": [ours, theirs]}).encode()))
    until = timestamp(clock.now() + timedelta(minutes=9))
    code, found = command(
        stack, "reconcile", "--cloudtrail", str(tmp_path), "--since", timestamp(since), "--until", until
    )
    assert code == 65, found
    assert session_id in {one["session"] for one in found["matched"]}
    assert [one["id"] for one in found["credentials_without_connection"]] == [theirs["eventID"]]
    assert any("RDS IAM" in line for line in found["not_covered"])
