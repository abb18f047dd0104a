"""An access review as one screen of text, and as JSON.

It answers an auditor's three questions in their order: who initiated it; which downstream agents did what; was each
step approved and recorded. Rules: every text in a review was written by whoever is reviewed, so all of it passes
``printable``; nothing that does not verify is shown as if it did; what does not fit is counted, never left out unsaid.

What it does not do: read or verify anything (``chalicelib.services.review``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from countersign.printable import counted, padded, safe_line, width

if TYPE_CHECKING:
    from chalicelib.services.reviewed import (
        AccessReview,
        ReviewedApproval,
        ReviewedHop,
        ReviewedOperation,
        ReviewedRecording,
        ReviewedSession,
    )

Paint = Callable[..., str]

MOST_OPERATIONS: Final = 12  # two lines each: with the rest around them a screen of 50 lines is full
_OUTCOME_COLUMNS: Final = 16  # "UPDATE 10000000" and "refused 42501" fit
_VERDICTS: Final = {
    ("forward", False): ("forwarded", "green"),
    ("mask", False): ("masked", "green"),
    ("forward", True): ("held, ran", "yellow"),
    ("mask", True): ("held, ran", "yellow"),
    ("block", False): ("blocked", "red"),
    ("block", True): ("held, refused", "red"),
    ("hold", True): ("held", "yellow"),
}
_VERDICT_COLUMNS: Final = max(len(word) for word, _ in _VERDICTS.values())


def screen(review: AccessReview, paint: Paint, columns: int, *, every: bool) -> Iterator[str]:
    """Give the lines. ``every``: all operations, however many; else those that people or rules stopped come first."""
    verdict = paint("VERIFIED", "green", "bold") if review.verified else paint("NOT VERIFIED", "red", "bold")
    yield f"{paint('ACCESS REVIEW', 'bold')}  chain {safe_line(review.txn)}  {verdict}"
    yield paint(f"read back and checked at {_moment(review.reviewed_at)}: signatures, hashes, sequence", "dim")
    yield ""
    yield paint("WHO INITIATED IT", "bold", "cyan")
    yield from _initiator(review, paint, columns)
    yield ""
    yield paint("THROUGH WHOM", "bold", "cyan")
    yield from _hops(review.hops, paint)
    for session in review.sessions:
        yield ""
        yield paint("WHAT WAS DONE", "bold", "cyan")
        yield from _session(session, paint, columns, every=every)
        yield ""
        yield paint("WHERE IT IS RECORDED", "bold", "cyan")
        yield from _recordings(session.recordings, paint, columns)
    if review.findings:
        yield ""
        yield paint(f"FINDINGS: {len(review.findings)}", "bold", "red")
        for finding in review.findings:
            yield f"  {safe_line(finding)}"


def _initiator(review: AccessReview, paint: Paint, columns: int) -> Iterator[str]:
    who = review.initiator
    yield f"  {paint(safe_line(who.name), 'bold')}  {safe_line(review.initiator_assurance)} by {safe_line(who.issuer)}"
    yield f"  {safe_line(f'subject {who.subject}', columns - 2)}"
    kept = " · ".join(f"{name} {value}" for name, value in review.initiator_attributes)
    if kept:
        yield f"  {safe_line(kept, columns - 2)}"
    people = ", ".join(f"{name} ({alias})" if name else alias for alias, name in review.accountable)
    yield f"  behind the run: {safe_line(people) or paint('unknown', 'yellow')}"


def _hops(hops: Sequence[ReviewedHop], paint: Paint) -> Iterator[str]:
    rows = [
        (
            str(hop.depth),
            safe_line(hop.kind),
            safe_line(f"{hop.principal} on {hop.target}" if hop.target else hop.identity.name, 60),
            safe_line(hop.assurance),
            _time(hop.issued_at),
        )
        for hop in hops
    ]
    widths = [max(width(row[column]) for row in rows) for column in range(5)] if rows else []
    for hop, row in zip(hops, rows, strict=True):
        cells = "  ".join(padded(cell, widths[column]) for column, cell in enumerate(row))
        yield f"  {cells}  {paint('signed', 'green') if hop.verified else paint('NOT VERIFIED', 'red', 'bold')}"


def _session(session: ReviewedSession, paint: Paint, columns: int, *, every: bool) -> Iterator[str]:
    where = f"{session.target} as {session.principal}" if session.principal else session.target
    yield f"  {paint(safe_line(where), 'bold')}  {safe_line(session.id)}  {safe_line(session.status)}"
    yield f"  {safe_line(f'reason: {session.reason}', columns - 2)}"
    yield f"  asked at {_time(session.requested_at)}; {_asked(session, paint)}"
    yield f"  {safe_line(_granted(session), columns - 2)}"
    operations = session.operations if every else _most_telling(session.operations)
    for operation in operations:
        yield from _operation(operation, paint, columns)
    left = len(session.operations) - len(operations)
    if left:
        yield paint(f"  and {left} more, each allowed without approval; --all shows them", "dim")
    if not session.operations:
        yield "  nothing was done"


def _asked(session: ReviewedSession, paint: Paint) -> str:
    approved = [approval for approval in session.approvals if approval.approved]
    refused = [approval for approval in session.approvals if not approval.approved]
    if refused:
        return paint(f"refused by {_people(refused)}", "red")
    if approved:
        return paint(f"approved by {_people(approved)}", "green")
    return "no approval was given" if session.granted_at is None else "no approval required"


def _granted(session: ReviewedSession) -> str:
    if session.granted_at is None:
        return "never granted" + (f" ({session.close_reason})" if session.close_reason else "")
    return f"granted by {', '.join(session.rules)}; until {_time(session.expires_at)}"


def _operation(operation: ReviewedOperation, paint: Paint, columns: int) -> Iterator[str]:
    word, colour = _VERDICTS.get((operation.verdict, operation.held), (safe_line(operation.verdict, 14), "red"))
    outcome = _outcome(operation)
    room = columns - 2 - 8 - 2 - _VERDICT_COLUMNS - 2 - 2 - max(_OUTCOME_COLUMNS, width(outcome))
    text = safe_line(" ".join(operation.text.split()), max(room, 20))
    head = f"  {_time(operation.at)}  {paint(padded(word, _VERDICT_COLUMNS), colour)}"
    yield f"{head}  {padded(text, max(room, 20))}  {outcome}".rstrip()
    recorded = "recorded" if operation.recorded else "RECORD NOT VERIFIED"
    why = safe_line(_why(operation), columns - 12 - len(f"; {recorded}"))
    yield f"{' ' * 12}{paint(why, 'dim')}; {recorded if operation.recorded else paint(recorded, 'red', 'bold')}"
    if operation.binds:
        yield f"{' ' * 12}{paint(safe_line('with ' + ', '.join(operation.binds), columns - 12), 'dim')}"


def _outcome(operation: ReviewedOperation) -> str:
    match operation.status:
        case "ok":
            return safe_line(operation.tag or f"{operation.rows} rows", 24)
        case "":
            return "outcome unknown" if operation.verdict in {"forward", "mask"} else "not run"
        case status:
            return safe_line(f"{status} {operation.sqlstate}".rstrip(), 24)


def _why(operation: ReviewedOperation) -> str:
    asked = tuple(rule for approval in operation.approvals for rule in approval.rules)
    # The rules that people answered come first: they are what a reader must see where the line is too short for all.
    rules = ", ".join(dict.fromkeys((*asked, *operation.rules))) or "no rule"
    approved = [approval for approval in operation.approvals if approval.approved]
    refused = [approval for approval in operation.approvals if not approval.approved]
    code = f" ({safe_line(operation.code)})" if operation.code and operation.code != "policy_denied" else ""
    match operation.verdict, operation.held:
        case "forward" | "mask", True:
            return f"approved by {_people(approved) or 'nobody'}; {rules}"
        case "forward" | "mask", False:
            return f"allowed by {rules}; no approval required"
        case "block", True:
            return f"refused by {_people(refused)}; {rules}" if refused else f"not approved{code}; {rules}"
        case "block", False:
            return f"blocked by {rules}{code}"
        case _:
            return f"waited for approval, and no verdict was recorded; {rules}"


def _people(approvals: Sequence[ReviewedApproval]) -> str:
    shown = []
    for approval in approvals:
        doubt = "" if approval.verified else " (SIGNATURE NOT VERIFIED)"
        known = f" ({approval.person})" if approval.name != approval.person else ""
        shown.append(f"{safe_line(approval.name + known)} at {_time(approval.at)}{doubt}")
    return ", ".join(shown)


def _most_telling(operations: Sequence[ReviewedOperation]) -> list[ReviewedOperation]:
    """Return at most MOST_OPERATIONS, in order: first all that were held, stopped or failed to verify or run."""
    plain = [number for number, op in enumerate(operations) if not _is_telling(op)]
    left_out = set(plain[max(0, MOST_OPERATIONS - (len(operations) - len(plain))) :])
    return [op for number, op in enumerate(operations) if number not in left_out]


def _is_telling(op: ReviewedOperation) -> bool:
    return op.held or op.verdict == "block" or not op.recorded or op.status != "ok"


def _recordings(recordings: Sequence[ReviewedRecording], paint: Paint, columns: int) -> Iterator[str]:
    if not recordings:
        yield "  no connection was opened"
    for recording in recordings:
        state = paint("signed, verified", "green") if recording.verified else paint("NOT VERIFIED", "red", "bold")
        ended = f"to {_time(recording.sealed_at)}, {recording.exit}" if recording.sealed_at else "not sealed"
        gaps = counted(len(recording.gaps), "gap") if recording.gaps else "no gaps"
        if not recording.verified and not recording.gaps:
            gaps = "gaps unknown"  # only a manifest that verifies can say that nothing is missing
        where = f"from {recording.peer}, {_time(recording.opened_at)} {ended}"
        yield f"  {safe_line(recording.connection_id)}  {safe_line(where, columns - 34)}"
        yield f"    {counted(recording.segments, 'segment')}, {counted(recording.frames, 'frame')}, {gaps}: {state}"
        yield f"    {paint(safe_line(recording.manifest_key) or 'no manifest', 'dim')}"


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%H:%M:%S") if moment else "?"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def as_json(review: AccessReview) -> dict[str, object]:
    """Return the review as JSON values; times are RFC 3339. The texts are as they were: JSON escapes them."""
    told = _plain(asdict(review))
    if not isinstance(told, dict):
        raise TypeError("a review is an object")
    return {"verified": review.verified, **told}


def _plain(value: object) -> object:
    match value:
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case _:
            return value
