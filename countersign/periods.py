"""The period that a command is told: ``--since`` and ``--until``, as a day, a moment or a span back from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from countersign.failures import Exit, Failure

if TYPE_CHECKING:
    from chalicelib.domain.signoff import Period

_SPAN: Final = re.compile(r"([1-9][0-9]{0,3})([dhm])\Z")
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_FORMS: Final = "2026-11-02, 2026-11-02T09:00:00Z, or 30d, 12h, 45m back from now"


def period_of(since: str, until: str, now: datetime) -> Period:
    """Return the period; ``until`` empty is now. Raises Failure (usage)."""
    from chalicelib.domain.signoff import Period

    try:
        return Period(
            since=moment_at(since, now, "--since"), until=moment_at(until, now, "--until") if until else _cut(now)
        )
    except ValueError as error:
        raise Failure(Exit.USAGE, f"this is no period: {error}", hint=f"--since and --until: {_FORMS}.") from error


def moment_at(text: str, now: datetime, name: str) -> datetime:
    """Return the moment that ``text`` names, to the millisecond, as everything that is signed. Raises Failure (usage).
    Pure."""
    span = _SPAN.match(text)
    if span is not None:
        return _cut(now - int(span[1]) * _UNITS[span[2]])
    try:
        found = datetime.fromisoformat(text)
        return _cut(found if found.tzinfo is not None else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:  # the latter: year 1 east of Greenwich
        raise Failure(Exit.USAGE, f"{name} is no moment", hint=f"Give {_FORMS}.") from error


def _cut(moment: datetime) -> datetime:
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
