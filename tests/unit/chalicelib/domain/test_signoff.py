"""What a review is about, and what its sign-off covers."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from chalicelib.domain.identifiers import PersonId, SignoffId, made_at, new_session_id, new_signoff_id
from chalicelib.domain.session import Session
from chalicelib.domain.signoff import MAX_PERIOD, Period, Ruling, Selection, Signoff, signoff_key
from tests.fakes import samples
from tests.fakes.clock import START

PERIOD = Period(since=START, until=START + timedelta(days=2))
SIGNOFF = Signoff(
    id=SignoffId("sgn_01k9vq3v5000000000000000aa"),
    reviewer=PersonId("carol"),
    reviewer_identity="https://idp.example.com#carol",
    hop="hop_01k9vq3v5000000000000000ab",
    period=PERIOD,
    selection=Selection(target="orders-prod"),
    population_sha256="ab" * 32,
    sessions=2,
    unknown_triggers=0,
    rulings=(Ruling(identity="i#1", name="one", keep=True),),
    note="",
    signed_at=START + timedelta(days=3),
)


@pytest.mark.parametrize("until", [START, START - timedelta(hours=1), START + MAX_PERIOD + timedelta(seconds=1)])
def test_a_period_has_an_end_after_its_beginning_and_a_bound(until: datetime) -> None:
    """A review of all time would read all there is."""
    with pytest.raises(ValueError, match="period"):
        Period(since=START, until=until)


def test_a_period_of_times_without_a_zone_is_none() -> None:
    """Two people would review two periods by one digest."""
    with pytest.raises(ValueError, match="zone"):
        Period(since=START.replace(tzinfo=None), until=START)


def test_days_are_those_of_utc_and_the_end_is_not_in_it() -> None:
    """A session of the last midnight belongs to the next period, or to two."""
    east = timezone(timedelta(hours=10))
    period = Period(since=datetime(2026, 11, 2, 3, tzinfo=east), until=datetime(2026, 11, 3, tzinfo=UTC))
    assert list(period.days()) == [date(2026, 11, 1), date(2026, 11, 2)]
    assert period.holds(period.since)
    assert not period.holds(period.until)


def session(target: str = "orders-prod") -> Session:
    made = samples.session()
    return dataclasses.replace(made, request=dataclasses.replace(made.request, target=target))


@pytest.mark.parametrize(
    ("selection", "holds"),
    [
        (Selection(), True),
        (Selection(target="orders-prod"), True),
        (Selection(target="orders"), False),
        (Selection(pipeline="acme/orders"), True),
        (Selection(pipeline="acme/orders deploy"), True),
        (Selection(pipeline="acme"), False),
        (Selection(pipeline=samples.RUNNER.subject), True),
        (Selection(pipeline=samples.RUNNER.key), True),
        (Selection(target="orders-prod", pipeline="acme/other"), False),
    ],
)
def test_a_selection_holds_what_it_names_and_no_beginning_of_a_name(selection: Selection, *, holds: bool) -> None:
    """A session that falls out of a review is one that nobody reviews."""
    assert selection.holds(session()) is holds


def test_the_hash_covers_every_field_but_the_signature() -> None:
    """What it does not cover could be written into the object by whoever replaced it."""
    other: dict[str, Any] = {
        "id": SignoffId("sgn_x"),
        "reviewer": PersonId("dave"),
        "reviewer_identity": "x",
        "hop": "x",
        "period": Period(since=START, until=START + timedelta(days=1)),
        "selection": Selection(pipeline="x"),
        "population_sha256": "cd" * 32,
        "sessions": 3,
        "unknown_triggers": 1,
        "rulings": (Ruling(identity="i#1", name="one", keep=False),),
        "note": "x",
        "signed_at": START,
    }
    assert set(other) == {field.name for field in dataclasses.fields(Signoff)} - {"signature"}
    for name, value in other.items():
        assert samples.changed(SIGNOFF, **{name: value}).sha256() != SIGNOFF.sha256(), name
    assert dataclasses.replace(SIGNOFF, signature="x").sha256() == SIGNOFF.sha256()


def test_a_sign_off_lies_under_its_own_day() -> None:
    """Who looks for those of a day lists that day."""
    made = new_signoff_id(START)
    assert signoff_key(made, START) == f"signoffs/v1/2026-11-02/{made}.json"


def test_an_id_says_when_it_was_made() -> None:
    """A review leaves out by its id what was made after the period."""
    assert made_at(new_session_id(START)) == START
    with pytest.raises(ValueError, match="identifier"):
        made_at("ses_x")
