"""A replay as one HTML file that needs nothing else: each operation, its verdict, who approved it, what came back.

For an auditor to look through and file. Databases are shown statement by statement, with their masked results as
tables; terminals are played by asciinema-player where this installation has it (``web_player``), and stand there as
text beside it, which is also what the search finds. Rules: as the review's page (``markup``, ``page_parts``): every
recorded text is a text node, a terminal's bytes are JSON in one, the page's own policy lets its scripts run by their
hash and nothing be fetched; without a script all of it is shown; what is left out for its size is counted.

What it does not do: verify (``chalicelib.services.recordings``), or tell that it was opened: it is a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chalicelib.domain.masking import SENTINEL
from countersign.markup import Carried, Child, Markup, data, page, safe_text, tag
from countersign.page_parts import About, filters, findings_table, foot, head, moment, section
from countersign.printable import counted, safe_line
from countersign.replay_moments import clock_time, moments
from countersign.replay_page_style import SCRIPT, STYLE
from countersign.replay_parts import Part, PlayedOperation, Printed, Room, Table, Terminal, Told, played
from countersign.review_page_style import SCRIPT as FILTERS
from countersign.review_page_style import STYLE as COMMON
from countersign.review_steps import allowed_operation, answered, outcome_of, verdict_word

if TYPE_CHECKING:
    from chalicelib.domain.connection import ConnectionRow
    from chalicelib.domain.session import Session
    from chalicelib.services.recordings import Read
    from chalicelib.services.reviewed import Finding, ReviewedOperation
    from countersign.web_player import WebPlayer

# Characters that were recorded. Written out, the worst of them take fourteen: 56 MB of page, which browsers still take.
MOST_ROOM: Final = 4_000_000
MOST_OPERATIONS: Final = 5000  # of a page; the review's page lists more of them
MOST_TEXT: Final = 20_000  # characters of one statement
_LISTED_TEXT: Final = 60  # characters of a statement in the list at the side
_KIND_OF: Final = {  # a verdict's word to its class
    "forwarded": "forwarded",
    "masked": "masked",
    "held, ran": "approved",
    "blocked": "blocked",
    "held, refused": "refused",
    "held": "held",
}
_COLOURS: Final = {"forwarded": "green", "masked": "green", "approved": "amber", "held": "amber"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One recording: of which session and connection, what was read of it, and its operations as they were reviewed,
    by id: with who approved each, and whether that verifies."""

    session: Session
    row: ConnectionRow
    read: Read
    reviewed: Mapping[str, ReviewedOperation]


def replay_page(
    about: About, recordings: Sequence[Replayed], findings: Sequence[Finding], player: WebPlayer | None
) -> str:
    """Return the page. Without ``player`` terminals are shown as text, and the page says so."""
    made = _Page(recordings, findings)
    shown = [made.recording(place, one) for place, one in enumerate(recordings)]  # first: it counts what is left out
    body: list[Child] = [
        tag("header", head(about, findings)),
        section("Findings", findings_table(findings), "bad") if findings else "",
        made.left_out(),
        _no_player() if made.terminals and player is None else "",
        tag("div", made.filters(), _jumps(), class_="bar"),
        tag("div", tag("nav", tag("ol", made.listed), aria_label="operations"), tag("main", shown), class_="replay"),
        _licence(player) if made.terminals and player is not None else "",
        foot(about),
    ]
    carried = None
    if made.terminals and player is not None:
        carried = Carried(style=player.style, script=player.script)
    return page(about.title, COMMON + STYLE, FILTERS + SCRIPT, body, carried)


