"""How the tests of a session run a program through the broker, and read what became of it."""

from __future__ import annotations

from typing import Any

import paramiko

from tests.e2e.ssh_broker import Identity, SshBroker


def all_of(channel: paramiko.Channel) -> tuple[int, bytes, bytes]:
    """Read a channel to its end: status, output, errors."""
    channel.settimeout(20)
    out = b"".join(iter(lambda: channel.recv(65536), b""))
    error = b"".join(iter(lambda: channel.recv_stderr(65536), b""))
    return channel.recv_exit_status(), out, error


def execute(transport: paramiko.Transport, command: str, *, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    channel = transport.open_session()
    channel.exec_command(command)
    if stdin:
        channel.sendall(stdin)
    channel.shutdown_write()
    return all_of(channel)


def run(broker: SshBroker, command: str, identity: Identity | None = None, *, stdin: bytes = b"") -> Any:
    with broker.client(identity) as transport:
        return execute(transport, command, stdin=stdin)


def outcomes(broker: SshBroker) -> list[tuple[str, str]]:
    return [(told["status"], told["tag"]) for told in broker.connection.told("outcome")]
