"""Waiting for something that another process does: looked for again and again, for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from chalicelib.domain.clock import Clock

LOOK_S: Final = 0.1

_Found = TypeVar("_Found")


class DemoBroken(Exception):
    """The story cannot go on; the text says what was waited for."""


def wait_for(what: str, look: Callable[[], _Found | None], clock: Clock, within_s: float) -> _Found:
    """Return the first thing that ``look`` finds. Raises DemoBroken, naming ``what``, after ``within_s``."""
    pause = threading.Event()
    ends = clock.monotonic_s() + within_s
    while True:
        found = look()
        if found is not None:
            return found
        if clock.monotonic_s() > ends:
            raise DemoBroken(f"waited {within_s:.0f} s for {what}")
        pause.wait(LOOK_S)
