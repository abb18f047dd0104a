"""An access review as one HTML file that needs nothing else: the chains as a graph, the steps in time, filters, print.

For an auditor to file, and for whoever gets it from them. Rules: every recorded text is a text node (``markup``); the
page's own policy lets its one script and style run and nothing be fetched; without a script everything is shown. What
does not verify is said at the top and at its place; what is left out for its size is counted.

What it does not do: verify (``chalicelib.services.review``); the page is what the command found, and is signed by
nobody: whoever doubts it runs the command that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from countersign.markup import Child, Markup, page, safe_text, tag
from countersign.printable import counted
from countersign.review_graph import colour, graph, timeline
from countersign.review_page_style import SCRIPT, STYLE
from countersign.review_steps import Step, allowed_session, answered, steps_of
from countersign.review_unusual import unusual

if TYPE_CHECKING:
    from chalicelib.services.reviewed import AccessReview, Finding, ReviewedRecording, ReviewedSession

MOST_STEPS: Final = 20_000  # 20 MB of page, which browsers still take; the CSV has all of them
MOST_TEXT: Final = 4000  # characters of one statement; the recording has it whole
_ID: Final = 32  # characters: a prefix and a ULID have 30
MOST_LISTED: Final = 2000  # findings, unusual things, sessions


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What the page is of. ``title`` and ``facts`` (name, value) are shown; ``command`` makes it again; ``anchored``:
    somebody vouches for the keys that everything was verified with."""

    title: str
    facts: tuple[tuple[str, str], ...]
    command: str
    anchored: bool
    reviewed_at: datetime


def review_page(about: About, reviews: Sequence[AccessReview], findings: Sequence[Finding]) -> str:
    """Return the page."""
    steps = sorted((step for review in reviews for step in steps_of(review)), key=lambda step: (step.at, step.id))
    body: list[Child] = [
        tag("header", _head(about, findings)),
        _section("Findings", _findings(findings), "bad") if findings else "",
        _unusual(reviews),
        _section("Who initiated it", [_initiators(reviews)]),
        _section("Through whom, to what", list(graph(reviews))),
        _section("When", list(timeline(steps))),
        _section("What was done, and what allowed it", list(_steps(steps))),
        _section("Sessions and recordings", list(_sessions(reviews))),
        tag("footer", "Made by ", tag("code", about.command), " at ", _moment(about.reviewed_at), _footnote()),
    ]
    return page(about.title, STYLE, SCRIPT, body)


def _head(about: About, findings: Sequence[Finding]) -> Iterator[Markup]:
    if findings:
        word, look, more = "NOT VERIFIED", "bad", f"{counted(len(findings), 'finding')}: what is listed does not hold"
    elif not about.anchored:
        word, look, more = "UNANCHORED", "weak", "it holds, by keys that only the copy itself vouches for"
    else:
        word, look, more = "VERIFIED", "good", "signatures, links, hashes and sequence were read back and hold"
    yield tag("h1", about.title)
    yield tag("p", tag("span", word, class_=f"badge {look}"), " ", more)
    yield tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in about.facts])


def _findings(findings: Sequence[Finding]) -> Iterator[Markup]:
    rows = [
        tag("tr", tag("td", one.kind.value, class_="kind"), tag("td", tag("code", one.key)), tag("td", one.what))
        for one in findings[:MOST_LISTED]
    ]
    yield _table(("kind", "what", "is wrong"), rows)
    yield from _left(len(findings))


def _unusual(reviews: Sequence[AccessReview]) -> Child:
    told = [(review.initiator.name, line) for review in reviews for line in unusual(review)]
    if not told:
        return ""
    many = len(reviews) > 1
    items = [tag("li", [tag("b", name), ": "] if many else "", line) for name, line in told[:MOST_LISTED]]
    return _section("Unusual", [tag("ul", items), *_left(len(told))], "weak")


