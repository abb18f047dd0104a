"""What CloudTrail tells becomes events: nothing that a caller chose makes one go away, and what is none is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.audit import AuditEvent, AuditName, ocsf
from chalicelib.domain.cloud_call import cloud_call
from chalicelib.domain.errors import BadRequest
from chalicelib.services.event_objects import checked_row
from chalicelib.services.watch_cloud import WatchCloud
from tests.fakes.broker import MemoryAudit
from tests.fakes.clock import START, FakeClock
from tests.fakes.cloud import ADMIN, MINT, assumed, delivered, record

BUCKET = "countersign-recordings"
SESSION = "ses_01m6dsg7e0fwejtv7egfb0rbxm"
CONNECTION = "con_01m6dsg7e0fwejtv7egfb0rbxn"
SEGMENT = f"rec/v1/{SESSION}/{CONNECTION}/000000.ndjson.gz"


def told(event: object) -> AuditEvent:
    audit = MemoryAudit()
    assert WatchCloud(audit, FakeClock())(event) == 1
    (found,) = audit.events
    checked_row(found.row(writer="fn_test", number=0))
    return found


def get_object(**other: Any) -> dict[str, Any]:
    request = {"bucketName": BUCKET, "key": SEGMENT, "Host": f"{BUCKET}.s3.eu-west-1.amazonaws.com"}
    arns = (f"arn:aws:s3:::{BUCKET}/{SEGMENT}", f"arn:aws:s3:::{BUCKET}")
    return record("s3", "GetObject", request, data=True, read_only=True, resources=arns, **other)


def test_who_read_a_recording_past_the_command_line_is_told() -> None:
    """security.md: somebody reads recordings outside the CLI: by whom, from where, which session's."""
    found = told(delivered(get_object()))
    assert (found.name, found.actor, found.peer) == (AuditName.RECORDING_READ, ADMIN["arn"], "192.0.2.7")
    assert (found.session_id, found.connection_id, found.subject) == (SESSION, CONNECTION, f"{BUCKET}/{SEGMENT}")
    assert ocsf(found) == (6003, 2)


@pytest.mark.parametrize("escape", [str, lambda source: "/" + quote(source, safe=""), lambda source: quote(source)])
def test_a_manifest_is_read_and_a_recording_is_copied_out(escape: Callable[[str], str]) -> None:
    """A copy into a bucket of one's own is a read, and CloudTrail names the destination in the request; the source is
    a header of the copier's, escaped as they like."""
    key = f"manifests/v1/2026-11-02/{SESSION}/{CONNECTION}.json"
    manifest = record("s3", "GetObject", {"bucketName": BUCKET, "key": key}, data=True, read_only=True)
    assert told(delivered(manifest)).connection_id == CONNECTION
    mine = {"bucketName": "my-own", "key": "loot", "x-amz-copy-source": escape(f"{BUCKET}/{SEGMENT}")}
    copied = told(delivered(record("s3", "CopyObject", mine, data=True)))
    assert (copied.name, copied.subject, copied.session_id) == (
        AuditName.RECORDING_READ,
        f"{BUCKET}/{SEGMENT}",
        SESSION,
    )


