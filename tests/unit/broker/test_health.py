"""Whether the container's health check sees what it should: a broker that answers, and one that only listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from broker.health import answers, main
from broker.listeners.limits import Strangers
from broker.listeners.tcp import Listener, bind
from broker.settings import Settings, read_settings
from broker.tasks import Tasks
from tests.unit.broker.listeners.test_proxied import Taking
from tests.unit.broker.test_settings import NEEDED


def settings(port: int, *, ssh: int = 0, **more: str) -> Settings:
    ports = {"COUNTERSIGN_LISTEN_POSTGRES_PORT": str(port), "COUNTERSIGN_LISTEN_SSH_PORT": str(ssh)}
    key = {"COUNTERSIGN_SSH_HOST_KEY": "/key", "COUNTERSIGN_LISTEN_HOST": "0.0.0.0"}
    return read_settings(NEEDED | ports | key | more)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose kernel accepts, and nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def test_nobody_listens() -> None:
    """A broker that leaves, or died."""
    with socket.create_server(("127.0.0.1", 0)) as freed:
        port = int(freed.getsockname()[1])
    assert not answers(settings(port))


def test_a_loop_that_hangs_is_not_healthy(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel goes on accepting for it."""
    monkeypatch.setattr("broker.health.WITHIN_S", 0.05)
    assert not answers(settings(silent))


def test_behind_a_balancer_it_is_a_health_check_like_any() -> None:
    """The broker ends it without a line; that it does so shows that its loop runs, on both ports."""

    async def scene() -> tuple[bool, bool]:
        tasks, engine = Tasks(), Taking()
        ports = []
        for greeting in (b"", b"SSH-2.0-x\r\n"):
            socket_ = bind("127.0.0.1", 0)
            one = Listener(socket_, engine, strangers=Strangers(), tasks=Tasks(), proxied=True, greeting=greeting)
            tasks.start("accept", one.accept())
            ports.append(one.address[1])
        told = settings(ports[0], ssh=ports[1], COUNTERSIGN_PROXY_PROTOCOL="v2")
        healthy = await asyncio.to_thread(answers, told)
        misled = await asyncio.to_thread(answers, settings(ports[0], ssh=ports[1]))
        await tasks.cancel_all()
        return healthy, misled

    assert asyncio.run(scene()) == (True, False)


def test_a_container_without_settings_is_unhealthy_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a stack trace in the orchestrator's event."""
    monkeypatch.delenv("COUNTERSIGN_PREFIX", raising=False)
    assert main() == 1
    assert capsys.readouterr().err == "the environment variable COUNTERSIGN_PREFIX is not set\n"
