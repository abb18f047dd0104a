"""Period, Selection and Signoff: which sessions an access review is about, and that a person signed it off.

A sign-off is a fact, put once and signed by the service: who reviewed, which sessions (their *population*, by its
digest), and for each identity that acted in them whether it is kept or revoked. It revokes nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from chalicelib.domain.canonical import Json, digest, timestamp
from chalicelib.domain.identifiers import PersonId, SignoffId
from chalicelib.domain.identity import Identity
from chalicelib.domain.session import Session

SIGNOFF_VERSION: Final = 1
SIGNOFF_SIGNATURE_TYPE: Final = "countersign-signoff+jws"
SIGNOFFS: Final = "signoffs/v1/"
MAX_PERIOD: Final = timedelta(days=366)  # reviews are made by the month or the quarter; a year is the longest asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """From ``since``, inclusive, to ``until``, exclusive; aware. A session belongs to the one in which it was made."""

    since: datetime
    until: datetime

    def __post_init__(self) -> None:
        if self.since.tzinfo is None or self.until.tzinfo is None:
            raise ValueError("a period's ends have a time zone")
        if not timedelta() < self.until - self.since <= MAX_PERIOD:
            raise ValueError(f"a period is longer than nothing, and at most {MAX_PERIOD.days} days")

    def holds(self, moment: datetime) -> bool:
        return self.since <= moment < self.until

    def days(self) -> Iterator[date]:
        """Give every day (UTC) that has a part in it, in order."""
        day, last = self.since.astimezone(UTC).date(), (self.until - timedelta(microseconds=1)).astimezone(UTC).date()
        while day <= last:
            yield day
            day += timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which sessions of a period: those on ``target``, and of runs that ``pipeline`` began; empty is any.

    ``pipeline`` is the originator's key or immutable subject, or its whole name, or the first word of it (a GitHub
    repository). A name may change: a review by name says what had that name.
    """

    target: str = ""
    pipeline: str = ""

    def holds(self, session: Session) -> bool:
        return self.target in ("", session.request.target) and (not self.pipeline or self._began(session.originator))

    def _began(self, who: Identity) -> bool:
        return self.pipeline in (who.key, who.subject, who.name, who.name.partition(" ")[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What the reviewer decided of one identity. ``name`` is what it was called, for people."""

    identity: str
    name: str
    keep: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Signoff:
    """One person's signature under one review.

    ``reviewer`` is the person's id of ``approvers.yaml``, ``reviewer_identity`` the key of the identity that logged in,
    ``hop`` its root. ``population_sha256`` stands for every session (``services.population``), ``sessions`` is their
    number, ``unknown_triggers`` in how many of them nobody knows who is behind the run: whoever reads this decides what
    it is worth. ``rulings`` has every identity that acted, in order.
    """

    id: SignoffId
    reviewer: PersonId
    reviewer_identity: str
    hop: str
    period: Period
    selection: Selection
    population_sha256: str
    sessions: int
    unknown_triggers: int
    rulings: tuple[Ruling, ...]
    note: str
    signed_at: datetime
    signature: str = ""

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers, and what the object holds besides it."""
        return {
            "v": SIGNOFF_VERSION,
            "id": self.id,
            "reviewer": self.reviewer,
            "reviewer_identity": self.reviewer_identity,
            "hop": self.hop,
            "since": timestamp(self.period.since),
            "until": timestamp(self.period.until),
            "target": self.selection.target,
            "pipeline": self.selection.pipeline,
            "population_sha256": self.population_sha256,
            "sessions": self.sessions,
            "unknown_triggers": self.unknown_triggers,
            "rulings": [[one.identity, one.name, "keep" if one.keep else "revoke"] for one in self.rulings],
            "note": self.note,
            "signed_at": timestamp(self.signed_at),
        }

    def sha256(self) -> str:
        return digest(self.signed())


def signoff_key(signoff_id: SignoffId, signed_at: datetime) -> str:
    return f"{SIGNOFFS}{timestamp(signed_at)[:10]}/{signoff_id}.json"
