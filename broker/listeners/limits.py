"""How many strangers may be at the door: transports that were accepted and have not proved who they are.

Pure counting; one loop. Rules: a total, and one per peer address, so that one machine cannot take the whole door; what
is refused is closed without a byte (an answer costs more than the attack).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

MAX_STRANGERS: Final = 256  # each costs a socket, a task and at most 16 KiB; a fleet of jobs starting at once is less
MAX_STRANGERS_PER_PEER: Final = 32  # a pool's burst behind one address; a connection needs its place for milliseconds


class Strangers:
    """The places at the door."""

    def __init__(self, *, total: int = MAX_STRANGERS, per_peer: int = MAX_STRANGERS_PER_PEER) -> None:
        self._total = total
        self._per_peer = per_peer
        self._peers: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._peers.total()

    def enter(self, peer: str) -> Callable[[], None] | None:
        """Return what gives the place back (idempotent), or None where there is none."""
        if len(self) >= self._total or self._peers[peer] >= self._per_peer:
            return None
        self._peers[peer] += 1
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._peers[peer] -= 1
                if not self._peers[peer]:
                    del self._peers[peer]

        return leave
