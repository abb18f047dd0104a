"""`countersign search WORDS FIELD:VALUE ... --since 30d`: operations by their text and by what is known of them.

For small installations, without Athena: DuckDB over the events of the bucket (with the caller's own rights) or of a
copy of it. ``--deep`` reads the recordings too: statements whole, results, streams. On the bucket that shows what a
replay shows, so the service is told of each session first, as by `replay`.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from countersign.bucket_fetch import MAX_FETCHED, fetch
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.periods import period_of
from countersign.printable import counted
from countersign.query_results import csv_text
from countersign.search_screen import as_results, hit_json, hit_lines
from countersign.search_terms import FIELDS, Terms, terms_of

if TYPE_CHECKING:
    from chalicelib.domain.reading import ReadObjects
    from chalicelib.domain.signoff import Period
    from countersign.search_local import Found, Place

MAX_HITS: Final = 1000
MAX_DAYS: Final = 366
_PLACE: Final = re.compile(r"([0-9]{1,15})\.([0-9a-f]{64})\Z")


def add(parser: argparse.ArgumentParser) -> None:
    fields = "; ".join(f"{name}: {field.about}" for name, field in FIELDS.items())
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD|FIELD:VALUE",
        help=f'all of them must hold; "in quotes" is a phrase; not:  -- -WORD, or within the shell\'s quotes. {fields}',
    )
    parser.add_argument("--since", default="30d", metavar="WHEN", help="2026-11-01, a moment, or 30d back from now")
    parser.add_argument("--until", default="", metavar="WHEN", help="before this; now where left out")
    parser.add_argument("--local", default="", metavar="FOLDER", help="in a copy of the bucket; else in the bucket")
    parser.add_argument("--deep", action="store_true", help="in recordings too: whole statements, results, streams")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help=f"at most so many (50; to {MAX_HITS})")
    parser.add_argument("--after", default="", metavar="PLACE", help="what comes after: the command prints it")
    parser.add_argument("--csv", action="store_true", help="comma-separated values; no cell is a formula")


def search(invocation: Invocation) -> int:
    """Return 0. Raises Failure, AccessError, and ModuleNotFoundError without the extra ``query``."""
    options, output = invocation.options, invocation.output
    terms = terms_of([*options.words, *options.command])
    if not terms.terms:
        raise Failure(Exit.USAGE, "give a word or a field", hint=f"Fields: {', '.join(FIELDS)}.")
    if not 1 <= options.limit <= MAX_HITS:
        raise Failure(Exit.USAGE, f"--limit is 1 to {MAX_HITS}")
    if options.csv and output.as_json:
        raise Failure(Exit.USAGE, "--csv and --json are two forms of one answer: choose one")
    period = period_of(options.since, options.until, invocation.clock.now())
    if (period.until - period.since).days > MAX_DAYS:
        raise Failure(Exit.USAGE, f"--since and --until are {MAX_DAYS} days apart at most")
    after = _place(options.after)
    with tempfile.TemporaryDirectory(prefix="countersign-search-") as made:
        found = _found(invocation, terms, period, after, Path(made))
    _show(invocation, terms, period, found)
    return Exit.DONE


def _found(invocation: Invocation, terms: Terms, period: Period, after: Place | None, made: Path) -> Found:
    from countersign.search_deep import search_deep, stored_in
    from countersign.search_local import object_days, open_events

    options = invocation.options
    spill = made / "spill"
    spill.mkdir(mode=0o700)
    objects: ReadObjects | None = None
    if options.local:
        folder = Path(options.local)
        if not folder.is_dir():
            raise Failure(Exit.USAGE, "there is no such folder", hint="--local FOLDER; without it: the bucket itself")
    else:
        from countersign.evidence_source import open_deployment

        folder, objects = made / "bucket", open_deployment(invocation.settings.inherited).objects
        folder.mkdir()
        fetch(objects, [f"events/v1/date={day}/" for day in object_days(period)], folder)
    with open_events(folder, period, spill) as events:
        if not options.deep:
            return events.page(terms, options.limit, after)
        stored = stored_in(folder) if objects is None else lambda session_id: _stored(objects, session_id)
        found = search_deep(events.by_session(terms, after), stored, terms, options.limit, objects=events.objects)
    if objects is not None:
        _tell(invocation, dict.fromkeys(hit.session_id for hit in found.hits))
    return found


def _stored(objects: ReadObjects, session_id: str) -> Iterator[tuple[str, bytes]]:
    read = 0
    for key in sorted(objects.keys(f"rec/v1/{session_id}/")):
        body = objects.get(key)
        read += len(body)
        if read > MAX_FETCHED:
            raise Failure(Exit.DENIED, "a session's recordings are more than can be read", hint="Copy the bucket.")
        yield key, body


def _tell(invocation: Invocation, sessions: Iterable[str]) -> None:
    """Tell the service whose recorded texts are about to be shown, as `replay` does. Raises Failure: then none is."""
    if not invocation.settings.api:
        hint = "Set COUNTERSIGN_API, or use --api; or search a copy: --local FOLDER."
        raise Failure(
            Exit.USAGE, "what --deep shows is told to the service first, and nobody said where it is", hint=hint
        )
    service = invocation.service()
    form = "json" if invocation.output.as_json or invocation.options.csv else "terminal"
    for session_id in sessions:
        service.post("/v1/replays", {"session_id": session_id, "form": form}, repeatable=False)


def _show(invocation: Invocation, terms: Terms, period: Period, found: Found) -> None:
    from chalicelib.domain.canonical import timestamp

    options, output = invocation.options, invocation.output
    words = terms.words
    if options.csv:
        output.raw(csv_text(as_results(found)).removesuffix("\r\n"))
    else:
        output.result(
            {
                "since": timestamp(period.since),
                "until": timestamp(period.until),
                "deep": options.deep,
                "hits": [hit_json(hit, words) for hit in found.hits],
                "after": "" if found.after is None else str(found.after),
            }
        )
        for hit in found.hits:
            for line in hit_lines(hit, words, output.paint, output.columns):
                output.line(line)
            output.line()
    output.say(f"{counted(len(found.hits), 'operation')}; {counted(found.objects, 'object')} were read")
    if found.after is not None:
        output.say(f"there are older ones: --after {found.after}")


def _place(text: str) -> Place | None:
    from countersign.search_local import Place

    if not text:
        return None
    found = _PLACE.match(text)
    if found is None:
        raise Failure(Exit.USAGE, "--after is what the command printed")
    return Place(int(found[1]), found[2])
