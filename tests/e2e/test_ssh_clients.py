"""The real ssh and the real sshd, with the broker between them."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.domain.errors import PolicyDenied
from dev.ssh_keys import make_key
from dev.ssh_server import PLANTED_FILE, SshServer
from tests.e2e.postgres_broker import wait_for
from tests.e2e.ssh_broker import Identity, SshBroker, running_ssh_broker, running_sshd
from tests.fakes.flow import block, forward, hold
from tests.fakes.signer import MemoryKeys

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ssh-clients")]

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with running_sshd() as running:
        yield running


@pytest.fixture
def broker(server: SshServer) -> Iterator[SshBroker]:
    with running_ssh_broker(server) as running:
        yield running


@pytest.fixture
def identity(broker: SshBroker) -> Identity:
    return broker.identity()


def outcome(broker: SshBroker) -> tuple[str, str]:
    told = wait_for(lambda: broker.connection.told("outcome"))[-1]
    return told["status"], told["tag"]


def test_a_command_with_its_status_and_both_outputs(broker: SshBroker, identity: Identity) -> None:
    """A script cannot tell the broker from the target."""
    ran = broker.ssh("echo out; echo err >&2; exit 7", identity=identity)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"out\n", b"err\n")
    assert outcome(broker) == ("error", "exit 7")
    assert broker.ended(broker.connection) == "client_closed"


def test_the_secret_is_a_password(broker: SshBroker) -> None:
    """A client without a certificate logs in with what every client knows."""
    ran = broker.ssh("echo in")
    assert (ran.returncode, ran.stdout) == (0, b"in\n")
    assert not broker.connection.bound


def test_the_targets_own_log_names_the_chain(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """One id, `txn`, found on the target too: it is the certificate's."""
    assert broker.ssh("true", identity=identity).returncode == 0
    assert f"ID txn:{broker.flow.session.txn}" in server.log.read_text()


def test_a_mebibyte_each_way_arrives_unchanged(broker: SshBroker, identity: Identity) -> None:
    """Through windows, packets and both ciphers."""
    sent = os.urandom(MiB)
    assert broker.ssh("sha256sum", identity=identity, stdin=sent).stdout.split()[0].decode() == (
        hashlib.sha256(sent).hexdigest()
    )
    assert broker.ssh("cat", identity=identity, stdin=sent).stdout == sent


def test_keys_are_exchanged_again_in_the_middle(broker: SshBroker, identity: Identity) -> None:
    """RekeyLimit is the client's to choose."""
    sent = os.urandom(8 * MiB)
    ran = broker.ssh("cat", identity=identity, stdin=sent, before=("-o", "RekeyLimit=1M"))
    assert ran.stdout == sent


