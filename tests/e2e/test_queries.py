"""The auditors' questions over what a real session left: real psql, real broker, real functions, the real bucket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chalicelib.services.event_objects import checked_row
from dev.demo.pipeline import Pipeline
from dev.demo.waiting import wait_for
from dev.local_stack import Stack
from dev.settings import ROOT, SystemClock, child_environment
from tests.e2e.visitor import card_with
from tests.unit.dev.calling import call

pytestmark = pytest.mark.e2e
WITHIN_S = 90.0  # the broker's events go out after 10 s; the functions' come through a pump and a function that starts
STATEMENT = "SELECT count(*) AS queried_by_the_test FROM orders;"


def _session(stack: Stack, folder: Path) -> Sequence[str]:
    """Run one statement as a pipeline does, with an approver's click; return the answer's lines."""
    token = call(stack.ready["issuer"]["mint"], {})[1]["token"]
    told = {"COUNTERSIGN_API": stack.ready["api"], "COUNTERSIGN_ID_TOKEN": token}
    environment = child_environment({**stack.binaries().environment(), **told})
    psql = str(stack.binaries().psql)
    mark = f"queries {uuid4()}"
    argv = ["exec", "--reason", mark, "orders-prod", "--", psql, "-X"]
    pipeline = Pipeline(argv, environment, folder, SystemClock())
    try:
        asked = pipeline.send(STATEMENT)
        assert card_with(stack, mark).click("UALICE")["ok"]
        answer = asked.answer(WITHIN_S).out
        assert pipeline.end() == 0
        return answer
    finally:
        pipeline.stop()


def _query(stack: Stack, name: str, **params: str) -> list[Mapping[str, Any]]:
    given = [part for key, value in params.items() for part in ("--param", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "query", name, "--local", "bucket", "--json", *given],
        env=child_environment(stack.ready["aws"]["auditor"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[Mapping[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def _search(stack: Stack, *words: str) -> list[Mapping[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "search", "--json", "--", *words],
        env=child_environment(stack.ready["aws"]["auditor"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hits: list[Mapping[str, Any]] = json.loads(done.stdout)["hits"]
    return hits


def _found(stack: Stack, name: str, **params: str) -> list[Mapping[str, Any]]:
    return wait_for(f"rows of {name}", lambda: _query(stack, name, **params) or None, SystemClock(), WITHIN_S)


def test_the_three_questions_over_what_a_real_session_left(stack: Stack, tmp_path: Path) -> None:
    """Who initiated it, which agents did what, was each step approved and logged: from the bucket alone."""
    assert "10000" in " ".join(_session(stack, tmp_path))
    ran = _found(stack, "search", text="queried_by_the_test")[-1]
    assert (ran["outcome"], ran["target"]) == ("ok", "orders-prod")
    txn = ran["txn"]
    (first,) = _found(stack, "initiator", txn=txn)
    assert first["originator"] == ran["originator"]
    did = _found(stack, "downstream", txn=txn)
    assert "queried_by_the_test" in " ".join(row["text"] for row in did)
    assert all(row["segment"].startswith("rec/v1/ses_") for row in did)

    def steps() -> dict[str, Mapping[str, Any]] | None:
        told = {row["step"]: row for row in _query(stack, "approved", txn=txn)}
        wanted = {"token.exchanged", "session.granted", "credential.minted", "operation.ran"}
        return told if wanted <= told.keys() else None

    told = wait_for("every step, functions' events included", steps, SystemClock(), WITHIN_S)
    assert (told["session.granted"]["approval"], told["session.granted"]["people"] != "") == ("approved", True)
    assert all(row["logged"] for row in told.values())
    assert _found(stack, "approvals")
    (hit, *_) = _search(stack, "queried_by_the_test", "target:orders-prod", "class:read", f"txn:{txn}")
    assert (hit["segment"], hit["frame"]) == (ran["segment"], ran["frame"])
    assert _search(stack, "queried_by_the_test", f"txn:{txn}", "-target:orders-prod") == []
    assert _query(stack, "untold") == []


def test_every_stored_event_has_the_schemas_columns(stack: Stack, tmp_path: Path) -> None:
    """One object of another shape would stop every query that reads its hour."""
    _session(stack, tmp_path)
    rows = _found(stack, "reach")
    assert {row["target"] for row in rows} >= {"orders-prod"}
    logs = stack.folder / "logs"
    lines = [line for log in logs.glob("*.log") for line in log.read_text(errors="replace").splitlines()]
    told = [json.loads(line)["audit"] for line in lines if line.startswith("{") and '"audit":' in line]
    assert len({row["uid"] for row in map(checked_row, told)}) > 5
    function = (logs / "events.log").read_text(errors="replace")
    assert "Traceback" not in function, function[-2000:]  # the bucket and the bus took all of it, under its own role
