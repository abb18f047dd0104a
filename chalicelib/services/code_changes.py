"""Which code changed, and when, by what the hourly digests name: for an auditor to hold against what was meant.

A change is none of our findings: nothing here knows which deployment was meant. What a digest says, its key signed, and
the next one names: so a change that was taken back within a day stands between two of them all the same; one that was
taken back within the hour does not, and is an event (``code.changed``) alone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chalicelib.domain.canonical import Json
from chalicelib.domain.digest import HourlyDigest


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeChange:
    """``digest`` is the key of the first that has it; ``before`` and ``after`` are hashes, empty where it was not."""

    digest: str
    name: str
    before: str
    after: str

    def as_json(self) -> Mapping[str, Json]:
        return {"digest": self.digest, "name": self.name, "before": self.before, "after": self.after}


def code_changes(digests: Iterable[HourlyDigest], before: HourlyDigest | None) -> tuple[CodeChange, ...]:
    """Return the changes from digest to digest, in order. ``before`` is the one before the first, where it was read.
    What stands in the first of all is no change, and digests of version 1 say nothing."""
    told = sorted((one for one in digests if one.version > 1), key=lambda one: one.hour)
    known = before.code if before is not None and before.version > 1 else None
    found: list[CodeChange] = []
    for one in told:
        for name in sorted({*(known or {}), *one.code}) if known is not None else ():
            was, now = (known or {}).get(name, ""), one.code.get(name, "")
            if was != now:
                found.append(CodeChange(digest=one.key, name=name, before=was, after=now))
        known = one.code
    return tuple(found)
