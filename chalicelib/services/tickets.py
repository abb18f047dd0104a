"""Where tickets are kept: their signed record, under the hash of the text that is handed over, until they expire.

Rules: the text itself is kept nowhere; a record that ``sign`` did not sign is none, whoever wrote the row. What is
wrong with a ticket is never told: unknown, expired, changed and somebody else's are one refusal.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.delegation import ByIssuer, ByKey, Redeemer, Ticket
from chalicelib.domain.errors import Conflict, ProofInvalid, TicketInvalid
from chalicelib.domain.identifiers import HOP_ID, HopId, TicketId, Txn
from chalicelib.domain.store import Keys, Once
from chalicelib.identity.jws import verify_ticket

PREFIX: Final = "cst_"  # so that people, and scanners of repositories, see what it is
_RANDOM_BYTES: Final = 32
_MAX_TEXT: Final = 128  # ours have 47 characters
# A used ticket is remembered for longer than any of our clocks still takes it, each within 30 s of AWS's.
_MEMORY: Final = timedelta(seconds=90)


@dataclass(frozen=True, kw_only=True, slots=True)
class Redemption:
    """The hop that a ticket became, or is about to, and the thumbprint of its key."""

    hop: HopId
    key: str


def ticket_invalid(why: str, ticket: str = "") -> TicketInvalid:
    """Return the one refusal of a ticket. ``why`` is for the log."""
    return TicketInvalid("the ticket is not valid, or is not yours to redeem", why=why, ticket=ticket)


class Tickets:
    """Keeps and finds tickets. Thread-safe where the stores are."""

    def __init__(self, *, once: Once, keys: Keys) -> None:
        self._once = once
        self._keys = keys

    def put(self, ticket: Ticket, now: datetime) -> str:
        """Keep a signed ticket and return the text to hand over. Raises StoreUnavailable."""
        text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        record = canonical({**ticket.hashed(), "signature": ticket.signature}).decode()
        held = self._once.claim("ticket", _hash(text), record, expires_at=ticket.expires_at, now=now)
        if held is not None:
            raise Conflict("two tickets cannot have one text")
        return text

    def find(self, text: str, now: datetime) -> Ticket:
        """Return the ticket of that text where it is one of ours and has not expired. Raises TicketInvalid,
        StoreUnavailable. Does not use it up."""
        if not text.startswith(PREFIX) or len(text) > _MAX_TEXT:
            raise ticket_invalid("not one of ours")
        record = self._once.held("ticket", _hash(text), now=now)
        if record is None:
            raise ticket_invalid("unknown or expired")
        try:
            ticket = _ticket(json.loads(record))
            verify_ticket(ticket, self._keys)
        except (KeyError, TypeError, ValueError, ProofInvalid) as error:
            raise ticket_invalid(f"its record is not one that we signed: {type(error).__name__}") from None
        if now >= ticket.expires_at:
            raise ticket_invalid("expired", ticket=ticket.id)
        return ticket

    def used(self, ticket: Ticket, now: datetime) -> Redemption | None:
        """Return who used ``ticket`` up, or None. Raises StoreUnavailable."""
        held = self._once.held("redeemed", ticket.id, now=now)
        return _redemption(held) if held is not None else None

    def use(self, ticket: Ticket, by: Redemption, now: datetime) -> None:
        """Use ``ticket`` up, for good. Raises TicketInvalid where another redemption did, StoreUnavailable."""
        ours = canonical({"hop": by.hop, "key": by.key}).decode()
        until = ticket.expires_at + _MEMORY
        held = self._once.claim("redeemed", ticket.id, ours, expires_at=until, now=now)
        if held is not None and _redemption(held) != by:
            raise ticket_invalid("redeemed before", ticket=ticket.id)


def _redemption(held: str) -> Redemption:
    told = json.loads(held)
    if not HOP_ID.match(told["hop"]):  # whoever can write the table must not choose words that we then sign
        raise ticket_invalid("its use was not written by us")
    return Redemption(hop=HopId(told["hop"]), key=told["key"])


def _hash(text: str) -> str:
    return sha256_hex(text.encode())


def _ticket(record: Mapping[str, Any]) -> Ticket:
    """Return the ticket that a record states, whose hash will show whether it is that of what was signed."""
    return Ticket(
        id=TicketId(record["id"]),
        txn=Txn(record["txn"]),
        parent=HopId(record["parent"]),
        parent_sha256=record["parent_sha256"],
        redeemer=_redeemer(record["redeemer"]),
        name=record["name"],
        scope=tuple(record["scope"]),
        max_depth=record["max_depth"],
        hop_expires_at=datetime.fromisoformat(record["hop_expires_at"]),
        rules=tuple(record["rules"]),
        issued_at=datetime.fromisoformat(record["issued_at"]),
        expires_at=datetime.fromisoformat(record["expires_at"]),
        signature=record["signature"],
    )


def _redeemer(record: Mapping[str, Any]) -> Redeemer:
    if "key" in record:
        return ByKey(thumbprint=record["key"])
    return ByIssuer(issuer=record["issuer"], claims=tuple((name, value) for name, value in record["claims"]))
