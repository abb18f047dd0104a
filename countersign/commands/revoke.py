"""`countersign revoke ID --why TEXT`: end a hop, a session or a chain with all that runs below it, now.

A caller may end what is its own or below it; anything else needs a rule that permits `chain:revoke`. What is not there
and what is not the caller's to end have one answer.
"""

from __future__ import annotations

import argparse
import re
from typing import Final

from countersign.api import text_of
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.printable import moment, safe_line

_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}\Z"
_KINDS: Final = {"hop_": "hop", "ses_": "session", "grt_": "grant", "": "txn"}
_NAMED: Final = ("identity", "issuer", "target", "token")  # their ids have no form of ours: --kind says which it is
_LONGEST: Final = 512


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="hop_..., ses_..., grt_..., or a chain's txn")
    parser.add_argument("--why", required=True, help="for the record, in one line")
    parser.add_argument("--kind", choices=_NAMED, default="", help="for an ID of another form")
    parser.epilog = "exit codes: 0 revoked; 77 not yours to revoke, or not there; 64 usage; 69 unreachable: try again"


def revoke(invocation: Invocation) -> int:
    """Return 0 once it is written: live connections under it end within seconds. Raises Failure."""
    options, output = invocation.options, invocation.output
    kind = options.kind or kind_of(options.id)
    if not 1 <= len(options.id) <= _LONGEST or not options.id.isprintable():
        raise Failure(Exit.USAGE, "this is the id of nothing")
    body = {"kind": kind, "id": options.id, "why": options.why}
    # A repeat writes one row more and ends nothing more: better than not to know whether it was revoked.
    told = invocation.service().post("/v1/revocations", body, repeatable=True).body
    key, number = text_of(told, "key"), told.get("number")
    if not key or isinstance(number, bool) or not isinstance(number, int):
        raise Failure(Exit.UNREACHABLE, "the service's answer makes no sense: key", hint="Revoke it again.")
    output.result(told)
    output.line(
        f"{output.paint('revoked', 'red')}  {safe_line(key)}  number {number}  {safe_line(moment(text_of(told, 'at')))}"
    )
    output.line("What runs below it is ended by each broker within seconds, and nothing new begins.")
    return Exit.DONE


def kind_of(text: str) -> str:
    """Return what kind of thing an id of ours names, by its prefix. Raises Failure (usage). Pure."""
    for prefix, kind in _KINDS.items():
        if text.startswith(prefix) and re.match(_ULID, text.removeprefix(prefix)):
            return kind
    raise Failure(
        Exit.USAGE,
        "this is no id of a hop, a session, a grant or a chain",
        hint="hop_..., ses_..., grt_... or 26 characters; with --kind: an identity, an issuer, a target or a token.",
    )
