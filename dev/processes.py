"""Processes and threads that the local stack starts: each has an owner here, and each is ended.

Rules: a child leads a process group of its own, so that a Ctrl-C at the terminal reaches the stack alone, which then
stops its children in order; a child whose parent is killed outright dies too (``PR_SET_PDEATHSIG``, prctl(2)). Output
goes to a log file. It does not restart what died: a stack with a dead part is stopped.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Protocol

from chalicelib.domain.errors import TargetUnavailable
from dev.settings import Account

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
# The signal is sent when the *thread* that forked ends, not the process: so one thread that lives as long as we do
# forks.
_SPAWNER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
_FIRST_PORT, _LAST_PORT = 20_000, 32_768  # Linux gives outgoing connections 32768 and up (ip_local_port_range)
_PORT_TRIES: Final = 100
LOG_TAIL: Final = 2000  # characters of a dead child's log that its error shows: a traceback's last lines


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now. Another server may take it before its user does.

    It lies below the range from which the kernel gives outgoing connections theirs: a port of that range is often taken
    by somebody's client in the seconds until its server starts.
    """
    for _ in range(_PORT_TRIES):
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise TargetUnavailable("this machine has no free port")


class Joinable(Protocol):
    """A started thread, as far as its starter needs it."""

    def join(self, timeout: float | None = None) -> None: ...


def background(name: str, run: Callable[[], object]) -> Joinable:
    """Run ``run`` in a thread that does not keep the process alive, and return the started thread."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class Child:
    """One process. Starts in the constructor; :meth:`stop` ends it and everything in its process group."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        account: Account | None = None,
        pipes: bool = False,
        cwd: Path | None = None,
    ) -> None:
        """Run ``argv`` as ``account`` (else as the caller), writing to ``log``; with ``pipes`` its standard input and
        output are ours (:attr:`stdin`, :attr:`stdout`) and only standard error goes to the log."""
        self.name = name
        self.log = log
        with log.open("ab") as out:
            started = _SPAWNER.submit(
                subprocess.Popen,
                list(argv),
                env=dict(environment),
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                cwd=cwd,
                process_group=0,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=() if account else None,
                preexec_fn=_die_with_parent,
            )
            self._process: subprocess.Popen[bytes] = started.result()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise ValueError(f"{self.name} was started without pipes")
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise ValueError(f"{self.name} was started without pipes")
        return self._process.stdout

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout_s)

    def wait_until(self, ready: Callable[[], bool], *, within_s: float) -> None:
        """Return when ``ready()`` is true. Raises TargetUnavailable, with the log's end, if the child dies first or
        ``within_s`` pass."""
        pause = threading.Event()
        for _ in range(int(within_s / 0.05)):
            if not self.alive():
                raise TargetUnavailable(f"{self.name} ended with code {self._process.returncode}:\n{self.log_tail()}")
            if ready():
                return
            pause.wait(0.05)
        raise TargetUnavailable(f"{self.name} was not ready within {within_s:.0f} s:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:]

    def stop(self, *, grace_s: float = 5.0, how: signal.Signals = signal.SIGTERM) -> None:
        """End the child: ``how``, then after ``grace_s`` SIGKILL to its group. Stopping twice does nothing."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # what was still in the buffer for a child that is gone
                self._process.stdin.close()
        if self.alive():
            self._signal(how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self._signal(signal.SIGKILL)  # what it left behind in its group
        self._process.wait()
        if self._process.stdout is not None:  # last, so that a reader in another thread came to the end by itself
            self._process.stdout.close()

    def kill(self) -> None:
        """End it at once, without waiting; :meth:`stop` is still due."""
        self._signal(signal.SIGKILL)

    def _signal(self, how: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, how)
        except (ProcessLookupError, PermissionError):  # the group is empty already
            return


def listening(port: int) -> bool:
    """Say whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _die_with_parent() -> None:
    """Run in the child between fork and exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
