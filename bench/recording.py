"""What recording costs: relay with it and without, CPU of one operation, and how fast a long recording is verified.

The relay is the real listener and engine between psql and a real PostgreSQL; policy is faked, so that nothing but the
record differs. *Not recorded* tells nobody; *recorded* is the whole recorder (frames, events, gzip, hashes, links,
read-back, the window's pacing) over a bucket that takes 40 ms for each PUT. All of it shares this machine's cores with
the server and the client: ratios, not rates.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import Any, Final, cast

from bench.harness import Row, bounded, compare
from broker.connection import Connection
from broker.engines.postgres.languages import SqlLanguages
from broker.recorder import Recorder
from broker.threads import Periodic, WorkerPool
from chalicelib.config.bundle import Bundle
from chalicelib.domain.errors import AlreadyExists
from chalicelib.domain.identifiers import OperationId, new_operation_id
from chalicelib.domain.operation import Operation, Verdict
from chalicelib.domain.recording import MAX_TEXT, NOTHING_LEFT_OUT, FrameKind, LeftOut
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from chalicelib.services.recordings import read_recording
from chalicelib.settings import SystemClock
from dev.postgres_binaries import find_postgres
from dev.settings import child_environment
from tests.e2e.postgres_broker import BrokerThread, running_broker, running_postgres
from tests.fakes.aftermath import row
from tests.fakes.broker import World, operation
from tests.fakes.flow import FakeAdmission, FakeConnection, forward

PUT_S: Final = 0.04  # a PutObject of 256 KiB within one region
RELAY_RATIO: Final = 1.10
CPU_US: Final = 50.0
OPERATIONS: Final = 4000
VERIFY_MB: Final = 256
VERIFY_S: Final = 1000 / 200  # 1 GB at 200 MB/s

SMALL: Final = "select id, note from customers where id = 7;\n" * 2000
ROWS: Final = "select n, 'paid', n * 7, 'customer ' || n, now()::date from generate_series(1, 100000) n;"
LINES: Final = "copy (select n, 42, n * 7, chr(65) || n from generate_series(1, 100000) n) to stdout;"
BULK: Final = "copy (select repeat('a line of output ' || n || ' ', 680) from generate_series(1, 6000) n) to stdout;"


class SlowBucket:
    """Keeps what it was told of an object and not the object; 40 ms a PUT."""

    def __init__(self) -> None:
        self.facts_of: dict[str, ObjectFacts] = {}
        self._pause = Event()

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:  # noqa: ARG002
        self._pause.wait(PUT_S)
        if key in self.facts_of:
            raise AlreadyExists("taken")
        sha256 = hashlib.sha256(body).hexdigest()
        self.facts_of[key] = ObjectFacts(key=key, version_id=sha256[:8], size=len(body), sha256=sha256)
        return ObjectVersion(key=key, version_id=sha256[:8])

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:  # noqa: ARG002
        return self.facts_of[key]


class _NoMasks:
    def current(self) -> Bundle:
        return Bundle(digest="d", serial=1, targets={}, issuers=(), people=(), masks={}, policy=cast("Any", None))


class Off(FakeConnection):
    """Says what its flow says, and tells nobody."""

    def submit(self, op: Operation, *, in_transaction: bool) -> Verdict:
        return self.preview(op, in_transaction=in_transaction)

    def outcome(self, op_id: OperationId, **told: Any) -> None: ...
    def rows(self, op_id: OperationId, columns: Sequence[str], lines: Sequence[str]) -> None: ...
    def data(self, op_id: OperationId, direction: str, text: str, encoding: str = "utf-8", **told: str) -> None: ...
    def notice(self, severity: str, sqlstate: str, text: str) -> None: ...


class On(Off):
    """Tells a real connection's recording."""

    real: Connection

    @property
    def behind(self) -> bool:
        return self.real.behind

    @behind.setter
    def behind(self, said: bool) -> None:
        """The record says it."""

    def submit(self, op: Operation, *, in_transaction: bool) -> Verdict:
        verdict = self.preview(op, in_transaction=in_transaction)
        self.real._record_operation(op, verdict)
        return verdict

    def outcome(self, op_id: OperationId, *, left_out: LeftOut = NOTHING_LEFT_OUT, **told: Any) -> None:
        self.real.outcome(op_id, left_out=left_out, **told)

    def rows(self, op_id: OperationId, columns: Sequence[str], lines: Sequence[str]) -> None:
        self.real.rows(op_id, columns, lines)

    def data(self, op_id: OperationId, direction: str, text: str, encoding: str = "utf-8", **told: str) -> None:
        self.real.data(op_id, direction, text, encoding, **told)


def _recorder(world: World, objects: Any, stack: ExitStack) -> None:
    """Put a recorder with threads of its own into ``world``."""
    pool = WorkerPool("uploads", threads=16, queue=4096)
    stack.callback(pool.close)
    recorder = Recorder(
        objects=objects,
        connections=world.stores.connections,
        signer=world.stores.signer("record"),
        pool=pool,
        clock=SystemClock(),
        build="bench",
        sealed_by="broker:bench",
    )
    stepping = Periodic("recorder", recorder.step, every_s=0.25)
    stepping.start()
    stack.callback(stepping.stop)
    world.recorder = recorder
    world.gateway = world.new_gateway("boot_bench")


