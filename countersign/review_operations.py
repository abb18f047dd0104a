"""One operation of an access review as lines: when, verdict, text, how it ended, on which rule, approved by whom.

Rules: an operation is two lines, or three with bind values, and none is wider than its room; each says "allowed by
RULE, none required" or "approved by WHO at WHEN" or what else became of it. Texts pass ``printable``. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from countersign.printable import padded, safe_line, width
from countersign.review_steps import VERDICTS, allowed_operation, outcome_of, verdict_word

if TYPE_CHECKING:
    from chalicelib.services.reviewed import ReviewedApproval, ReviewedOperation

Paint = Callable[..., str]

_OUTCOME_COLUMNS: Final = 13  # "UPDATE 100000", "error exit 1" and "refused 42501" fit
_MOST_OUTCOME: Final = 24  # "refused body_too_large" and "cut off: grant_revoked" fit
_MOST_NAME: Final = 48  # a longer name would push what is said of its signature off the line
_LEAST_TEXT: Final = 16  # columns of a statement's text, however deep in the tree it stands
_COLOURS: Final = {
    ("forward", False): "green",
    ("mask", False): "green",
    ("forward", True): "yellow",
    ("mask", True): "yellow",
    ("hold", True): "yellow",
}
VERDICT_COLUMNS: Final = max(map(len, VERDICTS.values()))


def operation_lines(operation: ReviewedOperation, paint: Paint, columns: int) -> Iterator[str]:
    """Give the lines of one operation, at most ``columns`` wide."""
    word, colour = verdict_of(operation)
    outcome = safe_line(outcome_of(operation), _MOST_OUTCOME)
    room = columns - 8 - 2 - VERDICT_COLUMNS - 2 - 2 - max(_OUTCOME_COLUMNS, width(outcome))
    room = max(room, _LEAST_TEXT)
    text = safe_line(" ".join(operation.text.split()) or "(an interactive shell)", room)
    head = f"{time_of(operation.at)}  {paint(padded(word, VERDICT_COLUMNS), colour)}"
    yield f"{head}  {padded(text, room)}  {outcome}".rstrip()
    recorded = "recorded" if operation.recorded else "RECORD NOT VERIFIED"
    why = safe_line(allowed_operation(operation, people), max(columns - 10 - len(f"; {recorded}"), _LEAST_TEXT))
    yield f"{' ' * 10}{paint(why, 'dim')}; {recorded if operation.recorded else paint(recorded, 'red', 'bold')}"
    if operation.binds:
        yield f"{' ' * 10}{paint(safe_line('with ' + ', '.join(operation.binds), columns - 10), 'dim')}"


def verdict_of(operation: ReviewedOperation) -> tuple[str, str]:
    """Return the word for an operation's verdict, and its colour. A verdict that nobody knows is red. Pure."""
    word = safe_line(verdict_word(operation), VERDICT_COLUMNS)
    return word, _COLOURS.get((operation.verdict, operation.held), "red")


def people(approvals: Sequence[ReviewedApproval]) -> str:
    """Return who answered and when, made safe; a signature that does not verify is said at its place."""
    shown = []
    for approval in approvals:
        doubt = "" if approval.verified else " (SIGNATURE NOT VERIFIED)"
        known = f" ({approval.person})" if approval.name != approval.person else ""
        shown.append(f"{safe_line(approval.name + known, _MOST_NAME)} at {time_of(approval.at)}{doubt}")
    return ", ".join(shown)


def time_of(moment: datetime | None) -> str:
    """Return the time of day in UTC. Pure."""
    return moment.astimezone(UTC).strftime("%H:%M:%S") if moment else "?"


def day_of(moment: datetime) -> str:
    """Return day and time in UTC. Pure."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
