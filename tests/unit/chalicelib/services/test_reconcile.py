"""A target's own logins against our connections: every stranger is named, and no line hides one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.domain.errors import BadRequest, Limited
from chalicelib.domain.signoff import Period
from chalicelib.services import login_lines
from chalicelib.services.login_lines import Login, Logins, Unclear, read_logins
from chalicelib.services.reconcile import Reconciled, connections_of, reconcile, reconciled_json
from tests.fakes.archive import Archive, Connected
from tests.fakes.clock import START

NOW = START + timedelta(hours=1)
HOUR = Period(since=START - timedelta(minutes=1), until=START + timedelta(minutes=30))
FINGERPRINT = "SHA256:" + "a" * 43


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"


def postgres(at: datetime, named: str = "", *, account: str = "orders_app", said: str = "") -> str:
    """A line as PostgreSQL 15 writes it, with the demo's prefix."""
    application = f" application_name={named}" if named else ""
    return (
        f"{stamp(at)} UTC [712] 127.0.0.1 app=[unknown] LOG:  "
        f"connection authorized: user={account} database=orders{application}{said}\n"
    )


def sshd(at: datetime, on: Connected, **other: str) -> str:
    """A line as OpenSSH 9.2 writes it for a certificate of ours."""
    told = {"txn": on.row.txn, "ses": on.session_id, "con": on.row.id} | other
    key_id = " ".join(f"{name}:{value}" for name, value in told.items())
    return (
        f"{at:%Y-%m-%dT%H:%M:%S}.000000+00:00 db1 sshd[911]: "
        "Accepted publickey for deploy from 10.0.1.9 port 50022 ssh2: "
        f"ED25519-CERT {FINGERPRINT} ID {key_id} (serial 123456789) CA ECDSA {FINGERPRINT}\n"
    )


def read(*lines: str) -> Logins:
    return read_logins(lines, NOW)


def reconciled(archive: Archive, target: str, *lines: str, excepted: frozenset[str] = frozenset()) -> Reconciled:
    rows = connections_of(archive.stores, target, HOUR)
    return reconcile(target, HOUR, read(*lines), rows, excepted)


def at(on: Connected) -> datetime:
    return on.row.opened_at + timedelta(seconds=1)


# -- what a line says --------------------------------------------------------------------------------------------------


def test_a_login_of_postgresql_names_its_chain() -> None:
    """The broker puts it first into application_name, and the client's own name behind it."""
    archive = Archive()
    (login,) = read(postgres(START, f"txn:{archive.txn} psql", said=" SSL enabled (protocol=TLSv1.3, bits=256)")).logins
    assert (login.txn, login.account, login.peer, login.how) == (archive.txn, "orders_app", "127.0.0.1", "postgresql")


def test_a_login_of_sshd_names_its_connection() -> None:
    """Nobody but us signs a certificate with that id."""
    archive = Archive()
    (login,) = read(sshd(START, archive.db)).logins
    assert (login.txn, login.session, login.connection) == (archive.txn, archive.db.session_id, archive.db.row.id)
    assert (login.account, login.peer, login.how) == ("deploy", "10.0.1.9", "publickey")


@pytest.mark.parametrize(
    "line",
    [
        "Nov  2 09:30:00 db1 sshd[9]: Accepted password for root from 10.0.0.5 port 4 ssh2\n",
        f"Nov  2 09:30:00 db1 sshd[9]: Accepted publickey for root from 10.0.0.5 port 4 ssh2: RSA {FINGERPRINT}\n",
        "2026-11-02T09:30:00Z db sshd-session[9]: Accepted keyboard-interactive/pam for root from ::1 port 4 ssh2\n",
        postgres(START, "psql", account="postgres"),
        postgres(START, "", account="postgres"),
        postgres(START, "xtxn:01m6dsg7e0fwejtv7egfb0rbxm", account="postgres"),
        postgres(START, "txn:01m6dsg7e0fwejtv7egfb0rbxmm", account="postgres"),
    ],
)
def test_a_login_without_a_chain_names_none(line: str) -> None:
    """Around the broker, by whatever way the target lets in."""
    (login,) = read(line).logins
    assert (login.txn, login.connection, login.at) == ("", "", START)


