"""The real stack while a broker leaves, and behind a balancer: what clients see, and what the record says afterwards.

Each broker here is one of the test's own, beside the stack's: same command, same role, same stores.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from dev.demo.waiting import wait_for
from dev.local_stack import Stack
from dev.loopback import LoopbackServer, Request, Response, as_json
from dev.part_settings import PREFIX
from dev.processes import Joinable, background, listening
from dev.settings import SystemClock
from tests.e2e.test_faults import manifests, segments
from tests.e2e.visitor import OneBroker, Visitor, another_broker, connect
from tests.unit.broker.wire.test_proxy import header

pytestmark = pytest.mark.e2e

CLOCK = SystemClock()
CLIENT = "203.0.113.7"
SOON_S = 10.0


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    return Visitor.of(stack)


def _closed(port: int) -> bool | None:
    return None if listening(port) else True


def told(broker: OneBroker) -> None:
    """Tell it to leave, and wait until it takes nobody new."""
    os.kill(broker.child.pid, signal.SIGTERM)
    for port in (broker.port, broker.ssh_port):
        wait_for(f"port {port} to close", partial(_closed, port), CLOCK, SOON_S)


def test_an_upgrade_drops_no_session_that_ends_within_the_drain(stack: Stack, visitor: Visitor) -> None:
    """Brokers are replaced every day: who works goes on working, who comes finds another broker."""
    session = visitor.session()
    with another_broker(stack, "upgraded", COUNTERSIGN_DRAIN_S="60") as broker:
        with contextlib.closing(connect(stack, session, port=broker.port)) as working:
            working.execute("SELECT 1")
            told(broker)
            with pytest.raises(psycopg.OperationalError, match="refused"):
                connect(stack, session, port=broker.port)
            assert working.execute("SELECT count(*) FROM orders").fetchone()
            assert broker.child.alive()
        assert broker.child.wait(SOON_S) == 0  # far from 60 s: nobody is left
    assert [manifest["exit"] for manifest in manifests(stack, session["session_id"])] == ["client_closed"]


# One of the two is enough for every change: what differs is tested without a stack (tests/unit/broker/test_leaving.py).
@pytest.mark.parametrize("how", ["the time is over", pytest.param("told again", marks=pytest.mark.soak)])
def test_what_still_runs_then_is_told_and_sealed(stack: Stack, visitor: Visitor, how: str) -> None:
    """The orchestrator kills what stays; an operator in a hurry tells it twice. Either way the record is whole."""
    session = visitor.session()
    with another_broker(stack, "over", COUNTERSIGN_DRAIN_S="1" if how == "the time is over" else "600") as broker:
        with contextlib.closing(connect(stack, session, port=broker.port)) as idle:
            idle.execute("SELECT 1")
            told(broker)
            if how == "told again":
                os.kill(broker.child.pid, signal.SIGTERM)
            assert broker.child.wait(25) == 0
            with pytest.raises(psycopg.Error) as ended:
                idle.execute("SELECT 2")
        assert ended.value.sqlstate == "57P01"
        assert f'"why":"{how}"' in broker.child.log.read_text(errors="replace")
    (manifest,) = manifests(stack, session["session_id"])
    assert (manifest["exit"], manifest["gaps"]) == ("drained", [])


@contextlib.contextmanager
def balanced(port: int) -> Iterator[int]:
    """Stand before ``port`` as a network balancer does: a header for CLIENT first, then bytes both ways."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client, _ = door.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", port))
            kept.extend((client, broker))
            broker.sendall(header(CLIENT, more=b"\xea\x00\x05\x01vpce"))
            pumping.append(background("in", partial(pump, client, broker)))
            pumping.append(background("out", partial(pump, broker, client)))

    kept: list[socket.socket] = []
    pumping: list[Joinable] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        accepting = background("balancer", accept)
        try:
            yield int(door.getsockname()[1])
        finally:
            door.shutdown(socket.SHUT_RDWR)
            accepting.join(SOON_S)
            for one in pumping:
                one.join(SOON_S)
            for transport in kept:
                transport.close()


def test_behind_a_balancer_the_record_has_the_clients_address(stack: Stack, visitor: Visitor) -> None:
    """A session is for one address, and a reviewer asks from where: the balancer's would be everybody's."""
    session = visitor.session()
    with another_broker(stack, "balanced", COUNTERSIGN_PROXY_PROTOCOL="v2") as broker:
        with balanced(broker.port) as port, contextlib.closing(connect(stack, session, port=port)) as connection:
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):  # around the balancer
            connect(stack, session, port=broker.port)
        with balanced(broker.ssh_port) as port, socket.create_connection(("127.0.0.1", port), timeout=SOON_S) as ssh:
            assert ssh.recv(8) == b"SSH-2.0-"
    (frames,) = segments(stack, session["session_id"]).values()
    (opened,) = [frame["meta"] for frame in frames if frame["kind"] == "open"]
    assert opened["peer"] == CLIENT


@pytest.mark.soak  # the broker counts every 15 s
def test_a_task_with_sessions_is_protected_and_told_of(stack: Stack, visitor: Visitor) -> None:
    """Scaling in must not choose the task where people work; and it scales by how many they are."""
    asked: list[object] = []

    def agent(request: Request) -> Response:
        asked.append((request.method, request.path, request.json_object()["ProtectionEnabled"]))
        return as_json({"protection": {"ProtectionEnabled": True}})

    server = LoopbackServer("ecs agent", agent)
    server.start()
    try:
        session = visitor.session()
        with another_broker(stack, "protected", ECS_AGENT_URI=f"{server.url}/api/abc") as broker:
            with contextlib.closing(connect(stack, session, port=broker.port)) as working:
                working.execute("SELECT 1")
                wait_for("protection", lambda: asked or None, CLOCK, 3 * SOON_S)
            wait_for("its end", lambda: asked[1:] or None, CLOCK, 3 * SOON_S)
            log = broker.child.log.read_text(errors="replace")
    finally:
        server.stop()
    path = "/api/abc/task-protection/v1/state"
    assert asked == [("PUT", path, True), ("PUT", path, False)]
    assert f'"Sessions":1,"Service":"broker","Name":"{PREFIX}"' in log
