"""Reconcile: a target's own logins against our connections to it; whatever has no counterpart is told, either way.

Why: our record shows what came through us. That nothing else reached the target, only the target can say: a login
without a connection went around the broker; a connection without a login is a record of something that did not happen,
or a log from which a line was taken.

Rules: one login is one connection's. One with a certificate of ours names it. PostgreSQL's names the chain, and anybody
who can log in can name one: so each connection of the chain takes one login, within its time, and what is left over has
none. A connection that ended before it reached the target is listed apart with its reason. Clocks may differ by
``SKEW``. Reads rows by key; writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import leaf_errors
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.signoff import Period
from chalicelib.services.at_once import at_once
from chalicelib.services.login_lines import Login, Logins, Unclear
from chalicelib.services.population import LOOK_BACK

SKEW: Final = timedelta(seconds=30)  # each plane refuses to work with a clock that is further off
# How a connection ended that was refused, or that never reached the target.
_REFUSED: Final = frozenset(kind.code for kind in leaf_errors())


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciled:
    """``matched`` are the pairs; ``strangers`` the logins without a connection, ``lost`` the connections without a
    login, ``ended_before`` those that never reached the target; ``excepted`` how many logins were of accounts that the
    caller knows of."""

    target: str
    period: Period
    matched: tuple[tuple[Login, ConnectionRow], ...]
    strangers: tuple[Login, ...]
    unclear: tuple[Unclear, ...]
    lost: tuple[ConnectionRow, ...]
    ended_before: tuple[ConnectionRow, ...]
    excepted: int

    @property
    def holds(self) -> bool:
        """Whether everything has its counterpart."""
        return not (self.strangers or self.unclear or self.lost)


def connections_of(stores: EvidenceStores, target: str, period: Period, *, readers: int = 1) -> Sequence[ConnectionRow]:
    """Return the rows of connections to ``target`` (any where it is empty) that were opened in ``period`` or within
    ``SKEW`` of it. Raises StoreUnavailable."""
    days = list(period.days())
    lists = at_once(stores.sessions.created_on, [days[0] - LOOK_BACK, *days, days[-1] + LOOK_BACK], readers)
    sessions = stores.sessions.get_many([found for listed in lists for found in listed])
    ids = [SessionId(session.id) for session in sessions if target in ("", session.request.target)]
    rows = [row for found in at_once(stores.connections.of_session, ids, readers) for row in found]
    since, until = period.since - SKEW, period.until + SKEW
    return [row for row in rows if target in ("", row.target) and since <= row.opened_at < until]


def reconcile(
    target: str, period: Period, logins: Logins, rows: Iterable[ConnectionRow], excepted: frozenset[str] = frozenset()
) -> Reconciled:
    """Return what has a counterpart and what has none. ``excepted`` are accounts whose logins need none, unless they
    claim a chain. Pure."""
    left = {row.id: row for row in sorted(rows, key=lambda row: (row.opened_at, row.id))}
    of_chain = defaultdict[str, list[ConnectionRow]](list)
    for row in left.values():
        of_chain[row.txn].append(row)
    matched: list[tuple[Login, ConnectionRow]] = []
    strangers: list[Login] = []
    known = 0
    within = [login for login in logins.logins if period.since <= login.at < period.until]
    for login in sorted(within, key=lambda login: (login.at, login.line)):
        found = _counterpart(login, of_chain.get(login.txn, ()), left)
        if found is not None:
            matched.append((login, left.pop(found.id)))
        elif not login.txn and login.account in excepted:
            known += 1
        else:
            strangers.append(login)
    # One that was opened a moment before the log ends may be in the next piece of it.
    alone = [row for row in left.values() if period.since <= row.opened_at < period.until - SKEW]
    ended = [row for row in alone if never_reached(row)]
    return Reconciled(
        target=target,
        period=period,
        matched=tuple(matched),
        strangers=tuple(strangers),
        unclear=tuple(one for one in logins.unclear if one.at is None or period.since <= one.at < period.until),
        lost=tuple(row for row in alone if row not in ended),
        ended_before=tuple(ended),
        excepted=known,
    )


def never_reached(row: ConnectionRow) -> bool:
    """Say whether a connection ended before its target was reached. Pure."""
    return row.sealed_at is not None and (not row.manifest_key or row.exit in _REFUSED)


def _counterpart(
    login: Login, chain: Iterable[ConnectionRow], left: Mapping[ConnectionId, ConnectionRow]
) -> ConnectionRow | None:
    for row in chain:
        named = not login.connection or (login.connection, login.session) == (row.id, row.session_id)
        until = None if row.sealed_at is None else row.sealed_at + SKEW
        if row.id in left and named and row.opened_at - SKEW <= login.at and (until is None or login.at <= until):
            return row
    return None


def reconciled_json(found: Reconciled) -> dict[str, Json]:
    """Return it as JSON values. Pure."""
    return {
        "target": found.target,
        "since": timestamp(found.period.since),
        "until": timestamp(found.period.until),
        "holds": found.holds,
        "matched": [
            {"login": _login_json(login), "connection": row.id, "session": row.session_id}
            for login, row in found.matched
        ],
        "logins_without_connection": [_login_json(login) for login in found.strangers],
        "unclear_lines": [
            {"line": one.line, "at": None if one.at is None else timestamp(one.at), "text": one.text}
            for one in found.unclear
        ],
        "connections_without_login": [row_json(row) for row in found.lost],
        "ended_before_login": [row_json(row) for row in found.ended_before],
        "excepted": found.excepted,
    }


def _login_json(login: Login) -> dict[str, Json]:
    return {
        "line": login.line,
        "at": timestamp(login.at),
        "account": login.account,
        "peer": login.peer,
        "how": login.how,
        "txn": login.txn,
        "connection": login.connection,
    }


def row_json(row: ConnectionRow) -> dict[str, Json]:
    """Return how a connection row is told. Pure."""
    return {
        "connection": row.id,
        "session": row.session_id,
        "txn": row.txn,
        "principal": row.principal,
        "opened_at": timestamp(row.opened_at),
        "exit": row.exit if row.sealed_at is not None else "open",
    }
