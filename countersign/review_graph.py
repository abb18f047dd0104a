"""The chains of a review drawn as one graph, and its steps as marks on a line of time: inline SVG, text nodes alone.

Rules: hops that have the same names above them and the same name, issuer and assurance are one box, which says how many
they were, so that a month of runs is one picture; what is not drawn for want of room is counted beneath it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from countersign.markup import Markup, tag
from countersign.printable import counted, safe_line

if TYPE_CHECKING:
    from chalicelib.services.reviewed import AccessReview, ReviewedHop, ReviewedSession
    from countersign.review_steps import Step

MOST_ROWS: Final = 60  # boxes below each other: more is no picture any more
MOST_DEPTH: Final = 8
_BOX: Final = (208, 44)
_GAP: Final = (72, 14)
_NAME: Final = 30  # characters of a name that fit into a box
_LANES: Final = ("run", "delegation", "session", "operation", "answer", "revocation")
_LINE: Final = (150, 1000, 24)  # where the line of time begins, its width, and how far its lanes are apart


@dataclass(kw_only=True, slots=True)
class _Node:
    """A box: hops that look alike, or a login on a target. ``marks`` are classes of the style."""

    name: str
    about: str
    marks: set[str] = field(default_factory=set)
    hops: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    below: dict[tuple[str, ...], _Node] = field(default_factory=dict)


def graph(reviews: Sequence[AccessReview]) -> Iterator[Markup]:
    """Give the picture of ``reviews``, and a line on what is not in it."""
    root = _Node(name="", about="")
    for review in reviews:
        _add(root, review)
    drawn: list[Markup] = []
    left = [0]
    height = _draw(root, 0, 0, drawn, left)
    deepest = min(_depth(root), MOST_DEPTH)
    width = deepest * (_BOX[0] + _GAP[0]) - _GAP[0] + 4
    if not drawn:
        return
    yield tag(
        "svg",
        drawn,
        class_="graph",
        viewBox=f"-2 -2 {width} {height + 4}",
        width=width,
        height=height + 4,
        role="img",
        aria_label="who let whom in, and where they went",
    )
    if left[0]:
        yield tag(
            "p", f"{counted(left[0], 'box', 'boxes')} more did not fit; every step is in the table.", class_="dim"
        )


def _add(root: _Node, review: AccessReview) -> None:
    hops = {hop.id: hop for hop in review.hops}
    for hop in review.hops:
        if hop.kind != "target":
            _node(root, hop, hops)
    for session in review.sessions:
        leaf = hops.get(session.leaf_hop)
        at = _node(root, leaf, hops) if leaf is not None else root
        name = f"{session.principal}@{session.target}" if session.principal else session.target
        found = at.below.setdefault(("target", name), _Node(name=name, about="target", marks={"target"}))
        found.sessions.add(session.id)
        found.marks |= _session_marks(session)


def _node(root: _Node, hop: ReviewedHop, hops: dict[str, ReviewedHop]) -> _Node:
    path: list[ReviewedHop] = []
    here: ReviewedHop | None = hop
    while here is not None and len(path) <= len(hops):
        path.append(here)
        here = hops.get(here.parent)
    node = root
    for one in reversed(path):
        key = (one.identity.issuer, one.identity.name, one.assurance)
        node = node.below.setdefault(key, _Node(name=one.identity.name, about=one.assurance))
        node.hops.add(one.id)
        if one.assurance != "attested":
            node.marks.add("weak")
        if not one.verified:
            node.marks.add("bad")
        if one.revoked is not None:
            node.marks.add("ended")
    return node


def _session_marks(session: ReviewedSession) -> set[str]:
    marks = {"ended"} if session.revoked is not None else set()
    if not all(recording.verified for recording in session.recordings):
        marks.add("bad")
    if any(op.verdict == "block" or op.held for op in session.operations):
        marks.add("told")
    return marks


def _depth(node: _Node) -> int:
    return max((1 + _depth(child) for child in node.below.values()), default=0)


def _draw(node: _Node, depth: int, top: int, drawn: list[Markup], left: list[int]) -> int:
    """Draw what is below ``node`` from ``top`` on, and return how far down that went."""
    here = top
    for child in node.below.values():
        if depth >= MOST_DEPTH or here >= MOST_ROWS * (_BOX[1] + _GAP[1]):
            left[0] += 1 + sum(1 for _ in _all(child))
            continue
        until = max(_draw(child, depth + 1, here, drawn, left), here + _BOX[1] + _GAP[1])
        x, y = depth * (_BOX[0] + _GAP[0]), here
        if depth:
            drawn.append(_edge(x, top + _BOX[1] // 2, y + _BOX[1] // 2))
        drawn.append(_box(child, x, y))
        here = until
    return here


def _all(node: _Node) -> Iterator[_Node]:
    for child in node.below.values():
        yield child
        yield from _all(child)


def _edge(x: int, above: int, here: int) -> Markup:
    middle = x - _GAP[0] // 2
    return tag(
        "path", d=f"M {x - _GAP[0]} {above} C {middle} {above} {middle} {here} {x} {here}", class_="edge", fill="none"
    )


def _box(node: _Node, x: int, y: int) -> Markup:
    number = counted(len(node.sessions), "session") if node.sessions else counted(len(node.hops), "hop")
    about = f"{node.about} · {number}" + (" · revoked" if "ended" in node.marks else "")
    about += " · NOT VERIFIED" if "bad" in node.marks else ""
    return tag(
        "g",
        tag("title", node.name),
        tag("rect", x=x, y=y, width=_BOX[0], height=_BOX[1], rx=7),
        tag("text", safe_line(node.name, _NAME), x=x + 10, y=y + 18, class_="name"),
        tag("text", about, x=x + 10, y=y + 34, class_="about"),
        class_=" ".join(("box", *sorted(node.marks))),
    )


def timeline(steps: Sequence[Step]) -> Iterator[Markup]:
    """Give the steps as marks on a line of time, one lane a kind; marks at one place are one."""
    if not steps:
        return
    begin, width, apart = _LINE
    first, last = steps[0].at, steps[-1].at
    span = max((last - first).total_seconds(), 1.0)
    lanes = [lane for lane in _LANES if any(step.kind == lane for step in steps)]
    marks: dict[tuple[str, int, str], None] = {}
    for step in steps:
        if step.kind in lanes:
            marks[step.kind, round((step.at - first).total_seconds() / span * width), colour(step)] = None
    drawn: list[Markup] = []
    for number, lane in enumerate(lanes):
        y = 14 + number * apart
        drawn.append(tag("text", f"{lane}s", x=begin - 14, y=y + 4, class_="lane"))
        drawn.append(tag("line", x1=begin, x2=begin + width, y1=y, y2=y, class_="lane"))
    for lane, x, look in marks:
        drawn.append(tag("circle", cx=begin + x, cy=14 + lanes.index(lane) * apart, r=5, class_=f"mark {look}"))
    bottom = 14 + len(lanes) * apart
    for place in range(5):
        at = first + (last - first) * place / 4
        x = begin + width * place // 4
        anchor = "start" if place == 0 else "end" if place == 4 else "middle"
        drawn.append(tag("text", _moment(at, span), x=x, y=bottom + 8, class_="when", text_anchor=anchor))
    box = f"0 0 {begin + width + 10} {bottom + 16}"
    yield tag("svg", drawn, class_="timeline", viewBox=box, role="img", aria_label="when what happened")


def colour(step: Step) -> str:
    """Return the class of a step's colour."""
    if not step.verified:
        return "bad"
    if step.kind == "revocation" or step.verdict in {"blocked", "refused", "held, refused"}:
        return "red"
    if step.verdict.startswith("held") or step.verdict in {"pending", "closed"} or step.outcome.startswith("error"):
        return "amber"
    if step.kind in {"operation", "answer"}:
        return "green" if step.verdict in {"forwarded", "masked", "approved"} else "red"  # a verdict that nobody knows
    return "plain"


def _moment(at: datetime, span: float) -> str:
    form = "%H:%M:%S" if span < 86_400 else "%Y-%m-%d %H:%M"
    return at.astimezone(UTC).strftime(form)
