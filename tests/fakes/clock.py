"""A clock that moves only when a test moves it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)  # a working Monday: nothing in a test hangs on which


class FakeClock:
    """Keeps the contract of ``chalicelib.domain.clock.Clock``: aware UTC, and seconds that never go back."""

    def __init__(self, start: datetime = START) -> None:
        self._lock = threading.Lock()
        self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        with self._lock:
            return self._now

    def monotonic_s(self) -> float:
        with self._lock:
            return self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Move both times forward. A negative step is a bug of the test."""
        if seconds < 0:
            raise ValueError("time does not go back")
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._elapsed_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator, NTP or a hypervisor does; seconds go on as they were."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
