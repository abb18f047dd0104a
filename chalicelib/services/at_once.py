"""Reads of a store side by side: a review of a month reads tens of thousands of rows, and each is a round trip.

Rules: bounded, in the order asked for, and the first refusal ends all of it. With one reader nothing is started. Only
for what may run in any order, and again: all of them may have run where one fails. Reads, and ``retain``'s locks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

A = TypeVar("A")
B = TypeVar("B")

READERS: Final = 16  # as many as the stores' clients have connections (``store.tables.POOL``)


def at_once(read: Callable[[A], B], asked: Sequence[A], readers: int) -> list[B]:
    """Return what ``read`` returns for each of ``asked``, in order. Raises what the first of them raises."""
    if readers <= 1 or len(asked) <= 1:
        return [read(one) for one in asked]
    with ThreadPoolExecutor(max_workers=min(readers, len(asked)), thread_name_prefix="read") as pool:
        return list(pool.map(read, asked))
