"""What every page of ours has: a head with the verdict on the evidence, sections, tables, findings, filters, a foot.

Rules: every recorded text is a text node (``markup``); what does not verify is said first; what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from countersign.markup import Child, Markup, tag
from countersign.printable import counted

if TYPE_CHECKING:
    from chalicelib.services.reviewed import Finding

MOST_LISTED: Final = 2000  # findings, unusual things, sessions
_ID: Final = 32  # characters: a prefix and a ULID have 30


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What the page is of. ``title`` and ``facts`` (name, value) are shown; ``command`` makes it again; ``anchored``:
    somebody vouches for the keys that everything was verified with."""

    title: str
    facts: tuple[tuple[str, str], ...]
    command: str
    anchored: bool
    reviewed_at: datetime


def head(about: About, findings: Sequence[Finding]) -> Iterator[Markup]:
    """Give the title, whether all of it verifies, and the facts."""
    if findings:
        word, look, more = "NOT VERIFIED", "bad", f"{counted(len(findings), 'finding')}: what is listed does not hold"
    elif not about.anchored:
        word, look, more = "UNANCHORED", "weak", "it holds, by keys that only the copy itself vouches for"
    else:
        word, look, more = "VERIFIED", "good", "signatures, links, hashes and sequence were read back and hold"
    yield tag("h1", about.title)
    yield tag("p", tag("span", word, class_=f"badge {look}"), " ", more)
    yield tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in about.facts])


def findings_table(findings: Sequence[Finding]) -> Iterator[Markup]:
    """Give what does not hold."""
    rows = [
        tag("tr", tag("td", one.kind.value, class_="kind"), tag("td", tag("code", one.key)), tag("td", one.what))
        for one in findings[:MOST_LISTED]
    ]
    yield table(("kind", "what", "is wrong"), rows)
    yield from left(len(findings))


def filters(targets: Sequence[str], kinds: Sequence[tuple[str, str]], number: int, of: str = "target") -> Markup:
    """Return the filters of everything with the class ``step``. ``kinds`` are words and the classes that they mean;
    the class of the ``targets`` is t and their place."""
    options = [tag("option", f"every {of}", value="")]
    options += [tag("option", target, value=f"t{place}") for place, target in enumerate(targets)]
    every = [tag("option", "every kind", value="")] + [tag("option", word, value=mark) for word, mark in kinds]
    return tag(
        "form",
        tag("label", "Words ", tag("input", type="search", id="words", autocomplete="off")),
        tag("label", "Kind ", tag("select", every, id="kind")),
        tag("label", f"{of.capitalize()} ", tag("select", options, id="target")),
        tag("label", tag("input", type="checkbox", id="telling"), " only what people or rules stopped or answered"),
        tag("output", counted(number, "step"), id="count"),
        class_="filters",
        id="filters",
    )


def section(title: str, children: Child, look: str = "") -> Markup:
    """Return a section under its heading."""
    return tag("section", tag("h2", title), children, class_=look)


def table(names: Sequence[str], rows: Sequence[Markup], **attributes: str) -> Markup:
    """Return a table of ``rows`` under ``names``."""
    top = tag("thead", tag("tr", [tag("th", name, scope="col") for name in names]))
    return tag("table", top, tag("tbody", list(rows)), **attributes)


def left(number: int, most: int = 0) -> Iterator[Markup]:
    """Give a line on what of ``number`` is not listed, if anything is not. ``most`` are: 0 stands for MOST_LISTED."""
    most = most or MOST_LISTED
    if number > most:
        yield tag("p", f"and {number - most} more, which --json has", class_="dim")


def identifier(text: str) -> Markup:
    """Return an id that is not broken over lines; a text that is longer than any of ours is, or it would take the room
    of all the rest."""
    return tag("code", text, class_="id") if len(text) <= _ID else tag("code", text)


def foot(about: About) -> Markup:
    """Return who made the page, by which command, and that nobody signed it."""
    note = tag("p", "This page is what the command found, and nobody signed it. Times are UTC.", class_="dim")
    return tag("footer", "Made by ", tag("code", about.command), " at ", moment(about.reviewed_at), note)


def moment(at: datetime) -> str:
    """Return day and time in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
