"""The waiting: nothing goes before it may, nobody waits for ever, and who leaves takes the operation back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.connection import Connection
from broker.drive import Driver
from broker.tasks import Tasks
from broker.threads import WorkerPool
from chalicelib.domain.ask import Ask
from chalicelib.domain.errors import Limited, RecordingUnavailable
from chalicelib.domain.operation import Block, Forward, Operation
from tests.fakes.broker import InlinePool, WaitingPool, World, operation
from tests.unit.broker.connection.test_live import frames

DELETE = "DELETE FROM orders"


class Client:
    """A waiting client that leaves when the test says so."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.notified = asyncio.Event()
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def notify(self, text: str) -> None:
        self.told.append(text)
        self.notified.set()

    async def withdrawn(self) -> str:
        return await asyncio.shield(self._gone)

    def leave(self, why: str) -> None:
        self._gone.set_result(why)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine test; 20 s is a bound for a machine that hangs, never a wait."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


class Scene:
    """A connection, a driver over an inline pool, and what the poller's thread would do."""

    def __init__(self, *, pool: Any = None, within_s: float = 10.0) -> None:
        self.world = World()
        self.connection: Connection = self.world.connect()
        self.tasks = Tasks()
        self.driver = Driver(
            pool=pool or InlinePool(), tasks=self.tasks, durable_within_s=within_s, paced_within_s=within_s
        )
        self.client = Client()

    def decide(self, op: Operation) -> asyncio.Task[Forward | Block]:
        return self.tasks.start("decide", self.driver.decide(self.connection, op, self.client, in_transaction=False))

    async def held(self, op: Operation | None = None) -> tuple[asyncio.Task[Forward | Block], Ask]:
        deciding = self.decide(op or operation("sql:write", DELETE))
        await self.client.notified.wait()
        (ask,) = self.world.stores.asks.rows.values()
        return deciding, ask

    def slow_bucket(self) -> WaitingPool:
        slow = WaitingPool()
        self.connection.recording._pool = slow
        return slow

    def uses(self, ask: Ask) -> list[str]:
        return [use.kind.value for use in self.world.stores.uses.of_ask(ask.id)]


def code(verdict: Forward | Block) -> str:
    assert isinstance(verdict, Block), verdict
    return verdict.code


def test_an_ordinary_operation_does_not_wait_for_the_bucket() -> None:
    """Accepted is enough: 40 ms a statement would be the price otherwise."""

    async def test() -> None:
        scene = Scene()
        scene.slow_bucket()
        assert isinstance(await scene.decide(operation()), Forward)

    run(test)


def test_a_durable_operation_is_forwarded_only_when_acknowledged() -> None:
    """The order: record durable, then forward."""

    async def test() -> None:
        scene = Scene()
        slow = scene.slow_bucket()
        deciding = scene.decide(operation("sql:define", "CREATE TABLE t()"))
        while not slow.waiting:
            await asyncio.sleep(0)
        assert not deciding.done()
        slow.run_all()
        assert isinstance(await deciding, Forward)
        assert scene.connection.durable_upto == scene.connection.accepted

    run(test)


def test_a_bucket_that_never_answers_blocks_a_durable_operation() -> None:
    """Bounded: the client gets a refusal that it can repeat."""

    async def test() -> None:
        scene = Scene(within_s=0.01)
        slow = scene.slow_bucket()
        assert code(await scene.decide(operation("sql:define"))) == "recording_unavailable"
        scene.connection.flush()
        slow.run_all()
        last = frames(scene.world, scene.connection)[-1]
        assert (last["kind"], last["meta"]["status"]) == ("outcome", "refused")

    run(test)


def test_a_recording_that_fails_while_somebody_waits_wakes_them() -> None:
    """Fenced while waiting: the refusal comes at once, not after the bound."""

    async def test() -> None:
        scene = Scene()
        slow = scene.slow_bucket()
        deciding = scene.decide(operation("sql:define"))
        while not slow.waiting:
            await asyncio.sleep(0)
        key = scene.world.stores.objects.keys("rec/")[0].replace("000000", "000001")
        scene.world.stores.objects.put_new(key, b"tombstone", content_type="x")
        slow.run_all()
        assert code(await deciding) == "recording_unavailable"

    run(test)


def test_pacing_waits_until_the_record_caught_up() -> None:
    """8 MiB or 2 s ahead: both sides stop being read."""

    async def test() -> None:
        scene = Scene()
        slow = scene.slow_bucket()
        await scene.driver.paced(scene.connection)
        scene.connection.submit(operation(), in_transaction=False)
        scene.world.clock.advance(2.1)
        pacing = scene.tasks.start("pace", scene.driver.paced(scene.connection))
        while not slow.waiting:
            await asyncio.sleep(0)
        assert not pacing.done()
        slow.run_all()
        await pacing

    run(test)


