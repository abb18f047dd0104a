"""The engine in front of a scripted target: what a client asks for, what the target hears, what is recorded."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import paramiko
import pytest

from broker.wire.ssh import messages
from chalicelib.domain.operation import Forward, Operation
from tests.e2e.postgres_broker import wait_for
from tests.e2e.ssh_broker import Identity, SshBroker
from tests.fakes.flow import block, forward, hold
from tests.fakes.ssh_target import FakeSshTarget, Run
from tests.unit.broker.engines.ssh.running import all_of, execute, outcomes, run

pytestmark = pytest.mark.timeout(60)

# -- programs ----------------------------------------------------------------------------------------------------------


def test_an_exec_runs_as_it_was_asked_for(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """Output, errors and status come back each by itself; the login at the target is the certificate's."""

    def program(run: Run) -> int:
        run.out(b"out " + run.read())
        run.error(b"err")
        return 3

    target.program = program
    assert run(broker, "cat", identity, stdin=b"in") == (3, b"out in", b"err")
    assert target.ran() == ["cat"]
    assert target.logins == [("deploy", "ssh-ed25519-cert-v01@openssh.com")]
    assert outcomes(broker) == [("error", "exit 3")]
    assert broker.connection.told("data stdin") == [("c2s", "in")]
    assert "".join(text for _, text in broker.connection.told("data stdout")) == "out in"
    assert broker.connection.told("data stderr") == [("s2c", "err")]
    assert broker.ended(broker.connection) == "client_closed"


