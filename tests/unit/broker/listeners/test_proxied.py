"""The listener behind a balancer: whom it believes, and what it lets nobody say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import pytest

from broker.engines.accepted import Accepted
from broker.listeners.limits import Strangers
from broker.listeners.tcp import Listener, bind
from broker.tasks import Tasks
from broker.wire.proxy import LOCAL_HEADER, SIGNATURE
from tests.unit.broker.wire.test_proxy import header

SOON_S = 5.0


class Taking:
    """An engine that keeps what it was given, with its first byte, and holds it until it is told."""

    def __init__(self) -> None:
        self.given: list[Accepted] = []
        self.first: list[bytes] = []
        self.came = asyncio.Event()
        self.end = asyncio.Event()

    async def serve(self, accepted: Accepted) -> str:
        self.given.append(accepted)
        self.first.append(accepted.socket.recv(1))
        self.came.set()
        await self.end.wait()
        return "taken"

    async def drain(self) -> None:
        pass


Scene = Callable[[Listener, Taking], Awaitable[None]]
_DIALLED: list[asyncio.StreamWriter] = []


async def dial(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect; the scene's end closes it."""
    reader, writer = await asyncio.open_connection(*listener.address)
    _DIALLED.append(writer)
    return reader, writer


def play(scene: Scene, *, proxied: bool = True, strangers: Strangers | None = None, greeting: bytes = b"") -> None:
    async def run() -> None:
        accepting, tasks, engine = Tasks(), Tasks(), Taking()
        listener = Listener(
            bind("127.0.0.1", 0),
            engine,
            strangers=Strangers() if strangers is None else strangers,
            tasks=tasks,
            proxied=proxied,
            greeting=greeting,
        )
        accepting.start("accept", listener.accept())
        try:
            await asyncio.wait_for(scene(listener, engine), 2 * SOON_S)
        finally:
            await accepting.cancel_all()
            await tasks.cancel_all()
            while _DIALLED:
                writer = _DIALLED.pop()
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    asyncio.run(run())


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what came before the end."""
    try:
        return await asyncio.wait_for(reader.read(), SOON_S)
    except ConnectionResetError:
        return b""


def test_the_engine_gets_the_clients_address_and_first_byte() -> None:
    """The address is in the record and binds the session; a byte too much would break the handshake."""

    async def scene(listener: Listener, engine: Taking) -> None:
        _, writer = await dial(listener)
        writer.write(header("203.0.113.7") + b"\x16\x03")
        await engine.came.wait()
        (given,) = engine.given
        assert (given.peer, given.direct_tls, engine.first) == ("203.0.113.7", True, [b"\x16"])

    play(scene)


def test_a_server_that_speaks_first_speaks_after_the_header() -> None:
    """Else whoever is no balancer gets an answer."""

    async def scene(listener: Listener, engine: Taking) -> None:
        reader, writer = await dial(listener)
        for piece in header("2001:db8::7"):
            writer.write(bytes((piece,)))
            await writer.drain()
        assert await asyncio.wait_for(reader.readline(), SOON_S) == b"SSH-2.0-x\r\n"
        writer.write(b"S")
        await engine.came.wait()
        assert engine.given[0].peer == "2001:db8::7"

    play(scene, greeting=b"SSH-2.0-x\r\n")


def test_a_client_that_comes_around_the_balancer_is_dropped() -> None:
    """It could not be told from one that gave itself an address; and it is not kept waiting."""

    async def scene(listener: Listener, engine: Taking) -> None:
        for said in (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"SSH-2.0-mine\r\n", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"):
            reader, writer = await dial(listener)
            writer.write(said)
            assert await ended(reader) == b""
        assert engine.given == []

    play(scene)


def test_nobody_gives_itself_an_address_where_no_balancer_stands() -> None:
    """The header is bytes of no protocol there: the engine gets them, under the address that the kernel saw."""

    async def scene(listener: Listener, engine: Taking) -> None:
        _, writer = await dial(listener)
        writer.write(header("203.0.113.7"))
        await engine.came.wait()
        assert (engine.given[0].peer, engine.first) == ("127.0.0.1", SIGNATURE[:1].splitlines(keepends=True))

    play(scene, proxied=False)


def test_a_header_that_says_loopback_does_not_make_it_so() -> None:
    """Plaintext is for clients of this machine alone, and no header can say that it is one."""

    async def scene(listener: Listener, engine: Taking) -> None:
        _, writer = await dial(listener)
        writer.write(header("127.0.0.1") + b"\x00")
        await engine.came.wait()
        assert (engine.given[0].peer, engine.given[0].loopback) == ("127.0.0.1", False)

    play(scene)


def test_a_health_check_ends_without_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Six a minute from each zone, on each port: the log would say little else."""

    async def scene(listener: Listener, engine: Taking) -> None:
        reader, writer = await dial(listener)
        writer.write(LOCAL_HEADER)
        assert await ended(reader) == b""
        await listener.emptied()
        assert (engine.given, listener.live) == ([], 0)

    with caplog.at_level(logging.INFO):
        play(scene)
    assert [record.message for record in caplog.records if record.name.startswith("broker")] == []


def test_the_limits_are_for_the_client_and_not_for_the_balancer() -> None:
    """All come from the balancer's address: one machine must not take the door of all, nor all have one share."""

    async def scene(listener: Listener, engine: Taking) -> None:
        for count, source in enumerate(("203.0.113.7", "203.0.113.8", "203.0.113.9"), start=1):
            _, writer = await dial(listener)
            writer.write(header(source) + b"x")
            while len(engine.given) < count:
                engine.came.clear()
                await engine.came.wait()
        reader, writer = await dial(listener)
        writer.write(header("203.0.113.7") + b"x")
        assert await ended(reader) == b""
        assert len(engine.given) == 3

    play(scene, strangers=Strangers(total=10, per_peer=1))


def test_live_counts_those_who_proved_who_they_are() -> None:
    """What a task is protected for, and scaled by: sessions, and no stranger."""

    async def scene(listener: Listener, engine: Taking) -> None:
        _, writer = await dial(listener)
        writer.write(header("203.0.113.7") + b"x")
        await engine.came.wait()
        assert listener.live == 0
        engine.given[0].authenticated()
        assert listener.live == 1
        engine.end.set()
        await listener.emptied()
        assert listener.live == 0

    play(scene)
