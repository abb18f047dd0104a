"""The audit trail: what the functions, the API and the broker say happened, read from their own logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.clock import Clock
from dev.demo.waiting import DemoBroken, wait_for

FOUND_S: Final = 20.0  # a target's log goes through a pump and a function that may have to start first

Event = Mapping[str, Any]


class Trail:
    """Reads the logs in ``folder``; waits ``within_s`` for what it looks for."""

    def __init__(self, folder: Path, clock: Clock, *, within_s: float = FOUND_S) -> None:
        self._folder = folder
        self._clock = clock
        self._within_s = within_s

    def events(self, name: str) -> Iterator[Event]:
        """Yield each AuditEvent of that name: its fields, and the ``part`` that logged it."""
        for log in sorted(self._folder.glob("*.log")):
            for line in log.read_text(errors="replace").splitlines():
                told = _object(line)
                if told.get("message") == name and isinstance(told.get("audit"), dict):
                    yield {**told["audit"], "part": log.stem}

    def count(self, name: str, holds: Callable[[Event], bool]) -> int:
        return sum(holds(event) for event in self.events(name))

    def find(self, name: str, holds: Callable[[Event], bool], *, more_than: int = 0) -> Event | None:
        """Wait for an event that ``holds``, the last where there are several and there were ``more_than`` before;
        None where none comes."""

        def look() -> Event | None:
            found = [event for event in self.events(name) if holds(event)]
            return found[-1] if len(found) > more_than else None

        try:
            return wait_for(f"the event {name}", look, self._clock, self._within_s)
        except DemoBroken:
            return None


def _object(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        found = json.loads(line)
    except ValueError:
        return {}  # a line that is being written
    return found if isinstance(found, dict) else {}
