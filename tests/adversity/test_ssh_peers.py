"""SSH peers that are broken, slow, gone or hostile: bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paramiko
import pytest

from broker.engines.ssh import relay as relaying
from broker.engines.ssh.one_way import WINDOW
from broker.engines.ssh.transport import GREETING
from broker.listeners.limits import Strangers
from broker.wire.ssh import messages
from chalicelib.domain.errors import RecordingUnavailable
from tests.e2e.postgres_broker import wait_for
from tests.e2e.ssh_broker import CREDENTIALS, Identity, SshBroker, running_ssh_broker
from tests.fakes.flow import FakeConnection, forward
from tests.fakes.ssh_target import FakeSshTarget, Run
from tests.unit.broker.engines.ssh.running import all_of, execute, outcomes, run

pytestmark = pytest.mark.timeout(90)
BIG = bytes(range(256)) * 4096 * 8  # 8 MiB: several windows


@pytest.fixture
def target() -> Iterator[FakeSshTarget]:
    with FakeSshTarget() as running:
        yield running


@pytest.fixture
def broker(target: FakeSshTarget) -> Iterator[SshBroker]:
    with running_ssh_broker(target, handshake_s=2, strangers=Strangers(total=8, per_peer=6)) as running:
        yield running


@pytest.fixture
def identity(broker: SshBroker) -> Identity:
    return broker.identity()


def stranger(broker: SshBroker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), timeout=10)


def threads() -> set[str]:
    """The transports' threads, on every side of this process."""
    return {thread.name for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)}


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 20,
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" * 40,
        b"SSH-1.0-old\r\n",
        b"\x00" * 512,
    ],
    ids=["http", "tls", "ssh 1", "zeros"],
)
def test_a_peer_that_speaks_something_else(broker: SshBroker, identity: Identity, sent: bytes) -> None:
    """It is cut, hears our version line and nothing more, and others are served."""
    with stranger(broker) as raw, raw.makefile("rb") as got:
        raw.sendall(sent)
        assert got.readline() == GREETING
        with contextlib.suppress(ConnectionResetError):  # cut before it had read everything
            assert b"Traceback" not in got.read()
    assert run(broker, "ls", identity)[0] == 0


def test_silent_strangers_cost_no_thread_and_make_room(broker: SshBroker, identity: Identity) -> None:
    """Twenty that never speak keep nobody out of a door for six, and hold a socket each, no thread."""
    wait_for(lambda: not threads())
    silent = [stranger(broker) for _ in range(20)]
    try:
        for raw in silent[-4:]:
            assert raw.recv(len(GREETING)) == GREETING
        assert threads() == set()
        assert run(broker, "ls", identity)[0] == 0
    finally:
        for raw in silent:
            raw.close()


