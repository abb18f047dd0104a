"""What is planted in the demo targets: the same rows on every start, each secret value unique and listed.

Rules: values are derived from their row's number alone, so that a test on another machine finds the same ones; e-mail
addresses are under ``.example`` (RFC 2606), card numbers pass the Luhn check (ISO/IEC 7812-1 annex B) and start with
4000, as test cards do. Nothing here is about a person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

CUSTOMERS: Final = 1_000
ORDERS: Final = 10_000
_FIRST: Final = (
    *("Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiroshi", "Inés", "Jürgen"),
    *("Keiko", "Liam", "Mei", "Noor", "Olga", "Priya", "Quentin", "Rosa", "Søren", "Tariq"),
)
_LAST: Final = (
    *("Abara", "Brandt", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Hansen", "Ito", "Jansen"),
    *("Kowalski", "Lopez", "Moreau", "Novak", "Okafor", "Petrov", "Quist", "Rossi", "Sato", "Tanaka"),
)
_SINCE: Final = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Customer:
    id: int
    name: str
    email: str
    card_number: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    id: int
    customer_id: int
    amount_cents: int
    created_at: datetime


def customers() -> Iterator[Customer]:
    """Yield the customers, in order of id."""
    for number in range(1, CUSTOMERS + 1):
        first, last = _FIRST[_drawn("first", number, len(_FIRST))], _LAST[_drawn("last", number, len(_LAST))]
        yield Customer(
            id=number,
            name=f"{first} {last}",
            email=f"{_drawn('email', number, 16**6):06x}.{number}@mail.example",
            card_number=card_number(number),
            note=_note(number),
        )


def orders() -> Iterator[Order]:
    """Yield the orders, in order of id and of time."""
    for number in range(1, ORDERS + 1):
        yield Order(
            id=number,
            customer_id=_drawn("customer", number, CUSTOMERS) + 1,
            amount_cents=_drawn("amount", number, 50_000) + 100,
            created_at=_SINCE + timedelta(hours=2 * number),
        )


def planted() -> list[str]:
    """Return every secret value of the rows above: what must be found neither on the wire nor in a recording."""
    rows = list(customers())
    return [row.email for row in rows] + [row.card_number for row in rows]


def card_number(number: int) -> str:
    """Return the card number of a customer: 16 digits, the last one Luhn's."""
    body = f"4000{_drawn('card', number, 10**7):07d}{number:04d}"
    digits = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(body)]
    return f"{body}{-sum(digit - 9 if digit > 9 else digit for digit in digits) % 10}"


def _note(number: int) -> str:
    notes = ("", "prefers delivery on Fridays", "returned one parcel", "asked for an invoice", "loyal since the start")
    return notes[_drawn("note", number, len(notes))]


def _drawn(what: str, number: int, below: int) -> int:
    """Return a number in [0, below) that depends on its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"countersign:{what}:{number}".encode()).digest()[:8]) % below
