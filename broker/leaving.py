"""How a broker leaves: told once, it takes nobody new and lets who is there finish; told again, it ends at once.

Rules: the wait is bounded by what the settings say, which must leave :data:`END_S` and a few seconds of what stops the
process for good (Fargate: 120 s at most). What still runs then is ended in its protocol and sealed, by the engines.
Does not know what a transport is, nor the signals.

Source: ECS, ``stopTimeout`` (SIGTERM, then SIGKILL after 30 s, or up to 120 s on Fargate).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from broker.tasks import Tasks

# To tell every client, upload its last segment and sign: what Fargate's default stop timeout of 30 s leaves.
END_S: Final = 25.0
EMPTY: Final = "nobody is left"
OVER: Final = "the time is over"
AGAIN: Final = "told again"


class Told:
    """What the process was told. Belongs to one loop."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.at_once = asyncio.Event()

    def tell(self) -> None:
        """Told to leave; the second time, at once."""
        if self.leave.is_set():
            self.at_once.set()
        self.leave.set()


async def left_alone(emptied: Coroutine[Any, Any, None], *, within_s: float, told: Told) -> str:
    """Wait until ``emptied`` returns, ``within_s`` seconds are over or ``told`` again; return which of them it was."""
    tasks = Tasks()
    empty, again = tasks.start("emptied", emptied), tasks.start("told again", told.at_once.wait())
    try:
        await asyncio.wait({empty, again}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if empty.done():
            return EMPTY
        return AGAIN if again.done() else OVER
    finally:
        await tasks.cancel_all()
