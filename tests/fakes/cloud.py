"""Records as CloudTrail writes them, after the examples in AWS's own documentation, and EventBridge's envelope.

delivered(record("s3", "GetObject", {"bucketName": "b", "key": "rec/v1/..."}, data=True))
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from tests.fakes.clock import START

ACCOUNT: Final = "111122223333"
REGION: Final = "eu-west-1"
ROLE: Final = "countersign-mint"
_NUMBERS: Final = itertools.count(1)


def assumed(role: str, session: str, **context: Any) -> dict[str, Any]:
    """What CloudTrail says of a role's session; a Lambda's session has the function's name."""
    return {
        "type": "AssumedRole",
        "principalId": f"AROACKCEVSQ6C2EXAMPLE:{session}",
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}",
        "accountId": ACCOUNT,
        "accessKeyId": "ASIAIOSFODNN7EXAMPLE",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": "AROACKCEVSQ6C2EXAMPLE",
                "arn": f"arn:aws:iam::{ACCOUNT}:role/{role}",
                "accountId": ACCOUNT,
                "userName": role,
            },
            "attributes": {"creationDate": "2026-11-02T08:00:00Z", "mfaAuthenticated": "false"},
            **context,
        },
    }


ADMIN: Final = assumed("Admin", "mallory@example.com")
MINT: Final = assumed(ROLE, "countersign-mint")


def record(
    service: str,
    operation: str,
    request: Mapping[str, Any] | None = None,
    *,
    at: datetime = START,
    who: Mapping[str, Any] = ADMIN,
    response: Mapping[str, Any] | None = None,
    error: str = "",
    data: bool = False,
    read_only: bool = False,
    resources: tuple[str, ...] = (),
) -> dict[str, Any]:
    """One record. A refused call has its error; what AWS leaves out where there is none is left out."""
    failed = {"errorCode": error, "errorMessage": "User is not authorized to perform this"} if error else {}
    named = {"resources": [{"accountId": ACCOUNT, "ARN": arn, "type": "AWS::X::Y"} for arn in resources]}
    return {
        "eventVersion": "1.11",
        "userIdentity": dict(who),
        "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": operation,
        "awsRegion": REGION,
        "sourceIPAddress": "192.0.2.7",
        "userAgent": "[aws-cli/2.17]",
        **failed,
        "requestParameters": None if request is None else dict(request),
        "responseElements": None if response is None else dict(response),
        "requestID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"request {next(_NUMBERS)}")),
        "eventID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"event {next(_NUMBERS)}")),
        "readOnly": read_only,
        **(named if resources else {}),
        "eventType": "AwsApiCall",
        "managementEvent": not data,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Data" if data else "Management",
    }


def delivered(detail: Mapping[str, Any], *, kind: str = "AWS API Call via CloudTrail") -> dict[str, Any]:
    """What EventBridge invokes a function with."""
    service = str(detail.get("eventSource", "")).partition(".")[0]
    return {
        "version": "0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"envelope {next(_NUMBERS)}")),
        "detail-type": kind,
        "source": f"aws.{service}",
        "account": ACCOUNT,
        "time": detail.get("eventTime", "2026-11-02T09:30:00Z"),
        "region": REGION,
        "resources": [],
        "detail": dict(detail),
    }
