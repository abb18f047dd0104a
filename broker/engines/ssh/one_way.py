"""OneWay: one direction of a relayed channel, from the peer that sends to the peer that takes.

Rules:
- Nobody waits for a window: what the taker has no room for stays here, and the sender is given room again only as it
  leaves, so that at most a window of the sender's and an eighth is ever kept. So two full windows in opposite
  directions stop both senders and no thread of ours.
- Bytes and what must follow them (an exit status, EOF, CLOSE) leave in the order in which they were put.
- One thread sends at a time, whichever comes; another that comes meanwhile leaves its work to that one and goes on.
- Whoever sends more than it was given room for broke the protocol.

Source: RFC 4254 section 5.2.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from broker.engines.ssh.endpoint import Endpoint
from broker.wire.ssh import messages
from broker.wire.violation import RemoteViolation

WINDOW: Final = 2 * 1024 * 1024  # measured.md: with more OpenSSH's server spends its time moving memory
MAX_DATA: Final = 32 * 1024  # bytes in one message, as OpenSSH has it (CHAN_SES_PACKET_DEFAULT)
_GRANT_AT: Final = 8  # give room back at each eighth of the window: a message in ten thousand for bulk, none for typing

_Item: TypeAlias = "tuple[int, bytes] | Callable[[], None]"


def _always() -> bool:
    return True


class OneWay:
    """Thread-safe."""

    def __init__(self, *, window: int, gate: Callable[[], bool] = _always) -> None:
        """``window``: what the sender was told that it may send. ``gate``: whether bytes may leave at the moment."""
        self._lock = threading.Lock()
        self._gate = gate
        self._items: deque[_Item] = deque()
        self._kept = 0
        self._sending = False
        self._window = window
        self._allowed = window
        self._owed = 0
        self._source: Endpoint | None = None
        self._sink: Endpoint | None = None
        self._room = 0
        self._max_packet = MAX_DATA
        self._given_up = False
        self._unread = False

    # The sender's side.

    def comes_from(self, source: Endpoint) -> None:
        self._source = source

    def took(self, count: int) -> None:
        """``count`` bytes came. Raises RemoteViolation where there was no room for them."""
        with self._lock:
            self._allowed -= count
            self._owed += count
            if self._allowed < 0:
                raise RemoteViolation("more was sent than there was room for")

    def put(self, kind: int, data: bytes) -> None:
        """Let ``data`` go, after what was put before; :meth:`pump` sends."""
        with self._lock:
            if data and not (self._given_up or self._unread):
                self._items.append((kind, data))
                self._kept += len(data)

    def then(self, step: Callable[[], None]) -> None:
        """Run ``step`` once everything that was put before has left. It sends, and does nothing else."""
        with self._lock:
            if not self._given_up:
                self._items.append(step)

    # The taker's side.

    def goes_to(self, sink: Endpoint, window: int, max_packet: int) -> None:
        """The taker is there, with room for ``window`` bytes. Raises RemoteViolation for a size that no message has."""
        if max_packet < 1:
            raise RemoteViolation("a channel that takes no message")
        with self._lock:
            self._sink = sink
            self._room = window
            self._max_packet = min(max_packet, MAX_DATA)

    def adjusted(self, count: int) -> None:
        """The taker has room for ``count`` more. Raises RemoteViolation past what a window can be."""
        with self._lock:
            self._room += count
            if self._room > messages.MAX_WINDOW:
                raise RemoteViolation("a window that is too large")
        self.pump()

    def nobody_reads(self) -> None:
        """The taker reads no data any more; what follows the data still leaves."""
        with self._lock:
            self._items = deque(item for item in self._items if not isinstance(item, tuple))
            self._kept = 0
            self._unread = True
        self.pump()

    # Both.

    @property
    def kept(self) -> int:
        """Bytes that wait here."""
        with self._lock:
            return self._kept

    def pump(self) -> None:
        """Send what may leave. Waits for the taker's TCP alone."""
        while True:
            with self._lock:
                if self._sending:
                    return  # who sends looks again, under this lock, before it stops
                step = self._next()
                if step is None:
                    grant, source = self._grant(), self._source
                    break
                self._sending = True
            try:
                step()
            finally:
                with self._lock:
                    self._sending = False
        if grant and source is not None:
            source.adjust(grant)

    def last_words(self, kind: int, data: bytes) -> bool:
        """Forget what waits, and let ``data`` go instead where the taker has room for it; take nothing more but
        :meth:`finally_`. Returns whether it fits."""
        with self._lock:
            self._items.clear()
            self._kept = 0
            self._given_up = True
            self._gate = _always
            fits = self._sink is not None and len(data) <= self._room
            if fits and data:
                self._items.append((kind, data))
                self._kept = len(data)
            return fits

    def finally_(self, step: Callable[[], None]) -> None:
        """As :meth:`then`, after :meth:`last_words`."""
        with self._lock:
            self._items.append(step)

    def _next(self) -> Callable[[], None] | None:
        """Return what can be sent now. The lock is held."""
        sink = self._sink
        if not self._items or sink is None:
            return None
        item = self._items[0]
        if not isinstance(item, tuple):
            self._items.popleft()
            return item
        kind, data = item
        size = min(len(data), self._room, self._max_packet)
        if not size or not sink.transport.open or not self._gate():
            return None
        self._room -= size
        self._kept -= size
        if size == len(data):
            self._items.popleft()
            return partial(sink.send, kind, data)
        self._items[0] = (kind, data[size:])
        return partial(sink.send, kind, data[:size])

    def _grant(self) -> int:
        """Return how much room the sender gets back now. The lock is held."""
        step = self._window // _GRANT_AT
        if self._owed < step or self._kept > step or self._given_up:
            return 0
        grant, self._owed = self._owed, 0
        self._allowed += grant
        return grant