class Relay:
    """A broker whose next client is recorded, or not."""

    def __init__(self, broker: BrokerThread, stack: ExitStack) -> None:
        self._broker = broker
        self._world = World()
        _recorder(self._world, SlowBucket(), stack)
        broker.flow.paced = self._paced  # type: ignore[method-assign]

    async def _paced(self, connection: FakeConnection) -> None:
        while connection.behind:
            await asyncio.sleep(0.002)

    def ms(self, sql: str, *, on: bool, full: bool = False) -> float:
        """Return how long psql takes for ``sql``, with its start and its login. ``full``: results are recorded too."""
        flow = self._broker.flow
        made = (On if on else Off)(flow, FakeAdmission(flow.session, flow.target), cast("Any", flow.credential))
        if isinstance(made, On):
            made.real = self._world.connect()
        flow.verdicts = lambda _: forward(full=on and full)
        flow.open = lambda *_, **__: made  # type: ignore[method-assign]
        command = [str(find_postgres().psql), "-X", "-q", "-o", "/dev/null", self._broker.dsn()]
        environment = child_environment(find_postgres().environment())
        started = time.perf_counter()
        subprocess.run(command, input=sql, env=environment, text=True, check=True)
        took = time.perf_counter() - started
        if isinstance(made, On):
            made.real.close("client_left")
        return took * 1000

    def row(self, name: str, sql: str, *, full: bool) -> Row:
        self.ms(sql, on=True, full=full), self.ms(sql, on=False)  # once unmeasured: catalogue and caches
        goal = f"at most {RELAY_RATIO:g} x without a record"
        on, off = partial(self.ms, sql, on=True, full=full), partial(self.ms, sql, on=False)
        return compare(name, "ms", on, "not recorded", off, goal, RELAY_RATIO)


def _operation_us() -> float:
    """Return the CPU of recording one operation and its outcome: frames, event, its share of gzip."""
    world = World()
    with ExitStack() as stack:
        _recorder(world, SlowBucket(), stack)
        connection = world.connect()
        text = "SELECT id, status, total FROM orders WHERE id = "
        done = [operation("sql:read", text + str(number)) for number in range(OPERATIONS)]
        verdict = connection.preview(done[0])
        began = time.process_time()
        for op in done:
            connection._record_operation(op, verdict)
            connection.outcome(op.id, status="ok", tag="SELECT 1", rows=1, bytes=100, duration_ms=1)
        connection.flush()
        while connection.durable_upto < connection.accepted:
            Event().wait(0.01)
        return (time.process_time() - began) / OPERATIONS * 1e6


def _verify_s() -> float:
    """Return how long 1 GB of recorded rows takes to verify, from memory: a bucket's answers come on top of it."""
    world, chance = World(), random.Random(1)
    connection = world.connect()
    op = new_operation_id(SystemClock().now())
    line = [
        json.dumps([str(chance.randrange(10**9)), "paid", f"{chance.random():.4f}", "a customer"]) for _ in range(9999)
    ]
    texts = ["\n".join(chance.choices(line, k=MAX_TEXT // 48))[:MAX_TEXT] for _ in range(16)]
    for number in range(VERIFY_MB * 10**6 // MAX_TEXT):
        connection.recording.accept(FrameKind.ROWS, "s2c", texts[number % 16], (("op", op), ("columns", ["a", "b"])))
    connection.close("client_left")
    sealed, hops = row(world), world.stores.chains.hops(connection.admission.session.txn)
    started = time.perf_counter()
    read = read_recording(
        world.stores.objects, world.stores.keys, sealed, hops[sealed.target_hop].sha256(), texts=False
    )
    if not read.recording.verified:
        raise RuntimeError("the recording does not verify")
    return (time.perf_counter() - started) * 1000 / VERIFY_MB


def rows() -> list[Row]:
    """Return the rows of recording: what it costs a relay, in whole and of statements alone, what it costs an
    operation, and what reading it back takes."""
    with running_postgres() as server, ExitStack() as stack:
        languages = SqlLanguages(configuration=_NoMasks(), clock=SystemClock())
        relay = Relay(stack.enter_context(running_broker(server, languages=languages)), stack)
        relayed = [
            relay.row(f"{name}, recorded {how}", sql, full=how == "whole")
            for name, sql in (
                ("2,000 statements", SMALL),
                ("a result of 100,000 rows", ROWS),
                ("a COPY of 100,000 short lines", LINES),
                ("a COPY of 96 MB", BULK),
            )
            for how in ("whole", "less")
        ]
    cpu = min(_operation_us() for _ in range(3))
    return [
        *relayed,
        bounded("CPU of recording one operation", "us", cpu, "limit", CPU_US),
        bounded("verifying 1 GB of recording", "s", min(_verify_s() for _ in range(3)), "limit (200 MB/s)", VERIFY_S),
    ]
