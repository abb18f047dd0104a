"""The active bundle as memory: never a lower serial, never older than somebody can vouch for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.configuration import STALE_S, ActiveConfiguration
from chalicelib.domain.errors import ConfigurationInvalid, StoreUnavailable
from tests.fakes.broker import World


def test_before_it_is_read_there_is_none() -> None:
    """A broker that has no rules refuses; it does not allow."""
    world = World()
    with pytest.raises(StoreUnavailable):
        ActiveConfiguration(bundles=world.bundles, clock=world.clock).current()


def test_a_step_takes_the_newer_bundle_and_current_never_reads() -> None:
    """current() runs on the event loop: what it returns was read by the thread."""
    world = World()
    world.activate(read=False)
    assert world.configuration.current().serial == 3
    world.configuration.step()
    assert world.configuration.current().serial == 4


def test_a_lower_serial_is_refused() -> None:
    """Both planes refuse a lower serial, though it is signed and was active once; the newer one cures it."""
    world = World()
    world.bundles.bundle = replace(world.bundle, serial=2)
    world.configuration.step()
    with pytest.raises(ConfigurationInvalid):
        world.configuration.current()
    world.bundles.bundle = replace(world.bundle, serial=4)
    world.configuration.step()
    assert world.configuration.current().serial == 4


def test_what_the_bundles_refuse_is_refused() -> None:
    """The grace for a broken newer bundle is theirs to count; past it operations stop."""
    world = World()
    world.bundles.error = ConfigurationInvalid("broken for ten minutes")
    world.configuration.step()
    with pytest.raises(ConfigurationInvalid):
        world.configuration.current()
    world.bundles.error = None
    world.configuration.step()
    world.configuration.current()


def test_a_thread_that_hangs_is_noticed_by_the_clock() -> None:
    """A thread cannot report its own death: what was not read for 30 s is not known."""
    world = World()
    world.clock.advance(STALE_S + 1)
    with pytest.raises(StoreUnavailable):
        world.configuration.current()
