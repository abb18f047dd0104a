"""An access review as one HTML file that needs nothing else: the chains as a graph, the steps in time, filters, print.

For an auditor to file, and for whoever gets it from them. Rules: every recorded text is a text node (``markup``); the
page's own policy lets its one script and style run and nothing be fetched; without a script everything is shown. What
does not verify is said at the top and at its place; what is left out for its size is counted.

What it does not do: verify (``chalicelib.services.review``); the page is what the command found, and is signed by
nobody: whoever doubts it runs the command that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from countersign.markup import Child, Markup, page, safe_text, tag
from countersign.page_parts import (
    MOST_LISTED,
    About,
    filters,
    findings_table,
    foot,
    head,
    identifier,
    left,
    moment,
    section,
    table,
)
from countersign.printable import counted
from countersign.review_graph import colour, graph, timeline
from countersign.review_page_style import SCRIPT, STYLE
from countersign.review_steps import Step, allowed_session, answered, steps_of
from countersign.review_unusual import Alike, alike, unusual

if TYPE_CHECKING:
    from chalicelib.services.reviewed import AccessReview, Finding, ReviewedRecording, ReviewedSession

MOST_STEPS: Final = 5000  # a browser lays them out in two seconds, and nobody reads more; the CSV has all of them
MOST_IDS: Final = 200  # of things that are all alike
MOST_TEXT: Final = 4000  # characters of one statement; the recording has it whole


def review_page(about: About, reviews: Sequence[AccessReview], findings: Sequence[Finding]) -> str:
    """Return the page."""
    steps = sorted((step for review in reviews for step in steps_of(review)), key=lambda step: (step.at, step.id))
    body: list[Child] = [
        tag("header", head(about, findings)),
        section("Findings", findings_table(findings), "bad") if findings else "",
        _held(reviews),
        _unusual(reviews),
        section("Who initiated it", list(_initiators(reviews))),
        section("Through whom, to what", list(graph(reviews))),
        section("When", list(timeline(steps))),
        section("What was done, and what allowed it", list(_steps(steps))),
        section("Sessions and recordings", list(_sessions(reviews))),
        foot(about),
    ]
    return page(about.title, STYLE, SCRIPT, body)


def _held(reviews: Sequence[AccessReview]) -> Child:
    holds = list({hold.id: hold for review in reviews for hold in review.holds}.values())
    if not holds:
        return ""
    items = [
        tag("li", [tag("b", f"{hold.kind} {hold.subject}"), f" by {hold.by} at {moment(hold.at)}: {hold.reason} "])
        for hold in holds[:MOST_LISTED]
    ]
    return section("Held", [tag("ul", items), *left(len(holds))], "weak")


def _unusual(reviews: Sequence[AccessReview]) -> Child:
    """Give what is unusual, the rarest first; of what is the same, how often it was and where."""
    found = alike((review.initiator.name, review.txn, line) for review in reviews for line in unusual(review))
    if not found:
        return ""
    many = len(reviews) > 1
    items = [tag("li", [tag("b", one.who), ": "] if many else "", one.line, _which(one)) for one in found[:MOST_LISTED]]
    return section("Unusual", [tag("ul", items), *left(len(found))], "weak")


def _which(one: Alike) -> Child:
    if one.number == 1:
        return ""
    return _more(
        f"{one.number} times", [tag("p", " ".join(one.ids[:MOST_IDS]), class_="dim"), *left(len(one.ids), MOST_IDS)]
    )


def _more(words: str, children: Child) -> Markup:
    """Return what is there for whoever opens it."""
    return tag("details", tag("summary", words), children)


def _initiators(reviews: Sequence[AccessReview]) -> Iterator[Markup]:
    """Give who began it: runs of one name, identity and people behind them are one row; those with nobody known behind
    them come first."""
    found: dict[tuple[str, ...], list[AccessReview]] = {}
    for review in reviews:
        behind = ", ".join(f"{name} ({alias})" if name else alias for alias, name in review.accountable)
        who = review.initiator
        found.setdefault((who.name, review.initiator_assurance, who.issuer, who.subject, behind), []).append(review)
    rows = []
    for (name, assurance, issuer, subject, behind), same in sorted(found.items(), key=lambda one: bool(one[0][4])):
        kept = [pair for pair in same[0].initiator_attributes if all(pair in one.initiator_attributes for one in same)]
        facts = " · ".join(f"{fact} {value}" for fact, value in kept)
        ids = [review.txn for review in same]
        chain: Child = identifier(ids[0])
        if len(ids) > 1:
            text = tag("p", " ".join(ids[:MOST_IDS]), class_="dim")
            chain = _more(counted(len(ids), "chain"), [text, *left(len(ids), MOST_IDS)])
        cells = (name, f"{assurance} by {issuer}\nsubject {subject}", facts, behind or "unknown")
        rows.append(tag("tr", [tag("td", cell) for cell in cells], tag("td", chain)))
    yield table(("run", "vouched for", "facts of it", "behind it", "chain"), rows[:MOST_LISTED])
    yield from left(len(rows))


def _steps(steps: Sequence[Step]) -> Iterator[Markup]:
    shown = list(steps)
    if len(steps) > MOST_STEPS:
        # By what a reader must see first, and only then by time: else the first week of a month is all of it.
        ranked = sorted(range(len(steps)), key=lambda place: (_rank(steps[place]), place))
        shown = [steps[place] for place in sorted(ranked[:MOST_STEPS])]
        yield tag(
            "p",
            f"{len(steps) - len(shown)} steps of {len(steps)} are left out here: what does not verify was kept first, "
            "then what was stopped, what was held or failed, what people answered. --csv has all of them.",
            class_="weak",
        )
    targets = sorted({step.target for step in shown if step.target})
    kinds = [(f"{kind}s", f"k-{kind}") for kind in _KINDS if any(step.kind == kind for step in shown)]
    yield filters(targets, kinds, len(shown))
    places = {target: number for number, target in enumerate(targets)}
    rows = [_step(step, places) for step in shown]
    yield table(("when", "who", "what", "became", "allowed by"), rows, id="steps")


def _rank(step: Step) -> int:
    """Return how far back a step may stand where there is no room for all."""
    look = colour(step)
    if not step.verified:
        return 0
    if look == "red":
        return 1
    if look == "amber":
        return 2
    if step.kind == "answer":
        return 3
    return 4 if step.telling else 5


def _step(step: Step, targets: dict[str, int]) -> Markup:
    marks = ["step", f"k-{step.kind}", *(["telling"] if step.telling else [])]
    if step.target:
        marks.append(f"t{targets[step.target]}")
    above = " › ".join(step.chain[:-1])
    who = [tag("b", step.actor), tag("div", above, class_="dim") if above else "", _assurance(step)]
    where = f"{step.principal}@{step.target}" if step.principal else step.target
    what: list[Child] = [
        tag("div", f"{step.kind} {where}".strip(), class_="dim"),
        tag("pre", safe_text(step.what, MOST_TEXT)),
    ]
    became: list[Child] = [tag("span", step.verdict or step.kind, class_=f"word {colour(step)}")]
    became += [tag("div", step.outcome, class_="dim")] if step.outcome else []
    became += [] if step.verified else [tag("div", "NOT VERIFIED", class_="word bad")]
    return tag(
        "tr",
        tag("td", moment(step.at), class_="when"),
        tag("td", who),
        tag("td", what),
        tag("td", became),
        tag("td", step.allowed, tag("div", tag("code", step.id), class_="dim")),
        class_=" ".join(marks),
    )


def _assurance(step: Step) -> Child:
    if not step.assurance or step.assurance == "attested":
        return ""
    return tag("div", step.assurance, class_="word amber")


def _sessions(reviews: Sequence[AccessReview]) -> Iterator[Markup]:
    found = [(review, session) for review in reviews for session in review.sessions]
    found.sort(key=lambda one: _session_rank(one[1]))
    rows = [_session(review, session) for review, session in found[:MOST_LISTED]]
    yield table(("session", "who", "target", "granted", "recorded"), rows, id="sessions")
    yield from left(len(found))


def _session_rank(session: ReviewedSession) -> int:
    """Return how far back a session stands: what does not hold first, then what ended early or was stopped."""
    if not all(recording.verified for recording in session.recordings):
        return 0
    if session.revoked is not None or any(op.verdict == "block" or op.held for op in session.operations):
        return 1
    return 2 if session.approvals or session.granted_at is None else 3


def _session(review: AccessReview, session: ReviewedSession) -> Markup:
    until = f"\nuntil {moment(session.expires_at)}" if session.expires_at else "\nnever granted"
    where = f"{session.principal}@{session.target}" if session.principal else session.target
    recorded: list[Child] = [_recording(recording) for recording in session.recordings]
    return tag(
        "tr",
        tag("td", identifier(session.id), tag("div", moment(session.requested_at), class_="dim")),
        tag("td", session.actor.name, tag("div", f"for {review.initiator.name}", class_="dim")),
        tag("td", where, tag("div", session.reason, class_="dim")),
        tag("td", f"{allowed_session(session, answered)}{until}"),
        tag("td", recorded or "no connection was opened"),
    )


def _recording(recording: ReviewedRecording) -> Markup:
    gaps = (
        counted(len(recording.gaps), "gap") if recording.gaps else "no gaps" if recording.verified else "gaps unknown"
    )
    word = tag(
        "span",
        "signed, verified" if recording.verified else "NOT VERIFIED",
        class_="word " + ("green" if recording.verified else "bad"),
    )
    line = (
        f"from {recording.peer}, {counted(recording.segments, 'segment')}, {counted(recording.frames, 'frame')}, {gaps}"
    )
    ended = recording.exit if recording.sealed_at else "not sealed"
    return tag("div", tag("code", recording.connection_id), f" {line}, {ended}: ", word, class_="recording")


_KINDS: Final = ("run", "delegation", "session", "operation", "answer", "revocation")
