"""A process whose clock is off gets no answer from any AWS store, whatever it asks (security.md, "Clock")."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identifiers import new_txn
from chalicelib.settings import SystemClock
from chalicelib.store.opened import Stores, open_stores
from tests.conformance.backends import Backend, new_settings
from tests.fakes.clock import START, FakeClock

CALLS: tuple[Callable[[Stores], object], ...] = (
    lambda stores: stores.chains.hops(new_txn(START)),
    lambda stores: stores.revocations.epoch(),
    lambda stores: stores.objects.get("nothing"),
    lambda stores: stores.secrets.get("nothing"),
    lambda stores: stores.keys.public_keys("token"),
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("off_s", [60, -60])
def test_no_store_answers_a_process_whose_clock_is_off(
    backend: Backend, call: Callable[[Stores], object], off_s: int
) -> None:
    """Tables, bucket, secrets and keys alike: each answer is dated, and one that is not of now counts for nothing."""
    if backend.name == "memory":
        pytest.skip("memory is in this process: there is no other clock to differ from")
    clock = FakeClock(start=SystemClock().now() + timedelta(seconds=off_s))
    with pytest.raises(StoreUnavailable, match="clock"):
        call(open_stores(new_settings(), clock=clock))
