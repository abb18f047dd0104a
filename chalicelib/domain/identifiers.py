"""Identifiers: a visible prefix and a ULID in lower case, so that they sort by time and a reader sees what they name.

``txn``, the chain's id, is a bare ULID of 26 characters: it must fit an STS SourceIdentity and the 63 bytes of
PostgreSQL's ``application_name``. Source: the ULID specification (48 bits of milliseconds, 80 random bits, Crockford
base 32).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NewType

Txn = NewType("Txn", str)
HopId = NewType("HopId", str)
SessionId = NewType("SessionId", str)
GrantId = NewType("GrantId", str)
AskId = NewType("AskId", str)
ConnectionId = NewType("ConnectionId", str)
OperationId = NewType("OperationId", str)
PersonId = NewType("PersonId", str)
TicketId = NewType("TicketId", str)
SignoffId = NewType("SignoffId", str)
LegalHoldId = NewType("LegalHoldId", str)
CopyId = NewType("CopyId", str)

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
SESSION_ID: Final = re.compile(rf"ses_{_ULID}\Z")
CONNECTION_ID: Final = re.compile(rf"con_{_ULID}\Z")
TXN: Final = re.compile(rf"{_ULID}\Z")
ASK_ID: Final = re.compile(rf"ask_{_ULID}\Z")
HOP_ID: Final = re.compile(rf"hop_{_ULID}\Z")
LEGAL_HOLD_ID: Final = re.compile(rf"hld_{_ULID}\Z")


def ulid(now: datetime) -> str:
    """Return a new ULID of ``now`` (aware UTC), 26 characters. Not monotonic within one millisecond."""
    return ulid_of(now, secrets.token_bytes(10))


def ulid_of(moment: datetime, low: bytes) -> str:
    """Return the ULID of ``moment`` whose low 80 bits are ``low`` (10 bytes): the same for the same two. Pure."""
    value = (int(moment.timestamp() * 1000) << 80) | int.from_bytes(low, "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def ulid_prefixes(start: datetime, end: datetime) -> Iterator[str]:
    """Give what ULIDs of ``start`` to ``end`` begin with, each for 17 minutes: listings that stay short. Pure."""
    span = 20  # bits of milliseconds below six characters
    for step in range(int(start.timestamp() * 1000) >> span, (int(end.timestamp() * 1000) >> span) + 1):
        yield "".join(_ALPHABET[(step >> shift) & 31] for shift in range(25, -5, -5))


def new_txn(now: datetime) -> Txn:
    return Txn(ulid(now))


def new_hop_id(now: datetime) -> HopId:
    return HopId(f"hop_{ulid(now)}")


def new_session_id(now: datetime) -> SessionId:
    return SessionId(f"ses_{ulid(now)}")


def new_grant_id(now: datetime) -> GrantId:
    return GrantId(f"grt_{ulid(now)}")


def new_ask_id(now: datetime) -> AskId:
    return AskId(f"ask_{ulid(now)}")


def new_connection_id(now: datetime) -> ConnectionId:
    return ConnectionId(f"con_{ulid(now)}")


def new_operation_id(now: datetime) -> OperationId:
    return OperationId(f"op_{ulid(now)}")


def new_ticket_id(now: datetime) -> TicketId:
    return TicketId(f"tkt_{ulid(now)}")


def new_signoff_id(now: datetime) -> SignoffId:
    return SignoffId(f"sgn_{ulid(now)}")


def new_copy_id(now: datetime) -> CopyId:
    return CopyId(f"cpy_{ulid(now)}")


def new_legal_hold_id(now: datetime) -> LegalHoldId:
    return LegalHoldId(f"hld_{ulid(now)}")


def made_at(identifier: str) -> datetime:
    """Return the moment (aware UTC, milliseconds) that an identifier's ULID names. Raises ValueError. Pure."""
    text = identifier.rpartition("_")[2]
    if not TXN.match(text):
        raise ValueError("no identifier of ours")
    value = 0
    for char in text[:10]:  # 48 bits of milliseconds are the first ten of its characters
        value = value << 5 | _ALPHABET.index(char)
    return _EPOCH + timedelta(milliseconds=value)
