"""Starts each backend once per worker; a test gets it with its address in the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.domain.store import Stores
from dev.emulator import start_ministack, start_moto
from tests.conformance.backends import Backend, EmulatorBackend, MemoryBackend


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        pytest.param("ministack", marks=[pytest.mark.emulator, pytest.mark.xdist_group("ministack")]),
        pytest.param("moto", marks=[pytest.mark.emulator, pytest.mark.xdist_group("moto")]),
    ],
)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    started: Backend
    match request.param:
        case "ministack":
            started = EmulatorBackend(start_ministack(tmp_path_factory.mktemp("ministack")))
        case "moto":
            started = EmulatorBackend(start_moto(tmp_path_factory.mktemp("moto")))
        case _:
            started = MemoryBackend()
    yield started
    started.stop()


@pytest.fixture
def backend(running: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture(scope="session")
def kept(running: Backend) -> list[Stores]:
    """Holds the one deployment that tests share which make their own ids."""
    return []


@pytest.fixture
def stores(backend: Backend, kept: list[Stores]) -> Stores:
    if not kept:
        kept.append(backend.empty())
    return kept[0]


@pytest.fixture
def empty(backend: Backend) -> Stores:
    """A deployment of the test's own, for what counts from nothing."""
    return backend.empty()
