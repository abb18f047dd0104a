"""Time is an argument: who needs a clock takes one of these, and only composition roots make a real one."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Gives the time. Implementations: ``chalicelib.settings.SystemClock``, ``tests.fakes.clock.FakeClock``."""

    def now(self) -> datetime:
        """Return aware UTC time."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for durations only."""
        ...
