"""EventBridge: CloudEvents to whoever subscribed. Told at least once, after the bucket has them.

Source: Amazon EventBridge API reference, PutEvents (10 entries, 256 KB in all; an entry may fail by itself).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.store.clients import Clients, calling
from chalicelib.store.dates import ServiceDates

SOURCE: Final = "countersign"
_ENTRIES: Final = 10
_BYTES: Final = 200 * 1024  # EventBridge counts 256 KB over all entries, with its own members


def open_bus(name: str, region: str, clock: Clock) -> EventBridgeBus:
    """Return the bus of that name. Makes no call."""
    return EventBridgeBus(Clients(region, ServiceDates(clock)), name)


class EventBridgeBus:
    """Implements ``domain.store.Bus`` on one bus. Thread-safe."""

    def __init__(self, clients: Clients, name: str) -> None:
        self._clients = clients
        self._name = name

    def put(self, events: Sequence[Mapping[str, Json]]) -> None:
        batch: list[dict[str, str]] = []
        size = 0
        for event in events:
            detail = json.dumps(event, separators=(",", ":"))
            if batch and (len(batch) == _ENTRIES or size + len(detail) > _BYTES):
                self._send(batch)
                batch, size = [], 0
            batch.append(
                {"EventBusName": self._name, "Source": SOURCE, "DetailType": str(event["type"]), "Detail": detail}
            )
            size += len(detail)
        if batch:
            self._send(batch)

    def _send(self, entries: list[dict[str, str]]) -> None:
        with calling("events"):
            answer = self._clients.events().put_events(Entries=entries)
        if int(answer.get("FailedEntryCount", 0)):
            codes = sorted({str(entry["ErrorCode"]) for entry in answer["Entries"] if entry.get("ErrorCode")})
            raise StoreUnavailable("a service could not be reached", service="events", error=" ".join(codes))
