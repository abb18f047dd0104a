"""What holds for every test.

Hypothesis counts a slow example as a failure, by the wall clock: on a machine that does other work too, that says
nothing about the code. What must end in time is bounded by pytest's own timeout; what must be fast is measured in
``bench``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import settings

_GZIP: Final = r"\x1f\x8b"  # RFC 1952 section 2.3: then the time of packing

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Refuse a name that another process would write otherwise: xdist's workers collect at different seconds, and a
    packed body in a name has its second in it."""
    moving = [item.nodeid for item in items if _GZIP in item.nodeid]
    if moving:
        raise pytest.UsageError(f"name these with ids=[...], since their names have a time in them: {moving}")
