"""What the deployment asks AWS itself, with the operator's credentials: the one place with boto3 in ``infra/deploy``.

Rules: it reads, and invokes one function that does nothing without an answer; it changes nothing. A right that the
operator lacks is an error with the call's name, never a guess.
Source: Amazon S3 API reference, ListObjectVersions, GetObjectLockConfiguration, HeadObject
(``ObjectLockRetainUntilDate``); AWS Lambda API reference, GetPolicy, GetFunctionConfiguration, Invoke; Chalice 1.34,
``chalice.awsclient``: the API's right to invoke its function names the API's id in ``aws:SourceArn``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from infra.deploy.tools import StepFailed

_LOOKED_AT: Final = 200  # newest object versions that are asked how long they are locked; they are locked longest
_API_ID: Final = re.compile(r"arn:aws[a-z-]*:execute-api:[a-z0-9-]+:\d{12}:([a-z0-9]{4,32})/")
_ABSENT: Final = frozenset({"ResourceNotFoundException", "NoSuchBucket", "404"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What a bucket still holds. ``locked_until`` is the latest end of a lock among those looked at, and ``mode`` its
    mode; ``held`` says that one of them is under a legal hold."""

    objects: int
    more: bool
    mode: str
    locked_until: datetime | None
    held: bool


class Account:
    """The account and region that the operator's credentials reach. Raises StepFailed where a call is refused."""

    def __init__(self, region: str) -> None:
        self._session = Session(region_name=region)

    def kept(self, bucket: str) -> Kept:
        """Return what ``bucket`` holds; one that does not exist holds nothing."""
        s3 = self._session.client("s3")
        try:
            page = s3.list_object_versions(Bucket=bucket, MaxKeys=1000)
            versions = sorted(page.get("Versions", []), key=lambda one: one["LastModified"], reverse=True)
            facts = [
                s3.head_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
                for one in versions[:_LOOKED_AT]
            ]
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return Kept(objects=0, more=False, mode="", locked_until=None, held=False)
            raise _failed("s3", error) from error
        except BotoCoreError as error:
            raise _failed("s3", error) from error
        return Kept(
            objects=len(versions),
            more=bool(page.get("IsTruncated")),
            mode="COMPLIANCE" if any(one.get("ObjectLockMode") == "COMPLIANCE" for one in facts) else "",
            locked_until=max(
                (one["ObjectLockRetainUntilDate"] for one in facts if "ObjectLockRetainUntilDate" in one), default=None
            ),
            held=any(one.get("ObjectLockLegalHoldStatus") == "ON" for one in facts),
        )

    def api_of(self, function: str) -> str | None:
        """Return the id of the API that may invoke ``function``, None where there is neither."""
        functions = self._session.client("lambda")
        try:
            policy = json.loads(functions.get_policy(FunctionName=function)["Policy"])
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise _failed("lambda", error) from error
        except BotoCoreError as error:
            raise _failed("lambda", error) from error
        found = sorted({match[1] for match in _API_ID.finditer(json.dumps(policy))})
        if len(found) > 1:
            raise StepFailed(
                f"{function} may be invoked by {len(found)} APIs ({', '.join(found)}): remove the strangers"
            )
        return found[0] if found else None

    def has_api(self, api: str) -> bool:
        """Return whether the API exists."""
        try:
            self._session.client("apigateway").get_rest_api(restApiId=api)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NotFoundException":
                return False
            raise _failed("apigateway", error) from error
        return True

    def without_value(self, secrets: Iterable[str]) -> list[str]:
        """Return those of ``secrets`` (ARNs) that were never given a value."""
        client = self._session.client("secretsmanager")
        try:
            return [arn for arn in secrets if not client.describe_secret(SecretId=arn).get("VersionIdsToStages")]
        except (ClientError, BotoCoreError) as error:
            raise _failed("secretsmanager", error) from error

    def answer_of(self, function: str, event: Mapping[str, Any]) -> Any:
        """Invoke ``function`` and return what it answers. Raises StepFailed with its error."""
        try:
            told = self._session.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
            payload = json.loads(told["Payload"].read())
        except (ClientError, BotoCoreError, ValueError) as error:
            raise _failed("lambda", error) from error
        if told.get("FunctionError"):
            raise StepFailed(f"{function} failed: {str(payload)[:300]}")
        return payload


def _failed(service: str, error: Exception) -> StepFailed:
    return StepFailed(f"{service}: {str(error)[:300]}")
