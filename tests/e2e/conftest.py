"""The local stack for the end-to-end tests: started once, for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.local_stack import Stack, StackOptions


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The whole local stack, running, with the demo's bundle and target. Tests share it: each asks for a session of
    its own, and takes the cards that are its own."""
    with Stack(StackOptions()) as running:
        yield running


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put all that share the stack on one worker: two stacks on two cores would be slow, and prove nothing more. First
    of all hooks, since xdist reads the mark in its own."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("stack"))
