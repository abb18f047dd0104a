"""``retain``: what is held stays held and reaches what comes later; what is over is marked, and nothing before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

import pytest

from chalicelib.domain.audit import AuditEvent, AuditName
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identifiers import new_legal_hold_id
from chalicelib.domain.legal_hold import HeldKind, LegalHold, Lift, hold_key, kind_of, lift_key
from chalicelib.domain.store import LockFacts
from chalicelib.services.retain import Retain
from chalicelib.services.review import Review
from tests.fakes.archive import Archive
from tests.fakes.clock import START

DAY_S: Final = 86_400
TODAY: Final = START.date()
ITEM: Final = "items/v1/chains/2026-11-02/09/a.ndjson.gz"
LATER_ITEM: Final = "items/v1/chains/2026-11-09/09/a.ndjson.gz"
DIGEST: Final = "digests/v1/2026-11-03/07.json"


@dataclass
class Events:
    seen: list[AuditEvent] = field(default_factory=list)

    def record(self, event: AuditEvent) -> None:
        self.seen.append(event)


class Kept:
    """The archive of one day, with the shared objects of that day and of one a week later."""

    def __init__(self) -> None:
        self.archive = Archive()
        self.stores, self.clock, self.events = self.archive.stores, self.archive.clock, Events()
        for key in (ITEM, LATER_ITEM, DIGEST, "bundles/v1/x.json"):
            self.stores.objects.put_new(key, b"{}", content_type="application/json")
        self.stores.locks.put_at[LATER_ITEM] = START + timedelta(days=7)
        self.retain = Retain(stores=self.stores, clock=self.clock, audit=self.events)

    @property
    def own(self) -> set[str]:
        """The keys of the session on ``orders-prod``."""
        return {*self.archive.orders.segments, self.archive.orders.manifest_key}

    def hold(self, subject: str, since: date = TODAY) -> LegalHold:
        now = self.clock.now()
        hold = LegalHold(
            id=new_legal_hold_id(now),
            kind=kind_of(subject),
            subject=subject,
            since=since,
            reason="case 7",
            by="https://idp#carol",
            hop="hop_1",
            at=now,
        )
        self.stores.objects.put_new(hold_key(hold), hold.stored(), content_type="application/json")
        return hold

    def lift(self, hold: LegalHold) -> None:
        lift = Lift(id=hold.id, reason="over", by="https://idp#carol", hop="hop_1", at=self.clock.now())
        self.stores.objects.put_new(lift_key(lift), lift.stored(), content_type="application/json")

    def days_later(self, days: int) -> None:
        self.clock.advance(days * DAY_S)


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_hold_on_a_session_holds_all_that_shows_what_it_was(kept: Kept) -> None:
    """Its recording without the items and digests of its days would be a recording that nobody can check."""
    kept.hold(kept.archive.orders.session_id)
    done = kept.retain()
    assert done.ended
    assert not done.failed
    assert kept.own | {ITEM} <= kept.stores.locks.held
    assert not set(kept.archive.db.segments) & kept.stores.locks.held
    assert not {LATER_ITEM, "bundles/v1/x.json"} & kept.stores.locks.held


@pytest.mark.parametrize("subject", ["chain", "target"])
def test_a_hold_reaches_every_session_that_it_is_on(kept: Kept, subject: str) -> None:
    """A chain has all its sessions, a target those that were made on it and no other's."""
    kept.hold(kept.archive.txn if subject == "chain" else "orders-prod")
    kept.retain()
    assert kept.own <= kept.stores.locks.held
    assert (set(kept.archive.db.segments) <= kept.stores.locks.held) is (subject == "chain")


def test_a_hold_on_a_target_reaches_what_is_written_later(kept: Kept) -> None:
    """Attack: the session that matters is opened the day after the hold was put."""
    kept.hold("orders-prod")
    kept.retain()
    kept.days_later(1)
    later = kept.archive.connect(
        kept.archive.grant(kept.archive.root, "orders-prod", "app", "again", rules=("r",)),
        kept.archive.root,
        "postgres",
    )
    key = f"rec/v1/{later.session_id}/{later.row.id}/000000.ndjson.gz"
    kept.stores.objects.put_new(key, b"{}", content_type="application/gzip")
    kept.retain()
    assert key in kept.stores.locks.held


