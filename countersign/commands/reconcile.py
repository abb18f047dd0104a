"""`countersign reconcile TARGET --log FILE`: does everybody who logged in at the target have a connection of ours, and
every connection a login? `countersign reconcile --cloudtrail FOLDER`: does every credential that AWS recorded?

For auditors, with the rights of the role `auditor` and a file from the target (PostgreSQL's own log, or sshd's as
syslog has it), or the log files of a trail that nobody of this service can write. Exit code 65 where something has no
counterpart, in either direction.
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
from countersign.reconcile_screen import screen, trail_screen
from countersign.trail_files import trail_records

if TYPE_CHECKING:
    from chalicelib.domain.signoff import Period
    from chalicelib.services.login_lines import Logins
    from countersign.api import Clock

_CHUNK: Final = 64 * 1024  # of one line at a time: what is longer is no line of a login


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", default="", metavar="TARGET", help="the name that targets.yaml gives it")
    parser.add_argument("--log", default="", metavar="FILE", help="the target's own log")
    parser.add_argument(
        "--cloudtrail", default="", metavar="PATH", help="CloudTrail's log files: was a credential made without us?"
    )
    parser.add_argument(
        "--mint", default="", metavar="NAME", help="with --cloudtrail: the full name of the function `mint`"
    )
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
    if options.cloudtrail and not (options.target or options.log or options.excepted):
        return _cloudtrail(invocation)
    if not options.target or not options.log or options.cloudtrail or options.mint:
        hint = "countersign reconcile TARGET --log FILE, or countersign reconcile --cloudtrail FOLDER"
        raise Failure(Exit.USAGE, "name a target and its log, or a trail", hint=hint)
    logins = read_logins(_lines(options.log), invocation.clock.now())
    period = _period(options.since, options.until, logins, invocation.clock)
    stores = open_deployment(invocation.settings.inherited)
    rows = connections_of(stores, options.target, period, readers=READERS)
    found = service(options.target, period, logins, rows, frozenset(options.excepted))
    output.result(reconciled_json(found))
    for line in screen(found, logins, output.paint, output.columns):
        output.line(line)
    return Exit.DONE if found.holds else Exit.INVALID


def _cloudtrail(invocation: Invocation) -> int:
    from chalicelib.domain.canonical import timestamp
    from chalicelib.domain.signature import KeyPurpose
    from chalicelib.services.at_once import READERS
    from chalicelib.services.cloud_witness import account, accounted_json, credentials_of, read_trail, trail_period
    from chalicelib.services.reconcile import connections_of
    from chalicelib.settings import read_store_settings

    options, output = invocation.options, invocation.output
    stores = open_deployment(invocation.settings.inherited)
    prefix = read_store_settings(invocation.settings.inherited).prefix
    credentials = credentials_of(
        stores.rows,
        stores.objects,
        keys=stores.keys.public_keys(KeyPurpose.SSH_TARGET.value),
        prefix=prefix,
        mint=options.mint or f"{prefix}-mint",
    )
    trail = read_trail(trail_records(options.cloudtrail), credentials)
    ends = trail_period(trail)
    if not ends:
        raise Failure(Exit.USAGE, "the trail holds no record of a call", hint=options.cloudtrail)
    since, until = options.since or timestamp(ends[0]), options.until or timestamp(ends[1])
    period = period_of(since, until, invocation.clock.now())
    found = account(period, trail, connections_of(stores, "", period, readers=READERS), credentials)
    output.result(accounted_json(found))
    for line in trail_screen(found, trail, output.paint, output.columns):
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
