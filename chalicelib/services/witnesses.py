"""What the hourly digests say of a population: each session that a digest counted must still have its row.

Rules: a digest is believed when it verifies; one that does not is a finding; an hour without one is counted and said,
since the hour that runs has none yet. What is compared is every session of the period, selected or not.
Source: ``domain.digest``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.digest import DIGEST_SIGNATURE_TYPE, DIGESTS, HOUR, LATE_DAYS, digest_hour, hour_of, parse_digest
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.identifiers import SESSION_ID, made_at
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.signoff import Period
from chalicelib.domain.store import Keys
from chalicelib.services.at_once import at_once
from chalicelib.services.population import Population
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.signatures import signature_finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """``digests`` are those that cover the period, as (key, SHA-256 of the object); ``hours_without`` how many of its
    hours have none."""

    digests: tuple[tuple[str, str], ...]
    hours_without: int
    findings: tuple[Finding, ...]


def hourly_witness(objects: ReadObjects, keys: Keys, population: Population, *, readers: int = 1) -> Witness:
    """Return what the hourly digests of ``population``'s period say. Raises StoreUnavailable."""
    period = population.period
    days = list(period.days())
    days += [days[-1] + timedelta(days=late) for late in range(1, LATE_DAYS + 1)]  # one may be named that late
    prefixes = [f"{DIGESTS}/{day.isoformat()}/" for day in days]
    listed = [key for found in at_once(objects.keys, prefixes, readers) for key in found]
    hours = {hour: key for key in listed if (hour := digest_hour(key)) is not None and hour >= hour_of(period.since)}
    read = at_once(lambda key: _read(objects, keys, key), list(hours.values()), readers)
    findings = [fault for _, _, faults in read for fault in faults]
    opened = {session for _, named, _ in read for session in named}
    findings += [
        Finding(key=session, kind=FindingKind.MISSING, what="has no row any more: an hourly digest counted it")
        for session in sorted(opened - population.of_period)
        if not SESSION_ID.match(session) or period.holds(made_at(session))
    ]
    within = set(_hours(period))
    return Witness(
        digests=tuple(
            (key, sha256) for (hour, key), (sha256, _, _) in zip(hours.items(), read, strict=True) if hour in within
        ),
        hours_without=len(within - hours.keys()),
        findings=tuple(findings),
    )


def _read(objects: ReadObjects, keys: Keys, key: str) -> tuple[str, frozenset[str], tuple[Finding, ...]]:
    """Return an object's hash, the sessions that it counted, and what is wrong with it."""
    try:
        stored = objects.get(key)
        found = parse_digest(stored)
    except NotFound:
        return "", frozenset(), (Finding(key=key, kind=FindingKind.MISSING, what="is missing"),)
    except ProofInvalid as error:
        return "", frozenset(), (Finding(key=key, kind=FindingKind.ALTERED, what=error.public),)
    sha256 = sha256_hex(stored)
    if found.key != key:
        return sha256, frozenset(), (Finding(key=key, kind=FindingKind.SWAPPED, what=f"is the digest of {found.key}"),)
    fault = signature_finding(key, keys, KeyPurpose.DIGEST, DIGEST_SIGNATURE_TYPE, found.signature, found.sha256())
    if fault is not None:
        return sha256, frozenset(), (fault,)
    return sha256, frozenset(found.opened), ()


def _hours(period: Period) -> Iterator[datetime]:
    hour = hour_of(period.since)
    while hour < period.until:
        yield hour
        hour += HOUR
