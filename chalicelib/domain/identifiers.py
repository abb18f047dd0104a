"""Identifiers: a visible prefix and a ULID in lower case, so that they sort by time and a reader sees what they name.

``txn``, the chain's id, is a bare ULID of 26 characters: it must fit an STS SourceIdentity and the 63 bytes of
PostgreSQL's ``application_name``. Source: the ULID specification (48 bits of milliseconds, 80 random bits, Crockford
base 32).
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
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

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ULID: Final = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
SESSION_ID: Final = re.compile(rf"ses_{_ULID}\Z")
TXN: Final = re.compile(rf"{_ULID}\Z")
HOP_ID: Final = re.compile(rf"hop_{_ULID}\Z")


def ulid(now: datetime) -> str:
    """Return a new ULID of ``now`` (aware UTC), 26 characters. Not monotonic within one millisecond."""
    value = (int(now.timestamp() * 1000) << 80) | secrets.randbits(80)
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


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
