"""A network that fails: a TCP relay between a part of the stack and the AWS emulator, switched while it runs.

Rules: bytes pass unchanged (signatures hold), a new mode acts on connections that are open already, and nothing
outlives :meth:`FaultProxy.stop`. It knows no protocol.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from dev.processes import background

READ_BYTES: Final = 64 * 1024
LOOK_S: Final = 0.1  # how soon a changed mode is seen by a connection on which nothing happens


class Network(Enum):
    """What becomes of traffic."""

    WORKS = "works"
    SLOW = "slow"  # each piece of a request waits ``delay_s``
    REFUSES = "refuses"  # open connections are cut, new ones too
    SILENT = "silent"  # taken and never answered: a black hole


@dataclass(kw_only=True)
class FaultProxy:
    """Listens on 127.0.0.1 and relays to ``upstream`` (a URL)."""

    upstream: str
    delay_s: float = 0.0
    mode: Network = Network.WORKS
    _listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=128))
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listening.settimeout(LOOK_S)
        background("fault proxy", self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def stop(self) -> None:
        self._stopped.set()
        self._listening.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client = self._listening.accept()[0]
            except TimeoutError:
                continue
            except OSError:
                return
            if self.mode is Network.REFUSES:
                client.close()
                continue
            background("fault proxy connection", partial(self._relay, client))

    def _relay(self, client: socket.socket) -> None:
        to = urlsplit(self.upstream)
        try:
            server = socket.create_connection((to.hostname or "", to.port or 0), timeout=5)
        except OSError:
            client.close()
            return
        background("fault proxy answers", lambda: self._pass_on(server, client, delayed=False))
        self._pass_on(client, server, delayed=True)

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, delayed: bool) -> None:
        with suppress(OSError):
            source.settimeout(LOOK_S)  # the other way may have closed it before this one began
            while not self._stopped.is_set() and self.mode is not Network.REFUSES:
                try:
                    piece = source.recv(READ_BYTES)
                except TimeoutError:
                    continue
                if not piece:
                    break
                if self.mode is Network.SLOW and delayed:
                    self._stopped.wait(self.delay_s)
                self._black_hole()
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _black_hole(self) -> None:
        """Wait while nothing is answered. What it swallowed is lost: raises ConnectionResetError afterwards."""
        was_silent = False
        while self.mode is Network.SILENT and not self._stopped.wait(LOOK_S):
            was_silent = True
        if was_silent:
            raise ConnectionResetError