class _Page:
    """Builds the recordings, and collects what is said of all of them."""

    def __init__(self, recordings: Sequence[Replayed], findings: Sequence[Finding]) -> None:
        self._faults: dict[str, list[str]] = {}
        for finding in findings:
            self._faults.setdefault(finding.key, []).append(f"{finding.kind.value}: {finding.what}")
        self._names = [_where(one) for one in recordings]
        self._room = Room(left=MOST_ROOM)
        self._operations = 0
        self._more = 0
        self._kinds: dict[str, str] = {}
        self.terminals = 0
        self.listed: list[Markup] = []

    def recording(self, place: int, one: Replayed) -> Markup:
        if len(self._names) > 1:
            self.listed.append(tag("li", self._names[place], class_="name"))
        every = played(moments(one.read.frames, one.row.opened_at), self._room)
        own = next((found for found in every if not found.id), None)
        operations = [found for found in every if found.id]
        shown = operations[: max(0, MOST_OPERATIONS - self._operations)]
        self._more += len(operations) - len(shown)
        marks = [(found.at_s, _mark(found, one.reviewed.get(found.id))) for found in operations]
        children = [self._operation(place, found, one.reviewed.get(found.id), marks) for found in shown]
        about = [*(own.parts if own is not None else ())]
        return section(
            self._names[place],
            [tag("dl", list(_facts(one))), *(self._part(part, "", []) for part in about), children],
        )

    def filters(self) -> Markup:
        kinds = [(word, f"k-{mark}") for mark, word in sorted(self._kinds.items())]
        return filters(self._names, kinds, self._operations, "recording")

    def left_out(self) -> Child:
        """Return a line on what the page has no room for."""
        what = [counted(self._more, "operation")] if self._more else []
        what += [counted(self._room.rows, "row")] if self._room.rows else []
        what += [counted(self._room.characters, "character")] if self._room.characters else []
        if not what:
            return ""
        text = f"Left out for their size: {', '.join(what)}. --json has all of them."
        return tag("p", text, class_="weak")

    def _operation(
        self,
        place: int,
        found: PlayedOperation,
        reviewed: ReviewedOperation | None,
        marks: Sequence[tuple[float, str]],
    ) -> Markup:
        number = self._operations
        self._operations += 1
        word = verdict_word(reviewed) if reviewed is not None else found.verdict
        kind = _KIND_OF.get(word, "other")
        self._kinds.setdefault(kind, word if kind != "other" else "another verdict")
        look = _COLOURS.get(kind, "red")
        self._list(number, found, word, look)
        told: list[Child] = [
            tag("span", clock_time(found.at_s), class_="when"),
            tag("span", word or "no verdict", class_=f"word {look}"),
        ]
        told.append(tag("span", outcome_of(reviewed), class_="outcome") if reviewed is not None else "")
        told.append(
            "" if reviewed is not None and reviewed.recorded else tag("span", "NOT VERIFIED", class_="word bad")
        )
        told.append(tag("code", found.id, class_="dim"))
        allowed = allowed_operation(reviewed, answered) if reviewed is not None else " + ".join(found.rules)
        lines: list[Child] = [tag("header", told), tag("p", allowed, class_="allowed")]
        lines += [tag("p", fault, class_="word bad") for fault in self._faults.get(found.id, [])]
        lines.append(tag("pre", safe_text(found.text, MOST_TEXT) or "(an interactive shell)", class_="statement"))
        lines.append(tag("p", f"with {', '.join(found.binds)}", class_="dim") if found.binds else "")
        lines += [self._part(part, found.text, marks) for part in found.parts]
        telling = reviewed is None or reviewed.held or reviewed.verdict == "block" or reviewed.status not in ("ok", "")
        classes = ["step", "op", f"k-{kind}", f"t{place}", *(["telling"] if telling else [])]
        return tag("article", lines, id=f"o{number}", class_=" ".join(classes), tabindex=-1)

    def _list(self, number: int, found: PlayedOperation, word: str, look: str) -> None:
        text = safe_line(" ".join(found.text.split()) or "(an interactive shell)", _LISTED_TEXT)
        what: list[Child] = [
            tag("span", clock_time(found.at_s), class_="when"),
            tag("span", word, class_=f"word {look}"),
        ]
        what.append(text)
        self.listed.append(tag("li", tag("button", what, type="button", data_to=f"o{number}")))

    def _part(self, part: Part, title: str, marks: Sequence[tuple[float, str]]) -> Markup:
        match part:
            case Told():
                return tag("p", part.text, class_=f"told word {part.look}" if part.look else "told")
            case Table():
                return _table(part)
            case Printed():
                return _printed(part)
            case Terminal():
                return self._terminal(part, title, marks)

    def _terminal(self, part: Terminal, title: str, marks: Sequence[tuple[float, str]]) -> Markup:
        number = self.terminals
        self.terminals += 1
        cast = part.cast(safe_line(title, _LISTED_TEXT), marks)
        width, height = part.size
        about = f"a terminal of {width} columns and {height} rows ({part.term})"
        more = f"; {part.left} of its events do not fit" if part.left else ""
        return tag(
            "div",
            tag("p", f"{about}{more}", class_="dim"),
            data(f"cast{number}", cast),
            tag("div", class_="screen", id=f"screen{number}", data_cast=f"cast{number}"),
            class_="terminal",
        )


