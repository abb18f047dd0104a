"""Asks ECS not to choose this task, while sessions live, when it scales in or deploys.

Rules: protection is asked for with an end, and again well before it, so that a broker that hangs or is killed is not
protected for long; it is taken back once when nobody is left. A failure is logged and tried again at the next step: it
never ends or delays a session, since a task that is stopped all the same drains. Blocks for two seconds at most.
Does not protect from a lost machine or from Fargate's own maintenance, which ask nobody.

Source: ECS, "Task scale-in protection endpoint" (``PUT $ECS_AGENT_URI/task-protection/v1/state``).
"""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ConfigurationInvalid

PROTECT_MINUTES: Final = 30  # how long a broker that was killed keeps its task from being replaced
RENEW_S: Final = 600.0  # three tries before it ends
WITHIN_S: Final = 2.0  # the agent is on the same machine and answers in milliseconds
MAX_ANSWER: Final = 4096
_PATH: Final = "/task-protection/v1/state"

_logger = logging.getLogger(__name__)

Put = Callable[[str, Mapping[str, Json]], int]


class TaskProtection:
    """This task's. Its :meth:`step` is called every few seconds, by one thread at a time."""

    def __init__(self, agent: str, *, clock: Clock, put: Put | None = None) -> None:
        """``agent`` is the URI that ECS gives each container. Raises ConfigurationInvalid where it is none."""
        parts = urlsplit(agent)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigurationInvalid("the environment variable ECS_AGENT_URI is not an http address")
        self._address = agent.rstrip("/") + _PATH
        self._clock = clock
        self._put = put or put_json
        self._renew_at_s: float | None = None  # None: not protected

    def step(self, live: int) -> None:
        """Protect while ``live`` sessions are there, and no longer. Never raises."""
        now_s = self._clock.monotonic_s()
        if live and (self._renew_at_s is None or now_s >= self._renew_at_s):
            if self._ask({"ProtectionEnabled": True, "ExpiresInMinutes": PROTECT_MINUTES}):
                self._renew_at_s = now_s + RENEW_S
        elif not live and self._renew_at_s is not None and self._ask({"ProtectionEnabled": False}):
            self._renew_at_s = None

    def _ask(self, wanted: Mapping[str, Json]) -> bool:
        try:
            status = self._put(self._address, wanted)
        except (OSError, http.client.HTTPException) as error:
            _logger.warning("the task's protection could not be set", extra={"why": type(error).__name__})
            return False
        if status != http.client.OK:
            _logger.warning("the task's protection could not be set", extra={"why": status})
        return status == http.client.OK


def put_json(address: str, body: Mapping[str, Json]) -> int:
    """PUT ``body`` and return the status. Raises OSError, HTTPException."""
    parts = urlsplit(address)
    agent = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WITHIN_S)
    try:
        agent.request("PUT", parts.path, json.dumps(dict(body)), {"Content-Type": "application/json"})
        answer = agent.getresponse()
        answer.read(MAX_ANSWER)
        return answer.status
    finally:
        agent.close()
