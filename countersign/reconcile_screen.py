"""A reconciliation as text: what has no counterpart first. Every text of the log or a row passes ``printable``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from countersign.printable import counted, safe_line
from countersign.review_operations import day_of

if TYPE_CHECKING:
    from chalicelib.domain.connection import ConnectionRow
    from chalicelib.services.cloud_witness import Accounted, Trail, Witness
    from chalicelib.services.login_lines import Login, Logins
    from chalicelib.services.reconcile import Reconciled

Paint = Callable[..., str]


def screen(found: Reconciled, logins: Logins, paint: Paint, columns: int) -> Iterator[str]:
    """Give the lines."""
    state = paint("EVERY LOGIN IS OURS", "green", "bold") if found.holds else paint("NOT RECONCILED", "red", "bold")
    yield f"{state}  {safe_line(found.target)}"
    yield paint(f"from {day_of(found.period.since)} until before {day_of(found.period.until)}", "dim")
    yield f"  {logins.lines} lines; {counted(len(found.matched), 'login')} with their connections"
    if found.excepted:
        yield f"  {counted(found.excepted, 'login')} of accounts that --except names"
    if found.strangers or found.unclear:
        yield ""
        number = len(found.strangers) + len(found.unclear)
        yield paint(f"LOGINS WITHOUT A CONNECTION: {number}", "bold", "red")
        for login in found.strangers:
            yield f"  {safe_line(_login(login), columns - 2)}"
        for one in found.unclear:
            yield f"  line {one.line}: it may be a login: {safe_line(one.text, columns - 40)}"
    if found.lost:
        yield ""
        yield paint(f"CONNECTIONS WITHOUT A LOGIN: {len(found.lost)}", "bold", "red")
        for row in found.lost:
            yield f"  {safe_line(_row(row))}"
    if found.ended_before:
        yield ""
        yield f"{counted(len(found.ended_before), 'connection')} ended before the target was reached:"
        for row in found.ended_before:
            yield f"  {safe_line(_row(row))}"


def trail_screen(found: Accounted, trail: Trail, paint: Paint, columns: int) -> Iterator[str]:
    """Give the lines of a reconciliation with CloudTrail."""
    word = paint("EVERY CREDENTIAL IS OURS", "green", "bold") if found.holds else paint("NOT RECONCILED", "red", "bold")
    yield word
    yield paint(f"from {day_of(found.period.since)} until before {day_of(found.period.until)}", "dim")
    yield f"  {counted(trail.records, 'record')}; {counted(len(found.matched), 'credential')} with their connections"
    if found.strangers:
        yield ""
        yield paint(f"CREDENTIALS WITHOUT A CONNECTION: {len(found.strangers)}", "bold", "red")
        yield from (f"  {safe_line(_made(one), columns - 2)}" for one in found.strangers)
    if found.unseen:
        yield ""
        yield paint(f"CONNECTIONS OF WHICH THE TRAIL SHOWS NO CREDENTIAL: {len(found.unseen)}", "bold", "red")
        yield from (f"  {safe_line(_row(row))}" for row in found.unseen)
    if found.unreadable:
        yield ""
        yield paint(f"RECORDS THAT CANNOT BE READ: {len(found.unreadable)}", "bold", "red")
        yield from (f"  {safe_line(place)}" for place in found.unreadable)
    for rows, what in ((found.ended_before, "ended before the target was reached"), (found.unknown, "no bundle names")):
        if rows:
            yield ""
            yield f"{counted(len(rows), 'connection')}: {what}"
            yield from (f"  {safe_line(_row(row))}" for row in rows)
    if found.refused:
        yield ""
        yield f"{counted(len(found.refused), 'call')} that AWS refused:"
        yield from (f"  {safe_line(_made(one), columns - 2)}" for one in found.refused)
    yield ""
    yield "What this does not cover:"
    yield from (f"  {safe_line(line)}" for line in found.not_covered)


def _made(one: Witness) -> str:
    refused = f" ({one.call.code})" if one.call.code else ""
    return f"{one.made.value} {one.what} by {one.call.who} from {one.call.peer} at {day_of(one.call.at)}{refused}"


def _login(login: Login) -> str:
    claims = f", claims the chain {login.txn}" if login.txn else ", names no chain"
    claims += f" and {login.connection}" if login.connection else ""
    where = f" from {login.peer}" if login.peer else ""
    return f"line {login.line}: {login.account}{where} at {day_of(login.at)} ({login.how}){claims}"


def _row(row: ConnectionRow) -> str:
    ended = row.exit if row.sealed_at is not None else "still open"
    return f"{row.id} of {row.session_id} as {row.principal} at {day_of(row.opened_at)} ({ended})"
