"""What a client may ask for before its program runs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.engines.ssh.asked import MAX_VARIABLES, Asked, feature, is_signal, program
from broker.wire.ssh.messages import Terminal
from tests.fakes.clock import FakeClock

NOW = FakeClock().now()


@pytest.mark.parametrize(
    "name",
    [
        b"LD_PRELOAD",
        b"LD_LIBRARY_PATH",
        b"BASH_ENV",
        b"ENV",
        b"PATH",
        b"GIT_SSH_COMMAND",
        b"GIT_PROTOCOL",
        b"LC_",
        b"lc_all",
        b"XLANG",
        b"LANG\nLD_PRELOAD",
        b"LC_ALL=x",
        b"",
    ],
)
def test_ld_preload_over_ssh(name: bytes) -> None:
    """An approved `uptime` with somebody's library in it is another program."""
    asked = Asked()
    assert not asked.want_variable(name, b"x.so")
    assert asked.environment == {}


@pytest.mark.parametrize("value", [b"() { :;}; id", b"$(id)", b"a b", b"x\n", b"/tmp/x", b"x" * 129, b"\xff"])
def test_a_variable_that_is_no_locale_is_left_out(value: bytes) -> None:
    """Shells and libraries have read programs, and names of files, out of locale variables."""
    assert not Asked().want_variable(b"LC_ALL", value)


def test_locales_pass_and_are_bounded() -> None:
    """Debian's client sends them, and output in the wrong encoding is masked wrongly."""
    asked = Asked()
    for number in range(MAX_VARIABLES):
        assert asked.want_variable(f"LC_{'A' * (number + 1)}".encode(), b"en_US.UTF-8")
    assert not asked.want_variable(b"LANG", b"C")


def test_a_terminal_has_a_plain_name_and_a_size() -> None:
    """TERM is looked up as a file's name; struct winsize has 16 bits."""
    asked = Asked()
    for term, cols, modes in (("../../x", 80, b""), ("a b", 80, b""), ("x", 70_000, b""), ("x", 80, b"m" * 2000)):
        assert not asked.want_terminal(Terminal(term, cols, 24, 0, 0, modes))
    assert asked.terminal is None
    assert asked.want_terminal(Terminal("xterm-256color", 80, 24, 0, 0, b"\x00"))
    assert asked.raw


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=200))
def test_every_command_has_one_act_and_its_exact_bytes(command: bytes) -> None:
    """What is approved is bound to the very bytes; no bytes go without being named to policy."""
    op = program(Asked(command=command), NOW)
    assert op.exact == command
    assert len(op.acts) == 1


def test_a_shell_is_an_act_of_its_own() -> None:
    """It runs anything: no rule for commands may let it in."""
    assert program(Asked(), NOW).acts[0].action == "ssh:shell"


def test_a_secret_in_a_command_line_is_not_recorded() -> None:
    """The line goes onto the card and into the archive."""
    op = program(Asked(command=b"mysql --url mysql://root:hunter2hunter2@db/x"), NOW)
    assert "hunter2" not in op.text
    assert [literal.kind for literal in op.literals] == ["url_password"]
    assert b"hunter2" in op.exact


def test_a_feature_that_is_not_offered_has_no_act() -> None:
    """No act is a Block, whatever the rules say."""
    op = feature("direct-tcpip", "db.internal:22", NOW)
    assert op.acts == ()
    assert op.text == "direct-tcpip db.internal:22"
    assert feature("auth-agent-req@openssh.com", "", NOW).text == "auth-agent-req"


def test_the_state_names_everything_that_changes_the_meaning() -> None:
    """Two approvals of the same line under another login, terminal or locale are two approvals."""
    asked = Asked(command=b"ls")
    asked.want_variable(b"LANG", b"C")
    asked.want_terminal(Terminal("xterm", 80, 24, 0, 0, b""))
    assert asked.state("deploy") == (
        ("login", "deploy"),
        ("terminal", "xterm"),
        ("environment", "LANG=C"),
        ("input", "closed"),
    )
    assert dict(Asked().state("deploy"))["input"] == "the client's"


def test_signals_are_named_plainly() -> None:
    """The name is sent on to the target, and recorded."""
    assert is_signal("TERM")
    assert is_signal("USR1")
    assert not is_signal("TERM\n")
    assert not is_signal("")
