"""What the hourly digests of some hours say of one session or chain: that each row was counted when it was made.

Two readers. Online, by what a digest names in the clear: sessions, sealed connections and manifests. In a copy besides
by inclusion proofs (``domain.inclusion``): the change that made a row, its place among the leaves of its kind, and a
path to the signed root. So a row that was altered in what no signature of its own covers shows, and one that was never
counted. An hour that is not over, or whose digest is not due yet, shows nothing: how many rows wait is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chalicelib.domain.archived_item import ArchivedItem, item_of_line, items_of
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.digest import (
    FIRST_HOUR,
    HOUR,
    LATE_DAYS,
    HourlyDigest,
    Kind,
    digest_hour,
    digest_key,
    hour_of,
    kind_of,
)
from chalicelib.domain.errors import NotFound
from chalicelib.domain.inclusion import inclusion_path, root_by_path
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.session import Session
from chalicelib.domain.store import Keys
from chalicelib.services.copied_rows import Row, differing_fields, place_of
from chalicelib.services.digest_chain import DigestChain, last_due_hour, read_chain
from chalicelib.services.operations import json_object
from chalicelib.services.reviewed import Finding, FindingKind

_LATE: Final = timedelta(days=LATE_DAYS)  # a change may be archived, and so counted, that much after it was made


@dataclass(frozen=True, kw_only=True, slots=True)
class Inclusion:
    """That one change is leaf ``index`` of its kind in the digest at ``digest``. ``line`` is the change's own line."""

    digest: str
    index: int
    path: tuple[bytes, ...]
    line: bytes

    def text(self) -> bytes:
        """Return it as a line of a copy."""
        said: Mapping[str, Json] = {
            "digest": self.digest,
            "index": self.index,
            "path": [sibling.hex() for sibling in self.path],
            "line": self.line.decode(),
        }
        return canonical(said) + b"\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cover:
    """``digests`` were read, ``counted`` rows are in them, ``pending`` wait for one that is not due yet."""

    digests: int
    counted: int
    pending: int
    findings: tuple[Finding, ...]


def hours_of(rows: Iterable[Row]) -> tuple[datetime, datetime] | None:
    """Return the first and the last hour in which ``rows`` were made, or a connection among them was sealed; None where
    there are none. Pure."""
    moments = [place_of(row).at for row in rows]
    moments += [row.sealed_at for row in rows if isinstance(row, ConnectionRow) and row.sealed_at is not None]
    return (max(hour_of(min(moments)), FIRST_HOUR), hour_of(max(moments))) if moments else None


def read_cover(objects: ReadObjects, keys: Keys, rows: Sequence[Row], now: datetime) -> Cover:
    """Return what the digests of the rows' hours say by name. Raises StoreUnavailable."""
    hours = hours_of(rows)
    if hours is None:
        return Cover(digests=0, counted=0, pending=0, findings=())
    chain = read_chain(objects, None, keys, since=hours[0], now=now, until=min(hours[1] + _LATE, last_due_hour(now)))
    counted, pending, found = _named(chain, rows, now)
    findings = tuple(dict.fromkeys((*chain.findings, *found)))
    return Cover(digests=len(chain.digests), counted=counted, pending=pending, findings=findings)


def included_cover(
    objects: ReadObjects, keys: Keys, rows: Sequence[Row], inclusions: bytes, now: datetime, name: str
) -> Cover:
    """Return what a copy's digests say of its rows, by ``inclusions``, the lines of its file ``name``, and by name."""
    hours = sorted(hour for key in objects.keys("digests/v1/") if (hour := digest_hour(key)) is not None)
    chain, findings = DigestChain(), list[Finding]()
    if hours:
        # The first is there for its hash alone: what the next one names. Where it is the very first it counts too.
        since = hours[1] if len(hours) > 1 and not _is_first(objects, hours[0]) else hours[0]
        chain = read_chain(objects, None, keys, since=since, now=now, until=hours[-1])
        findings += chain.findings
    shown, faults = _shown(inclusions, chain, name)
    findings += faults
    counted = pending = 0
    for row in rows:
        place = place_of(row)
        made = shown.get((place.table, place.key))
        if made is not None:
            counted += 1
            findings += _differs(row, made)
        elif _is_due(place.at, now):
            what = "is in no hourly digest that the copy holds: nothing shows that it was made when it says"
            findings.append(Finding(key=place.name, kind=FindingKind.MISSING, what=what))
        else:
            pending += 1
    found = _named(chain, rows, now)[2]
    missing = {finding.key for finding in findings}
    findings += [finding for finding in found if finding.key not in missing]
    return Cover(digests=len(chain.digests), counted=counted, pending=pending, findings=tuple(dict.fromkeys(findings)))


def inclusions_of(objects: ReadObjects, rows: Sequence[Row], now: datetime) -> tuple[list[Inclusion], list[str]]:
    """Return an inclusion for each row that a digest counted, and the keys of the digests that a copy needs: those that
    count them and those between, with the one before. Nothing is verified: the copy's reader does it.

    Raises StoreUnavailable.
    """
    hours = hours_of(rows)
    if hours is None:
        return [], []
    wanted = {(place.table, place.key) for place in map(place_of, rows)}
    found: list[Inclusion] = []
    used: list[datetime] = []
    hour, last = hours[0], min(hours[1] + _LATE, last_due_hour(now) + HOUR)
    while hour <= last and (wanted or hour <= hours[1]):
        for inclusion, row in _included(objects, hour, wanted):
            found.append(inclusion)
            wanted.discard(row)
            used.append(hour)
        hour += HOUR
    if not used:
        return [], []
    first, end = min(used), max(*used, min(hours[1], last))
    keys = [digest_key(first + HOUR * step) for step in range(-1, int((end - first) / HOUR) + 1)]
    return found, keys


