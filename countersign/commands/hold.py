"""`countersign hold SUBJECT --reason TEXT`, `hold lift HOLD --reason TEXT`, `hold list`: evidence that must stay.

SUBJECT is a session, a chain, or a target with --since DAY: then every session that was made on it from that day on,
and every one that will be. Rules of the service decide who may (`evidence:hold`, `evidence:lift`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from countersign.api import text_of
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.printable import moment, safe_line
from countersign.service import Service

_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
_HOLD: Final = re.compile(rf"hld_{_ULID}\Z")
_SUBJECT: Final = re.compile(rf"(ses_)?{_ULID}\Z|[a-z][a-z0-9_-]{{0,62}}\Z")
_OURS: Final = re.compile(rf"(ses_)?{_ULID}\Z")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="SUBJECT", help="ses_..., a chain's txn, a target's name; or: lift, list")
    parser.add_argument("hold", nargs="?", default="", metavar="HOLD", help="after lift: which hold, hld_...")
    parser.add_argument("--reason", default="", help="for the record, in one line: the case that it is for")
    parser.add_argument("--since", default="", metavar="DAY", help="of a target: the first day of sessions, 2026-01-31")
    parser.epilog = "exit codes: 0 done; 77 no rule permits it, or it is not there; 64 usage; 69 unreachable"


def hold(invocation: Invocation) -> int:
    """Return 0 once it is written: it is carried out within the hour. Raises Failure."""
    options = invocation.options
    match options.subject:
        case "list":
            return _list(invocation)
        case "lift":
            return _lift(invocation)
        case _:
            return _hold(invocation)


def _hold(invocation: Invocation) -> int:
    options, output = invocation.options, invocation.output
    if options.hold or not _SUBJECT.match(options.subject):
        raise Failure(Exit.USAGE, "this names no session, no chain and no target")
    _require_reason(options.reason)
    is_target = not _OURS.match(options.subject)
    if is_target != bool(options.since):
        raise Failure(Exit.USAGE, "a hold on a target says --since DAY, and no other does", hint="--since 2026-01-31")
    if options.since and not _DAY.match(options.since):
        raise Failure(Exit.USAGE, "--since is a day: 2026-01-31")
    body = {"subject": options.subject, "reason": options.reason, "since": options.since}
    # Not repeated by itself: two holds would have to be lifted one by one.
    told = invocation.service().post("/v1/holds", body, repeatable=False).body
    _checked(told)
    output.result(told)
    for line in _lines(told, output):
        output.line(line)
    output.line("What is there is held within the hour, and what is written later as it comes.")
    return Exit.DONE


def _lift(invocation: Invocation) -> int:
    options, output = invocation.options, invocation.output
    if not _HOLD.match(options.hold) or options.since:
        raise Failure(Exit.USAGE, "say which hold: countersign hold lift hld_... --reason TEXT")
    _require_reason(options.reason)
    path = f"/v1/holds/{quote(options.hold, safe='')}/lift"
    told = invocation.service().post(path, {"reason": options.reason}, repeatable=False).body
    _checked(told)
    output.result(told)
    output.line(f"{output.paint('lifted', 'red')}  {safe_line(text_of(told, 'id'))}")
    output.line("What no other hold is on stays for as long as its lock.")
    return Exit.DONE


def _list(invocation: Invocation) -> int:
    options, output = invocation.options, invocation.output
    if options.hold or options.reason or options.since:
        raise Failure(Exit.USAGE, "hold list takes nothing more")
    told = _all(invocation.service())
    holds = told.get("holds")
    if not isinstance(holds, list) or not all(isinstance(one, Mapping) for one in holds):
        raise Failure(Exit.UNREACHABLE, "the service's answer makes no sense: holds")
    output.result(told)
    for one in holds:
        for line in _lines(one, output):
            output.line(line)
    if not holds:
        output.line("There is no hold, and there was none.")
    return Exit.DONE


def _all(service: Service) -> Mapping[str, Any]:
    return service.get(service.address.url("/v1/holds")).body


def _lines(told: Mapping[str, Any], output: Output) -> Iterator[str]:
    lifted = text_of(told, "lifted_at")
    state = "lifted" if lifted else output.paint("held", "green")
    kind, subject, since = (safe_line(text_of(told, name)) for name in ("kind", "subject", "since"))
    yield f"{state}  {safe_line(text_of(told, 'id'))}  {kind} {subject} since {since}"
    yield f"      by {safe_line(text_of(told, 'by'))} at {safe_line(moment(text_of(told, 'at')))}: " + safe_line(
        text_of(told, "reason")
    )
    if lifted:
        yield f"      lifted by {safe_line(text_of(told, 'lifted_by'))} at {safe_line(moment(lifted))}: " + safe_line(
            text_of(told, "lift_reason")
        )


def _checked(told: Mapping[str, Any]) -> None:
    if not _HOLD.match(text_of(told, "id")):
        raise Failure(
            Exit.UNREACHABLE, "the service's answer makes no sense: id", hint="See what there is: countersign hold list"
        )


def _require_reason(reason: str) -> None:
    if not reason.strip() or not reason.isprintable():
        raise Failure(Exit.USAGE, "--reason says in one line what it is for")
