"""Refused logins in the targets' own logs become AuditEvents: whoever goes around the broker ends at the target's own
login, and this is where it shows.

CloudWatch Logs delivers what a subscription's filter lets through, one group for each target. Rules: everything in a
line that a stranger chose (an account's name, a certificate's id) may imitate the rest of the line, so a line is read
whole, by the forms that sshd and PostgreSQL write, from its very beginning; where an address could stand in two places,
the event has none, and says so; a name that is no plausible account's is told by its length. No name makes an event go
away. A line that is none of the forms says nothing. The lines of one connection are one event for each way that was
tried. At most ``MAX_EVENTS`` for one delivery, the last of which says how many more there were: whoever knocks at a
target must not fill the audit log.

A delivery may come twice, since Lambda may call twice: the same line of the same time counts once within a delivery;
over deliveries the events repeat, with the same time, target, peer and text.

What the targets must do: sshd logs to syslog, which is its default and writes control characters out; ``-e`` and
``-E`` do not, so that a line feed in a name begins a line that anybody may have made up: what has not syslog's own
words before it is not read. PostgreSQL's ``log_line_prefix`` begins with ``%m [%p]``, then ``%h`` or ``%r`` for an
address in the events, and has none of ``%u`` and ``%d``, which it writes as the client sent them.

What it does not do: change anything at the target, or know whether a login that worked was the broker's (its own record
says that).

Source: docs.aws.amazon.com, "Using CloudWatch Logs subscription filters" (event); OpenSSH 9.2 ``auth.c`` (auth_log,
allowed_user), ``packet.c`` (sshpkt_fmt_connection_id), ``auth2-pubkey.c``; ``log.c`` (LOG_SYSLOG_VIS, LOG_STDERR_VIS);
PostgreSQL 15 ``src/backend/libpq/auth.c`` (auth_failed, ClientAuthentication), ``miscinit.c``, ``elog.c``
(a line feed in a text becomes a line feed and a tab).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import BadRequest

MAX_EVENTS: Final = 200  # for one delivery: thousands of guesses in a second are one fact, not thousands
MAX_BYTES: Final = 8 * 1024 * 1024  # of an unpacked delivery, which CloudWatch bounds to about 1 MB
MAX_LINE: Final = 2048  # characters: sshd bounds its own to 1,024; a longer one is no form that is known
_GROUP: Final = re.compile(r"/countersign/targets/([a-z0-9][a-z0-9_-]{0,62})\Z")
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._@$+-]{0,62}\Z")

# What syslog puts before sshd's own line.
_SYSLOG: Final = re.compile(
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[0-9:.+Z-]{8,24}) [A-Za-z0-9._-]{1,255} "
    r"sshd(?:-session|-auth)?\[\d{1,10}\]: "
)
_FROM: Final = r"(?P<peer>\S{1,45}) port (?P<port>\d{1,5})"
_NAME: Final = r"(?P<account>.*)"
_FOR: Final = rf"for (?:invalid user )?{_NAME} from {_FROM} ssh2"
_USER: Final = rf"(?:authenticating|invalid) user {_NAME}"
# Greedy: in each of these nothing that a stranger chose stands behind the address, so that its last place is the true
# one; in _BEHIND_KEY the key's own text does. Method "none" is how a client asks what it may try.
_SSHD: Final = tuple(
    re.compile(form)
    for form in (
        rf"Failed (?!none )(?P<method>[a-z/-]{{1,40}}) {_FOR}",
        rf"User {_NAME} from (?P<peer>\S{{1,45}}) (?P<method>not allowed) because [A-Za-z' ]{{1,100}}",
        rf"(?P<method>ROOT LOGIN) REFUSED FROM {_FROM}(?: \[preauth\])?",
        r"(?:error: )?(?P<method>Certificate invalid: [A-Za-z ]{1,60})",
        r"(?P<method>Certificate does not contain an authorized principal)",
        rf"Invalid user {_NAME} from {_FROM}",
        rf"(?:error: )?maximum authentication attempts exceeded {_FOR} \[preauth\]",
        rf"(?:Connection (?:closed|reset) by|Disconnected from) {_USER} {_FROM} \[preauth\]",
        rf"Disconnecting {_USER} {_FROM}: Too many authentication failures \[preauth\]",
        rf"Received disconnect from {_FROM}:\d{{1,3}}: .*\[preauth\]",
    )
)
_BEHIND_KEY: Final = re.compile(rf"Failed (?P<method>publickey|hostbased) {_FOR}: .*")
_ONE_PLACE: Final = re.compile(rf" from {_FROM} ssh2")

_SEVERITY: Final = re.compile(
    r"\b(?:DEBUG[1-5]?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|DETAIL|HINT|QUERY|CONTEXT|LOCATION|STATEMENT):  "
)
# ``%m [%p] %h ``: what stands there is the server's own; of what follows (%u, %d, %a) nothing is taken.
_POSTGRES_LINE: Final = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.\d]{0,7} [A-Z]{1,5} \[(?P<pid>\d{1,10})\] "
    r"(?:(?P<peer>[0-9a-fA-F.:]{2,45})(?:\(\d{1,5}\))? )?"
)
# The account's name is up to the first quotation mark, and then ``rest`` is the server's own end of the line: where it
# is not, the name has a quotation mark or a line feed in it.
_NAMED: Final = r'user "(?P<account>[^"]*)(?P<rest>.*)'
_HOST: Final = r'host "(?P<peer>[0-9a-fA-F.:]{2,45})"'
_FATAL: Final = tuple(
    (re.compile(form), re.compile(rest))
    for form, rest in (
        (rf"(?P<method>[A-Za-z0-9]{{1,20}}) authentication failed for {_NAMED}", r'"'),
        (
            rf"(?P<method>no pg_hba\.conf entry) for (?:replication connection from )?{_HOST}, {_NAMED}",
            r'"(?:, database "[^"]*")?, [A-Za-z0-9 ]+',
        ),
        (
            rf"(?P<method>pg_hba\.conf rejects) (?:replication )?connection for {_HOST}, {_NAMED}",
            r'"(?:, database "[^"]*")?, [A-Za-z0-9 ]+',
        ),
        (
            r'(?P<method>role) "(?P<account>[^"]*)(?P<rest>.*)',
            r'" (?:does not exist|is not permitted to log in)',
        ),
    )
)
_IMITATION: Final = "a name that imitates the log's own words"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    """One line, and when the log took it."""

    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Refused:
    """``method`` is empty where the line only says that somebody left without having been let in. ``connection`` tells
    the visits of one ``peer`` apart: the port of sshd's lines, the process of PostgreSQL's; empty where unknown."""

    method: str
    account: str
    peer: str
    connection: str


class TargetLog:
    """Audits refused logins at targets."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def __call__(self, group: str, lines: Sequence[LogLine]) -> int:
        """Audit what ``lines`` of ``group`` say; return how many events that was. Raises BadRequest for a group that is
        no target's, and whatever the audit log raises: Lambda delivers again."""
        found = _GROUP.match(group)
        if found is None:
            raise BadRequest("the log group is no target's: /countersign/targets/NAME")
        refused = _once_each(lines)
        now = self._clock.now()
        for place, (at, one) in enumerate(refused[:MAX_EVENTS]):
            more = len(refused) - MAX_EVENTS if place == MAX_EVENTS - 1 else 0
            self._audit.record(
                AuditEvent(
                    name=AuditName.TARGET_LOGIN_REFUSED,
                    at=min(at, now),
                    target=found[1],
                    peer=one.peer,
                    why=f"{one.method or 'login'} for {one.account}" + (f", and {more} more" if more > 0 else ""),
                )
            )
        return min(len(refused), MAX_EVENTS)


