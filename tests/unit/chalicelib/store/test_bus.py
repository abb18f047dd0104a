"""EventBridge: CloudEvents in batches that it takes, and a refusal of one entry is a failure of the put."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from chalicelib.domain.audit import MAX_FIELD, MAX_LISTED, Acting, AuditEvent, AuditName, Operated
from chalicelib.domain.canonical import Json
from chalicelib.domain.cloud_event import MAX_BYTES, cloud_event
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.services.event_lines import EventLines
from chalicelib.services.target_log import LogLine
from chalicelib.store.bus import EventBridgeBus
from chalicelib.store.clients import Clients
from tests.fakes.clock import START, FakeClock
from tests.fakes.memory import MemoryStores

EVENT = AuditEvent(
    name=AuditName.OPERATION_RAN,
    at=START,
    session_id="ses_1",
    connection_id="con_1",
    operation_id="op_1",
    operated=Operated(actions=("sql:read",), text="SELECT secret FROM t"),
)


class Events:
    """boto3's client, as far as it is used: at most ten entries and 256 KB, and entries that may fail."""

    def __init__(self, fail: str = "") -> None:
        self.batches: list[list[dict[str, str]]] = []
        self._fail = fail

    def events(self) -> Events:
        return self

    def put_events(self, *, Entries: list[dict[str, str]]) -> Any:  # noqa: N803 - boto3's name
        assert 1 <= len(Entries) <= 10
        assert sum(len(json.dumps(entry)) for entry in Entries) <= 256 * 1024
        self.batches.append(Entries)
        failed = [{"ErrorCode": self._fail} if self._fail and place == 0 else {} for place in range(len(Entries))]
        return {"FailedEntryCount": 1 if self._fail else 0, "Entries": failed}


def bus(events: Events) -> EventBridgeBus:
    return EventBridgeBus(cast(Clients, events), "bus")


def test_an_event_is_a_cloud_event_without_its_text() -> None:
    """A bus is read by many: what ran stays in the bucket, and the envelope says where."""
    row = EVENT.row(writer="boot_1", number=3, segment="rec/v1/a")
    made = cloud_event(row, "https://api.example")
    assert {name: made[name] for name in ("specversion", "id", "source", "type", "time", "subject")} == {
        "specversion": "1.0",
        "id": row["uid"],
        "source": "https://api.example",
        "type": "dev.countersign.operation.ran.v1",
        "time": "2026-11-02T09:30:00.000Z",
        "subject": "ses_1",
    }
    assert "secret" not in json.dumps(made)
    assert cast(dict[str, Json], made["data"])["segment"] == "rec/v1/a"


def test_the_largest_event_fits_what_intermediaries_forward() -> None:
    """Attack: identities and lists at their bounds, every character four bytes: the pointers still travel."""
    most = "\U0001f600" * MAX_FIELD
    lists = (most,) * MAX_LISTED
    event = AuditEvent(
        name=AuditName.SESSION_GRANTED,
        at=START,
        session_id="ses_1",
        acting=Acting(originator=most, chain=lists),
        rules=lists,
        people=lists,
    )
    made = cloud_event(event.row(writer="w", number=0), "s")
    assert len(json.dumps(made).encode()) <= MAX_BYTES
    assert cast(dict[str, Json], made["data"])["session_id"] == "ses_1"


@pytest.mark.parametrize("count", [1, 10, 11, 25])
def test_events_go_in_batches_that_are_taken(count: int) -> None:
    """EventBridge refuses an eleventh entry, with all the others."""
    events = Events()
    bus(events).put([cloud_event(EVENT.row(writer="w", number=number), "s") for number in range(count)])
    told = [json.loads(entry["Detail"])["data"]["number"] for batch in events.batches for entry in batch]
    assert told == list(range(count))


def test_large_events_share_no_batch() -> None:
    """256 KB is the limit of a call, whatever the number of entries."""
    events = Events()
    bus(events).put([{"type": "t", "data": "x" * 60_000} for _ in range(8)])
    assert len(events.batches) > 1


def test_one_entry_that_was_not_taken_is_a_failure() -> None:
    """The call answers 200 for a batch of which none was taken."""
    with pytest.raises(StoreUnavailable):
        bus(Events(fail="ThrottlingException")).put([cloud_event(EVENT.row(writer="w", number=0), "s")])


def test_the_bucket_has_them_before_the_bus_is_told() -> None:
    """Whoever is told looks it up; and a bus that is down takes nothing away from the evidence."""
    stores = MemoryStores()
    line = LogLine(at=START, text=json.dumps({"audit": EVENT.row(writer="fn_1", number=0)}))
    told = EventLines(stores.objects, FakeClock(), bus=bus(Events(fail="Throttled")), source="s")
    with pytest.raises(StoreUnavailable):
        told("/aws/lambda/countersign-sign", [line])
    assert len(stores.objects.keys("events/v1/")) == 1
