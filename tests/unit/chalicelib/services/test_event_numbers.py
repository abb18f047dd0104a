"""Events are numbered without holes: one that never arrived shows, and a killed broker's are accounted for."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.audit import AuditEvent, AuditName
from chalicelib.services.event_numbers import EventNumbers, ended_boots
from chalicelib.services.event_objects import event_lines
from chalicelib.services.reviewed import Finding
from tests.fakes.clock import START

NOW = START + timedelta(hours=2)
BOOT = "boot_01m6dsg7e0fwejtv7egfb0rbxm"
CONNECTION = "con_01m6dsg7e0fwejtv7egfb0rbxn"


def told(writer: str, *numbers: int, late: bool = False, op: str = "") -> bytes:
    rows = [
        AuditEvent(
            name=AuditName.OPERATION_RAN,
            at=NOW if late else START,
            connection_id=CONNECTION,
            operation_id=op or f"{writer}-{number}",
        ).row(writer=writer, number=number)
        for number in numbers
    ]
    return event_lines(rows)


def findings(
    *objects: bytes,
    whole: bool = True,
    ended: Sequence[str] = (),
    connections: Mapping[str, Sequence[str]] | None = None,
) -> list[Finding]:
    numbers = EventNumbers(NOW)
    for place, body in enumerate(objects):
        numbers.meet(f"events/v1/{place}", body)
    return list(numbers.findings(whole=whole, ended=ended, connections=connections or {}))


def test_numbers_without_holes_are_sound_in_any_order_and_twice() -> None:
    """Objects come from two carriers, and a fact may stand in two of them."""
    assert findings(told("fn_a", 2, 3), told("fn_a", 0, 1), told("fn_a", 3, 4), told("fn_b", 0)) == []


def test_an_event_that_never_arrived_is_named_by_its_writer() -> None:
    """ADR 0014: a line that its agent lost is seen as a hole in the numbers, and by nothing else."""
    (found,) = findings(told("fn_a", 0, 1), told("fn_a", 4, 5))
    assert (found.key, found.kind.value) == ("fn_a", "missing")
    assert found.what.startswith("lacks 2 of its events, the first is number 2")


def test_the_first_event_of_all_is_missed_where_everything_was_read() -> None:
    """From a day on, the events before it are in objects that were not read."""
    assert [one.what for one in findings(told("fn_a", 1))] == [
        "lacks 1 of its events, the first is number 0: told, and in no object"
    ]
    assert findings(told("fn_a", 1), whole=False) == []


def test_what_may_still_be_on_its_way_is_no_hole() -> None:
    """A broker puts its operations ten seconds after its log line of the next connection went out."""
    assert findings(told("fn_a", 0), told("fn_a", 3, late=True)) == []
    assert len(findings(told("fn_a", 0, 2), told("fn_a", 4, late=True))) == 1


def test_a_killed_brokers_hole_is_what_was_told_again_for_it() -> None:
    """Its numbers died with its memory; the operations did not."""
    of = {BOOT: [CONNECTION]}
    broker, again = told(BOOT, 0, 1, 4), told(f"retold_{CONNECTION}", 0, 1)
    assert findings(broker, again, connections=of) == []
    (short,) = findings(broker, told(f"retold_{CONNECTION}", 0), connections=of)
    assert (short.key, short.kind.value) == (BOOT, "lost")
    (ended,) = findings(broker, again, connections=of, ended=[BOOT])
    assert ended.kind.value == "missing"


def test_what_the_broker_had_told_itself_fills_no_hole() -> None:
    """The whole recording is told again: only what is new of it can be what was missing."""
    of = {BOOT: [CONNECTION]}
    (found,) = findings(told(BOOT, 0, 2, op="x"), told(f"retold_{CONNECTION}", 0, op="x"), connections=of)
    assert found.kind.value == "lost"


@pytest.mark.parametrize(
    "body",
    [b"", b"x", gzip.compress(b"no json\n"), gzip.compress(b"[]\n"), told("fn_a", 0)[:-3]],
    ids=["empty", "no gzip", "no json", "no object", "cut"],
)
def test_what_is_no_event_is_named(body: bytes) -> None:
    """docs/queries.md: a malformed line stops a query, and `countersign verify` says where it is."""
    found = findings(body)
    assert ("events/v1/0", "altered") in [(one.key, one.kind.value) for one in found]


def test_a_number_chosen_to_exhaust_the_reader_costs_nothing() -> None:
    """Spans, not numbers."""
    (found,) = findings(told("fn_a", 0, (1 << 52)))
    assert f"lacks {(1 << 52) - 1} " in found.what


@given(st.sets(st.integers(0, 40), min_size=1), st.integers(1, 5))
def test_holes_are_counted_however_the_numbers_are_spread(numbers: set[int], pieces: int) -> None:
    """Against the plain definition."""
    ordered = sorted(numbers)
    found = findings(*(told("fn_a", *ordered[place::pieces]) for place in range(pieces)))
    missing = set(range(max(numbers) + 1)) - numbers
    assert [one.what.split()[1] for one in found] == ([str(len(missing))] if missing else [])


def test_a_boot_that_ended_is_known_by_its_key() -> None:
    """Its signature is for the count of its rows to check."""
    assert ended_boots([f"boots/v1/2026-11-02/{BOOT}.json"]) == {BOOT}
