"""Checks the numbers of events: each process numbers what it tells without holes, so that one that never arrived shows.

Rules: an object is met once; a number counts wherever it stands, since a fact may be told in two objects. What is
younger than ``SETTLED`` may still be on its way, and makes no hole. A broker that died (its boot has no signed end)
loses the numbers of what waited in its memory: whoever sealed its connections told those operations again, under
another writer (``retell``), so its holes are a finding only where more is missing than was told again and it had not
told itself. Keeps runs of numbers, not events. Not thread-safe; reads nothing itself.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from chalicelib.domain.digest import SETTLED
from chalicelib.services.reviewed import Finding, FindingKind

_BOOT: Final = "boot_"
_RETOLD: Final = "retold_"
MAX_OBJECT: Final = 256 * 1024 * 1024  # unpacked: 10,000 events of at most some 20 KB
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(kw_only=True, slots=True)
class _Told:
    """``runs`` are numbers as (first, last), one or more an object; ``settled`` the highest that is old enough."""

    runs: list[tuple[int, int]] = field(default_factory=list)
    settled: int = -1
    uids: set[str] = field(default_factory=set)  # of boots and of what was told again for them alone


class EventNumbers:
    """Meets the objects of events; ``now`` is the verifier's time."""

    def __init__(self, now: datetime) -> None:
        self._before_ms = (now - SETTLED).timestamp() * 1000
        self._writers: dict[str, _Told] = defaultdict(_Told)
        self._unreadable: list[str] = []
        self.events = 0

    def meet(self, key: str, stored: bytes) -> None:
        """Take an object's events."""
        numbers: dict[str, list[int]] = defaultdict(list)
        for event in self._events(key, stored):
            writer, number, time_ms = event["writer"], event["number"], event["time_ms"]
            told = self._writers[writer]
            numbers[writer].append(number)
            if time_ms <= self._before_ms:
                told.settled = max(told.settled, number)
            if writer.startswith((_BOOT, _RETOLD)):
                told.uids.add(event["uid"][:16])  # 64 bits of a hash: enough to tell two apart
            self.events += 1
        for writer, found in numbers.items():
            self._writers[writer].runs += _runs(found)

    def findings(
        self, *, whole: bool, ended: Iterable[str], connections: Mapping[str, Iterable[str]]
    ) -> Iterator[Finding]:
        """Give the writers whose numbers have holes, and the objects that hold something else than events. ``whole``:
        every object of all time was met; ``ended``: the boots that have a signed end; ``connections``: those of each
        boot."""
        for key in self._unreadable:
            yield Finding(key=key, kind=FindingKind.ALTERED, what="holds something else than events")
        ended = frozenset(ended)
        for writer in sorted(self._writers):
            told = self._writers[writer]
            count, first = _holes(told.runs, told.settled, whole=whole)
            if not count:
                continue
            what = f"lacks {count} of its events, the first is number {first}: told, and in no object"
            if not writer.startswith(_BOOT) or writer in ended:
                yield Finding(key=writer, kind=FindingKind.MISSING, what=what)
            elif count > self._told_again(told, connections.get(writer, ())):
                what = f"lacks {count} events, the first is number {first}: its broker died, and not all are told again"
                yield Finding(key=writer, kind=FindingKind.LOST, what=what)

    def _told_again(self, told: _Told, connections: Iterable[str]) -> int:
        again = [self._writers[name].uids for one in connections if (name := f"{_RETOLD}{one}") in self._writers]
        return len(set().union(*again) - told.uids)

    def _events(self, key: str, stored: bytes) -> Iterator[Mapping[str, Any]]:
        unpacking = zlib.decompressobj(_GZIP)
        try:
            raw = unpacking.decompress(stored, MAX_OBJECT)
        except zlib.error:
            raw = b""
        sound = unpacking.eof
        for line in raw.splitlines():
            event = _event(line)
            if event is None:
                sound = False
            else:
                yield event
        if not sound:
            self._unreadable.append(key)


def _event(line: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match found:
        case {"uid": str(), "writer": str(), "number": int() as number, "time_ms": int()} if 0 <= number < 1 << 53:
            return dict(found)
        case _:
            return None


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _holes(runs: list[tuple[int, int]], settled: int, *, whole: bool) -> tuple[int, int]:
    """Return how many numbers up to ``settled`` are in no run, and the first of them. Pure."""
    ordered = sorted(runs)
    expected = 0 if whole or not ordered else ordered[0][0]
    count, first = 0, 0
    for begin, end in ordered:
        hole = min(begin, settled + 1) - expected
        if hole > 0:
            first = first if count else expected
            count += hole
        expected = max(expected, end + 1)
    return count, first


def ended_boots(keys: Iterable[str]) -> frozenset[str]:
    """Return the boots that the keys of their ends name. Pure."""
    return frozenset(key.rpartition("/")[2].removesuffix(".json") for key in keys)
