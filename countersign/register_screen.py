"""The review of a period as text: one session is two lines, the unusual ones first.

Rules: as in ``review_screen``: every text passes ``printable``, what does not verify says so at its place, what is left
out is counted. A list that was made from the tables alone is never called verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from countersign.printable import counted, safe_line
from countersign.review_operations import day_of, people
from countersign.review_steps import allowed_session
from countersign.review_unusual import alike, is_opaque, unusual_hops, unusual_session

if TYPE_CHECKING:
    from chalicelib.services.period_review import ListedSession, ReviewedPeriod
    from chalicelib.services.population import Population
    from chalicelib.services.reviewed import AccessReview, Finding, ReviewedSession

Paint = Callable[..., str]

MOST_SESSIONS: Final = 40  # two or three lines each; --all shows every one
_MOST_UNUSUAL: Final = 20
_ARROW: Final = " › "
_LEAST_NAME: Final = 4  # characters of a name on the narrowest screen
_LEAST_CHAIN: Final = 2 * _LEAST_NAME + len(_ARROW + "…" + _ARROW)


def period_screen(
    review: ReviewedPeriod, paint: Paint, columns: int, *, every: bool, anchored: bool = True
) -> Iterator[str]:
    """Give the lines of a whole review of a period."""
    if not review.verified:
        verdict = paint("NOT VERIFIED", "red", "bold")
    elif not anchored:
        verdict = paint("UNANCHORED", "yellow", "bold")
    else:
        verdict = paint("VERIFIED", "green", "bold")
    yield f"{paint('ACCESS REVIEW', 'bold')}  {_asked(review.selection.target, review.selection.pipeline)}  {verdict}"
    yield from _period_lines(review.period.since, review.period.until, paint)
    sessions = [(chain, session) for chain in review.chains for session in chain.sessions]
    operations = [op for _, session in sessions for op in session.operations]
    stopped = sum(op.verdict == "block" for op in operations)
    held = sum(op.held for op in operations)
    yield (
        f"{counted(review.sessions, 'session')} under {counted(len(review.chains), 'chain')}, "
        f"{counted(len(operations), 'operation')}: {held} held, {stopped} blocked"
    )
    yield f"population {review.population_sha256}"
    yield from finding_lines(review.findings, paint)
    yield from _unusual(review.chains, paint, columns)
    yield ""
    ordered = sorted(sessions, key=lambda one: (not _telling(*one), one[1].requested_at, one[1].id))
    shown = ordered if every else ordered[:MOST_SESSIONS]
    for chain, session in shown:
        yield from _session(chain, session, paint, columns)
    if len(ordered) > len(shown):
        yield paint(f"and {counted(len(ordered) - len(shown), 'session')} more; --all shows them", "dim")


def listed_screen(
    population: Population, sessions: Sequence[ListedSession], paint: Paint, columns: int, *, every: bool
) -> Iterator[str]:
    """Give the lines of a list that was made from the tables alone."""
    asked = _asked(population.selection.target, population.selection.pipeline)
    yield f"{paint('SESSIONS', 'bold')}  {asked}  {paint('LISTED, NOT VERIFIED', 'yellow', 'bold')}"
    yield from _period_lines(population.period.since, population.period.until, paint)
    yield f"{counted(len(sessions), 'session')}, from the tables alone: no recording was opened, no signature checked"
    yield from finding_lines(population.findings, paint)
    yield ""
    ordered = sorted(sessions, key=lambda one: (one.granted and not one.answers, one.requested_at, one.id))
    shown = ordered if every else ordered[:MOST_SESSIONS]
    for one in shown:
        where = f"{one.target} as {one.principal}" if one.principal else one.target
        yield from _two_lines(one.requested_at, where, one.through, one.id, _listed_how(one), paint, columns)
    if len(ordered) > len(shown):
        yield paint(f"and {counted(len(ordered) - len(shown), 'session')} more; --all shows them", "dim")


def finding_lines(findings: Iterable[Finding], paint: Paint) -> Iterator[str]:
    told = list(findings)
    if not told:
        return
    yield ""
    yield paint(f"FINDINGS: {len(told)}", "bold", "red")
    for finding in told:  # whole, however long: what is cut here may be the name that matters
        yield f"  {paint(safe_line(finding.kind.value), 'red')}  {safe_line(str(finding))}"


def _asked(target: str, pipeline: str) -> str:
    on = safe_line(target, 60) if target else "every target"
    return on + (f", begun by {safe_line(pipeline, 60)}" if pipeline else "")


def _period_lines(since: datetime, until: datetime, paint: Paint) -> Iterator[str]:
    yield paint(f"asked for from {day_of(since)} until before {day_of(until)}", "dim")


def _unusual(chains: Iterable[AccessReview], paint: Paint, columns: int) -> Iterator[str]:
    found = alike((chain.initiator.name, chain.txn, line) for chain in chains for line in _unusual_lines(chain))
    if not found:
        return
    yield ""
    yield paint(f"UNUSUAL: {sum(one.number for one in found)}", "bold", "yellow")
    for one in found[:_MOST_UNUSUAL]:
        who = f"{one.who} ({one.ids[0]})" if one.number == 1 else f"{one.number} times, {one.who}"
        yield from wrap(
            safe_line(f"{who}: {one.line}"),
            columns,
            initial_indent="  ",
            subsequent_indent="    ",
            max_lines=3,
            placeholder=" …",
        )
    more = sum(one.number for one in found[_MOST_UNUSUAL:])
    if more:
        yield paint(f"  and {more} more: --json, --csv and --html have them", "dim")


def _unusual_lines(chain: AccessReview) -> Iterator[str]:
    if not chain.accountable:
        yield "nobody is known behind this run: its trigger is unknown"
    yield from unusual_hops(chain)
    hops = {hop.id: hop for hop in chain.hops}
    for session in chain.sessions:
        yield from (f"{session.target} ({session.id}) {line}" for line in unusual_session(session, hops))


def _telling(chain: AccessReview, session: ReviewedSession) -> bool:
    """Say whether a reader must see it first."""
    hops = {hop.id: hop for hop in chain.hops}
    stopped = any(op.held or op.verdict == "block" or is_opaque(op) or not op.recorded for op in session.operations)
    unsound = not all(recording.verified for recording in session.recordings)
    return stopped or unsound or bool(session.approvals) or any(unusual_session(session, hops))


def _session(chain: AccessReview, session: ReviewedSession, paint: Paint, columns: int) -> Iterator[str]:
    where = f"{session.target} as {session.principal}" if session.principal else session.target
    through = _names(chain, session)
    how = allowed_session(session, people)
    yield from _two_lines(session.requested_at, where, through, session.id, how, paint, columns)
    held, blocked = sum(op.held for op in session.operations), sum(op.verdict == "block" for op in session.operations)
    done = counted(len(session.operations), "operation") if session.operations else "nothing was done"
    done += f", {held} held" if held else ""
    done += f", {blocked} blocked" if blocked else ""
    sound = all(recording.verified for recording in session.recordings)
    state = "recorded" if session.recordings and sound else "no connection" if sound else "RECORD NOT VERIFIED"
    revoked = "; REVOKED" if session.revoked is not None else ""
    yield f"    {done}; {paint(state, 'red', 'bold') if not sound else state}{paint(revoked, 'red', 'bold')}"


def _names(chain: AccessReview, session: ReviewedSession) -> tuple[str, ...]:
    hops = {hop.id: hop for hop in chain.hops}
    found: list[str] = []
    hop = hops.get(session.leaf_hop)
    while hop is not None and len(found) < len(hops):
        found.append(hop.identity.name)
        hop = hops.get(hop.parent)
    return tuple(reversed(found)) or (session.actor.name,)


def _through(names: Sequence[str], room: int) -> str:
    """Return the chain on one line of ``room`` characters. Who began it and who acted stand in it however long it is:
    what is left out of a longer one is its middle, first those next to the beginning."""
    safe = [safe_line(name) for name in names]
    for kept in range(len(safe) - 1, 0, -1):
        line = _ARROW.join(safe if kept == len(safe) - 1 else [safe[0], "…", *safe[-kept:]])
        if len(line) <= room:
            return line
    if len(safe) < 2:
        return safe_line(safe[0], room) if safe else ""
    between = _ARROW if len(safe) == 2 else f"{_ARROW}…{_ARROW}"
    end = safe_line(safe[-1], max((room - len(between)) // 2, _LEAST_NAME))
    return safe_line(safe[0], max(room - len(between) - len(end), _LEAST_NAME)) + between + end


def _listed_how(one: ListedSession) -> str:
    given = ", ".join(
        f"{name} at {at.astimezone(UTC):%H:%M:%S}" if approved else f"refused by {name}"
        for _, name, approved, at in one.answers
    )
    rules = " + ".join(one.rules) or "no rule"
    if not one.granted:
        return f"{one.status}, never granted{f'; {given}' if given else ''}"
    if given:
        return f"said to be approved by {given}; {rules}"
    return f"said to be allowed by {rules}, none required"


def _two_lines(
    at: datetime, where: str, through: Sequence[str], session_id: str, how: str, paint: Paint, columns: int
) -> Iterator[str]:
    room = max(columns - 21 - 32, 24)
    plain_head = safe_line(where, min(room // 2, room - 2 - _LEAST_CHAIN))
    by = _through(through, room - len(plain_head) - 2)
    shown = f"{paint(plain_head, 'bold')}  {by}"
    plain = f"{plain_head}  {by}"
    named = paint(safe_line(session_id), "dim")
    yield f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}  {shown}{' ' * max(0, room - len(plain))}  {named}"
    yield f"    {safe_line(how, columns - 4)}"
