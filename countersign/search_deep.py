"""Words in the full text of recordings: statements whole, results as the client saw them, what streams carried.

Why it is apart from the events: an event has 4,096 characters of its statement and nothing of a result. Rules: an
operation's texts are searched as they run on, whatever frames and segments they were cut into; of a terminal what it
shows, without escape sequences; bytes that were no UTF-8 are read as far as they are. All words must stand in texts of
one operation, no unwanted one in any. One session is in memory at a time, of each of its operations a word's length;
what is no segment of that connection stops the search, since a text that was left out reads as one without the word.
It does not verify a recording: `verify` and `replay` do.
"""

from __future__ import annotations

import base64
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.identifiers import SESSION_ID, ConnectionId, SessionId
from chalicelib.services.operations import json_object, meta_of
from chalicelib.services.stored_segments import Foreign, Tombstone, found_in, number_of, unpacked
from countersign.failures import Exit, Failure
from countersign.search_local import Found, Hit, Place
from countersign.search_terms import Terms
from countersign.terminal_text import TerminalText

AROUND: Final = 200  # characters kept about a word, of which a screen shows fewer
_KEY: Final = re.compile(r"rec/v1/ses_[0-9a-z]{26}/(con_[0-9a-z]{26})/\d{6,}\.ndjson\.gz\Z")
_WHERE: Final[Mapping[str, str]] = {"operation": "statement", "rows": "result", "notice": "notice", "data": "stream"}

Stored = Callable[[str], Iterable[tuple[str, bytes]]]


@dataclass(kw_only=True, slots=True)
class _Sought:
    """What of the words has been seen in one operation's texts so far."""

    hit: Hit
    missing: set[str]
    unwanted: bool = False
    shown: Hit | None = None
    tails: dict[str, str] = field(default_factory=dict)
    screens: dict[str, TerminalText] = field(default_factory=dict)


def search_deep(
    sessions: Iterable[tuple[str, Sequence[Hit]]], stored: Stored, terms: Terms, limit: int, *, objects: int
) -> Found:
    """Return the newest ``limit`` operations whose recorded texts have the words of ``terms``.

    ``sessions`` are those with operations for which the fields hold; ``stored`` gives a session's objects, key and
    bytes, each connection's in order. Raises Failure, and what ``stored`` raises.
    """
    best: list[tuple[int, str, Hit]] = []
    more, read = False, 0
    for session_id, hits in sessions:
        sought = {(hit.connection_id, hit.operation_id): _Sought(hit=hit, missing=_lower(terms.words)) for hit in hits}
        for key, body in stored(session_id):
            objects, read = objects + 1, read + len(body)
            _segment(SessionId(session_id), key, body, sought, terms)
        for one in sought.values():
            if one.missing or one.unwanted:
                continue
            found = one.shown or one.hit
            heapq.heappush(best, (found.time_ms, found.uid, found))
            if len(best) > limit:
                heapq.heappop(best)
                more = True
    page = tuple(hit for _, _, hit in sorted(best, key=lambda one: one[:2], reverse=True))
    after: Place | None = page[-1].place if more else None
    return Found(hits=page, after=after, objects=objects, read_bytes=read)


def stored_in(folder: Path) -> Stored:
    """Return what gives a session's objects out of a folder with the bucket's layout: names of ours alone, no link."""

    def stored(session_id: str) -> Iterator[tuple[str, bytes]]:
        root = folder / "rec" / "v1" / session_id
        if not SESSION_ID.match(session_id) or not root.resolve().is_relative_to(folder.resolve()):
            return
        for path in sorted(root.glob("*/*.ndjson.gz")):
            key = path.relative_to(folder).as_posix()
            inside = path.resolve() == folder.resolve() / key
            if _KEY.match(key) and inside and path.is_file():
                yield key, path.read_bytes()

    return stored


def _segment(
    session_id: SessionId,
    key: str,
    body: bytes,
    sought: Mapping[tuple[str, str], _Sought],
    terms: Terms,
) -> None:
    number, named = number_of(key), _KEY.match(key)
    if number is None or named is None:
        return
    found = found_in(session_id, ConnectionId(named[1]), number, body)
    if isinstance(found, Tombstone):
        return
    if isinstance(found, Foreign):
        raise Failure(
            Exit.INVALID, f"an object is not what it should be: {key}", hint="`countersign verify` says more."
        )
    for line in unpacked(body)[0].splitlines()[1:]:
        frame = json_object(line)
        if frame is None:
            raise Failure(Exit.INVALID, f"an object has a line that is no frame: {key}")
        kind = frame.get("kind")
        if not isinstance(kind, str) or kind not in _WHERE:
            continue
        meta = meta_of(frame)
        one = sought.get((named[1], str(meta.get("op", ""))))
        if one is not None:
            _take(one, key, frame, meta, terms)


def _take(one: _Sought, key: str, frame: Mapping[str, Any], meta: Mapping[str, Any], terms: Terms) -> None:
    """Look at a frame's text together with the end of what came before it in the same stream."""
    kind = str(frame["kind"])
    stream = f"{kind} {frame.get('dir')} {meta.get('stream', '')}"
    text = one.tails.get(stream, "") + _text_of(one, stream, frame, meta)
    lower = text.lower()
    one.unwanted = one.unwanted or any(word in lower for word in _lower(terms.unwanted))
    seen = {word for word in _lower(terms.words) if word in lower}
    if one.shown is None and seen:
        number = frame.get("seq")
        at = max(lower.find(min(seen)) - AROUND, 0)
        one.shown = replace(
            one.hit,
            text=text[at : at + 2 * AROUND],
            where=_WHERE[kind],
            frame=number if isinstance(number, int) else one.hit.frame,
            segment=key,
        )
    one.missing -= seen
    longest = max(map(len, (*terms.words, *terms.unwanted)), default=1)
    one.tails[stream] = text[-(longest - 1) :] if longest > 1 else ""


def _text_of(one: _Sought, stream: str, frame: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    text = str(frame.get("text", ""))
    if frame["kind"] != "data":
        return text
    if meta.get("encoding") == "base64":
        try:
            text = base64.b64decode(text).decode("utf-8", "replace")
        except ValueError:
            return text
    # From its first escape sequence on a stream is one of a terminal: others do not pay for being read as one.
    screen = one.screens.get(stream)
    if screen is None and "\x1b" in text:
        screen = one.screens[stream] = TerminalText()
    return text if screen is None else _NO_SEQUENCES.sub("", screen.feed(text))


_NO_SEQUENCES: Final = re.compile(r"\x1b(?:\[[0-9:;?]*[@-~]|.)")  # those that ``TerminalText`` lets pass


def _lower(words: Iterable[str]) -> set[str]:
    return {word.lower() for word in words}
