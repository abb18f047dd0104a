"""A relay on this machine whose connections come from another loopback address: how a thief's machine looks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dev.processes import background

READ_BYTES = 64 * 1024


@contextmanager
def from_address(address: str, port: int) -> Iterator[int]:
    """Give a port of 127.0.0.1 that relays one connection to ``port``, as ``address``."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                client = listening.accept()[0]
                server = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
                background("relay back", lambda: _pass_on(server, client))
                _pass_on(client, server)

        background("relay", serve)
        yield int(listening.getsockname()[1])


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError), source, sink:
        while piece := source.recv(READ_BYTES):
            sink.sendall(piece)
