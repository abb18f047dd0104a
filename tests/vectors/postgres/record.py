"""Records real sessions between real clients and a real PostgreSQL 15, for the machines' tests to replay.

    python -m tests.vectors.postgres.record

Each file is a JSON list of [direction, hexadecimal bytes] as they crossed a plain relay: ``c`` from the client, ``s``
from the server. The server is a throw-away one; its password was random and is gone.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import asyncpg
import psycopg

from dev.postgres_binaries import find_postgres
from dev.postgres_server import PostgresServer
from dev.processes import free_port
from dev.settings import child_environment, server_account

HERE: Final = Path(__file__).parent
_PSQL: Final = """
select 1 as one, null as nothing, 'x' as text;
select 1/0;
select 2; select 3;
create temporary table t (a int, b text);
copy t from stdin;
1\tone
2\ttwo
\\.
copy t to stdout;
begin; insert into t values (3, 'three'); rollback;
do $$ begin raise notice 'hello'; end $$;
"""


class Tap:
    """A plain relay that keeps what crosses it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.crossed: list[list[str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(
            self._pump("c", reader, upstream_writer), self._pump("s", upstream_reader, writer), return_exceptions=True
        )

    async def _pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.crossed.append([direction, data.hex()])
            writer.write(data)
        writer.close()


async def _psql(server: PostgresServer, port: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(server.binaries.psql), "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-f", "-"),
        "sslmode=disable dbname=postgres",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment(server.binaries.environment() | {"PGPASSWORD": server.admin.password.expose()}),
    )
    await process.communicate(_PSQL.encode())


async def _psycopg(server: PostgresServer, port: int) -> None:
    def work() -> None:
        password = server.admin.password.expose()
        with psycopg.connect(
            f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable",
            password=password,
            autocommit=True,
            prepare_threshold=0,
        ) as connection:
            connection.execute("select %s::int, %s::text", (1, "a"))
            with connection.pipeline():
                first = connection.execute("select %s::int", (1,))
                second = connection.execute("select %s::int", (2,))
                assert (first.fetchone(), second.fetchone()) == ((1,), (2,))
            try:
                with connection.pipeline() as pipeline:
                    connection.execute("select 1/%s::int", (0,))
                    connection.execute("select %s::int", (3,))
                    pipeline.sync()
            except psycopg.errors.DivisionByZero:
                pass
            connection.execute("create temporary table t (a int)")
            with connection.cursor() as cursor, cursor.copy("copy t (a) from stdin") as copy:
                copy.write_row((1,))
            with connection.transaction(), connection.cursor("named") as cursor:
                cursor.execute("select g from generate_series(1, 10) g")
                cursor.fetchmany(3)

    await asyncio.to_thread(work)


async def _asyncpg(server: PostgresServer, port: int) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=port,
        user="postgres",
        database="postgres",
        password=server.admin.password.expose(),
        ssl=False,
    )
    await connection.fetch("select $1::int, $2::text", 1, "a")
    async with connection.transaction():
        async for _ in connection.cursor("select generate_series(1, 120)", prefetch=50):
            pass
    await connection.executemany("select $1::int", [(1,), (2,), (3,)])
    await connection.close()


async def record(server: PostgresServer, name: str, drive: Callable[[PostgresServer, int], Awaitable[None]]) -> None:
    tap = Tap(server.port)
    port = free_port()
    listening = await asyncio.start_server(tap.serve, "127.0.0.1", port)
    await drive(server, port)
    listening.close()
    lines = ",\n".join(json.dumps(piece) for piece in tap.crossed)
    (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(find_postgres(), log=Path(folder) / "postgres.log", account=server_account())
        try:
            await asyncio.to_thread(server.wait)
            await record(server, "psql", _psql)
            await record(server, "psycopg", _psycopg)
            await record(server, "asyncpg", _asyncpg)
        finally:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