HIDING = [
    # a database or role with a space in it, a line feed in a name, an application that imitates the log's own words
    f"{stamp(START)} UTC [7] 10.0.0.5 LOG:  connection authorized: user=a b database=orders\n",
    f"{stamp(START)} UTC [7] 10.0.0.5 LOG:  connection authorized: user=evil\n",
    postgres(START, "x LOG:  statement: SELECT 1"),
    f"{stamp(START)} UTC [7] 10.0.0.5 app=x LOG:  statement: LOG:  connection authorized: user=a database=b\n",
    f"{stamp(START)} UTC [7] 10.0.0.5 LOG:  replication connection authorized: user=replica\n",
    f"{stamp(START)} UTC [7] 10.0.0.5 LOG:  connection authorized: user=a database=b application_name={'x' * 9000}\n",
    "connection authorized: user=a database=b\n",
    "Nov  2 09:30:00 db1 sshd[9]: Accepted password for root from 10.0.0.5 port 4 ssh2 and more\n",
    "Nov  2 09:30:00 db1 sshd[9]: Accepted nothing that we know\n",
    "sshd[9]: Accepted password for root from 10.0.0.5 port 4 ssh2\n",
]


@pytest.mark.parametrize("line", HIDING)
def test_a_line_that_may_be_a_login_is_never_passed_over(line: str) -> None:
    """Attack: a name is chosen so that the line of one's login is of no form that is known."""
    found = read(line)
    assert (len(found.logins), len(found.unclear)) == (0, 1)
    assert len(found.unclear[0].text) <= login_lines.MAX_SHOWN


@pytest.mark.parametrize(
    "line",
    [
        f"{stamp(START)} UTC [7] 10.0.0.5 app=psql LOG:  statement: SELECT 'connection authorized: user=a'\n",
        f"{stamp(START)} UTC [7] 10.0.0.5 LOG:  connection received: host=10.0.0.5 port=4\n",
        "\tLOG:  connection authorized: user=a database=b application_name=txn:01m6dsg7e0fwejtv7egfb0rbxm\n",
        "Nov  2 09:30:00 db1 sshd[9]: Failed password for root from 10.0.0.5 port 4 ssh2\n",
        f'Nov  2 09:30:00 db1 sshd[9]: Accepted certificate ID "txn:x" (serial 1) signed by ECDSA CA {FINGERPRINT}\n',
        "\n",
        "anything\n",
    ],
)
def test_what_is_no_login_is_none(line: str) -> None:
    """A statement that quotes the log, a text's further lines, what sshd says before a key is proved."""
    found = read(line)
    assert (found.logins, found.unclear) == ((), ())


def test_times_without_a_year_are_of_the_past_and_zones_must_be_known() -> None:
    """Another hour matches another connection."""
    assert read("Dec 31 23:00:00 db1 sshd[9]: Server listening\n").first == datetime(2025, 12, 31, 23, tzinfo=UTC)
    with pytest.raises(BadRequest, match="CET"):
        read(f"{stamp(START)} CET [7] LOG:  connection received: host=x\n")
    for wrong in ("Feb 30 09:30:00", "Nov 99 09:30:00"):
        with pytest.raises(BadRequest):
            read(f"{wrong} db1 sshd[9]: Server listening\n")


def test_a_log_of_millions_of_logins_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knocks at a target must not fill the auditor's memory."""
    monkeypatch.setattr(login_lines, "MAX_LOGINS", 3)
    with pytest.raises(Limited):
        read(*[postgres(START)] * 4)


# -- what has a counterpart --------------------------------------------------------------------------------------------


def test_every_login_is_a_connections_and_every_connection_has_one() -> None:
    """The quiet day."""
    archive = Archive()
    orders = reconciled(archive, "orders-prod", postgres(at(archive.orders), f"txn:{archive.txn} psql"))
    db = reconciled(archive, "db-prod", sshd(at(archive.db), archive.db))
    assert [(found.holds, len(found.matched)) for found in (orders, db)] == [(True, 1), (True, 1)]
    assert [row.id for _, row in db.matched] == [archive.db.row.id]
    told = reconciled_json(orders)
    assert (told["holds"], told["logins_without_connection"]) == (True, [])


def test_a_login_around_the_broker_has_no_connection() -> None:
    """Attack: somebody has the target's password."""
    archive = Archive()
    found = reconciled(
        archive,
        "orders-prod",
        postgres(at(archive.orders), f"txn:{archive.txn}"),
        postgres(at(archive.orders), "psql", account="postgres"),
    )
    assert not found.holds
    assert [(login.account, login.line) for login in found.strangers] == [("postgres", 2)]


