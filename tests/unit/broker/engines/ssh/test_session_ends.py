"""A session that is refused, and how one ends: revoked, drained, full, or by its target."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace

import pytest

from broker.engines.ssh.transport import GREETING
from chalicelib.domain.errors import Limited, PolicyDenied, StoreUnavailable
from dev.ssh_keys import make_key
from tests.e2e.postgres_broker import wait_for
from tests.e2e.ssh_broker import Identity, SshBroker, pointed_at
from tests.fakes.ssh_target import FakeSshTarget, Run
from tests.unit.broker.engines.ssh.running import all_of, execute, outcomes, run

pytestmark = pytest.mark.timeout(60)

# -- refused sessions and targets --------------------------------------------------------------------------------------


def test_a_refused_session_is_told_on_its_channel(broker: SshBroker, identity: Identity) -> None:
    """The reason, the code and the next step, where a pipeline's log has them."""
    broker.flow.refusal = PolicyDenied("policy does not open this session any more")
    status, out, error = run(broker, "ls", identity)
    assert (status, out) == (254, b"")
    assert error == (
        b"countersign: policy does not open this session any more (policy_denied). "
        b"Ask the owners of the target for access.\n"
    )


def test_a_target_that_is_another(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """A man in the middle gets no login, and the client no word of where the target is."""
    pointed_at(broker, host_keys=(make_key().public,))
    status, _, error = run(broker, "ls", identity)
    assert status == 254
    assert b"(target_unavailable)" in error
    assert b"127.0.0.1" not in error
    assert target.logins == []
    assert broker.ended(broker.connection) == "target_unavailable"


def test_a_target_that_refuses_the_broker(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """The connection is sealed with the reason, and the client reads it."""
    target.accepts_login = False
    assert b"the target did not accept the broker (target_unavailable)" in run(broker, "ls", identity)[2]
    assert broker.ended(broker.connection) == "target_unavailable"


def test_a_stored_password_is_no_ssh_credential(broker: SshBroker, identity: Identity) -> None:
    """Keys and certificates alone: a password would pass through the target's own sshd."""
    broker.flow.mint = lambda _: replace(broker.minted(make_key().public), kind="password")
    assert b"(target_unavailable)" in run(broker, "ls", identity)[2]


# -- the end -----------------------------------------------------------------------------------------------------------


def test_revocation_ends_every_channel_with_a_last_line(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """Within seconds, readable, with the target's side closed and the record sealed with the reason."""
    target.program = lambda run: len(run.read())
    with broker.client(identity) as transport:
        channels = [transport.open_session() for _ in range(3)]
        for channel in channels:
            channel.exec_command("sleep 600")
        wait_for(lambda: len(target.runs) == 3)
        broker.connection.revoke()
        for channel in channels:
            status, _, error = all_of(channel)
            assert status == 254
            assert error == (
                b"countersign: the session was revoked (grant_revoked). "
                b"Ask who revoked it why, then for a new session.\n"
            )
    assert broker.ended(broker.connection) == "grant_revoked"
    assert outcomes(broker) == [("unknown", "grant_revoked")] * 3
    wait_for(lambda: not any(transport.is_active() for transport in target.transports))


def test_a_revoked_session_with_no_channel_is_hung_up_on(broker: SshBroker, identity: Identity) -> None:
    """ControlPersist keeps transports without a channel for hours."""
    with broker.client(identity) as transport:
        execute(transport, "ls")
        broker.connection.revoke()
        wait_for(lambda: not transport.is_active())
    assert broker.ended(broker.connection) == "grant_revoked"


def test_a_drain_tells_and_seals(broker: SshBroker, target: FakeSshTarget, identity: Identity) -> None:
    """A deployment ends sessions in words, and leaves no open record."""
    target.program = lambda run: len(run.read())
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("sleep 600")
        wait_for(lambda: target.runs)
        broker.call(broker.engine.drain())
        assert all_of(channel)[2] == b"countersign: the broker is shutting down. Connect again.\n"
    assert broker.connection.closed == "drained"


def test_nothing_is_forwarded_while_revocations_cannot_be_read(
    broker: SshBroker, target: FakeSshTarget, identity: Identity
) -> None:
    """What is typed waits: it may be the session of somebody who was revoked a second ago."""
    got: list[bytes] = []

    def program(run: Run) -> int:
        run.out(b"ready")
        got.append(run.channel.recv(10))
        return 0

    target.program = program
    with broker.client(identity) as transport:
        channel = transport.open_session()
        channel.exec_command("cat")
        channel.settimeout(10)
        assert channel.recv(5) == b"ready"
        stale = StoreUnavailable("revocations could not be read")
        broker.connection.check_alive = lambda: (_ for _ in ()).throw(stale)  # type: ignore[method-assign]
        channel.send(b"rm x\n")
        wait_for(lambda: broker.connection.told("data stdin"))
        assert got == []
        broker.connection.check_alive = lambda: None  # type: ignore[method-assign]
        assert all_of(channel)[0] == 0
    assert got == [b"rm x\n"]


def test_a_broker_that_is_full_says_so(broker: SshBroker, identity: Identity) -> None:
    """A limit is a refusal like any other."""
    broker.flow.refusal = Limited("the session has as many connections open as it may")
    assert b"(limited). Wait and try again." in run(broker, "ls", identity)[2]


def test_nothing_of_a_peers_own_words_is_logged(
    broker: SshBroker, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    """paramiko logs tracebacks and what the peer said: passwords and control characters among it."""
    caplog.set_level(logging.DEBUG)
    run(broker, "ls", identity)
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as raw, raw.makefile("rb") as got:
        raw.sendall(b"GET /hunter2 HTTP/1.1\r\n\r\n" * 40)
        assert got.readline() == GREETING
    wait_for(lambda: [r for r in caplog.records if str(vars(r).get("how", "")).startswith("refused")])
    assert not [r for r in caplog.records if r.name.startswith("paramiko") or "hunter2" in str(vars(r))]
