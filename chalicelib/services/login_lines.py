"""Logins that worked, in a target's own log: who, when, from where, and on which of our connections, if it says so.

Rules: as in ``target_log``: a line is read whole, by the forms that sshd and PostgreSQL write, from its very beginning,
since whoever logs in chooses parts of it. Here the danger is the other way round: a line that hides a login. So
whatever could be one and is not of the exact form is *unclear*, and counts as a login that nobody knows. A login
carries a chain where the broker put it: in PostgreSQL's ``application_name`` (anybody can claim one, so a claim is
matched one to one with connections), in the id of a certificate of ours (nobody else can).

What the targets must do: PostgreSQL: ``log_connections``, a ``log_line_prefix`` that begins with ``%m [%p]``,
``log_timezone`` UTC; sshd: syslog's form, its times in UTC where they have no zone.
Sources: PostgreSQL 15 ``src/backend/utils/init/postinit.c`` (PerformAuthentication), ``elog.c`` (a line feed in a text
becomes one and a tab); OpenSSH 9.2 ``auth.c`` (auth_log, format_method_key).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from chalicelib.domain.errors import BadRequest, Limited

MAX_LINE: Final = 8192  # characters: an application name, a role and a database have 63 bytes each
MAX_LOGINS: Final = 200_000  # a day of two a second; more is read in pieces, with --since and --until
MAX_SHOWN: Final = 300  # of an unclear line
_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"

_POSTGRES: Final = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) (?P<zone>[A-Z]{1,5}|[+-]\d\d) \[\d{1,10}\] "
    r"(?:(?P<peer>[0-9a-fA-F.:]{2,45})(?:\(\d{1,5}\))? )?"
)
_SEVERITY: Final = re.compile(
    r"(?<!\S)(?:DEBUG[1-5]?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|DETAIL|HINT|QUERY|CONTEXT|LOCATION|STATEMENT):  "
)
_AUTHORIZED: Final = re.compile(r"(?:replication )?connection authorized: ")
_WHO: Final = re.compile(
    r"connection authorized: user=(?P<account>\S{1,252}) database=\S{1,252}"
    r"(?: application_name=(?P<named>.*?))?(?: SSL enabled \([^()]*\))?(?: GSS \([^()]*\))?"
)
_NAMED: Final = re.compile(rf"txn:(?P<txn>{_ULID})(?: .*)?\Z")

_SYSLOG: Final = re.compile(
    r"(?P<at>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[0-9:.]{8,15}(?:Z|[+-]\d\d:\d\d)) "
    r"[A-Za-z0-9._-]{1,255} sshd(?:-session|-auth)?\[\d{1,10}\]: "
)
_ACCEPTED: Final = re.compile(
    r"Accepted (?P<how>[a-z/-]{1,40}) for (?P<account>\S{1,100}) "
    r"from (?P<peer>\S{1,45}) port \d{1,5} ssh2(?P<key>: .*)?"
)
_OURS: Final = re.compile(
    rf": [A-Z0-9-]{{1,40}}-CERT SHA256:[A-Za-z0-9+/]{{43}} ID txn:(?P<txn>{_ULID}) ses:(?P<session>ses_{_ULID}) "
    rf"con:(?P<connection>con_{_ULID}) \(serial \d{{1,20}}\) CA [A-Z0-9-]{{1,40}} SHA256:[A-Za-z0-9+/]{{43}}"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """One login. ``txn`` is empty where it names no chain of ours; ``session`` and ``connection`` where it names none
    (PostgreSQL's names the chain alone). ``line`` is its number in the log."""

    at: datetime
    account: str
    peer: str
    how: str
    txn: str
    session: str
    connection: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unclear:
    """A line that may be a login, and is not of the form that the server writes."""

    at: datetime | None
    line: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Logins:
    """What a log says. ``first`` and ``last`` are the times of its lines, None where no line is one that we know."""

    logins: tuple[Login, ...]
    unclear: tuple[Unclear, ...]
    first: datetime | None
    last: datetime | None
    lines: int


def read_logins(lines: Iterable[str], now: datetime) -> Logins:
    """Return the logins in ``lines``. ``now`` gives the year where a line has none.

    Raises BadRequest where a time has a zone that nobody can know, Limited past ``MAX_LOGINS``. Pure.
    """
    logins: list[Login] = []
    unclear: list[Unclear] = []
    first = last = None
    number = 0
    for number, text in enumerate(lines, 1):
        found = _line(text.rstrip("\r\n"), number, now)
        if found is None:
            continue
        at = found if isinstance(found, datetime) else found.at
        if at is not None:
            first, last = min(first or at, at), max(last or at, at)
        if isinstance(found, Login):
            logins.append(found)
        elif isinstance(found, Unclear):
            unclear.append(found)
        if len(logins) + len(unclear) > MAX_LOGINS:
            raise Limited(f"the log has more than {MAX_LOGINS} logins", hint="Give a shorter piece of it.")
    return Logins(logins=tuple(logins), unclear=tuple(unclear), first=first, last=last, lines=number)


def _line(text: str, number: int, now: datetime) -> Login | Unclear | datetime | None:
    """Return the login that a line is, the line where it may be one, its time where it is another line of a server's
    that we know, None for anything else."""
    if text.startswith("\t"):
        return None  # what PostgreSQL puts before each further line of one text
    cut, shown = text[:MAX_LINE], "".join(char if char.isprintable() else "\ufffd" for char in text[:MAX_SHOWN])
    if (found := _POSTGRES.match(cut)) is not None:
        return _postgres(cut, found, number, shown)
    if (found := _SYSLOG.match(cut)) is not None:
        return _sshd(cut, found, number, shown, now)
    if _AUTHORIZED.search(cut) or " Accepted " in f" {cut}":
        return Unclear(at=None, line=number, text=shown)
    return None


def _postgres(text: str, found: re.Match[str], number: int, shown: str) -> Login | Unclear | datetime:
    at = _utc(found["at"], found["zone"])
    places = list(_SEVERITY.finditer(text, found.end()))
    said = [_AUTHORIZED.match(text, place.end()) is not None for place in places]
    if not any(said):
        return at
    who = _WHO.fullmatch(text, places[0].end()) if len(places) == 1 and len(text) < MAX_LINE else None
    if who is None:  # a name that imitates the log's own words, or a replication connection, which is never ours
        return Unclear(at=at, line=number, text=shown)
    named = _NAMED.match(who["named"] or "")
    return Login(
        at=at,
        account=who["account"],
        peer=_address(found["peer"]),
        how="postgresql",
        txn="" if named is None else named["txn"],
        session="",
        connection="",
        line=number,
    )


def _sshd(text: str, found: re.Match[str], number: int, shown: str, now: datetime) -> Login | Unclear | datetime:
    at = _syslog_moment(found["at"], now)
    if not text.startswith("Accepted ", found.end()) or text.startswith("Accepted certificate ID ", found.end()):
        return at  # that a certificate would do is said before its key is proved, and then again: it is no login
    accepted = _ACCEPTED.fullmatch(text, found.end()) if len(text) < MAX_LINE else None
    if accepted is None:
        return Unclear(at=at, line=number, text=shown)
    ours = _OURS.fullmatch(accepted["key"] or "")
    return Login(
        at=at,
        account=accepted["account"],
        peer=_address(accepted["peer"]),
        how=accepted["how"],
        txn="" if ours is None else ours["txn"],
        session="" if ours is None else ours["session"],
        connection="" if ours is None else ours["connection"],
        line=number,
    )


def _utc(text: str, zone: str) -> datetime:
    if zone not in {"UTC", "GMT", "+00"}:
        raise BadRequest(
            f"the log's times are in {zone}, and nobody can know which hour that is",
            hint="Set log_timezone = 'UTC' at the target.",
        )
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadRequest("the log has a time that there is not") from error


def _syslog_moment(text: str, now: datetime) -> datetime:
    """Return the moment of syslog's time; where it has no year, in the last year in which it is not in the future."""
    try:
        if text[0].isdigit():
            return datetime.fromisoformat(text).astimezone(UTC)
        month, day, clock = _MONTHS.index(text[:3]) + 1, int(text[4:6]), text[7:]
        for year in (now.year, now.year - 1):
            found = datetime.fromisoformat(f"{year}-{month:02d}-{day:02d}T{clock}+00:00")
            if found <= now + timedelta(days=1):
                return found
    except (ValueError, OverflowError) as error:  # the latter: year 1 east of Greenwich
        raise BadRequest("the log has a time that there is not") from error
    raise BadRequest("the log has a time that is to come")


def _address(text: str | None) -> str:
    try:
        return str(ipaddress.ip_address(text or ""))
    except ValueError:
        return ""
