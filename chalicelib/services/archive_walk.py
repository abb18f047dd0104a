"""Walks what the digests count: every object that they list, and everything that lies there and that they do not list.

What is checked: each listed object is there and hashes to what its digest says; each digest's counts, roots and lists
follow from those objects and the digest before; no object is listed twice; each manifest that a row was sealed with is
there; what lies in the archive and is listed by no digest is either so new that the next one lists it, or a finding. It
gives every change that it meets to whoever folds them. Reads only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from chalicelib.domain.archived_item import ITEMS, TABLE_KEYS, ArchivedItem, ends, item_key, items_of
from chalicelib.domain.canonical import sha256_hex, timestamp
from chalicelib.domain.digest import (
    HOUR,
    LATE_DAYS,
    OBJECT_KINDS,
    Archived,
    HourlyDigest,
    Listed,
    archived_hour,
    digest_of,
    late_dates,
    sealed_manifest,
)
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.event_columns import EVENTS
from chalicelib.domain.reading import ReadObjects
from chalicelib.services.digest_chain import DigestChain
from chalicelib.services.recordings import manifest_of
from chalicelib.services.reviewed import Finding, FindingKind

MANIFESTS: Final = "manifests/v1"
_LISTED_WITHIN: Final = timedelta(days=LATE_DAYS + 1)
Meet = Callable[[ArchivedItem, str], None]


@dataclass(kw_only=True, slots=True)
class Walk:
    """What was met. ``named`` is each listed object's key; ``pending`` how many objects wait for the next digest;
    ``manifests`` those that rows were sealed with."""

    named: set[str] = field(default_factory=set)
    manifests: dict[str, str] = field(default_factory=dict)
    objects: int = 0
    pending: int = 0
    findings: list[Finding] = field(default_factory=list)


class ArchiveWalk:
    """Walks one archive from the day of ``since``, or from its first digest, until ``now``."""

    def __init__(self, objects: ReadObjects, meet: Meet, events: Callable[[str, bytes], None]) -> None:
        """``events`` is given each object of events that is met, by its key."""
        self._objects = objects
        self._meet = meet
        self._events = events
        self._without: list[datetime] = []
        self.walk = Walk()

    def digested(self, chain: DigestChain) -> None:
        """Check what the digests list. Raises StoreUnavailable."""
        hour, last = chain.first, chain.last
        while hour is not None and last is not None and hour <= last:
            if hour not in chain.digests:
                self._without.append(hour)
            hour += HOUR
        for hour in sorted(chain.digests):
            before = chain.digests.get(hour - HOUR)
            if before is None and hour == chain.first:
                before = chain.before
            self._digest(chain.digests[hour], before, first=not chain.digests[hour].previous_sha256)

    def undigested(self, start: datetime, upcoming: datetime, now: datetime) -> None:
        """Meet what lies there and is not listed yet; call again for what has come since. ``upcoming`` is the hour of
        the next digest: what it will list waits for it, and what lies further back is a finding."""
        window = late_dates(upcoming)
        for key in self._lying(start, now):
            if key in self.walk.named:
                continue
            self.walk.named.add(key)
            hour = archived_hour(key)
            if hour is not None and any(hour <= lacking <= hour + _LISTED_WITHIN for lacking in self._without):
                pass  # the digest that lists it may be one that does not hold: that has its finding
            elif hour is None or timestamp(hour)[:10] < window[0]:
                what = "lies in the archive, and no digest lists it"
                self.walk.findings.append(Finding(key=key, kind=FindingKind.EXTRA, what=what))
            else:
                self.walk.pending += 1
            if key.startswith(f"{ITEMS}/"):
                self._changes(key, self._objects.get(key))
            elif key.startswith(EVENTS):
                self._events(key, self._objects.get(key))

    def sealed(self, start: datetime, now: datetime, open_connections: frozenset[str]) -> None:
        """Check that each manifest that a row names is there, and that no other is: one whose row is not sealed yet may
        be (``SESSION/CONNECTION``), since it is put before its row is sealed."""
        there: set[str] = set()
        for date in _dates(start, now):
            there |= set(self._objects.keys(f"{MANIFESTS}/{date}/"))
        for key, sha256 in self.walk.manifests.items():
            self._manifest(key, sha256)
        for key in sorted(there - set(self.walk.manifests)):
            connection = key.removesuffix(".json").split("/", 3)[-1]
            if connection not in open_connections:
                what = "is a manifest that no row was ever sealed with"
                self.walk.findings.append(Finding(key=key, kind=FindingKind.EXTRA, what=what))

    def _digest(self, found: HourlyDigest, before: HourlyDigest | None, *, first: bool) -> None:
        sound = len(self.walk.findings)
        changes: list[ArchivedItem] = []
        for listed in found.items:
            stored = self._listed(listed, found.key)
            if stored is not None:
                changes += self._changes(listed.key, stored)
        for listed in found.objects:
            stored = self._listed(listed, found.key)
            if stored is not None and listed.key.startswith(EVENTS):
                self._events(listed.key, stored)
        if len(self.walk.findings) > sound or (before is None and not first):
            return  # what is wrong has its name already, or there is nothing to count on from
        archived = Archived(
            items=found.items, objects=found.objects, changes=tuple(changes), unreadable=found.unreadable
        )
        try:
            again = digest_of(
                found.hour,
                before,
                archived,
                previous_sha256=found.previous_sha256,
                made_at=found.made_at,
                version=found.version,
            ).counted()
            wrong = sorted(name for name, value in again.items() if found.counted()[name] != value)
        except ValueError:  # it lists objects of no kind that is counted
            wrong = ["objects"]
        if wrong:
            what = f"counts otherwise than what it lists: {', '.join(wrong)}"
            self.walk.findings.append(Finding(key=found.key, kind=FindingKind.ALTERED, what=what))

    def _listed(self, listed: Listed, by: str) -> bytes | None:
        """Return the bytes of a listed object, None where there are none."""
        if listed.key in self.walk.named:
            what = f"is listed by two digests, {by} the later"
            self.walk.findings.append(Finding(key=listed.key, kind=FindingKind.ORDER, what=what))
            return None
        self.walk.named.add(listed.key)
        self.walk.objects += 1
        try:
            stored = self._objects.get(listed.key)
        except NotFound:
            what = f"is missing: {by} lists it"
            self.walk.findings.append(Finding(key=listed.key, kind=FindingKind.MISSING, what=what))
            return None
        if sha256_hex(stored) != listed.sha256:
            self.walk.findings.append(_changed(listed.key, stored, by))
        return stored

    def _changes(self, key: str, stored: bytes) -> list[ArchivedItem]:
        found, whole = items_of(stored)
        if not whole and all(finding.key != key for finding in self.walk.findings):
            what = "holds something else than changes of rows"
            self.walk.findings.append(Finding(key=key, kind=FindingKind.ALTERED, what=what))
        if found and key != item_key(found[0].table, found[0].sequence, found[0].at):
            what = "is not where its first change belongs: it was put by somebody else, or moved"
            self.walk.findings.append(Finding(key=key, kind=FindingKind.ORDER, what=what))
        for change in found:
            self._meet(change, key)
            sealed = sealed_manifest(change)
            if sealed is not None and sealed[1] is not None:
                self.walk.manifests.setdefault(
                    sealed[1].key, sealed[1].sha256
                )  # sealed once: what came later is a fault
        return found

    def _manifest(self, key: str, sha256: str) -> None:
        try:
            same = manifest_of(self._objects.get(key)).sha256() == sha256
        except NotFound:
            what = "is missing: a row was sealed with it"
            self.walk.findings.append(Finding(key=key, kind=FindingKind.MISSING, what=what))
        except ProofInvalid as error:
            self.walk.findings.append(Finding(key=key, kind=FindingKind.ALTERED, what=error.public))
        else:
            if not same:
                what = "is not the manifest that its row was sealed with"
                self.walk.findings.append(Finding(key=key, kind=FindingKind.REPLACED, what=what))

    def _lying(self, start: datetime, now: datetime) -> Iterator[str]:
        for date in _dates(start, now):
            for prefix in (*(f"{ITEMS}/{table}/" for table in TABLE_KEYS), *OBJECT_KINDS):
                yield from self._objects.keys(f"{prefix}{date}/")


def _changed(key: str, stored: bytes, by: str) -> Finding:
    kind, what = (FindingKind.ALTERED, "was changed") if ends(stored) else (FindingKind.TRUNCATED, "was cut")
    return Finding(key=key, kind=kind, what=f"{what}: it is not the object that {by} lists")


def _dates(start: datetime, now: datetime) -> Iterator[str]:
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= now:
        yield timestamp(day)[:10]
        day += timedelta(days=1)
