"""A legal hold as JSON comes and goes: checked here for its shape, for whoever invokes the function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.legal_hold import MAX_REASON, LegalHold, Lift
from chalicelib.services.form import text_of
from chalicelib.services.legal_holds import Holds

MAX_SUBJECT: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldWanted:
    """``since`` is None where none was named."""

    subject: str
    reason: str
    since: date | None


def read_hold(told: Mapping[str, Any]) -> HoldWanted:
    """Return what a request says. Raises BadRequest naming the member. Pure."""
    day = text_of(told, "since", 10)
    try:
        since = date.fromisoformat(day) if day else None
    except ValueError:
        raise BadRequest("since is no day: 2026-01-31") from None
    return HoldWanted(
        subject=text_of(told, "subject", MAX_SUBJECT), reason=text_of(told, "reason", MAX_REASON), since=since
    )


def told_hold(hold: LegalHold, lift: Lift | None = None) -> Mapping[str, Json]:
    """Return a hold, and how it was lifted where it was. Pure."""
    told: dict[str, Json] = {
        "id": hold.id,
        "kind": hold.kind.value,
        "subject": hold.subject,
        "since": str(hold.since),
        "reason": hold.reason,
        "by": hold.by,
        "at": timestamp(hold.at),
    }
    if lift is not None:
        told |= {"lifted_at": timestamp(lift.at), "lifted_by": lift.by, "lift_reason": lift.reason}
    return told


def told_lift(lift: Lift) -> Mapping[str, Json]:
    return {"id": lift.id, "reason": lift.reason, "by": lift.by, "at": timestamp(lift.at)}


def told_holds(holds: Holds) -> Mapping[str, Json]:
    return {"holds": [told_hold(hold, holds.lifts.get(hold.id)) for hold in holds.all]}
