"""Rows as documents: one attribute holds the whole value as JSON text, in the shape of its dataclass.

Why one attribute and not a column a field: nothing in a table is ever searched by a field (authority is read by key),
so columns would only be a second description of every dataclass, free to differ from the first. pydantic reads the
standard library's dataclasses as they are, which keeps the domain free of it, and validates in strict mode: a row that
does not have its type's shape is an error and never a default.

Moments keep their microseconds here; what is *signed* goes through ``domain.canonical`` and has milliseconds.

Two releases write the same tables while one follows the other: a member that this one does not know is left alone where
it is read, and stays where its row is changed (:func:`revised_document`; docs/upgrades.md).
"""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import RowUnreadable

T = TypeVar("T")


@cache  # building an adapter costs milliseconds, and there is one for each kind of row
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_document(value: Any) -> str:
    """Return the JSON text of a dataclass of the domain. Equal values have equal texts."""
    kind: Any = type(value)
    return _adapter(kind).dump_json(value).decode()


def from_document(kind: type[T], text: str) -> T:
    """Return the ``kind`` that ``text`` holds. Raises RowUnreadable where it holds none: fail closed, since a row
    that cannot be read may be the one that says no."""
    try:
        shape: Any = kind
        value: T = _adapter(shape).validate_json(text, strict=True)
    except ValidationError as error:
        fields = sorted({".".join(str(part) for part in line["loc"]) for line in error.errors(include_input=False)})
        # ``from None``: the error's text quotes what it was given, and a row may hold a verifier's keys.
        raise RowUnreadable("a stored row cannot be read", kind=kind.__name__, fields=fields) from None
    try:
        _check_moments(value)
    except ValueError:
        raise RowUnreadable("a stored row cannot be read", kind=kind.__name__, fields=["a moment"]) from None
    return value


def revised_document(text: str, before: T, after: T) -> str:
    """Return ``text``, which holds ``before``, with the members in which ``after`` differs, and nothing else changed.

    Why not the whole of ``after``: what the other release's shape has and ours has not would be lost, and what ours has
    and its has not would come in, and either is a change of evidence that nobody made (``domain.row_change``). Raises
    RowUnreadable.
    """
    old, new = json.loads(to_document(before)), json.loads(to_document(after))
    try:
        kept = json.loads(text)
        changed = {name: value for name, value in new.items() if value != old[name]}
        return json.dumps(kept | changed, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:  # NaN, which another reader takes and we never wrote
        raise RowUnreadable("a stored row cannot be read", kind=type(before).__name__) from None


def _check_moments(value: object) -> None:
    """Raise ValueError where a moment in ``value`` has no form in UTC, as nothing that we wrote: pydantic reads one of
    year 1 east of Greenwich, and one without a zone, and whoever hashes it later would fall over it."""
    match value:
        case datetime():
            timestamp(value)
        case tuple():
            for item in value:
                _check_moments(item)
        case _ if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                _check_moments(getattr(value, field.name))
