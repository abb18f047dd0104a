"""The relay of one connection: client and target side by side, many channels, one end.

Rules: only session channels are relayed; every other kind of channel and every forwarding is refused, and recorded as a
blocked operation. Whatever goes wrong ends the connection once, with a last line on standard error of every channel
that is open, and both transports are cut on every way out. An exception that is no refusal is a bug of ours: the
connection ends and says nothing of it. Reading stops on both sides while the record is behind, since reading is what
the two threads do; nothing is sent on to the target while it is not known whether the session was revoked.

A relay without a connection tells each channel why the session was refused, and ends.

What it does not do: judge and run (``relayed``), open and seal (``session``).

Source: RFC 4254 sections 4, 5.1, 7; OpenSSH PROTOCOL 2.1, 2.2, 2.4 (no-more-sessions, tun, streamlocal).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, TypeVar

from broker.engines.flow import Connection, Driver
from broker.engines.ssh import asked as asking
from broker.engines.ssh import refusals
from broker.engines.ssh.endpoint import Endpoint
from broker.engines.ssh.masks import StreamMasks
from broker.engines.ssh.one_way import MAX_DATA, WINDOW
from broker.engines.ssh.output import Mask
from broker.engines.ssh.relayed import RelayedChannel
from broker.engines.ssh.transport import SshTransport
from broker.stream_masking import IDLE_S
from broker.tasks import Tasks
from broker.wire.ssh import messages
from broker.wire.violation import RemoteViolation
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, ProtocolViolation, RecordingUnavailable, StoreUnavailable
from chalicelib.domain.operation import Block, Forward, Hold, Operation

C = TypeVar("C", bound=Connection)

FLUSH_S: Final = 2.0  # how long a client that does not read may keep the last line from leaving
STALL_S: Final = 60.0  # as long as the kernel waits for a peer that is there and takes nothing
REFUSED_S: Final = 10.0  # how long a refused client may take to open the channel on which it is told
PACE_S: Final = 35.0  # more than the driver's own bound, which says why
MAX_CHANNELS: Final = 256  # of one connection, each with its buffers; fleets of multiplexed commands run dozens
FULL_WINDOWS: Final = 8  # channels with a whole window: with MAX_CHANNELS small ones that is 48 MiB each way at most
SMALL_WINDOW: Final = 128 * 1024
IN_POOL: Final = 4  # workers for one connection: a client that takes nothing keeps each waiting, and they are few
_SESSION: Final = "session"
# What OpenSSH's clients ask for as a matter of course, and need not be told of.
_HARMLESS: Final = frozenset({"keepalive@openssh.com", "no-more-sessions@openssh.com"})
_ADDRESSED: Final = frozenset({"tcpip-forward", "direct-tcpip"})

_log = logging.getLogger(__name__)


class Relay(Generic[C]):
    """One connection's. :meth:`run` returns when it is over. Implements ``relayed.Surroundings``."""

    def __init__(
        self,
        *,
        client: SshTransport,
        driver: Driver[C],
        masks: StreamMasks,
        tasks: Tasks,
        clock: Clock,
        idle_s: float = IDLE_S,
    ) -> None:
        self.client = client
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.idle_s = idle_s
        self.refusal: AccessError | None = None
        self.gone = asyncio.Event()  # the client's transport
        self._draining = asyncio.Event()
        self._quiet = asyncio.Event()  # no channel is open any more
        self._driver = driver
        self._masks = masks
        self._tasks = tasks
        self._connection: C | None = None
        self._target: SshTransport | None = None
        self._channels: set[RelayedChannel] = set()
        self._lock = threading.Lock()
        self._no_more = False
        self._stale = False
        self._hands = asyncio.Semaphore(IN_POOL)
        self._over: asyncio.Future[tuple[str, str]] = self.loop.create_future()

    # From the engine, on the loop.

    async def run(self, connection: C, target: SshTransport) -> str:
        """Relay until the connection is over, and return how it ended."""
        self._connection, self._target = connection, target

        def progressed() -> None:
            self._soon(self.tick)

        connection.on_progress(progressed)
        try:
            await self._driver.run(target.attach, _TargetOwner(self, target))
            await self._driver.run(self.client.attach, self)
            self.tick()
            text, exit_reason = await self._over
            await self._farewell(text, exit_reason)
            return exit_reason
        finally:
            connection.off_progress(progressed)
            for channel in self._open():
                channel.withdraw("the connection ended")
            target.cut()
            self.client.cut()

    async def refuse(self, error: AccessError) -> None:
        """Tell the client why its session was refused: on its first channel, else as the transport ends."""
        self.refusal = error
        try:
            await self._driver.run(self.client.attach, self)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSED_S):
                    await _either(self.gone, self._quiet, self._draining)
            await self._hang_up(refusals.line(error))
        finally:
            self.client.cut()

    def tick(self) -> None:
        """Once a second, and whenever the record or liveness moved."""
        connection, target = self._connection, self._target
        if connection is None or target is None or self._over.done():
            return
        ending = connection.ending()
        if ending is not None:
            self.end(ending)
        for transport in (self.client, target):
            if transport.stalled_s() > STALL_S:
                transport.cut()
        if self._stale:
            self._stale = False
            self.start("ssh-pump", partial(self.in_pool, self._pump_inward))

    def drain(self) -> None:
        """The broker ends; the client may connect again, to another task."""
        self._draining.set()
        self._end(refusals.DRAINING, "drained")

    # Owner of the client's transport, in its thread.

    def channel_asked(self, asked: messages.ChannelOpen) -> None:
        self.guard(lambda: self._channel_asked(asked))

    def global_request(self, request: messages.GlobalRequest) -> None:
        self.guard(lambda: self._global_request(request))

    def writable(self) -> None:
        self.guard(self._pump_outward)

    def ended(self) -> None:
        if self.client.violation:
            _log.info("a client broke the protocol", extra={"why": self.client.violation})
            self._end("", ProtocolViolation.code)
        left = self.client.said_goodbye or all(channel.over for channel in self._open())
        self._end("", "client_closed" if left else "client_lost")
        self._soon(self.gone.set)

    # Surroundings of the channels, any thread.

    @property
    def connection(self) -> C:
        if self._connection is None:
            raise RemoteViolation("something to run where there is no session")
        return self._connection

    def masks(self, forward: Forward) -> Callable[[], Mask]:
        return self._masks.of(forward.masks)

    def target_endpoint(self, channel: RelayedChannel) -> Endpoint:
        target = self._target
        if target is None:
            raise RemoteViolation("something to run where there is no target")
        endpoint = target.add_endpoint(lambda number: Endpoint(target, number, _TargetHalf(self, channel)))
        target.post(messages.encode_open(_SESSION, endpoint.number, channel.window, MAX_DATA))
        return endpoint

    def may_forward(self) -> bool:
        try:
            self.connection.check_alive()
        except StoreUnavailable:  # for now; past its bound the connection ends
            self._stale = True
            return False
        except AccessError as error:
            self.end(error)
            return False
        return True

    def pace(self) -> None:
        connection = self._connection
        if connection is None or not connection.behind:
            return
        waiting = asyncio.run_coroutine_threadsafe(self._driver.paced(connection), self.loop)
        try:
            waiting.result(PACE_S)
        except (TimeoutError, concurrent.futures.CancelledError) as error:
            raise RecordingUnavailable("the record could not be stored in time") from error

    def guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RemoteViolation as violation:
            self.end(ProtocolViolation(f"the connection broke the protocol: {violation.what}"))
        except AccessError as error:
            self.end(error)
        except Exception:  # noqa: BLE001 fails closed: the connection ends, and the log has it
            _log.exception("the relay failed")
            self.end(refusals.INTERNAL)

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._soon(lambda: self._tasks.start(name, self._guarded(work)))

    async def in_pool(self, work: Callable[[], None]) -> None:
        async with self._hands:
            await self._driver.run(self.guard, work)

    async def settle(
        self, op: Operation, verdict: Forward | Hold, channel: RelayedChannel, state: tuple[tuple[str, str], ...]
    ) -> Forward | Block:
        return await self._driver.settle(self.connection, op, verdict, channel, state=state)

    def later(self, after_s: float, work: Callable[[], None]) -> None:
        self._soon(lambda: self.loop.call_later(after_s, self.start, "ssh-later", partial(self.in_pool, work)))

    def end(self, error: AccessError) -> None:
        """End the connection. Idempotent."""
        self._end(refusals.line(error), error.code)

    def left(self, channel: RelayedChannel) -> None:
        """``channel`` is closed on the client's side."""
        with self._lock:
            self._channels.discard(channel)
            last = not self._channels
        if last:
            self._soon(self._quiet.set)

    # Inside.

    def _channel_asked(self, asked: messages.ChannelOpen) -> None:
        if asked.kind != _SESSION:
            self._refuse(asked, messages.PROHIBITED, refusals.not_offered(asked.kind))
            self._record(asked.kind, asked.rest)
            return
        with self._lock:
            count = len(self._channels)
            full = count >= MAX_CHANNELS
            channel = RelayedChannel(self, window=WINDOW if count < FULL_WINDOWS else SMALL_WINDOW)
            if not (full or self._no_more):
                self._channels.add(channel)
        if full or self._no_more:
            self._refuse(asked, messages.RESOURCE_SHORTAGE if full else messages.PROHIBITED, refusals.NO_ROOM)
            return
        client = self.client
        endpoint = client.add_endpoint(lambda number: Endpoint(client, number, _ClientHalf(self, channel)))
        channel.opened(endpoint, asked)

    def _refuse(self, asked: messages.ChannelOpen, reason: int, text: str) -> None:
        self.client.post(messages.encode_open_failure(asked.sender, reason, text))

    def _global_request(self, request: messages.GlobalRequest) -> None:
        if request.want_reply:
            self.client.post(bytes((messages.REQUEST_FAILURE,)))
        if request.name == "no-more-sessions@openssh.com":
            self._no_more = True
        if request.name not in _HARMLESS:
            self._record(request.name, request.rest)

    def _record(self, name: str, rest: bytes) -> None:
        """Record what is refused, whoever asks."""
        if self._connection is not None:
            detail = messages.parse_address(rest) if name in _ADDRESSED else ""
            self._connection.submit(asking.feature(name, detail, self.clock.now()), in_transaction=False)
            self.pace()

    def _end(self, text: str, exit_reason: str) -> None:
        self._soon(lambda: self._finish(text, exit_reason))

    def _finish(self, text: str, exit_reason: str) -> None:
        if not self._over.done():
            self._over.set_result((text, exit_reason))

    async def _farewell(self, text: str, exit_reason: str) -> None:
        """Say the last line, and give it a bounded time to leave."""
        if not text:
            await self.in_pool(lambda: self._farewells("", exit_reason))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                self._quiet.clear()
                await self.in_pool(lambda: self._farewells(text, exit_reason))
                if self._open():
                    await _either(self._quiet, self.gone)
        await self._hang_up(text)

    async def _hang_up(self, text: str) -> None:
        """End the transport in the protocol, for who has no channel to read the last line on."""
        self.start("ssh-disconnect", partial(self.in_pool, lambda: self.client.disconnect(text)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self.gone.wait()

    def _farewells(self, text: str, exit_reason: str) -> None:
        for channel in self._open():
            channel.farewell(text, exit_reason)

    def _pump_outward(self) -> None:
        for channel in self._open():
            channel.outward.pump()

    def _pump_inward(self) -> None:
        for channel in self._open():
            channel.inward.pump()

    def _open(self) -> tuple[RelayedChannel, ...]:
        with self._lock:
            return tuple(self._channels)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except AccessError as error:  # the pool is full: what was to be done is not
            self.end(error)

    def _soon(self, work: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(work)


async def _either(*events: asyncio.Event) -> None:
    """Wait for the first of ``events``."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiting:
            waiter.cancel()


class _ClientHalf:
    """Owner of a client's endpoint."""

    def __init__(self, relay: Relay[Any], channel: RelayedChannel) -> None:
        self._relay = relay
        self._channel = channel

    def confirmed(self, confirmation: messages.Confirmation) -> None:
        pass  # we ask no client for a channel

    def refused(self) -> None:
        pass

    def data(self, kind: int, data: bytes) -> None:
        self._relay.guard(lambda: self._channel.client_data(kind, data))

    def adjusted(self, count: int) -> None:
        self._relay.guard(lambda: self._channel.outward.adjusted(count))

    def request(self, request: messages.ChannelRequest) -> None:
        self._relay.guard(lambda: self._channel.client_request(request))

    def replied(self, ok: bool) -> None:
        pass  # we ask no client for anything

    def ended_input(self) -> None:
        self._relay.guard(self._channel.client_ended_input)

    def closed(self) -> None:
        self._relay.guard(self._channel.client_closed)

    def gone(self) -> None:
        self._relay.left(self._channel)


class _TargetHalf:
    """Owner of a target's endpoint."""

    def __init__(self, relay: Relay[Any], channel: RelayedChannel) -> None:
        self._relay = relay
        self._channel = channel

    def confirmed(self, confirmation: messages.Confirmation) -> None:
        self._relay.guard(lambda: self._channel.target_confirmed(confirmation))

    def refused(self) -> None:
        self._relay.guard(self._channel.target_refused)

    def data(self, kind: int, data: bytes) -> None:
        self._relay.guard(lambda: self._channel.target_data(kind, data))

    def adjusted(self, count: int) -> None:
        self._relay.guard(lambda: self._channel.inward.adjusted(count))

    def request(self, request: messages.ChannelRequest) -> None:
        self._relay.guard(lambda: self._channel.target_request(request))

    def replied(self, ok: bool) -> None:
        self._relay.guard(lambda: self._channel.target_replied(ok))

    def ended_input(self) -> None:
        self._relay.guard(self._channel.target_ended_input)

    def closed(self) -> None:
        self._relay.guard(self._channel.target_closed)

    def gone(self) -> None:
        pass  # the channel is the client's to end


class _TargetOwner:
    """Owner of the target's transport: a target opens no channel and is granted no request."""

    def __init__(self, relay: Relay[Any], target: SshTransport) -> None:
        self._relay = relay
        self._target = target

    def channel_asked(self, asked: messages.ChannelOpen) -> None:
        self._target.post(messages.encode_open_failure(asked.sender, messages.PROHIBITED, ""))

    def global_request(self, request: messages.GlobalRequest) -> None:
        if request.want_reply:
            self._target.post(bytes((messages.REQUEST_FAILURE,)))

    def writable(self) -> None:
        self._relay.guard(self._relay._pump_inward)

    def ended(self) -> None:
        self._relay._end(refusals.target_lost(), "target_lost")
