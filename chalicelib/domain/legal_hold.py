"""LegalHold and its Lift: that somebody said evidence must stay, whatever its retention, and that it need not any more.

Both are facts, put once: ``holds/v1/YYYY-MM-DD/HOLD.json`` and, under the day on which it was lifted,
``holds/v1/YYYY-MM-DD/HOLD.lifted.json``. A hold is on a session, on a chain with all its sessions, or on a target from
a day on, with every session that is made there later. What it reaches is written beside it, day by day
(``held/v1/HOLD/YYYY-MM-DD.json``), when that day is over for good. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from chalicelib.domain.canonical import Json, canonical, timestamp
from chalicelib.domain.errors import BadRequest, ProofInvalid
from chalicelib.domain.identifiers import LEGAL_HOLD_ID, SESSION_ID, TXN, LegalHoldId, made_at
from chalicelib.domain.session import Session

HOLD_VERSION: Final = 1
HOLDS: Final = "holds/v1"
HELD: Final = "held/v1"
MAX_REASON: Final = 500  # a paragraph: the case's number and what it is about
_TARGET: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_LIFTED: Final = ".lifted.json"


class HeldKind(StrEnum):
    """What a hold is on. Permanent words."""

    SESSION = "session"
    CHAIN = "chain"
    TARGET = "target"


@dataclass(frozen=True, kw_only=True, slots=True)
class LegalHold:
    """``subject`` is a session's id, a chain's txn or a target's name; ``since`` the first day (UTC) on which a session
    of it may have been made. ``by`` is the key of the identity that put it, ``hop`` its hop."""

    id: LegalHoldId
    kind: HeldKind
    subject: str
    since: date
    reason: str
    by: str
    hop: str
    at: datetime

    def covers(self, session: Session) -> bool:
        match self.kind:
            case HeldKind.SESSION:
                return session.id == self.subject
            case HeldKind.CHAIN:
                return session.txn == self.subject
            case HeldKind.TARGET:
                return session.request.target == self.subject and session.created_at.date() >= self.since

    def stored(self) -> bytes:
        return canonical({**_stored(self), "kind": self.kind.value, "subject": self.subject, "since": str(self.since)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Lift:
    """The end of the hold ``id``."""

    id: LegalHoldId
    reason: str
    by: str
    hop: str
    at: datetime

    def stored(self) -> bytes:
        return canonical({**_stored(self), "lifted": True})


def hold_key(hold: LegalHold) -> str:
    return f"{HOLDS}/{hold.at:%Y-%m-%d}/{hold.id}.json"


def lift_key(lift: Lift) -> str:
    return f"{HOLDS}/{lift.at:%Y-%m-%d}/{lift.id}{_LIFTED}"


def read_stored(body: bytes) -> LegalHold | Lift:
    """Return what an object under ``holds/v1`` says. Raises ProofInvalid where it is none of ours. Pure."""
    try:
        told: Any = json.loads(body)
        known = told["v"] == HOLD_VERSION and LEGAL_HOLD_ID.match(told["id"])
        said: dict[str, Any] = {name: str(told[name]) for name in ("reason", "by", "hop")}
        said |= {"id": LegalHoldId(told["id"]), "at": datetime.fromisoformat(told["at"])}
        fact: LegalHold | Lift
        if told.get("lifted") is True:
            fact = Lift(**said)
        else:
            since = date.fromisoformat(told["since"])
            fact = LegalHold(kind=HeldKind(told["kind"]), subject=str(told["subject"]), since=since, **said)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProofInvalid("a hold is not as holds are written") from error
    if not known:
        raise ProofInvalid("a hold is of a version that is not known")
    return fact


def kind_of(subject: str) -> HeldKind:
    """Return what ``subject`` names, by its form. Raises BadRequest. Pure."""
    if SESSION_ID.match(subject):
        return HeldKind.SESSION
    if TXN.match(subject):
        return HeldKind.CHAIN
    if _TARGET.match(subject):
        return HeldKind.TARGET
    raise BadRequest("this names no session, no chain and no target")


def first_day(kind: HeldKind, subject: str, since: date | None) -> date:
    """Return the first day that a hold looks at. Raises BadRequest where a target's is not named. Pure."""
    if kind is not HeldKind.TARGET:
        return made_at(subject).date()
    if since is None:
        raise BadRequest("a hold on a target says since which day", hint="Name the first day: --since 2026-01-31.")
    return since


def _stored(fact: LegalHold | Lift) -> Mapping[str, Json]:
    return {
        "v": HOLD_VERSION,
        "id": fact.id,
        "reason": fact.reason,
        "by": fact.by,
        "hop": fact.hop,
        "at": timestamp(fact.at),
    }