def test_a_day_is_gone_through_until_it_is_over_and_then_never_again(kept: Kept) -> None:
    """A digest that names the day late is held too; a year of days is not read every hour."""
    hold = kept.hold(kept.archive.txn)
    kept.retain()
    assert not kept.stores.objects.keys(f"held/v1/{hold.id}/")
    kept.stores.objects.put_new("digests/v1/2026-11-04/09.json", b"{}", content_type="application/json")
    kept.days_later(5)
    assert kept.retain().held == 2, "the day after had its digest too"
    assert kept.stores.objects.keys(f"held/v1/{hold.id}/2026-11-02.json")
    assert [event.name for event in kept.events.seen] == [AuditName.HOLD_APPLIED]
    assert Retain(stores=kept.stores, clock=kept.clock, audit=kept.events)().held == 0


def test_a_lift_lets_go_what_no_other_hold_is_on(kept: Kept) -> None:
    """Two cases may be about one session; the end of one is not the end of the other."""
    first, second = kept.hold(kept.archive.txn), kept.hold(kept.archive.orders.session_id)
    kept.retain()
    kept.lift(first)
    kept.retain()
    assert kept.own | {ITEM} <= kept.stores.locks.held
    assert not set(kept.archive.db.segments) & kept.stores.locks.held
    kept.lift(second)
    kept.retain()
    assert not kept.stores.locks.held
    assert kept.retain().lifted == 0


def test_a_warm_process_holds_again_what_another_let_go(kept: Kept) -> None:
    """What this process held for a case that is over, another let go: a new case needs it held, and not remembered."""
    first = kept.hold(kept.archive.txn)
    kept.retain()
    kept.lift(first)
    Retain(stores=kept.stores, clock=kept.clock, audit=kept.events)()
    assert not kept.stores.locks.held
    kept.hold(kept.archive.txn)
    kept.retain()
    assert kept.own | {ITEM} <= kept.stores.locks.held


def test_a_hold_that_is_carried_out_beside_a_lift_is_not_let_go(kept: Kept) -> None:
    """Attack: two runs. One lifts, by the holds that it read; the other carries out a hold that was put since."""
    first = kept.hold(kept.archive.txn)
    kept.retain()
    kept.days_later(5)
    kept.lift(first)
    facts, beside = kept.stores.locks.facts, Retain(stores=kept.stores, clock=kept.clock, audit=kept.events)

    def slowly(key: str) -> LockFacts:
        if kept.stores.locks.facts is not facts:
            kept.stores.locks.facts = facts  # type: ignore[method-assign]
            kept.hold(kept.archive.txn)
            beside()
        return facts(key)

    kept.stores.locks.facts = slowly  # type: ignore[method-assign]
    kept.retain()
    kept.retain()
    assert kept.own | {ITEM} <= kept.stores.locks.held


def test_nothing_is_marked_before_its_lock_is_over(kept: Kept) -> None:
    """What bears the mark goes: age alone may never be the reason."""
    kept.stores.locks.days = 10
    kept.days_later(11)
    kept.retain()
    assert not kept.stores.locks.marked
    kept.days_later(2)
    done = kept.retain()
    assert kept.own | {ITEM} <= kept.stores.locks.marked
    assert done.marked == len(kept.stores.locks.marked)
    assert not [key for key in kept.stores.locks.marked if key.startswith(("bundles/", "held/", "holds/", "marked/"))]


def test_what_a_target_keeps_longer_is_marked_later(kept: Kept) -> None:
    """The day is gone through again when the longer lock is over, and not before."""
    longer = kept.archive.orders.segments[0]
    kept.stores.locks.days, kept.stores.objects.kept[longer] = 10, 400
    kept.days_later(14)
    kept.retain()
    assert longer not in kept.stores.locks.marked
    assert kept.own - {longer} <= kept.stores.locks.marked
    kept.days_later(380)
    kept.retain()
    assert longer not in kept.stores.locks.marked
    kept.days_later(12)
    kept.retain()
    assert longer in kept.stores.locks.marked


def test_what_is_held_is_never_marked_and_is_when_it_is_lifted(kept: Kept) -> None:
    """The lock is over, the case is not; nobody comes by that day again but the lift."""
    kept.stores.locks.days = 10
    hold = kept.hold(kept.archive.txn)
    kept.retain()
    kept.days_later(20)
    kept.retain()
    assert not kept.own & kept.stores.locks.marked
    kept.lift(hold)
    kept.retain()
    assert kept.own <= kept.stores.locks.marked
    assert not kept.stores.locks.held


def test_a_hold_on_what_is_marked_takes_the_mark_off(kept: Kept) -> None:
    """The lifecycle comes at midnight: a hold before that is in time."""
    kept.stores.locks.days = 10
    kept.days_later(14)
    kept.retain()
    assert kept.own <= kept.stores.locks.marked
    kept.hold(kept.archive.txn)
    kept.retain()
    assert not kept.own & kept.stores.locks.marked
    assert kept.own <= kept.stores.locks.held


