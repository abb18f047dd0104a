"""Threads: they survive what they run, end when told, and never queue without end."""

from __future__ import annotations

import logging
import threading

import pytest

from broker.threads import Periodic, WorkerPool
from chalicelib.domain.errors import Limited


def test_a_step_that_raises_is_logged_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    """The revocation feed must be read again after a hiccup."""
    calls: list[int] = []
    twice = threading.Event()

    def step() -> None:
        calls.append(1)
        if len(calls) > 1:
            twice.set()
        raise ValueError("a hiccup")

    periodic = Periodic("feed", step, every_s=0.001)
    with caplog.at_level(logging.ERROR):
        periodic.start()
        assert twice.wait(10)
        periodic.stop()
    assert "a hiccup" in caplog.text
    count = len(calls)
    periodic.stop()
    assert len(calls) == count


def test_a_full_pool_refuses_and_takes_again_when_there_is_room() -> None:
    """A slow store must not become our memory."""
    pool = WorkerPool("work", threads=1, queue=2)
    go = threading.Event()
    first, second = pool.submit(go.wait, 10), pool.submit(go.wait, 10)
    with pytest.raises(Limited):
        pool.submit(go.wait, 10)
    go.set()
    assert first.result(10)
    assert second.result(10)
    assert pool.submit(lambda: "again").result(10) == "again"
    pool.close()


def test_a_closed_pool_refuses() -> None:
    """Stopping is a refusal with a code, not an exception of a library."""
    pool = WorkerPool("work", threads=1, queue=2)
    pool.close()
    for _ in range(3):  # the room that each try took is given back
        with pytest.raises(Limited):
            pool.submit(lambda: None)
