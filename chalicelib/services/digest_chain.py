"""Walks the hourly digests: each there, signed by the digest key, of its own hour, naming the one before.

A digest that was removed leaves a hole, and the one after it a hash that nothing has; the last ones removed are missed
by the clock. Where the second bucket is given each digest is compared with its copy there, which nobody of this account
can change. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from chalicelib.domain.canonical import sha256_hex, timestamp
from chalicelib.domain.digest import (
    DIGEST_SIGNATURE_TYPE,
    DIGESTS,
    HOUR,
    HourlyDigest,
    digest_hour,
    digest_key,
    last_settled_hour,
    parse_digest,
)
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Keys
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.signatures import signature_finding

# The function runs at minute 12 of every hour; after one more hour it has failed twice, and somebody has to look.
_OVERDUE: Final = HOUR


@dataclass(kw_only=True, slots=True)
class DigestChain:
    """What was found. ``digests`` are those that hold, by hour; ``before`` is the one before the first of the period,
    None where there is none; ``head_sha256`` is the hash of the last one's bytes: whoever writes it down holds the
    whole archive up to there."""

    digests: dict[datetime, HourlyDigest] = field(default_factory=dict)
    before: HourlyDigest | None = None
    first: datetime | None = None
    last: datetime | None = None
    head_sha256: str = ""
    findings: list[Finding] = field(default_factory=list)


def read_chain(
    objects: ReadObjects,
    copies: ReadObjects | None,
    keys: Keys,
    *,
    since: datetime | None,
    now: datetime,
    until: datetime | None = None,
) -> DigestChain:
    """Return the digests from the hour ``since`` on, all where it is None, to the hour ``until``, to the last where it
    is None. Raises StoreUnavailable."""
    chain = DigestChain()
    here = _stored(objects, since, until, now, chain)
    there = _stored(copies, since, until, now, None) if copies is not None else {}
    hours = sorted({*here, *there})
    if not hours:
        return chain
    start = hours[0]
    expected = last_due_hour(now) if until is None else min(until, last_due_hour(now))
    previous = _before(objects, start, chain, whole=since is None)
    hour = start
    while hour <= max(hours[-1], expected):
        stored = here.get(hour)
        if stored is None:
            chain.findings.append(_missing(hour, copied=hour in there))
        else:
            _check(hour, stored, previous, keys, chain)
        _compare(hour, stored, there, chain, copied=copies is not None)
        previous = stored if stored is not None else previous if hour == start else b""
        hour += HOUR
    chain.first, chain.last = start, max(here, default=start)
    chain.head_sha256 = sha256_hex(here[chain.last]) if chain.last in here else ""
    return chain


def last_due_hour(now: datetime) -> datetime:
    """Return the last hour whose digest must be there. Pure."""
    return last_settled_hour(now - _OVERDUE)


def _stored(
    objects: ReadObjects, since: datetime | None, until: datetime | None, now: datetime, chain: DigestChain | None
) -> Mapping[datetime, bytes]:
    found: dict[datetime, bytes] = {}
    for key in objects.keys(f"{DIGESTS}/"):
        hour = digest_hour(key)
        if hour is None and chain is not None:
            chain.findings.append(Finding(key=key, kind=FindingKind.EXTRA, what="is no digest, and lies among them"))
        if hour is not None and hour > now:  # a chain to the year 9999 would be looked for, hour by hour
            if chain is not None:
                what = "is the digest of an hour that is still to come"
                chain.findings.append(Finding(key=key, kind=FindingKind.EXTRA, what=what))
            continue
        if hour is not None and (since is None or hour >= since) and (until is None or hour <= until):
            found[hour] = objects.get(key)
    return found


def _before(objects: ReadObjects, start: datetime, chain: DigestChain, *, whole: bool) -> bytes | None:
    """Return the bytes of the digest before the period; None where there is none, as before the very first."""
    if whole:
        return None
    try:
        stored = objects.get(digest_key(start - HOUR))
        chain.before = parse_digest(stored)
    except NotFound:
        return None
    except ProofInvalid:
        return b""
    return stored


def _check(hour: datetime, stored: bytes, previous: bytes | None, keys: Keys, chain: DigestChain) -> None:
    """Check one digest; ``previous`` are the bytes of the one before, None where none ever was, empty where it is
    missing: that is a finding already."""
    key = digest_key(hour)
    try:
        found = parse_digest(stored)
    except ProofInvalid as error:
        chain.findings.append(Finding(key=key, kind=FindingKind.ALTERED, what=error.public))
        return
    unsigned = signature_finding(key, keys, KeyPurpose.DIGEST, DIGEST_SIGNATURE_TYPE, found.signature, found.sha256())
    if unsigned is not None:
        chain.findings.append(unsigned)
        if previous is None:  # whoever wrote it: there was one before, and nothing else tells of that
            chain.findings += _link(hour, found, None)
        return
    if found.key != key:
        what = f"is the digest of {timestamp(found.hour)}, at another hour's place"
        chain.findings.append(Finding(key=key, kind=FindingKind.ORDER, what=what))
        return
    chain.findings += _link(hour, found, previous)
    chain.digests[hour] = found


def _link(hour: datetime, found: HourlyDigest, previous: bytes | None) -> Iterator[Finding]:
    before = digest_key(hour - HOUR)
    if previous is None:
        if found.previous_sha256:
            yield Finding(key=before, kind=FindingKind.MISSING, what=f"is missing: {found.key} names it")
    elif not found.previous_sha256:
        what = "names no digest before it, and is not the first"
        yield Finding(key=found.key, kind=FindingKind.ORDER, what=what)
    elif previous and sha256_hex(previous) != found.previous_sha256:
        what = f"is not the digest that {found.key} names: it was replaced"
        yield Finding(key=before, kind=FindingKind.REPLACED, what=what)


def _missing(hour: datetime, *, copied: bool) -> Finding:
    what = "is missing: the second bucket has it" if copied else "is missing: every hour has a digest, an empty one too"
    return Finding(key=digest_key(hour), kind=FindingKind.MISSING, what=what)


def _compare(
    hour: datetime, stored: bytes | None, there: Mapping[datetime, bytes], chain: DigestChain, *, copied: bool
) -> None:
    key = digest_key(hour)
    if not copied or stored is None:
        return
    if hour not in there:
        what = "has no copy in the second bucket"
        chain.findings.append(Finding(key=key, kind=FindingKind.MISSING, what=what))
    elif there[hour] != stored:
        what = "is not the digest that the second bucket has"
        chain.findings.append(Finding(key=key, kind=FindingKind.REPLACED, what=what))
