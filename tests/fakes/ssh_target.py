"""A scripted sshd: paramiko's own server on loopback, whose programs are functions of the test's.

It keeps what a server owes its client, and can be made to break it. Example::

    with FakeSshTarget() as target:
        target.program = lambda run: run.out(b"hello\\n") or 3
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_SUCCEEDED

from dev.ssh_keys import make_key

WAIT_S = 20.0


@dataclass
class Run:
    """One program that the client asked for. ``command`` None: a shell."""

    channel: paramiko.Channel
    command: bytes | None
    terminal: tuple[bytes, int, int] | None
    environment: dict[bytes, bytes]
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def out(self, data: bytes) -> None:
        self.channel.sendall(data)

    def error(self, data: bytes) -> None:
        self.channel.sendall_stderr(data)

    @property
    def transport(self) -> Any:
        """Its transport, with what paramiko keeps to itself."""
        return self.channel.transport

    def read(self) -> bytes:
        """Return all of the input, up to its end."""
        return b"".join(iter(lambda: self.channel.recv(65536), b""))


class FakeSshTarget:
    """Listens until it is closed. ``program`` runs for each exec and shell, and gives the exit status, or None."""

    def __init__(self) -> None:
        pair = make_key()
        self.host_key = pair.public
        self._key = paramiko.Ed25519Key(file_obj=io.StringIO(pair.private))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.runs: list[Run] = []
        self.transports: list[paramiko.Transport] = []
        self.logins: list[tuple[str, str]] = []
        self.program: Callable[[Run], int | None] = _echo
        self.accepts_login = True
        self.accepts_program = True
        self.accepts_terminal = True
        self.accepts_session = True
        self._pool = ThreadPoolExecutor(max_workers=256)
        self._pool.submit(self._accept)

    def trust(self, authority: str) -> None:
        """Nothing: it lets in every certificate."""

    def ran(self) -> list[str]:
        return ["" if run.command is None else run.command.decode() for run in self.runs]

    def __enter__(self) -> FakeSshTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.die()
        self._pool.shutdown()

    def die(self) -> None:
        """Cut every connection, without a word."""
        for transport in self.transports:
            transport.close()

    def start(self, run: Run) -> None:
        self.runs.append(run)
        self._pool.submit(self._run, run)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            self.transports.append(transport)
            transport.add_server_key(self._key)
            transport.start_server(event=threading.Event(), server=_Server(self))

    def _run(self, run: Run) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            status = self.program(run)
            if status is not None:
                run.channel.send_exit_status(status)
            run.channel.close()


class _Server(paramiko.ServerInterface):
    def __init__(self, target: FakeSshTarget) -> None:
        self._target = target
        self._asked: dict[int, dict[str, Any]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        blob = key.public_blob
        self._target.logins.append((username, blob.key_type if blob is not None else key.get_name()))
        return AUTH_SUCCESSFUL if self._target.accepts_login else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self._asked[chanid] = {"terminal": None, "environment": {}}
        return OPEN_SUCCEEDED if self._target.accepts_session else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_env_request(self, channel: paramiko.Channel, name: bytes, value: bytes) -> bool:
        self._asked[channel.chanid]["environment"][name] = value
        return True

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes,
    ) -> bool:
        self._asked[channel.chanid]["terminal"] = (term, width, height)
        return self._target.accepts_terminal

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        for run in self._target.runs:
            if run.channel is channel:
                run.sizes.append((width, height))
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._started(channel, command)

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self._started(channel, None)

    def _started(self, channel: paramiko.Channel, command: bytes | None) -> bool:
        if not self._target.accepts_program:
            return False
        self._target.start(Run(channel=channel, command=command, **self._asked[channel.chanid]))
        return True


def _echo(run: Run) -> int:
    """Say what was asked for, then what comes in."""
    run.out(b"ran: " + (run.command or b"shell") + b"\n")
    return 0
