"""The Invoke API: a real boto3 client against functions in processes of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.store.deployed import open_running_code
from dev.invocation import Callers
from dev.lambdas import Function, Lambdas, start_host
from dev.roles import Role
from dev.settings import ROOT, SystemClock, child_environment

ARN = "arn:aws:lambda:eu-west-1:1:function:cs-one"
APP = '''
"""A stand-in for the app: Chalice keeps its handlers in a map by name."""
import os, sys, time

def one(event, context):
    print("printed by a handler")
    if event.get("crash"):
        raise ValueError("an inner detail")
    if event.get("die"):
        os._exit(3)
    return {"pid": os.getpid(), "role": os.environ["AWS_ACCESS_KEY_ID"], "name": context.function_name, "event": event}

class App:
    handler_map = {"one": one}

app = App()
'''


@pytest.fixture(scope="module")
def lambdas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambdas]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP)
    environment = child_environment({"AWS_ACCESS_KEY_ID": "AKIAONE"}) | {"PYTHONPATH": f"{folder}:{ROOT}"}
    log = folder / "log"

    def start() -> Any:
        return start_host("one", environment=environment, log=log, cwd=folder)

    allowed = {"Statement": [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": ARN}]}
    roles = [
        Role(name="caller", access_key="AKIACALLER", secret_key=Secret("s1"), policy=allowed),
        Role(name="other", access_key="AKIAOTHER", secret_key=Secret("s2"), policy={"Statement": []}),
    ]
    described = {"Statement": [{"Effect": "Allow", "Action": "lambda:GetFunctionConfiguration", "Resource": f"{ARN}*"}]}
    roles.append(Role(name="digest", access_key="AKIADIGEST", secret_key=Secret("s3"), policy=described))
    made = Lambdas({"cs-one": Function("one", ARN, start)}, Callers(roles=roles, clock=SystemClock()))
    made.start()
    yield made
    made.stop()


def _client(lambdas: Lambdas, key: str = "AKIACALLER", secret: str = "s1") -> Any:
    session = Session(key, secret, region_name="eu-west-1")
    return session.client("lambda", endpoint_url=lambdas.url, config=Config(retries={"total_max_attempts": 1}))


def _invoke(lambdas: Lambdas, event: dict[str, Any], **more: Any) -> tuple[Any, str | None]:
    answer = _client(lambdas).invoke(FunctionName="cs-one", Payload=json.dumps(event), **more)
    body = answer["Payload"].read()
    return (json.loads(body) if body else None), answer.get("FunctionError")


def test_a_function_runs_in_its_own_process_under_its_own_role(lambdas: Lambdas) -> None:
    """What a handler prints must not be taken for its answer."""
    told, failed = _invoke(lambdas, {"a": 1})
    assert failed is None
    assert (told["role"], told["name"], told["event"]) == ("AKIAONE", "one", {"a": 1})


def test_an_exception_is_a_function_error_without_the_stack(lambdas: Lambdas) -> None:
    """As Lambda does; the product must treat it as unknown, not as a refusal that it can explain."""
    assert _invoke(lambdas, {"crash": True}) == (
        {"errorMessage": "an inner detail", "errorType": "ValueError"},
        "Unhandled",
    )


def test_a_function_that_dies_is_an_error_once_and_runs_again(lambdas: Lambdas) -> None:
    """Lambda starts a new sandbox; the next caller must not see the last one's crash."""
    before, _ = _invoke(lambdas, {})
    assert _invoke(lambdas, {"die": True})[1] == "Unhandled"
    after, failed = _invoke(lambdas, {})
    assert failed is None
    assert after["pid"] != before["pid"]


def test_a_role_without_the_right_is_denied(lambdas: Lambdas) -> None:
    """The signature is good; the policy says no."""
    with pytest.raises(ClientError, match="AccessDenied"):
        _client(lambdas, "AKIAOTHER", "s2").invoke(FunctionName="cs-one", Payload=b"{}")


def test_a_wrong_key_is_refused(lambdas: Lambdas) -> None:
    """Also for a function that does not exist: a stranger learns no names."""
    for name in ("cs-one", "cs-none"):
        with pytest.raises(ClientError, match="InvalidSignature"):
            _client(lambdas, "AKIACALLER", "wrong").invoke(FunctionName=name, Payload=b"{}")


def test_a_dry_run_and_an_event_are_answered_at_once(lambdas: Lambdas) -> None:
    """The invocation types of the API; an event's result is nobody's."""
    assert _invoke(lambdas, {"die": True}, InvocationType="DryRun") == (None, None)
    assert _invoke(lambdas, {}, InvocationType="Event")[1] is None


def test_what_runs_is_described_to_whoever_may_ask(lambdas: Lambdas, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hourly digest names it, by a right to look and none to call; what does not exist is left out."""
    for name, value in {
        "AWS_ENDPOINT_URL_LAMBDA": lambdas.url,
        "AWS_ACCESS_KEY_ID": "AKIADIGEST",
        "AWS_SECRET_ACCESS_KEY": "s3",
    }.items():
        monkeypatch.setenv(name, value)
    code = open_running_code({"one": "cs-one", "api": "cs-one-absent"}, "", "eu-west-1", SystemClock())
    found = code.now()
    assert list(found) == ["function:one"]
    assert re.fullmatch("[0-9a-f]{64}", found["function:one"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACALLER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s1")
    with pytest.raises(StoreUnavailable):
        open_running_code({"one": "cs-one"}, "", "eu-west-1", SystemClock()).now()
