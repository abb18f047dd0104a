"""The first configuration is signed by whoever deploys; no later one is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.identity.jws import verify_activation
from dev.settings import DEMO_BUNDLE
from infra.deploy.configuration import SIGNED_WITH, Activated, activate_first, read_bundle
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemoryStores

CLOCK = FakeClock(datetime(2026, 11, 23, 12, 0, tzinfo=UTC))


def activate(stores: MemoryStores, files: dict[str, bytes]) -> Activated:
    signer = stores.signer(SIGNED_WITH.value)
    return activate_first(files, stores.activations, stores.objects, signer, author="a test", clock=CLOCK)


def test_the_first_is_signed_and_a_second_run_puts_nothing() -> None:
    """A deployment that is run again must not activate what somebody else's approval has replaced."""
    stores, files = MemoryStores(), read_bundle(DEMO_BUNDLE)
    assert activate(stores, files) is Activated.FIRST
    first = stores.activations.latest()
    verify_activation(first, stores.keys)
    assert first.serial == 1
    assert activate(stores, files) is Activated.SAME
    assert stores.activations.latest() == first


def test_another_configuration_is_not_made_active_by_deploying() -> None:
    """Whoever may deploy would approve their own change to who approves."""
    stores, files = MemoryStores(), read_bundle(DEMO_BUNDLE)
    activate(stores, files)
    before = stores.activations.latest()
    assert (
        activate(stores, files | {"policies/9-mine.cedar": b"permit (principal, action, resource);"}) is Activated.OTHER
    )
    assert stores.activations.latest() == before


def test_a_bundle_that_does_not_load_stops_before_anything_is_made(tmp_path: Path) -> None:
    """A control plane whose configuration is broken refuses everybody."""
    (tmp_path / "targets.yaml").write_text("targets: [")
    with pytest.raises(ConfigurationInvalid):
        read_bundle(tmp_path)
