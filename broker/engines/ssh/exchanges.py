"""Key exchanges that are cheap for who asks and dear for us.

Python raises the numbers of a finite field group to their powers while every other thread waits: a stranger who asks
again and again, and computes nothing, would stop all sessions (the attack is known as DHEat). So one is computed at a
time, with a secret no longer than the group needs, and then none for four times as long; who waits longer than
``WAIT_S`` is ended. The exchanges over curves take a thousandth of that and wait for nobody.

Source: RFC 3526 sections 5 and 8 (4096 bits: an exponent of twice its strength of at most 240 bits); CVE-2002-20001.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any, Final

from paramiko.kex_group16 import KexGroup16SHA512

from broker.wire.violation import RemoteViolation
from chalicelib.domain.clock import Clock

WAIT_S: Final = 10.0  # clients that have nothing else come seldom, and log in within seconds
REST: Final = 4  # so at most a fifth of one core, and of the interpreter's lock
_BITS: Final = 512


class Turns:
    """One at a time, with rests. Thread-safe."""

    def __init__(self, clock: Clock, *, wait_s: float = WAIT_S) -> None:
        self._clock = clock
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._resting = threading.Event()  # never set: a wait that nothing ends early

    def take(self, work: Callable[[], None]) -> None:
        """Run ``work`` when it is its turn. Raises RemoteViolation where that takes too long."""
        if not self._lock.acquire(timeout=self._wait_s):
            raise RemoteViolation("too many key exchanges over finite fields at once")
        try:
            started_s = self._clock.monotonic_s()
            try:
                work()
            finally:
                self._resting.wait(REST * (self._clock.monotonic_s() - started_s))
        finally:
            self._lock.release()


class Group16(KexGroup16SHA512):
    """``diffie-hellman-group16-sha512``, in turns that its transport gives."""

    transport: Any

    def start_kex(self) -> None:
        self.transport.turns.take(super().start_kex)

    def parse_next(self, ptype: int, m: Any) -> None:
        self.transport.turns.take(lambda: super(Group16, self).parse_next(ptype, m))

    def _generate_x(self) -> None:
        self.x = 1 << (_BITS - 1) | secrets.randbits(_BITS - 1)
