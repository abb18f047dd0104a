"""The rules of ``infra/events``, matched by an implementation of EventBridge that is not ours (ministack's; moto has no
TestEventPattern): what is ours passes, in every form in which a caller may name it, and what is another's does not.

What it does not prove: that AWS's own matcher agrees, or that CloudTrail records each call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any, Final, TypeAlias

import pytest
from boto3.session import Session

from chalicelib.services.watch_cloud import audit_event, delivered_call
from dev.emulator import start_ministack
from tests.conformance.backends import REGION
from tests.fakes.cloud import delivered, record

RULES: Final = {path.stem: path for path in (Path(__file__).parents[2] / "infra" / "events").glob("*.json")}
PLACES: Final = {
    "PREFIX": "cs-prod",
    "BUCKET": "cs-prod-recordings",
    "DIGEST_BUCKET": "cs-prod-digests",
    "FUNCTION_PREFIX": "cs-prod-fn-",
}
Matching: TypeAlias = Callable[[Mapping[str, Any]], set[str]]
# EventBridge's quota of a pattern's characters, without a request to AWS for more.
MAX_PATTERN: Final = 2048
FUNCTION: Final = "arn:aws:lambda:eu-west-1:111122223333:function:cs-prod-fn-mint"
TABLE: Final = "arn:aws:dynamodb:eu-west-1:111122223333:table/cs-prod-chains"
SEGMENT: Final = "rec/v1/ses_x/con_x/000000.ndjson.gz"
OURS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("recordings", record("s3", "GetObject", {"bucketName": PLACES["BUCKET"], "key": SEGMENT}, data=True)),
    ("recordings", record("s3", "GetObject", {"bucketName": PLACES["BUCKET"], "key": "manifests/v1/x"}, data=True)),
    ("recordings", record("s3", "GetObject", {"bucketName": PLACES["BUCKET"], "key": "kept/v1/x.json"}, data=True)),
    (
        "recordings",
        record(
            "s3",
            "CopyObject",
            {"bucketName": "my-own", "key": "loot", "x-amz-copy-source": f"/{PLACES['BUCKET']}/{SEGMENT}"},
            data=True,
        ),
    ),
    ("bucket", record("s3", "PutBucketPolicy", {"bucketName": PLACES["BUCKET"]})),
    ("bucket", record("s3", "PutBucketObjectLockConfiguration", {"bucketName": PLACES["DIGEST_BUCKET"]})),
    ("bucket", record("s3", "DeleteObject", {"bucketName": PLACES["BUCKET"], "key": SEGMENT}, error="AccessDenied")),
    ("archive", record("athena", "StartQueryExecution", {"workGroup": "countersign"}, read_only=True)),
    ("functions", record("lambda", "UpdateFunctionCode20150331v2", {"functionName": "cs-prod-fn-mint"})),
    ("functions", record("lambda", "UpdateFunctionCode20150331v2", {"functionName": FUNCTION})),
    (
        "functions",
        record("lambda", "UpdateFunctionCode20150331v2", {"functionName": "111122223333:function:cs-prod-fn-mint"}),
    ),
    ("functions", record("lambda", "UpdateFunctionConfiguration20150331v2", None, error="AccessDenied")),
    (
        "functions",
        record(
            "lambda",
            "UpdateEventSourceMapping20150331",
            {"uUID": "1b1b", "enabled": False},
            response={"functionArn": FUNCTION},
        ),
    ),
    ("tasks", record("ecs", "RegisterTaskDefinition", {"family": "broker"})),
    ("tasks", record("ecs", "ExecuteCommand", {"cluster": "c", "task": "t"})),
    ("tasks", record("ecr", "PutImage", {"repositoryName": "broker"})),
    ("keys", record("kms", "ScheduleKeyDeletion", {"keyId": "k"})),
    ("keys", record("kms", "PutKeyPolicy", None, error="AccessDenied")),
    ("tables", record("dynamodb", "DeleteTable", {"tableName": "cs-prod-chains"})),
    ("tables", record("dynamodb", "UpdateTimeToLive", {"tableName": TABLE})),
    ("tables", record("dynamodb", "UpdateContinuousBackups", {"tableName": "cs-prod-asks"})),
    ("tables", record("dynamodb", "ExportTableToPointInTime", {"tableArn": TABLE, "s3Bucket": "my-own"})),
    (
        "tables",
        record(
            "dynamodb",
            "RestoreTableToPointInTime",
            {"sourceTableName": "cs-prod-chains", "targetTableName": "copy"},
        ),
    ),
    ("tables", record("dynamodb", "DeleteTable", None, error="AccessDenied")),
    ("roles", record("iam", "PutRolePolicy", {"roleName": "cs-prod-fn-mint"})),
    ("roles", record("iam", "AttachRolePolicy", None, error="AccessDenied")),
    ("trails", record("cloudtrail", "StopLogging", {"name": "trail"})),
    ("trails", record("events", "DisableRule", {"name": "cs-prod-recordings"})),
    ("trails", record("logs", "DeleteSubscriptionFilter", {"logGroupName": "/aws/lambda/cs-prod-fn-mint"})),
]
OTHERS: Final[list[dict[str, Any]]] = [
    record("s3", "GetObject", {"bucketName": PLACES["BUCKET"], "key": "events/v1/x"}, data=True),
    record("s3", "GetObject", {"bucketName": "another", "key": SEGMENT}, data=True),
    record("s3", "PutObject", {"bucketName": PLACES["BUCKET"], "key": SEGMENT}, data=True),
    record("s3", "PutBucketPolicy", {"bucketName": "another"}),
    record("lambda", "UpdateFunctionCode20150331v2", {"functionName": "another"}),
    record("lambda", "Invoke", {"functionName": FUNCTION}, data=True),
    record("dynamodb", "DeleteTable", {"tableName": "another"}),
    record("kms", "Sign", {"keyId": "k"}, read_only=True),
    record("iam", "PutRolePolicy", {"roleName": "another"}),
]


def pattern(rule: str) -> str:
    rendered = json.loads(Template(RULES[rule].read_text()).substitute(PLACES))
    return json.dumps(rendered, separators=(",", ":"))


@pytest.fixture(scope="module")
def matching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matching]:
    """Gives what returns the rules that let an event through."""
    emulator = start_ministack(tmp_path_factory.mktemp("ministack"))
    told = emulator.environment(REGION)
    session = Session(told["AWS_ACCESS_KEY_ID"], told["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    events = session.client("events", endpoint_url=emulator.endpoint)
    patterns = {rule: pattern(rule) for rule in RULES}

    def rules(event: Mapping[str, Any]) -> set[str]:
        text = json.dumps(event)
        return {
            rule
            for rule, found in patterns.items()
            if events.test_event_pattern(EventPattern=found, Event=text)["Result"]
        }

    yield rules
    emulator.stop()


@pytest.mark.emulator
@pytest.mark.xdist_group("event-rules")
def test_every_rule_lets_its_own_through_however_it_is_named(matching: Matching) -> None:
    """Attack: a function or a table by its ARN, a copy in a read's place: each gets by a rule that knows one form."""
    missed = [(rule, call["eventName"]) for rule, call in OURS if matching(delivered(call)) != {rule}]
    assert missed == []


@pytest.mark.emulator
@pytest.mark.xdist_group("event-rules")
def test_no_rule_lets_anothers_through(matching: Matching) -> None:
    """Reading events would make events: a loop that pays by the call."""
    told = [(call["eventName"], rules) for call in OTHERS if (rules := matching(delivered(call)))]
    assert told == []


@pytest.mark.emulator
@pytest.mark.xdist_group("event-rules")
def test_nobody_but_aws_gets_through(matching: Matching) -> None:
    """PutEvents takes no source that begins with ``aws.``; of any other no rule lets anything through."""
    forged = [{**delivered(call), "source": "evil.s3"} for _, call in OURS]
    assert [matching(one) for one in forged] == [set()] * len(forged)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_fits_eventbridge_and_its_events_are_told(rule: str) -> None:
    """A pattern that is too long is refused at deployment; a call that passes a rule and has no name is lost."""
    assert len(pattern(rule)) <= MAX_PATTERN
    calls = [call for name, call in OURS if name == rule]
    assert calls
    assert all(audit_event(delivered_call(delivered(call))) is not None for call in calls)
