"""Carries holds out, and marks what is over for the bucket's lifecycle: the one place that decides what may go.

Rules: holds come first, in every run; an object is marked when its own lock is over and no hold is on it, and never
before, whatever its age. What a hold reaches of a day is written down (``held/v1/HOLD/DAY.json``) when the day is over;
until then the day is looked at again, so that a hold reaches what is written later: that is under its lock meanwhile.
A day is marked once for each length of lock that was found in it (``marked/v1/DAY/DAYS.json``; what is kept longer is
noted as ``DAYS.due``). A lift takes a hold off what no other hold is on. Any number may run; each step may be repeated.
It ends by itself before its function does, and goes on at the next run. What it cannot do is an event, and while a hold
could not be carried out nothing is marked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date
from functools import partial
from typing import Final, TypeVar

from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json, canonical, timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, AlreadyExists, NotFound
from chalicelib.domain.identifiers import LegalHoldId
from chalicelib.domain.legal_hold import HELD, HeldKind, LegalHold
from chalicelib.domain.session import Session
from chalicelib.domain.store import Locks, Stores
from chalicelib.services.at_once import at_once
from chalicelib.services.held_objects import DAY, HeldObjects, days_of, is_over
from chalicelib.services.legal_holds import Holds, read_holds

MARKED: Final = "marked/v1"
MOST_BACK: Final = 40  # days before the youngest that is over: a month of missed runs is made up, and a week besides
_LIFTED: Final = "lifted.json"
_JSON: Final = "application/json"
_SLACK_DAYS: Final = 2  # an object of a day is put a day later at most, and its lock ends at an hour of the day
# One object that cannot be held stops no other, and a bucket that is out of reach stops the run: it would be asked for
# each of a million, seconds each.
_MOST_FAILED: Final = 20
_AT_ONCE: Final = 1000  # so often the time is looked at: some seconds of calls
_DUE: Final = re.compile(rf"{MARKED}/(\d{{4}}-\d\d-\d\d)/(\d{{1,5}})\.due\.json\Z")
T = TypeVar("T")


class OutOfTime(Exception):
    """The run's time is over; the next one goes on."""


@dataclass(kw_only=True, slots=True)
class Retained:
    """What a run did, in objects; ``failed`` holds and days that must be looked at; ``ended``: it came to the end."""

    held: int = 0
    lifted: int = 0
    marked: int = 0
    missing: int = 0
    failed: int = 0
    ended: bool = True

    def told(self) -> dict[str, Json]:
        return {
            "held": self.held,
            "lifted": self.lifted,
            "marked": self.marked,
            "missing": self.missing,
            "failed": self.failed,
            "ended": self.ended,
        }


