"""Attacks of security.md on commands, against the policy engine itself: what a rule on a line permits, and no more."""

from __future__ import annotations

import pytest

from broker.engines.ssh.command import shell_act, understand
from broker.inspection import DURABLE_CLASSES
from chalicelib.domain.operation import Act
from chalicelib.domain.policy import Allow, Decision, Deny, NeedsApproval
from chalicelib.policy.engine import compile_policy
from tests.unit.chalicelib.policy.questions import ask

COMMANDS = """
@id("commands") permit (principal, action == Action::"ssh:exec", resource);
@id("people") @requires("approval:dba:1")
forbid (principal, action in Action::"ssh", resource) unless { context.met.contains("people") };
"""
LOGS = """
@id("logs") permit (principal, action == Action::"ssh:exec", resource)
when { context.program == "cat" && context.arguments == ["/var/log/orders.log"] };
@id("status") permit (principal, action == Action::"ssh:exec", resource)
when { context.command == "systemctl status orders" };
"""
CONTROL = """
@id("any") permit (principal, action == Action::"ssh:exec", resource);
@id("no-control") @hint("services are restarted by a release")
forbid (principal, action in Action::"ssh", resource) when { context.program == "systemctl" };
"""


def judged(text: str, act: Act) -> Decision:
    return compile_policy({"a.cedar": text}).decide(ask(act.action, context=dict(act.context)))


def said(line: str, *, terminal: bool = False) -> Act:
    return understand(line, terminal=terminal)


@pytest.mark.parametrize(
    "act",
    [
        said("bash"),
        said("bash -s"),
        said("sh -c 'cat /etc/hostname'"),
        said("python3 -"),
        said("psql"),
        said("xargs rm"),
        said("less /etc/hostname", terminal=True),
        said("/tmp/../bin/bash"),
        said("cat /etc/hostname | sh"),
        said("sh < script"),
        said(""),
        shell_act(terminal=True),
        shell_act(terminal=False),
    ],
)
def test_approve_bash_feed_it_a_script(act: Act) -> None:
    """What would run is not in the line, so no permit for commands reaches it, and nobody is even asked: an approver
    would have approved a name. It takes a permit for opaque lines, or for shells, and is then durable first."""
    assert isinstance(judged(COMMANDS, said("cat /etc/hostname")), NeedsApproval)
    assert isinstance(judged(COMMANDS, act), Deny)
    own = f'@id("own") permit (principal, action == Action::"{act.action}", resource);'
    assert isinstance(judged(COMMANDS + own, act), NeedsApproval)
    assert act.action.partition(":")[2] in DURABLE_CLASSES


@pytest.mark.parametrize(
    "line",
    [
        "cat /var/log/orders.log; id",
        "cat /var/log/orders.log\nid",
        "cat /var/log/orders.log && id",
        "cat /var/log/orders.log > /etc/cron.d/x",
        "cat $(id) /var/log/orders.log",
        "cat /var/log/orders.lo[g]",
        "cat /var/log/orders.log*",
        "cat /var/log/{orders.log,../../etc/shadow}",
        'cat "/var/log/orders.log$(id)"',
        "cat /var/log/orders.log /etc/shadow",
        "cat '/var/log/orders.log /etc/shadow'",
        "/tmp/cat /var/log/orders.log",
        "./cat /var/log/orders.log",
        "PATH=/tmp cat /var/log/orders.log",
        "LD_PRELOAD=/tmp/x.so cat /var/log/orders.log",
        "sudo cat /var/log/orders.log",
        "env cat /var/log/orders.log",
        "cat /var/log/orders.log # \u00a0",
        "systemctl status 'orders other'",
        "'systemctl status orders'",
        "systemctl 'status orders'",
    ],
)
def test_an_argument_that_a_shell_would_change_meets_no_rule(line: str) -> None:
    """Quoting, substitution, globs: a rule on the words is met by those words alone."""
    assert isinstance(judged(LOGS, said("cat /var/log/orders.log")), Allow)
    assert isinstance(judged(LOGS, said("cat '/var/log/'\"orders.log\"")), Allow)
    assert isinstance(judged(LOGS, said("systemctl status orders")), Allow)
    assert isinstance(judged(LOGS, said(line)), Deny)


@pytest.mark.parametrize(
    "line",
    [
        "systemctl stop orders",
        "/usr/bin/systemctl stop orders",
        "'systemctl' stop orders",
        "sys'tem'ctl stop orders",
        "sudo systemctl stop orders",
        "env systemctl stop orders",
        "sh -c 'systemctl stop orders'",
        "systemct? stop orders",
        "$(echo systemctl) stop orders",
        "/bin/../bin/systemctl stop orders",
        "nohup systemctl stop orders &",
    ],
)
def test_a_forbidden_command_is_written_otherwise(line: str) -> None:
    """By another spelling it is the same command or an opaque line; neither is permitted by a rule for commands."""
    assert isinstance(judged(CONTROL, said("uptime")), Allow)
    assert isinstance(judged(CONTROL, said(line)), Deny)


def test_the_hint_of_a_forbidden_command_reaches_whoever_asked() -> None:
    """The refusal is for people: it names the rule's own way on."""
    outcome = judged(CONTROL, said("systemctl stop orders"))
    assert isinstance(outcome, Deny)
    assert (outcome.rules, outcome.hint) == (("no-control",), "services are restarted by a release")