def log_events(event: object) -> tuple[str, list[LogLine]]:
    """Return the log group and the lines of what CloudWatch Logs delivered; no lines for its own control messages.

    Raises BadRequest where it is no such event, or more than ``MAX_BYTES`` unpacked. Pure.
    """
    match event:
        case {"awslogs": {"data": str() as packed}}:
            told = _unpacked(packed)
        case _:
            raise BadRequest("this is no event of a CloudWatch Logs subscription")
    match told:
        case {"messageType": "DATA_MESSAGE", "logGroup": str() as group, "logEvents": list() as events}:
            return group, [_line(one) for one in events]
        case {"messageType": "CONTROL_MESSAGE", "logGroup": str() as group}:
            return group, []
        case _:
            raise BadRequest("what CloudWatch Logs delivered has another shape than it documents")


def _unpacked(packed: str) -> object:
    try:
        inflate = zlib.decompressobj(wbits=31)  # gzip
        raw = inflate.decompress(base64.b64decode(packed, validate=True), MAX_BYTES)
        if not inflate.eof:
            raise BadRequest("what CloudWatch Logs delivered is cut off, or larger than it says it can be")
        told: object = json.loads(raw)
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise BadRequest("what CloudWatch Logs delivered cannot be unpacked") from error
    return told


