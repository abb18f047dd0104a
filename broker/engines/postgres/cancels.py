"""The cancel keys of this process's connections: our own, never the target's.

A client gets a process id and a secret that we made; a CancelRequest that shows both reaches the connection, which
withdraws what is held or cancels on the target with the real key. Rules: secrets are compared in constant time; a
request that matches nothing does nothing and says nothing (PostgreSQL's own behaviour: no oracle).

Today a cancel finds its connection only in the process that has it. Source: PostgreSQL 15, chapter 55.2.7.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Final

from broker.wire.postgres.startup import VERSION_3_2

SECRET_BYTES: Final = {True: 32, False: 4}  # 3.2 allows up to 256, PostgreSQL itself sends 32; 3.0 has exactly 4
_TRIES: Final = 64  # of 2^31 process ids: a second try is already improbable


class Cancels:
    """Not thread-safe: belongs to one loop."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[bytes, Callable[[], None]]] = {}

    def register(self, version: int, cancel: Callable[[], None]) -> tuple[int, bytes]:
        """Return a new (process id, secret) for which ``cancel`` is called."""
        secret = secrets.token_bytes(SECRET_BYTES[version >= VERSION_3_2])
        for _ in range(_TRIES):
            process = secrets.randbelow(2**31 - 1) + 1
            if process not in self._open:
                self._open[process] = (secret, cancel)
                return process, secret
        raise RuntimeError("no free process id")

    def release(self, process: int) -> None:
        """Forget ``process``. Idempotent."""
        self._open.pop(process, None)

    def request(self, process: int, secret: bytes) -> bool:
        """Cancel what shows the right secret; return whether one did, for the log."""
        known, cancel = self._open.get(process, (b"", None))
        if cancel is None or not hmac.compare_digest(known, secret):
            return False
        cancel()
        return True
