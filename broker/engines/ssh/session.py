"""The engine: one client from its first byte to the sealed record.

The order of events (architecture): the client proves who it is, then the session is admitted and the connection opened
(both in the driver's pool), then the target is dialled with the credential that was minted on a key made for this
connection, then the channels that the client asked for meanwhile are confirmed, and only then anything is relayed. A
refusal after the proof is read on the client's first channel; before it there is one answer for every stranger. However
it ends, the connection is closed and sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any, Final, Generic, TypeVar

import paramiko

from broker.engines.accepted import Accepted
from broker.engines.flow import Connection, Door, Driver
from broker.engines.opening import Opening
from broker.engines.ssh import refusals
from broker.engines.ssh.authentication import Authentication, Authorities, Proved
from broker.engines.ssh.exchanges import Turns
from broker.engines.ssh.keys import OwnKey, make_key
from broker.engines.ssh.masks import Configuration, StreamMasks
from broker.engines.ssh.relay import Relay
from broker.engines.ssh.target import dial
from broker.engines.ssh.transport import SshTransport
from broker.tasks import Tasks
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, Limited

C = TypeVar("C", bound=Connection)
TICK_S: Final = 1.0  # revocation ends live sessions in seconds; liveness itself is read once a second
MAX_CONNECTIONS: Final = (
    512  # two threads each; a task serves a few hundred sessions (issue 8's bound is 300 idle ones)
)
LEAVE_S: Final = 2.0  # for a transport's thread to end once it was cut

_log = logging.getLogger(__name__)


class SshEngine(Generic[C]):
    """Serves SSH clients. Belongs to one loop."""

    def __init__(
        self,
        *,
        door: Door[C],
        driver: Driver[C],
        configuration: Configuration,
        authorities: Authorities,
        host_key: paramiko.PKey,
        clock: Clock,
    ) -> None:
        """``authorities`` gives ``kid`` to public JWK of the key that signs user certificates; it may block."""
        self._door = door
        self._driver = driver
        self._masks = StreamMasks(configuration)
        self._authorities = authorities
        self._host_key = host_key
        self._clock = clock
        self._turns = Turns(clock)
        self._tasks = Tasks()
        self._opening = Opening(door=door, driver=driver, tasks=self._tasks)
        self._relays: set[Relay[C]] = set()
        self._draining = False

    async def serve(self, accepted: Accepted) -> str:
        """Serve one accepted transport, whose greeting was sent by its listener; see ``accepted.Engine``."""
        client = _Client(self._clock, self._turns)
        proving = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(accepted.deadline):
                transport = client.begin(accepted, self._host_key, self._authentication(proving))
                proved = await _first(proving, client.gone)
        except TimeoutError:
            client.cut()
            await client.left()
            return "too slow"
        except BaseException:
            client.cut()
            raise
        if proved is None:
            await client.left()
            return f"refused: {client.violation}" if client.violation else "refused or gone"
        accepted.authenticated()
        serving = self._tasks.start("ssh", self._admitted(client, transport, proved, accepted.peer))
        try:
            return await asyncio.shield(serving)
        except asyncio.CancelledError:
            serving.cancel()
            raise

    async def drain(self) -> None:
        """End every connection: the client is told, the record is sealed."""
        self._draining = True
        for relay in list(self._relays):
            relay.drain()
        await self._tasks.drained()

    async def tick(self) -> None:
        """Check every open connection once a second, for as long as the engine lives."""
        while True:
            await asyncio.sleep(TICK_S)
            for relay in list(self._relays):
                relay.tick()

    def _authentication(self, proving: asyncio.Future[Proved]) -> Authentication:
        loop = asyncio.get_running_loop()

        def proved(who: Proved) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, proving, who)

        return Authentication(
            verifier=self._door.verifier,
            authorities=self._authorities,
            runs=self._driver,
            clock=self._clock,
            loop=loop,
            on_proved=proved,
        )

    async def _admitted(self, client: _Client, transport: SshTransport, proved: Proved, peer: str) -> str:
        relay = Relay(client=transport, driver=self._driver, masks=self._masks, tasks=self._tasks, clock=self._clock)
        connection: C | None = None
        exit_reason = "internal"
        self._relays.add(relay)
        try:
            self._check_room()
            key = make_key()
            connection = await self._opening.open(proved.login, peer, bound=proved.bound, public_key=key.public)
            exit_reason = await self._relayed(relay, connection, key)
        except AccessError as error:
            _log.info("refused", extra={"code": error.code, "session": proved.login, "peer": peer, "why": error.detail})
            exit_reason = error.code
            if connection is not None:
                await self._opening.seal(connection, exit_reason)
            await relay.refuse(error)
        except asyncio.CancelledError:
            exit_reason = "cancelled"
            raise
        except Exception:  # noqa: BLE001 fails closed: the connection ends, is sealed, and the log has it
            _log.exception("the engine failed", extra={"session": proved.login})
            await relay.refuse(refusals.INTERNAL)
        finally:
            self._relays.discard(relay)
            client.cut()
            if connection is not None:
                await self._opening.seal(connection, exit_reason)
        await client.left()
        return exit_reason

    def _check_room(self) -> None:
        if len(self._relays) > MAX_CONNECTIONS:
            raise Limited("the broker has as many ssh connections open as it may")

    async def _relayed(self, relay: Relay[C], connection: C, key: OwnKey) -> str:
        target = await dial(connection.admission.target, credential=connection.credential, key=key, clock=self._clock)
        try:
            if self._draining:
                relay.drain()
            return await relay.run(connection, target)
        finally:
            target.cut()


class _Client:
    """The client's transport and its end."""

    def __init__(self, clock: Clock, turns: Turns) -> None:
        self._clock = clock
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._transport: SshTransport | None = None
        self.gone = asyncio.Event()

    def begin(self, accepted: Accepted, host_key: paramiko.PKey, authentication: Authentication) -> SshTransport:
        """Start the server's side."""
        transport = SshTransport(accepted.socket, clock=self._clock, on_ended=self._ended, turns=self._turns)
        self._transport = transport
        transport.greet()
        transport.add_server_key(host_key)
        authentication.shows_at(transport)
        transport.start_server(event=threading.Event(), server=authentication)
        return transport

    @property
    def violation(self) -> str:
        return "" if self._transport is None else self._transport.violation

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.cut()

    async def left(self) -> None:
        """Wait until the transport's thread is done with the socket, for a bounded time."""
        if self._transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self.gone.wait()

    def _ended(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.gone.set)


async def _first(proving: asyncio.Future[Proved], gone: asyncio.Event) -> Proved | None:
    """Return who it is, or None once the client is gone."""
    leaving = asyncio.ensure_future(gone.wait())
    either: set[asyncio.Future[Any]] = {proving, leaving}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return proving.result() if proving.done() else None
    finally:
        leaving.cancel()


def _resolve(proving: asyncio.Future[Proved], who: Proved) -> None:
    if not proving.done():
        proving.set_result(who)
