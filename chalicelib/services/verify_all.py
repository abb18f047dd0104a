"""Verifies the whole archive, or all since a day: the digests, all that they count, the tables, and every chain.

What ``services.verify`` cannot see is seen here: that a *whole* session was removed with its hops and rows, that a row
was edited or never made, that an object or a digest is gone. The walk starts from the hourly digests, which a key of
its own signs and a second account may keep; from there to the archived changes, from these to the rows that must be in
the tables, and to the chains that must verify. What was archived since the last digest is met too, and said to be that.

What it cannot show: a change that was made while nothing listened to the tables' streams, and undone before anybody
looked; and whatever happened with a target past this service. Reads with an auditor's rights; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Final

from chalicelib.domain.archived_item import ITEMS, TABLE_KEYS, Rows
from chalicelib.domain.canonical import Json, sha256_hex, timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import BOOTS
from chalicelib.domain.digest import DIGESTS, FIRST_HOUR, HOUR, archived_hour, digest_key, hour_of, last_settled_hour
from chalicelib.domain.identifiers import ulid_prefixes
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.store import Keys
from chalicelib.services.anchors import Anchors
from chalicelib.services.archive_walk import ArchiveWalk
from chalicelib.services.boots import RowsOfBoot, boot_findings
from chalicelib.services.code_changes import CodeChange, code_changes
from chalicelib.services.configurations import archived_configuration_findings
from chalicelib.services.digest_chain import DigestChain, read_chain
from chalicelib.services.event_numbers import EventNumbers, ended_boots
from chalicelib.services.operations import moment_of
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.row_check import row_findings
from chalicelib.services.row_fold import RowFold
from chalicelib.services.signed_objects import signed_object_findings
from chalicelib.services.verify import Anchor, Checked, EvidenceSource, TrustedKeys, trusted_keys, verify

# A change is archived within Lambda's batching window and a retry or two; longer than this it did not get there.
SETTLE_S: Final = 5.0
SETTLE_TRIES: Final = 6
_STILL_OPEN: Final = timedelta(minutes=15)  # a connection ends with its grant, and a dead one is swept within minutes


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How much was looked at."""

    digests: int = 0
    objects: int = 0
    changes: int = 0
    rows: int = 0
    events: int = 0
    chains: int = 0
    checked: Checked = field(default_factory=Checked)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveVerification:
    """``since`` is the first hour, empty where there is none; ``head`` names the last digest and ``head_sha256`` its
    bytes' hash: written down elsewhere, it stands for the whole archive up to there. ``pending`` objects are newer than
    it; ``open`` connections are still running; ``code`` is which code changed, no finding of ours;
    ``tables``: the live tables were compared. ``holds``: no finding, and somebody vouches for the keys."""

    since: str
    head: str
    head_sha256: str
    anchor: Anchor
    counted: Counted
    pending: int
    open: int
    findings: tuple[Finding, ...]
    code: tuple[CodeChange, ...] = ()
    tables: bool = True

    @property
    def holds(self) -> bool:
        return not self.findings and self.anchor is not Anchor.NOBODY

    def as_json(self) -> Mapping[str, Json]:
        """Return it as JSON values. Pure."""
        counted = self.counted
        numbers = {one.name: getattr(counted, one.name) for one in fields(counted) if one.name != "checked"}
        chains = {one.name: getattr(counted.checked, one.name) for one in fields(counted.checked)}
        return {
            "since": self.since,
            "head": self.head,
            "head_sha256": self.head_sha256,
            "verified": self.holds,
            "anchored_by": self.anchor.value,
            "tables_compared": self.tables,
            "checked": {**numbers, **chains},
            "pending": self.pending,
            "open": self.open,
            "code_changes": [one.as_json() for one in self.code],
            "findings": [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in self.findings],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveSource:
    """Where the archive, the tables and the chains are read. ``copies`` is the second bucket, None where there is
    none; ``rows`` are the live tables, None where nobody can look at them: a downloaded bucket, whose rows are those
    that its archive leaves; ``boots`` gives the connection rows of a broker's boot."""

    evidence: EvidenceSource
    objects: ReadObjects
    copies: ReadObjects | None
    rows: Rows | None
    boots: RowsOfBoot


def verify_all(
    source: ArchiveSource,
    anchors: Anchors | None,
    clock: Clock,
    *,
    since: datetime | None,
    pause: Callable[[float], None],
    head: str = "",
) -> ArchiveVerification:
    """Return what the archive shows, from the day of ``since`` on or from the beginning where it is None. ``pause``
    waits for seconds; ``head`` is the SHA-256 of a digest that somebody wrote down when it was the last, empty where
    nobody did. Idempotent, writes nothing.

    Raises StoreUnavailable; everything that is wrong with the evidence is a finding.
    """
    trusted = trusted_keys(source.evidence, anchors)
    now, whole = clock.now(), since is None
    chain = read_chain(source.objects, source.copies, trusted.keys, since=since, now=now)
    start = since or _beginning(source.objects, chain) or hour_of(now)
    fold = RowFold()
    numbers = EventNumbers(now)
    walking = ArchiveWalk(source.objects, fold.meet, numbers.meet)
    walking.digested(chain)
    upcoming = chain.last + HOUR if chain.last is not None else start

    def catch_up() -> None:
        walking.undigested(start, upcoming, clock.now())

    catch_up()
    compared, edited = _compared(source, fold, catch_up, pause, whole=whole)
    walking.sealed(start, clock.now(), fold.open_connections())
    named = {finding.key for finding in walking.walk.findings}  # an object that was altered need not be named twice
    signed = signed_object_findings(walking.walk.named, source.objects, trusted.keys)
    running = _running(fold, now)
    chains, checked, wrong = _chains(source, anchors, clock, fold, running, trusted)
    found = [
        *trusted.findings,
        *chain.findings,
        *_other_head(chain, head),
        *_no_digest(source, chain, start, now, alone=whole and source.rows is None),
        *walking.walk.findings,
        *fold.findings(whole=whole),
        *edited,
        *(one for one in signed if one.key not in named),
        *archived_configuration_findings(fold.facts.activations, source.objects, trusted.keys),
        *_boots(source, trusted.keys, fold, start, now),
        *(one for one in _numbers(source, numbers, fold, whole=whole) if one.key not in named),
        *_orphans(source.objects, fold, start if whole else start + HOUR, now),
        *wrong,
    ]
    return ArchiveVerification(
        since=timestamp(start),
        head=digest_key(chain.last) if chain.last is not None else "",
        head_sha256=chain.head_sha256,
        anchor=trusted.anchor,
        counted=Counted(
            digests=len(chain.digests),
            objects=walking.walk.objects,
            changes=fold.changes,
            rows=compared,
            events=numbers.events,
            chains=chains,
            checked=checked,
        ),
        pending=walking.walk.pending,
        open=len(running),
        findings=tuple(dict.fromkeys(found)),
        code=code_changes(chain.digests.values(), chain.before),
        tables=source.rows is not None,
    )


def _compared(
    source: ArchiveSource, fold: RowFold, catch_up: Callable[[], None], pause: Callable[[float], None], *, whole: bool
) -> tuple[int, list[Finding]]:
    """Compare the live tables, where there are any, with what was archived; a change may still be on its way there, so
    that ``catch_up`` reads on a few times."""
    if source.rows is None:
        return 0, []
    left = SETTLE_TRIES

    def again() -> bool:
        nonlocal left
        left -= 1
        pause(SETTLE_S)
        catch_up()
        return left > 0

    return row_findings(source.rows, source.objects, fold, listed=whole, again=again)


def _beginning(objects: ReadObjects, chain: DigestChain) -> datetime | None:
    """Return the hour of the first digest, of the first archived change where that one is not the very first."""
    first = chain.digests.get(chain.first) if chain.first is not None else None
    if first is not None and not first.previous_sha256:
        return first.hour
    keys = (key for table in TABLE_KEYS for key in objects.keys(f"{ITEMS}/{table}/"))
    return min((hour for key in keys if (hour := archived_hour(key)) is not None), default=None)


def _no_digest(
    source: ArchiveSource, chain: DigestChain, start: datetime, now: datetime, *, alone: bool
) -> Iterator[Finding]:
    """Give a finding where there must be a digest and there is none at all: from the first archived change on, which on
    a deployment's first day is later than ``start``. ``alone``: all of a downloaded bucket, with no tables beside it:
    without a digest an emptied one looks like one that is an hour old."""
    if chain.last is not None:
        return
    if max(start, _beginning(source.objects, chain) or hour_of(now)) <= last_settled_hour(now - HOUR):
        what = "holds no digest, and hours are over that must have one"
        yield Finding(key=f"{DIGESTS}/", kind=FindingKind.MISSING, what=what)
    elif alone:
        what = "holds no digest: nothing shows what was in this bucket, nor that anything was"
        yield Finding(key=f"{DIGESTS}/", kind=FindingKind.MISSING, what=what)


def _other_head(chain: DigestChain, head: str) -> Iterator[Finding]:
    """Give a finding where no digest that holds is the one that was written down: each names the one before, so where
    it is among them all up to there is what it was then, whoever has our keys and both buckets."""
    held = [*chain.digests.values(), *([] if chain.before is None else [chain.before])]
    if head and not any(sha256_hex(found.stored()) == head for found in held):
        what = f"holds no digest with the SHA-256 that was kept, {head}: it was replaced, or is of another time"
        yield Finding(key=f"{DIGESTS}/", kind=FindingKind.REPLACED, what=what)


def _running(fold: RowFold, now: datetime) -> frozenset[str]:
    """Return the ids of connections that are not sealed and whose session's grant has not ended for long."""
    found: set[str] = set()
    for one in fold.open_connections():
        session, _, connection = one.partition("/")
        expires = moment_of(fold.facts.expires.get(session), FIRST_HOUR)  # of a row that may be edited: any text
        if now - expires < _STILL_OPEN:
            found.add(connection)
    return frozenset(found)


def _chains(
    source: ArchiveSource,
    anchors: Anchors | None,
    clock: Clock,
    fold: RowFold,
    running: frozenset[str],
    trusted: TrustedKeys,
) -> tuple[int, Checked, list[Finding]]:
    """Verify every chain that the archive names, whether a table still has it or not."""
    txns = sorted({*fold.facts.hops.values(), *(txn for txn, _ in fold.facts.sessions.values())} - {""})
    total, found = dict.fromkeys((one.name for one in fields(Checked)), 0), list[Finding]()
    for txn in txns:
        done = verify(txn, source.evidence, anchors, clock, trusted)
        for name in total:
            total[name] += getattr(done.checked, name)
        found += [one for one in done.findings if not (one.kind is FindingKind.UNSEALED and one.key in running)]
    return len(txns), Checked(**total), found


def _boots(source: ArchiveSource, keys: Keys, fold: RowFold, start: datetime, now: datetime) -> Iterator[Finding]:
    """Give what does not hold in each broker boot's count, and in each end that lies there, of a boot that opened
    nothing too. That a broker died without a last word is none here: a row that it put is archived, whether it lived to
    count it or not."""
    ended = ended_boots(key for key in source.objects.keys(BOOTS) if key >= f"{BOOTS}{timestamp(start)[:10]}")
    for boot in sorted({row.boot for row in fold.facts.numbered} | ended):
        found = boot_findings(source.boots, source.objects, keys, boot, now=now)
        yield from (one for one in found if one.kind is not FindingKind.UNSEALED)


def _numbers(source: ArchiveSource, numbers: EventNumbers, fold: RowFold, *, whole: bool) -> Iterator[Finding]:
    connections: dict[str, list[str]] = {}
    for row in fold.facts.numbered:
        connections.setdefault(row.boot, []).append(row.connection)
    ended = ended_boots(source.objects.keys(BOOTS))
    yield from numbers.findings(whole=whole, ended=ended, connections=connections)


def _orphans(objects: ReadObjects, fold: RowFold, start: datetime, now: datetime) -> Iterator[Finding]:
    """Give the recordings of sessions that the archive does not know: nobody asked for them, and nothing names them."""
    seen: set[str] = set()
    for prefix in ulid_prefixes(start, now):
        for key in objects.keys(f"rec/v1/ses_{prefix}"):
            session = key.split("/")[2]
            if session not in fold.facts.sessions and session not in seen:
                seen.add(session)
                what = "has a recording, and was never archived"
                yield Finding(key=session, kind=FindingKind.EXTRA, what=what)