def _included(
    objects: ReadObjects, hour: datetime, wanted: set[tuple[str, str]]
) -> Iterator[tuple[Inclusion, tuple[str, str]]]:
    """Give the wanted rows that the digest of one hour counts."""
    try:
        document = json_object(objects.get(digest_key(hour))) or {}
    except NotFound:
        return
    leaves: dict[Kind, list[ArchivedItem]] = {}
    for change in _changes(objects, document):
        kind = kind_of(change)
        if kind is not None:
            leaves.setdefault(kind, []).append(change)
    for counted in leaves.values():
        hashes = [change.leaf() for change in counted]
        for index, change in enumerate(counted):
            row = change.table, change.key
            if row in wanted:
                path = inclusion_path(hashes, index)
                yield Inclusion(digest=digest_key(hour), index=index, path=path, line=change.line()), row


def _changes(objects: ReadObjects, document: Mapping[str, Any]) -> list[ArchivedItem]:
    found: dict[bytes, ArchivedItem] = {}
    listed = document.get("items")
    for one in listed if isinstance(listed, list) else []:
        try:
            changes, _ = items_of(objects.get(str(one["key"])))
        except (NotFound, KeyError, TypeError):
            continue
        found |= {change.line(): change for change in changes}
    return list(found.values())


def _is_first(objects: ReadObjects, hour: datetime) -> bool:
    document = json_object(objects.get(digest_key(hour))) or {}
    return not document.get("previous_sha256")


def _is_due(at: datetime, now: datetime) -> bool:
    return hour_of(at) <= last_due_hour(now)


def _shown(
    inclusions: bytes, chain: DigestChain, name: str
) -> tuple[dict[tuple[str, str], ArchivedItem], list[Finding]]:
    """Return the changes whose inclusion holds, by row, and what is wrong with the others."""
    digests = {digest_key(hour): found for hour, found in chain.digests.items()}
    shown: dict[tuple[str, str], ArchivedItem] = {}
    findings: list[Finding] = []
    for number, line in enumerate(inclusions.splitlines(keepends=True), 1):
        inclusion = _inclusion(line)
        change = item_of_line(inclusion.line) if inclusion is not None else None
        if inclusion is None or change is None:
            what = f"holds no inclusion in line {number}"
            findings.append(Finding(key=name, kind=FindingKind.ALTERED, what=what))
        elif not _holds(inclusion, change, digests.get(inclusion.digest)):
            what = f"is not what {inclusion.digest} counted: its inclusion does not hold"
            findings.append(Finding(key=change.name(), kind=FindingKind.ALTERED, what=what))
        else:
            shown[change.table, change.key] = change
    return shown, findings


def _inclusion(line: bytes) -> Inclusion | None:
    try:
        said = json.loads(line)
        found = Inclusion(
            digest=str(said["digest"]),
            index=int(said["index"]),
            path=tuple(bytes.fromhex(sibling) for sibling in said["path"]),
            line=str(said["line"]).encode(),
        )
        return found if found.text() == line else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _holds(inclusion: Inclusion, change: ArchivedItem, found: HourlyDigest | None) -> bool:
    kind = kind_of(change)
    tally = found.kinds.get(kind) if found is not None and kind is not None else None
    if tally is None or change.fault:
        return False
    root = root_by_path(change.leaf(), inclusion.index, tally.count, inclusion.path)
    return root is not None and root.hex() == tally.root


def _differs(row: Row, made: ArchivedItem) -> Iterator[Finding]:
    """Give a finding where a row is not what was counted when it was made."""
    place = place_of(row)
    again = differing_fields(row, made.state.document())
    if again:
        what = f"is not the row that was archived when it was made: {', '.join(again)}"
        yield Finding(key=place.name, kind=FindingKind.ALTERED, what=what)


def _named(chain: DigestChain, rows: Sequence[Row], now: datetime) -> tuple[int, int, list[Finding]]:
    """Compare with what the digests name: return how many rows they count, how many wait, and what is wrong."""
    opened = {session for found in chain.digests.values() for session in found.opened}
    sealed = {one for found in chain.digests.values() for one in found.sealed}
    manifests = {listed.key: listed.sha256 for found in chain.digests.values() for listed in found.manifests}
    broken = bool(chain.findings)  # then what is not counted may be in a digest that does not hold
    counted = pending = 0
    findings: list[Finding] = []
    for row in rows:
        at, there, what = _witness(row, opened, sealed)
        if at is None:
            continue
        if there:
            counted += 1
        elif not _is_due(at, now) or broken:
            pending += 1
        else:
            findings.append(Finding(key=place_of(row).name, kind=FindingKind.MISSING, what=what))
        sealed_with = manifests.get(row.manifest_key) if isinstance(row, ConnectionRow) else None
        if isinstance(row, ConnectionRow) and sealed_with not in (None, row.manifest_sha256):
            what = "is not the manifest that an hourly digest counted"
            findings.append(Finding(key=row.manifest_key, kind=FindingKind.REPLACED, what=what))
    return counted, pending, findings


def _witness(row: Row, opened: set[str], sealed: set[str]) -> tuple[datetime | None, bool, str]:
    """Return when a digest must have named a row (None: none names it), whether one did, and what it means if not."""
    match row:
        case Session():
            return row.created_at, row.id in opened, "was counted by no hourly digest when it was opened"
        case ConnectionRow() if row.sealed_at is not None:
            there = f"{row.session_id}/{row.id}" in sealed
            return row.sealed_at, there, "was counted by no hourly digest when it was sealed"
        case _:
            return None, False, ""
