"""An access review as text: the tree of hops, and under each hop its sessions and what was done in them.

It answers an auditor's three questions in their order: who initiated it; which downstream agents did what; was each
step approved and recorded. What is unusual stands first. Rules: every text in a review was written by whoever is
reviewed, so all of it passes ``printable``; nothing that does not verify is shown as if it did; what does not fit is
counted, never left out unsaid.

What it does not do: read or verify anything (``chalicelib.services.review``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from countersign.printable import counted, safe_line, width
from countersign.review_operations import day_of, operation_lines, people, time_of
from countersign.review_steps import allowed_hop
from countersign.review_unusual import name_of, revoked_above, unusual

if TYPE_CHECKING:
    from chalicelib.domain.recording import Gap
    from chalicelib.services.reviewed import (
        AccessReview,
        ReviewedHop,
        ReviewedOperation,
        ReviewedRecording,
        ReviewedSession,
    )

Paint = Callable[..., str]

MOST_OPERATIONS: Final = 12  # of a session, two lines each: with the rest around them a screen of 50 lines is full
_MOST_HOLD_LINES: Final = 3  # of each: its reason may be a paragraph
_MOST_GAPS: Final = 3  # of a recording, named on its line; the rest are counted, and stand in the findings
_MOST_SCOPE: Final = 6  # permissions of a hop on its line; the rest are counted
_NEVER_GRANTED: Final = {"closed_by_owner": "who asked took it back"}


def screen(review: AccessReview, paint: Paint, columns: int, *, every: bool, anchored: bool = True) -> Iterator[str]:
    """Give the lines. ``every``: all operations, however many; else those that people or rules stopped come first.
    ``anchored``: somebody vouches for the keys that everything was verified with."""
    if not review.verified:
        verdict = paint("NOT VERIFIED", "red", "bold")
    elif not anchored:
        verdict = paint("UNANCHORED", "yellow", "bold") + "  it holds, by keys that only the copy itself vouches for"
    else:
        verdict = paint("VERIFIED", "green", "bold")
    yield f"{paint('ACCESS REVIEW', 'bold')}  chain {safe_line(review.txn)}  {verdict}"
    yield paint(f"read back and checked at {day_of(review.reviewed_at)}: signatures, links, hashes, sequence", "dim")
    yield from _findings(review, paint)
    yield from _holds(review, columns)
    yield from _unusual(review, paint, columns)
    yield ""
    yield paint("WHO INITIATED IT", "bold", "cyan")
    yield from _initiator(review, paint, columns)
    yield ""
    yield paint("THROUGH WHOM, AND WHAT WAS DONE", "bold", "cyan")
    yield from _Tree(review, paint, columns, every=every).lines()


def _findings(review: AccessReview, paint: Paint) -> Iterator[str]:
    if not review.findings:
        return
    yield ""
    yield paint(f"FINDINGS: {len(review.findings)}", "bold", "red")
    for finding in review.findings:  # whole, however long: what is cut here may be the name that matters
        yield f"  {paint(safe_line(finding.kind.value), 'red')}  {safe_line(str(finding))}"


def _holds(review: AccessReview, columns: int) -> Iterator[str]:
    for hold in review.holds:
        told = f"HELD by {hold.by} since {day_of(hold.at)} ({hold.id}, {hold.kind} {hold.subject}): {hold.reason}"
        yield from textwrap.wrap(
            safe_line(told), columns, subsequent_indent="  ", max_lines=_MOST_HOLD_LINES, placeholder=" …"
        )


def _unusual(review: AccessReview, paint: Paint, columns: int) -> Iterator[str]:
    told = list(unusual(review))
    if not told:
        return
    yield ""
    yield paint("UNUSUAL", "bold", "yellow")
    for line in told:
        yield from textwrap.wrap(
            safe_line(line), columns, initial_indent="  ", subsequent_indent="    ", max_lines=3, placeholder=" …"
        )


def _initiator(review: AccessReview, paint: Paint, columns: int) -> Iterator[str]:
    who = review.initiator
    yield f"  {paint(safe_line(who.name), 'bold')}  {safe_line(review.initiator_assurance)} by {safe_line(who.issuer)}"
    yield f"  {safe_line(f'subject {who.subject}', columns - 2)}"
    kept = " · ".join(f"{name} {value}" for name, value in review.initiator_attributes)
    if kept:
        yield f"  {safe_line(kept, columns - 2)}"
    people_behind = ", ".join(f"{name} ({alias})" if name else alias for alias, name in review.accountable)
    yield f"  behind the run: {safe_line(people_behind) or paint('unknown', 'yellow')}"


class _Tree:
    """The hops with their sessions. A hop or session that hangs on nothing is shown at the root, never left out."""

    def __init__(self, review: AccessReview, paint: Paint, columns: int, *, every: bool) -> None:
        self._review = review
        self._paint = paint
        self._columns = columns
        self._every = every
        self._hops = {hop.id: hop for hop in review.hops}
        self._targets = {hop.id: hop for hop in review.hops if hop.kind == "target"}
        self._drawn: set[str] = set()

    def lines(self) -> Iterator[str]:
        for hop in self._review.hops:
            if hop.id not in self._targets and hop.parent not in self._hops:
                yield from self._hop(hop, "  ", "  ")
        for hop in self._review.hops:
            if hop.id not in self._drawn and hop.id not in self._targets:
                yield from self._hop(hop, "  ", "  ")  # a loop: it hangs below itself
        for session in self._review.sessions:
            if session.leaf_hop not in self._hops:
                yield from self._session(session, "  ", "  ", last=True)

    def _hop(self, hop: ReviewedHop, first: str, rest: str) -> Iterator[str]:
        if hop.id in self._drawn:
            return
        self._drawn.add(hop.id)
        below = [other for other in self._review.hops if other.parent == hop.id and other.id not in self._targets]
        sessions = [session for session in self._review.sessions if session.leaf_hop == hop.id]
        stem = f"{rest}│  " if below or sessions else f"{rest}   "
        yield self._hop_head(hop, first)
        yield from self._hop_facts(hop, stem)
        for number, session in enumerate(sessions):
            yield rest + "│"
            yield from self._session(session, f"{rest}│  ", stem, last=not below and number == len(sessions) - 1)
        for number, child in enumerate(below):
            yield rest + "│"
            last = number == len(below) - 1
            yield from self._hop(child, f"{rest}└─ " if last else f"{rest}├─ ", f"{rest}   " if last else f"{rest}│  ")

    def _hop_head(self, hop: ReviewedHop, first: str) -> str:
        paint = self._paint
        match hop.assurance:
            case "attested":
                assured = paint("attested", "green")
            case "vouched":
                assured = paint("VOUCHED", "yellow", "bold")
            case other:
                assured = paint(safe_line(other).upper(), "yellow", "bold")
        signed = paint("signed", "green") if hop.verified else paint("NOT VERIFIED", "red", "bold")
        name = paint(safe_line(name_of(hop), self._columns // 3), "bold")
        return f"{first}{name}  {assured}  {paint(safe_line(hop.id), 'dim')}  {signed}"

    def _hop_facts(self, hop: ReviewedHop, stem: str) -> Iterator[str]:
        paint, room = self._paint, self._columns - width(stem)
        parent = self._hops.get(hop.parent)
        narrower = "; less than its parent" if parent is not None and parent.scope != hop.scope else ""
        scope = " ".join(hop.scope[:_MOST_SCOPE]) + (
            f" and {len(hop.scope) - _MOST_SCOPE} more" if hop.scope[_MOST_SCOPE:] else ""
        )
        depth = f"depth {hop.depth} of {hop.max_depth}" if hop.max_depth else f"depth {hop.depth}"
        yield stem + safe_line(f"may {scope or 'nothing'}{narrower}; {depth}; until {time_of(hop.expires_at)}", room)
        if hop.parent and parent is not None:
            how = f"vouched for by {name_of(parent)}" if hop.assurance == "vouched" else f"by {hop.identity.issuer}"
            teams = f"; team {', '.join(hop.teams)}" if hop.teams and hop.teams != parent.teams else ""
            let_in = f"; ticket {hop.ticket}" if hop.ticket else ""
            yield stem + paint(safe_line(f"{how}, let in at {time_of(hop.issued_at)}{teams}{let_in}", room), "dim")
        yield stem + paint(safe_line(allowed_hop(hop), room), "dim")
        if hop.revoked is not None:
            own = hop.revoked.key != revoked_above(self._review, hop)
            how = f"by {hop.revoked.by}: {hop.revoked.why}" if own else f"with the hop above it ({hop.revoked.key})"
            yield stem + paint(safe_line(f"REVOKED at {time_of(hop.revoked.at)} {how}", room), "red", "bold")

    def _session(self, session: ReviewedSession, first: str, stem: str, *, last: bool) -> Iterator[str]:
        paint = self._paint
        rest = stem if not last else first
        room = self._columns - width(rest)
        where = f"{session.target} as {session.principal}" if session.principal else session.target
        head = f"{paint('SESSION', 'cyan')} {paint(safe_line(where, room // 2), 'bold')}"
        yield f"{first}{head}  {paint(safe_line(session.id), 'dim')}  {safe_line(session.status)}"
        yield rest + safe_line(f"reason: {session.reason}", room)
        yield from self._granted(session, rest, room)
        operations = session.operations if self._every else _most_telling(session.operations)
        for operation in operations:
            for line in operation_lines(operation, paint, room):
                yield rest + line
        left = len(session.operations) - len(operations)
        if left:
            yield rest + paint(f"and {left} more, each allowed without approval; --all shows them", "dim")
        if not session.operations:
            yield rest + "nothing was done"
        for recording in session.recordings:
            yield from self._recording(recording, rest, room)
        if not session.recordings:
            yield rest + "no connection was opened"

    def _granted(self, session: ReviewedSession, rest: str, room: int) -> Iterator[str]:
        paint = self._paint
        approved = [approval for approval in session.approvals if approval.approved]
        refused = [approval for approval in session.approvals if not approval.approved]
        rules = " + ".join(session.rules) or "no rule"
        asked = f"asked at {time_of(session.requested_at)}"
        if refused:
            said = paint(safe_line(f"{asked}; refused by {people(refused)}", room), "red")
        elif approved:
            said = paint(safe_line(f"{asked}; approved by {people(approved)}", room), "green")
        elif session.granted_at is None:
            said = safe_line(f"{asked}; no approval was given", room)
        else:
            said = safe_line(f"{asked}; allowed by {rules}, none required", room)
        yield rest + said
        closed = f", closed at {time_of(session.closed_at)}" if session.closed_at else ""
        if session.granted_at is None:
            why = _NEVER_GRANTED.get(session.close_reason, session.close_reason)
            yield rest + safe_line(f"never granted: {why}" if why else "never granted", room)
        elif approved:
            yield rest + safe_line(f"granted by {rules}; until {time_of(session.expires_at)}{closed}", room)
        else:
            yield rest + safe_line(f"granted until {time_of(session.expires_at)}{closed}", room)
        if session.revoked is not None:
            why = f"REVOKED at {time_of(session.revoked.at)} by {session.revoked.by}: {session.revoked.why}"
            yield rest + paint(safe_line(why, room), "red", "bold")

    def _recording(self, recording: ReviewedRecording, rest: str, room: int) -> Iterator[str]:
        paint = self._paint
        state = paint("signed, verified", "green") if recording.verified else paint("NOT VERIFIED", "red", "bold")
        ended = f"to {time_of(recording.sealed_at)}, {recording.exit}" if recording.sealed_at else "not sealed"
        gaps = ", ".join(_gap(gap) for gap in recording.gaps[:_MOST_GAPS]) if recording.gaps else "no gaps"
        if len(recording.gaps) > _MOST_GAPS:
            gaps += f" and {len(recording.gaps) - _MOST_GAPS} more"
        if recording.sealed_by and not recording.sealed_by.startswith("broker:"):
            who = "the sweeper" if recording.sealed_by == "sweeper" else f"a restarted broker ({recording.sealed_by})"
            state += "; " + paint(safe_line(f"its broker died: sealed by {who}", room), "yellow")
        if not recording.verified and not recording.gaps:
            gaps = "gaps unknown"  # only a manifest that verifies can say that nothing is missing
        where = f"from {recording.peer}, {time_of(recording.opened_at)} {ended}"
        hop = self._targets.get(recording.target_hop)
        if hop is None or not hop.verified:
            state += "; " + paint("TARGET HOP NOT VERIFIED", "red", "bold")
        yield rest + safe_line(f"recorded: {recording.connection_id} {where}", room)
        yield f"{rest}  {counted(recording.segments, 'segment')}, {counted(recording.frames, 'frame')}, {gaps}: {state}"
        yield rest + "  " + paint(_manifest(recording.manifest_key, room - 2), "dim")


def _gap(gap: Gap) -> str:
    if gap.last is None:
        return f"gap from frame {gap.first} on ({safe_line(gap.why)})"
    return f"gap {gap.first} to {gap.last} ({safe_line(gap.why)})"


def _manifest(key: str, room: int) -> str:
    """Return a manifest's key; where it does not fit, without the session's id, which stands above it."""
    line = safe_line(key)
    parts = line.split("/")
    if len(line) > room and len(parts) == 5:
        line = "/".join((*parts[:3], "…", parts[4]))
    return safe_line(line, room) or "no manifest"


def _most_telling(operations: Sequence[ReviewedOperation]) -> list[ReviewedOperation]:
    """Return at most MOST_OPERATIONS, in order: first all that were held, stopped or failed to verify or run."""
    plain = [number for number, op in enumerate(operations) if not _is_telling(op)]
    left_out = set(plain[max(0, MOST_OPERATIONS - (len(operations) - len(plain))) :])
    return [op for number, op in enumerate(operations) if number not in left_out]


def _is_telling(op: ReviewedOperation) -> bool:
    return op.held or op.verdict == "block" or not op.recorded or op.status != "ok"
