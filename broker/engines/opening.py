"""Opening and sealing a connection from the loop: both block, and neither may be lost with the task that asked.

Rules: opening is bounded; what was opened for a client that is gone by then is closed; closing runs to its end whatever
happens to who asked, since an unsealed record is an open question for auditors. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Generic, TypeVar

from broker.engines.flow import Connection, Door, Driver
from broker.tasks import Tasks
from chalicelib.domain.errors import AccessError, StoreUnavailable

C = TypeVar("C", bound=Connection)
OPEN_S: Final = 30.0  # admit, open (a PUT to the bucket) and mint: past this something hangs, and the client has gone


class Opening(Generic[C]):
    """One engine's. Belongs to its loop."""

    def __init__(self, *, door: Door[C], driver: Driver[C], tasks: Tasks) -> None:
        self._door = door
        self._driver = driver
        self._tasks = tasks

    async def open(self, login: str, peer: str, *, bound: bool = False, public_key: str = "") -> C:
        """Admit and open, in the pool. Raises AccessError."""
        opening = self._tasks.start("open", self._opened(login, peer, bound, public_key))
        try:
            async with asyncio.timeout(OPEN_S):
                return await asyncio.shield(opening)
        except TimeoutError:
            self._tasks.start("unopen", self._unopened(opening))
            raise StoreUnavailable("the session could not be opened in time") from None
        except asyncio.CancelledError:
            self._tasks.start("unopen", self._unopened(opening))
            raise

    async def seal(self, connection: C, exit_reason: str) -> None:
        """Close ``connection``; cancelling this does not stop it."""
        closing = self._tasks.start("close", self._closed(connection, exit_reason))
        await asyncio.shield(closing)

    async def _opened(self, login: str, peer: str, bound: bool, public_key: str) -> C:
        return await self._driver.run(self._door.open, login, peer, bound=bound, public_key=public_key)

    async def _unopened(self, opening: asyncio.Task[C]) -> None:
        with contextlib.suppress(AccessError):
            await self.seal(await opening, "client_lost")

    async def _closed(self, connection: C, exit_reason: str) -> None:
        await self._driver.run(connection.close, exit_reason)
