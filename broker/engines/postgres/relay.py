"""The relay of one connection: client and target side by side, one state, one end.

Rules: bytes are forwarded only as whole messages that one of the two sides has judged; whatever goes wrong ends the
connection in the client's protocol, once, and everything is closed and sealed on every way out. An exception that is no
refusal is a bug of ours: the connection ends and says nothing of it. Reading stops on the side whose peer is slow, and
on both while the record is behind.

What it does not do: judge (``client_side``), mask (``target_side``), admit (``session``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from broker.engines.channel import Channel
from broker.engines.flow import Connection, Driver
from broker.engines.postgres import refusals
from broker.engines.postgres.client_side import ClientSide
from broker.engines.postgres.running import Language
from broker.engines.postgres.target_side import TargetSide
from broker.tasks import Tasks
from broker.wire.postgres import fields
from broker.wire.postgres.conversation import Conversation
from broker.wire.postgres.framing import FrameReader, frame
from broker.wire.violation import RemoteViolation
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, ProtocolViolation, TargetUnavailable

C = TypeVar("C", bound=Connection)
FLUSH_S: Final = 2.0  # how long a client that does not read may keep the farewell from leaving

_TERMINATE: Final = frame(b"X")
_log = logging.getLogger(__name__)


class Relay(Generic[C]):
    """Made once both sides are ready; :meth:`run` returns when the connection is over."""

    def __init__(
        self,
        *,
        client: Channel,
        target: Channel,
        target_reader: FrameReader,
        connection: C,
        driver: Driver[C],
        language: Language,
        state: tuple[tuple[str, str], ...],
        cancel_target: Callable[[], None],
        parameters: dict[bytes, bytes],
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self.client = client
        self.target = target
        self.connection = connection
        self.driver = driver
        self.language = language
        self.state = state
        self.parameters = parameters
        self.tasks = tasks
        self.clock = clock
        self.conversation = Conversation()
        self._cancel_target = cancel_target
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._paused: set[str] = set()
        self.client_side: ClientSide[C] = ClientSide(self)
        self.target_side: TargetSide[C] = TargetSide(self, target_reader)

    # From outside.

    async def run(self) -> str:
        """Relay until the connection is over, and return how it ended."""
        loop = asyncio.get_running_loop()

        def progressed() -> None:
            _soon(loop, self.tick)

        self.connection.on_progress(progressed)
        self.client.on_full = lambda: self._pause("client is slow", self.target)
        self.client.on_drained = lambda: self._resume("client is slow", self.target)
        self.target.on_full = lambda: self._pause("target is slow", self.client)
        self.target.on_drained = lambda: self._resume("target is slow", self.client)
        self.target.push_to(self._guard(self.target_side.received), self._target_lost)
        self.client.push_to(self._guard(self.client_side.received), self._client_lost)
        try:
            exit_reason = await self._over
            if self.conversation.outstanding and not exit_reason.startswith("client"):
                # PostgreSQL notices a closed connection only when it next writes: what a revoked session still runs
                # would go on. A client that left by itself is treated as PostgreSQL treats it.
                self._cancel_target()
        finally:
            self.connection.off_progress(progressed)
            self.client_side.withdraw("the connection ended")
            self.target_side.abandon()
            self.target.write(_TERMINATE)
            self.target.close()
            self.client.close()
        await self._flushed()
        return exit_reason

    def cancel(self) -> None:
        """A CancelRequest with our key: withdraws what is held, else cancels on the target."""
        if not self.client_side.withdraw("the client cancelled it"):
            self._cancel_target()

    def tick(self) -> None:
        """Once a second, and whenever the record or liveness moved."""
        ending = self.connection.ending()
        if ending is not None and not self.over:
            self.end(ending)

    def end(self, error: AccessError) -> None:
        """End the connection: one FATAL to the client. Idempotent."""
        self._end(refusals.ended(error, self.connection.id), error.code)

    def drain(self) -> None:
        """The broker ends; the client may connect again, to another task."""
        self._end(
            fields.error("FATAL", refusals.ENDED, "the broker is shutting down", hint="Connect again."), "drained"
        )

    # From the two sides.

    def settled(self) -> None:
        """The target answered: what waited for answers may go on."""
        self.client_side.answered()
        if self.connection.behind and "record is behind" not in self._paused:
            self._pause("record is behind", self.client, self.target)
            self.tasks.start("postgres-pace", self._pace())

    def hold_reading(self, reason: str) -> None:
        """Read no more from the client."""
        self._pause(reason, self.client)

    def release_reading(self, reason: str) -> None:
        self._resume(reason, self.client)

    def fatal_passed(self) -> None:
        """The target's own FATAL was passed on."""
        self._finish("target_closed")

    def left(self) -> None:
        """The client said goodbye."""
        self._finish("client_closed")

    def attempt(self, work: Callable[[], None]) -> None:
        """Run ``work``; whatever it raises ends the connection."""
        self._guarded(work)

    @property
    def over(self) -> bool:
        return self._over.done()

    # Inside.

    def _guard(self, take: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def guarded(data: bytes) -> None:
            self._guarded(lambda: take(data))

        return guarded

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.over:
            return
        try:
            work()
        except RemoteViolation as violation:
            self.end(ProtocolViolation(f"the connection broke the protocol: {violation.what}"))
        except AccessError as error:
            self.end(error)
        except Exception:  # noqa: BLE001 fails closed: the connection ends, and the log has it
            _log.exception("the relay failed", extra={"connection": self.connection.id})
            self._end(refusals.internal(), "internal")

    def _end(self, farewell: bytes, exit_reason: str) -> None:
        if not self.over:
            self.client.write(farewell)
            self._finish(exit_reason)

    def _finish(self, exit_reason: str) -> None:
        if not self.over:
            self._over.set_result(exit_reason)

    def _client_lost(self, why: str) -> None:
        self._finish("client_closed" if why == "closed" else "client_lost")

    def _target_lost(self, _: str) -> None:
        self._end(
            fields.error("FATAL", "08006", "the target closed the connection", hint=TargetUnavailable.hint),
            "target_lost",
        )

    def _pause(self, reason: str, *channels: Channel) -> None:
        self._paused.add(reason)
        for channel in channels:
            channel.pause_reading()

    def _resume(self, reason: str, *channels: Channel) -> None:
        """Reading goes on only where no other reason stands against it."""
        self._paused.discard(reason)
        for channel in channels:
            slow = "client is slow" if channel is self.target else "target is slow"
            reasons = {slow, "record is behind"} | ({"held"} | {"too far ahead"} if channel is self.client else set())
            if not self._paused & reasons:
                channel.resume_reading()

    async def _pace(self) -> None:
        try:
            await self.driver.paced(self.connection)
        except AccessError as error:
            self.end(error)
            return
        self._resume("record is behind", self.client, self.target)

    async def _flushed(self) -> None:
        """Give the farewell a bounded time to leave, then cut."""
        try:
            async with asyncio.timeout(FLUSH_S):
                await self.client.wait_closed()
        except TimeoutError:
            self.client.abort()
        self.target.abort()


def _soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Called in any thread, perhaps after the loop is gone."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(work)
