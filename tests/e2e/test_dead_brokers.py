"""A real broker is killed on the real stack: what the next one, and the sweeper, make of what it left, under the very
roles that a deployment uses."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from boto3.session import Session

from chalicelib.domain.connection import ConnectionRow
from chalicelib.store.documents import from_document, to_document
from dev.demo.waiting import wait_for
from dev.demo.witnesses import Cloud
from dev.emulator import ROOT_KEY
from dev.local_stack import Stack
from dev.settings import ROOT, SystemClock, child_environment
from tests.e2e.visitor import Visitor, another_broker, connect

pytestmark = pytest.mark.e2e

CLOCK = SystemClock()
FINISHED_WITHIN_S = 40.0  # it looks every five seconds; a loaded machine gets more
SOON_S = 10.0  # the frame is flushed after a second at most
READ = "SELECT id FROM orders WHERE id < 4"


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    return Visitor.of(stack)


class Table:
    """The connections table, with the emulator's root key: rows are looked at, and made to look old."""

    def __init__(self, stack: Stack) -> None:
        aws = stack.ready["aws"]
        session = Session(ROOT_KEY, ROOT_KEY, region_name=aws["region"])
        self._table = session.resource("dynamodb", endpoint_url=aws["endpoint"]).Table(f"{aws['prefix']}-connections")

    def rows(self, session_id: str) -> list[ConnectionRow]:
        found = self._table.query(
            KeyConditionExpression="#s = :s",
            ExpressionAttributeNames={"#s": "session"},
            ExpressionAttributeValues={":s": session_id},
        )
        return [from_document(ConnectionRow, item["doc"]) for item in found["Items"]]

    def age(self, row: ConnectionRow) -> None:
        """Make a row ten minutes old, and of a boot that nobody beats for."""
        old = {name: getattr(row, name) for name in row.__slots__}
        aged = ConnectionRow(**{**old, "opened_at": row.opened_at - timedelta(minutes=10), "boot": "boot_dead"})
        self._table.update_item(
            Key={"session": row.session_id, "id": row.id},
            UpdateExpression="SET doc = :d",
            ExpressionAttributeValues={":d": to_document(aged)},
        )


def verify(stack: Stack, session_id: str) -> tuple[int, dict[str, Any]]:
    environment = child_environment(stack.ready["aws"]["auditor"])
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "verify", session_id, "--json"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def run_and_kill(stack: Stack, visitor: Visitor, name: str, **changed: str) -> str:
    """Run a statement through a broker of the test's own, and kill it while the connection is open."""
    session = visitor.session()
    session_id = str(session["session_id"])
    with (
        another_broker(stack, name, **changed) as broker,
        contextlib.suppress(psycopg.Error),
        contextlib.closing(connect(stack, session, port=broker.port)) as client,
    ):
        assert client.execute(READ).fetchall()
        wait_for("the statement to be stored", lambda: _stored(stack, session_id, changed) or None, CLOCK, SOON_S)
        broker.kill()
    return session_id


def _stored(stack: Stack, session_id: str, changed: Mapping[str, str]) -> bool:
    """Say whether the statement's frame is on the broker's disk, or in the bucket already."""
    with contextlib.suppress(FileNotFoundError):  # a file goes when the bucket has it
        spool = Path(changed["COUNTERSIGN_SPOOL"]) if changed else Path("/nonexistent")
        if any(READ in path.read_text() for path in spool.rglob("*.ndjson")):
            return True
    return any(frame["text"] == READ for frame in Cloud(stack.ready["aws"]).frames(session_id))


def test_a_restarted_broker_finishes_what_the_killed_one_left(stack: Stack, visitor: Visitor, tmp_path: Path) -> None:
    """With its disk: the statement is in the record, the row is sealed, and verify says what is not known."""
    session_id = run_and_kill(stack, visitor, "spooling", COUNTERSIGN_SPOOL=str(tmp_path))
    table = Table(stack)
    assert [row.sealed_at for row in table.rows(session_id)] == [None]
    with another_broker(stack, "restarted", COUNTERSIGN_SPOOL=str(tmp_path)):
        sealed = wait_for(
            "the recording to be finished",
            lambda: next((row for row in table.rows(session_id) if row.sealed_at is not None), None),
            CLOCK,
            FINISHED_WITHIN_S,
        )
    assert (sealed.exit, list(tmp_path.rglob("*.ndjson"))) == ("broker_lost", [])
    code, told = verify(stack, session_id)
    assert code == 65
    assert [finding["kind"] for finding in told["findings"]] == ["lost"]
    assert "restart:" in told["findings"][0]["what"]
    assert told["checked"]["operations"] == 1


def test_the_sweeper_seals_what_a_killed_broker_left(stack: Stack, visitor: Visitor) -> None:
    """Without its disk: the function does it, with its own role and key."""
    session_id = run_and_kill(stack, visitor, "lost")
    table = Table(stack)
    (row,) = table.rows(session_id)
    table.age(row)
    answered = stack.sweep()
    assert (answered.failed, answered.payload["failed"]) == (False, 0), answered.payload
    (sealed,) = table.rows(session_id)
    assert (sealed.exit, sealed.manifest_key != "") == ("broker_lost", True)
    code, told = verify(stack, session_id)
    assert code == 65
    whats = {finding["kind"]: finding["what"] for finding in told["findings"]}
    assert "sweeper sealed it (tail_gap)" in whats["lost"]


def test_a_broker_that_ends_orderly_says_how_many_rows_it_put(stack: Stack, visitor: Visitor) -> None:
    """Its last number is an object under the lock, signed."""
    session = visitor.session()
    with another_broker(stack, "orderly") as broker:
        with contextlib.closing(connect(stack, session, port=broker.port)) as client:
            client.execute(READ)
        assert broker.terminate() == 0
    (row,) = Table(stack).rows(session["session_id"])
    cloud = Cloud(stack.ready["aws"])
    (key,) = [key for key in cloud.keys("boots/v1/") if row.boot in key]
    ended = json.loads(cloud.read(key))
    assert (ended["last"], ended["last_sha256"]) == (1, row.sha256())
