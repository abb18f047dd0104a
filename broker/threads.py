"""The one owner of threads in the broker: a function called again and again, and a bounded pool.

Rules: every thread has a name; what it runs may raise, and is called again; stopping is bounded. A test calls the
function itself and never starts a thread. Does not know what it runs.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, Protocol, TypeVar

from chalicelib.domain.errors import Limited

P = ParamSpec("P")
T = TypeVar("T")

# How long a thread may hold the interpreter while another waits for it: Python's own 5 ms are as long as judging fifty
# statements, and the relay's loop would wait so long at each read while a pool's thread writes JSON. What switching
# costs (some 10 us) is paid only where both have work.
SWITCH_S: Final = 0.0005
STOP_WITHIN_S: Final = 10.0  # a store call's own timeouts are shorter; past this the process ends with the thread

_logger = logging.getLogger(__name__)


def switch_often() -> None:
    """Have threads take turns often enough for a loop among them. For the whole process: once, where it begins."""
    sys.setswitchinterval(SWITCH_S)


class Periodic:
    """Calls ``step`` every ``every_s`` seconds in a thread of its own; an exception is logged and the next call comes.

    What depends on the thread must notice by its clock that no step succeeded: a thread cannot report its own death.
    """

    def __init__(self, name: str, step: Callable[[], None], *, every_s: float) -> None:
        self._name = name
        self._step = step
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread. Once only."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end and wait for at most ``STOP_WITHIN_S``. Idempotent once started."""
        self._stopping.set()
        self._thread.join(STOP_WITHIN_S)

    def once(self) -> None:
        """Call ``step`` as the thread does: any exception is logged."""
        try:
            self._step()
        except Exception:
            _logger.exception("the periodic step failed", extra={"thread_step": self._name})

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self.once()


class Pool(Protocol):
    """Runs functions elsewhere. Implementations: :class:`WorkerPool`, ``tests.fakes.broker.InlinePool``."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future of ``fn``'s result. Raises Limited where too much waits already."""
        ...


class WorkerPool:
    """``threads`` workers and at most ``queue`` calls running or waiting: a slow store must not become our memory."""

    def __init__(self, name: str, *, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._room = threading.BoundedSemaphore(queue)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future of ``fn``'s result. Raises Limited where the queue is full or the pool closed."""
        if not self._room.acquire(blocking=False):
            raise Limited("the broker has too much to do at the moment")
        try:
            future = self._executor.submit(fn, *args, **kwargs)
        except RuntimeError as error:  # the executor's word for "already shut down"
            self._room.release()
            raise Limited("the broker is stopping") from error
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Take no more, drop what has not begun, and wait for what runs."""
        self._executor.shutdown(wait=True, cancel_futures=True)
