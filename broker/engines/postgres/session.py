"""The engine: one client from its first byte to the sealed record.

The order of events (architecture): what was presented is verified, then the session is admitted and the connection
opened (both in the driver's pool), then the target is dialled with the minted credential, then the client is told that
it is in, and only then bytes are relayed. A refusal before that is FATAL in the client's protocol; for who the client
is there is one text, whatever the cause. However it ends, the connection is closed and sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Generic, Protocol, TypeVar

from broker.engines.accepted import Accepted, ServerTls, connected
from broker.engines.channel import Channel, ChannelClosed, ReceiveBuffer
from broker.engines.flow import Connection, Door, Driver
from broker.engines.opening import Opening
from broker.engines.postgres import refusals, upstream
from broker.engines.postgres.cancels import Cancels
from broker.engines.postgres.frontend import Frontend
from broker.engines.postgres.relay import Relay
from broker.engines.postgres.running import Language
from broker.engines.postgres.upstream import Upstream
from broker.tasks import Tasks
from broker.wire.postgres import fields, messages, startup
from broker.wire.postgres.scram import ProofRefused
from broker.wire.violation import RemoteViolation
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, Denied

C = TypeVar("C", bound=Connection)
C_contra = TypeVar("C_contra", bound=Connection, contravariant=True)
TICK_S: Final = 1.0  # revocation ends live sessions in seconds; liveness itself is read once a second

_log = logging.getLogger(__name__)


class Languages(Protocol[C_contra]):
    """Makes the language of a connection, which may ask the target for its catalogue first."""

    async def of(self, connection: C_contra, target: Upstream) -> Language:
        """Raises AccessError."""
        ...


class PostgresEngine(Generic[C]):
    """Serves PostgreSQL clients. Belongs to one loop."""

    def __init__(
        self,
        *,
        door: Door[C],
        driver: Driver[C],
        languages: Languages[C],
        tls: ServerTls,
        clock: Clock,
    ) -> None:
        self._door = door
        self._driver = driver
        self._languages = languages
        self._tls = tls
        self._clock = clock
        self._buffer = ReceiveBuffer()
        self._cancels = Cancels()
        self._tasks = Tasks()
        self._opening = Opening(door=door, driver=driver, tasks=self._tasks)
        self._relays: set[Relay[C]] = set()
        self._draining = False

    async def serve(self, accepted: Accepted) -> str:
        """Serve one accepted transport; see ``accepted.Engine``."""
        channel = Channel(self._buffer)
        try:
            return await self._serve(channel, accepted)
        except TimeoutError:
            return "too slow"
        except (ChannelClosed, OSError) as gone:
            return f"client gone: {type(gone).__name__}"
        finally:
            channel.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await channel.wait_closed()
            channel.abort()

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

    async def _serve(self, channel: Channel, accepted: Accepted) -> str:
        frontend = Frontend(channel, tls=self._tls, direct_tls=accepted.direct_tls, loopback=accepted.loopback)
        try:
            async with asyncio.timeout_at(accepted.deadline):
                await connected(channel, accepted, self._tls)
                asked = await frontend.greet()
                match asked:
                    case startup.CancelWanted():
                        found = self._cancels.request(asked.process, asked.secret)
                        return "cancel" if found else "cancel for nobody"
                    case startup.StartupRefused():
                        channel.write(fields.error("FATAL", asked.sqlstate, asked.message, hint=asked.hint))
                        return f"refused: {asked.message}"
                    case _:
                        pass
                verifier = await self._driver.run(self._door.verifier, asked.user)
                await frontend.authenticate(verifier)
        except RemoteViolation as violation:
            channel.write(fields.error("FATAL", "08P01", violation.what))
            return f"violation: {violation.what}"
        except ProofRefused:
            channel.write(refusals.wrong_secret())
            return "wrong secret"
        except AccessError as error:
            channel.write(refusals.before_relay(error, ""))
            return error.code
        accepted.authenticated()
        serving = self._tasks.start("postgres", self._admitted(channel, asked, accepted.peer))
        try:
            return await asyncio.shield(serving)
        except asyncio.CancelledError:
            serving.cancel()
            raise

    async def _admitted(self, channel: Channel, asked: startup.StartupWanted, peer: str) -> str:
        connection: C | None = None
        exit_reason = "internal"
        try:
            connection = await self._opening.open(asked.user, peer)
            exit_reason = await self._relayed(channel, connection, asked)
        except AccessError as error:
            _log.info("refused", extra={"code": error.code, "session": asked.user, "peer": peer, "why": error.detail})
            channel.write(refusals.before_relay(error, asked.user))
            exit_reason = error.code
        except asyncio.CancelledError:
            exit_reason = "cancelled"
            raise
        except (RemoteViolation, ChannelClosed, OSError) as gone:
            exit_reason = "client_lost"
            _log.info("client lost", extra={"session": asked.user, "why": type(gone).__name__})
        except Exception:  # noqa: BLE001 fails closed: the connection ends, is sealed, and the log has it
            _log.exception("the engine failed", extra={"session": asked.user})
            channel.write(refusals.internal())
        finally:
            if connection is not None:
                await self._opening.seal(connection, exit_reason)
        return exit_reason

    async def _relayed(self, channel: Channel, connection: C, asked: startup.StartupWanted) -> str:
        target = connection.admission.target
        _check_database(asked, target.database)
        txn = connection.admission.session.txn
        credential = connection.credential
        dialled = await upstream.dial(
            target,
            login=credential.login,
            secret=credential.secret,
            parameters=upstream.target_parameters(target, txn, asked.parameters),
            buffer=self._buffer,
            runs=self._driver,
        )
        try:
            language = await self._languages.of(connection, dialled)
            if not dialled.settled:
                raise RemoteViolation("the target sent more than it was asked for")
            if channel.closed:
                raise ChannelClosed("gone while the target was dialled")
            return await self._run(channel, connection, asked, dialled, language)
        finally:
            dialled.channel.abort()

    async def _run(
        self,
        channel: Channel,
        connection: C,
        asked: startup.StartupWanted,
        dialled: Upstream,
        language: Language,
    ) -> str:
        target = connection.admission.target

        def cancel_target() -> None:
            work = upstream.cancel(target, dialled.process, dialled.secret, self._buffer)
            self._tasks.start("postgres-cancel", work)

        relay = Relay(
            client=channel,
            target=dialled.channel,
            target_reader=dialled.reader,
            connection=connection,
            driver=self._driver,
            language=language,
            state=(
                ("database", target.database),
                ("login", connection.credential.login),
                ("search_path", upstream.search_path(target)),
            ),
            cancel_target=cancel_target,
            parameters=dialled.parameters,
            tasks=self._tasks,
            clock=self._clock,
        )
        process, secret = self._cancels.register(asked.version, relay.cancel)
        self._relays.add(relay)
        try:
            channel.write(_welcome(dialled, process, secret))
            if self._draining:
                relay.drain()
            return await relay.run()
        finally:
            self._relays.discard(relay)
            self._cancels.release(process)


def _check_database(asked: startup.StartupWanted, database: str) -> None:
    """A client that names no database gets the target's; libpq fills in the user name where none is given."""
    wanted = asked.parameters.get("database", "")
    if wanted not in ("", asked.user, database):
        raise Denied("the session is for another database", hint=f"Connect to {database}.")


def _welcome(dialled: Upstream, process: int, secret: bytes) -> bytes:
    told = [messages.encode_parameter_status(name, value) for name, value in dialled.parameters.items()]
    return b"".join(
        (
            messages.AUTHENTICATION_OK,
            *told,
            messages.encode_backend_key(process, secret),
            messages.encode_ready(b"I"),
        )
    )