def test_a_stranger_who_stops_in_the_middle_is_cut_at_the_deadline(
    broker: SshBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys exchanged and nothing more: its place is given back."""
    caplog.set_level(logging.INFO)
    transport = paramiko.Transport(stranger(broker))
    transport.start_client(timeout=10)
    wait_for(lambda: not transport.is_active())
    transport.close()
    wait_for(lambda: [r for r in caplog.records if getattr(r, "how", "") == "too slow"])


def test_a_target_that_dies_in_the_middle(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """The client reads why; the outcome of what ran is unknown, and is said to be."""

    def program(run: Run) -> None:
        run.out(b"half")
        target.die()

    target.program = program
    status, out, error = run(broker, "dump", identity)
    assert (status, out) == (254, b"half")
    assert b"the target closed the connection (target_unavailable)" in error
    assert broker.ended(broker.connection) == "target_lost"
    assert outcomes(broker) == [("unknown", "target_lost")]


def test_a_client_that_dies_in_the_middle(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """The target's side is closed, the record is sealed, and the outcome is unknown."""
    over = threading.Event()

    def program(run: Run) -> None:
        run.out(b"started")
        run.read()
        over.set()

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("sleep 600")
        assert channel.recv(7) == b"started"
        transport.sock.close()  # without a word
    assert broker.ended(broker.connection) == "client_lost"
    assert outcomes(broker) == [("unknown", "the client left")]
    assert over.wait(10)


def test_a_slow_reader_keeps_no_more_than_a_window(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """A target that is faster than its client fills windows, and no memory; then everything arrives."""

    def program(run: Run) -> int:
        run.out(BIG)
        return 0

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session(window_size=64 * 1024)
        channel.exec_command("dump")

        def kept() -> int:
            return sum(one.outward.kept for relay in broker.engine._relays for one in relay._open())

        wait_for(lambda: kept() >= WINDOW - 64 * 1024)  # as much as there was room for
        assert kept() <= WINDOW * 9 // 8
        assert all_of(channel)[:2] == (0, BIG)


def test_both_windows_full_at_once(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """Each side sends more than a window before it reads: nobody of ours may wait for the other."""

    def program(run: Run) -> int:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(run.out, BIG)
            got = run.read()
            writing.result()
        return 0 if got == BIG else 1

    target.program = program
    with broker.client(identity) as transport, ThreadPoolExecutor(1) as pool:
        channel = transport.open_session()
        channel.exec_command("cat")

        def write() -> None:
            channel.sendall(BIG)
            channel.shutdown_write()

        writing = pool.submit(write)
        assert all_of(channel)[:2] == (0, BIG)
        writing.result()


def test_keys_are_exchanged_in_the_middle_of_a_transfer(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """On both sides at once, as with a bound of bytes that both count: neither thread may wait for the other."""

    def program(run: Run) -> int:
        for at in range(0, len(BIG), 65536):
            run.out(BIG[at : at + 65536])
            if at == len(BIG) // 2:
                run.transport.renegotiate_keys()
        return 0

    target.program = program
    with broker.client(identity) as transport, ThreadPoolExecutor(1) as pool:
        channel = transport.open_session()
        channel.exec_command("dump")
        exchanged = pool.submit(transport.renegotiate_keys)
        assert all_of(channel)[:2] == (0, BIG)
        exchanged.result()


def test_a_hundred_channels_on_one_connection(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """Each with its own verdict and outcome; output never crosses from one to another."""
    target.program = lambda run: run.out(run.command or b"") or 0  # type: ignore[func-returns-value]
    with broker.client(identity) as transport:
        channels = [transport.open_session() for _ in range(100)]
        for number, channel in enumerate(channels):
            channel.exec_command(f"echo {number}")
        for number, channel in enumerate(channels):
            assert all_of(channel)[:2] == (0, f"echo {number}".encode())
    assert len(outcomes(broker)) == 100


def test_channels_have_a_bound(broker: SshBroker, identity: Identity) -> None:
    """Each has buffers; the one too many is refused and the others live."""
    with broker.client(identity) as transport:
        channels = [transport.open_session() for _ in range(relaying.MAX_CHANNELS)]
        with pytest.raises(paramiko.ChannelException):
            transport.open_session()
        channels.pop().close()
        assert execute(transport, "ls")[0] == 0


def test_more_than_the_window_is_a_violation(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """A client that ignores flow control is cut: its bytes would be kept without a bound."""
    target.program = lambda _: threading.Event().wait(5) or 0  # reads nothing
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("ls")
        channel.out_window_size = 2**31
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            for _ in range(4 * WINDOW // 32768):
                channel.sendall(bytes(32768))
        assert broker.ended(broker.connection) == "protocol_violation"
        target.die()


def test_a_huge_environment_is_bounded(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """Thousands of variables, and one of 100 KiB: what is left is a dozen locales."""
    with broker.client(identity) as transport:
        channel = transport.open_session()
        for number in range(2000):
            channel.set_environment_variable(f"LC_{'ABCDEFGHIJ'[number % 10] * (number % 29 + 1)}", "C")
        channel.set_environment_variable("LC_ALL", "x" * 100_000)
        channel.exec_command("env")
        assert all_of(channel)[0] == 0
    assert len(target.runs[0].environment) == 32
    assert b"LC_ALL" not in target.runs[0].environment


def test_a_record_that_falls_behind_stops_the_reading(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """At most one stated window is ahead of the record: both sides wait for it, and then go on."""
    going_on = threading.Event()
    paced = threading.Event()

    async def pace(connection: FakeConnection) -> None:
        paced.set()
        await asyncio.get_running_loop().run_in_executor(None, going_on.wait, 20)
        connection.behind = False

    broker.flow.paced = pace  # type: ignore[method-assign]

    def program(run: Run) -> int:
        run.out(BIG)
        return 0

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        broker.connection.behind = True
        going_on.set()
        channel.exec_command("dump")
        assert paced.wait(10)
        assert all_of(channel)[:2] == (0, BIG)


def test_a_record_that_fails_ends_the_connection(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """Nothing runs unrecorded: no byte that is not in the record reaches the client."""

    def fails(*_: object, **__: object) -> None:
        raise RecordingUnavailable("this connection is not recorded any more")

    def program(run: Run) -> int:
        run.out(b"unrecorded")
        return 0

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        broker.connection.data = fails  # type: ignore[method-assign]
        channel.exec_command("ls")
        status, out, error = all_of(channel)
    assert (status, out) == (254, b"")
    assert b"(recording_unavailable)" in error
    assert broker.ended(broker.connection) == "recording_unavailable"


def test_every_thread_ends_with_its_connection(broker: SshBroker, identity: Identity) -> None:
    """Two threads that stay for each connection are a broker that stops in a day."""
    for _ in range(5):
        run(broker, "ls", identity)
    wait_for(lambda: not threads())


def test_a_client_that_takes_nothing_does_not_take_every_worker(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """What a mask held back leaves in the pool, which is everybody's, and would wait there for the client's TCP: a
    session with many channels and no reader may keep a few workers, not all."""
    broker.flow.verdicts = lambda _: forward(masks=(CREDENTIALS.name,))
    begun, flood = threading.Semaphore(0), threading.Event()

    def program(run: Run) -> int:
        if run.command == b"flood":
            flood.wait(20)
            with contextlib.suppress(OSError):
                for _ in range(64):
                    run.out(BIG[: 1024 * 1024])
            return 0
        begun.release()
        flood.wait(20)
        run.out(b"prompt> ")
        run.read()
        return 0

    busy, most, lock = 0, 0, threading.Lock()
    pooled = broker.flow.run

    def counted(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        def work() -> Any:
            nonlocal busy, most
            with lock:
                busy += 1
                most = max(most, busy)
            try:
                return fn(*args, **kwargs)
            finally:
                with lock:
                    busy -= 1

        return pooled(work)

    target.program = program
    with ThreadPoolExecutor(max_workers=64) as wide, broker.client(identity) as transport:
        broker.flow._pool = wide  # the one before stays open: the session may be opening in it
        broker.flow.run = counted  # type: ignore[method-assign]
        channels = [transport.open_session(window_size=2**31 - 1) for _ in range(40)]
        for channel in channels[1:]:
            channel.exec_command("shell")
        channels[0].exec_command("flood")
        for _ in channels[1:]:
            assert begun.acquire(timeout=20)
        reading = threading.Event()
        packets: Any = transport.packetizer
        read = packets.read_message
        packets.read_message = lambda: (reading.wait(30), read())[1]
        flood.set()
        try:
            with contextlib.suppress(AssertionError):
                wait_for(lambda: most > relaying.IN_POOL, 4)
            assert 0 < most <= relaying.IN_POOL
        finally:
            reading.set()
            target.die()


@pytest.mark.parametrize("kind", ["auth-agent@openssh.com", "x11", "forwarded-tcpip", "session"])
def test_a_target_opens_a_channel_of_its_own(
    broker: SshBroker, target: FakeSshTarget, identity: Identity, kind: str
) -> None:
    """Whoever is root there would reach the agent, display or network of the client, who hears nothing of it."""
    refused: list[int] = []

    def program(run: Run) -> int:
        table = run.transport._handler_table
        run.transport._handler_table = {**table, messages.OPEN_FAILURE: lambda m: refused.append(m.get_int())}
        opening = messages.encode_open(kind, 4711, 2**20, 2**15) + messages.string("127.0.0.1") + bytes(4)
        run.transport._send_user_message(paramiko.Message(opening))
        asking = bytes((messages.GLOBAL_REQUEST,)) + messages.string("hostkeys-00@openssh.com") + b"\x01"
        run.transport._send_user_message(paramiko.Message(asking))
        wait_for(lambda: refused)
        return 0

    target.program = program
    with broker.client(identity) as transport:
        heard: list[object] = []
        transport._handler_table = {  # type: ignore[attr-defined]
            **transport._handler_table,  # type: ignore[attr-defined]
            messages.OPEN: heard.append,
            messages.GLOBAL_REQUEST: heard.append,
        }
        assert execute(transport, "ls")[0] == 0
    assert (refused, heard) == ([4711], [])


@pytest.mark.parametrize(
    ("number", "rest"),
    [
        (messages.EXTENDED_DATA, (7).to_bytes(4, "big") + messages.string("x")),
        (messages.SUCCESS, b""),
        (messages.WINDOW_ADJUST, b"\xff\xff\xff\xff"),
        (messages.DATA, b"\xff\xff\xff\xffx"),
        (messages.REQUEST, messages.string("exit-status") + b"\x00\x00"),
        (messages.REQUEST, messages.string("exit-signal") + b"\x00" + messages.string(b"\xff")),
    ],
    ids=[
        "another stream",
        "a reply to nothing",
        "a window without end",
        "data that ends early",
        "no status",
        "no name",
    ],
)
def test_a_target_breaks_the_protocol(
    broker: SshBroker, target: FakeSshTarget, identity: Identity, number: int, rest: bytes
) -> None:
    """The client reads that it is over, the record is sealed, and others are served."""

    def program(run: Run) -> None:
        broken = bytes((number,)) + run.channel.remote_chanid.to_bytes(4, "big") + rest
        for _ in range(2):
            run.transport._send_user_message(paramiko.Message(broken))
        run.read()

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("ls")
        status, out, error = all_of(channel)
        assert (status, out) == (254, b"")
        assert b"Traceback" not in error
    assert broker.ended(broker.connection) in {"protocol_violation", "target_lost"}
    assert [status for status, _ in outcomes(broker)] == ["unknown"]
    target.program = lambda _: 0
    assert run(broker, "ls", identity)[0] == 0


def test_a_client_that_breaks_the_protocol_is_recorded_as_such(broker: SshBroker, identity: Identity) -> None:
    """Below the channels, too: sealed as one that left, nobody would look at it."""
    with broker.client(identity) as transport:
        assert execute(transport, "ls")[0] == 0
        broken = bytes((messages.DATA,)) + (77).to_bytes(4, "big") + messages.string("x")
        transport._send_user_message(paramiko.Message(broken))  # type: ignore[attr-defined]
        assert broker.ended(broker.connection) == "protocol_violation"