def test_a_shell_with_a_terminal(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """`ssh -tt`, with its size, and what is typed not recorded but as it is echoed."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", "97", "rows", "31"], stdin=theirs, check=True)
    process = broker.start(before=("-tt",), identity=identity, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    got = b""
    os.write(ours, b"stty size; exit 5\n")
    while b"31 97" not in got:
        got += os.read(ours, 65536)
    assert process.wait(20) == 5
    os.close(ours)
    assert b"stty size" in got
    assert broker.connection.told("terminal")[0][1:] == (97, 31)
    assert broker.connection.told("data stdin") == []
    assert server.ran()[-1] == ""


def test_a_terminal_that_is_resized(broker: SshBroker, identity: Identity) -> None:
    """A window that grows in the middle reaches the program."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", "80", "rows", "24"], stdin=theirs, check=True)
    process = broker.start(
        "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done",
        before=("-tt",),
        identity=identity,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    got = b""
    while b"ready" not in got:
        got += os.read(ours, 65536)
    subprocess.run(["stty", "cols", "120", "rows", "50"], stdin=theirs, check=True)
    process.send_signal(signal.SIGWINCH)  # ssh is not in the foreground group of this terminal
    while b"50 120" not in got:
        got += os.read(ours, 65536)
    os.close(theirs)
    assert process.wait(20) == 0
    os.close(ours)
    assert [size[1:] for size in broker.connection.told("terminal")] == [(80, 24), (120, 50)]


def test_planted_secrets_arrive_masked_and_are_recorded_masked(
    broker: SshBroker, server: SshServer, identity: Identity
) -> None:
    """The promise's own words: planted secrets are found neither on the wire nor in the recording."""
    broker.flow.verdicts = lambda _: forward(masks=("credentials",))
    for command in (f"cat {PLANTED_FILE}", f"cat {PLANTED_FILE} >&2", f"sed 's/^/> /' {PLANTED_FILE}"):
        ran = broker.ssh(command, identity=identity)
        assert ran.returncode == 0
        shown = (ran.stdout + ran.stderr).decode()
        assert "APP_ENV=production" in shown
        recorded = str(broker.connection.frames)
        for secret in server.planted[:2]:
            assert secret not in shown
            assert secret not in recorded


def test_a_blocked_command_is_in_no_log_of_the_target(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """Decided before a command reaches the target; the client reads what to do."""
    broker.flow.verdicts = lambda _: block("production is not restarted by hand", hint="Open a change.")
    before = server.ran()
    ran = broker.ssh("touch", "made-by-a-blocked-command", identity=identity)
    assert ran.returncode == 126
    assert ran.stderr == (
        b"countersign: blocked: production is not restarted by hand (policy_denied). Open a change.\n"
    )
    assert server.ran() == before
    broker.flow.verdicts = lambda _: forward()
    assert b"blocked" not in broker.ssh("ls", identity=identity).stdout


def test_a_script_fed_to_a_held_shell(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """Approve `sh`, feed it a script: it runs with its input closed, so nothing of the script does."""
    broker.flow.verdicts = lambda _: hold()
    process = broker.start("sh -s; echo over", identity=identity)
    assert broker.flow.held.wait(20)
    assert process.stdin is not None
    process.stdin.write(b"touch made-by-a-script\n")
    process.stdin.flush()
    broker.soon(broker.flow.answered.set)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"over\n")
    assert error == b"countersign: waiting for approval by 1 of dba; ask_1\n"
    assert not list(server.folder.rglob("made-by-a-script"))


def test_a_held_command_that_the_client_interrupts(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """Ctrl-C takes it back: no approval that comes later runs it."""
    broker.flow.verdicts = lambda _: hold()
    before = server.ran()
    process = broker.start("echo never", identity=identity)
    assert broker.flow.held.wait(20)
    process.terminate()
    process.communicate(timeout=20)
    wait_for(lambda: broker.flow.withdrawn)
    broker.ended(broker.connection)
    assert server.ran() == before


def test_several_commands_over_one_connection(broker: SshBroker, identity: Identity) -> None:
    """ControlMaster: each is a channel with a verdict of its own."""
    socket_path = str(broker.folder / "master")
    master = broker.start(before=("-M", "-S", socket_path, "-N"), identity=identity)
    try:
        wait_for(lambda: Path(socket_path).exists())
        broker.flow.verdicts = lambda op: block() if "rm" in op.text else forward()
        over = ("-S", socket_path)
        assert [broker.ssh(f"exit {n}", before=over, identity=identity).returncode for n in (0, 3)] == [0, 3]
        assert broker.ssh("rm x", before=over, identity=identity).returncode == 126
        at_once = [broker.start(f"sleep 0.2; echo {n}", before=over, identity=identity) for n in range(5)]
        assert [process.communicate(timeout=20)[0] for process in at_once] == [f"{n}\n".encode() for n in range(5)]
    finally:
        broker.ssh(before=("-S", socket_path, "-O", "exit"), identity=identity)  # a signal may come between its waits
        master.communicate(timeout=20)
    assert len(broker.flow.connections) == 1
    assert len(broker.connection.texts) == 8


@pytest.mark.parametrize(
    ("options", "words", "recorded"),
    [
        (("-W", "127.0.0.1:22"), (), "direct-tcpip 127.0.0.1:22"),
        (("-R", "127.0.0.1:0:127.0.0.1:22", "-o", "ExitOnForwardFailure=yes"), ("ls",), "tcpip-forward 127.0.0.1:0"),
    ],
    ids=["-W", "-R"],
)
def test_a_way_around_is_refused_and_recorded(
    broker: SshBroker, identity: Identity, options: tuple[str, ...], words: tuple[str, ...], recorded: str
) -> None:
    """Peers let port-forwards and sftp pass unseen."""
    assert broker.ssh(*words, before=options, identity=identity).returncode == 255
    assert recorded in wait_for(lambda: broker.connection.texts)


def test_a_file_transfer_is_refused_in_words(broker: SshBroker, identity: Identity) -> None:
    """sftp (scp, too) shows what its ssh reads on standard error; that it spoke first is no violation."""
    ran = broker.ssh("sftp", before=("-s",), identity=identity, stdin=b"\x00\x00\x00\x05\x01\x00\x00\x00\x03")
    assert ran.returncode == 126
    assert b"files are not transferred yet (policy_denied). `ssh TARGET cat FILE` shows one." in ran.stderr
    assert "subsystem sftp" in broker.connection.texts
    assert broker.ended(broker.connection) == "client_closed"


def test_a_local_forward_reaches_nothing(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """`-L` opens its port on the client; what connects there gets no byte."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = broker.start("echo ready; cat", before=("-L", f"{port}:127.0.0.1:{server.port}"), identity=identity)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as tried:
        assert tried.recv(10) == b""
    process.communicate(timeout=20)
    assert f"direct-tcpip 127.0.0.1:{server.port}" in broker.connection.texts


def test_an_agent_is_not_forwarded(broker: SshBroker, identity: Identity) -> None:
    """Whoever is root on the target would have it."""
    agent = subprocess.run(
        ["ssh-agent", "-s"], capture_output=True, text=True, check=True, env=broker.environment()
    ).stdout
    named = dict(line.split(";")[0].split("=") for line in agent.splitlines() if "=" in line)
    try:
        environment = broker.environment() | named
        command = broker.command("-A", "127.0.0.1", "echo agent:$SSH_AUTH_SOCK", identity=identity)
        ran = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)
    finally:
        os.kill(int(named["SSH_AGENT_PID"]), 15)
    assert ran.stdout == b"agent:\n"
    assert "auth-agent-req" in broker.connection.texts


def test_a_wrong_secret(broker: SshBroker) -> None:
    """One text for every cause."""
    wrong = broker.ssh("ls", password="wrong")
    nobody = broker.ssh("ls", login="ses_01k8zq5v9c3f7n2m4p6r8t0wx0")
    for ran in (wrong, nobody):
        assert ran.returncode == 255
        assert ran.stderr.rpartition(b": ")[2] == b"Permission denied (publickey,password).\r\n".rpartition(b": ")[2]
    assert broker.flow.connections == []


@pytest.mark.parametrize(
    "wanted",
    [{"before_s": -10}, {"after_s": 60}, {"keys": MemoryKeys()}, {"login": "root"}],
    ids=["expired", "not yet valid", "foreign", "another login"],
)
def test_a_certificate_that_does_not_let_in(broker: SshBroker, server: SshServer, wanted: dict[str, object]) -> None:
    """The client is told no more than that it may not."""
    public = make_key()
    certificate = broker.certificate(public.public, **wanted)  # type: ignore[arg-type]
    (broker.folder / "odd").write_text(public.private)
    (broker.folder / "odd").chmod(0o600)
    (broker.folder / "odd-cert.pub").write_text(certificate + "\n")
    ran = broker.ssh("ls", identity=Identity(broker.folder / "odd"))
    assert (ran.returncode, ran.stdout) == (255, b"")
    assert b"Permission denied (publickey,password)." in ran.stderr
    assert broker.flow.connections == []


def test_a_refused_session_says_why(broker: SshBroker, identity: Identity) -> None:
    """Where a pipeline's log has it, with the code and the next step."""
    broker.flow.refusal = PolicyDenied("policy does not open this session any more")
    ran = broker.ssh("ls", identity=identity)
    assert ran.returncode == 254
    assert ran.stderr == (
        b"countersign: policy does not open this session any more (policy_denied). "
        b"Ask the owners of the target for access.\n"
    )
    alone = broker.ssh(before=("-N",), identity=identity)
    assert b"policy does not open this session any more (policy_denied)" in alone.stderr


def test_revocation_ends_a_live_command(broker: SshBroker, server: SshServer, identity: Identity) -> None:
    """Within 5 seconds, with a readable last line; what ran on the target has ended too."""
    mark = f"{os.getpid()}.25"
    process = broker.start(f"echo started; exec sleep {mark}", identity=identity)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    started = broker.clock.monotonic_s()
    broker.connection.revoke()
    _, error = process.communicate(timeout=20)
    assert broker.clock.monotonic_s() - started < 5
    assert process.returncode == 254
    assert error == (
        b"countersign: the session was revoked (grant_revoked). Ask who revoked it why, then for a new session.\n"
    )
    assert broker.ended(broker.connection) == "grant_revoked"
    assert outcome(broker) == ("unknown", "grant_revoked")
    wait_for(lambda: not running(f"sleep {mark}"))


def running(what: str) -> bool:
    """Whether a process has this command line."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().replace(b"\0", b" ").strip().endswith(what.encode()):
                return True
        except OSError:
            continue
    return False