def _where(one: Replayed) -> str:
    return f"{one.row.principal} on {one.row.target}" if one.row.principal else one.row.target


def _facts(one: Replayed) -> Iterator[Markup]:
    session, row, recording = one.session, one.row, one.read.recording
    state = tag("span", "verified", class_="word green")
    if one.read.findings:
        state = tag("span", "NOT VERIFIED", class_="word bad")
    ended = f"{moment(row.sealed_at)} ({row.exit})" if row.sealed_at is not None else "not sealed"
    lost = f", {counted(len(recording.gaps), 'gap')}" if recording.gaps else ""
    facts: list[tuple[str, Child]] = [
        ("session", [tag("code", session.id), ", connection ", tag("code", row.id)]),
        ("who", f"{session.actor.name} for {session.originator.name}"),
        ("why", session.request.reason),
        ("from", row.peer),
        ("opened", moment(row.opened_at)),
        ("ended", ended),
        ("recording", [state, f", {counted(recording.segments, 'segment')}, {recording.frames} frames{lost}"]),
    ]
    for name, value in facts:
        yield tag("dt", name)
        yield tag("dd", value)


def _table(part: Table) -> Markup:
    rows = [tag("tr", [_cell(cell) for cell in row]) for row in part.rows]
    top = tag("thead", tag("tr", [tag("th", name, scope="col") for name in part.columns])) if part.columns else ""
    more = tag("p", f"and {counted(part.left, 'row')} more; --json has them", class_="dim") if part.left else ""
    return tag("div", tag("table", top, tag("tbody", rows)), more, class_="rows")


def _cell(cell: str | None) -> Markup:
    if cell is None:
        return tag("td", "null", class_="null")
    return tag("td", cell, class_="masked") if SENTINEL in cell else tag("td", cell)


def _printed(part: Printed) -> Markup:
    more = [f"and {counted(part.left, 'character')} more; --json has them"] if part.left else []
    more += [f"{counted(part.dropped, 'escape sequence')} may not run, and is left out"] if part.dropped else []
    name = tag("div", part.stream, class_="dim") if part.stream else ""
    return tag("div", name, tag("pre", part.text), [tag("p", line, class_="dim") for line in more], class_="printed")


def _mark(found: PlayedOperation, reviewed: ReviewedOperation | None) -> str:
    word = verdict_word(reviewed) if reviewed is not None else found.verdict
    return safe_line(f"{word}: {' '.join(found.text.split())}", _LISTED_TEXT)


def _jumps() -> Markup:
    def button(text: str, to: str, key: str) -> Markup:
        return tag("button", text, " ", tag("kbd", key), type="button", data_jump=to)

    return tag(
        "div",
        button("‹ operation", "previous", "p"),
        button("operation ›", "next", "n"),
        button("‹ stopped or answered", "told-previous", "P"),
        button("stopped or answered ›", "told-next", "N"),
        button("search", "search", "/"),
        class_="jumps",
    )


def _no_player() -> Markup:
    text = (
        "Terminals are shown as text: asciinema-player is not in this installation. `--player FILE` names its package."
    )
    return tag("p", text, class_="weak")


def _licence(player: WebPlayer | None) -> Child:
    if player is None:
        return ""
    about = "Terminals are played by asciinema-player, which is under the Apache License 2.0"
    return tag("details", tag("summary", about), tag("pre", player.licence), class_="licence")
