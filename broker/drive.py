"""The waiting, for asyncio engines: durable where required, approved where held, and not ahead of the record.

Rules: what blocks runs in one bounded pool; every wait has a bound; who waits wakes by a callback, never by polling;
a client that leaves withdraws what it held. A settlement that was begun is brought to its end even where the client is
gone: the approval may be used by then, and its outcome must be told. Decides nothing: ``connection`` and ``holds`` do.
Source: architecture, "Threads and loops".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, ParamSpec, Protocol, TypeVar, assert_never

from broker.connection import Connection
from broker.holds import Held
from broker.tasks import Tasks
from broker.threads import Pool
from chalicelib.domain.errors import AccessError, ApprovalWithdrawn, RecordingUnavailable
from chalicelib.domain.operation import Block, Forward, Hold, Operation, Ruling

P = ParamSpec("P")
T = TypeVar("T")

# As long as segment 0 may take: past it a client sees a refusal that it can repeat, not a connection that hangs.
DURABLE_WITHIN_S: Final = 10.0
PACED_WITHIN_S: Final = 30.0  # as long as an upload is tried again; then the recording has failed anyway


class HoldClient(Protocol):
    """The client of a held operation, as its engine knows it."""

    def notify(self, text: str) -> None:
        """Tell the client, in its protocol, what it waits for. Never blocks."""
        ...

    async def withdrawn(self) -> str:
        """Return a reason once the client takes the operation back: cancel, disconnect, drain."""
        ...


class Driver:
    """One for all connections of a loop. Its methods belong to that loop."""

    def __init__(
        self,
        *,
        pool: Pool,
        tasks: Tasks,
        durable_within_s: float = DURABLE_WITHIN_S,
        paced_within_s: float = PACED_WITHIN_S,
    ) -> None:
        """``pool`` runs what blocks; ``tasks`` keeps what outlives a caller that was cancelled."""
        self._pool = pool
        self._tasks = tasks
        self._durable_within_s = durable_within_s
        self._paced_within_s = paced_within_s

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``fn`` returns, run in the pool. Raises Limited where the pool is full, and what ``fn`` raises.

        Cancelling the wait does not stop ``fn``.
        """
        return await asyncio.wrap_future(self._pool.submit(fn, *args, **kwargs))

    async def decide(
        self,
        connection: Connection,
        op: Operation,
        client: HoldClient,
        *,
        in_transaction: bool,
        state: tuple[tuple[str, str], ...] = (),
    ) -> Forward | Block:
        """Submit ``op`` and wait until it may be sent (now: durable where required) or is refused. Never raises but
        when cancelled, which withdraws it. ``state``: what changes the text's meaning."""
        verdict = connection.submit(op, in_transaction=in_transaction)
        if isinstance(verdict, Block):
            return verdict
        return await self.settle(connection, op, verdict, client, state=state)

    async def settle(
        self,
        connection: Connection,
        op: Operation,
        verdict: Forward | Hold,
        client: HoldClient,
        *,
        state: tuple[tuple[str, str], ...] = (),
    ) -> Forward | Block:
        """Wait for a submitted ``op``, as :meth:`decide` does after submitting it."""
        try:
            match verdict:
                case Forward():
                    if verdict.durable:
                        await self.durable(connection)
                    return verdict
                case Hold():
                    return await self._held(connection, op, verdict, client, state)
                case _:
                    assert_never(verdict)
        except AccessError as error:
            # Its frame says forward or hold: what did not follow must be told too.
            _tell_unsent(connection, op, error.code)
            return _block(verdict.ruling, error)

    async def durable(self, connection: Connection) -> None:
        """Wait until all that was accepted is durable. Raises RecordingUnavailable after a bounded time."""
        upto = connection.accepted
        connection.flush()
        await self._until(connection, lambda: connection.durable_upto >= upto, self._durable_within_s)

    async def paced(self, connection: Connection) -> None:
        """Wait until the record is not behind: call it before each read, of either side. Raises RecordingUnavailable
        after a bounded time."""
        if connection.behind:
            connection.flush()
            await self._until(connection, lambda: not connection.behind, self._paced_within_s)

    async def _until(self, connection: Connection, done: Callable[[], bool], within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s), _progress(connection) as progress:
                while not done():
                    ending = connection.ending()
                    if ending is not None:
                        raise ending
                    await progress.wait()
                    progress.clear()
        except TimeoutError as error:
            raise RecordingUnavailable("the record could not be stored in time", limit_s=within_s) from error

    # -- holding ---------------------------------------------------------------------------------------------------

    async def _held(
        self,
        connection: Connection,
        op: Operation,
        verdict: Hold,
        client: HoldClient,
        state: tuple[tuple[str, str], ...],
    ) -> Forward | Block:
        held = connection.hold(op, verdict, state)
        try:
            await self.run(held.open)
            client.notify(held.notice)
            why = await self._answered_or_withdrawn(connection, held, client)
        except BaseException:  # cancelled above all: whatever ends the wait takes the operation back
            self._tasks.start("withdraw", self.run(held.withdraw, "the client is gone"))
            raise
        if why is not None:
            await asyncio.shield(self._tasks.start("withdraw", self.run(held.withdraw, why.public)))
            return _block(verdict.ruling, why)
        settling = self._tasks.start("settle", self.run(held.settle))
        try:
            return await asyncio.shield(settling)
        except asyncio.CancelledError:
            settling.add_done_callback(lambda done: _told_unsent(connection, op, done))
            raise

    async def _answered_or_withdrawn(
        self, connection: Connection, held: Held, client: HoldClient
    ) -> AccessError | None:
        """Wait for people, the client or the end of the connection; return why it is taken back, None where answered.

        Bounded by the ask's own expiry, which the poller tells of.
        """
        leaving = self._tasks.start("withdrawn", client.withdrawn())
        loop = asyncio.get_running_loop()
        try:
            async with _progress(connection) as progress:
                held.on_ready(lambda: _call_soon(loop, progress.set))
                leaving.add_done_callback(lambda _: progress.set())
                while True:
                    ending = connection.ending()
                    if ending is not None:
                        return ending
                    if leaving.done():
                        return ApprovalWithdrawn(leaving.result())
                    if held.ready:
                        return None
                    await progress.wait()
                    progress.clear()
        finally:
            leaving.cancel()


@contextlib.asynccontextmanager
async def _progress(connection: Connection) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set whenever the connection's record moved or its liveness changed."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def wake() -> None:
        _call_soon(loop, event.set)

    connection.on_progress(wake)
    try:
        yield event
    finally:
        connection.off_progress(wake)


def _call_soon(loop: asyncio.AbstractEventLoop, fn: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits on it any more
        loop.call_soon_threadsafe(fn)


def _block(ruling: Ruling, error: AccessError) -> Block:
    return Block(ruling=ruling, code=error.code, public=error.public, hint=error.next_step)


def _told_unsent(connection: Connection, op: Operation, done: asyncio.Future[Forward | Block]) -> None:
    """Record that an approved operation was not sent, its client being gone: else it would count as unknown."""
    if not done.cancelled() and done.exception() is None and isinstance(done.result(), Forward):
        _tell_unsent(connection, op, "the client left before it was sent")


def _tell_unsent(connection: Connection, op: Operation, why: str) -> None:
    with contextlib.suppress(RecordingUnavailable):  # unrecorded and unsent: nothing is missing from the record
        connection.outcome(op.id, status="refused", tag=why)