def test_a_blocked_command_never_reaches_the_target(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """Decided before: the target opens no session for it; the connection lives on."""
    broker.flow.verdicts = lambda op: block(hint="ask the dba") if op.text.startswith("rm") else forward()
    with broker.client(identity) as transport:
        status, out, error = execute(transport, "rm -rf /")
        assert (status, out) == (126, b"")
        assert error.startswith(b"countersign: blocked: not this (policy_denied). ask the dba")
        assert execute(transport, "ls")[0] == 0
    assert target.ran() == ["ls"]
    assert broker.connection.told("notice")[0][2] == error.decode().strip()


def test_a_line_that_was_not_read_says_why(broker: SshBroker, identity: Identity) -> None:
    """Whoever wrote it can write it so that a rule can permit it."""
    broker.flow.verdicts = lambda _: block()
    assert b"It was not read:" in run(broker, "uptime; rm x", identity)[2]
    assert b"It was not read:" not in run(broker, "uptime", identity)[2]


def test_a_held_command_runs_after_approval_with_its_input_closed(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """Approve `bash`, feed it a script: what was approved is the command line alone."""
    broker.flow.verdicts = lambda _: hold()
    got: list[bytes] = []

    def program(run: Run) -> int:
        got.append(run.read())
        return 0

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("bash")
        channel.sendall(b"evil\x03\n")  # at no terminal a byte like any other
        assert broker.flow.held.wait(10)
        assert target.runs == []
        channel.sendall(b"more evil\n")
        broker.soon(broker.flow.answered.set)
        status, _, error = all_of(channel)
    assert (status, got) == (0, [b""])
    assert error == b"countersign: waiting for approval by 1 of dba; ask_1\n"
    assert broker.connection.told("data stdin") == []


def test_a_refused_hold_is_told_and_runs_nothing(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """The approver's no is the client's answer."""
    broker.flow.verdicts = lambda _: hold()
    broker.flow.answers = lambda _: block("an approver refused this", code="approval_denied")
    broker.soon(broker.flow.answered.set)
    status, _, error = run(broker, "rm x", identity)
    assert status == 126
    assert b"an approver refused this (approval_denied)" in error
    assert target.ran() == []


@pytest.mark.parametrize("how", ["channel", "transport"])
def test_a_client_that_leaves_takes_back_what_it_held(
    broker: SshBroker, target: FakeSshTarget, identity: Identity, how: str
) -> None:
    """Nobody shall approve what nobody waits for; an approval that comes too late runs nothing."""
    broker.flow.verdicts = lambda op: hold() if op.text == "rm x" else forward()
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("rm x")
        assert broker.flow.held.wait(10)
        if how == "channel":
            channel.close()
            assert execute(transport, "ls")[0] == 0
    broker.ended(broker.connection)
    broker.soon(broker.flow.answered.set)
    assert target.ran() == (["ls"] if how == "channel" else [])
    assert broker.flow.withdrawn == ["the client left"]


def test_a_command_that_is_let_through_too_late_does_not_run(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """The client left while its record became durable: nobody waits for it, and the record says it was not sent."""
    durable = asyncio.Event()

    async def settle(connection: Any, op: Operation, verdict: Any, client: Any, *, state: Any = ()) -> Forward:
        await durable.wait()
        return forward()

    broker.flow.settle = settle  # type: ignore[method-assign]
    broker.flow.verdicts = lambda _: forward(durable=True)
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("rm x")
        channel.close()
        with pytest.raises(paramiko.SSHException):
            transport.open_channel("direct-tcpip", ("x", 1), ("x", 1))  # so CLOSE was heard
        broker.soon(durable.set)
        wait_for(lambda: outcomes(broker))
    assert outcomes(broker) == [("refused", "the client left before it was sent")]
    assert target.ran() == []


def test_a_held_command_is_interrupted_at_the_terminal(broker: SshBroker, identity: Identity) -> None:
    """Ctrl-C at a terminal is a byte like any other."""
    broker.flow.verdicts = lambda _: hold()
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.get_pty()
        channel.exec_command("rm x")
        assert broker.flow.held.wait(10)
        channel.send(b"\x03")
        status, _, error = all_of(channel)
    assert status == 126
    assert b"the client interrupted it (approval_withdrawn)" in error


def test_a_shell_has_its_terminal(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """TERM, size and each resize reach the target and the record; what is typed is not recorded."""

    def program(run: Run) -> int:
        run.out(b"$ ")
        typed = run.channel.recv(100)
        wait_for(lambda: run.sizes)
        run.out(typed)
        return 0

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.get_pty(term="xterm-256color", width=100, height=30)
        channel.invoke_shell()
        assert channel.recv(2) == b"$ "
        channel.resize_pty(120, 40)
        channel.send(b"hunter2")
        assert all_of(channel)[:2] == (0, b"hunter2")
    assert target.runs[0].terminal == (b"xterm-256color", 100, 30)
    assert target.runs[0].command is None
    assert target.runs[0].sizes == [(120, 40)]
    assert broker.connection.told("terminal") == [("xterm-256color", 100, 30), ("xterm-256color", 120, 40)]
    assert broker.connection.told("data stdin") == []
    assert [op.acts[0].action for op, _ in broker.connection.told("operation")] == ["ssh:shell"]


def test_only_locales_reach_the_target(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """LD_PRELOAD over ssh: what is refused is not set, and the command runs without it."""
    with broker.client(identity) as transport:
        channel = transport.open_session()
        for name, value in (("LD_PRELOAD", "/tmp/x.so"), ("LANG", "C"), ("LC_ALL", "$(id)"), ("BASH_ENV", "/tmp/x")):
            channel.set_environment_variable(name, value)
        channel.exec_command("env")
        all_of(channel)
    assert target.runs[0].environment == {b"LANG": b"C"}


def test_a_secret_in_the_output_is_masked_and_recorded_masked(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """In standard output and standard error, across packets."""

    def program(run: Run) -> int:
        for piece in (b"key AKIAABCD", b"EFGHIJKLMNOP end\n"):
            run.out(piece)
            run.error(piece)
        return 0

    target.program = program
    broker.flow.verdicts = lambda _: forward(masks=("credentials",))
    masked = b"key #MASKED:credentials# end\n"
    assert run(broker, "cat", identity) == (0, masked, masked)
    assert "AKIA" not in str(broker.connection.frames)


def test_output_is_left_out_of_the_record_where_policy_permits_it_and_the_outcome_says_so(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """The client gets all of it; what it sent, the command and how it ended are recorded."""

    def program(run: Run) -> int:
        run.out(b"a" * 1000)
        run.error(b"b" * 10)
        return 0

    target.program = program
    broker.flow.verdicts = lambda _: forward(full=False)
    assert run(broker, "cat", identity) == (0, b"a" * 1000, b"b" * 10)
    frames = broker.connection.frames
    assert [kind for kind, _ in frames if kind in ("data stdout", "data stderr")] == []
    (told,) = [what for kind, what in frames if kind == "outcome"]
    assert told["left_out"] == {"rows": 0, "bytes": 1010, "why": "record:statements"}


def test_a_prompt_without_a_newline_appears(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """A mask that waits for the end of a line would hang every prompt."""
    got: list[bytes] = []

    def program(run: Run) -> int:
        run.out(b"Continue? ")
        got.append(run.channel.recv(10))
        return 0

    target.program = program
    broker.flow.verdicts = lambda _: forward(masks=("credentials",))
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("ask")
        channel.settimeout(10)
        assert channel.recv(100) == b"Continue? "
        channel.send(b"y")
        assert all_of(channel)[0] == 0
    assert got == [b"y"]


def test_an_exit_signal_is_passed_back(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """A program that was killed has no status; the record names the signal."""

    def program(run: Run) -> None:
        message = paramiko.Message()
        message.add_byte(b"\x62")
        message.add_int(run.channel.remote_chanid)
        message.add_string("exit-signal")
        message.add_boolean(False)
        message.add_string("KILL")
        message.add_boolean(False)
        message.add_string("")
        message.add_string("")
        run.transport._send_user_message(message)

    target.program = program
    assert run(broker, "kill -9 $$", identity)[0] == -1
    wait_for(lambda: outcomes(broker))
    assert outcomes(broker) == [("error", "signal KILL")]


def test_a_target_smuggles_text_past_masks_and_record_in_an_exit_signal(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """Its message is for people to read, of any length: only the signal passes."""

    def program(run: Run) -> None:
        fields = messages.string("KILL\x1b[2J") + b"\x00" + messages.string(b"AKIA" * 1000) + messages.string("en")
        request = messages.encode_request(run.channel.remote_chanid, "exit-signal", fields, want_reply=False)
        run.transport._send_user_message(paramiko.Message(request))

    heard: list[bytes] = []
    target.program = program
    with broker.client(identity) as transport:
        table = transport._channel_handler_table  # type: ignore[attr-defined]
        transport._channel_handler_table = {  # type: ignore[attr-defined]
            **table,
            messages.REQUEST: lambda _, m: heard.append(m.get_remainder()),
        }
        channel = transport.open_session()
        channel.exec_command("ls")
        wait_for(lambda: heard)
    told = messages.encode_exit_signal("TERM", dumped=False)
    assert heard == [messages.string("exit-signal") + b"\x00" + told]
    assert outcomes(broker) == [("error", "signal")]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("accepts_program", b"countersign: the target refused to run it.\n"),
        ("accepts_session", b"countersign: the target refused another session.\n"),
    ],
)
def test_what_the_target_refuses_is_told(
    broker: SshBroker, target: FakeSshTarget, identity: Identity, field: str, said: bytes
) -> None:
    """sshd's MaxSessions and ForceCommand are not ours; the client must not wait for them."""
    setattr(target, field, False)
    assert run(broker, "ls", identity) == (254, b"", said)
    assert outcomes(broker) == [("refused", "the target refused it")]


def test_a_terminal_that_the_target_refuses_is_told(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """The program runs without one, as with ssh itself."""
    target.accepts_terminal = False
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.get_pty()
        channel.exec_command("ls")
        status, out, error = all_of(channel)
    assert (status, out) == (0, b"ran: ls\n")
    assert error == b"countersign: the target refused a terminal.\r\n"


# -- what is not offered -----------------------------------------------------------------------------------------------


def test_forwardings_and_subsystems_are_refused_and_recorded(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """Peers let port-forwards and sftp pass unseen; here none gets through, and each leaves a record."""
    with broker.client(identity) as transport:
        for kind in ("direct-tcpip", "x11", "auth-agent@openssh.com", "direct-streamlocal@openssh.com"):
            with pytest.raises(paramiko.ChannelException):
                transport.open_channel(kind, ("db.internal", 5432), ("127.0.0.1", 1), timeout=10)
        with pytest.raises(paramiko.SSHException):
            transport.request_port_forward("127.0.0.1", 8022)
        channel = transport.open_session()
        channel.request_forward_agent(lambda _: None)
        assert execute(transport, "ls")[0] == 0
    assert target.ran() == ["ls"]
    assert broker.connection.texts == [
        "direct-tcpip db.internal:5432",
        "x11",
        "auth-agent",
        "direct-streamlocal",
        "tcpip-forward 127.0.0.1:8022",
        "auth-agent-req",
        "ls",
    ]
    assert {op.acts for op, _ in broker.connection.told("operation")[:-1]} == {()}


def test_a_subsystem_is_refused_in_words_and_breaks_nothing(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """sftp and scp speak before they are answered: that is no violation, and what they are told must be read."""
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.invoke_subsystem("sftp")
        with contextlib.suppress(OSError):  # paramiko waits for the answer, and the close may be here by then
            channel.sendall(b"\x00\x00\x00\x05\x01\x00\x00\x00\x03")
        status, out, error = all_of(channel)
        assert (status, out) == (126, b"")
        assert error.startswith(b"countersign: blocked: files are not transferred yet (policy_denied).")
        with pytest.raises(paramiko.SSHException):
            channel.exec_command("rm x")
        assert execute(transport, "ls")[0] == 0
    assert broker.ended(broker.connection) == "client_closed"
    assert target.ran() == ["ls"]
    assert broker.connection.texts == ["subsystem sftp", "ls"]
    assert broker.connection.told("operation")[0][0].acts == ()


def test_a_second_program_on_a_channel_is_refused(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """RFC 4254 section 6.5: one for each channel; a second would run unjudged beside the first."""
    target.program = lambda run: len(run.read())
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("cat")
        wait_for(lambda: target.runs)
        with pytest.raises(paramiko.SSHException):
            channel.exec_command("rm x")
    assert target.ran() == ["cat"]