def test_pacing_is_bounded() -> None:
    """A bucket that is gone must not freeze a connection for ever."""

    async def test() -> None:
        scene = Scene(within_s=0.01)
        scene.slow_bucket()
        scene.connection.submit(operation(), in_transaction=False)
        scene.world.clock.advance(2.1)
        with pytest.raises(RecordingUnavailable):
            await scene.driver.paced(scene.connection)

    run(test)


def test_a_held_operation_waits_for_a_person_and_then_goes() -> None:
    """P4, as a client sees it: a notice, a wait, and the statement runs."""

    async def test() -> None:
        scene = Scene()
        deciding, ask = await scene.held()
        assert "waiting for approval by 1 of dba" in scene.client.told[0]
        scene.world.poller.step()
        await asyncio.sleep(0)
        assert not deciding.done()
        scene.world.answer(ask, "dora")
        scene.world.poller.step()
        assert isinstance(await deciding, Forward)
        assert scene.uses(ask) == ["ran"]

    run(test)


def test_a_client_that_cancels_withdraws() -> None:
    """Cancel, disconnect, drain: the approval that comes later is worth nothing."""

    async def test() -> None:
        scene = Scene()
        deciding, ask = await scene.held()
        scene.client.leave("the client cancelled")
        assert code(await deciding) == "approval_withdrawn"
        assert scene.uses(ask) == ["withdrawn"]

    run(test)


def test_a_revocation_while_held_ends_the_wait() -> None:
    """Revoke withdraws: nobody waits ten minutes for a session that is dead."""

    async def test() -> None:
        scene = Scene()
        deciding, ask = await scene.held()
        scene.world.revoke(f"session:{scene.world.session.id}")
        scene.world.liveness.step()
        assert code(await deciding) == "grant_revoked"
        assert scene.uses(ask) == ["withdrawn"]

    run(test)


def test_an_expired_ask_ends_the_wait() -> None:
    """The wait is bounded by the ask itself."""

    async def test() -> None:
        scene = Scene()
        deciding, _ = await scene.held()
        scene.world.clock.advance(301)
        scene.world.liveness.step()
        scene.world.poller.step()
        assert code(await deciding) == "approval_expired"

    run(test)


def test_a_cancelled_wait_withdraws() -> None:
    """The engine's task dies with its connection: the ask must not outlive it."""

    async def test() -> None:
        scene = Scene()
        deciding, ask = await scene.held()
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        await scene.tasks.drained()
        assert scene.uses(ask) == ["withdrawn"]

    run(test)


def test_a_settlement_whose_client_left_is_told_as_not_sent() -> None:
    """The use is spent and nothing was sent: the outcome says refused, and is not left unknown."""

    async def test() -> None:
        pool = WaitingPool()
        scene = Scene(pool=pool)
        op = operation("sql:write", DELETE)
        deciding = scene.decide(op)
        while not pool.waiting:
            await asyncio.sleep(0)
        pool.run()
        await scene.client.notified.wait()
        (ask,) = scene.world.stores.asks.rows.values()
        scene.world.answer(ask, "dora")
        scene.world.poller.step()
        while not pool.waiting:
            await asyncio.sleep(0)
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        pool.run()
        await scene.tasks.drained()
        assert scene.uses(ask) == ["ran"]
        last = frames(scene.world, scene.connection)[-1]
        assert (last["kind"], last["meta"]["op"], last["meta"]["status"]) == ("outcome", op.id, "refused")

    run(test)


def test_a_blocked_operation_is_not_waited_for() -> None:
    """A refusal is memory only."""

    async def test() -> None:
        scene = Scene()
        assert code(await scene.decide(operation("sql:privilege"))) == "policy_denied"
        assert scene.client.told == []

    run(test)


def test_a_hold_that_cannot_be_opened_is_a_block() -> None:
    """Nobody is asked about what is not recorded; the client gets the code."""

    async def test() -> None:
        scene = Scene()
        scene.world.stores.fail("objects")
        assert code(await scene.decide(operation("sql:write", DELETE))) == "recording_unavailable"

    run(test)


def test_a_pool_that_is_full_refuses() -> None:
    """Bounded: work that has no room is refused, not queued without end."""

    class Full:
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            raise Limited("full")

    async def test() -> None:
        scene = Scene(pool=Full())
        with pytest.raises(Limited):
            await scene.driver.run(lambda: None)

    run(test)


def test_real_threads_carry_the_wake_ups() -> None:
    """The same with a real pool: callbacks come from other threads, and the loop still wakes."""

    async def test() -> None:
        pool = WorkerPool("test", threads=2, queue=8)
        scene = Scene(pool=pool)
        deciding, ask = await scene.held()
        scene.world.answer(ask, "dora")
        await scene.driver.run(scene.world.poller.step)
        assert isinstance(await deciding, Forward)
        pool.close()

    run(test)


def test_nothing_stays_subscribed_after_a_decision() -> None:
    """Every wait adds a listener: a thousand statements must not leave a thousand."""

    async def test() -> None:
        scene = Scene()
        for _ in range(3):
            await scene.decide(operation("sql:define"))
        assert scene.connection._listeners == []
        assert scene.connection.recording._listeners == []

    run(test)
