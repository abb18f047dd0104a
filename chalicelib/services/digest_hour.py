"""Makes the hourly digests: each hour once, in order, late ones too, and a copy of each in the second bucket.

Rules: an hour is counted when it is over and settled; hours that were missed are made up in order, so that each names
the one before; what is there is never made again (``If-None-Match``), whoever runs beside this. The first digest is of
the hour in which the first change was archived. It reads what it counts, and puts digests: nothing else. An object that
holds something else than we write is counted and named, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from chalicelib.domain.archived_item import ITEMS, TABLE_KEYS, ArchivedItem, items_of
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import sha256_hex, timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.digest import (
    DIGESTS,
    HOUR,
    OBJECT_KINDS,
    Archived,
    HourlyDigest,
    Listed,
    archived_hour,
    digest_hour,
    digest_key,
    digest_of,
    earliest_named,
    last_settled_hour,
    late_dates,
    parse_digest,
)
from chalicelib.domain.errors import AlreadyExists
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.store import Objects, RunningCode, Signer
from chalicelib.identity.jws import sign_digest

# So that a run ends within its function's 15 minutes; a week of missed hours is made up in four runs.
MOST_HOURS: Final = 48
_JSON: Final = "application/json"


class DigestHours:
    """Makes digests. ``copies`` is the second bucket, None where there is none. Idempotent."""

    def __init__(
        self,
        *,
        objects: Objects,
        copies: Objects | None,
        signer: Signer,
        code: RunningCode,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        """``code`` says what runs: a digest that could not say it is not made, and made up by the next run."""
        self._objects = objects
        self._copies = copies
        self._signer = signer
        self._code = code
        self._clock = clock
        self._audit = audit

    def __call__(self) -> Sequence[str]:
        """Make what is due, and return the keys of the digests that this call made.

        Raises StoreUnavailable, NotFound and ProofInvalid where a digest before, or what code runs, cannot be read:
        then no further one is made, since it could not name it.
        """
        made: list[str] = []
        known = Digests(self._objects)
        last = known.last(self._clock.now())
        hour = last + HOUR if last is not None else self._first_hour()
        until = min(last_settled_hour(self._clock.now()), hour + (MOST_HOURS - 1) * HOUR)
        while hour <= until:
            if self._make(hour, known):
                made.append(digest_key(hour))
            hour += HOUR
        self._copy(known, until)
        return made

    def _first_hour(self) -> datetime:
        keys = (key for table in TABLE_KEYS for key in self._objects.keys(f"{ITEMS}/{table}/"))
        hours = [hour for key in keys if (hour := archived_hour(key)) is not None]
        return min(hours, default=last_settled_hour(self._clock.now()))

    def _make(self, hour: datetime, known: Digests) -> bool:
        stored = known.stored(hour - HOUR)
        unsigned = digest_of(
            hour,
            parse_digest(stored) if stored is not None else None,
            unnamed(self._objects, hour, known.named(hour)),
            previous_sha256=sha256_hex(stored) if stored is not None else "",
            made_at=self._clock.now(),
            code=self._code.now(),
        )
        made = sign_digest(self._signer, unsigned)
        try:
            self._objects.put_new(made.key, made.stored(), content_type=_JSON)
        except AlreadyExists:
            return False  # another run made it a moment ago
        self._audit.record(
            AuditEvent(name=AuditName.DIGEST_MADE, at=made.made_at, subject=made.key, why=_summary(made))
        )
        return True

    def _copy(self, known: Digests, until: datetime) -> None:
        """Put what the second bucket lacks of the days that a late object may still be named in."""
        if self._copies is None:
            return
        for date in late_dates(until):
            there = frozenset(self._copies.keys(f"{DIGESTS}/{date}/"))
            for key in sorted(self._objects.keys(f"{DIGESTS}/{date}/")):
                hour = digest_hour(key)
                if hour is None or key in there:
                    continue
                stored = known.stored(hour)
                if stored is None:
                    continue
                try:
                    self._copies.put_new(key, stored, content_type=_JSON)
                except AlreadyExists:
                    continue


class Digests:
    """The digests of a bucket, each read once."""

    def __init__(self, objects: ReadObjects) -> None:
        self._objects = objects
        self._keys: dict[str, frozenset[str]] = {}
        self._read: dict[datetime, bytes] = {}

    def last(self, now: datetime) -> datetime | None:
        """Return the hour of the newest digest, None where there is none. Looks at this month and the one before, and
        at all years only where these have none."""
        months = (now, now.replace(day=1) - HOUR * 24)
        for prefix in (*(timestamp(month)[:7] for month in months), ""):
            hours = (digest_hour(key) for key in self._objects.keys(f"{DIGESTS}/{prefix}"))
            newest = max((hour for hour in hours if hour is not None), default=None)
            if newest is not None:
                return newest
        return None

    def stored(self, hour: datetime) -> bytes | None:
        """Return the bytes of the digest of ``hour``, None where there is none."""
        if hour not in self._read:
            key = digest_key(hour)
            if not self._objects.keys(key):
                return None
            self._read[hour] = self._objects.get(key)
        return self._read[hour]

    def named(self, hour: datetime) -> frozenset[str]:
        """Return the keys of the objects that digests before ``hour`` have named, of those that it may come upon."""
        found: set[str] = set()
        before = earliest_named(hour)
        while before < hour:
            stored = self.stored(before)
            if stored is not None:
                one = parse_digest(stored)
                found |= {listed.key for listed in (*one.items, *one.objects)}
            before += HOUR
        return frozenset(found)


def unnamed(objects: ReadObjects, hour: datetime, named: frozenset[str]) -> Archived:
    """Return what lies under ``hour`` and the ``LATE_DAYS`` before it and is not in ``named``, in order of key."""
    items: list[Listed] = []
    others: list[Listed] = []
    changes: list[ArchivedItem] = []
    unreadable: list[str] = []
    for key in archived_keys(objects, hour):
        if key in named:
            continue
        stored = objects.get(key)
        listed = Listed(key=key, sha256=sha256_hex(stored))
        if not key.startswith(f"{ITEMS}/"):
            others.append(listed)
            continue
        found, whole = items_of(stored)
        items.append(listed)
        changes += found
        if not whole:
            unreadable.append(key)
    return Archived(items=tuple(items), objects=tuple(others), changes=tuple(changes), unreadable=tuple(unreadable))


def archived_keys(objects: ReadObjects, hour: datetime) -> Iterator[str]:
    """Give the keys of objects that the digest of ``hour`` looks at, in order."""
    dates = late_dates(hour)
    prefixes = [f"{ITEMS}/{table}/{date}/" for table in sorted(TABLE_KEYS) for date in dates]
    prefixes += [f"{prefix}{date}/" for prefix in OBJECT_KINDS for date in dates]
    for prefix in prefixes:
        for key in sorted(objects.keys(prefix)):
            found = archived_hour(key)
            if found is not None and found <= hour:
                yield key


def _summary(made: HourlyDigest) -> str:
    return ", ".join(f"{tally.count} {kind.value}" for kind, tally in made.kinds.items() if tally.count)
