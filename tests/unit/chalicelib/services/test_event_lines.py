"""Log lines become objects of events: only ours, only events, and nothing lost with what is none."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from chalicelib.api.audit_log import LogAudit
from chalicelib.domain.audit import AuditEvent, AuditName
from chalicelib.domain.errors import BadRequest, StoreUnavailable
from chalicelib.services.event_lines import EventLines, row_of
from chalicelib.services.event_objects import MAX_OBJECT_EVENTS, checked_row, event_key, event_lines, put_events
from chalicelib.services.target_log import LogLine
from tests.fakes.clock import START, FakeClock
from tests.fakes.memory import MemoryStores

_PLACES = itertools.count()
GROUP = "/aws/lambda/countersign-sign"
EVENT = AuditEvent(name=AuditName.TOKEN_REFUSED, at=START, code="token_invalid")


def lines_of(*events: AuditEvent) -> list[LogLine]:
    """Return what the functions' own logger writes for ``events``."""
    out = io.StringIO()
    audit = LogAudit(Logger(service=f"test-{id(out)}-{next(_PLACES)}", stream=out))  # one service has one stream
    for event in events:
        audit.record(event)
    return [LogLine(at=START, text=text) for text in out.getvalue().splitlines()]


def rows(stores: MemoryStores) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for key in stores.objects.keys("events/v1/")
        for line in gzip.decompress(stores.objects.get(key)).decode().splitlines()
    ]


def test_what_a_function_logs_is_what_the_bucket_has() -> None:
    """The very line that powertools writes, through the subscription, to the object: member by member."""
    stores = MemoryStores()
    assert EventLines(stores.objects, FakeClock())(GROUP, lines_of(EVENT)) == (1, 0)
    (row,) = rows(stores)
    assert checked_row(row) == row
    assert (row["uid"], row["number"], row["writer"][:3]) == (EVENT.uid(), 0, "fn_")
    (key,) = stores.objects.keys("events/v1/")
    assert "/events-" in key


def test_a_redelivery_tells_the_same_uid() -> None:
    """Lambda delivers again where our answer was lost: an auditor counts a uid once."""
    stores = MemoryStores()
    told = EventLines(stores.objects, FakeClock())
    lines = lines_of(EVENT)
    told(GROUP, [*lines, *lines])
    told(GROUP, lines)
    assert len(rows(stores)) == 2
    assert len({row["uid"] for row in rows(stores)}) == 1


def test_a_targets_log_is_no_source_of_events() -> None:
    """Attack: log in at a target under a name that is an event's JSON, where its log is subscribed by mistake."""
    stores = MemoryStores()
    with pytest.raises(BadRequest):
        EventLines(stores.objects, FakeClock())("/countersign/targets/db-prod", lines_of(EVENT))
    assert rows(stores) == []


@pytest.mark.parametrize(
    "text",
    ["START RequestId: 1", "{", "[]", '"x"', '{"message": "hello"}', "[" * 100_000],
)
def test_a_line_that_is_no_event_says_nothing(text: str) -> None:
    """A Lambda's log has platform lines, tracebacks and our own words."""
    assert row_of(text) is None


@pytest.mark.parametrize(
    "audit",
    [
        "x",
        {},
        {"v": 1},
        {**EVENT.row(writer="w", number=0), "number": "0"},
        {**EVENT.row(writer="w", number=0), "number": True},
        {**EVENT.row(writer="w", number=0), "number": 1 << 63},
        {**EVENT.row(writer="w", number=0), "why": "\ud800"},
        {**EVENT.row(writer="w", number=0), "chain": ["\udfff"]},
        {**EVENT.row(writer="w", number=0), "chain": ["a", 1]},
        {**EVENT.row(writer="w", number=0), "password": "x"},
        {**EVENT.row(writer="w", number=0), "reads_masked": 1},
    ],
)
def test_an_event_of_another_shape_is_refused_and_takes_nothing_with_it(audit: object) -> None:
    """One member of another type would stop every query that reads its object: locked, for years."""
    stores = MemoryStores()
    bad = LogLine(at=START, text=json.dumps({"audit": audit}))
    assert EventLines(stores.objects, FakeClock())(GROUP, [bad, *lines_of(EVENT)]) == (1, 1)
    assert [row["uid"] for row in rows(stores)] == [EVENT.uid()]


def test_a_put_that_fails_raises() -> None:
    """Lambda then delivers again: nothing is audited by being dropped."""
    stores = MemoryStores()
    stores.fail("objects")
    with pytest.raises(StoreUnavailable):
        EventLines(stores.objects, FakeClock())(GROUP, lines_of(EVENT))


def test_no_event_no_object() -> None:
    """An empty object would be read by every query of its hour."""
    stores = MemoryStores()
    assert EventLines(stores.objects, FakeClock())(GROUP, []) == (0, 0)
    assert stores.objects.keys("events/v1/") == []


def test_an_object_is_bounded_and_equal_rows_have_equal_bytes() -> None:
    """A reader takes an object whole; the digest names its hash."""
    stores = MemoryStores()
    row = EVENT.row(writer="w", number=0)
    keys = put_events(stores.objects, [row] * (MAX_OBJECT_EVENTS + 1), writer="w", now=START)
    assert len(keys) == len(set(keys)) == 2
    assert event_lines([row]) == event_lines([row])


@pytest.mark.parametrize("writer", ["", "a/b", "../x", "A", "a-b", "x" * 49])
def test_a_writers_name_cannot_lead_the_key_elsewhere(writer: str) -> None:
    """It is a part of a key: a slash would put events where no query looks."""
    with pytest.raises(ValueError, match="writer"):
        event_key(writer, START)


def test_each_process_numbers_what_it_tells() -> None:
    """A number that never arrived shows."""
    told = [json.loads(line.text)["audit"] for line in lines_of(EVENT, EVENT)]
    assert [row["number"] for row in told] == [0, 1]
    assert len({row["writer"] for row in told}) == 1


def test_a_fact_that_one_process_told_twice_leaves_no_hole_in_its_numbers() -> None:
    """A stream's record is handled again, and the card told of again: one uid, two numbers, and both are there."""
    stores = MemoryStores()
    told = AuditEvent(name=AuditName.CARD_POSTED, at=START, ask_id="ask_1")
    assert EventLines(stores.objects, FakeClock())(GROUP, lines_of(told, told)) == (2, 0)
    assert [row["number"] for row in rows(stores)] == [0, 1]
    assert len({row["uid"] for row in rows(stores)}) == 1
