"""The rows of a copy, each with its place in its table: what an hourly digest must have counted.

A row is *made* once, and the change that made it is what a digest counts (``domain.digest.kind_of``); what a session or
a connection row became later is covered by what is signed (the grant's effects, the manifest). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, assert_never

from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session

Row: TypeAlias = Hop | Session | ConnectionRow | Ask | Answer | Use | Revocation
# What ``domain.row_change`` lets change, by the fields' own names; a copy has no verifier.
_MAY_CHANGE: Final[Mapping[type, frozenset[str]]] = {
    Session: frozenset({"status", "grant", "verifier", "closed_at", "close_reason"}),
    ConnectionRow: frozenset({"sealed_at", "exit", "manifest_key", "manifest_sha256"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a row is: its table, the text of its key, how findings name it, and when it was made."""

    table: str
    key: str
    name: str
    at: datetime


def place_of(row: Row) -> Place:
    match row:
        case Hop():
            keys: Mapping[str, Json] = {"txn": row.txn, "place": f"{row.depth:02d}#{row.id}"}
            return _place("chains", keys, row.id, row.issued_at)
        case Session():
            return _place("sessions", {"id": row.id}, row.id, row.created_at)
        case ConnectionRow():
            return _place("connections", {"session": row.session_id, "id": row.id}, row.id, row.opened_at)
        case Ask():
            return _place("asks", {"id": row.id}, row.id, row.created_at)
        case Answer():
            keys = {"ask": row.ask_id, "person": row.person}
            return _place("answers", keys, f"{row.ask_id}#{row.person}", row.answered_at)
        case Use():
            return _place("uses", {"ask": row.ask_id, "n": row.n}, f"{row.ask_id}#{row.n}", row.at)
        case Revocation():
            return _place("revocations", {"id": f"feed#{row.number}"}, f"revocations {row.number}", row.at)
        case _:
            assert_never(row)


def differing_fields(row: Row, made: Mapping[str, Json]) -> tuple[str, ...]:
    """Return the names of the fields in which ``row`` is another one than the document with which it was made; those
    that may have changed since are left out."""
    may_change = _MAY_CHANGE.get(type(row), frozenset())
    return tuple(
        field.name
        for field in fields(row)
        if field.name not in may_change and not _is_told(getattr(row, field.name), field, made)
    )


def _is_told(value: object, field: Field[Any], made: Mapping[str, Json]) -> bool:
    if field.name not in made:  # the row was made before there was such a field
        return bool(value == field.default)
    return _same(value, made[field.name])


def _same(value: object, told: Json) -> bool:
    if isinstance(value, datetime):
        return isinstance(told, str) and _is_moment(value, told)
    if is_dataclass(value):
        return isinstance(told, Mapping) and all(
            _is_told(getattr(value, field.name), field, told) for field in fields(value)
        )
    if isinstance(value, tuple):
        return isinstance(told, list) and len(told) == len(value) and all(map(_same, value, told))
    if isinstance(value, str):
        return isinstance(told, str) and str(value) == told
    return type(value) is type(told) and value == told


def _is_moment(value: datetime, told: str) -> bool:
    try:
        return datetime.fromisoformat(told) == value
    except (ValueError, TypeError):
        return False


def _place(table: str, keys: Mapping[str, Json], name: str, at: datetime) -> Place:
    return Place(table=table, key=canonical(keys).decode(), name=name, at=at)