def test_while_a_hold_cannot_be_carried_out_nothing_is_marked(kept: Kept) -> None:
    """It may be on anything: what goes meanwhile is gone."""
    kept.stores.locks.days = 10
    kept.hold(kept.archive.txn)
    kept.days_later(14)
    kept.stores.fail("sessions")
    done = kept.retain()
    assert done.failed == 1
    assert not kept.stores.locks.marked
    assert [event.code for event in kept.events.seen] == ["hold_failed"]
    kept.stores.heal("sessions")
    assert kept.retain().failed == 0


def test_an_object_that_cannot_be_held_stops_no_other(kept: Kept) -> None:
    """Whoever can spoil one object of a day must not free the rest of it; and the day is gone through again."""
    hold = kept.hold(kept.archive.txn)
    kept.days_later(5)
    (first, *_) = sorted(kept.own)
    kept.stores.locks.refusing.add(first)
    done = kept.retain()
    assert done.failed == 1
    assert kept.own - {first} | {ITEM} <= kept.stores.locks.held
    assert not kept.stores.objects.keys(f"held/v1/{hold.id}/2026-11-02")
    kept.stores.locks.refusing.clear()
    assert kept.retain().failed == 0
    assert first in kept.stores.locks.held
    assert kept.stores.objects.keys(f"held/v1/{hold.id}/2026-11-02")


def test_a_bucket_that_refuses_everything_is_not_asked_for_each_object(kept: Kept) -> None:
    """An hour of retries, a million times, would be the run's whole time, and the next one's."""
    kept.hold(kept.archive.txn)
    many = [f"items/v1/chains/2026-11-02/10/{number:03}.ndjson.gz" for number in range(100)]
    for key in many:
        kept.stores.objects.put_new(key, b"{}", content_type="application/json")
    kept.stores.locks.refusing.update(many)
    assert kept.retain().failed == 1
    assert kept.stores.locks.refused <= 20


def test_what_is_no_hold_stops_the_marking_and_is_told(kept: Kept) -> None:
    """Attack: an object under holds/v1 that nobody can read, or a lift under another's name."""
    kept.stores.locks.days = 10
    hold = kept.hold(kept.archive.txn)
    forged = Lift(id=hold.id, reason="", by="x", hop="", at=kept.clock.now()).stored()
    kept.stores.objects.put_new("holds/v1/2026-11-02/a.json", forged, content_type="application/json")
    kept.days_later(14)
    done = kept.retain()
    assert done.failed == 1
    assert not kept.stores.locks.marked
    assert kept.own <= kept.stores.locks.held


def test_what_is_gone_is_counted_and_stops_nothing(kept: Kept) -> None:
    """Verify names it; the rest is held all the same."""
    kept.hold(kept.archive.txn)
    gone = kept.archive.orders.manifest_key
    del kept.stores.objects.rows[gone]
    assert kept.retain().missing == 1
    assert kept.own - {gone} <= kept.stores.locks.held
    with pytest.raises(NotFound):
        kept.stores.locks.hold(gone)


def test_a_run_ends_before_its_function_does(kept: Kept) -> None:
    """Killed in the middle, it would say nothing of what it did; the next run goes on."""
    kept.hold(kept.archive.txn)
    hurried = Retain(stores=kept.stores, clock=kept.clock, audit=kept.events, within_s=-1.0)
    assert not hurried().ended
    assert not kept.stores.locks.held
    assert kept.retain().ended


def test_a_review_says_what_is_held(kept: Kept) -> None:
    """A reader learns it where they read what was done; a lifted one is over."""
    hold = kept.hold("orders-prod")
    other = kept.hold("db-stage")
    review = Review(stores=kept.stores, people=(), clock=kept.clock)(kept.archive.txn)
    assert [(held.id, held.kind, held.reason) for held in review.holds] == [(hold.id, HeldKind.TARGET.value, "case 7")]
    assert other.id not in {held.id for held in review.holds}
    kept.lift(hold)
    assert Review(stores=kept.stores, people=(), clock=kept.clock)(kept.archive.txn).holds == ()


def test_a_hold_covers_by_what_it_names_and_by_the_day(kept: Kept) -> None:
    """A hold from tomorrow on is not on what was made today."""
    session = kept.stores.sessions.get(kept.archive.orders.session_id)
    hold = kept.hold("orders-prod", since=START.date() + timedelta(days=1))
    assert not hold.covers(session)
    assert replace(hold, since=START.date()).covers(session)
    assert not replace(hold, since=START.date(), subject="other").covers(session)
