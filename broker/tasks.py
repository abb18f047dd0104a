"""The one owner of ``asyncio.create_task``: keeps a strong reference to every task and logs how each failed, by name.

The loop holds tasks weakly (Python documentation, ``asyncio.create_task``), so a task that nobody keeps may vanish in
the middle; and an exception that nobody awaits would be told of only when the task is collected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from chalicelib.domain.errors import AccessError

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class Tasks:
    """The tasks of one owner. Not thread-safe: belongs to one loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return the started task of ``work``. Its failure is logged, and also raised to who awaits it."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def cancel_all(self) -> None:
        """Cancel every task and wait until all have ended; their failures are logged, not raised."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def drained(self) -> None:
        """Wait until every task has ended by itself."""
        while self._running:
            await asyncio.wait(set(self._running))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, AccessError):
            # A refusal is an answer and no failure: whoever is turned away could else fill the log with stack traces.
            _logger.info("the task %s was refused", task.get_name(), extra={"code": error.code})
        else:
            _logger.error("the task %s failed", task.get_name(), exc_info=error)
