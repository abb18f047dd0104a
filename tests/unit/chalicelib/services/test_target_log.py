"""Refused logins in targets' logs: every form is seen, and no name of a stranger's forges or hides one.

The lines are as OpenSSH 9.2 and PostgreSQL 15 wrote them when these logins were tried.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.audit import AuditEvent, AuditName
from chalicelib.domain.errors import BadRequest
from chalicelib.services.target_log import MAX_BYTES, MAX_EVENTS, LogLine, TargetLog, log_events
from tests.fakes.broker import MemoryAudit
from tests.fakes.clock import FakeClock

GROUP = "/countersign/targets/db-prod"
SYSLOG = "2026-11-23T15:28:06.092000+00:00 db-prod sshd[4242]: "
KEY = "SHA256:Wgnj7hprXIKPdzDu/GBXzOarrQZDnWPdXK1nkSI1cAM"
FATAL = "2026-11-23 15:29:48.755 UTC [14809] 10.0.0.7 app=[unknown] FATAL:  "
UNNAMED = "an account that is not named"
FORBIDDEN = "not allowed because not listed in AllowUsers"
TOO_MANY = "maximum authentication attempts exceeded for"
IMITATES = "a name that imitates the log's own words"


WHOLE = json.dumps({"messageType": "DATA_MESSAGE", "logGroup": GROUP, "logEvents": []}).encode()


def line(text: str, at: datetime | None = None) -> LogLine:
    return LogLine(at=at or FakeClock().now(), text=text)


def audited(*texts: str, group: str = GROUP) -> list[AuditEvent]:
    audit = MemoryAudit()
    count = TargetLog(audit, FakeClock())(group, [line(text) for text in texts])
    assert count == len(audit.events)
    return audit.events


def told(*texts: str) -> list[tuple[str, str]]:
    return [(event.peer, event.why) for event in audited(*texts)]


def delivered(told: object) -> dict[str, Any]:
    return {"awslogs": {"data": base64.b64encode(gzip.compress(json.dumps(told).encode())).decode()}}


@pytest.mark.parametrize(
    ("text", "peer", "why"),
    [
        ("Failed password for deploy from 10.0.0.7 port 52642 ssh2", "10.0.0.7", "password for deploy"),
        ("Failed password for invalid user root from fe80::1 port 5 ssh2", "fe80::1", "password for root"),
        (f"Failed publickey for deploy from 10.0.0.7 port 5 ssh2: ED25519 {KEY}", "10.0.0.7", "publickey for deploy"),
        (
            f"Failed publickey for deploy from 10.0.0.7 port 5 ssh2: ED25519-CERT {KEY} ID x (serial 0) CA RSA {KEY}",
            "10.0.0.7",
            "publickey for deploy",
        ),
        (
            "Failed keyboard-interactive/pam for deploy from 10.0.0.7 port 5 ssh2",
            "10.0.0.7",
            "keyboard-interactive/pam for deploy",
        ),
        (f"User root from 10.0.0.7 {FORBIDDEN}", "10.0.0.7", "not allowed for root"),
        ("ROOT LOGIN REFUSED FROM 10.0.0.7 port 5", "10.0.0.7", f"ROOT LOGIN for {UNNAMED}"),
        ("error: Certificate invalid: expired", "", f"Certificate invalid: expired for {UNNAMED}"),
        (
            "Certificate invalid: name is not a listed principal",
            "",
            f"Certificate invalid: name is not a listed principal for {UNNAMED}",
        ),
        ("Invalid user root from 10.0.0.7 port 52606", "10.0.0.7", "login for root"),
        (f"error: {TOO_MANY} deploy from 10.0.0.7 port 5 ssh2 [preauth]", "10.0.0.7", "login for deploy"),
        (f"{TOO_MANY} invalid user x from 10.0.0.7 port 5 ssh2 [preauth]", "10.0.0.7", "login for x"),
        ("Connection closed by authenticating user deploy 10.0.0.7 port 5 [preauth]", "10.0.0.7", "login for deploy"),
        ("Connection reset by invalid user root 10.0.0.7 port 5 [preauth]", "10.0.0.7", "login for root"),
        ("Disconnected from authenticating user deploy 10.0.0.7 port 5 [preauth]", "10.0.0.7", "login for deploy"),
        (
            "Disconnecting authenticating user deploy 10.0.0.7 port 5: Too many authentication failures [preauth]",
            "10.0.0.7",
            "login for deploy",
        ),
        ("Received disconnect from 10.0.0.7 port 5:11: Bye Bye [preauth]", "10.0.0.7", f"login for {UNNAMED}"),
    ],
)
def test_what_sshd_says_of_a_refused_login(text: str, peer: str, why: str) -> None:
    """Each way in which somebody goes around the broker and is not let in leaves an event."""
    assert told(SYSLOG + text) == [(peer, why)]
    assert told(f"Nov  3 15:28:06 host sshd-session[1]: {text}\n") == [(peer, why)]


@pytest.mark.parametrize(
    ("text", "peer", "why"),
    [
        ('password authentication failed for user "orders_app"', "10.0.0.7", "password for orders_app"),
        ('LDAP authentication failed for user "orders_app"', "10.0.0.7", "LDAP for orders_app"),
        ('role "nobody" does not exist', "10.0.0.7", "role for nobody"),
        ('role "reports" is not permitted to log in', "10.0.0.7", "role for reports"),
        (
            'no pg_hba.conf entry for host "10.0.0.9", user "postgres", database "orders", no encryption',
            "10.0.0.9",
            "no pg_hba.conf entry for postgres",
        ),
        (
            'no pg_hba.conf entry for replication connection from host "10.0.0.9", user "rep", SSL encryption',
            "10.0.0.9",
            "no pg_hba.conf entry for rep",
        ),
        (
            'pg_hba.conf rejects connection for host "::1", user "postgres", database "orders", SSL off',
            "::1",
            "pg_hba.conf rejects for postgres",
        ),
    ],
)
def test_what_postgresql_says_of_a_refused_login(text: str, peer: str, why: str) -> None:
    """As for sshd; the address is the one in the message, else the one in the line's prefix."""
    assert told(FATAL + text) == [(peer, why)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        SYSLOG + "Accepted publickey for deploy from 10.0.0.7 port 5 ssh2: ED25519-CERT",
        SYSLOG + "Failed none for deploy from 10.0.0.7 port 5 ssh2",
        SYSLOG + "Connection closed by 10.0.0.7 port 5 [preauth]",
        SYSLOG + "Connection closed by authenticating user deploy 10.0.0.7 port 5",
        SYSLOG + "Received disconnect from 10.0.0.7 port 5:11: disconnected by user",
        "Nov  3 15:28:06 host sudo[1]: Failed password for root from 10.0.0.7 port 5 ssh2",
        "Nov  3 15:28:06 host app[1]: x sshd[1]: Failed password for root from 10.0.0.7 port 5 ssh2",
        "2026-11-23 15:29:48.755 UTC [14809] 10.0.0.7 LOG:  connection received: host=10.0.0.7 port=5",
        '2026-11-23 15:29:48.755 UTC [14809] 10.0.0.7 ERROR:  role "x" does not exist',
        FATAL + "the database system is starting up",
        FATAL + 'database "x" does not exist',
        SYSLOG + "Failed password for " + "x" * 3000 + " from 10.0.0.7 port 5 ssh2",
    ],
)
def test_other_lines_say_nothing(text: str) -> None:
    """A login that worked, a probe that tried nothing, another program's line, an error inside a session."""
    assert audited(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Invalid user x from 6.6.6.6 port 22 ssh2 from 10.0.0.7 port 52614",
        "Failed password for invalid user nobody from 6.6.6.6 port 1 ssh2 from 10.0.0.7 port 52656 ssh2",
        "Connection closed by invalid user x from 6.6.6.6 port 22 [preauth] 10.0.0.7 port 52614 [preauth]",
        f"{TOO_MANY} x from 6.6.6.6 port 1 ssh2 [preauth] from 10.0.0.7 port 5 ssh2 [preauth]",
        f"User x from 6.6.6.6 {FORBIDDEN} from 10.0.0.7 {FORBIDDEN}",
        "Received disconnect from 10.0.0.7 port 5:11: from 6.6.6.6 port 22:11: x [preauth]",
    ],
)
def test_an_account_name_forges_the_address(text: str) -> None:
    """The name is the stranger's; the last place, or the first where nothing of theirs is before it, is sshd's own."""
    ((peer, why),) = told(SYSLOG + text)
    assert peer == "10.0.0.7"
    assert "6.6.6.6" not in why


