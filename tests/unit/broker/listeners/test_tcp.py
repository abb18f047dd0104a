"""The listener in front of an engine."""

from __future__ import annotations

import asyncio

import pytest

from broker.engines.accepted import Accepted
from broker.listeners.limits import Strangers
from broker.listeners.tcp import Listener, bind
from broker.tasks import Tasks


class Noting:
    """An engine that notes what it was given and ends at once."""

    def __init__(self) -> None:
        self.served = asyncio.Event()

    async def serve(self, accepted: Accepted) -> str:
        self.served.set()
        return "noted"

    async def drain(self) -> None:
        pass


@pytest.mark.parametrize("greeting", [b"SSH-2.0-Test\r\n", b""])
def test_a_server_that_speaks_first_greets_before_it_is_spoken_to(greeting: bytes) -> None:
    """An ssh client may wait for our version; and until it speaks, its engine spends nothing on it."""

    async def scene() -> None:
        tasks, engine = Tasks(), Noting()
        listener = Listener(bind("127.0.0.1", 0), engine, strangers=Strangers(), tasks=tasks, greeting=greeting)
        tasks.start("accept", listener.accept())
        reader, writer = await asyncio.open_connection(*listener.address)
        assert await asyncio.wait_for(reader.read(len(greeting)), 5) == greeting
        assert not engine.served.is_set()
        writer.write(b"x")
        await asyncio.wait_for(engine.served.wait(), 5)
        writer.close()
        await tasks.cancel_all()

    asyncio.run(scene())
