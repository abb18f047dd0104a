"""What a task of ECS asks its agent for while sessions live."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from broker.protection import PROTECT_MINUTES, RENEW_S, TaskProtection, put_json
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import ConfigurationInvalid
from dev.loopback import LoopbackServer, Request, Response
from tests.fakes.clock import FakeClock

ON = {"ProtectionEnabled": True, "ExpiresInMinutes": PROTECT_MINUTES}
OFF = {"ProtectionEnabled": False}


class Agent:
    """Answers as ECS's agent does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Json]] = []
        self.status = 200
        self.away = False

    def put(self, address: str, body: Mapping[str, Json]) -> int:
        assert address == "http://169.254.170.2/api/abc/task-protection/v1/state"
        if self.away:
            raise ConnectionRefusedError
        self.asked.append(dict(body))
        return self.status


def protection(agent: Agent, clock: FakeClock) -> TaskProtection:
    return TaskProtection("http://169.254.170.2/api/abc", clock=clock, put=agent.put)


def test_it_is_asked_for_once_renewed_in_time_and_given_back() -> None:
    """Not once a step: the agent limits how often; and a task that nobody uses must scale in."""
    agent, clock = Agent(), FakeClock()
    asks = protection(agent, clock)
    asks.step(0)
    assert agent.asked == []
    for live in (1, 2, 1):
        asks.step(live)
    assert agent.asked == [ON]
    clock.advance(RENEW_S)
    asks.step(1)
    assert agent.asked == [ON, ON]
    asks.step(0)
    asks.step(0)
    assert agent.asked == [ON, ON, OFF]


def test_it_is_renewed_well_before_it_ends() -> None:
    """Two tries may fail."""
    assert 2 * RENEW_S < PROTECT_MINUTES * 60


@pytest.mark.parametrize("failure", ["away", "refused"])
def test_a_failure_ends_nothing_and_is_tried_again(failure: str) -> None:
    """The sessions matter, and a task that is stopped all the same drains."""
    agent, clock = Agent(), FakeClock()
    asks = protection(agent, clock)
    agent.away, agent.status = failure == "away", 400 if failure == "refused" else 200
    asks.step(1)
    agent.away, agent.status = False, 200
    agent.asked.clear()
    asks.step(1)
    asks.step(1)
    assert agent.asked == [ON]


def test_only_the_agents_own_kind_of_address_is_taken() -> None:
    """A task that cannot ask must say so at its start, and not in the night of a deployment."""
    for wrong in ("", "https://x", "file:///etc/passwd", "169.254.170.2"):
        with pytest.raises(ConfigurationInvalid):
            TaskProtection(wrong, clock=FakeClock())


@contextmanager
def served(seen: list[Request]) -> Iterator[str]:
    def answer(request: Request) -> Response:
        seen.append(request)
        return Response(body=b'{"protection":{"ProtectionEnabled":true}}')

    server = LoopbackServer("agent", answer)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def test_the_agent_is_asked_over_http_as_it_expects() -> None:
    """The path and the names are the agent's own."""
    seen: list[Request] = []
    with served(seen) as url:
        assert put_json(f"{url}/api/abc/task-protection/v1/state", ON) == 200
    (request,) = seen
    assert (request.method, request.path) == ("PUT", "/api/abc/task-protection/v1/state")
    assert json.loads(request.body) == ON
