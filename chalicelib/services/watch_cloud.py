"""What happens around us becomes AuditEvents: who read a recording past the command line, who queried the archive, who
changed code, keys, bucket, tables, roles, or what watches all this.

EventBridge delivers what CloudTrail records, one call an event, as the rules in ``infra/events`` let it through:
*which* resources are ours is for those rules to say, since a key is named by its id and a function by any of four
forms. Rules: a call that was refused is told like one that worked, with its error as the code, because trying is a
fact too; so is a call that we have no name for, of a service that we watch: tomorrow's API changes things as today's
does. Nothing that a caller chose makes an event go away. An event is by CloudTrail's own id of the call, so that a
redelivery counts once. What is no such event is refused, alone.

An event's ``operation_id`` is CloudTrail's ``eventID``, ``actor`` the caller's ARN, ``subject`` what was called upon.
What it does not do: judge whether a change was meant (a deployment changes code), see what CloudTrail was not told to
record, or keep a record's request: names from an allow-list alone, since a request may hold anything.

Source: docs.aws.amazon.com, EventBridge user guide, "AWS service events delivered via AWS CloudTrail" (shape,
``detail-type``; nobody but AWS can put a source that begins with ``aws.``); S3 user guide, "CloudTrail S3 object-level
actions".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.cloud_call import CloudCall, cloud_call
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.identifiers import CONNECTION_ID, SESSION_ID

DETAIL_TYPES: Final = frozenset({"AWS API Call via CloudTrail", "AWS Service Event via CloudTrail"})
_CHANGED: Final[Mapping[str, AuditName]] = {
    "lambda": AuditName.CODE_CHANGED,
    "ecs": AuditName.CODE_CHANGED,
    "ecr": AuditName.CODE_CHANGED,
    "kms": AuditName.KEY_CHANGED,
    "s3": AuditName.BUCKET_CHANGED,
    "dynamodb": AuditName.TABLE_CHANGED,
    "iam": AuditName.ROLE_CHANGED,
    "cloudtrail": AuditName.TRAIL_CHANGED,
    "events": AuditName.TRAIL_CHANGED,
    "logs": AuditName.TRAIL_CHANGED,
    "athena": AuditName.ARCHIVE_QUERIED,
}
_READ_OBJECT: Final = frozenset(
    {"GetObject", "SelectObjectContent", "GetObjectTorrent", "CopyObject", "UploadPartCopy"}
)
_RECORDING: Final = re.compile(r"(?:rec/v1|manifests/v1/\d{4}-\d\d-\d\d)/([^/]{1,64})/([^/]{1,64})(?:/|\.json\Z)")
# Where the name of what is called upon stands, in the order in which it is looked for: in the request's own words.
_SUBJECT: Final = (
    *("functionName", "aliasName", "keyId", "tableName", "targetTableName", "sourceTableName", "resourceArn"),
    *("tableArn", "backupArn", "backupName", "roleName", "policyArn", "userName", "repositoryName", "task"),
    *(
        "taskDefinition",
        "service",
        "family",
        "cluster",
        "trailName",
        "name",
        "rule",
        "logGroupName",
        "workGroup",
        "uUID",
    ),
)
# What else of a request says what was done; never a policy's text, an environment or a statement.
_TELLING: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("versionId", "x-amz-copy-source"),
    "athena": ("queryExecutionContext.database", "workGroup"),
    "lambda": ("handler", "functionVersion", "s3Key", "uUID"),
    "ecs": ("cluster", "service", "taskDefinition", "container"),
    "ecr": ("imageTag",),
    "kms": ("targetKeyId", "granteePrincipal", "pendingWindowInDays"),
    "dynamodb": ("sourceTableName", "targetTableName", "restoreDateTime", "backupArn"),
    "iam": ("policyName", "policyArn"),
    "cloudtrail": ("trailName",),
    "events": ("rule", "name"),
    "logs": ("filterName",),
}
_OFF: Final = (  # a switch that was turned off is the point of the call
    ("pointInTimeRecoverySpecification", "pointInTimeRecoveryEnabled"),
    ("timeToLiveSpecification", "enabled"),
    ("streamSpecification", "streamEnabled"),
    ("deletionProtectionEnabled",),
    ("enabled",),
    ("enableExecuteCommand",),
)
_ANSWERED: Final[Mapping[str, tuple[str, ...]]] = {
    "lambda": ("codeSha256", "functionArn"),
    "athena": ("queryExecutionId",),
}


class WatchCloud:
    """Audits calls of AWS's APIs. Thread-safe where the log is."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def __call__(self, event: object) -> int:
        """Audit what EventBridge delivered; return how many events that was: none for a call that only looked.

        Raises BadRequest where it is no event of CloudTrail's, and whatever the audit log raises: Lambda tries again.
        """
        call = delivered_call(event)
        told = audit_event(call)
        if told is None:
            return 0
        self._audit.record(replace(told, at=min(call.at, self._clock.now())))
        return 1