@pytest.mark.parametrize(
    "text",
    [
        f"deploy from 10.0.0.7 port 5 ssh2: ED25519-CERT {KEY} ID a from 6.6.6.6 port 2 ssh2 (serial 0)",
        f"invalid user a from 6.6.6.6 port 2 ssh2: RSA {KEY} ID b from 10.0.0.7 port 5 ssh2: RSA {KEY}",
    ],
)
def test_a_key_id_forges_the_address(text: str) -> None:
    """Name before and key id behind the address are both the stranger's: which is true cannot be told, and is not."""
    assert told(f"{SYSLOG}Failed publickey for {text}") == [("", f"publickey for {IMITATES}")]


def test_a_line_feed_in_a_name_forges_a_line() -> None:
    """``sshd -e`` wrote exactly this for ``ssh -l $'x\\nFailed ...'``. syslog writes a line feed as ``\\012``."""
    forged = "Failed password for root from 6.6.6.6 port 1 ssh2"
    assert audited("Invalid user x", forged, " from 10.0.0.7 port 5") == []
    assert told(f"{SYSLOG}Invalid user x\\012{forged} from 10.0.0.7 port 5") == [
        ("10.0.0.7", f"login for a name of {len(forged) + 5} characters that no account has")
    ]
    # PostgreSQL puts a tab before what follows a line feed in its message.
    assert told(FATAL + 'password authentication failed for user "x', "\t" + FATAL + 'role "root" does not exist') == [
        ("10.0.0.7", f"login for {IMITATES}")
    ]