def _initiators(reviews: Sequence[AccessReview]) -> Markup:
    rows = []
    for review in reviews[:MOST_LISTED]:
        who = review.initiator
        behind = ", ".join(f"{name} ({alias})" if name else alias for alias, name in review.accountable) or "unknown"
        kept = " · ".join(f"{name} {value}" for name, value in review.initiator_attributes)
        cells = (who.name, f"{review.initiator_assurance} by {who.issuer}\nsubject {who.subject}", kept, behind)
        rows.append(tag("tr", [tag("td", cell) for cell in cells], tag("td", _id(review.txn))))
    return _table(("run", "vouched for", "facts of it", "behind it", "chain"), rows)


def _steps(steps: Sequence[Step]) -> Iterator[Markup]:
    shown = list(steps)
    if len(steps) > MOST_STEPS:
        shown = [step for step in steps if step.telling][:MOST_STEPS]
        yield tag(
            "p",
            f"{len(steps) - len(shown)} steps of {len(steps)} are left out here, each allowed without approval "
            "where there is room for the others; --csv has all of them.",
            class_="weak",
        )
    targets = sorted({step.target for step in shown if step.target})
    kinds = [kind for kind in _KINDS if any(step.kind == kind for step in shown)]
    yield _filters(targets, kinds, len(shown))
    places = {target: number for number, target in enumerate(targets)}
    rows = [_step(step, places) for step in shown]
    yield _table(("when", "who", "what", "became", "allowed by"), rows, identifier="steps")


def _filters(targets: Sequence[str], kinds: Sequence[str], number: int) -> Markup:
    options = [tag("option", "every target", value="")]
    options += [tag("option", target, value=f"t{place}") for place, target in enumerate(targets)]
    every = [tag("option", "every kind", value="")] + [tag("option", f"{kind}s", value=f"k-{kind}") for kind in kinds]
    return tag(
        "form",
        tag("label", "Words ", tag("input", type="search", id="words", autocomplete="off")),
        tag("label", "Kind ", tag("select", every, id="kind")),
        tag("label", "Target ", tag("select", options, id="target")),
        tag("label", tag("input", type="checkbox", id="telling"), " only what people or rules stopped or answered"),
        tag("output", counted(number, "step"), id="count"),
        class_="filters",
        id="filters",
    )


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
        tag("td", _moment(step.at), class_="when"),
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
    rows = [_session(review, session) for review, session in found[:MOST_LISTED]]
    yield _table(("session", "who", "target", "granted", "recorded"), rows)
    yield from _left(len(found))


def _session(review: AccessReview, session: ReviewedSession) -> Markup:
    until = f"\nuntil {_moment(session.expires_at)}" if session.expires_at else "\nnever granted"
    where = f"{session.principal}@{session.target}" if session.principal else session.target
    recorded: list[Child] = [_recording(recording) for recording in session.recordings]
    return tag(
        "tr",
        tag("td", _id(session.id), tag("div", _moment(session.requested_at), class_="dim")),
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


def _section(title: str, children: Child, look: str = "") -> Markup:
    return tag("section", tag("h2", title), children, class_=look)


def _table(names: Sequence[str], rows: Sequence[Markup], identifier: str = "") -> Markup:
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in names]))
    named = {"id": identifier} if identifier else {}
    return tag("table", head, tag("tbody", list(rows)), **named)


def _left(number: int) -> Iterator[Markup]:
    if number > MOST_LISTED:
        yield tag("p", f"and {number - MOST_LISTED} more, which --json has", class_="dim")


def _id(text: str) -> Markup:
    """Return an id that is not broken over lines; a text that is longer than any of ours is, or it would take the room
    of all the rest."""
    return tag("code", text, class_="id") if len(text) <= _ID else tag("code", text)


def _footnote() -> Markup:
    return tag("p", "This page is what the command found, and nobody signed it. Times are UTC.", class_="dim")


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


_KINDS: Final = ("run", "delegation", "session", "operation", "answer", "revocation")