def _line(one: object) -> LogLine:
    match one:
        case {"timestamp": int() as milliseconds, "message": str() as text} if 0 <= milliseconds < 1 << 42:
            return LogLine(at=datetime.fromtimestamp(milliseconds / 1000, UTC), text=text)
        case _:
            raise BadRequest("a log event has no time or no message")


def _once_each(lines: Sequence[LogLine]) -> list[tuple[datetime, _Refused]]:
    """Return what was refused, each fact once: a line that was delivered twice, and the lines that say of one
    connection only that it ended where another says what it tried."""
    seen: dict[_Refused, datetime] = {}
    for line in lines:
        one = _refused(line.text)
        if one is not None:
            seen.setdefault(one, line.at)
    told = {(one.peer, one.connection) for one in seen if one.method and one.connection}
    kept: dict[object, tuple[datetime, _Refused]] = {}
    for one, at in seen.items():
        if one.method or (one.peer, one.connection) not in told:
            kept.setdefault(one if one.method else (one.peer, one.connection), (at, one))
    return list(kept.values())


def _refused(text: str) -> _Refused | None:
    if len(text) > MAX_LINE:
        return None
    text = "".join(char if char.isprintable() else "\ufffd" for char in text.rstrip("\r\n"))
    return _by_sshd(text) or _by_postgres(text)


def _by_sshd(text: str) -> _Refused | None:
    found = _SYSLOG.match(text)
    if found is None:
        return None
    for form in _SSHD:
        if (match := form.fullmatch(text, found.end())) is not None:
            return _said(match)
    key = _BEHIND_KEY.fullmatch(text, found.end())
    if key is None or len(_ONE_PLACE.findall(key[0])) == 1:
        return None if key is None else _said(key)
    return _Refused(method=key["method"], account=_IMITATION, peer="", connection="")


def _by_postgres(text: str) -> _Refused | None:
    line = _POSTGRES_LINE.match(text)
    if line is None:
        return None
    places = list(_SEVERITY.finditer(text, line.end()))
    for place in places:
        for form, rest in _FATAL:
            said = form.fullmatch(text, place.end()) if place[0].startswith("FATAL") else None
            if said is None:
                continue
            sure = len(places) == 1 and rest.fullmatch(said["rest"]) is not None
            return _Refused(
                method=said["method"] if sure else "",
                account=_shown(said["account"]) if sure else _IMITATION,
                peer=_address(said.groupdict().get("peer", line["peer"]) if len(places) == 1 else line["peer"]),
                connection=line["pid"],
            )
    return None


def _said(match: re.Match[str]) -> _Refused:
    said = match.groupdict()
    account = said.get("account")
    return _Refused(
        method=said.get("method") or "",
        account="an account that is not named" if account is None else _shown(account),
        peer=_address(said.get("peer")),
        connection=said.get("port") or "",
    )


def _shown(account: str) -> str:
    """Return an account's name as the audit log may hold it: what is none may be a password, typed in its place."""
    return account if _ACCOUNT.match(account) else f"a name of {len(account)} characters that no account has"


def _address(text: str | None) -> str:
    try:
        return str(ipaddress.ip_address(text or ""))
    except ValueError:
        return ""
