"""What the README shows is run as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from countersign.settings import SystemClock

if TYPE_CHECKING:
    from dev.local_stack import Stack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.e2e


def block(heading: str, language: str) -> str:
    """Return the first fenced block under ``heading``."""
    section = README.split(f"{heading}\n", 1)[1]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def call(url: str, value: object = None) -> Any:
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def approve_next(ready: dict[str, Any], known: set[str]) -> str:
    """Click Approve on the first card that is not in ``known``, as the first approver; return its timestamp."""
    clock = SystemClock()
    until_s = clock.monotonic_s() + 30
    while clock.monotonic_s() < until_s:
        for message in call(ready["slack"]["messages"]):
            if message["ts"] not in known:
                click = {"message_ts": message["ts"], "action_id": "approve", "user_id": ready["slack"]["approvers"][0]}
                call(ready["slack"]["click"], click)
                return str(message["ts"])
        clock.sleep(0.1)  # a poll of another process's state, not a guess at how long it takes
    raise AssertionError("no card came")


def test_the_ten_lines_of_curl(stack: Stack, tmp_path: Path) -> None:
    """Pipelines without our command line copy these lines: they must work as they stand, approval included."""
    ready: dict[str, Any] = dict(stack.ready)
    lines = block("### With curl", "sh")
    assert len(lines.splitlines()) <= 11
    token = call(ready["issuer"]["mint"], {"run_id": "readme-curl"})["token"]
    binaries = stack.binaries()
    environment = {
        **binaries.environment(),
        "COUNTERSIGN_API": ready["api"],
        "COUNTERSIGN_ID_TOKEN": token,
        "PATH": f"{binaries.psql.parent}:/usr/local/bin:/usr/bin:/bin",
    }
    known = {str(message["ts"]) for message in call(ready["slack"]["messages"])}
    with ThreadPoolExecutor(1) as pool:
        clicked = pool.submit(approve_next, ready, known)
        ended = subprocess.run(
            ["/bin/sh", "-euc", lines],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        clicked.result(40)
    assert ended.returncode == 0, ended.stderr
    assert "10000" in ended.stdout


def test_the_workflow_is_the_one_in_integrations() -> None:
    """Two copies of one file drift apart."""
    shown = yaml.safe_load(block("## In a pipeline", "yaml"))
    kept = yaml.safe_load((ROOT / "integrations/github/migrate.yml").read_text(encoding="utf-8"))
    assert shown == kept
    assert shown["permissions"]["id-token"] == "write"