@pytest.mark.parametrize(
    "text",
    [
        FATAL + 'password authentication failed for user "x" FATAL:  role "root"',
        FATAL + 'password authentication failed for user "x" y"',
        FATAL + 'no pg_hba.conf entry for host "10.0.0.7", user "root", database "x", database "d", no encryption',
        '2026-11-23 15:29:48.755 UTC [1] 10.0.0.7 LOG:  statement: SELECT \'FATAL:  role "root" does not exist',
        '2026-11-23 15:29:48.755 UTC [1] 10.0.0.7 app=LOG:  x FATAL:  password authentication failed for user "a"',
        FATAL + 'no pg_hba.conf entry for host "6.6.6.6", user "x FATAL:  role "root" does not exist',
    ],
)
def test_client_text_imitates_postgresqls_words(text: str) -> None:
    """A user, a database, an application or a statement with the log's words in it: never another's name or address,
    and never nothing, since a name must not make a refused login go away."""
    assert told(text) == [("10.0.0.7", f"login for {IMITATES}")]


@pytest.mark.parametrize("name", ["hunter2 hunter3", "pass:word", "x" * 64, "ann@exämple", "", "-oProxy", "a\tb"])
def test_what_no_account_is_called_is_not_repeated(name: str) -> None:
    """Passwords are typed where names belong, and a name is no place to write into the audit log."""
    for text in (
        f"{SYSLOG}Invalid user {name} from 10.0.0.7 port 5",
        f'{FATAL}password authentication failed for user "{name}"',
    ):
        ((peer, why),) = told(text)
        assert peer == "10.0.0.7"
        assert why.endswith(f"a name of {len(name)} characters that no account has")


@given(st.text(max_size=120))
def test_any_name_gives_one_event_with_the_true_address(name: str) -> None:
    """Whatever is typed as a name: one event, sshd's address, one printable line of bounded length."""
    typed = name.replace("\n", "\\012")
    ((peer, why),) = told(f"{SYSLOG}Failed password for invalid user {typed} from 10.0.0.7 port 5 ssh2")
    assert peer == "10.0.0.7"
    assert why.isprintable()
    assert len(why) < 150


@given(st.text(max_size=200))
def test_any_user_of_postgresql_gives_an_event(name: str) -> None:
    """As PostgreSQL writes it, line feed and tab included: no name hides a refused login, or moves it elsewhere."""
    lines = (FATAL + f'password authentication failed for user "{name}"').replace("\n", "\n\t").split("\n")
    events = told(*lines)
    assert len(events) == 1
    assert events[0][0] == "10.0.0.7"
    assert events[0][1].isprintable()


def test_the_event_names_the_target_and_the_lines_own_time() -> None:
    """When the log took the line, not when somebody delivered it; never later than now, which an auditor could not
    explain."""
    audit, clock = MemoryAudit(), FakeClock()
    at = clock.now() - timedelta(minutes=7)
    lines = [
        line(SYSLOG + "Invalid user a from 10.0.0.7 port 1", at),
        line(SYSLOG + "Invalid user b from 10.0.0.7 port 2", clock.now() + timedelta(days=1)),
    ]
    TargetLog(audit, clock)(GROUP, lines)
    assert [(event.name, event.target, event.at) for event in audit.events] == [
        (AuditName.TARGET_LOGIN_REFUSED, "db-prod", at),
        (AuditName.TARGET_LOGIN_REFUSED, "db-prod", clock.now()),
    ]


