"""How many strangers may be at the door: transports that were accepted and have not proved who they are.

Pure counting; one loop. Rules: a total, and one per peer address, so that one machine cannot take the whole door; what
is refused is closed without a byte (an answer costs more than the attack). A stranger that has not sent a byte makes
room for the next one, the longest-silent first: a client speaks as soon as it is connected, so hundreds of connections
that never speak keep nobody out, not even a client behind the same address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

MAX_STRANGERS: Final = 256  # each costs a socket, a task and at most 16 KiB; a fleet of jobs starting at once is less
MAX_STRANGERS_PER_PEER: Final = 32  # a pool's burst behind one address; a connection needs its place for milliseconds


class Place:
    """One stranger's place. Calling it gives it back (idempotent). ``dropped``: it had to make room."""

    def __init__(self, door: Strangers, peer: str | None) -> None:
        self._door = door
        self.peer = peer  # None: behind a balancer that has not said yet for whom it connects
        self.dropped = False

    def __call__(self) -> None:
        self._door.leave(self)

    def spoke(self) -> None:
        """Its first byte is there: it makes room for nobody any more. Idempotent."""
        self._door.keep(self)


class Strangers:
    """The places at the door."""

    def __init__(self, *, total: int = MAX_STRANGERS, per_peer: int = MAX_STRANGERS_PER_PEER) -> None:
        self._total = total
        self._per_peer = per_peer
        self._inside: set[Place] = set()
        self._peers: Counter[str] = Counter()
        self._silent: dict[Place, Callable[[], None]] = {}  # in the order in which they came

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, peer: str | None, drop: Callable[[], None] | None = None) -> Place | None:
        """Return a place, or None where there is none. ``peer`` is None where a balancer will name it: until then it
        counts for the total alone. ``drop`` ends the transport, should it have to make room while it is silent; without
        it never does."""
        if not self._has_room(peer):
            return None
        if len(self) >= self._total and not self._make_room(None):
            return None
        place = Place(self, peer)
        self._inside.add(place)
        if peer is not None:
            self._peers[peer] += 1
        if drop is not None:
            self._silent[place] = drop
        return place

    def name(self, place: Place, peer: str) -> bool:
        """Count ``place``, whose balancer said for whom it is, for ``peer``; return whether there was room."""
        if place not in self._inside or not self._has_room(peer):
            return False
        place.peer = peer
        self._peers[peer] += 1
        return True

    def keep(self, place: Place) -> None:
        """``place`` is not silent any more."""
        self._silent.pop(place, None)

    def leave(self, place: Place) -> None:
        """Give ``place`` back."""
        self._silent.pop(place, None)
        if place in self._inside:
            self._inside.remove(place)
            if place.peer is not None:
                self._peers[place.peer] -= 1
                if not self._peers[place.peer]:
                    del self._peers[place.peer]

    def _has_room(self, peer: str | None) -> bool:
        return peer is None or self._peers[peer] < self._per_peer or self._make_room(peer)

    def _make_room(self, peer: str | None) -> bool:
        """Drop who has been silent for longest, of ``peer`` or of all; return whether there was one."""
        found = next(((place, drop) for place, drop in self._silent.items() if peer in (None, place.peer)), None)
        if found is None:
            return False
        place, drop = found
        place.dropped = True
        self.leave(place)
        drop()
        return True
