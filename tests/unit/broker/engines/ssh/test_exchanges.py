"""Key exchanges over a finite field: one at a time, then a rest, so that strangers cannot stop the sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import paramiko
import pytest

from broker.engines.ssh import exchanges
from broker.engines.ssh.exchanges import Group16, Turns
from broker.engines.ssh.transport import SshTransport
from broker.wire.violation import RemoteViolation
from chalicelib.settings import SystemClock
from tests.e2e.ssh_broker import Identity, SshBroker
from tests.unit.broker.engines.ssh.running import execute

pytestmark = pytest.mark.timeout(60)


def test_a_stranger_makes_us_compute_for_nothing() -> None:
    """CVE-2002-20001: the interpreter computes with its lock held. After some work there is four times as much rest."""
    clock, turns = SystemClock(), Turns(SystemClock())
    started_s = clock.monotonic_s()
    turns.take(partial(_wait, threading.Event(), 0.05))
    turns.take(lambda: None)
    assert clock.monotonic_s() - started_s >= 0.05 * (1 + exchanges.REST)


def _wait(for_what: threading.Event, within_s: float, inside: threading.Event | None = None) -> None:
    if inside is not None:
        inside.set()
    for_what.wait(within_s)


def test_who_waits_too_long_for_a_turn_is_ended() -> None:
    """Else its thread would outlive the deadline at the door."""
    turns, inside, done = Turns(SystemClock(), wait_s=0.01), threading.Event(), threading.Event()
    holder = threading.Thread(  # noqa: TID251 who has the turn
        target=turns.take, args=(lambda: _wait(done, 20, inside),)
    )
    holder.start()
    try:
        assert inside.wait(10)
        with pytest.raises(RemoteViolation):
            turns.take(lambda: None)
    finally:
        done.set()
        holder.join()


class Counting(Turns):
    taken = 0

    def take(self, work: Callable[[], None]) -> None:
        self.taken += 1
        super().take(work)


def test_the_dear_exchange_takes_turns_and_works(broker: SshBroker, identity: Identity) -> None:
    """Clients without curves, in FIPS mode, still log in; strangers share one place in the line."""
    assert SshTransport._kex_info[Group16.name] is Group16
    turns = Counting(SystemClock())
    broker.engine._turns = turns
    transport = paramiko.Transport(("127.0.0.1", broker.port))
    try:
        transport._preferred_kex = (Group16.name,)  # type: ignore[attr-defined]
        transport.start_client(timeout=20)
        transport.auth_publickey(broker.flow.session.id, identity.key)
        assert execute(transport, "ls")[0] == 0
    finally:
        transport.close()
    assert turns.taken == 2
