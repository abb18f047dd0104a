"""``verify --all`` of a whole deployment: a stack of its own, since the shared one is tampered with by other tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from boto3.session import Session

from dev.demo.waiting import wait_for
from dev.local_stack import Stack, StackOptions
from dev.settings import ROOT, SystemClock, child_environment
from tests.e2e.visitor import Agent, connect, root_client

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("verify-all")]
WITHIN_S = 60.0  # a pump, and functions that start; it takes 3 s


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(StackOptions()) as running:
        yield running


def _verify_all(stack: Stack) -> tuple[int, Mapping[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "verify", "--all", "--json"],
        env=child_environment(stack.ready["aws"]["auditor"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def _wait_archived(stack: Stack, prefix: str) -> None:
    aws = stack.ready["aws"]
    keys = aws["auditor"]
    session = Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name=aws["region"])
    client = session.client("s3", endpoint_url=aws["endpoint"])

    def archived() -> Any:
        return client.list_objects_v2(Bucket=aws["bucket"], Prefix=prefix)["KeyCount"] or None

    wait_for(f"something under {prefix}", archived, SystemClock(), within_s=WITHIN_S)


def test_every_change_is_archived_as_it_happens_and_the_auditor_verifies_all_of_it(own_stack: Stack) -> None:
    """The streams of all tables reach ``archive_items`` under its own role, and ``verify --all`` compares the tables:
    sound before somebody writes into one past the service, and the row is named after it."""
    session = Agent.root(own_stack).session("orders-prod")
    with connect(own_stack, session) as client:
        client.execute("SELECT 1")
    for table in ("activations", "sessions", "connections"):
        _wait_archived(own_stack, f"items/v1/{table}/")
    answered = own_stack.digest()
    assert not answered.failed, answered.payload

    def sound() -> Mapping[str, Any] | None:
        code, told = _verify_all(own_stack)
        return told if code == 0 else None

    told = wait_for("the last changes to be archived", sound, SystemClock(), WITHIN_S)
    assert told["checked"]["sessions"] == 1
    assert told["pending"] >= 1

    tables = root_client(own_stack, "dynamodb")
    (name,) = [one for one in tables.list_tables()["TableNames"] if one.endswith("sessions")]
    key = {"id": {"S": session["session_id"]}}
    item = tables.get_item(TableName=name, Key=key)["Item"]
    tables.put_item(TableName=name, Item=item | {"doc": {"S": item["doc"]["S"].replace("orders-prod", "orders-dev")}})
    code, told = _verify_all(own_stack)
    assert code == 65
    assert {finding["key"] for finding in told["findings"]} == {session["session_id"]}