def test_a_line_that_is_delivered_twice_counts_once() -> None:
    """Lambda may be called twice, and CloudWatch may put one line into a delivery twice."""
    failed = SYSLOG + "Failed password for deploy from 10.0.0.7 port 5 ssh2"
    assert len(audited(failed, failed)) == 1
    assert audited(failed) == audited(failed)


def test_one_connection_is_one_event_for_each_way_that_was_tried() -> None:
    """sshd says of one visitor who is not let in up to ten lines."""
    visit = (
        SYSLOG + "Invalid user root from 10.0.0.7 port 5",
        SYSLOG + "Failed password for invalid user root from 10.0.0.7 port 5 ssh2",
        SYSLOG + f"Failed publickey for invalid user root from 10.0.0.7 port 5 ssh2: RSA {KEY}",
        SYSLOG + "Connection closed by invalid user root 10.0.0.7 port 5 [preauth]",
    )
    assert told(*visit) == [("10.0.0.7", "password for root"), ("10.0.0.7", "publickey for root")]
    assert len(audited(*visit, *(text.replace("port 5", "port 6") for text in visit))) == 4
    assert told(visit[0], visit[3]) == [("10.0.0.7", "login for root")]
    failed = FATAL + 'password authentication failed for user "orders_app"'
    again = failed.replace("[14809]", "[14810]")
    assert told(failed, again, again) == [("10.0.0.7", "password for orders_app")] * 2


def test_whoever_knocks_a_thousand_times_does_not_fill_the_audit_log() -> None:
    """The number of events for one delivery is bounded, and the last says what was left out."""
    events = audited(*(f"{SYSLOG}Invalid user a from 10.0.0.7 port {port}" for port in range(1, 1001)))
    assert len(events) == MAX_EVENTS
    assert events[-1].why == f"login for a, and {1000 - MAX_EVENTS} more"


def test_a_group_that_is_no_targets_is_refused() -> None:
    """Whoever may put a subscription on another group does not write a target's name into the audit log."""
    for group in ("/countersign/targets/", "/countersign/targets/Bad Name", "/aws/lambda/x", "x/countersign/targets/a"):
        with pytest.raises(BadRequest):
            audited(SYSLOG + "Invalid user a from 10.0.0.7 port 1", group=group)


def test_what_cloudwatch_delivers_is_unpacked() -> None:
    """The documented event, and its message about itself."""
    message = {"id": "1", "timestamp": 1_795_000_000_123, "message": "text"}
    event = {"messageType": "DATA_MESSAGE", "logGroup": GROUP, "logStream": "s", "logEvents": [message]}
    at = datetime.fromtimestamp(1_795_000_000.123, UTC)
    assert log_events(delivered(event)) == (GROUP, [LogLine(at=at, text="text")])
    assert log_events({"awslogs": {"data": base64.b64encode(gzip.compress(WHOLE)).decode()}}) == (GROUP, [])
    assert log_events(delivered({"messageType": "CONTROL_MESSAGE", "logGroup": GROUP, "logEvents": [{}]})) == (
        GROUP,
        [],
    )


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"awslogs": {}},
        {"awslogs": {"data": 7}},
        {"awslogs": {"data": "not base64"}},
        {"awslogs": {"data": base64.b64encode(b"no gzip").decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(b"{}")[:-4]).decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(b"no json")).decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(b"[" * 100_000)).decode()}},
        {"awslogs": {"data": base64.b64encode(zlib.compress(b"{}")).decode()}},
        {"awslogs": {"data": base64.b64encode(gzip.compress(WHOLE + b" " * MAX_BYTES)).decode()}},
        delivered([]),
        delivered({"messageType": "OTHER", "logGroup": GROUP, "logEvents": []}),
        delivered({"messageType": "DATA_MESSAGE", "logGroup": 1, "logEvents": []}),
        delivered({"messageType": "DATA_MESSAGE", "logGroup": GROUP, "logEvents": {}}),
        *(
            delivered({"messageType": "DATA_MESSAGE", "logGroup": GROUP, "logEvents": [one]})
            for one in (7, {"timestamp": 1}, {"timestamp": -1, "message": ""}, {"timestamp": 1e99, "message": ""})
        ),
    ],
)
def test_what_is_no_delivery_is_refused(event: object) -> None:
    """A function that anybody may call by mistake; a bomb of blanks must not fill its memory."""
    with pytest.raises(BadRequest):
        log_events(event)
