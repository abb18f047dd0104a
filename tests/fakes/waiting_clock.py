"""A FakeClock that can be slept on: sleeping moves it, and takes no time."""

from __future__ import annotations

from tests.fakes.clock import FakeClock


class WaitingClock(FakeClock):
    """Keeps the contract of ``countersign.api.Clock``."""

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)
