"""A replay on the running stack: the auditor's own rights read the bucket, the real service is told first, under its
own role, and the event comes to the archive."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from dev.demo.waiting import wait_for
from dev.emulator import ROOT_KEY
from dev.local_stack import Stack
from dev.settings import ROOT, SystemClock, child_environment
from tests.e2e.test_review_stack import work
from tests.unit.dev.calling import call

pytestmark = pytest.mark.e2e
WITHIN_S = 90.0  # the event goes through a log, a pump and a function that starts
SEALED_S = 30.0


def replay(stack: Stack, who: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Replay as somebody who logged in, with the auditor's rights in AWS."""
    token = str(call(stack.ready["issuer"]["people"]["mint"], {"sub": who})[1]["token"])
    own = {"COUNTERSIGN_ID_TOKEN": token, "HOME": str(folder), "XDG_STATE_HOME": str(folder / who)}
    return subprocess.run(
        [sys.executable, "-m", "countersign", "replay", *arguments],
        env=child_environment({**stack.ready["aws"]["auditor"], **own}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def events(stack: Stack, session_id: str) -> list[Mapping[str, Any]]:
    """The replays of a session that the archive tells of."""
    aws = stack.ready["aws"]
    s3 = Session(ROOT_KEY, ROOT_KEY, region_name=aws["region"]).client("s3", endpoint_url=aws["endpoint"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=aws["bucket"], Prefix="events/v1/")
    keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
    lines = [
        line
        for key in keys
        for line in gzip.decompress(s3.get_object(Bucket=aws["bucket"], Key=key)["Body"].read()).splitlines()
    ]
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["name"].startswith("recording.repl") and row.get("session_id") == session_id]


def test_a_replay_is_in_the_archive_and_whoever_may_not_sees_nothing(stack: Stack, tmp_path: Path) -> None:
    """Carol of security sees it and is named; Alice, who approved it, has no rule that lets her, and sees nothing."""
    session_id = work(stack)
    clock = SystemClock()

    def played() -> subprocess.CompletedProcess[str] | None:
        done = replay(stack, "carol", tmp_path, session_id, "--speed", "1000")
        return done if done.returncode == 0 else None

    done = wait_for("a replay of what was sealed", played, clock, SEALED_S)
    assert "SELECT 1" in done.stdout
    page = tmp_path / "replay.html"
    assert replay(stack, "carol", tmp_path, session_id, "--html", str(page)).returncode == 0
    assert "SELECT 1" in page.read_text()
    refused = replay(stack, "alice", tmp_path, session_id, "--json")
    assert refused.returncode not in (0, 65, 78), refused
    assert "SELECT 1" not in refused.stdout + refused.stderr

    def told() -> list[Mapping[str, Any]] | None:
        found = events(stack, session_id)
        whole = {(row["name"], row["subject"]) for row in found}
        wanted = {("recording.replayed", "page"), ("recording.replay_refused", "json")}
        return found if wanted <= whole else None

    found = wait_for("the events of it", told, clock, WITHIN_S)
    by = {row["name"]: row["actor"].rpartition("#")[2] for row in found}
    assert by == {"recording.replayed": "carol", "recording.replay_refused": "alice"}
    assert all(row["txn"] and row["target"] == "orders-prod" for row in found if row["name"] == "recording.replayed")