def test_a_login_around_the_broker_that_claims_a_chain_is_one_too_many() -> None:
    """Attack: whoever has the password calls themselves by a chain that they saw."""
    archive = Archive()
    claim = postgres(at(archive.orders), f"txn:{archive.txn}")
    found = reconciled(archive, "orders-prod", claim, claim)
    assert (len(found.matched), len(found.strangers)) == (1, 1)
    late = postgres(START + timedelta(minutes=20), f"txn:{archive.txn}")
    found = reconciled(archive, "orders-prod", late)
    assert ([login.line for login in found.strangers], len(found.lost)) == ([1], 1), "it was sealed long before"
    assert len(reconciled(archive, "db-prod", claim).strangers) == 1, "that chain was never there by this way"


def test_a_certificate_names_one_connection_and_no_other() -> None:
    """A log line that names another session's or an unknown connection is nobody's."""
    archive = Archive()
    for other in ({"con": archive.orders.row.id}, {"ses": archive.orders.session_id}):
        found = reconciled(archive, "db-prod", sshd(at(archive.db), archive.db, **other))
        assert ([login.line for login in found.strangers], [row.id for row in found.lost]) == ([1], [archive.db.row.id])
    line = sshd(at(archive.db), archive.db)
    assert len(reconciled(archive, "db-prod", line, line).strangers) == 1, "one certificate, one login"


def test_a_connection_without_a_login_is_told() -> None:
    """Attack: a line was taken from the target's log; or the record is of something that never happened."""
    archive = Archive()
    found = reconciled(archive, "orders-prod")
    assert (found.holds, [row.id for row in found.lost]) == (False, [archive.orders.row.id])


@pytest.mark.parametrize("changed", [{"exit": "target_unavailable"}, {"exit": "denied", "manifest_key": ""}])
def test_a_connection_that_never_reached_the_target_is_no_finding(changed: dict[str, str]) -> None:
    """The target was down: our record says so, and there is no login."""
    archive = Archive()
    archive.change_row(archive.orders, **changed)
    found = reconciled(archive, "orders-prod")
    assert (found.holds, [row.exit for row in found.ended_before]) == (True, [changed["exit"]])


def test_accounts_of_the_targets_own_are_counted_unless_they_claim_a_chain() -> None:
    """Monitoring logs in every minute; under a chain's name it is not monitoring."""
    archive = Archive()
    ours = postgres(at(archive.orders), f"txn:{archive.txn}")
    own = [postgres(at(archive.orders), "check", account="monitor")] * 3
    found = reconciled(archive, "orders-prod", ours, *own, excepted=frozenset({"monitor"}))
    assert (found.holds, found.excepted) == (True, 3)
    claim = postgres(at(archive.orders), f"txn:{archive.txn}", account="monitor")
    assert not reconciled(archive, "orders-prod", ours, claim, excepted=frozenset({"monitor"})).holds


def test_a_line_that_may_be_a_login_is_a_finding() -> None:
    """Nobody knows whose it is."""
    archive = Archive()
    found = reconciled(archive, "orders-prod", postgres(at(archive.orders), f"txn:{archive.txn}"), HIDING[0])
    assert ([one.line for one in found.unclear], found.holds) == ([2], False)


def test_what_is_outside_the_period_is_neither() -> None:
    """Yesterday's logins have yesterday's connections."""
    archive = Archive()
    found = reconciled(
        archive,
        "orders-prod",
        postgres(START - timedelta(days=1), account="postgres"),
        postgres(at(archive.orders), f"txn:{archive.txn}"),
    )
    assert found.holds
    before = Period(since=START - timedelta(days=2), until=START - timedelta(days=1))
    assert connections_of(archive.stores, "orders-prod", before) == []


def test_an_open_connection_takes_a_login_of_now() -> None:
    """It has no end yet."""
    archive = Archive()
    archive.change_row(archive.orders, sealed_at=None, manifest_key="", exit="")
    found = reconciled(archive, "orders-prod", postgres(START + timedelta(minutes=20), f"txn:{archive.txn}"))
    assert found.holds


def test_values_are_whole() -> None:
    """What a program reads names the line of the log."""
    archive = Archive()
    told = reconciled_json(reconciled(archive, "db-prod", postgres(at(archive.orders)), HIDING[0]))
    strangers, unclear = told["logins_without_connection"], told["unclear_lines"]
    assert isinstance(strangers, list)
    assert isinstance(unclear, list)
    assert (len(strangers), len(unclear), isinstance(read().logins, tuple)) == (1, 1, True)
    assert isinstance(read(HIDING[0]).unclear[0], Unclear)
    assert isinstance(read(postgres(START)).logins[0], Login)
