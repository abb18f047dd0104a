"""Checks a broker boot's count of its connection rows: none is missing between them, and none after the last.

Each row has the boot's next number and the hash of the row before; a boot that ends orderly puts a signed *end*
with the last number and the last row's hash, as an object under the lock. So a row that somebody took away, or that was
never put, shows. A boot without one died, or lives: then nothing shows whether rows followed its last one, and
that is said. Reads with an auditor's rights. Source: security.md, "A connection that never got a row".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Protocol

from chalicelib.domain.canonical import canonical
from chalicelib.domain.connection import BOOTS, SILENT_AFTER, BootEnd, ConnectionRow, boot_end_key
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.store import Beats, Keys
from chalicelib.identity.jws import verify_boot_end
from chalicelib.services.operations import json_object
from chalicelib.services.reviewed import Finding, FindingKind

_PAGE: Final = 1000


class RowsOfBoot(Protocol):
    def of_boot(self, boot: str, after: int, most: int) -> Sequence[ConnectionRow]: ...


def boot_findings(
    rows: RowsOfBoot, objects: ReadObjects, keys: Keys, boot: str, *, beats: Beats | None = None, now: datetime
) -> list[Finding]:
    """Return what does not hold in the count of ``boot``. With ``beats`` a boot that lives is known from one that died.

    Raises StoreUnavailable.
    """
    findings: list[Finding] = []
    last: ConnectionRow | None = None
    for row in _rows(rows, boot):
        findings += _between(boot, last, row)
        last = row
    end = _end(objects, keys, boot, findings)
    number, sha256 = (0, "") if last is None else (last.number, last.sha256())
    if end is None:
        beat = None if beats is None else beats.last(boot)
        if beat is None or now - beat.at > SILENT_AFTER:
            what = f"has no signed end: its broker died, and nothing shows whether rows followed number {number}"
            findings.append(Finding(key=boot, kind=FindingKind.UNSEALED, what=what))
    elif end.last > number:
        what = f"lacks connection rows {number + 1} to {end.last}, which its signed end counts"
        findings.append(Finding(key=boot, kind=FindingKind.MISSING, what=what))
    elif end.last < number:
        what = f"has connection rows up to {number}, and its signed end counts {end.last}"
        findings.append(Finding(key=boot, kind=FindingKind.EXTRA, what=what))
    elif end.last_sha256 != sha256:
        what = f"has another last connection row than its signed end names: number {number} was altered"
        findings.append(Finding(key=boot, kind=FindingKind.ALTERED, what=what))
    return findings


def boot_end_of(stored: bytes) -> BootEnd:
    """Return the end that an object holds. Raises ProofInvalid where it is not one, byte for byte. Pure."""
    document = json_object(stored) or {}
    try:
        end = BootEnd(
            boot=document["boot"],
            last=document["last"],
            last_sha256=document["last_sha256"],
            closed_at=datetime.fromisoformat(document["closed_at"]),
            signature=document["signature"],
        )
        said = canonical({**end.signed(), "signature": end.signature})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProofInvalid("is not a boot's end") from error
    if said != stored:
        raise ProofInvalid("does not add up: it is not what a broker wrote")
    return end


def _rows(rows: RowsOfBoot, boot: str) -> Iterator[ConnectionRow]:
    after = 0
    while page := rows.of_boot(boot, after, _PAGE):
        yield from page
        after = page[-1].number


def _between(boot: str, before: ConnectionRow | None, row: ConnectionRow) -> Iterator[Finding]:
    expected, sha256 = (1, "") if before is None else (before.number + 1, before.sha256())
    if row.number > expected:
        which = f"{expected} to {row.number - 1}" if row.number - 1 > expected else str(expected)
        yield Finding(key=boot, kind=FindingKind.MISSING, what=f"lacks connection row {which}")
    elif row.number < expected:
        yield Finding(key=row.id, kind=FindingKind.EXTRA, what=f"has the number of another row of {boot}")
    elif row.previous_sha256 != sha256:
        what = f"does not follow number {expected - 1} of {boot}: one of the two was altered"
        yield Finding(key=row.id, kind=FindingKind.ALTERED, what=what)


def _end(objects: ReadObjects, keys: Keys, boot: str, findings: list[Finding]) -> BootEnd | None:
    # By the day on which it closed, which the boot's name does not tell; a deployment has some thousands a year.
    key, *more = [key for key in objects.keys(BOOTS) if key.endswith(f"/{boot}.json")] or [""]
    if not key:
        return None
    what = f"is a second end of {boot}, which ended once"
    findings += [Finding(key=one, kind=FindingKind.EXTRA, what=what) for one in more]
    try:
        end = boot_end_of(objects.get(key))
        verify_boot_end(end, keys)
    except ProofInvalid as error:
        findings.append(Finding(key=key, kind=FindingKind.ALTERED, what=error.public))
        return None
    if (end.boot, boot_end_key(end.boot, end.closed_at)) != (boot, key):
        findings.append(Finding(key=key, kind=FindingKind.SWAPPED, what=f"is the end of {end.boot}"))
        return None
    return end
