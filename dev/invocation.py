"""Who may invoke or describe which function: the caller's SigV4 signature, and what its policy says about
``lambda:InvokeFunction`` and ``lambda:GetFunctionConfiguration``.

Rules: the signature is computed again with the secret of the named access key, over the headers that the caller says
it signed and the body as it arrived; a request more than five minutes off is refused, as AWS does. Of policies only
what a function's caller needs is read: Effect, Action, Resource with wildcards; an explicit Deny wins; a Condition,
NotAction or NotResource is not understood here and therefore refuses the whole policy.
Sources: docs.aws.amazon.com, "Signature Version 4 signing process", "Policy evaluation logic".
"""

from __future__ import annotations

import fnmatch
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import Denied, Unauthenticated
from dev.loopback import Request
from dev.roles import Role

MAX_SKEW_S: Final = 300
INVOKE: Final = "lambda:InvokeFunction"
DESCRIBE: Final = "lambda:GetFunctionConfiguration"
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential="
    r"(?P<key>[^/,\s]+)/(?P<day>\d{8})/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[a-z0-9;_-]+), ?Signature=(?P<signature>[0-9a-f]{64})\Z"
)


@dataclass(frozen=True, kw_only=True)
class Callers:
    """The roles that exist. Thread-safe: it only reads."""

    roles: Sequence[Role]
    clock: Clock

    def check(self, request: Request, function_arn: str, action: str = INVOKE) -> Role:
        """Return whose request it is, if that role may do ``action`` to the function. Raises Unauthenticated or
        Denied."""
        role = self._signed_by(request)
        if not may(role.policy, action, function_arn):
            raise Denied(f"{role.name} is not allowed {action} on {function_arn}")
        return role

    def _signed_by(self, request: Request) -> Role:
        parts = _AUTHORIZATION.match(request.headers.get("authorization", ""))
        role = next((role for role in self.roles if parts and role.access_key == parts["key"]), None)
        if parts is None or role is None or parts["service"] != "lambda":
            raise Unauthenticated("the request is not signed by a role of this stack")
        moment = request.headers.get("x-amz-date", "")
        try:
            signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise Unauthenticated("the request's x-amz-date is missing or wrong") from error
        if abs((self.clock.now() - signed_at).total_seconds()) > MAX_SKEW_S or not moment.startswith(parts["day"]):
            raise Unauthenticated("the signature is too old, or of another day")
        if "host" not in parts["headers"].split(";") or not hmac.compare_digest(
            _signature(request, role, parts, moment), parts["signature"]
        ):
            raise Unauthenticated("the signature does not match")
        return role


def _signature(request: Request, role: Role, parts: re.Match[str], moment: str) -> str:
    names = parts["headers"].split(";")
    headers = {name: request.headers.get(name, "") for name in names}
    again = AWSRequest(
        method=request.method,
        url=f"http://{headers.get('host', '')}{request.target}",
        headers=headers,
        data=request.body,
    )
    again.context["timestamp"] = moment
    signer = SigV4Auth(Credentials(role.access_key, role.secret_key.expose()), parts["service"], parts["region"])
    return str(signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again))


def may(policy: Mapping[str, Any], action: str, function_arn: str) -> bool:
    """Say whether ``policy`` allows ``action`` (of Lambda's) on ``function_arn``. Pure."""
    allowed = False
    for statement in _listed(policy.get("Statement", [])):
        if {"Condition", "NotAction", "NotResource"} & set(statement) and _names(statement, action):
            return False
        if not _matches(statement.get("Action", []), action, fold=True):
            continue
        if not _matches(statement.get("Resource", []), function_arn, fold=False):
            continue
        if statement.get("Effect") != "Allow":
            return False
        allowed = True
    return allowed


def _names(statement: Mapping[str, Any], action: str) -> bool:
    return "NotAction" in statement or _matches(statement.get("Action", []), action, fold=True)


def _matches(patterns: object, value: str, *, fold: bool) -> bool:
    for pattern in _listed(patterns):
        text = str(pattern).replace("[", "[[]")  # IAM knows * and ? only
        if fnmatch.fnmatchcase(value.lower() if fold else value, text.lower() if fold else text):
            return True
    return False


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
