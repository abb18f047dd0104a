"""Fixtures of the functional tests."""

from __future__ import annotations

import pytest

from tests.fakes.control_plane import ControlPlane


@pytest.fixture
def plane() -> ControlPlane:
    """A control plane of its own, with nothing in it."""
    return ControlPlane()
