"""The clock of this process against AWS's: every answer carries a ``Date``, and past ``MAX_SKEW_S`` nothing counts.

Every expiry, replay window and signature time is judged by our clock; one that is off makes each of them mean nothing
(security.md, "Clock"). So an answer from a service whose time differs is no answer: StoreUnavailable, in both planes,
for everything, until the clock is right. Source: RFC 9110 section 6.6.1 (``Date``, whole seconds).
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any, Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import StoreUnavailable

MAX_SKEW_S: Final = 30.0  # as security.md has it: an answer's own delay is seconds, and a token's life is minutes


class ServiceDates:
    """Compares the date of each answer with ``clock``. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def watch(self, client: Any) -> None:
        """Look at every answer that ``client`` (botocore's) gets from now on. Idempotent."""
        client.meta.events.register("after-call", self._answered, unique_id="countersign-service-dates")

    def _answered(self, http_response: Any = None, **_event: Any) -> None:
        header = http_response.headers.get("Date") if http_response is not None else None
        if header:
            self.check(header)

    def check(self, header: str) -> None:
        """Raise StoreUnavailable where ``header`` is more than ``MAX_SKEW_S`` from our time, or is no date."""
        try:
            off_s = (self._clock.now() - parsedate_to_datetime(header)).total_seconds()
        except (TypeError, ValueError) as error:
            raise StoreUnavailable("a service answered with a date that is none", error=type(error).__name__) from None
        if abs(off_s) > MAX_SKEW_S:
            raise StoreUnavailable("this service's clock is not right", off_s=round(off_s))
