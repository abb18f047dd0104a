"""The review of a period on the running stack: the auditor's own rights, the function's own role, a real server's log,
and a person who logged in."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chalicelib.domain.canonical import timestamp
from dev.demo.waiting import wait_for
from dev.local_stack import Stack
from dev.settings import ROOT, SystemClock, child_environment
from dev.targets import ORDERS
from tests.e2e.visitor import Agent, Visitor

pytestmark = pytest.mark.e2e
SEALED_S = 30.0


def command(stack: Stack, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command with the auditor's rights."""
    environment = child_environment({**stack.ready["aws"]["auditor"], "HOME": "/nonexistent"})
    done = subprocess.run(
        [sys.executable, "-m", "countersign", *arguments, "--json"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def work(stack: Stack) -> str:
    """Open a session on Alice's approval, run one statement, leave; return the session's id."""
    session = Visitor.of(stack).session()
    connect = session["connect"]
    with psycopg.connect(
        host=connect["host"],
        port=connect["port"],
        user=connect["user"],
        password=connect["secret"],
        dbname=connect["database"],
        sslmode="verify-full",
        sslrootcert=stack.ready["broker"]["postgres"]["ca_file"],
        autocommit=True,
    ) as client:
        client.execute("SELECT 1")
    return str(session["session_id"])


def test_a_period_is_reviewed_reconciled_and_signed_off(stack: Stack, tmp_path: Path) -> None:
    """Every command under the policies that are deployed; whoever started or approved it is refused by the service."""
    clock = SystemClock()
    since = timestamp(clock.now() - timedelta(seconds=1))
    session_id = work(stack)

    def sealed() -> dict[str, Any] | None:
        code, found = command(stack, "review", "--since", since, "--population")
        return found if code == 0 and found["unsealed"] == 0 and found["sessions"] else None

    wait_for("a population whose connections are sealed", sealed, clock, SEALED_S)
    until = timestamp(clock.now())
    wait_for("the period's end", lambda: clock.now() > datetime.fromisoformat(until) or None, clock, SEALED_S)
    day = ("--since", since, "--until", until)
    files = ("--html", str(tmp_path / "r.html"), "--csv", str(tmp_path / "r.csv"))
    code, told = command(stack, "review", *day, *files, "--processes", "2")  # each opens the deployment for itself
    assert (code, told["verified"], told["findings"]) == (0, True, [])
    assert session_id in {one["id"] for chain in told["chains"] for one in chain["sessions"]}
    assert session_id in (tmp_path / "r.csv").read_text()
    log = str(stack.ready["targets"][ORDERS]["log"])
    code, found = command(stack, "reconcile", ORDERS, "--log", log, *day)
    assert session_id in {one["session"] for one in found["matched"]}
    assert (found["logins_without_connection"], found["unclear_lines"]) == ([], []), code
    code, population = command(stack, "review", *day, "--population")
    body = {"since": since, "until": until, "population_sha256": population["population_sha256"], "keep_others": True}
    status, refusal = Agent.person(stack, "alice").call("POST", "/v1/signoffs", body)
    assert (status, refusal["code"]) in {(403, "reviewer_not_eligible"), (403, "not_permitted")}
    status, signed = Agent.person(stack, "carol").call("POST", "/v1/signoffs", body)
    assert (status, signed["reviewer"]) == (201, "carol"), signed
    code, population = command(stack, "review", *day, "--population")
    assert (code, [one["id"] for one in population["signoffs"]]) == (0, [signed["id"]])
