"""`countersign doctor` against the running stack, and the GitHub action there: a real API, broker, issuer and psql."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dev.emulator import ROOT_KEY
from dev.local_stack import Stack
from dev.part_settings import BOT_TOKEN
from dev.settings import ROOT, child_environment
from tests.e2e.test_readme import approve_next, call
from tests.functional.runners import GithubRunner, Machine

pytestmark = pytest.mark.e2e


def examined(stack: Stack, *more: str, **changed: str) -> tuple[int, dict[str, list[str]], str]:
    """Return the exit code, every check's statuses, and all that was printed."""
    broker, aws = stack.ready["broker"], stack.ready["aws"]
    told = {
        **aws["auditor"],
        "COUNTERSIGN_BROKER_HOST": broker["postgres"]["host"],
        "COUNTERSIGN_BROKER_POSTGRES_PORT": str(broker["postgres"]["port"]),
        "COUNTERSIGN_BROKER_SSH_PORT": str(broker["ssh"]["port"]),
        "COUNTERSIGN_BROKER_CA_PEM": Path(broker["postgres"]["ca_file"]).read_text(),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "doctor", "--json", *more],
        env=child_environment(told | changed),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found: dict[str, list[str]] = {}
    for one in json.loads(done.stdout)["checks"]:
        found.setdefault(one["check"], []).append(one["status"])
    return done.returncode, found, done.stdout + done.stderr


def test_the_stack_as_an_auditor_sees_it(stack: Stack) -> None:
    """Nothing is wrong that may be seen, and what may not be seen is said to be unseen."""
    code, found, _ = examined(stack, "--targets")
    assert code == 0, found
    seen = (
        "api",
        "clock",
        "contract",
        "public keys",
        "login",
        "broker",
        "configuration",
        "issuers",
        "target orders-prod",
    )
    assert {status for name in seen for status in found[name]} == {"ok"}, found
    assert found["target db-prod"] in (["ok"], ["could not look"])  # there may be no ssh-keyscan on this machine
    assert [found[name] for name in ("tables", "bucket", "kms keys", "functions")] == [["could not look"]] * 4


def test_the_stack_as_an_operator_sees_it(stack: Stack) -> None:
    """A stack on a laptop has no backups and no deployed functions, and a doctor that says nothing is blind; Slack
    takes the token, which nobody gets to see."""
    slack = {
        "COUNTERSIGN_SLACK_BOT_TOKEN": BOT_TOKEN,
        "COUNTERSIGN_SLACK_API_URL": f"{stack.ready['slack']['page']}api/",
    }
    root = {"AWS_ACCESS_KEY_ID": ROOT_KEY, "AWS_SECRET_ACCESS_KEY": ROOT_KEY}
    code, found, printed = examined(stack, **root, **slack)
    assert code == 1
    assert "wrong" in found["tables"]
    assert found["functions"] == ["wrong"]
    assert found["slack"] == ["ok"], printed
    assert "xoxb-" not in printed


def test_a_broker_that_is_not_the_stacks(stack: Stack) -> None:
    """The API's port takes connections too, and is no broker."""
    port = stack.ready["api"].rpartition(":")[2]
    code, found, _ = examined(stack, COUNTERSIGN_BROKER_SSH_PORT=port, COUNTERSIGN_BROKER_POSTGRES_PORT=port)
    assert code == 1
    assert set(found["broker"]) <= {"wrong", "could not look"}


def test_the_github_action_with_a_real_session(stack: Stack, tmp_path: Path) -> None:
    """The runner's token from the stack's issuer, a click in Slack, a real psql through the broker, and its summary."""
    ready: dict[str, Any] = dict(stack.ready)
    binaries = stack.binaries()
    machine = Machine(tmp_path, api=ready["api"])
    machine.program("python3")  # what would install us
    (tmp_path / "bin/psql").unlink()
    runner = GithubRunner(machine, tmp_path, token_url=ready["issuer"]["runner"])
    known = {str(message["ts"]) for message in call(ready["slack"]["messages"])}
    inputs = {"api": ready["api"], "target": "orders-prod", "reason": "migration 42"}
    with ThreadPoolExecutor(1) as pool:
        clicked = pool.submit(approve_next, ready, known)
        ended = runner.use(
            {**inputs, "run": "psql -At -c 'SELECT count(*) FROM orders'"},
            path=f"{binaries.psql.parent}:/usr/local/bin:/usr/bin:/bin",
            more=binaries.environment(),
        )
        clicked.result(40)
    assert ended.code == 0, ended.err
    assert "10000" in ended.out
    assert "::add-mask::" in ended.err
    assert "countersign review ses_" in runner.summary.read_text()
    assert runner.output.read_text().startswith("session=ses_")