CHANGES = [
    (record("lambda", "UpdateFunctionCode20150331v2", {"functionName": "countersign-mint"},
            response={"codeSha256": "yoqgXJ3G1ROsFXLUfkxIKHbCiKf2eKCiIkxoktNUoNE="}),
     "code.changed", "countersign-mint", "lambda:UpdateFunctionCode codeSha256=yoqg"),
    (record("lambda", "UpdateEventSourceMapping20150331", {"uUID": "1b1b", "enabled": False}),
     "code.changed", "1b1b", "lambda:UpdateEventSourceMapping enabled=off"),
    (record("ecs", "RegisterTaskDefinition", {"family": "broker"}), "code.changed", "broker", "ecs:RegisterTaskDef"),
    (record("ecs", "ExecuteCommand", {"cluster": "c", "container": "broker", "task": "t1", "command": "/bin/sh"}),
     "code.changed", "t1", "ecs:ExecuteCommand cluster=c container=broker in eu-west-1"),
    (record("kms", "ScheduleKeyDeletion", {"keyId": "1234abcd", "pendingWindowInDays": 7},
            resources=("arn:aws:kms:eu-west-1:111122223333:key/1234abcd",)),
     "key.changed", "1234abcd", "kms:ScheduleKeyDeletion"),
    (record("kms", "UpdateAlias", {"aliasName": "alias/countersign-record", "targetKeyId": "mine"}),
     "key.changed", "alias/countersign-record", "kms:UpdateAlias targetKeyId=mine"),
    (record("s3", "PutBucketPolicy", {"bucketName": BUCKET, "bucketPolicy": {"Statement": []}}),
     "bucket.changed", BUCKET, "s3:PutBucketPolicy in eu-west-1"),
    (record("s3", "DeleteObject", {"bucketName": BUCKET, "key": SEGMENT}, data=True, error="AccessDenied"),
     "bucket.changed", f"{BUCKET}/{SEGMENT}", "s3:DeleteObject"),
    (record("dynamodb", "UpdateContinuousBackups",
            {"tableName": "countersign-chains",
             "pointInTimeRecoverySpecification": {"pointInTimeRecoveryEnabled": False}}),
     "table.changed", "countersign-chains", "dynamodb:UpdateContinuousBackups pointInTimeRecoveryEnabled=off"),
    (record("dynamodb", "UpdateTimeToLive",
            {"tableName": "countersign-chains", "timeToLiveSpecification": {"enabled": True, "attributeName": "x"}}),
     "table.changed", "countersign-chains", "dynamodb:UpdateTimeToLive enabled=on"),
    (record("dynamodb", "UpdateTable",
            {"tableName": "countersign-chains", "streamSpecification": {"streamEnabled": False}}),
     "table.changed", "countersign-chains", "dynamodb:UpdateTable streamEnabled=off"),
    (record("dynamodb", "RestoreTableToPointInTime",
            {"sourceTableName": "countersign-chains", "targetTableName": "countersign-chains-2"}),
     "table.changed", "countersign-chains-2", "dynamodb:RestoreTableToPointInTime sourceTableName=countersign-chains"),
    (record("dynamodb", "DeleteTable", {"tableName": "countersign-chains"}), "table.changed", "countersign-chains",
     "dynamodb:DeleteTable"),
    (record("iam", "PutRolePolicy", {"roleName": "countersign-mint", "policyName": "more", "policyDocument": "{}"}),
     "role.changed", "countersign-mint", "iam:PutRolePolicy policyName=more"),
    (record("cloudtrail", "StopLogging", {"name": "trail"}), "trail.changed", "trail", "cloudtrail:StopLogging"),
    (record("events", "DisableRule", {"name": "watch"}), "trail.changed", "watch", "events:DisableRule"),
    (record("ecr", "PutImage", {"repositoryName": "broker", "imageTag": "v2"}), "code.changed", "broker",
     "ecr:PutImage imageTag=v2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "subject", "why"), CHANGES, ids=[row[0]["eventName"] for row in CHANGES])
def test_a_change_around_us_is_told(call: dict[str, Any], name: str, subject: str, why: str) -> None:
    """security.md: somebody changes the code or the task; key, bucket, table, roles, and what watches all that."""
    found = told(delivered(call))
    assert (found.name.value, found.subject, found.actor) == (name, subject, ADMIN["arn"])
    assert found.why.startswith(why)
    assert (found.code, ocsf(found)) == (call.get("errorCode", ""), (6003, 3))


def test_a_query_of_the_archive_is_told_without_its_text() -> None:
    """CloudTrail leaves the statement out of what it records, and so do we where it did not: it holds people's data."""
    request = {"queryString": "SELECT 'alice' FROM recordings", "workGroup": "countersign", "clientRequestToken": "x"}
    made = record("athena", "StartQueryExecution", request, response={"queryExecutionId": "0a1b"}, read_only=True)
    found = told(delivered(made))
    assert (found.name, found.subject) == (AuditName.ARCHIVE_QUERIED, "countersign")
    assert "queryExecutionId=0a1b" in found.why
    assert "alice" not in json.dumps(found.row(writer="w", number=0))


def test_a_policy_or_an_environment_in_a_request_is_not_told() -> None:
    """A request may hold anything, a secret in an environment above all."""
    request = {"functionName": "f", "environment": {"variables": {"TOKEN": "hunter2"}}, "policyDocument": "hunter2"}
    found = told(delivered(record("lambda", "UpdateFunctionConfiguration20150331v2", request)))
    assert "hunter2" not in json.dumps(found.row(writer="w", number=0))


def test_a_call_that_was_refused_is_told_with_its_error() -> None:
    """Trying is a fact; a refused call's request may be missing whole."""
    found = told(delivered(record("kms", "DisableKey", None, error="AccessDenied")))
    assert (found.code, found.subject, found.why) == ("AccessDenied", "", "kms:DisableKey in eu-west-1")
    assert found.row(writer="w", number=0)["status_id"] == 2


def test_a_redelivery_is_the_same_fact_and_another_call_is_another() -> None:
    """EventBridge delivers at least once: by CloudTrail's own id, whatever else is the same."""
    call = get_object()
    assert told(delivered(call)).uid() == told(delivered(call)).uid()
    assert told(delivered(call)).uid() != told(delivered(get_object())).uid()


def test_the_session_of_a_role_says_for_whom_it_was_assumed() -> None:
    """SourceIdentity cannot be changed once a role is assumed, and goes through further ones."""
    who = assumed("Ops", "cli", sourceIdentity="01m6dsg7e0fwejtv7egfb0rbxm")
    assert "sourceIdentity=01m6dsg7e0fwejtv7egfb0rbxm" in told(delivered(get_object(who=who))).why


@pytest.mark.parametrize(
    ("who", "actor"),
    [
        ({"type": "AWSService", "invokedBy": "athena.amazonaws.com"}, "AWSService:athena.amazonaws.com"),
        ({"type": "AWSAccount", "principalId": "AIDAEXAMPLE", "accountId": "999988887777"}, "AWSAccount:AIDAEXAMPLE"),
        ({"type": "Root", "arn": "arn:aws:iam::111122223333:root"}, "arn:aws:iam::111122223333:root"),
        ({}, "unknown"),
        ({"type": 7, "arn": ["x"]}, "unknown"),
    ],
)
def test_whoever_calls_has_a_name(who: dict[str, Any], actor: str) -> None:
    """A service and another account's principal have no ARN, and an event without anybody would be of no use."""
    assert told(delivered(get_object(who=who))).actor == actor


def test_tomorrows_call_of_a_watched_service_is_told_too() -> None:
    """A list of the names that we know would be a way around."""
    found = told(delivered(record("dynamodb", "ObliterateTable20290101", {"tableName": "countersign-chains"})))
    assert (found.name.value, found.why.split()[0]) == ("table.changed", "dynamodb:ObliterateTable")


def test_a_call_that_only_looks_is_nothing() -> None:
    """A rule that lets reads through as well would fill the log."""
    audit = MemoryAudit()
    looked = delivered(record("kms", "GetKeyPolicy", {"keyId": "k"}, read_only=True))
    assert WatchCloud(audit, FakeClock())(looked) == 0
    assert audit.events == []


def test_a_call_of_the_future_is_of_now() -> None:
    """Whoever's clock is off, an auditor's period has an end."""
    assert told(delivered(get_object(at=START + timedelta(days=400)))).at == START


HOSTILE: list[Any] = [
    None,
    [],
    "x",
    {},
    {**delivered(get_object()), "source": "evil"},
    {**delivered(get_object()), "detail-type": "Object Created"},
    {**delivered(get_object()), "detail": "x"},
    delivered({**get_object(), "eventVersion": "2.0"}),
    delivered({**get_object(), "eventSource": "s3.evil.example"}),
    delivered({**get_object(), "eventName": "Get Object"}),
    delivered({**get_object(), "eventTime": "yesterday"}),
    delivered({**get_object(), "eventTime": "0001-01-01T00:00:00+01:00"}),
    delivered({**get_object(), "eventID": 7}),
    delivered({name: value for name, value in get_object().items() if name != "userIdentity"}),
    delivered(record("ec2", "RunInstances", {})),
]


@pytest.mark.parametrize("event", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_event_of_cloudtrail_is_refused_and_tells_nothing(event: object) -> None:
    """Whoever may put events on the bus makes none of ours: sources that begin with ``aws.`` are AWS's alone."""
    audit = MemoryAudit()
    with pytest.raises(BadRequest):
        WatchCloud(audit, FakeClock())(event)
    assert audit.events == []


def test_names_that_a_caller_chose_hide_nothing() -> None:
    """Attack: a key so long, or so strange, that the event of its reading is dropped, cut or refused."""
    keys: list[Any] = [
        "rec/" + "x" * 5000,
        "rec/\x00\x1b[2J\udc80\n",
        "rec/v1/../../..",
        7,
        None,
        ["rec/"],
        {"rec": {}},
    ]
    for key in keys:
        call = copy.deepcopy(get_object())
        call["requestParameters"]["key"] = key
        found = told(delivered(call))
        assert found.name is AuditName.RECORDING_READ
        assert found.session_id == ""
    off = {"tableName": "x" * 600, "pointInTimeRecoverySpecification": {"pointInTimeRecoveryEnabled": False}}
    said = told(delivered(record("dynamodb", "UpdateContinuousBackups", off))).row(writer="w", number=0)["why"]
    assert "pointInTimeRecoveryEnabled=off" in str(said)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(get_object(), _JSON)))
def test_any_record_is_told_or_refused(changed: dict[str, Any]) -> None:
    """A poison record ends no function: whatever stands where, it is an event or a refusal."""
    audit = MemoryAudit()
    try:
        WatchCloud(audit, FakeClock())(delivered({**get_object(), **changed}))
    except BadRequest:
        return
    for event in audit.events:
        checked_row(event.row(writer="w", number=0))


def test_the_record_of_mint_reads_as_its_function() -> None:
    """A Lambda's session has the function's name: whose call it was can be told."""
    signed = record("kms", "Sign", {"keyId": "k", "signingAlgorithm": "ECDSA_SHA_256"}, who=MINT, read_only=True)
    assert cloud_call(signed).who.endswith("/countersign-mint")
