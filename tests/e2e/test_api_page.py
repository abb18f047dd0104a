"""The page about the HTTP API: its curl lines work as they stand."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from dev.local_stack import Stack
from dev.settings import ROOT
from tests.e2e.visitor import ci_token_of

pytestmark = pytest.mark.e2e
PAGE = (ROOT / "docs/http_api.md").read_text(encoding="utf-8")


def block(heading: str) -> str:
    """Return the first shell block under ``heading``."""
    found = re.search(rf"^{re.escape(heading)}\n.*?^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def test_a_run_without_a_key_asks_waits_and_cancels_by_curl(stack: Stack, tmp_path: Path) -> None:
    """Pipelines without our command line copy these lines; and the second exchange of the run that the page says is
    refused, is."""
    api = stack.ready["api"]
    again = ci_token_of(stack, run_id="page-curl")
    lines = [
        block("## A token for each run, by curl"),
        block("## POST /v1/revocations"),
        'curl -sS "$API/v1/sessions/$SESSION" -H "Authorization: Bearer $TOKEN"\n',
        'CI_TOKEN="$AGAIN"\n',
        block("## A token for each run, by curl")
        .partition(" | jq -r .access_token)")[0]
        .replace("TOKEN=$(", "")
        .replace("-fsS", "-sS"),
    ]
    ended = subprocess.run(
        ["/bin/sh", "-euc", "echo\n".join(lines)],
        cwd=tmp_path,
        env={
            "API": api,
            "CI_TOKEN": ci_token_of(stack, run_id="page-curl"),
            "AGAIN": again,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    waited, revoked, looked, refused = (json.loads(line) for line in ended.stdout.splitlines() if line)
    assert waited["status"] == "pending"
    assert revoked["key"] == f"session:{waited['session_id']}"
    assert looked["code"] == "grant_revoked"
    assert refused["code"] == "run_bound"
