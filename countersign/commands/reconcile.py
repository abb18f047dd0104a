"""`countersign reconcile TARGET --log FILE`: does everybody who logged in at the target have a connection of ours, and
every connection a login?

For auditors, with the rights of the role `auditor` and a file from the target: PostgreSQL's own log, or sshd's as
syslog has it. Exit code 65 where something has no counterpart, in either direction.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from countersign.commands.asking import Invocation
from countersign.evidence_source import open_deployment
from countersign.failures import Exit, Failure
from countersign.periods import period_of
from countersign.reconcile_screen import screen

if TYPE_CHECKING:
    from chalicelib.domain.signoff import Period
    from chalicelib.services.login_lines import Logins
    from countersign.api import Clock

_CHUNK: Final = 64 * 1024  # of one line at a time: what is longer is no line of a login


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="the name that targets.yaml gives it")
    parser.add_argument("--log", required=True, metavar="FILE", help="the target's own log")
    parser.add_argument("--since", default="", metavar="WHEN", help="from then on; the log's first line where left out")
    parser.add_argument("--until", default="", metavar="WHEN", help="before then; the log's last line where left out")
    parser.add_argument(
        "--except",
        dest="excepted",
        action="append",
        default=[],
        metavar="ACCOUNT",
        help="an account of the target's own (monitoring, backups) that logs in without us; may be repeated",
    )


def reconcile(invocation: Invocation) -> int:
    """Return 0 where everything has its counterpart, 65 where something has none. Raises Failure, AccessError, and
    ModuleNotFoundError without the extra."""
    from chalicelib.services.at_once import READERS
    from chalicelib.services.login_lines import read_logins
    from chalicelib.services.reconcile import connections_of, reconciled_json
    from chalicelib.services.reconcile import reconcile as service

    options, output = invocation.options, invocation.output
    logins = read_logins(_lines(options.log), invocation.clock.now())
    period = _period(options.since, options.until, logins, invocation.clock)
    stores = open_deployment(invocation.settings.inherited)
    rows = connections_of(stores, options.target, period, readers=READERS)
    found = service(options.target, period, logins, rows, frozenset(options.excepted))
    output.result(reconciled_json(found))
    for line in screen(found, logins, output.paint, output.columns):
        output.line(line)
    return Exit.DONE if found.holds else Exit.INVALID


def _period(since: str, until: str, logins: Logins, clock: Clock) -> Period:
    from chalicelib.domain.canonical import timestamp

    if logins.first is None or logins.last is None:
        raise Failure(
            Exit.USAGE,
            f"none of the {logins.lines} lines is one that PostgreSQL or sshd's syslog writes",
            hint="PostgreSQL's log_line_prefix begins with %m [%p]; sshd's lines come as syslog has them.",
        )
    last = logins.last + timedelta(seconds=1)
    return period_of(since or timestamp(logins.first), until or timestamp(last), clock.now())


def _lines(path: str) -> Iterator[str]:
    """Give each line of the file, cut where it is longer than any. Raises Failure (usage)."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            while line := file.readline(_CHUNK):
                yield line
                while line and not line.endswith("\n"):
                    line = file.readline(_CHUNK)
    except OSError as error:
        raise Failure(Exit.USAGE, f"the log cannot be read: {error.strerror}", hint=path) from error
