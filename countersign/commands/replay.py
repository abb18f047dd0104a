"""`countersign replay SESSION`: plays a session's recordings in this terminal, or writes them as a page (`--html`).

Online with an auditor's rights, or from a copy. Terminals are played as their user saw them, as far as that is safe
(``countersign.terminal_text``); databases statement by statement, with verdict and the rows as the client saw them.
What does not verify is said first, and the exit code is 65; it is played all the same, as far as it can be read.

Every replay of the deployment is an event (``recording.replayed``) before a byte of it is shown: the service is told by
whom, and where it refuses or cannot be reached nothing is shown. Of an offline copy nobody is told, which is said.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from countersign.commands.asking import Invocation, seconds_of
from countersign.evidence_source import Source, open_source
from countersign.failures import Exit, Failure
from countersign.page_parts import About
from countersign.printable import counted, safe_line
from countersign.replay_keys import Keys, keys_of
from countersign.replay_moments import clock_time, moments
from countersign.replay_page import Replayed, replay_page
from countersign.replay_screen import Pace, Player, Quit, matches, said_in
from countersign.report_files import new_file
from countersign.trust import read_trust
from countersign.web_player import read_player

if TYPE_CHECKING:
    from chalicelib.domain.connection import ConnectionRow
    from chalicelib.domain.session import Session
    from chalicelib.domain.store import Keys as TrustedKeys
    from chalicelib.services.recordings import Read
    from chalicelib.services.reviewed import Finding
    from countersign.output import Output

_MOST_SPEED = 1000.0  # faster than that is at once: --speed 1000 plays an hour in four seconds
_MOST_FOUND: Final = 1000  # lines of a search: more of them are no finding any more
_BEFORE: Final = 24  # characters of a line that are shown before what was found in it
_REPLAYS: Final = "/v1/replays"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="SESSION|DIR", help="a session's id, or a copy")
    parser.add_argument("--connection", default="", metavar="ID", help="one connection (con_...) alone")
    parser.add_argument("--trust", default="", metavar="FILE", help="fingerprints of the keys that may have signed")
    parser.add_argument("--speed", default="1", metavar="N", help="N times as fast (0.1 to 1000; 1 where left out)")
    parser.add_argument("--max-pause", default="2s", metavar="TIME", help="wait no longer than this; 2s where left out")
    parser.add_argument(
        "--from",
        "--at",
        "--op",
        dest="begin",
        default="",
        metavar="TIME|OP",
        help="begin so far in (90, 5m), or at an operation (op_...)",
    )
    parser.add_argument("--find", default="", metavar="WORDS", help="list where they stand, and play nothing")
    parser.add_argument("--no-keys", action="store_true", help="read no keys, also where this is a terminal")
    parser.add_argument("--html", default="", metavar="FILE", help="write one page that needs nothing else")
    parser.add_argument("--player", default="", metavar="FILE", help="for --html: the npm package of asciinema-player")


def replay(invocation: Invocation) -> int:
    """Return 0 where what was played verifies, 65 where it does not, 78 where nobody vouches for the keys. Raises
    Failure, AccessError, and ModuleNotFoundError without the extra."""
    from chalicelib.services.verify import Anchor, trusted_keys

    options, output = invocation.options, invocation.output
    pace = _pace(options)
    if options.player and not options.html:
        raise Failure(Exit.USAGE, "--player is for --html")
    if options.begin and (options.html or options.find or output.as_json):
        raise Failure(Exit.USAGE, "--from is for a replay in the terminal: what is written or listed is the whole")
    anchors = read_trust(options.trust) if options.trust else None
    source = open_source(options.subject, invocation.settings.inherited, output)
    trusted = trusted_keys(source.evidence, anchors)
    anchored = trusted.anchor is not Anchor.NOBODY
    found = [one for one in _recordings(source, trusted.keys) if options.connection in ("", one[1].id)]
    if not found:
        raise Failure(Exit.USAGE, "there is no recording of this", hint="`countersign review` lists the connections.")
    if pace.begin_op:
        found = found[_place_of(pace.begin_op, found) :]
    _tell(invocation, source, found)
    findings = [*trusted.findings, *source.faults, *(finding for one in found for finding in one[2].findings)]
    ended = Exit.INVALID if findings else Exit.DONE if anchored else Exit.UNANCHORED
    if options.html:
        return _page(invocation, source, trusted.keys, found, findings, anchored=anchored)
    if options.find:
        return _find(output, options.find, found, ended, findings)
    if output.as_json:
        recordings = [_json(*one) for one in found]
        told = [str(finding) for finding in findings]
        output.result({"verified": ended is Exit.DONE, "findings": told, "recordings": recordings})
        return ended
    for finding in findings:
        output.say(str(finding))
    with _keys(invocation) as keys:
        _play(output, Player(output=output, keys=keys, pace=pace), found, anchored=anchored)
    return ended


def _tell(invocation: Invocation, source: Source, found: Sequence[tuple[Session, ConnectionRow, Read]]) -> None:
    """Tell the service of each session that is about to be shown. Raises Failure: then nothing may be."""
    options = invocation.options
    if source.copy:
        invocation.output.say(f"this is {source.copy}: nobody is told that it is replayed")
        return
    if not invocation.settings.api:
        raise Failure(
            Exit.USAGE,
            "a replay is told to the service first, and nobody said where that is",
            hint="Set COUNTERSIGN_API, or use --api; or copy the evidence (`countersign evidence`) and replay that.",
        )
    form = "page" if options.html else "json" if invocation.output.as_json else "terminal"
    begin = options.begin
    if begin and not begin.startswith("op_"):
        begin = f"{seconds_of(begin, '--from')} s"
    service = invocation.service()
    for session_id in dict.fromkeys(session.id for session, _, _ in found):
        body = {"session_id": session_id, "form": form}
        body |= {"connection_id": options.connection} if options.connection else {}
        body |= {"begin": begin} if begin else {}
        service.post(_REPLAYS, body, repeatable=False)


def _play(
    output: Output, player: Player, found: Sequence[tuple[Session, ConnectionRow, Read]], *, anchored: bool
) -> None:
    try:
        for session, row, read in found:
            _head(output, session, row, read, anchored=anchored)
            dropped = player.play(moments(read.frames, row.opened_at))
            if dropped:
                output.say(f"{counted(dropped, 'escape sequence')} of the recording may not run here, and did not")
    except Quit:
        output.say("ended here; there is more")


@contextmanager
def _keys(invocation: Invocation) -> Iterator[Keys]:
    """Give the keys of this terminal, where there is one at both ends; else nobody's."""
    wanted = invocation.output.live and not invocation.options.no_keys
    with keys_of(sys.stdin, invocation.clock, wanted=wanted) as keys:
        yield keys


