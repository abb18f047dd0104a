"""Tasks: kept while they run, and their failures told by name."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from broker.tasks import Tasks
from chalicelib.domain.errors import Denied


def test_a_task_that_nobody_keeps_runs_to_its_end() -> None:
    """The loop holds tasks weakly: one that is waiting could be collected in the middle."""

    async def test() -> list[str]:
        tasks, done = Tasks(), list[str]()
        gate = asyncio.Event()

        async def work() -> None:
            await gate.wait()
            done.append("done")

        tasks.start("work", work())
        await asyncio.sleep(0)
        gc.collect()
        gate.set()
        await tasks.drained()
        assert len(tasks) == 0
        return done

    assert asyncio.run(test()) == ["done"]


def test_a_failure_is_logged_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody awaits must not vanish."""

    async def broken() -> None:
        raise ValueError("a bug")

    async def test() -> None:
        tasks = Tasks()
        tasks.start("relay", broken())
        await tasks.drained()

    with caplog.at_level(logging.ERROR):
        asyncio.run(test())
    assert "the task relay failed" in caplog.text


def test_a_refusal_leaves_no_stack_trace(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever holds a stolen secret could else write pages of it into the log, one for each try."""

    async def refused() -> None:
        raise Denied("the session is used from another address")

    async def test() -> None:
        tasks = Tasks()
        tasks.start("postgres-open", refused())
        await tasks.drained()

    with caplog.at_level(logging.INFO):
        asyncio.run(test())
    assert "the task postgres-open was refused" in caplog.text
    assert "Traceback" not in caplog.text


def test_cancel_all_waits_for_every_end() -> None:
    """Draining must not leave a task behind that writes after the loop's end."""

    async def test() -> list[str]:
        tasks, ended = Tasks(), list[str]()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("cleaned")

        for _ in range(3):
            tasks.start("work", work())
        await asyncio.sleep(0)
        await tasks.cancel_all()
        return ended

    assert asyncio.run(test()) == ["cleaned"] * 3
