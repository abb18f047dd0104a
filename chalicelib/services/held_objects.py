"""Which objects a session's evidence is made of, and which are over: what a hold holds and a lifecycle may delete.

A session's own are its segments and manifests, and its chain's kept token. Items, events, digests, boots and sign-offs
are shared by many sessions, by day: without those of its days nothing shows that the rest is whole, so a hold on one
session holds the days' too. Bundles, holds and what they reached are never over. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from chalicelib.domain.archived_item import ITEMS, TABLE_KEYS
from chalicelib.domain.digest import LATE_DAYS
from chalicelib.domain.identifiers import SessionId, Txn, made_at
from chalicelib.domain.legal_hold import HeldKind, LegalHold
from chalicelib.domain.reading import ReadConnections, ReadObjects, ReadSessions
from chalicelib.domain.session import Session

DAY: Final = timedelta(days=1)
# A session lives 12 hours at most, and what was open when its broker died is sealed within minutes of that.
SESSION_DAYS: Final = 1
_SHARED: Final = (
    "boots/v1/{day}/",
    "signoffs/v1/{day}/",
    "copies/v1/{day}/",
    "digests/v1/{day}/",
    "events/v1/date={day}/",
)


class HeldObjects:
    """Finds them. ``today`` is never asked: days are arguments."""

    def __init__(self, *, objects: ReadObjects, sessions: ReadSessions, connections: ReadConnections) -> None:
        self._objects = objects
        self._sessions = sessions
        self._connections = connections

    def sessions(self, hold: LegalHold, day: date) -> list[Session]:
        """Return the sessions of ``day`` that ``hold`` is on."""
        match hold.kind:
            case HeldKind.SESSION:
                found: Sequence[Session] = self._sessions.get_many([SessionId(hold.subject)])
            case HeldKind.CHAIN:
                found = self._sessions.of_txn(Txn(hold.subject))
            case HeldKind.TARGET:
                found = self._sessions.get_many(self._sessions.created_on(day))
        return [one for one in found if hold.covers(one) and one.created_at.astimezone(UTC).date() == day]

    def own(self, session: Session) -> list[str]:
        """Return the keys of what is the session's alone."""
        manifests = [row.manifest_key for row in self._connections.of_session(session.id) if row.manifest_key]
        kept = self._objects.keys(f"kept/v1/{session.txn}.json")
        return [*self._objects.keys(f"rec/v1/{session.id}/"), *manifests, *kept]

    def sealed(self, session: Session) -> bool:
        """Say whether the session writes nothing more."""
        return all(row.sealed_at is not None for row in self._connections.of_session(session.id))

    def shared(self, day: date) -> list[str]:
        """Return the keys of what all sessions of ``day`` share."""
        prefixes = [f"{ITEMS}/{table}/{day}/" for table in TABLE_KEYS]
        prefixes += [prefix.format(day=day) for prefix in _SHARED]
        return [key for prefix in prefixes for key in self._objects.keys(prefix)]

    def of_day(self, day: date) -> list[str]:
        """Return the keys of all that was put for ``day``: shared, and every session's that was made on it."""
        own = [key for session in self._sessions.created_on(day) for key in self._objects.keys(f"rec/v1/{session}/")]
        return [*self.shared(day), *self._objects.keys(f"manifests/v1/{day}/"), *own]


def days_of(session: Session) -> Iterator[date]:
    """Give the days (UTC) whose shared objects tell of ``session``: from its chain's first to the last digest that may
    name something of it. Pure."""
    day, last = (
        made_at(session.txn).date(),
        session.created_at.astimezone(UTC).date() + (SESSION_DAYS + LATE_DAYS) * DAY,
    )
    while day <= last:
        yield day
        day += DAY


def is_over(day: date, now: datetime) -> bool:
    """Say whether nothing more is written that tells of a session made on ``day``. Pure."""
    return day + (SESSION_DAYS + LATE_DAYS) * DAY < now.astimezone(UTC).date()