def _find(
    output: Output,
    words: str,
    found: Sequence[tuple[Session, ConnectionRow, Read]],
    ended: Exit,
    findings: Sequence[Finding],
) -> int:
    """List every moment that holds the words: where it is, and its line."""
    for finding in findings:
        output.say(str(finding))
    listed: list[dict[str, object]] = []
    for session, row, read in found:
        played = moments(read.frames, row.opened_at)
        for moment in (played[place] for place in matches(played, words)):
            where: dict[str, object] = {"session": session.id, "connection": row.id, "op": moment.op}
            listed.append({**where, "at_s": moment.at_s, "line": _line_of(said_in(moment), words)})
    for one in listed[:_MOST_FOUND]:
        place = f"{clock_time(float(str(one['at_s'])))}  {one['op'] or one['connection']}"
        output.line(f"{output.paint(safe_line(place), 'dim')}  {safe_line(str(one['line']), output.columns - 46)}")
    if len(listed) > _MOST_FOUND:
        output.say(f"and {len(listed) - _MOST_FOUND} more: give more words")
    output.result({"verified": ended is Exit.DONE, "found": listed[:_MOST_FOUND], "number": len(listed)})
    if not listed and not output.as_json:
        output.say("nothing holds these words")
    return ended


def _line_of(text: str, words: str) -> str:
    """Return the line of ``text`` that holds most of ``words``, from a little before the first of them on."""
    wanted = words.lower().split()
    line = max(text.splitlines(), key=lambda line: sum(word in line.lower() for word in wanted), default="")
    at = min((at for word in wanted if (at := line.lower().find(word)) >= 0), default=0)
    return line if at < _BEFORE else f"…{line[at - _BEFORE :]}"


