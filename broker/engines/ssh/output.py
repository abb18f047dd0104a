"""What a running command says: masked, recorded as the client will see it, then sent; and what is typed to it.

Rules: mask, record, send, in this order, for each piece; standard output and standard error are masked apart and leave
in the order in which they came. What a mask holds back, since a value may begin there, is let go when nothing more came
for a while, so that a prompt appears. Client input is recorded through the detectors for client text, piece by piece: a
secret that two pieces share may stay, which is why a terminal's input is not recorded at all.

What it does not do: decide what is masked (``stream_masking``), wait for the client (``one_way``).
"""

from __future__ import annotations

import base64
import codecs
import threading
from collections.abc import Callable
from typing import Final, Protocol

from broker.engines.flow import Connection
from broker.engines.ssh.one_way import OneWay
from broker.masking import CLIENT_TEXT
from broker.wire.ssh import messages
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import MaskWrittenBack
from chalicelib.domain.identifiers import OperationId
from chalicelib.domain.masking import SENTINEL
from chalicelib.domain.recording import MAX_TEXT

STREAMS: Final = {messages.STDOUT: "stdout", messages.STDERR: "stderr"}
_SENTINEL: Final = SENTINEL.encode()
_BASE64_PIECE: Final = MAX_TEXT // 4 * 3  # what fills one frame's text


class Mask(Protocol):
    """``broker.stream_masking.StreamMask``: one stream's, for one thread at a time."""

    @property
    def passes(self) -> bool: ...
    @property
    def waits(self) -> bool: ...
    def feed(self, data: bytes) -> bytes: ...
    def idle(self) -> bytes: ...
    def finish(self) -> bytes: ...


class Later(Protocol):
    """Calls back once, in any thread that may wait: the relay's timer."""

    def __call__(self, after_s: float, work: Callable[[], None]) -> None: ...


class Recorded:
    """Bytes of one stream as frames: UTF-8 with a character never split between two, or base64."""

    def __init__(self, connection: Connection, op_id: OperationId, direction: str, stream: str) -> None:
        self._connection = connection
        self._op_id = op_id
        self._direction = direction
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def take(self, data: bytes, *, final: bool = False) -> None:
        """Record ``data``. Raises RecordingUnavailable."""
        begun, _ = self._decoder.getstate()
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError:
            self._decoder.reset()
            raw = begun + data
            for at in range(0, len(raw), _BASE64_PIECE):  # each frame can be read by itself
                self._tell(base64.b64encode(raw[at : at + _BASE64_PIECE]).decode(), "base64")
            return
        if text:
            self._tell(text, "utf-8")

    def _tell(self, text: str, encoding: str) -> None:
        self._connection.data(self._op_id, self._direction, text, encoding, stream=self._stream)


class Counted:
    """In the place of :class:`Recorded` where policy permits that a command's output is left out: it is counted, by
    :class:`Output`, and told in the outcome."""

    def take(self, data: bytes, *, final: bool = False) -> None:
        """Leave ``data`` out."""


class Output:
    """One stream of a command's. Thread-safe; raises RecordingUnavailable."""

    def __init__(
        self,
        *,
        kind: int,
        mask: Mask,
        recorded: Recorded | Counted,
        way: OneWay,
        later: Later,
        clock: Clock,
        idle_s: float,
    ) -> None:
        self._kind = kind
        self._mask = mask
        self._recorded = recorded
        self._way = way
        self._later = later
        self._clock = clock
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._fed_s = 0.0
        self._armed = False
        self._over = False
        self.shown_bytes = 0

    def feed(self, data: bytes) -> None:
        with self._lock:
            if self._over:
                return
            self._let_go(data if self._mask.passes else self._mask.feed(data))
            self._fed_s = self._clock.monotonic_s()
            arm = self._mask.waits and not self._armed
            self._armed = self._armed or arm
        self._way.pump()
        if arm:
            self._later(self._idle_s, self._look)

    def finish(self) -> None:
        """The stream is over. Idempotent."""
        with self._lock:
            if self._over:
                return
            self._over = True
            self._let_go(self._mask.finish())
            self._recorded.take(b"", final=True)
        self._way.pump()

    def _look(self) -> None:
        """Let go what nothing followed."""
        with self._lock:
            if self._over or not self._mask.waits:
                self._armed = False
                return
            quiet_s = self._clock.monotonic_s() - self._fed_s
            if quiet_s >= self._idle_s:
                self._let_go(self._mask.idle())
                quiet_s = 0.0
            self._armed = again = self._mask.waits
        self._way.pump()
        if again:
            self._later(self._idle_s - quiet_s, self._look)

    def _let_go(self, shown: bytes) -> None:
        if shown:
            self._recorded.take(shown)
            self._way.put(self._kind, shown)
            self.shown_bytes += len(shown)


class Input:
    """What a client sends to a command that has no terminal. Raises RecordingUnavailable, MaskWrittenBack."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._tail = b""

    def take(self, data: bytes) -> None:
        """Record ``data``; refuse it where it brings a mask back."""
        if _SENTINEL in self._tail + data:
            raise MaskWrittenBack("the input carries a masked value")
        self._tail = (self._tail + data)[-(len(_SENTINEL) - 1) :]
        self._recorded.take(CLIENT_TEXT.redact_bytes(data))