def delivered_call(event: object) -> CloudCall:
    """Return the call that an event of EventBridge tells of. Raises BadRequest. Pure."""
    match event:
        case {"source": str(source), "detail-type": str(kind), "detail": Mapping() as detail}:
            if source.startswith("aws.") and kind in DETAIL_TYPES:
                return cloud_call(detail)
    raise BadRequest("this is no event that EventBridge delivers for CloudTrail")


def audit_event(call: CloudCall) -> AuditEvent | None:
    """Return the AuditEvent for a call, None where it only looked. Raises BadRequest for a service that is not watched.
    Pure."""
    if call.service not in _CHANGED:
        raise BadRequest("a call of a service that is not watched", service=call.service)
    if call.service == "s3" and call.operation in _READ_OBJECT:
        return _read(call)
    if call.read_only and call.service != "athena":
        return None
    return _event(call, _CHANGED[call.service], _subject(call))


def _read(call: CloudCall) -> AuditEvent:
    bucket, key = call.text("bucketName"), call.text("key")
    source = call.text("x-amz-copy-source")
    if source:  # a copy is a read of its source, whatever it was called upon
        bucket, _, key = unquote(source).removeprefix("/").partition("/")  # a header: it may escape any letter of a key
    told = _event(call, AuditName.RECORDING_READ, f"{bucket}/{key}" if bucket or key else _subject(call))
    found = _RECORDING.match(key)
    session, connection = (found[1], found[2]) if found is not None else ("", "")
    if SESSION_ID.match(session) and CONNECTION_ID.match(connection):
        return replace(told, session_id=session, connection_id=connection)
    return told


def _event(call: CloudCall, name: AuditName, subject: str) -> AuditEvent:
    return AuditEvent(
        name=name,
        at=call.at,
        subject=subject,
        code=call.code,
        operation_id=call.id,
        actor=call.who,
        peer=call.peer,
        why=" ".join((f"{call.service}:{call.operation}", *_details(call))),
    )


def _details(call: CloudCall) -> list[str]:
    # Switches first: an event's text is cut at its end, and whoever calls chooses how long the names are.
    found = [f"{path[-1]}={'on' if on else 'off'}" for path in _OFF if (on := call.flag(*path)) is not None]
    found += [f"{name}={value}" for name in _TELLING[call.service] if (value := call.text(*name.split(".")))]
    found += [f"{name}={value}" for name in _ANSWERED.get(call.service, ()) if (value := call.answered(name))]
    if call.source_identity:
        found.append(f"sourceIdentity={call.source_identity}")
    return [*found, f"in {call.region}"] if call.region else found


def _subject(call: CloudCall) -> str:
    """Return what the call was upon; where its request does not say (a refused call may have none), what AWS does."""
    if call.service == "s3":
        key = call.text("key")
        return f"{call.text('bucketName')}/{key}" if key else call.text("bucketName")
    named = next((value for name in _SUBJECT if (value := call.text(name))), "")
    return named or next(iter(call.resources), "")
