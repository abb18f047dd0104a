"""Runs the command: its input and output are ours untouched, signals go through to it, its exit code comes back.

Source: POSIX.1-2017 section 2.8.2 (exit codes of shells: 126, 127, above 128).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from countersign.failures import Exit, Failure

_PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# The terminal itself sends these to every process in the foreground: passing them on would deliver them twice.
_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})


def find_command(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the path of the program, before anybody is asked to approve. Raises Failure (127, 126)."""
    program = command[0]
    found = shutil.which(program, path=environment.get("PATH", os.defpath))
    if found is not None:
        return found
    if os.sep in program and os.path.exists(program):
        raise Failure(Exit.NOT_EXECUTABLE, f"{program} cannot be run", hint="Is it executable?")
    raise Failure(Exit.NOT_FOUND, f"{program} was not found", hint="Nobody was asked; nothing was started.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Meanwhile:
    """What is to be done while the command runs: ``do`` first after ``first_s`` seconds, then after as many as it
    returns; None: not again. It is called between two waits for the command, on the one thread that there is."""

    first_s: float
    do: Callable[[], float | None]


def run(
    program: str, command: Sequence[str], environment: Mapping[str, str], meanwhile: Meanwhile | None = None
) -> int:
    """Run ``command`` (its first word is what it sees as its name; ``program`` is the file) and return its exit code,
    128 + the signal where one ended it. Raises Failure (126)."""
    with _passing_on() as started:
        try:
            process = subprocess.Popen(list(command), executable=program, env=dict(environment))  # noqa: S603 - the caller's own
        except OSError as error:
            raise Failure(Exit.NOT_EXECUTABLE, f"{program} cannot be run: {error.strerror}") from error
        started(process)
        code = _ended(process, meanwhile)
    return code if code >= 0 else 128 - code


def _ended(process: subprocess.Popen[bytes], meanwhile: Meanwhile | None) -> int:
    """Return the exit code, having done ``meanwhile`` as often as it asked for."""
    pause_s = None if meanwhile is None else meanwhile.first_s
    while meanwhile is not None and pause_s is not None:
        try:
            return process.wait(max(0.0, pause_s))
        except subprocess.TimeoutExpired:
            pause_s = meanwhile.do()
    return process.wait()


@contextmanager
def _passing_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Pass signals on to the process that the caller names; those that come before it is there, once it is."""
    processes: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number in _FROM_TERMINAL and _in_foreground():
            return
        if not processes:
            early.append(number)
        elif processes[0].poll() is None:
            processes[0].send_signal(number)

    def started(process: subprocess.Popen[bytes]) -> None:
        processes.append(process)
        for number in early:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield started
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Return whether a terminal controls us and we are in its foreground group, as the child is."""
    try:
        return os.tcgetpgrp(sys.__stderr__.fileno() if sys.__stderr__ else 2) == os.getpgrp()
    except (OSError, ValueError):
        return False


class Stopped(BaseException):
    """A signal asked us to end while nothing was running: what is open is closed first. Not an Exception, so that no
    handler of failures takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stopping() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP raise Stopped: CI services cancel a job with these."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
