"""AuditEvents in log lines become objects: what the ``events`` function does with a CloudWatch Logs subscription.

A Lambda may be frozen the moment that it has answered, so it keeps no batch: it writes each event as a line, and the
subscription brings the lines of all functions here, many at once. The broker's own log comes here too: its events are
put by itself as well (``broker.events``), and what it could not put any more is here, under the same uid.
Rules: only our own logs are believed, since what stands in a target's is written by whoever knocks there; a line
without an event says nothing; one with a member that is none of an event's is *refused* and counted, and takes nothing
else with it; a put that fails raises, and Lambda delivers again. A delivery may come twice.
Source: docs.aws.amazon.com, "Using CloudWatch Logs subscription filters".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.cloud_event import cloud_event
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.store import Bus, Objects
from chalicelib.services.event_objects import Row, checked_row, put_events
from chalicelib.services.target_log import LogLine

AUDIT: Final = "audit"  # the member of a log line that is an event
WRITER: Final = "events"
OWN_GROUPS: Final = ("/aws/lambda/", "/countersign/broker")


class EventLines:
    """Puts the events of log lines. ``__call__`` returns how many, and how many lines were refused."""

    def __init__(self, objects: Objects, clock: Clock, *, bus: Bus | None = None, source: str = "") -> None:
        """``bus`` is told too, as ``source``: after the bucket, so that what is told is there to be read."""
        self._objects = objects
        self._clock = clock
        self._bus = bus
        self._source = source

    def __call__(self, group: str, lines: Sequence[LogLine]) -> tuple[int, int]:
        """Raises BadRequest for a group that is none of ours, StoreUnavailable with some of them put perhaps."""
        if not group.startswith(OWN_GROUPS):
            raise BadRequest("the log group is neither a function's nor the broker's")
        rows: dict[object, Row] = {}
        refused = 0
        for line in lines:
            try:
                row = row_of(line.text)
            except BadRequest:
                refused += 1
                continue
            if row is not None:
                # The same line again is left out. The same fact told anew has another number, and stays: a writer's
                # numbers have no holes.
                rows.setdefault((row["uid"], row["writer"], row["number"]), row)
        put_events(self._objects, list(rows.values()), writer=WRITER, now=self._clock.now())
        if self._bus is not None and rows:
            self._bus.put([cloud_event(row, self._source) for row in rows.values()])
        return len(rows), refused


def row_of(text: str) -> Row | None:
    """Return the event's row of a log line, None where it has none. Raises BadRequest where it has one that is no
    event's. Pure."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None  # a traceback, a platform line: not one of ours
    if not isinstance(told, dict) or AUDIT not in told:
        return None
    return checked_row(told[AUDIT])