def _page(
    invocation: Invocation,
    source: Source,
    keys: TrustedKeys,
    found: Sequence[tuple[Session, ConnectionRow, Read]],
    findings: Sequence[Finding],
    *,
    anchored: bool,
) -> int:
    """Write the page. What a review of the same finds wrong is on it too: who approved is read there."""
    from chalicelib.services.review import Review

    options, output = invocation.options, invocation.output
    player = read_player(Path(options.player) if options.player else None)
    reviewed = Review(stores=source.stores, people=source.people, clock=invocation.clock, keys=keys)(source.subject)
    every = tuple(dict.fromkeys((*findings, *reviewed.findings)))
    operations = {(op.connection_id, op.id): op for session in reviewed.sessions for op in session.operations}
    recordings = [
        Replayed(
            session=session,
            row=row,
            read=read,
            reviewed={op: told for (connection, op), told in operations.items() if connection == row.id},
        )
        for session, row, read in found
    ]
    about = About(
        title=f"Replay of {source.subject}",
        facts=(
            ("session or chain", source.subject),
            ("read from", source.copy or "the deployment itself"),
            ("told", "to nobody: it is a copy" if source.copy else "to the service, as recording.replayed"),
        ),
        command=f"countersign replay {source.subject} --html FILE",
        anchored=anchored,
        reviewed_at=reviewed.reviewed_at,
    )
    with new_file(options.html) as file:
        file.write(replay_page(about, recordings, every, player))
    output.say(f"the page is {options.html}")
    ended = Exit.INVALID if every else Exit.DONE if anchored else Exit.UNANCHORED
    told = [str(finding) for finding in every]
    for finding in told:
        output.say(finding)
    output.result({"verified": ended is Exit.DONE, "findings": told, "page": options.html})
    return ended


def _place_of(operation: str, found: Sequence[tuple[Session, ConnectionRow, Read]]) -> int:
    """Return which of the recordings holds ``operation``. Raises Failure (usage) where none does: to play something
    else from its beginning is no answer."""
    for place, (_, row, read) in enumerate(found):
        if any(moment.op == operation for moment in moments(read.frames, row.opened_at)):
            return place
    raise Failure(
        Exit.USAGE, "--from names no operation of these recordings", hint="A replay shows each one's id: op_..."
    )


def _pace(options: argparse.Namespace) -> Pace:
    """Return the pace that ``options`` ask for. Raises Failure (usage)."""
    begin_op = options.begin if options.begin.startswith("op_") else ""
    return Pace(
        speed=_speed(options.speed),
        most_pause_s=float(seconds_of(options.max_pause, "--max-pause")),
        begin_s=float(seconds_of(options.begin, "--from")) if options.begin and not begin_op else 0.0,
        begin_op=begin_op,
    )


def _head(output: Output, session: Session, row: ConnectionRow, read: Read, *, anchored: bool) -> None:
    paint = output.paint
    if read.findings:
        state = paint("NOT VERIFIED", "red", "bold")
    else:
        state = paint("verified", "green") if anchored else paint("UNANCHORED", "yellow", "bold")
    where = f"{row.principal} on {row.target}" if row.principal else row.target
    output.line(paint(safe_line(f"{where}  {session.id}  {row.id}"), "bold") + f"  {state}")
    output.line(paint(safe_line(f"{session.actor.name} for {session.originator.name}"), "dim"))


def _recordings(source: Source, keys: TrustedKeys) -> Sequence[tuple[Session, ConnectionRow, Read]]:
    """Return each connection of the session, or of all in the copy, oldest first, with what its recording holds."""
    from chalicelib.domain.identifiers import SESSION_ID, SessionId, Txn
    from chalicelib.services.recordings import read_recording

    stores = source.stores
    if SESSION_ID.match(source.subject):
        sessions = [stores.sessions.get(SessionId(source.subject))]
    else:
        sessions = list(stores.sessions.of_txn(Txn(source.subject)))
    found = []
    for session in sessions:
        hops = stores.chains.hops(session.txn)
        for row in stores.connections.of_session(session.id):
            hop = hops.get(row.target_hop)
            read = read_recording(stores.objects, keys, row, "" if hop is None else hop.sha256())
            found.append((session, row, read))
    return sorted(found, key=lambda one: one[1].opened_at)


def _json(session: Session, row: ConnectionRow, read: Read) -> dict[str, object]:
    return {
        "session": session.id,
        "connection": row.id,
        "target": row.target,
        "principal": row.principal,
        "verified": not read.findings,
        "frames": [dict(frame) for frame in read.frames],
    }


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.1 <= speed <= _MOST_SPEED:  # NaN too is not
        raise Failure(Exit.USAGE, "--speed is a number from 0.1 to 1000")
    return speed