class Retain:
    """One run a call. ``within_s``: how long it may take; ``workers``: how many objects at once."""

    def __init__(
        self, *, stores: Stores, clock: Clock, audit: AuditLog, within_s: float = 840.0, workers: int = 1
    ) -> None:
        self._objects = stores.objects
        self._locks: Locks = stores.locks
        self._find = HeldObjects(objects=stores.objects, sessions=stores.sessions, connections=stores.connections)
        self._clock = clock
        self._audit = audit
        self._within_s = within_s
        self._workers = workers
        # Held by this process before, for each hold: a warm one asks for the same days every hour. Never across holds:
        # what one reached may have been let go since, by another process.
        self._known: dict[LegalHoldId, set[str]] = {}
        self._done = Retained()
        self._until_s = 0.0

    def __call__(self) -> Retained:
        """Do what is due. Raises StoreUnavailable where the holds cannot be read: then nothing is marked either."""
        self._done = Retained()
        self._until_s = self._clock.monotonic_s() + self._within_s
        holds = read_holds(self._objects)
        for key in holds.unreadable:
            self._failed(key, "it is no hold of ours")
        self._known = {hold.id: self._known.get(hold.id, set()) for hold in holds.active}
        try:
            # Marking waits for every hold: one that could not be carried out may be on anything.
            carried = [self._carried(hold) for hold in holds.active]  # all of them, whatever became of one
            if all(carried) and not holds.unreadable:
                for hold in holds.all:
                    if hold.id in holds.lifts:
                        self._lift(hold, holds)
                self._mark_what_is_over(holds)
        except OutOfTime:
            self._done.ended = False
        return self._done

    # -- holds -----------------------------------------------------------------------------------------------------

    def _carried(self, hold: LegalHold) -> bool:
        """Carry a hold out, day by day; say whether all of it was. A day that failed is gone through again by the next
        run, and what of it could be held is held meanwhile."""
        wrong: list[str] = []
        try:
            reached = frozenset(self._objects.keys(f"{HELD}/{hold.id}/"))
            for day in self._days(hold):
                key = f"{HELD}/{hold.id}/{day}.json"
                if key not in reached and len(wrong) < _MOST_FAILED:
                    wrong += self._reach(hold, day, key)
        except AccessError as error:
            wrong.append(error.code)
        if wrong:
            self._failed(hold.id, wrong[0], hold)
        return not wrong

    def _days(self, hold: LegalHold) -> Iterator[date]:
        """Give the days on which a session of ``hold`` may have been made."""
        today = self._clock.now().astimezone(UTC).date()
        # A chain's last session is made within the hours that its root lives: a day later at most.
        last = {HeldKind.SESSION: hold.since + DAY, HeldKind.CHAIN: hold.since + 2 * DAY, HeldKind.TARGET: today}
        day = hold.since
        while day <= min(today, last[hold.kind]):
            yield day
            day += DAY

    def _reach(self, hold: LegalHold, day: date, marker: str) -> list[str]:
        """Hold what ``hold`` reaches of a day, and write that down where the day is over. Return the codes of what
        refused: then it is not written down."""
        sessions = self._find.sessions(hold, day)
        keys = self._keys_of(sessions)
        wrong: list[str] = []

        def held(key: str) -> bool:
            try:
                return self._hold(self._known[hold.id], key)
            except AccessError as error:
                wrong.append(error.code)
                if len(wrong) >= _MOST_FAILED:
                    raise
                return True

        there = self._each(held, keys)
        if wrong:
            return wrong
        missing = [key for key, found in zip(keys, there, strict=True) if not found]
        if not is_over(day, self._clock.now()) or not all(self._find.sealed(session) for session in sessions):
            return []
        told: Json = {
            "v": 1,
            "hold": hold.id,
            "day": str(day),
            "sessions": [session.id for session in sessions],
            "objects": len(keys) - len(missing),
            "missing": missing[:100],
            "at": timestamp(self._clock.now()),
        }
        self._put(marker, told)
        if sessions:
            self._record(AuditName.HOLD_APPLIED, marker, f"{len(sessions)} sessions, {len(keys)} objects", hold)
        return []

    def _keys_of(self, sessions: Sequence[Session]) -> list[str]:
        own = [key for session in sessions for key in self._find.own(session)]
        days = {day for session in sessions for day in days_of(session)}
        today = self._clock.now().astimezone(UTC).date()
        return [*own, *(key for day in sorted(days) if day <= today for key in self._find.shared(day))]

    def _hold(self, known: set[str], key: str) -> bool:
        if key in known:
            return True
        try:
            self._locks.hold(key)
        except NotFound:
            self._done.missing += 1  # verify names it: a hold does not stop at what is gone
            return False
        known.add(key)
        self._done.held += 1
        return True

    def _lift(self, hold: LegalHold, holds: Holds) -> None:
        marker = f"{HELD}/{hold.id}/{_LIFTED}"
        if self._objects.keys(marker):
            return
        try:
            others = [session for other in holds.active for session in self._all_sessions(other)]
            still = frozenset(self._keys_of(others))
            keys = [key for key in self._keys_of(self._all_sessions(hold)) if key not in still]
            self._each(self._let_go, keys)
            self._hold_again(holds)
            self._put(marker, {"v": 1, "hold": hold.id, "objects": len(keys), "at": timestamp(self._clock.now())})
        except AccessError as error:
            self._failed(hold.id, error.code, hold)

    def _hold_again(self, holds: Holds) -> None:
        """Hold what a run beside this one did for a hold that was put meanwhile: its days count as gone through."""
        for newer in read_holds(self._objects).active:
            if newer not in holds.active:
                self._each(partial(self._hold, set()), self._keys_of(self._all_sessions(newer)))

    def _all_sessions(self, hold: LegalHold) -> list[Session]:
        return [session for day in self._days(hold) for session in self._find.sessions(hold, day)]

    def _let_go(self, key: str) -> bool:
        try:
            if not self._locks.facts(key).held:
                return False
            self._locks.lift(key)
            there = self._locks.facts(key)
        except NotFound:
            return False
        self._done.lifted += 1
        if there.kept_until is not None and there.kept_until < self._clock.now():
            self._locks.mark(key)  # its day was gone through while it was held
            self._done.marked += 1
        return True

    # -- what is over ----------------------------------------------------------------------------------------------

    def _mark_what_is_over(self, holds: Holds) -> None:
        default = self._locks.default_days()
        if not default:
            return
        today = self._clock.now().astimezone(UTC).date()
        done = frozenset(self._objects.keys(f"{MARKED}/"))
        youngest = today - (default + _SLACK_DAYS) * DAY
        due = {(youngest - back * DAY, default) for back in range(MOST_BACK)}
        for key in done:
            noted = _DUE.match(key)
            if noted is not None:
                due.add((date.fromisoformat(noted[1]), int(noted[2])))
        for day, days in sorted(due):
            if f"{MARKED}/{day}/{days}.json" in done or day + (days + _SLACK_DAYS) * DAY > today:
                continue
            if read_holds(self._objects).active != holds.active:
                return  # one was put meanwhile: it comes first, in the next run
            self._mark_day(day, days)

    def _mark_day(self, day: date, days: int) -> None:
        try:
            later = {due for due in self._each(partial(self._mark, day), self._find.of_day(day)) if due is not None}
            for due in later:
                with suppress(AlreadyExists):
                    self._put(f"{MARKED}/{day}/{max(due, days + 1)}.due.json", {"v": 1, "day": str(day)})
            self._put(f"{MARKED}/{day}/{days}.json", {"v": 1, "day": str(day), "at": timestamp(self._clock.now())})
        except AccessError as error:
            self._failed(f"{MARKED}/{day}", error.code)

    def _mark(self, day: date, key: str) -> int | None:
        """Mark an object that is over. Return after how many days from ``day`` it may be, where it is not yet."""
        try:
            there = self._locks.facts(key)
            if there.kept_until is None or there.held:
                return None  # without a lock nobody said how long it stays; what is held is marked when it is lifted
            if there.kept_until >= self._clock.now():
                return (there.kept_until.astimezone(UTC).date() - day).days
            if not there.marked:
                self._locks.mark(key)
                self._done.marked += 1
        except NotFound:
            return None
        return None

    # -- each and all ----------------------------------------------------------------------------------------------

    def _each(self, do: Callable[[str], T], keys: Sequence[str]) -> list[T]:
        found: list[T] = []
        for start in range(0, len(keys), _AT_ONCE):
            if self._clock.monotonic_s() > self._until_s:
                raise OutOfTime
            found += at_once(do, keys[start : start + _AT_ONCE], self._workers)
        return found

    def _put(self, key: str, told: Json) -> None:
        with suppress(AlreadyExists):  # a run beside this one was faster
            self._objects.put_new(key, canonical(told), content_type=_JSON)

    def _failed(self, subject: str, why: str, hold: LegalHold | None = None) -> None:
        self._done.failed += 1
        self._record(AuditName.HOLD_FAILED, subject, why, hold, code="hold_failed")

    def _record(self, name: AuditName, subject: str, why: str, hold: LegalHold | None, *, code: str = "") -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                subject=subject,
                code=code,
                txn=hold.subject if hold is not None and hold.kind is HeldKind.CHAIN else "",
                session_id=hold.subject if hold is not None and hold.kind is HeldKind.SESSION else "",
                target=hold.subject if hold is not None and hold.kind is HeldKind.TARGET else "",
                why=why,
            )
        )
