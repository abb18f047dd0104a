"""What recordings cost in S3, by session length and rate: ``python -m bench.recording_costs`` prints the table of
``docs/recording.md``.

The objects are counted, not estimated: the recorder itself runs over a clock that is moved, each statement at an even
pace with a result of ten rows, recorded whole. Prices are S3 Standard's in us-east-1, per month for what is stored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from broker.connection import Connection
from tests.fakes.broker import World, operation

PUT: Final = 0.005 / 1000  # dollars a request
HEAD: Final = 0.0004 / 1000
GB_MONTH: Final = 0.023
SESSIONS: Final = 1000
LENGTHS: Final = {"1 minute": 60, "10 minutes": 600, "1 hour": 3600, "8 hours": 28_800}
# Seconds between two statements.
PACES: Final = {"one a minute": 60.0, "one in 10 s": 10.0, "one a second": 1.0, "ten a second": 0.1}
STEP_S: Final = 0.25


def recorded(length_s: int, pace_s: float) -> tuple[int, int]:
    """Return how many objects one session of one connection makes, and their bytes."""
    world, chance = World(), random.Random(7)
    connection = world.connect()
    verdict = connection.preview(operation())
    elapsed = since_step = 0.0
    while elapsed + pace_s <= length_s:
        _statement(connection, chance, verdict)
        for step_s in _steps(pace_s):
            world.clock.advance(step_s)
            since_step += step_s
            if since_step >= STEP_S:
                connection.recording.step()
                since_step = 0.0
        elapsed += pace_s
    connection.close("client_left")
    return len(world.stores.objects.rows), sum(len(body) for body in world.stores.objects.rows.values())


def _steps(pace_s: float) -> Iterator[float]:
    """Give the time between two statements in steps as the recorder's thread takes them; of a long pause, the part in
    which there is something to do."""
    if pace_s <= STEP_S:
        yield pace_s
        return
    busy = min(pace_s, 2.0)
    yield from (STEP_S for _ in range(int(busy / STEP_S)))
    yield pace_s - int(busy / STEP_S) * STEP_S


def _statement(connection: Connection, chance: random.Random, verdict: object) -> None:
    number = chance.randrange(10**6)
    op = operation(
        "sql:read", f"TABLE orders_of_customer_{number} ORDER BY created_at DESC, id, status, total LIMIT 10"
    )
    connection._record_operation(op, verdict)  # type: ignore[arg-type]
    lines = [f'["{chance.randrange(10**6)}","paid","{chance.random():.2f}","customer {number}"]' for _ in range(10)]
    connection.rows(op.id, ("id", "status", "total", "customer"), lines)
    connection.outcome(op.id, status="ok", tag="SELECT 10", rows=10, bytes=400, duration_ms=3)


def table() -> str:
    """Return the table as Markdown: objects of 1,000 sessions, and dollars for requests and for a month of storage."""
    lines = [f"| statements | {' | '.join(LENGTHS)} |", "|---" * (len(LENGTHS) + 1) + "|"]
    for name, pace_s in PACES.items():
        cells = []
        for length_s in LENGTHS.values():
            objects, size = recorded(length_s, pace_s)
            requests = SESSIONS * objects * (PUT + HEAD)
            stored = SESSIONS * size / 1e9 * GB_MONTH
            cells.append(f"{SESSIONS * objects:,}: ${requests:,.2f} + ${stored:,.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())  # noqa: T201 its output is the table
