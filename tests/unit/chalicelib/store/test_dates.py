"""The clock against AWS's: security.md, "Clock"."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.store.dates import ServiceDates
from tests.fakes.clock import FakeClock


def header(clock: FakeClock, seconds: float) -> str:
    return format_datetime(clock.now() + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("off_s", [0, 29, -29])
def test_an_answer_of_about_our_time_counts(off_s: int) -> None:
    """An answer takes a moment, and its date is whole seconds: neither is a wrong clock."""
    clock = FakeClock(start=datetime(2026, 11, 23, 9, 0, tzinfo=UTC))
    ServiceDates(clock).check(header(clock, off_s))


@pytest.mark.parametrize("off_s", [31, -31, 86_400])
def test_a_clock_that_is_off_either_way_refuses(off_s: int) -> None:
    """An expiry that is compared with a wrong clock means nothing."""
    clock = FakeClock(start=datetime(2026, 11, 23, 9, 0, tzinfo=UTC))
    with pytest.raises(StoreUnavailable, match="clock"):
        ServiceDates(clock).check(header(clock, off_s))


@pytest.mark.parametrize("junk", ["yesterday", "Mon, 23 Nov 2026 09:00:00", "0"])
def test_a_date_that_is_none_refuses(junk: str) -> None:
    """Fail closed: a proxy that rewrites the header must not switch the check off."""
    with pytest.raises(StoreUnavailable):
        ServiceDates(FakeClock()).check(junk)
