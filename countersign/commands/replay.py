"""`countersign replay SESSION`: plays a session's recordings in this terminal, at the pace at which they happened.

Online with an auditor's rights, or from a copy. Terminals are played as their user saw them, as far as that is safe
(``countersign.terminal_text``); databases statement by statement, with verdict and the rows as the client saw them.
What does not verify is said first, and the exit code is 65; it is played all the same, as far as it can be read.
A replay is not yet an audit event.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from countersign.commands.asking import Invocation, seconds_of
from countersign.evidence_source import Source, open_source
from countersign.failures import Exit, Failure
from countersign.printable import counted, safe_line
from countersign.replay_screen import Pace, Player, moments
from countersign.trust import read_trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chalicelib.domain.connection import ConnectionRow
    from chalicelib.domain.session import Session
    from chalicelib.domain.store import Keys
    from chalicelib.services.recordings import Read
    from countersign.output import Output

_MOST_SPEED = 1000.0  # faster than that is at once: --speed 1000 plays an hour in four seconds


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="SESSION|DIR", help="a session's id, or a copy")
    parser.add_argument("--connection", default="", metavar="ID", help="one connection (con_...) alone")
    parser.add_argument("--trust", default="", metavar="FILE", help="fingerprints of the keys that may have signed")
    parser.add_argument("--speed", default="1", metavar="N", help="N times as fast (0.1 to 1000; 1 where left out)")
    parser.add_argument("--max-pause", default="2s", metavar="TIME", help="wait no longer than this; 2s where left out")
    parser.add_argument(
        "--at", default="", metavar="TIME|OP", help="begin so far in (90, 5m), or at an operation (op_...)"
    )


def replay(invocation: Invocation) -> int:
    """Return 0 where what was played verifies, 65 where it does not, 78 where nobody vouches for the keys. Raises
    Failure, AccessError, and ModuleNotFoundError without the extra."""
    from chalicelib.services.verify import Anchor, trusted_keys

    options, output = invocation.options, invocation.output
    pace = _pace(options)
    anchors = read_trust(options.trust) if options.trust else None
    source = open_source(options.subject, invocation.settings.inherited, output)
    trusted = trusted_keys(source.evidence, anchors)
    anchored = trusted.anchor is not Anchor.NOBODY
    found = [one for one in _recordings(source, trusted.keys) if options.connection in ("", one[1].id)]
    if not found:
        raise Failure(Exit.USAGE, "there is no recording of this", hint="`countersign review` lists the connections.")
    findings = [str(one) for one in (*trusted.findings, *source.faults, *(f for one in found for f in one[2].findings))]
    ended = Exit.INVALID if findings else Exit.DONE if anchored else Exit.UNANCHORED
    if output.as_json:
        recordings = [_json(*one) for one in found]
        output.result({"verified": ended is Exit.DONE, "findings": findings, "recordings": recordings})
        return ended
    if pace.begin_op:
        found = found[_place_of(pace.begin_op, found) :]
    for finding in findings:
        output.say(finding)
    player = Player(output=output, clock=invocation.clock, pace=pace)
    for session, row, read in found:
        _head(output, session, row, read, anchored=anchored)
        dropped = player.play(moments(read.frames, row.opened_at))
        if dropped:
            output.say(f"{counted(dropped, 'escape sequence')} of the recording may not run here, and did not")
    return ended


def _place_of(operation: str, found: Sequence[tuple[Session, ConnectionRow, Read]]) -> int:
    """Return which of the recordings holds ``operation``. Raises Failure (usage) where none does: to play something
    else from its beginning is no answer."""
    for place, (_, row, read) in enumerate(found):
        if any(moment.op == operation for moment in moments(read.frames, row.opened_at)):
            return place
    raise Failure(
        Exit.USAGE, "--at names no operation of these recordings", hint="A replay shows each one's id: op_..."
    )


def _pace(options: argparse.Namespace) -> Pace:
    """Return the pace that ``options`` ask for. Raises Failure (usage)."""
    begin_op = options.at if options.at.startswith("op_") else ""
    return Pace(
        speed=_speed(options.speed),
        most_pause_s=float(seconds_of(options.max_pause, "--max-pause")),
        begin_s=float(seconds_of(options.at, "--at")) if options.at and not begin_op else 0.0,
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


def _recordings(source: Source, keys: Keys) -> Sequence[tuple[Session, ConnectionRow, Read]]:
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
