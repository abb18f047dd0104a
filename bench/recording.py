"""What recording costs: relay with it and without, CPU of one operation, and how fast a long recording is verified.

The relay is the one that is deployed (``recorded_relay``); *recorded* is the whole recorder (frames, events, gzip,
hashes, links, read-back, the window's pacing) over a bucket that takes 40 ms for each PUT. All of it shares this
machine's cores with the server and the clients: ratios, not rates.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from threading import Event
from typing import Any, Final, cast

from bench.harness import Row, bounded, compare
from bench.recorded_relay import CLIENTS, PUT_S, Relay, recording_world
from broker.recorder.window import WINDOW_BYTES
from chalicelib.domain.identifiers import new_operation_id
from chalicelib.domain.recording import MAX_TEXT, FrameKind
from chalicelib.services.recordings import read_recording
from chalicelib.settings import SystemClock
from tests.e2e.postgres_broker import running_postgres
from tests.fakes.aftermath import row
from tests.fakes.broker import World, operation

RELAY_RATIO: Final = 1.10
CPU_US: Final = 50.0
OPERATIONS: Final = 4000
# 8 MiB may be on their way, 40 ms each: no more than 200 MiB/s of one connection is recorded, whatever the relay does.
# Four fifths of that are asked of us; what is stored is what the window counts, before JSON's escapes.
BULK_MB: Final = 96.0
BULK_MS: Final = 1.25 * BULK_MB * 1e6 / WINDOW_BYTES * PUT_S * 1000
VERIFY_MB: Final = 256
VERIFY_S: Final = 1000 / 200  # 1 GB at 200 MB/s

ASKED: Final = "select id, note from customers where id = %d;\n"
SAME: Final = ASKED % 7 * 2000
DISTINCT: Final = "".join(ASKED % number for number in range(2000))
ROWS: Final = "select n, 'paid', n * 7, 'customer ' || n, now()::date from generate_series(1, 100000) n;"
LINES: Final = "copy (select n, 42, n * 7, chr(65) || n from generate_series(1, 100000) n) to stdout;"
BULK: Final = "copy (select repeat('a line of output ' || n || ' ', 680) from generate_series(1, 6000) n) to stdout;"

RELAYED: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("2,000 statements", [SAME]),
    ("2,000 different statements", [DISTINCT]),
    (f"{CLIENTS} clients with 2,000 each", [DISTINCT] * CLIENTS),
    ("a result of 100,000 rows", [ROWS]),
    ("a COPY of 100,000 short lines", [LINES]),
    ("a COPY of 96 MB", [BULK]),
)


def _row(relay: Relay, name: str, sqls: Sequence[str], how: str) -> Row:
    relay.ms(sqls, how), relay.ms(sqls, "off")  # once unmeasured: catalogue and caches
    goal = f"at most {RELAY_RATIO:g} x without a record"
    on, off = partial(relay.ms, sqls, how), partial(relay.ms, sqls, "off")
    return compare(f"{name}, recorded {how}", "ms", on, "not recorded", off, goal, RELAY_RATIO)


def _operation_us() -> tuple[float, float]:
    """Return the CPU of recording one operation and its outcome: until its frames are durable, and with its event."""
    with ExitStack() as stack:
        world = recording_world(stack)
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
        durable = time.process_time()
        cast("Any", world.audit).close()
        ended = time.process_time()
        return (durable - began) / OPERATIONS * 1e6, (ended - began) / OPERATIONS * 1e6


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
        relay = Relay(server, stack)
        relayed = [_row(relay, name, sqls, how) for name, sqls in RELAYED for how in ("whole", "less")]
    measured = [_operation_us() for _ in range(5)]
    frames_us, whole_us = (min(figures) for figures in zip(*measured, strict=True))
    bulk = next(row.value for row in relayed if row.name == "a COPY of 96 MB, recorded whole")
    return [
        *relayed,
        bounded(
            "96 MB recorded whole, however fast they came", "ms", bulk, "limit (four fifths of the window)", BULK_MS
        ),
        bounded("CPU of one operation's frames, durable", "us", frames_us, "limit", CPU_US),
        bounded("CPU of recording one operation, its event too", "us", whole_us, "limit", CPU_US),
        bounded("verifying 1 GB of recording", "s", min(_verify_s() for _ in range(3)), "limit (200 MB/s)", VERIFY_S),
    ]
