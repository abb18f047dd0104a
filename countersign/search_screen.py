"""What `search` found, for people, spreadsheets and programs: each hit with its text about the match, and how to get
there.

Rules: every text passes ``printable``; the match is marked, in colour or between « and »; where there is more, the
command says how to see it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from countersign.printable import moment, safe_line
from countersign.query_results import Results
from countersign.review_steps import VERDICTS
from countersign.search_local import Found, Hit

Paint = Callable[..., str]

COLUMNS: Final = (
    "at", "originator", "actor", "target", "principal", "actions", "verdict", "held", "outcome", "code", "rules",
    "people", "where", "text", "session_id", "operation_id", "frame", "segment", "txn",
)  # fmt: skip
_BEFORE: Final = 40  # characters before the match: what stands before it says what it is of
_MOST: Final = 160


def snippet(text: str, words: Sequence[str], most: int = _MOST) -> list[tuple[str, bool]]:
    """Return the piece of ``text`` about the first word, as parts, each with whether it is a match. Pure."""
    marks = re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)), re.IGNORECASE)
    first = marks.search(text) if words else None
    begin = max((first.start() if first else 0) - _BEFORE, 0)
    begin = 0 if begin < _BEFORE // 4 else begin  # three letters are not worth their ellipsis
    piece = text[begin : begin + most]
    parts: list[tuple[str, bool]] = [("…", False)] if begin else []
    place = 0
    for found in marks.finditer(piece) if words else ():
        parts += [(piece[place : found.start()], False), (found[0], True)]
        place = found.end()
    parts += [(piece[place:], False), ("…" if begin + most < len(text) else "", False)]
    return [part for part in parts if part[0]]


def hit_lines(hit: Hit, words: Sequence[str], paint: Paint, columns: int) -> Iterator[str]:
    """Give the lines of one hit."""
    word = VERDICTS.get((hit.verdict, hit.held), hit.verdict)
    colour = "red" if hit.verdict == "block" else "yellow" if hit.held else "green"
    where = f"{hit.target} as {hit.principal}" if hit.principal else hit.target
    ended = hit.code or hit.outcome
    yield (
        f"{paint(moment(hit.at), 'dim')}  {paint(safe_line(where, 48), 'bold')}  {paint(safe_line(word), colour)}"
        f"  {safe_line(ended, 32)}"
    )
    who = safe_line(hit.actor, columns - 4)
    yield f"    {who}"
    room = max(columns - 4 - (len(hit.where) + 2 if hit.where != "statement" else 0), 24)
    about = f"{hit.where}: " if hit.where != "statement" else ""
    told = "".join(
        _marked(safe_line(text), paint) if match else safe_line(text)
        for text, match in snippet(" ".join(hit.text.split()) or "(an interactive shell)", words, room)
    )
    yield f"    {about}{told}"
    people = f"; answered by {', '.join(hit.people)}" if hit.people else ""
    yield paint(f"    {safe_line(' + '.join(hit.rules) or 'no rule', 60)}{safe_line(people, 60)}", "dim")
    yield paint(f"    countersign replay {safe_line(hit.session_id)} --op {safe_line(hit.operation_id)}", "dim")


def hit_json(hit: Hit, words: Sequence[str]) -> dict[str, object]:
    """Return a hit as JSON values, texts as they were recorded. Pure."""
    told: dict[str, object] = {
        name: getattr(hit, name) if not isinstance(getattr(hit, name), tuple) else list(getattr(hit, name))
        for name in (*COLUMNS, "connection_id", "uid", "time_ms")
    }
    parts = [{"text": text, "match": match} for text, match in snippet(hit.text, words)]
    return told | {"snippet": parts, "replay": f"countersign replay {hit.session_id} --op {hit.operation_id}"}


def as_results(found: Found) -> Results:
    """Return a page as rows, for CSV. Pure."""
    rows = tuple(tuple(_cell(getattr(hit, name)) for name in COLUMNS) for hit in found.hits)
    return Results(columns=COLUMNS, rows=rows, truncated=found.after is not None, ran_on="duckdb")


def _cell(value: object) -> str | int:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return value
        case tuple():
            return " ".join(str(item) for item in value)
        case _:
            return str(value)


def _marked(text: str, paint: Paint) -> str:
    painted = paint(text, "bold", "yellow")
    return painted if painted != text else f"«{text}»"
