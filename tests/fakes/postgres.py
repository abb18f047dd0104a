"""A PostgreSQL target that follows a script: whatever it receives, it answers with the script's next line.

Example::

    async with scripted([b"N"]) as port:
        ...  # who dials ``port`` and asks for TLS hears N
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence


@contextlib.asynccontextmanager
async def scripted(answers: Sequence[bytes]) -> AsyncIterator[int]:
    """Listen on loopback and give the port: each read of the client is answered with the next of ``answers``; after
    the last one (or an empty one) the connection is closed. Leaving waits until every client is gone."""
    gone: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.Event()
        gone.append(ended)
        with contextlib.suppress(OSError):
            for answer in answers:
                if not await reader.read(65536) or not answer:
                    break
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read(65536)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for ended in gone:
            await ended.wait()
