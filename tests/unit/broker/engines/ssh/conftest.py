"""A broker in front of a scripted target, and a client's certificate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.ssh_broker import Identity, SshBroker, running_ssh_broker
from tests.fakes.ssh_target import FakeSshTarget


@pytest.fixture
def target() -> Iterator[FakeSshTarget]:
    with FakeSshTarget() as running:
        yield running


@pytest.fixture
def broker(target: FakeSshTarget) -> Iterator[SshBroker]:
    with running_ssh_broker(target) as running:
        yield running


@pytest.fixture
def identity(broker: SshBroker) -> Identity:
    return broker.identity()
