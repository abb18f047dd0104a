"""Who may invoke a function: the signature, and the policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from chalicelib.domain.errors import Denied, Unauthenticated
from chalicelib.domain.secret import Secret
from chalicelib.settings import SystemClock
from dev.invocation import INVOKE, Callers, may
from dev.loopback import Request
from dev.roles import Role
from tests.fakes.clock import FakeClock

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:cs-mint"


def _policy(
    effect: str = "Allow", action: Any = "lambda:InvokeFunction", resource: Any = ARN, **more: Any
) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": action, "Resource": resource, **more}
    return {"Version": "2012-10-17", "Statement": [statement]}


BROKER = Role(name="broker", access_key="AKIABROKER", secret_key=Secret("s1"), policy=_policy())
AUDITOR = Role(name="auditor", access_key="AKIAAUDITOR", secret_key=Secret("s2"), policy=_policy(resource="arn:other"))
# botocore signs with the machine's clock, so it is judged by that one too: a run of all tests outlasts the window.
CALLERS = Callers(roles=(BROKER, AUDITOR), clock=SystemClock())


def _signed(key: str, secret: str, body: bytes = b"{}", service: str = "lambda") -> Request:
    target = "/2015-03-31/functions/cs-mint/invocations"
    request = AWSRequest(method="POST", url=f"http://127.0.0.1:1{target}", data=body, headers={"Host": "127.0.0.1:1"})
    SigV4Auth(Credentials(key, secret), service, "eu-west-1").add_auth(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(method="POST", target=target, headers=headers, body=body)


def test_a_caller_with_the_right_is_served() -> None:
    """The same request is what boto3 sends: the end-to-end tests send it for real."""
    assert CALLERS.check(_signed("AKIABROKER", "s1"), ARN) is BROKER


def test_a_caller_without_the_right_is_denied() -> None:
    """Least privilege is real in the local stack: a role that forgets the right fails here first."""
    with pytest.raises(Denied):
        CALLERS.check(_signed("AKIAAUDITOR", "s2"), ARN)


@pytest.mark.parametrize(
    ("key", "secret", "service"),
    [("AKIABROKER", "no", "lambda"), ("AKIANO", "s1", "lambda"), ("AKIABROKER", "s1", "s3")],
)
def test_a_wrong_signature_is_refused(key: str, secret: str, service: str) -> None:
    """Knowing the name of a key is not holding it, and a signature for another service is none for this one."""
    with pytest.raises(Unauthenticated):
        CALLERS.check(_signed(key, secret, service=service), ARN)


def test_a_changed_body_is_refused() -> None:
    """The signature covers the event: a caller on the path must not change a connection id."""
    request = _signed("AKIABROKER", "s1")
    with pytest.raises(Unauthenticated):
        CALLERS.check(Request(method="POST", target=request.target, headers=request.headers, body=b'{"x":1}'), ARN)


def test_a_changed_path_is_refused() -> None:
    """A signature to invoke one function is none to invoke another."""
    request = _signed("AKIABROKER", "s1")
    other = Request(method="POST", target=request.target.replace("mint", "sign"), headers=request.headers, body=b"{}")
    with pytest.raises(Unauthenticated):
        CALLERS.check(other, ARN)


def test_an_old_signature_is_refused() -> None:
    """AWS's own five minutes: a recorded request is worth nothing later."""
    later = Callers(roles=(BROKER,), clock=FakeClock(datetime(2030, 1, 1, tzinfo=UTC)))
    with pytest.raises(Unauthenticated):
        later.check(_signed("AKIABROKER", "s1"), ARN)


@pytest.mark.parametrize("header", ["", "AWS4-HMAC-SHA256 nonsense", "Bearer x"])
def test_no_signature_is_refused(header: str) -> None:
    """Anybody on this machine reaches the port."""
    request = Request(method="POST", target="/", headers={"authorization": header}, body=b"")
    with pytest.raises(Unauthenticated):
        CALLERS.check(request, ARN)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (_policy(), True),
        (_policy(action="lambda:*", resource=["arn:x", ARN[:-4] + "*"]), True),
        (_policy(action=["s3:GetObject"]), False),
        (_policy(resource="arn:aws:lambda:eu-west-1:123456789012:function:cs-min"), False),
        (_policy(effect="Deny"), False),
        ({"Statement": [_policy()["Statement"][0], _policy(effect="Deny", resource="*")["Statement"][0]]}, False),
        (_policy(Condition={"StringEquals": {"a": "b"}}), False),
        ({"Statement": [{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}]}, False),
        ({"Statement": []}, False),
    ],
)
def test_a_policy_says_who_may_invoke(policy: dict[str, Any], allowed: bool) -> None:
    """An explicit Deny wins; what is not understood here refuses, since guessing would widen a right."""
    assert may(policy, INVOKE, ARN) is allowed
