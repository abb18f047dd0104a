"""How a broker leaves: what ends the wait for its sessions."""

from __future__ import annotations

import asyncio

import pytest

from broker.leaving import AGAIN, EMPTY, OVER, Told, left_alone


@pytest.mark.parametrize(
    ("leaves", "again", "within_s", "why"),
    [
        (True, False, 60.0, EMPTY),
        (False, True, 60.0, AGAIN),
        (False, False, 0.01, OVER),
    ],
)
def test_the_wait_ends_by_the_first_of_three(leaves: bool, again: bool, within_s: float, why: str) -> None:
    """A deployment waits no longer than somebody works, nor than it may; and an operator in a hurry says so twice."""

    async def scene() -> str:
        told, gone = Told(), asyncio.Event()
        told.tell()
        loop = asyncio.get_running_loop()
        if leaves:
            loop.call_soon(gone.set)
        if again:
            loop.call_soon(told.tell)

        async def emptied() -> None:
            await gone.wait()

        async with asyncio.timeout(10):
            return await left_alone(emptied(), within_s=within_s, told=told)

    assert asyncio.run(scene()) == why


def test_told_once_is_not_told_twice() -> None:
    """The first SIGTERM ends no session."""

    async def scene() -> tuple[bool, bool]:
        told = Told()
        told.tell()
        return told.leave.is_set(), told.at_once.is_set()

    assert asyncio.run(scene()) == (True, False)
