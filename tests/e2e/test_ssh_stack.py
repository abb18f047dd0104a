"""A chain of three hops opens the real sshd through the whole local stack, with the real ssh."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dev.demo.waiting import wait_for
from dev.local_stack import Stack
from dev.settings import SystemClock, child_environment
from dev.ssh_binaries import find_ssh
from dev.ssh_server import PLANTED_FILE
from tests.e2e.visitor import Agent, SshLogin, card_with

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CLOCK = SystemClock()
TARGET = "db-prod"


@pytest.fixture(scope="module")
def parent(stack: Stack) -> Agent:
    """The container's agent, which has no issuer of its own."""
    return Agent.root(stack).vouched("deploy-svc")


@pytest.fixture(scope="module")
def tool(parent: Agent) -> Agent:
    return parent.attested()


@pytest.fixture(scope="module")
def session(tool: Agent) -> dict[str, Any]:
    return tool.session(TARGET)


@pytest.fixture(scope="module")
def login(tool: Agent, session: Mapping[str, Any]) -> Iterator[SshLogin]:
    with tool.ssh(session) as made:
        yield made


def log_of(stack: Stack) -> str:
    return Path(stack.ready["targets"][TARGET]["log"]).read_text()


def test_a_permitted_command_runs_and_the_targets_log_names_the_chain(
    stack: Stack, tool: Agent, login: SshLogin
) -> None:
    """P2: one id, found on the session and in sshd's own log."""
    ran = login.run("uptime")
    assert ran.returncode == 0, ran.stderr
    assert "up" in ran.stdout
    assert f"txn:{tool.txn}" in log_of(stack)


def test_a_planted_secret_arrives_masked(stack: Stack, login: SshLogin) -> None:
    """P5: what the target prints is not what the pipeline reads."""
    ran = login.run(f"cat {PLANTED_FILE}")
    assert ran.returncode == 0, ran.stderr
    assert "APP_ENV=production" in ran.stdout
    assert "#MASKED:" in ran.stdout
    for secret in stack.ready["targets"][TARGET]["planted"]:
        assert secret not in ran.stdout


def test_a_forbidden_command_never_reaches_sshd(login: SshLogin) -> None:
    """P3: exit status 126, the rule's hint, and no session at the target."""
    ran = login.run("sudo systemctl restart orders")
    assert ran.returncode == 126
    assert "countersign: blocked:" in ran.stderr


def test_a_certificate_opens_its_own_session_alone(session: Mapping[str, Any], login: SshLogin) -> None:
    """Shown with another session's login it opens nothing."""
    other = SshLogin(folder=login.folder, connect={**login.connect, "user": "ses_00000000000000000000000000"})
    ran = other.run("uptime")
    assert ran.returncode == 255
    assert "Permission denied" in ran.stderr


def test_a_change_waits_for_a_person(stack: Stack, login: SshLogin) -> None:
    """P4: held in flight; the card shows the very line; then it runs, once."""
    process = subprocess.Popen(
        login.argv("touch approved-over-ssh"),
        env=child_environment(find_ssh().client_environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    card_with(stack, "touch approved-over-ssh").click("UALICE")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "waiting for approval by 1 of dba" in error
    assert "approved-over-ssh" in login.run("ls").stdout


def test_a_shell_waits_for_a_person(stack: Stack, login: SshLogin) -> None:
    """A shell has no line, and its card says what is asked all the same; then it is a shell, at a terminal."""
    process = subprocess.Popen(
        login.argv(options=("-tt",)),
        env=child_environment(find_ssh().client_environment()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    card = card_with(stack, "the account's shell")
    assert "input: the client's" in json.dumps(card.message["blocks"])
    card.click("UALICE")
    out, error = process.communicate("echo $((40 + 2)) apples\nexit 3\n", timeout=60)
    assert process.returncode == 3, error
    assert "42 apples" in out


def test_files_are_refused_in_words(stack: Stack, login: SshLogin) -> None:
    """What scp and sftp ask for: the client prints our sentence, and the record calls it a refusal."""
    sshd = stack.targets.db
    assert sshd is not None
    ran_before = sshd.ran()
    ran = login.run("sftp", options=("-s",), given="\x00\x00\x00\x05\x01\x00\x00\x00\x03")
    assert ran.returncode == 126
    assert "countersign: blocked: files are not transferred yet (policy_denied)." in ran.stderr
    assert sshd.ran() == ran_before


def test_revoking_the_parent_ends_a_live_command_within_five_seconds(stack: Stack, parent: Agent) -> None:
    """P9: a child's session lives no longer than any hop above it."""
    child = parent.attested()
    with child.ssh(child.session(TARGET)) as login:
        process = subprocess.Popen(
            login.argv("tail -f releases/current"),
            env=child_environment(find_ssh().client_environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        started = CLOCK.monotonic_s()
        status, told = parent.call("POST", "/v1/revocations", {"kind": "hop", "id": child.hop, "why": "test"})
        assert status == 201, told
        _, error = process.communicate(timeout=20)
        assert CLOCK.monotonic_s() - started < 5
        assert process.returncode == 254
        assert "countersign: the session was revoked (grant_revoked)." in error
        refused = login.run("uptime")
        assert refused.returncode == 254, refused.stderr
    wait_for("sshd to close", lambda: "Close session: user deploy" in log_of(stack), CLOCK, 10)
